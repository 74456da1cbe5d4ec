"""Resources as they are served: ids that stay, references that lead somewhere, patients that stay logical."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from dermoscopy.domain import ArtifactKind
from fhir_adapters.facade import Edition, analysis_of, device_id, included, searchset, views
from fhir_adapters.facade_types import TYPES
from fhir_adapters.render import RENDERERS
from tests.unit.fhir_adapters.scenes import SCENES

STORED = datetime(2026, 3, 14, 12, 0, tzinfo=UTC)


def served(name, revision=0, system="urn:oid:1.2"):
    what = SCENES[name]
    stored = json.loads(RENDERERS[ArtifactKind.FHIR_BUNDLE](what).data)
    edition = Edition(what.analysis.id, revision, STORED)
    return views(stored, edition, dicomweb="https://cds.example/dicom-web", system_of=lambda _issuer: system)


@pytest.mark.parametrize("name", SCENES)
def test_every_reference_between_resources_leads_to_one(name):
    made = served(name)
    places = {f"{one['resourceType']}/{one['id']}" for one in made}
    assert len(places) == len(made)
    text = json.dumps(made)
    assert '"reference": "urn:uuid:' not in text
    for reference in set(json.loads(f"[{','.join(found_references(text))}]")):
        assert reference in places


def found_references(text):
    return [f'"{part.split(chr(34))[0]}"' for part in text.split('"reference": "')[1:]]


@pytest.mark.parametrize("name", SCENES)
def test_ids_are_valid_name_their_analysis_and_hold_nothing_of_the_patient(name):
    for one in served(name):
        assert len(one["id"]) <= 64
        assert "TEST" not in one["id"]
        if one["resourceType"] == "Device":
            assert one["id"] == device_id(SCENES[name].analysis.finding.model)
            assert one["meta"]["versionId"] == "1"
        else:
            assert analysis_of(one["id"]) == SCENES[name].analysis.id
        assert one["resourceType"] in TYPES


def test_ids_stay_over_all_versions():
    before = {one["id"] for one in served(next(iter(SCENES)))}
    after = served(next(iter(SCENES)), revision=4)
    assert {one["id"] for one in after} == before
    assert {one["meta"]["versionId"] for one in after if one["resourceType"] != "Device"} == {"5"}


def test_an_issuer_without_a_uri_names_no_system():
    name = next(iter(SCENES))
    for one in served(name, system="CLINIC_A"):
        patient = one.get("subject") or one.get("patient") or {"identifier": {}}
        assert "system" not in patient["identifier"]
        assert "reference" not in patient


def test_objects_are_at_our_dicomweb():
    name = next(iter(SCENES))
    (media,) = [one for one in served(name) if one["resourceType"] == "Media"]
    assert media["content"]["url"].startswith("https://cds.example/dicom-web/studies/")


def test_includes_and_warnings_are_marked_as_what_they_are():
    made = served(next(iter(SCENES)))
    (report,) = [one for one in made if one["resourceType"] == "DiagnosticReport"]
    others = included(report, made, ["DiagnosticReport:result", "DiagnosticReport:media"])
    assert {one["resourceType"] for one in others} == {"Observation", "Media"}
    found = searchset("https://x", [report], others, links={"self": "https://x/y"}, warning="short")
    modes = [entry["search"]["mode"] for entry in found["entry"]]
    assert modes == ["match", *["include"] * len(others), "outcome"]
    assert "total" not in found
    assert "entry" not in searchset("https://x", [], links={"self": "https://x"}, total=0)


@pytest.mark.parametrize("value", ["", "1", "a" * 57, f"{'0' * 32}-{'0' * 24}", f"{'0' * 32}.{'0' * 24}\n"])
def test_other_ids_name_no_analysis(value):
    assert analysis_of(value) == ""
