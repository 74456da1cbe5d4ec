import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermoscopy.domain import LesionClass, TriageTier
from models.manifest import MalignancyPoint, OperatingPoint
from models.triage import NAMES, Risks, decision_note, triage

MELANOMA = OperatingPoint(probability=0.3, sensitivity=0.9, specificity=0.7, fold="validation")
MALIGNANCY = MalignancyPoint(probability=0.5, classes=("akiec", "bcc", "mel"))
ORDER = list(TriageTier)


def tier(melanoma, malignancy, best="nv", confidence=0.9, **options):
    risks = Risks(melanoma, malignancy, LesionClass(best), confidence)
    return triage(risks, MELANOMA, MALIGNANCY, **options).tier


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0.30, 0.31), TriageTier.URGENT),
        ((0.95, 0.97, "mel"), TriageTier.URGENT),
        ((0.29, 0.60, "bcc"), TriageTier.EXPEDITED),
        ((0.29, 0.45, "mel"), TriageTier.EXPEDITED),
        ((0.10, 0.40, "bcc"), TriageTier.EXPEDITED),
        ((0.20, 0.25, "nv", 0.7), TriageTier.ROUTINE),
        ((0.01, 0.02, "nv", 0.7), TriageTier.ROUTINE),
        ((0.08, 0.10, "nv", 0.9), TriageTier.ROUTINE),
        ((0.01, 0.02, "nv", 0.95), TriageTier.MONITOR),
        ((0.01, 0.02, "vasc", 0.95), TriageTier.MONITOR),
    ],
)
def test_tiers(arguments, expected):
    assert tier(*arguments) == expected


def test_a_doubt_never_silences_a_melanoma():
    assert tier(0.3, 0.3, abstention="the image is blurred") == TriageTier.URGENT
    found = triage(Risks(0.4, 0.5, LesionClass.NV, 0.5), MELANOMA, MALIGNANCY, abstention="the image is blurred")
    assert "the image is blurred" in found.reason
    assert "Retake" in found.recommendation


def test_a_doubt_without_risk_is_undetermined_with_advice():
    found = triage(Risks(0.01, 0.02, LesionClass.NV, 0.99), MELANOMA, MALIGNANCY, abstention="no lesion found")
    assert found.tier == TriageTier.UNDETERMINED
    assert "no lesion found" in found.reason
    assert re.search("Retake.*in person", found.recommendation)


def test_no_photograph_no_opinion():
    found = triage(
        Risks(0.9, 0.9, LesionClass.MEL, 0.9),
        MELANOMA,
        MALIGNANCY,
        faults=("the frame is black or nearly black",),
        abstention="the frame is black or nearly black",
    )
    assert found.tier == TriageTier.UNDETERMINED
    assert re.search("Retake.*in person", found.recommendation)
    assert "%" not in found.reason


probability = st.floats(0, 1)


@given(probability, probability, st.sampled_from(list(LesionClass)), probability)
def test_a_doubt_never_lowers_urgency(melanoma, rest, best, confidence):
    malignancy = min(1.0, melanoma + rest)
    plain = tier(melanoma, malignancy, best, confidence)
    doubted = tier(melanoma, malignancy, best, confidence, abstention="glare covers much of the image")
    if plain in (TriageTier.URGENT,) or malignancy >= MALIGNANCY.probability:
        assert doubted == plain
    else:
        assert doubted == TriageTier.UNDETERMINED


@given(probability, probability, probability, st.sampled_from(list(LesionClass)), probability)
def test_more_melanoma_is_never_less_urgent(one, other, rest, best, confidence):
    low, high = sorted((one, other))
    assert ORDER.index(tier(high, min(1.0, high + rest), best, confidence)) <= ORDER.index(
        tier(low, min(1.0, low + rest), best, confidence)
    )


def test_every_verdict_says_why_and_what_to_do_and_never_just_a_number():
    values = (0.0, 0.1, 0.3, 0.6, 1.0)
    for melanoma, best, confidence, doubtful in itertools.product(values, LesionClass, (0.3, 0.9), (None, "blurred")):
        found = triage(Risks(melanoma, melanoma, best, confidence), MELANOMA, MALIGNANCY, abstention=doubtful)
        assert found.reason.endswith(".")
        assert found.recommendation.endswith(".")
        assert len(re.sub(r"[\d.%\s]", "", found.reason)) > 20
        if "%" in found.reason:
            assert "operating point" in found.reason


def test_every_class_has_a_name():
    assert set(NAMES) == set(LesionClass)


@pytest.mark.parametrize(("best", "called"), [("nv", "bcc"), ("nv", "mel"), ("mel", "df"), ("akiec", "nv")])
def test_a_dangerous_class_is_not_let_go_whether_called_or_most_probable(best, called):
    found = triage(Risks(0.1, 0.2, LesionClass(best), 0.95, LesionClass(called)), MELANOMA, MALIGNANCY)
    assert found.tier == TriageTier.EXPEDITED
    role = "most probable class" if best in ("mel", "akiec") else "class called"
    assert f"the {role} is" in found.reason


def test_a_class_that_is_called_against_the_odds_is_no_clear_case():
    clear = Risks(0.01, 0.02, LesionClass.NV, 0.95)
    assert triage(clear, MELANOMA, MALIGNANCY).tier == TriageTier.MONITOR
    other = triage(Risks(0.01, 0.02, LesionClass.NV, 0.95, LesionClass.DF), MELANOMA, MALIGNANCY)
    assert other.tier == TriageTier.ROUTINE
    assert "The class called is dermatofibroma" in other.reason


@given(
    st.floats(0, 1), st.floats(0, 1), st.sampled_from(list(LesionClass)), st.sampled_from(list(LesionClass)),
    st.floats(0, 1),
)  # fmt: skip
def test_weights_never_lower_a_tier(melanoma, malignancy, best, called, confidence):
    plain = triage(Risks(melanoma, malignancy, best, confidence), MELANOMA, MALIGNANCY)
    weighted = triage(Risks(melanoma, malignancy, best, confidence, called), MELANOMA, MALIGNANCY)
    assert ORDER.index(weighted.tier) <= ORDER.index(plain.tier)


def test_the_note_says_both_probabilities_and_the_weight():
    probability = {LesionClass.NV: 0.55, LesionClass.BCC: 0.21}
    weight = {LesionClass.NV: 1.0, LesionClass.BCC: 4.9}
    assert decision_note(LesionClass.NV, LesionClass.NV, probability, weight) == ""
    said = decision_note(LesionClass.BCC, LesionClass.NV, probability, weight)
    assert said.startswith("Called basal cell carcinoma (21.0 %) although melanocytic nevus is more probable (55.0 %)")
    assert "4.9 times the weight" in said
