"""Pathology resources as a laboratory sends them. Invented data only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.findings import PATIENT, SYSTEM

SNOMED = "http://snomed.info/sct"
ICDO3 = "http://terminology.hl7.org/CodeSystem/icd-o-3"
Json = dict[str, Any]


def concept(system: str, code: str, text: str = "") -> Json:
    """A CodeableConcept."""
    coding = {"system": system, "code": code} if system else {"code": code}
    return {"coding": [coding], **({"text": text} if text else {})}


MELANOMA = concept(SNOMED, "93655004")
NAEVUS = concept(SNOMED, "400096001")
BACK_LEFT = [concept(SNOMED, "66643007"), concept(SNOMED, "7771000")]
SURGICAL_PATHOLOGY = concept("http://terminology.hl7.org/CodeSystem/v2-0074", "SP")


def subject(value: str = PATIENT.patient_id) -> Json:
    """A logical reference to the patient."""
    return {"identifier": {"system": SYSTEM, "value": value}}


def report(
    diagnosis: Mapping[str, Any] | None, *, accession: str = "ACC-7", version: str = "1", **changes: Any
) -> Json:
    """A final pathology report of a specimen of 2026-11-20."""
    made = {
        "resourceType": "DiagnosticReport",
        "id": "path-1",
        "meta": {"versionId": version, "lastUpdated": f"2026-11-21T08:00:{int(version):02}Z"},
        "status": "final",
        "category": [SURGICAL_PATHOLOGY],
        "code": {"text": "Surgical pathology"},
        "subject": subject(),
        "effectiveDateTime": "2026-11-20",
        "basedOn": [{"identifier": {"value": accession}}] if accession else [],
        **({"conclusionCode": [diagnosis]} if diagnosis else {}),
    }
    return {**made, **changes}


def observation(value: Mapping[str, Any], **changes: Any) -> Json:
    """A final pathology diagnosis with a coded value."""
    made = {
        "resourceType": "Observation",
        "id": "obs-1",
        "meta": {"versionId": "1"},
        "status": "final",
        "code": concept("http://loinc.org", "22637-3"),
        "subject": subject(),
        "effectiveDateTime": "2026-11-20",
        "valueCodeableConcept": value,
    }
    return {**made, **changes}


def condition(code: Mapping[str, Any], **changes: Any) -> Json:
    """A diagnosis that a clinician confirmed."""
    made = {
        "resourceType": "Condition",
        "id": "cond-1",
        "meta": {"versionId": "1"},
        "verificationStatus": concept("http://terminology.hl7.org/CodeSystem/condition-ver-status", "confirmed"),
        "subject": subject(),
        "code": code,
        "recordedDate": "2026-11-20",
    }
    return {**made, **changes}


def bundle(*resources: Mapping[str, Any]) -> Json:
    """A collection of these."""
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": dict(one)} for one in resources]}
