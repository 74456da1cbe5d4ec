"""Delivery against a scripted server: who is asked what, and what becomes of each answer."""

from __future__ import annotations

import dataclasses
import json
from urllib.parse import parse_qs

import httpx
import pytest
from structlog.testing import capture_logs

from dermoscopy.domain import Artifact, ArtifactKind, PatientIdentity
from dermoscopy.errors import DestinationUnavailable, Misconfigured, Rejected, UnknownPatient
from dermoscopy.patients import IssuerMap
from fhir_adapters.deliver import DESTINATIONS, FhirDestination
from tests.unit.fhir_adapters import scenes
from tests.unit.fhir_adapters.scripted_ehr import (
    ANALYSIS,
    BASE,
    BUNDLE,
    ISSUERS,
    patient,
    scripted,
    searchset,
    stored_report,
)


def test_accepts_only_bundles(destination):
    assert destination.name == "ehr"
    assert destination.accepts == {ArtifactKind.FHIR_BUNDLE}
    with pytest.raises(Rejected):
        destination.deliver(Artifact(ArtifactKind.SEG, "application/dicom", b"", "1.2"), ANALYSIS)


def test_the_receipt_names_report_and_version(destination, ehr):
    receipt = destination.deliver(BUNDLE, ANALYSIS)
    (sent,) = ehr.sent
    place = [e["resource"]["resourceType"] for e in sent["entry"]].index("DiagnosticReport")
    assert receipt.reference == f"DiagnosticReport/{place}/_history/1"


def test_the_patient_is_searched_by_post_and_never_in_a_url(destination, ehr):
    destination.deliver(BUNDLE, ANALYSIS)
    search = ehr.requests[0]
    assert (search.method, search.url.path) == ("POST", "/fhir/Patient/_search")
    assert parse_qs(search.content.decode())["identifier"] == [f"{scenes.SYSTEM}|{scenes.PATIENT.patient_id}"]
    for request in ehr.requests:
        assert scenes.PATIENT.patient_id not in str(request.url)
        assert request.headers["Authorization"] == "Bearer a-token"


def test_the_subject_is_literal_and_keeps_the_identifier(destination, ehr):
    destination.deliver(BUNDLE, ANALYSIS)
    (sent,) = ehr.sent
    subjects = [e["resource"]["subject"] for e in sent["entry"] if "subject" in e["resource"]]
    assert len(subjects) == 16
    for subject in subjects:
        assert subject == {
            "reference": "Patient/p-1",
            "type": "Patient",
            "identifier": {"system": scenes.SYSTEM, "value": scenes.PATIENT.patient_id},
        }


@pytest.mark.parametrize("value", ["A|B", "A,B", "A$B", "A\\B", "A&B=C", "Größe"])
def test_odd_identifiers_are_escaped(value, ehr, destination):
    identity = PatientIdentity("CLINIC_A", value)
    analysis = scenes.analysis(header=dataclasses.replace(scenes.HEADER, patient=identity))
    ehr.patients = searchset(patient(value))
    destination.deliver(BUNDLE, analysis)
    (token,) = parse_qs(ehr.requests[0].content.decode())["identifier"]
    escaped = value
    for character in "\\$,|":
        escaped = escaped.replace(character, "\\" + character)
    assert token == f"{scenes.SYSTEM}|{escaped}"


@pytest.mark.parametrize(
    "found",
    [
        searchset(),
        {"resourceType": "Bundle", "type": "searchset", "total": 0},
        searchset(patient("TEST-0043")),
        searchset(patient(active=False)),
        searchset(patient(link=[{"other": {"reference": "Patient/p-2"}, "type": "replaced-by"}])),
        searchset(patient(), patient(id="p-2")),
        searchset(patient(identifier=[{"system": scenes.SYSTEM, "value": "TEST-0042", "use": "old"}])),
        searchset(
            patient(identifier=[{"system": scenes.SYSTEM, "value": v} for v in ("TEST-0042", "TEST-0043")]),
        ),
        searchset({"resourceType": "OperationOutcome", "issue": []}),
    ],
)
def test_no_or_several_patients_hold_the_delivery(found, ehr, destination):
    ehr.patients = found
    with pytest.raises(UnknownPatient) as caught:
        destination.deliver(BUNDLE, ANALYSIS)
    assert "TEST-004" not in str(caught.value)
    assert ehr.sent == []


def test_the_same_patient_twice_in_an_answer_is_one(ehr, destination):
    ehr.patients = searchset(patient(), patient())
    assert destination.deliver(BUNDLE, ANALYSIS).reference


@pytest.mark.parametrize("identity", [PatientIdentity("", "TEST-0042"), PatientIdentity("CLINIC_A", "")])
def test_half_an_identity_asks_nobody(identity, ehr, destination):
    analysis = scenes.analysis(header=dataclasses.replace(scenes.HEADER, patient=identity))
    with pytest.raises(UnknownPatient):
        destination.deliver(BUNDLE, analysis)
    assert ehr.requests == []


def test_the_default_issuer_stands_in(ehr):
    issuers = IssuerMap({"CLINIC_A": scenes.SYSTEM}, default_issuer="CLINIC_A")
    analysis = scenes.analysis(header=dataclasses.replace(scenes.HEADER, patient=PatientIdentity("", "TEST-0042")))
    with_default = FhirDestination("ehr", BASE, issuers=issuers, transport=httpx.MockTransport(ehr))
    assert with_default.deliver(BUNDLE, analysis).reference
    assert "Authorization" not in ehr.requests[0].headers


def test_a_repeat_sends_nothing(ehr, destination):
    ehr.reports = searchset(stored_report())
    assert destination.deliver(BUNDLE, ANALYSIS).reference == "DiagnosticReport/r-1/_history/4"
    assert ehr.sent == []


@pytest.mark.parametrize("reference", ["Patient/p-1", "https://ehr.example/fhir/Patient/p-1"])
def test_servers_may_answer_with_whole_addresses(reference, ehr, destination):
    ehr.reports = searchset(stored_report(subject={"reference": reference}))
    destination.deliver(BUNDLE, ANALYSIS)
    assert ehr.sent == []


@pytest.mark.parametrize(
    "subject", [{"reference": "Patient/p-2"}, {"reference": "Patient/xp-1"}, {"display": "?"}, None]
)
def test_a_report_of_another_patient_is_corrected(subject, ehr, destination):
    """A person assigned the image to somebody else after it had been delivered."""
    ehr.reports = searchset(stored_report(subject=subject))
    destination.deliver(BUNDLE, ANALYSIS)
    (sent,) = ehr.sent
    assert {e["resource"]["subject"]["reference"] for e in sent["entry"] if "subject" in e["resource"]} == {
        "Patient/p-1"
    }


def test_a_confirmed_report_of_another_patient_is_for_a_person(ehr, destination):
    ehr.reports = searchset(stored_report(subject={"reference": "Patient/p-2"}, status="final"))
    with pytest.raises(Rejected, match="not replaced"):
        destination.deliver(BUNDLE, ANALYSIS)


def test_an_amendment_of_a_preliminary_report_is_sent(ehr, destination):
    ehr.reports = searchset(stored_report(meta={"tag": []}))
    destination.deliver(BUNDLE, ANALYSIS)
    assert len(ehr.sent) == 1


@pytest.mark.parametrize("status", ["final", "amended", "corrected", "appended", "cancelled", "entered-in-error"])
def test_what_a_clinician_confirmed_is_not_replaced(status, ehr, destination):
    ehr.reports = searchset(stored_report(status=status, meta={"tag": []}))
    with pytest.raises(Rejected, match="not replaced"):
        destination.deliver(BUNDLE, ANALYSIS)
    assert ehr.sent == []


def test_a_repeat_after_confirmation_is_done_already(ehr, destination):
    ehr.reports = searchset(stored_report(status="final"))
    assert destination.deliver(BUNDLE, ANALYSIS).reference == "DiagnosticReport/r-1/_history/4"


def test_several_reports_with_our_identifier_are_for_a_person(ehr, destination):
    ehr.reports = searchset(stored_report(), stored_report(id="r-2"))
    with pytest.raises(Rejected, match="2 reports"):
        destination.deliver(BUNDLE, ANALYSIS)


def test_a_report_that_was_not_asked_for_is_ignored(ehr, destination):
    ehr.reports = searchset(stored_report(identifier=[{"system": "s", "value": "v"}]))
    destination.deliver(BUNDLE, ANALYSIS)
    assert len(ehr.sent) == 1


@pytest.mark.parametrize(
    ("status", "error"), [("400", Rejected), ("422 Unprocessable", Rejected), ("409", DestinationUnavailable)]
)
def test_one_refused_entry_is_a_refusal(status, error, ehr, destination):
    ehr.status = status
    ehr.outcome = {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": "invalid", "diagnostics": "TEST-0042 for Patient/p-1"}],
    }
    with pytest.raises(error, match="Observation was not stored") as caught:
        destination.deliver(BUNDLE, ANALYSIS)
    assert "TEST-0042" not in str(caught.value)
    assert "p-1" not in str(caught.value)


@pytest.mark.parametrize("status", ["", "done", "503 Service Unavailable"])
def test_an_entry_without_success_is_not_done(status, ehr, destination):
    ehr.status = status
    with pytest.raises(DestinationUnavailable):
        destination.deliver(BUNDLE, ANALYSIS)


@pytest.mark.parametrize(
    "body",
    [
        {"resourceType": "Bundle", "type": "transaction-response"},
        {"resourceType": "Bundle", "type": "transaction-response", "entry": [{"response": {"status": "200"}}]},
        {"resourceType": "OperationOutcome", "issue": [{"severity": "information", "code": "informational"}]},
    ],
)
def test_half_an_answer_is_none(body, ehr, destination):
    ehr.response = httpx.Response(200, json=body)
    with pytest.raises(DestinationUnavailable):
        destination.deliver(BUNDLE, ANALYSIS)


@pytest.mark.parametrize(
    ("location", "reference"),
    [
        ("DiagnosticReport/7/_history/2", "DiagnosticReport/7/_history/2"),
        ("/fhir/DiagnosticReport/7/_history/2", "DiagnosticReport/7/_history/2"),
        ("", ""),
    ],
)
def test_locations_of_many_kinds(location, reference, ehr, destination):
    ehr.location = location
    assert destination.deliver(BUNDLE, ANALYSIS).reference == reference


def test_a_search_that_answers_with_something_else(ehr, destination):
    ehr.patients = {"resourceType": "OperationOutcome", "issue": []}
    with pytest.raises(DestinationUnavailable):
        destination.deliver(BUNDLE, ANALYSIS)


def test_redirects_on_the_same_host_keep_the_method(ehr):
    def moved(request):
        if request.url.path.startswith("/fhir"):
            return httpx.Response(308, headers={"Location": request.url.path.replace("/fhir", "/r4", 1)})
        request.url = request.url.copy_with(path=request.url.path.replace("/r4", "/fhir", 1))
        return ehr(request)

    assert scripted(moved).deliver(BUNDLE, ANALYSIS).reference


@pytest.mark.parametrize("target", ["https://evil.example/fhir", "http://ehr.example/fhir", "https://ehr.example:444/"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_elsewhere_are_refused(status, target):
    asked = []

    def elsewhere(request):
        asked.append(request.url.host)
        return httpx.Response(status, headers={"Location": target})

    with pytest.raises(Rejected, match="base_url"):
        scripted(elsewhere).deliver(BUNDLE, ANALYSIS)
    assert asked == ["ehr.example"]


def test_a_redirect_to_nonsense_is_no_answer():
    with pytest.raises(DestinationUnavailable):
        scripted(lambda _: httpx.Response(307, headers={"Location": "https://[::1"})).deliver(BUNDLE, ANALYSIS)


@pytest.mark.parametrize(
    "error", [httpx.ConnectTimeout, httpx.ReadTimeout, httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError]
)
def test_no_answer_is_transient(error):
    def broken(request):
        raise error("TEST-0042", request=request)

    with pytest.raises(DestinationUnavailable) as caught:
        scripted(broken).deliver(BUNDLE, ANALYSIS)
    assert "TEST-0042" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "ehr.example/fhir", "ftp://ehr.example", "https://user:pw@ehr.example/fhir", "https://ehr.example/?a=b"]
)
def test_addresses_that_cannot_be_meant(url):
    with pytest.raises(Misconfigured, match="base_url"):
        FhirDestination("ehr", url, issuers=ISSUERS)


def test_logs_carry_no_patient_and_no_token(destination):
    with capture_logs() as logs:
        destination.deliver(BUNDLE, ANALYSIS)
    said = json.dumps(logs)
    assert '"fhir.delivered"' in said
    assert "TEST-0042" not in said
    assert "a-token" not in said
    assert "a-token" not in repr(destination) + str(vars(destination).get("_base"))


def test_the_destination_is_listed():
    assert {"fhir": FhirDestination} == DESTINATIONS
