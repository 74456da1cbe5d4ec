"""Delivery into a real FHIR R4 server: once is once, whatever happens on the way."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest
from pydantic import SecretStr

from dermoscopy.codes import AI_ASSERTED
from dermoscopy.domain import ArtifactKind, PatientIdentity, derive_uid
from dermoscopy.errors import DestinationUnavailable, Rejected, UnknownPatient
from dermoscopy.identifiers import report_identifier
from dermoscopy.patients import IssuerMap
from fhir_adapters.deliver import FhirDestination
from fhir_adapters.render import RENDERERS
from tests.peers.fault_proxy import Fault, status
from tests.peers.fhir_server import fhir_server
from tests.peers.fixtures import unavailable
from tests.peers.processes import MissingPeer
from tests.unit.fhir_adapters import scenes
from tests.unit.fhir_adapters.scenes import SCENES

pytestmark = pytest.mark.peers
ISSUERS = IssuerMap({"CLINIC_A": scenes.SYSTEM})
PATIENT = {
    "resourceType": "Patient",
    "identifier": [{"system": scenes.SYSTEM, "value": scenes.PATIENT.patient_id}],
    "name": [{"family": "Musterfrau", "given": ["Mia"]}],
}
KINDS = ("Device", "ImagingStudy", "Observation", "DocumentReference", "DiagnosticReport", "Provenance")


def bundle_of(what):
    return RENDERERS[ArtifactKind.FHIR_BUNDLE](what)


def send(destination, what):
    return destination.deliver(bundle_of(what), what.analysis)


def counts(server):
    return {kind: server.client.get(f"/{kind}?_summary=count").json()["total"] for kind in KINDS}


def stored(server, kind):
    return [e["resource"] for e in server.client.get(f"/{kind}?_count=100").json().get("entry", [])]


@pytest.fixture
def patient(ehr):
    return ehr.post(PATIENT).raise_for_status().json()["id"]


@pytest.fixture
def connect():
    with ExitStack() as stack:

        def connected(server, **options):
            made = FhirDestination("ehr", server.url, issuers=ISSUERS, **options)
            stack.callback(made.close)
            return made

        yield connected


@pytest.fixture
def destination(ehr, connect):
    return connect(ehr)


def test_twice_is_once(ehr, patient, destination):
    what = SCENES["tier-urgent"]
    first, second = send(destination, what), send(destination, what)
    assert first == second
    assert first.reference.startswith("DiagnosticReport/")
    assert first.reference.endswith("/_history/1")
    assert counts(ehr) == {
        "Device": 1,
        "ImagingStudy": 1,
        "Observation": 10,
        "DocumentReference": 3,
        "DiagnosticReport": 1,
        "Provenance": 1,
    }
    assert ehr.versions(first.reference.partition("/_history")[0]) == 1


def test_what_arrives_is_connected_and_labelled(ehr, patient, destination):
    send(destination, SCENES["tier-urgent"])
    (report,) = stored(ehr, "DiagnosticReport")
    assert report["subject"]["reference"] == f"Patient/{patient}"
    for reference in (*report["result"], *report["imagingStudy"]):
        ehr.client.get("/" + reference["reference"]).raise_for_status()
    assert report["meta"]["security"][0]["code"] == AI_ASSERTED.code
    assert report["identifier"][0]["value"] == report_identifier(SCENES["tier-urgent"].analysis.id)
    (provenance,) = stored(ehr, "Provenance")
    assert {t["reference"].split("/")[0] for t in provenance["target"]} == {
        "DiagnosticReport",
        "Observation",
        "DocumentReference",
        "Media",
    }


def test_an_ehr_finds_the_report_by_patient(ehr, patient, destination):
    send(destination, SCENES["tier-urgent"])
    assert ehr.client.get(f"/DiagnosticReport?subject=Patient/{patient}").json()["total"] == 1
    assert (
        ehr.client.get(f"/Observation?subject=Patient/{patient}&category=imaging&_summary=count").json()["total"] == 10
    )


def test_an_amendment_is_a_new_version_of_the_same_report(ehr, patient, destination):
    first = send(destination, SCENES["tier-urgent"])
    later = send(destination, SCENES["abstained"])
    assert first.reference.replace("/_history/1", "/_history/2") == later.reference
    assert counts(ehr)["DiagnosticReport"] == 1
    assert counts(ehr)["Observation"] == 10
    (report,) = stored(ehr, "DiagnosticReport")
    assert "names no class" in report["conclusion"]


def test_an_image_assigned_to_another_patient_takes_its_report_along(ehr, patient, destination):
    other = {**PATIENT, "identifier": [{"system": scenes.SYSTEM, "value": "TEST-0099"}]}
    right = ehr.post(other).raise_for_status().json()["id"]
    what = SCENES["tier-urgent"]
    send(destination, what)
    header = dataclasses.replace(scenes.HEADER, patient=PatientIdentity("CLINIC_A", "TEST-0099"))
    receipt = destination.deliver(bundle_of(what), dataclasses.replace(what.analysis, header=header))
    assert receipt.reference.endswith("/_history/2")
    (report,) = stored(ehr, "DiagnosticReport")
    assert report["subject"]["reference"] == f"Patient/{right}"
    assert {o["subject"]["reference"] for o in stored(ehr, "Observation")} == {f"Patient/{right}"}


def test_a_confirmed_report_is_not_replaced(ehr, patient, destination):
    send(destination, SCENES["tier-urgent"])
    (report,) = stored(ehr, "DiagnosticReport")
    ehr.put({**report, "status": "final"}, f"DiagnosticReport/{report['id']}").raise_for_status()
    assert send(destination, SCENES["tier-urgent"]).reference.endswith("/_history/2")
    with pytest.raises(Rejected, match="not replaced"):
        send(destination, SCENES["abstained"])
    assert stored(ehr, "DiagnosticReport")[0]["status"] == "final"


def test_a_study_of_the_archive_stays_as_it_is(ehr, patient, destination):
    theirs = {
        "resourceType": "ImagingStudy",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{scenes.HEADER.study_instance_uid}"}],
        "status": "available",
        "subject": {"reference": f"Patient/{patient}"},
        "description": "Theirs",
    }
    before = ehr.post(theirs).raise_for_status().json()
    send(destination, SCENES["tier-urgent"])
    assert stored(ehr, "ImagingStudy") == [before]
    assert stored(ehr, "DiagnosticReport")[0]["imagingStudy"] == [{"reference": f"ImagingStudy/{before['id']}"}]


def test_two_images_of_one_study_are_two_reports(ehr, patient, destination):
    send(destination, SCENES["tier-urgent"])
    header = dataclasses.replace(scenes.HEADER, sop_instance_uid=derive_uid("test", "second image"))
    send(destination, scenes.render_input(scenes.analysis(header=header, id="another-analysis")))
    found = counts(ehr)
    assert (found["DiagnosticReport"], found["ImagingStudy"], found["Device"]) == (2, 1, 1)


@pytest.mark.parametrize("number", [0, 2])
def test_no_or_several_patients_hold_the_delivery(number, ehr, destination):
    for _ in range(number):
        ehr.post(PATIENT).raise_for_status()
    with pytest.raises(UnknownPatient):
        send(destination, SCENES["tier-urgent"])
    assert set(counts(ehr).values()) == {0}


def test_the_same_id_of_another_issuer_is_somebody_else(ehr, destination):
    other = {**PATIENT, "identifier": [{"system": "https://clinic-b.example", "value": scenes.PATIENT.patient_id}]}
    ehr.post(other).raise_for_status()
    with pytest.raises(UnknownPatient):
        send(destination, SCENES["tier-urgent"])


def test_an_answer_that_is_lost_does_not_double_anything(ehr, ehr_proxy, connect, patient):
    through = connect(ehr_proxy)
    ehr_proxy.script(Fault.NONE, Fault.NONE, Fault.NONE, Fault.DROP_AFTER)
    with pytest.raises(DestinationUnavailable):
        send(through, SCENES["tier-urgent"])
    assert send(through, SCENES["tier-urgent"]).reference.endswith("/_history/1")
    assert counts(ehr)["DiagnosticReport"] == 1
    assert counts(ehr)["Observation"] == 10


def test_whatever_fails_once_arrives_once(ehr, ehr_proxy, connect, patient):
    through = connect(ehr_proxy)
    looking_for_the_patient, looking_for_the_report, looking_for_the_order, sending = range(4)
    cases = [
        (Fault.GARBAGE, looking_for_the_patient),
        (status(503, retry_after=3), looking_for_the_report),
        (status(429), looking_for_the_order),
        (Fault.DROP_BEFORE, sending),
        (Fault.TRUNCATE, sending),
        (status(429), sending),
    ]
    for number, (fault, place) in enumerate(cases, start=1):
        what = scenes.render_input(scenes.analysis(id=f"analysis-{number}"))
        ehr_proxy.script(*[Fault.NONE] * place, fault)
        with pytest.raises(DestinationUnavailable):
            send(through, what)
        send(through, what)
        found = counts(ehr)
        assert (found["DiagnosticReport"], found["Observation"]) == (number, 10 * number), (fault, place)


def test_a_transaction_that_a_proxy_repeats_doubles_nothing(ehr, ehr_proxy, connect, patient):
    through = connect(ehr_proxy)
    ehr_proxy.always(Fault.REPEAT)
    send(through, SCENES["tier-urgent"])
    assert counts(ehr)["DiagnosticReport"] == 1
    assert counts(ehr)["Observation"] == 10


def test_a_server_that_dies_and_comes_back(ehr, patient, destination):
    send(destination, SCENES["tier-urgent"])
    ehr.kill()
    with pytest.raises(DestinationUnavailable):
        send(destination, SCENES["tier-urgent"])
    ehr.start()
    assert send(destination, SCENES["tier-urgent"]).reference.endswith("/_history/1")
    assert counts(ehr)["DiagnosticReport"] == 1


def test_four_at_once_are_one(ehr, patient, destination):
    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(lambda _: send(destination, SCENES["tier-urgent"]), range(4)))
    assert len({r.reference.partition("/_history")[0] for r in receipts}) == 1
    assert counts(ehr)["DiagnosticReport"] == 1


def test_a_refused_entry_leaves_nothing_behind(ehr, patient, destination):
    artifact = bundle_of(SCENES["tier-urgent"])
    content = json.loads(artifact.data)
    content["entry"][-1]["resource"]["target"] = [{"reference": "Observation/nowhere"}]
    with pytest.raises(Rejected) as caught:
        destination.deliver(dataclasses.replace(artifact, data=json.dumps(content).encode()), scenes.analysis())
    assert scenes.PATIENT.patient_id not in str(caught.value)
    assert set(counts(ehr).values()) == {0}


def test_the_token_is_needed_and_sent(tmp_path, connect):
    try:
        with fhir_server(tmp_path, token="a-token") as server:
            server.post(PATIENT).raise_for_status()
            without = connect(server)
            with pytest.raises(Rejected, match="401"):
                send(without, SCENES["tier-urgent"])
            authorised = connect(server, token=SecretStr("a-token"))
            assert send(authorised, SCENES["tier-urgent"]).reference
    except MissingPeer as missing:
        unavailable(missing)


def test_no_patient_in_any_address(ehr, ehr_proxy, connect, patient):
    through = connect(ehr_proxy)
    send(through, SCENES["tier-urgent"])
    said = " ".join(f"{method} {path}" for method, path in ehr_proxy.requests)
    assert "Patient/_search" in said
    assert scenes.PATIENT.patient_id not in said
    assert httpx.URL(ehr.url).path in said
