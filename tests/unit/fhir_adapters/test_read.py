"""Patients as an EHR sends them: matched by system and value, and never guessed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import Rejected, UnknownPatient
from fhir_adapters.read import patient_identities, prefetched_patient

NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
SYSTEM = "https://a.example/mrn"
ISSUERS = {SYSTEM: "CLINIC_A"}


def patient(*identifiers, **more):
    return {"resourceType": "Patient", "id": "p1", "identifier": list(identifiers), **more}


def identifier(value, system=SYSTEM, **more):
    return {"system": system, "value": value, **more}


def identities(resource):
    return patient_identities(resource, ISSUERS, now=NOW)


def test_listed_and_unlisted_systems():
    found = identities(patient(identifier("1"), identifier("2", "urn:oid:1.2")))
    assert found == (PatientIdentity("CLINIC_A", "1"), PatientIdentity("urn:oid:1.2", "2"))


def test_two_values_under_a_listed_system_are_ambiguous():
    with pytest.raises(UnknownPatient, match="several identifiers") as caught:
        identities(patient(identifier("SECRET-1"), identifier("SECRET-2")))
    assert "SECRET" not in str(caught.value)


def test_the_same_value_twice_is_not():
    assert identities(patient(identifier("1"), identifier(" 1 "))) == (PatientIdentity("CLINIC_A", "1"),)


def test_two_values_under_an_unlisted_system_are_left_out():
    resource = patient(identifier("1"), identifier("2", "urn:x"), identifier("3", "urn:x"))
    assert identities(resource) == (PatientIdentity("CLINIC_A", "1"),)


@pytest.mark.parametrize(
    "gone",
    [
        {"use": "old"},
        {"period": {"end": "2025"}},
        {"period": {"end": "2026-02"}},
        {"period": {"end": "2026-03-13"}},
        {"period": {"end": "2026-03-14T11:59:59Z"}},
        {"period": {"end": "2026-03-14T13:59:59+02:00"}},
        {"period": {"start": "2027"}},
        {"period": {"start": "2026-03-14T12:00:01Z"}},
    ],
)
def test_identifiers_no_longer_in_force_do_not_count(gone):
    assert identities(patient(identifier("1"), identifier("2", **gone))) == (PatientIdentity("CLINIC_A", "1"),)


@pytest.mark.parametrize(
    "valid",
    [
        {"period": {"end": "2026"}},
        {"period": {"end": "2026-03"}},
        {"period": {"end": "2026-03-14"}},
        {"period": {"end": "2026-03-14T12:00:00Z"}},
        {"period": {"start": "2026-03-14", "end": "2030"}},
        {"period": {"end": "no date"}},
        {"period": {"end": "2026-03-14T no time"}},
        {"period": None},
        {"use": "secondary"},
    ],
)
def test_identifiers_in_force_do(valid):
    with pytest.raises(UnknownPatient):
        identities(patient(identifier("1"), identifier("2", **valid)))


@pytest.mark.parametrize(
    "useless",
    [{}, {"system": SYSTEM}, {"value": "1"}, {"system": "", "value": "1"}, {"system": SYSTEM, "value": " "}, None, "1"],
)
def test_half_an_identifier_is_none(useless):
    assert identities(patient(useless)) == ()


def test_a_patient_without_identifiers():
    assert identities({"resourceType": "Patient", "id": "p1"}) == ()
    assert identities({"resourceType": "Patient", "id": "p1", "identifier": None}) == ()


def test_other_resources_are_refused():
    with pytest.raises(Rejected):
        identities({"resourceType": "Practitioner"})


def test_prefetched():
    resource = patient(identifier("1"))
    assert prefetched_patient({"patient": resource}, "patient", "p1") == resource
    assert prefetched_patient({"patient": resource}, "patient", "Patient/p1") == resource


def test_prefetched_in_a_search_result():
    resource = patient(identifier("1"))
    bundle = {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": resource}]}
    assert prefetched_patient({"patient": bundle}, "patient", "p1") == resource


@pytest.mark.parametrize(
    "prefetch",
    [
        None,
        {},
        {"patient": None},
        {"other": patient()},
        {"patient": {"resourceType": "OperationOutcome", "issue": []}},
        {"patient": {"resourceType": "Bundle", "type": "searchset"}},
    ],
)
def test_no_data_is_no_patient(prefetch):
    assert prefetched_patient(prefetch, "patient", "p1") is None


@pytest.mark.parametrize(
    ("prefetch", "reason"),
    [
        ({"patient": patient()}, "another patient"),
        ({"patient": {"resourceType": "Patient"}}, "another patient"),
        ({"patient": {"resourceType": "Observation", "id": "p2"}}, "not a Patient"),
        ({"patient": "p2"}, "not a FHIR resource"),
        (
            {"patient": {"resourceType": "Bundle", "entry": [{"resource": patient()}, {"resource": patient()}]}},
            "2 patients",
        ),
    ],
)
def test_wrong_data_is_refused(prefetch, reason):
    with pytest.raises(Rejected, match=reason):
        prefetched_patient(prefetch, "patient", "p2")


def test_no_context_patient_matches_nobody():
    with pytest.raises(Rejected):
        prefetched_patient({"patient": {"resourceType": "Patient", "id": ""}}, "patient", "")
