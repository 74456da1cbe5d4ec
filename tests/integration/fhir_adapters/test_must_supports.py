"""Must-supports and constraints of US Core 5.0.1, for the two profiles that our report and Observations come under.

Read from the package hl7.fhir.us.core 5.0.1: us-core-diagnosticreport-note and us-core-observation-imaging
(https://hl7.org/fhir/us/core/STU5.0.1/StructureDefinition-us-core-diagnosticreport-note.html,
https://hl7.org/fhir/us/core/STU5.0.1/StructureDefinition-us-core-observation-imaging.html). A must-support element is
sent wherever the data is there; `UNKNOWN` says what an image never tells.
"""

from __future__ import annotations

import json
import re

import pytest

from dermoscopy.codes import UCUM
from dermoscopy.domain import ArtifactKind
from fhir_adapters.addressing import addressed
from fhir_adapters.render import RENDERERS
from tests.unit.fhir_adapters import scenes
from tests.unit.fhir_adapters.scenes import SCENES

REPORT = {
    *("status", "category", "code", "subject", "encounter", "effectiveDateTime", "issued", "performer"),
    *("result", "media", "presentedForm"),
}
UNKNOWN = {"encounter"}
"""An image tells no encounter. (Nor does a dermoscopic image belong under radiology, cardiology or pathology, the three
values of the slice ``category:us-core``.)"""
ONLY_REVIEWED = {"performer"}
"""Nobody is responsible for the report before somebody looked at it."""
MANDATORY = {"status", "category", "code", "subject"}


def resources(name, kind):
    made = json.loads(RENDERERS[ArtifactKind.FHIR_BUNDLE](SCENES[name]).data)
    sent = addressed(made, "Patient/1", scenes.SYSTEM, "TEST-0042")
    return [e["resource"] for e in sent["entry"] if e["resource"]["resourceType"] == kind]


@pytest.mark.parametrize("name", ["tier-urgent", "abstained", "no-lesion", "confirmed", "all-corrected"])
def test_the_report_has_every_must_support_that_is_known(name):
    (report,) = resources(name, "DiagnosticReport")
    expected = REPORT - UNKNOWN - (set() if SCENES[name].revision else ONLY_REVIEWED)
    assert expected <= set(report)
    assert not UNKNOWN & set(report)
    assert all(picture["link"]["reference"] for picture in report["media"])


@pytest.mark.parametrize("name", SCENES)
def test_what_is_mandatory_is_always_there(name):
    for kind in ("DiagnosticReport", "Observation"):
        for resource in resources(name, kind):
            assert set(resource) >= MANDATORY
            assert resource["subject"]["reference"] == "Patient/1"
            assert resource["code"]["coding"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", resource["effectiveDateTime"])  # us-core-1: at least the day


@pytest.mark.parametrize("name", SCENES)
def test_observations_are_imaging_and_have_an_answer_or_a_reason(name):
    for found in resources(name, "Observation"):
        imaging = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}
        assert any(imaging.items() <= c.items() for one in found["category"] for c in one["coding"])
        answers = [key for key in found if key.startswith("value")]
        assert set(answers) <= {"valueQuantity", "valueCodeableConcept", "valueString"}
        assert len(answers) + ("dataAbsentReason" in found) == 1  # us-core-2, and never both


@pytest.mark.parametrize("name", SCENES)
def test_quantities_are_in_ucum(name):
    for found in resources(name, "Observation"):
        for one in (found, *found.get("component", ())):
            assert one.get("valueQuantity", {}).get("system", UCUM) == UCUM  # us-core-3
