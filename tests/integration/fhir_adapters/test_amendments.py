"""Amendments into a real FHIR R4 server: one report, the clinician's last word, and nobody's own change overwritten."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from dermoscopy.domain import ArtifactKind, Verdict
from dermoscopy.errors import DestinationUnavailable, Rejected
from dermoscopy.patients import IssuerMap
from fhir_adapters.deliver import FhirDestination
from fhir_adapters.render import RENDERERS
from tests.peers.fault_proxy import Delay, Fault, status
from tests.unit.fhir_adapters import scenes
from tests.unit.fhir_adapters.scenes import SCENES

pytestmark = pytest.mark.peers
PATIENT = {
    "resourceType": "Patient",
    "identifier": [{"system": scenes.SYSTEM, "value": scenes.PATIENT.patient_id}],
}
ORDER = {
    "resourceType": "ServiceRequest",
    "status": "active",
    "intent": "order",
    "identifier": [{"system": "https://ris.example", "value": scenes.HEADER.accession_number}],
}
PLACES = ("patient", "report", "observations", "order", "transaction")
"""The requests of an amendment, in order."""


@pytest.fixture
def patient(ehr):
    return ehr.post(PATIENT).raise_for_status().json()["id"]


@pytest.fixture
def connect():
    with ExitStack() as stack:

        def connected(server):
            made = FhirDestination("ehr", server.url, issuers=IssuerMap({"CLINIC_A": scenes.SYSTEM}))
            stack.callback(made.close)
            return made

        yield connected


def send(destination, what):
    return destination.deliver(RENDERERS[ArtifactKind.FHIR_BUNDLE](what), what.analysis)


def all_of(ehr, kind):
    return [e["resource"] for e in ehr.client.get(f"/{kind}?_count=100").json().get("entry", [])]


def the_report(ehr):
    (report,) = all_of(ehr, "DiagnosticReport")
    return report


def test_one_report_lives_from_preliminary_to_withdrawn(ehr, patient, connect):
    destination = connect(ehr)
    life = [
        ("tier-urgent", "preliminary"),
        ("confirmed", "final"),
        ("all-corrected", "amended"),
        ("withdrawn", "entered-in-error"),
    ]
    for version, (name, expected) in enumerate(life, start=1):
        receipt = send(destination, SCENES[name])
        report = the_report(ehr)
        assert (report["status"], report["meta"]["versionId"]) == (expected, str(version))
        assert receipt.reference == f"DiagnosticReport/{report['id']}/_history/{version}"
        assert send(destination, SCENES[name]) == receipt
    assert {o["status"] for o in all_of(ehr, "Observation")} == {"entered-in-error"}
    assert len(all_of(ehr, "Observation")) == 11
    assert len(all_of(ehr, "BodyStructure")) == 1
    again = scenes.review(9, Verdict.CONFIRMED)
    restored = dataclasses.replace(SCENES["all-corrected"], reviews=(*SCENES["withdrawn"].reviews, again))
    send(destination, restored)
    assert the_report(ehr)["status"] == "amended"


def test_an_older_report_that_comes_late_changes_nothing(ehr, patient, connect):
    destination = connect(ehr)
    later = send(destination, SCENES["class-corrected"])
    assert send(destination, SCENES["tier-urgent"]) == later
    assert the_report(ehr)["status"] == "amended"


@pytest.mark.parametrize("kind", ["DiagnosticReport", "Observation"])
def test_what_somebody_changed_in_the_ehr_stays(kind, ehr, patient, connect):
    destination = connect(ehr)
    send(destination, SCENES["tier-urgent"])
    theirs = all_of(ehr, kind)[0]
    ehr.put({**theirs, "status": "final"}, f"{kind}/{theirs['id']}").raise_for_status()
    before = ehr.client.get(f"/{kind}/{theirs['id']}").json()
    with pytest.raises(Rejected, match="changed there since"):
        send(destination, SCENES["class-corrected"])
    assert ehr.client.get(f"/{kind}/{theirs['id']}").json() == before
    assert destination.read_report_status(scenes.analysis().id).changed is (kind == "DiagnosticReport")


def test_a_change_between_look_and_write_is_not_overwritten(ehr, ehr_proxy, patient, connect):
    """The EHR's user saves while our transaction is on its way: If-Match stops it, the second look says why."""
    send(connect(ehr), SCENES["tier-urgent"])
    report = the_report(ehr)
    ehr_proxy.script(*[Fault.NONE] * PLACES.index("transaction"), Delay(1.0))
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, connect(ehr_proxy), SCENES["class-corrected"])
        while len(ehr_proxy.requests) < len(PLACES):
            time.sleep(0.01)
        ehr.put({**report, "status": "final"}, f"DiagnosticReport/{report['id']}").raise_for_status()
        with pytest.raises(Rejected, match="changed there since"):
            sending.result()
    assert the_report(ehr)["status"] == "final"
    assert len(all_of(ehr, "Observation")) == 10


@pytest.mark.parametrize("place", range(len(PLACES)), ids=PLACES)
@pytest.mark.parametrize("fault", [Fault.DROP_AFTER, Fault.GARBAGE, status(429, retry_after=1)], ids=str)
def test_an_amendment_that_fails_on_the_way_arrives_once(fault, place, ehr, ehr_proxy, patient, connect):
    send(connect(ehr), SCENES["tier-urgent"])
    through = connect(ehr_proxy)
    ehr_proxy.script(*[Fault.NONE] * place, fault)
    with pytest.raises(DestinationUnavailable):
        send(through, SCENES["class-corrected"])
    assert send(through, SCENES["class-corrected"]).reference.endswith("/_history/2")
    assert (the_report(ehr)["status"], the_report(ehr)["meta"]["versionId"]) == ("amended", "2")
    assert len(all_of(ehr, "Observation")) == 11
    assert len(all_of(ehr, "Provenance")) == 2


def test_an_amendment_that_a_proxy_repeats_is_one(ehr, ehr_proxy, patient, connect):
    """The repeat of a transaction with If-Match fails; what it wrote the first time is then found."""
    send(connect(ehr), SCENES["tier-urgent"])
    ehr_proxy.always(Fault.REPEAT)
    assert send(connect(ehr_proxy), SCENES["class-corrected"]).reference.endswith("/_history/2")
    assert the_report(ehr)["status"] == "amended"


def test_a_server_killed_while_an_amendment_is_on_its_way(ehr, ehr_proxy, patient, connect):
    destination = connect(ehr_proxy)
    send(destination, SCENES["tier-urgent"])
    asked = len(ehr_proxy.requests) + len(PLACES)
    ehr_proxy.script(*[Fault.NONE] * PLACES.index("transaction"), Delay(0.5))
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send, destination, SCENES["confirmed"])
        while len(ehr_proxy.requests) < asked:
            time.sleep(0.01)
        ehr.kill()
        with pytest.raises(DestinationUnavailable):
            sending.result()
    ehr.start()
    assert the_report(ehr)["status"] == "preliminary"
    assert send(destination, SCENES["confirmed"]).reference.endswith("/_history/2")
    assert the_report(ehr)["status"] == "final"
    assert len(all_of(ehr, "Observation")) == 10


def test_four_amendments_at_once_are_one(ehr, patient, connect):
    destination = connect(ehr)
    send(destination, SCENES["tier-urgent"])
    with ThreadPoolExecutor(4) as pool:
        receipts = list(pool.map(lambda _: send(destination, SCENES["class-corrected"]), range(4)))
    assert {r.reference.partition("/_history")[2] for r in receipts} == {"/2"}


def test_the_order_is_found_by_its_accession_number(ehr, patient, connect):
    order = ehr.post({**ORDER, "subject": {"reference": f"Patient/{patient}"}}).raise_for_status().json()["id"]
    other = ehr.post({**PATIENT, "identifier": [{"system": "s", "value": "v"}]}).raise_for_status().json()["id"]
    ehr.post({**ORDER, "subject": {"reference": f"Patient/{other}"}}).raise_for_status()
    send(connect(ehr), SCENES["tier-urgent"])
    assert the_report(ehr)["basedOn"][0]["reference"] == f"ServiceRequest/{order}"
