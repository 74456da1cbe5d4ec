import json
from types import SimpleNamespace

import numpy as np
import pytest

from dermoscopy.phantoms import phantom
from models.evaluation.dataset import Case, case_of
from models.evaluation.figures import Sample
from models.evaluation.predict import Predictor
from models.evaluation.subgroups import (
    ENOUGH,
    TRAITS,
    UNKNOWN,
    difference_interval,
    gap,
    measure_subgroups,
    subgroups,
    traits_of,
)

CLASSES = ("bcc", "mel", "nv")
THRESHOLDS = SimpleNamespace(
    melanoma=SimpleNamespace(probability=0.5),
    malignancy=SimpleNamespace(probability=0.5, classes=[SimpleNamespace(value="bcc"), SimpleNamespace(value="mel")]),
)


def images(*parts):
    """Parts of (sex, true class, called class, number); every image is a lesion of its own."""
    rows = [(sex, CLASSES.index(true), CLASSES.index(called)) for sex, true, called, n in parts for _ in range(n)]
    probability = np.full((len(rows), 3), 0.1)
    for row, (_, _, called) in enumerate(rows):
        probability[row, called] = 0.8
    names = tuple(f"i{n}" for n in range(len(rows)))
    target, called = np.array([r[1] for r in rows]), np.array([r[2] for r in rows])
    traits = {name: {**dict.fromkeys(TRAITS, UNKNOWN), "sex": row[0]} for name, row in zip(names, rows, strict=True)}
    return Sample(names, CLASSES, probability, target, called, names), traits


def test_rates_are_counted_by_group_and_operating_point():
    sample, traits = images(
        ("female", "mel", "mel", 18), ("female", "mel", "nv", 2), ("female", "nv", "nv", 30),
        ("female", "bcc", "mel", 10),
        ("male", "mel", "mel", 10), ("male", "mel", "bcc", 10), ("male", "nv", "nv", 45), ("male", "nv", "bcc", 5),
    )  # fmt: skip
    found = subgroups(sample, traits, THRESHOLDS, draws=50)
    sex = found["traits"]["sex"]
    female, male = sex["groups"]["female"], sex["groups"]["male"]
    assert female["melanoma"]["sensitivity"]["value"] == 0.9
    assert female["melanoma"]["sensitivity"]["images"] == 20
    assert female["melanoma"]["specificity"]["value"] == 0.75
    assert male["melanoma"]["specificity"]["value"] == 1.0
    assert male["malignancy"]["sensitivity"]["value"] == 1.0  # a melanoma called bcc is malignant all the same
    assert male["malignancy"]["specificity"]["value"] == 0.9
    assert male["balanced_accuracy"]["value"] == pytest.approx((0.5 + 0.9) / 2)
    assert male["balanced_accuracy"]["classes"] == ["mel", "nv"]
    gaps = sex["gaps"]["melanoma"]
    assert (gaps["sensitivity"]["value"], gaps["false_positive_rate"]["value"]) == (0.4, 0.25)
    assert gaps["equalised_odds"]["value"] == 0.4 and gaps["equalised_odds"]["of"] == "sensitivity"
    assert (gaps["sensitivity"]["highest"], gaps["sensitivity"]["lowest"]) == ("female", "male")
    assert gaps["equalised_odds"]["flag"] and "excludes 5 points or less" in gaps["equalised_odds"]["verdict"]
    assert any(flag.startswith("sex, melanoma: sensitivity: 40 points") for flag in found["flags"])
    json.dumps(found, allow_nan=False)


def test_small_and_unknown_groups_are_listed_but_enter_no_gap():
    sample, traits = images(
        ("female", "mel", "mel", 25), ("female", "nv", "nv", 25), ("male", "mel", "nv", ENOUGH - 1),
        ("male", "nv", "nv", 25), (UNKNOWN, "mel", "nv", 30), (UNKNOWN, "nv", "mel", 30),
    )  # fmt: skip
    sex = subgroups(sample, traits, THRESHOLDS, draws=10)["traits"]["sex"]
    assert list(sex["groups"]) == ["female", "male", UNKNOWN]
    assert sex["groups"]["male"]["melanoma"]["sensitivity"]["value"] == 0.0
    assert sex["too_small"]["melanoma"] == {"sensitivity": {"male": ENOUGH - 1}, "specificity": {}}
    assert sex["gaps"]["melanoma"]["sensitivity"]["value"] is None
    assert sex["gaps"]["melanoma"]["false_positive_rate"]["value"] == 0.0
    assert not sex["gaps"]["melanoma"]["equalised_odds"]["flag"]


def test_images_of_one_lesion_are_one_witness():
    sample, traits = images(("female", "mel", "mel", 40), ("female", "nv", "nv", 40))
    once = subgroups(sample, traits, THRESHOLDS, draws=10)["traits"]["sex"]["groups"]["female"]["melanoma"][
        "sensitivity"
    ]
    paired = Sample(
        sample.ids, CLASSES, sample.probability, sample.target, sample.called, tuple(f"l{n // 2}" for n in range(80))
    )
    twice = subgroups(paired, traits, THRESHOLDS, draws=10)["traits"]["sex"]["groups"]["female"]["melanoma"][
        "sensitivity"
    ]
    assert (once["independent"], twice["independent"], twice["lesions"]) == (40.0, 20.0, 20)
    assert twice["interval"][0] < once["interval"][0] < twice["value"] == 1.0


def test_newcombe_interval_as_published():
    # Newcombe 1998, table II, 56/70 against 48/80, method 10: 0.0524 to 0.3339.
    low, high = difference_interval((56 / 70, 70), (48 / 80, 80), 0.95)
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_a_gap_of_chance_is_seldom_called_certain():
    random = np.random.default_rng(3)
    rounds, seen, certain = 300, 0, 0
    for _ in range(rounds):
        rates = {str(group): (random.binomial(30, 0.85) / 30, 30.0) for group in range(5)}
        found = gap(rates)
        seen += found["flag"]
        certain += found["interval"][0] > 0.05
    assert seen > 0.9 * rounds  # five groups of 30 nearly always differ by more than 5 points …
    assert certain <= 0.05 * rounds  # … and nearly never so much that chance is excluded


def test_verdicts():
    many = 1e6
    assert "excludes 5 points or less" in gap({"a": (0.9, many), "b": (0.8, many)})["verdict"]
    assert "excludes more" in gap({"a": (0.9, many), "b": (0.89, many)})["verdict"]
    assert "does not exclude more" in gap({"a": (0.9, 30.0), "b": (0.89, 30.0)})["verdict"]
    assert "does not exclude 5 points" in gap({"a": (0.9, 30.0), "b": (0.8, 30.0)})["verdict"]


def test_traits_come_from_the_table_and_the_picture():
    drawn = phantom(2, kind="nevus")
    table = {"age": "45.0", "sex": "Female", "localization": "back", "dx_type": "histo", "fitzpatrick": "III"}
    found = traits_of(case_of("a", drawn.pixels, drawn.mask, "nv", "", table))
    assert list(found) == list(TRAITS)
    assert (found["age"], found["sex"], found["localization"], found["fitzpatrick"]) == (
        "45 to 59",
        "female",
        "back",
        "iii",
    )
    assert found["lesion_size"] == ("10 to 25 %" if drawn.mask.mean() >= 0.1 else "under 10 %")
    assert found["skin_tone"] != UNKNOWN and found["skin_tone_balanced"] != UNKNOWN
    bare = traits_of(case_of("b", drawn.pixels))
    assert set(bare.values()) == {UNKNOWN}


@pytest.mark.parametrize(
    ("text", "group"), [("0", "under 30"), ("30", "30 to 44"), ("75.0", "75 and over"), ("nan", UNKNOWN)]
)
def test_ages(text, group):
    drawn = phantom(2, kind="nevus", rows=64, columns=64)
    assert traits_of(case_of("a", drawn.pixels, None, attributes={"age": text}))["age"] == group


def test_a_mask_of_a_part_of_the_frame_is_measured_there():
    drawn = phantom(2, kind="nevus", rows=200, columns=200)
    wide = np.full((200, 300, 3), 20, np.uint8)
    wide[:, 50:250] = drawn.pixels
    inside = traits_of(Case("a", lambda: wide, lambda: drawn.mask, "nv", "a", {}, (0, 50, 200, 250)))
    assert inside == traits_of(case_of("a", drawn.pixels, drawn.mask, "nv"))


def test_without_a_reference_mask_the_model_draws_the_outline(build_package):
    predictor = Predictor(build_package(), threads=1)
    drawn = phantom(4, kind="melanoma-like", rows=96, columns=96)
    cases = [case_of(name, drawn.pixels, None, "mel") for name in ("a", "b", "left out")]
    answers = predictor.answers(cases[:2])
    classes = tuple(label.value for label in predictor.manifest.classes)
    sample = Sample(answers.ids, classes, answers.probability, np.full(2, 4), answers.called, ("a", "b"))
    found = measure_subgroups(predictor, cases, sample, draws=10)
    assert sum(group["images"] for group in found["traits"]["lesion_size"]["groups"].values()) == 2
    assert list(found["traits"]["lesion_size"]["groups"]) != [UNKNOWN]
    assert "fitzpatrick" not in found["traits"]
    assert found["traits"]["sex"]["groups"][UNKNOWN]["images"] == 2
