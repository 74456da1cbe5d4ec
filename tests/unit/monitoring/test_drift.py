"""Drift reports: quiet where nothing changed, and naming what did."""

import json
import math
import random
import subprocess
import sys

import pytest

from monitoring.drift import report
from monitoring.features import features
from tests.unit.monitoring.conftest import make_analysis

pytestmark = pytest.mark.timeout(300)  # the first import alone takes seconds, minutes on a busy machine
pytest.importorskip("evidently", reason="drift reports need the extra `drift` (evidently, pandas)")


def rows(seed, count, *, shift=0.0, sites=("back", "face"), missing=0.0):
    chance = random.Random(seed)
    return [
        {
            "brightness": chance.gauss(shift, 1),
            "sharpness": None if chance.random() < missing else chance.gauss(0, 1),
            "site": chance.choice(sites),
            "constant": 1.0,
            "never": None,
            "nan": math.nan,
        }
        for _ in range(count)
    ]


def test_the_same_distribution_has_not_drifted(tmp_path):
    result = report(rows(1, 500), rows(2, 300), tmp_path / "drift")
    assert not result.drifted
    assert not result.insufficient
    assert result.left_out == ("never", "nan")
    assert {feature.name for feature in result.features} == {"brightness", "sharpness", "site", "constant"}
    assert result.html is not None
    assert b"<html" in result.html.read_bytes()[:2000]
    document = json.loads(result.json.read_text())
    assert document["drifted"] is False
    assert json.loads((tmp_path / "drift" / "evidently.json").read_text())["metrics"]


def test_what_shifted_is_named(tmp_path):
    result = report(rows(1, 500), rows(2, 300, shift=1.5), tmp_path)
    assert result.drifted
    assert result.drifted_features == ("brightness",)
    assert result.features[0].name == "brightness"


def test_a_stratum_that_changed_is_named(tmp_path):
    result = report(rows(1, 500), rows(2, 300, sites=("back", "back", "back", "back", "foot")), tmp_path)
    assert result.drifted_features == ("site",)


def polarised(yes, no):
    return [{**row, "stratum_polarised": "yes"} for row in yes] + [{**row, "stratum_polarised": "no"} for row in no]


def test_a_shift_among_images_taken_the_same_way_is_not_hidden_by_the_others(tmp_path):
    """Polarised images shift up and the others down: all together nothing shows beyond the mixture's own width."""
    before = polarised(rows(1, 400, shift=-3), rows(2, 400, shift=3))
    now = polarised(rows(3, 300, shift=-1.5), rows(4, 300, shift=3))
    result = report(before, now, tmp_path)
    found = {stratum.value: [feature.name for feature in stratum.features] for stratum in result.strata}
    assert found == {"yes": ["brightness"], "no": []}
    assert result.drifted
    assert json.loads(result.json.read_text())["strata"][1]["features"][0]["name"] == "brightness"


def test_strata_too_small_to_believe_are_left_out(tmp_path):
    before = polarised(rows(1, 400), rows(2, 100))
    now = polarised(rows(3, 300), rows(4, 300, shift=5))
    assert {stratum.value for stratum in report(before, now, tmp_path).strata} == {"yes"}


def test_a_feature_that_fell_silent_is_named(tmp_path):
    result = report(rows(1, 500), rows(2, 300, missing=0.6), tmp_path)
    assert any(note.startswith("sharpness: missing in") for note in result.notes)


def test_small_windows_are_noise_and_never_drift(tmp_path):
    result = report(rows(1, 500), rows(2, 50, shift=3), tmp_path)
    assert result.insufficient
    assert not result.drifted
    assert result.drifted_features
    assert "noise" in result.notes[0]


@pytest.mark.parametrize(
    ("before", "now"), [([], []), (rows(1, 10), []), ([], rows(1, 10)), ([{"x": None}], [{"x": 1.0}])]
)
def test_nothing_to_compare_is_said(tmp_path, before, now):
    result = report(before, now, tmp_path)
    assert (result.insufficient, result.drifted, result.html) == (True, False, None)
    assert json.loads(result.json.read_text())["insufficient"] is True


def test_real_features_pass_through(tmp_path):
    before = [features(make_analysis(number)) for number in range(250)]
    now = [features(make_analysis(number, shift=1.0)) for number in range(1000, 1250)]
    result = report(before, now, tmp_path)
    assert "quality_brightness" in result.drifted_features
    assert "spacing_mm" in result.left_out


def test_serving_processes_do_not_load_evidently():
    code = "import sys, monitoring.drift, monitoring.features; assert not {'evidently', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
