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


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path):
    assert path.stem.startswith(load_configuration(path).name)


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
        ("optimisation", "precision", "half", "optimisation.precision: "),
        ("data", "per_epoch", {"mel": 1}, "data: value error, per_epoch needs exactly the classes akiec, bcc"),
    ],
)
def test_a_wrong_value_is_named(settings, tmp_path, section, field, value, said):
    settings[section][field] = value
    with pytest.raises(ConfigurationInvalid, match=r"c\.yaml") as error:
        _load(settings, tmp_path)
    assert said in str(error.value)


@pytest.mark.parametrize("content", ["a: [", "just text", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_text(content)
    with pytest.raises(ConfigurationInvalid, match=r"c\.yaml"):
        load_configuration(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigurationInvalid, match=r"absent\.yaml"):
        load_configuration(tmp_path / "absent.yaml")
