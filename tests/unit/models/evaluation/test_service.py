import numpy as np
import pytest

from dermoscopy.domain import TriageTier
from models.evaluation.dataset import case_of
from models.evaluation.predict import Predictor
from models.evaluation.service import Served, abstention, serve, speed, triage

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
URGENT, MONITOR = TriageTier.URGENT.value, TriageTier.MONITOR.value
UNDETERMINED = TriageTier.UNDETERMINED.value
SERVED = (
    Served("a", "mel", (), URGENT, 10.0),
    Served("b", "", ("blur", "low_confidence"), UNDETERMINED, 20.0),
    Served("c", "nv", (), MONITOR, 30.0),
    Served("d", "nv", (), MONITOR, 40.0),
)
DIAGNOSES = {"a": "mel", "b": "nv", "c": "mel", "d": "nv"}


def test_abstention_counts_reasons_and_leaves_the_rest_to_be_judged():
    found = abstention(SERVED, DIAGNOSES, np.ones((1, 4)), CLASSES)
    assert found["abstained"]["value"] == pytest.approx(0.25)
    assert found["reasons"] == {"blur": 0.25, "low_confidence": 0.25}
    assert found["by_class"] == {"mel": {"images": 2, "abstained": 0.0}, "nv": {"images": 2, "abstained": 0.5}}
    assert found["answered"]["images"] == 3
    assert found["answered"]["accuracy"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["answered"]["balanced_accuracy"]["value"] == pytest.approx(0.75)


def test_a_melanoma_that_nobody_is_warned_of_is_counted():
    found = triage(SERVED, DIAGNOSES, ["mel", "bcc"])
    assert found["table"]["mel"][URGENT] == 1
    assert found["overlooked"] == {"mel": {"images": 2, "not_flagged": 1}}


def test_speed_of_nothing_is_no_figure():
    assert speed(SERVED) == {"images": 4, "median": 25.0, "p95": 38.5}
    assert speed(())["median"] is None


def test_the_whole_algorithm_abstains_on_what_is_no_lesion(build_package):
    """A uniform frame: the quality gate says no, whatever the network says."""
    uniform = case_of("grey", np.full((256, 256, 3), 127, np.uint8))
    (found,) = serve(Predictor(build_package(), threads=1), [uniform])
    assert found.primary == "" and found.reasons and found.milliseconds > 0
