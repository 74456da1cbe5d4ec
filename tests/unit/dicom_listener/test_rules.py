"""Routing rules: which one decides, what it says of itself, and which ones are refused at the start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dermoscopy.domain import ArtifactKind
from dermoscopy.errors import Misconfigured
from dermoscopy.routing import EVERYTHING, Action, Route
from dicom_listener.header import read_header_and_facts
from dicom_listener.render import RENDERERS
from dicom_listener.rules import LOOP_GUARD, Facts, Rule, Rules
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN
from tests.unit.dicom_listener.samples import dataset, encoded, picture_source, render_input

FACTS = Facts(
    calling_ae=("CAMERA1",),
    station=("ROOM-7",),
    sop_class=(DERMOSCOPIC_PHOTOGRAPHY, "Dermoscopic Photography"),
    modality=("DMS",),
    body_part=("SKIN", "66643007", "Skin of back"),
    description=("Mole check", "Total body overview"),
)


def decided(*rules: Rule, facts: Facts = FACTS, destinations=()) -> Route:
    return Rules(rules, destinations).decide(facts).route


def test_without_rules_everything_is_analysed():
    assert decided() == EVERYTHING


@pytest.mark.parametrize(
    "condition",
    [
        {"calling_ae": ("CAM*",)},
        {"calling_ae": ("OTHER", "camera?")},
        {"station": ("room-7",)},
        {"sop_class": (DERMOSCOPIC_PHOTOGRAPHY,)},
        {"sop_class": ("dermoscopic*",)},
        {"modality": ("DMS",)},
        {"body_part": ("66643007",)},
        {"body_part": ("*back",)},
        {"description": ("/overview|survey/",)},
        {"description": ("/^mole/",)},
        {"modality": ("DMS",), "station": ("ROOM-[0-9]",)},
    ],
)
def test_a_rule_that_holds(condition):
    assert decided(Rule("r", "store", **condition)) == Route(Action.STORE, "r")


@pytest.mark.parametrize(
    "condition",
    [
        {"calling_ae": ("CAM",)},
        {"description": ("overview",)},
        {"description": ("/^overview/",)},
        {"modality": ("XC", "OT")},
        {"modality": ("DMS",), "station": ("ROOM-8",)},
    ],
)
def test_a_rule_that_does_not(condition):
    assert decided(Rule("r", "store", **condition)) == EVERYTHING


def test_an_absent_value_matches_nothing():
    assert decided(Rule("r", "refuse", station=("*",)), facts=replace(FACTS, station=())) == EVERYTHING


def test_the_first_that_holds_decides_and_says_why():
    rules = Rules(
        [
            Rule("overviews", "store", description=("/overview/",), modality=("XC",)),
            Rule("cameras", "analyse", calling_ae=("CAM*",), outputs=("sr",), destinations=("pacs",)),
            Rule("rest", "refuse"),
        ],
        ["pacs", "ehr"],
    )
    decision = rules.decide(FACTS)
    assert decision.route == Route(Action.ANALYSE, "cameras", ("sr",), ("pacs",))
    assert [(step.rule, step.holds) for step in decision.steps] == [("overviews", False), ("cameras", True)]
    assert decision.steps[0].why == "modality is 'DMS', not 'XC'"
    assert decision.steps[1].why == "calling_ae 'CAMERA1' matches 'CAM*'"
    stranger = rules.decide(replace(FACTS, calling_ae=()))
    assert stranger.steps[1].why == "calling_ae is absent, not 'CAM*'"
    assert stranger.route == Route(Action.REFUSE, "rest")


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([Rule("a", "analyze")], "rule 'a': action 'analyze' is none of analyse, store, refuse"),
        ([Rule("a", "store", modality=("/(/",))], "rule 'a': modality '/\\(/' is no regular expression"),
        ([Rule("a", "store", modality=("",))], "rule 'a': modality has an empty pattern"),
        ([Rule("a", outputs=("seq",))], "rule 'a': output 'seq' is none of source, seg, sr"),
        ([Rule("a", destinations=("pax",))], r"rule 'a': destination 'pax' is not configured \(pacs\)"),
        ([Rule("a", "store", outputs=("sr",))], "rule 'a': outputs and destinations mean nothing"),
        ([Rule("a", sop_class=("1.2.840.10008.5.1.4.1.1.2",))], "rule 'a': sop_class .* is no class that is taken"),
        ([Rule("a", modality=("DMS",)), Rule("a")], "rule 'a': there are two"),
        ([Rule("a"), Rule("b", modality=("DMS",))], "rule 'a' has no condition"),
        ([Rule("b", modality=("DMS",)), Rule(" ")], "rule number 2 needs a name"),
        ([Rule(LOOP_GUARD)], "rule number 1 needs a name"),
    ],
)
def test_wrong_rules_are_named(rules, said):
    with pytest.raises(Misconfigured, match=said):
        Rules(rules, ["pacs"])


def test_facts_of_an_object():
    made = dataset(StationName="ROOM-7", StudyDescription="Mole check", BodyPartExamined="SKIN")
    header, facts = read_header_and_facts(encoded(made), EXPLICIT_LITTLE_ENDIAN)
    assert facts == replace(FACTS, calling_ae=(), description=("Mole check",))
    assert header.sop_instance_uid == made.SOPInstanceUID


@pytest.mark.parametrize("kind", [ArtifactKind.SOURCE, ArtifactKind.SECONDARY_CAPTURE])
def test_our_own_objects_are_recognised_and_never_analysed(kind):
    """Those of our results that are of a class that we take."""
    own = RENDERERS[kind](render_input(picture_source()))
    facts = read_header_and_facts(own.data, None)[1]
    decision = Rules([Rule("all")]).decide(facts)
    assert decision.route == Route(Action.STORE, LOOP_GUARD)
    assert "this service made it" in decision.steps[0].why
