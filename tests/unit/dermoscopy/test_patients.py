"""Issuers and identifier systems: both ways or not at all."""

from __future__ import annotations

import pytest

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import Misconfigured
from dermoscopy.patients import IssuerMap

TABLE = {"CLINIC_A": "https://a.example/mrn", "CLINIC_B": "urn:oid:1.2.3"}


def test_both_directions():
    issuers = IssuerMap(TABLE)
    for issuer, system in TABLE.items():
        assert issuers.system_of(issuer) == system
        assert issuers.issuer_of(system) == issuer
    assert dict(issuers.issuer_of_system) == {system: issuer for issuer, system in TABLE.items()}


def test_what_is_not_listed_is_itself():
    assert IssuerMap(TABLE).system_of("CLINIC_C") == "CLINIC_C"
    assert IssuerMap(TABLE).issuer_of("https://c.example") == "https://c.example"


def test_default_issuer():
    assert IssuerMap(TABLE, default_issuer="CLINIC_A").system_of("") == TABLE["CLINIC_A"]
    assert IssuerMap(TABLE).system_of(" ") == ""


@pytest.mark.parametrize(
    ("identity", "canonical"),
    [
        (PatientIdentity("CLINIC_A", "1"), PatientIdentity("CLINIC_A", "1")),
        (PatientIdentity("https://a.example/mrn", "1"), PatientIdentity("CLINIC_A", "1")),
        (PatientIdentity("", "1"), PatientIdentity("CLINIC_B", "1")),
        (PatientIdentity(" CLINIC_C ", "1"), PatientIdentity("CLINIC_C", "1")),
    ],
)
def test_one_name_for_one_issuer(identity, canonical):
    assert IssuerMap(TABLE, default_issuer="CLINIC_B").canonical(identity) == canonical


@pytest.mark.parametrize(
    "table",
    [
        {"A": "s", "B": "s"},
        {"A": "s", " B ": " s"},
        {"A": "B", "B": "s"},
        {"": "s"},
        {"A": " "},
        {"A": "s", " A": "t"},
    ],
)
def test_what_could_match_two_patients_is_refused(table):
    with pytest.raises(Misconfigured, match="issuers"):
        IssuerMap(table)


def test_the_map_cannot_be_changed_afterwards():
    table = dict(TABLE)
    issuers = IssuerMap(table)
    table["CLINIC_A"] = "elsewhere"
    assert issuers.system_of("CLINIC_A") == TABLE["CLINIC_A"]
    with pytest.raises(TypeError):
        issuers.systems["CLINIC_A"] = "elsewhere"  # type: ignore[index]
