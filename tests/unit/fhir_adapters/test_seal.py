"""Seals: what servers do to a resource leaves them whole, what a person changes breaks them."""

from __future__ import annotations

import copy
import json

import pytest

from dermoscopy.domain import ArtifactKind
from fhir_adapters.render import RENDERERS
from fhir_adapters.seal import SYSTEM, revision_of, revision_tag, seal, untouched
from tests.unit.fhir_adapters.scenes import SCENES

CONTENT = json.loads(RENDERERS[ArtifactKind.FHIR_BUNDLE](SCENES["class-corrected"]).data)
SEALED = [
    e["resource"] for e in CONTENT["entry"] if e["resource"]["resourceType"] in ("DiagnosticReport", "Observation")
]
REPORT = next(one for one in SEALED if one["resourceType"] == "DiagnosticReport")


def observation(code):
    return next(one for one in SEALED if one["code"]["coding"][0]["code"] == code)


@pytest.mark.parametrize("resource", SEALED)
def test_what_we_write_is_sealed(resource):
    assert untouched(resource) is True


def test_what_servers_do_leaves_the_seal_whole():
    kept = json.loads(json.dumps(observation("42798000")))
    kept |= {"id": "7", "subject": {"reference": "Patient/1"}, "text": {"status": "generated", "div": "<div/>"}}
    kept["valueQuantity"]["value"] = float(kept["valueQuantity"]["value"])
    kept["code"]["coding"].reverse()
    kept["component"].reverse()
    kept["meta"]["tag"] = [{"system": "s", "code": "theirs"}, *kept["meta"]["tag"], seal({"status": "final"})]
    assert untouched(kept) is True
    assert untouched({**REPORT, "conclusion": REPORT["conclusion"].replace(" ", "\n")}) is True


def changed(path, value):
    def change(resource):
        made = copy.deepcopy(resource)
        place = made
        for part in path[:-1]:
            place = place[part]
        place[path[-1]] = value
        return made

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed(["status"], "final"),
        changed(["conclusion"], "Benign."),
        changed(["conclusionCode", 0, "coding", 0, "code"], "93655004"),
        changed(["resultsInterpreter", 0, "display"], "Dr. Other"),
        changed(["performer"], [{"display": "Dr. Other"}]),
    ],
)
def test_what_a_person_changes_in_a_report_breaks_it(change):
    assert untouched(change(REPORT)) is False


@pytest.mark.parametrize(
    "change",
    [
        changed(["valueQuantity", "value"], 4),
        changed(["valueQuantity", "code"], "cm2"),
        changed(["component", 0, "valueQuantity", "value"], 1),
        changed(["note"], [{"text": "measured by hand"}]),
        changed(["interpretation"], [{"text": "high"}]),
        changed(["bodySite", "text"], "elsewhere"),
        changed(["valueString"], "large"),
        changed(["dataAbsentReason"], {"text": "not done"}),
    ],
)
def test_what_a_person_changes_in_an_observation_breaks_it(change):
    assert untouched(change(observation("42798000"))) is False


@pytest.mark.parametrize("meta", [None, {}, {"tag": None}, {"tag": [3, {"system": SYSTEM}, {"code": "content-x"}]}])
def test_without_a_seal_nothing_can_be_told(meta):
    assert untouched({**REPORT, "meta": meta}) is None


def test_the_newest_revision_counts():
    assert revision_of(REPORT) == 1
    assert (
        revision_of({"meta": {"tag": [revision_tag(2), revision_tag(10), {"system": SYSTEM, "code": "revision-x"}]}})
        == 10
    )
    assert revision_of({}) == 0
