"""When another form of a network is offered, and what is said of it."""

import numpy as np
import pytest

from models.evaluation.dataset import case_of
from models.evaluation.predict import Answers
from models.training.agreement import TOLERANCES, compare, figures, refusals

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def answers(melanoma, jaccard=0.8):
    """Images with these melanoma probabilities, all else nevus."""
    probability = np.zeros((len(melanoma), 7))
    probability[:, 4] = melanoma
    probability[:, 5] = 1 - probability[:, 4]
    ids = tuple(str(number) for number in range(len(melanoma)))
    logits = np.log(probability + 1e-6).astype(np.float32)
    embedding = np.zeros((len(melanoma), 2), np.float32)
    return Answers(ids, logits, probability, probability.argmax(1), embedding, np.full(len(melanoma), jaccard))


CASES = [
    case_of(str(number), np.zeros((8, 8, 3), np.uint8), None, diagnosis)
    for number, diagnosis in enumerate(["mel", "mel", "nv", "nv"])
]


def test_figures_are_those_of_the_operating_point(build_package):
    found = figures(answers([0.9, 0.3, 0.2, 0.45]), CASES, build_package().manifest)
    assert found == {
        "images": 4,
        "balanced_accuracy": 0.75,
        "melanoma_auc": 0.75,
        "melanoma_sensitivity": 0.5,
        "melanoma_specificity": 0.5,
        "mean_jaccard": 0.8,
    }


def test_images_without_a_diagnosis_or_an_outline_are_left_out(build_package):
    cases = [*CASES[:1], case_of("x", np.zeros((8, 8, 3), np.uint8)), *CASES[2:]]
    found = figures(answers([0.9, 0.0, 0.2, 0.1], np.nan), cases, build_package().manifest)
    assert (found["images"], found["balanced_accuracy"], found["mean_jaccard"]) == (3, 1.0, None)


def test_a_comparison_says_what_changed(build_package):
    found = compare(answers([0.9, 0.6, 0.2, 0.1]), answers([0.9, 0.3, 0.2, 0.1], 0.7), CASES, build_package().manifest)
    assert found["called_otherwise"] == 0.25
    assert found["probability_difference"] == {"max": 0.3, "mean": pytest.approx(0.6 / 28, abs=1e-4)}
    assert found["change"]["melanoma_sensitivity"] == -0.5
    assert found["change"]["mean_jaccard"] == pytest.approx(-0.1)


@pytest.mark.parametrize("name", list(TOLERANCES))
def test_losing_more_than_the_tolerance_is_a_refusal_and_gaining_is_not(name):
    still = dict.fromkeys(TOLERANCES, 0.0)
    lost, kept, gained = ({**still, name: sign * TOLERANCES[name]} for sign in (-1.5, -0.5, 5))
    assert name in refusals({"change": lost, "called_otherwise": 0.0})[0]
    for change in (kept, gained):
        assert refusals({"change": change, "called_otherwise": 0.0}) == []


def test_many_images_called_otherwise_are_a_refusal():
    still = dict.fromkeys(TOLERANCES, 0.0)
    assert refusals({"change": still, "called_otherwise": 0.06}) == [
        "6.0% of the images are called otherwise; 5% at most"
    ]
