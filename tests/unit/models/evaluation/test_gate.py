import json

import numpy as np
import pytest

from dermoscopy.phantoms import phantom
from models.evaluation import gate
from models.evaluation.dataset import case_of
from models.evaluation.gate import Judged, auroc, measure_gate
from models.evaluation.predict import Predictor


def test_auroc_counts_pairs():
    assert auroc([3.0, 4.0], [1.0, 2.0]) == 1.0
    assert auroc([1.0, 2.0], [3.0, 4.0]) == 0.0
    assert auroc([1.0], [1.0]) == 0.5
    assert auroc([2.0, 0.0], [1.0]) == 0.5
    assert np.isnan(auroc([], [1.0]))


def test_doubt_about_the_class_is_no_refusal():
    assert not Judged(0.1, 0.1, 1.0, ("low_confidence", "ambiguous", "lesion_cut_off")).refused
    assert Judged(2.0, 2.0, 1.0, ("unlike_training",)).refused


@pytest.fixture
def predictor(build_package):
    return Predictor(build_package(), threads=1)


def test_what_crossed_a_limit_scores_above_one(predictor):
    black = gate.judge(predictor.analyze(np.zeros((200, 200, 3), np.uint8)))
    assert black.refused
    assert black.score > 1.0
    assert "not_dermoscopy" in black.codes


def test_figures_of_a_small_gate(predictor, monkeypatch):
    few = {name: gate.families(1)[name] for name in ("noise", "document")}
    monkeypatch.setattr(gate, "families", lambda count, seed: few)
    monkeypatch.setattr(gate, "photographs", lambda count, seed: iter(()))
    made = [phantom(seed, rows=224, columns=224, vignette=False) for seed in range(2)]
    cases = [case_of(str(number), one.pixels, one.mask) for number, one in enumerate(made)]
    found = measure_gate(predictor, {"drawn": cases}, count=2)
    assert found["known"]["drawn"]["images"] == 2
    assert (
        found["known"]["drawn"]["false_alarms"]
        == sum(gate.judge(predictor.analyze(one.pixels)).refused for one in made) / 2
    )
    assert set(found["strangers"]) >= {"noise", "document"}
    assert "photograph" not in found["strangers"]
    assert found["all_strangers"]["images"] == sum(one["images"] for one in found["strangers"].values())
    assert found["spoiled"]["dark"]["named"] == 1.0
    assert found["spoiled"]["glare"]["named"] == 1.0
    json.dumps(found)


def test_a_cut_off_lesion_is_cropped_out_of_a_whole_one():
    made = phantom(1, kind="nevus", rows=450, columns=600)
    crop = gate._cut_off(made.pixels, made.mask)
    assert crop is not None
    rows = np.flatnonzero(made.mask.any(axis=1))
    assert crop.shape[0] == pytest.approx(1.5 * (rows[-1] - rows[0]), abs=6)
    touching = made.mask.copy()
    touching[0] = True
    assert gate._cut_off(made.pixels, touching) is None
