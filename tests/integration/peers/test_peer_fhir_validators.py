"""Three validators are needed: each fault here is one that another validator lets pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.peers

Validate = Callable[[dict[str, Any]], list[str]]
OBSERVATION = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "Diameter"},
    "subject": {"reference": "Patient/1"},
    "effectiveDateTime": "2026-01-02T10:00:00Z",
    "valueQuantity": {"value": 6.5, "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"},
}


def finders(problems: list[str]) -> set[str]:
    return {problem.split(":")[0] for problem in problems}


def test_valid_observation_is_valid(validate_r4: Validate) -> None:
    assert validate_r4(OBSERVATION) == []


@pytest.mark.parametrize(
    ("change", "found_by"),
    [
        pytest.param({"status": "bogus"}, {"schema", "fhir"}, id="code outside a required binding"),
        pytest.param({"effectiveDateTime": "2026-02-30"}, {"medplum"}, id="a day that does not exist"),
        pytest.param({"dataAbsentReason": {"text": "abstained"}}, {"medplum"}, id="invariant obs-6"),
        pytest.param({"colour": "red"}, {"schema", "fhir", "medplum"}, id="unknown property"),
        pytest.param({"note": []}, {"json"}, id="empty array"),
    ],
)
def test_faults_and_who_finds_them(validate_r4: Validate, change: dict[str, Any], found_by: set[str]) -> None:
    assert finders(validate_r4(OBSERVATION | change)) == found_by


@pytest.mark.parametrize(
    ("resource", "finder"),
    [
        pytest.param(OBSERVATION | {"status": "bogus"}, "fhir", id="code"),
        pytest.param(OBSERVATION | {"effectiveDateTime": "2026-02-30"}, "medplum", id="date"),
    ],
)
def test_entries_of_a_bundle_are_validated_too(validate_r4: Validate, resource: dict[str, Any], finder: str) -> None:
    request = {"method": "POST", "url": "Observation"}
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": resource, "request": request}]}
    assert finder in finders(validate_r4(bundle))
