"""What is filled in for one addressee: patient, order, addresses, and the versions that may be replaced."""

from __future__ import annotations

import json

from dermoscopy.domain import ArtifactKind
from fhir_adapters.addressing import accession_of, addressed, linked, ordered_by, preconditioned, report_of
from fhir_adapters.render import RENDERERS
from tests.unit.fhir_adapters import scenes
from tests.unit.fhir_adapters.scenes import SCENES


def content(name="tier-urgent"):
    return json.loads(RENDERERS[ArtifactKind.FHIR_BUNDLE](SCENES[name]).data)


def of_type(bundle, kind):
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def test_every_resource_of_the_patient_names_the_patient():
    made = addressed(content(), "Patient/1", "s", "v")
    named = [r.get("subject") or r.get("patient") for r in (e["resource"] for e in made["entry"])]
    kinds = [e["resource"]["resourceType"] for e in made["entry"] if e["resource"]["resourceType"]]
    assert {k for k, n in zip(kinds, named, strict=True) if n is None} == {"Device", "Provenance"}
    assert {n["reference"] for n in named if n} == {"Patient/1"}


def test_dicomweb_addresses_take_the_place_of_uids():
    made = linked(content(), "https://pacs.example/dicom-web/")
    urls = [d["content"][0]["attachment"]["url"] for d in of_type(made, "DocumentReference")]
    study = scenes.HEADER.study_instance_uid
    assert all(url.startswith(f"https://pacs.example/dicom-web/studies/{study}/series/2.25.") for url in urls)
    for document, url in zip(of_type(made, "DocumentReference"), urls, strict=True):
        assert document["masterIdentifier"]["value"] == f"urn:oid:{url.rpartition('/')[2]}"
    (picture,) = of_type(made, "Media")
    assert picture["content"]["url"] == urls[-1]


def test_what_no_study_lists_keeps_its_uid():
    made = linked(content("withdrawn"), "https://pacs.example/dicom-web")
    gone = next(d for d in of_type(made, "DocumentReference") if d["status"] == "entered-in-error" and "size" not in
                d["content"][0]["attachment"])  # fmt: skip
    assert gone["content"][0]["attachment"]["url"].startswith("urn:oid:")


def test_the_order_is_literal_and_logical():
    made = content()
    assert accession_of(made) == "ACC-7"
    (order,) = report_of(ordered_by(made, "ServiceRequest/3")["entry"])["basedOn"]
    assert order["reference"] == "ServiceRequest/3"
    assert order["identifier"]["value"] == "ACC-7"
    assert accession_of(content("no-accession")) == ""


def test_only_what_has_a_version_is_replaced_by_version():
    entries = content()["entry"]
    report = report_of(entries)
    value = report["identifier"][0]["value"]
    made = preconditioned(entries, {value: {"id": "9", "meta": {"versionId": "4"}}}, "https://ehr.example/fhir")
    (entry,) = (e for e in made if e["resource"]["resourceType"] == "DiagnosticReport")
    assert entry["request"] == {"method": "PUT", "url": "DiagnosticReport/9", "ifMatch": 'W/"4"'}
    assert entry["resource"]["id"] == "9"
    assert "id" not in report
    others = [e for e in made if e is not entry]
    assert [e["request"] for e in others] == [e["request"] for e in entries if e["resource"] is not report]
    assert preconditioned(entries, {value: {"id": "9"}}, "https://ehr.example/fhir") == entries


def test_references_go_to_where_a_resource_is_already():
    """Some servers fill a placeholder only for what they make themselves."""
    entries = content()["entry"]
    report = report_of(entries)
    old = next(e["fullUrl"] for e in entries if e["resource"] is report)
    found = {report["identifier"][0]["value"]: {"id": "9", "meta": {"versionId": "4"}}}
    made = preconditioned(entries, found, "https://ehr.example/fhir")
    assert next(e["fullUrl"] for e in made if e["resource"].get("id")) == "https://ehr.example/fhir/DiagnosticReport/9"
    assert old in json.dumps(entries)
    assert old not in json.dumps(made)
    (provenance,) = (e["resource"] for e in made if e["resource"]["resourceType"] == "Provenance")
    assert {"reference": "DiagnosticReport/9"} in provenance["target"]
