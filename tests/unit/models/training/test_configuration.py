"""A wrong configuration is named before anything heavy starts."""

from pathlib import Path

import pytest
import yaml

import models.training
from models.training.configuration import ConfigurationInvalid, load_configuration

SHIPPED = sorted((Path(models.training.__file__).parent / "configs").glob("*.yaml"))


def _load(settings, folder):
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(settings))
    return load_configuration(path)


def test_shipped_configurations_are_valid_and_each_is_a_version_of_its_own():
    made = [(its.name, its.version) for its in map(load_configuration, SHIPPED)]
    assert len(made) == len(set(made)) >= 2


def test_a_typing_error_is_named_with_the_nearest_field(settings, tmp_path):
    settings["optimisation"]["epoch"] = settings["optimisation"].pop("epochs")
    with pytest.raises(ConfigurationInvalid) as error:
        _load(settings, tmp_path)
    assert "optimisation.epoch: no such field; did you mean 'epochs'?" in str(error.value)
    assert "optimisation.epochs: field required" in str(error.value)


@pytest.mark.parametrize(
    ("section", "field", "value", "said"),
    [
        ("input", "size", 100, "input.size: input should be a multiple of 32"),
        ("optimisation", "batch", 0, "optimisation.batch: "),
        (
            "optimisation",
            "precision",
            "half",
            "optimisation.precision: input should be 'float32', 'bfloat16' or 'float16'",
        ),
        ("optimisation", "precision", "float16", "optimisation: value error, precision float16 is for device cuda"),
        ("optimisation", "thaw", {0: 3}, "optimisation.thaw.0.[key]: input should be greater than or equal to 1"),
        ("data", "layout", "zip", "data.layout: input should be 'ham10000-archives', "),
        ("data", "sampling", "natural", "data: value error, sampling natural draws every image once"),
        ("data", "dataset", "isic2018-task1", "data: value error, two collections of one name among isic2018-task1, "),
        ("data", "per_epoch", {"mel": 1}, "data: value error, per_epoch needs exactly the classes akiec, bcc"),
    ],
)
def test_a_wrong_value_is_named(settings, tmp_path, section, field, value, said):
    settings["data"]["further"] = [{"collection": "isic2018-task1"}]
    settings[section][field] = value
    with pytest.raises(ConfigurationInvalid, match=r"c\.yaml") as error:
        _load(settings, tmp_path)
    assert said in str(error.value)


def test_a_typing_error_in_a_list_is_named_with_its_place(settings, tmp_path):
    settings["data"]["further"] = [{"collection": "a", "split": "a.csv"}, {"colection": "b"}]
    with pytest.raises(ConfigurationInvalid) as error:
        _load(settings, tmp_path)
    assert "data.further.1.colection: no such field; did you mean 'collection'?" in str(error.value)


def test_a_typing_error_in_an_optional_section_is_named(settings, tmp_path):
    settings["distillation"] = {"teachr": "large.yaml"}
    with pytest.raises(ConfigurationInvalid, match=r"distillation\.teachr: no such field; did you mean 'teacher'\?"):
        _load(settings, tmp_path)


@pytest.mark.parametrize("views", [[], ["identity", "identity"]])
def test_views_are_named_once_and_at_least_one(settings, tmp_path, views):
    settings["export"] = {"views": views}
    with pytest.raises(ConfigurationInvalid, match="export: value error, views: name at least one, and each once"):
        _load(settings, tmp_path)


@pytest.mark.parametrize("content", ["a: [", "just text", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ConfigurationInvalid, match=r"c\.yaml"):
        load_configuration(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationInvalid, match=r"absent\.yaml"):
        load_configuration(tmp_path / "absent.yaml")
