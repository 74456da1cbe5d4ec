"""A run folder belongs to the settings that decide its weights: those, and not how they are written down."""

import json

import pytest
import yaml

from models.training.configuration import load_configuration
from models.training.run_folder import OtherRun, begin_run

FACTS = {"split_sha256": "a", "left_out": []}


def _configuration(settings, folder, **changed):
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(settings | changed))
    return load_configuration(path)


def test_a_claim_of_older_code_without_newer_options_still_holds(settings, tmp_path):
    configuration = _configuration(settings, tmp_path)
    claim = tmp_path / "run.json"
    begin_run(tmp_path, configuration, FACTS)
    content = json.loads(claim.read_text())
    for name in ("patience", "thaw", "device", "start_from"):
        del content["settings"]["optimisation"][name]
    for name in ("layout", "folder", "table", "sampling", "known_copies"):
        del content["settings"]["data"][name]
    del content["settings"]["distillation"], content["settings"]["left_out"]
    claim.write_text(json.dumps({"digest": "of older code", "code": "commit abc", "settings": content["settings"]}))
    assert begin_run(tmp_path, configuration, FACTS) == "commit abc"


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"seed": 4}, "seed"), ({"optimisation": {"epochs": 3, "batch": 7, "threads": 1}}, "optimisation")],
)
def test_other_settings_are_named(settings, tmp_path, changed, named):
    begin_run(tmp_path, _configuration(settings, tmp_path), FACTS)
    with pytest.raises(OtherRun, match=rf"\({named} changed\)"):
        begin_run(tmp_path, _configuration(settings, tmp_path, **changed), FACTS)


def test_another_split_and_other_images_left_out_are_named(settings, tmp_path):
    configuration = _configuration(settings, tmp_path)
    begin_run(tmp_path, configuration, FACTS)
    with pytest.raises(OtherRun, match=r"\(left_out, split_sha256 changed\)"):
        begin_run(tmp_path, configuration, {"split_sha256": "b", "left_out": ["I1"]})


def test_what_acts_after_training_may_change(settings, tmp_path):
    begin_run(tmp_path, _configuration(settings, tmp_path), FACTS)
    begin_run(tmp_path, _configuration(settings, tmp_path, export={"views": ["identity", "mirror"]}), FACTS)
