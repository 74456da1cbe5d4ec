"""Delivery against a scripted server: who is asked what, and what becomes of each answer."""

from __future__ import annotations

import dataclasses
import json
from urllib.parse import parse_qs

import httpx
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from dermoscopy.domain import Artifact, ArtifactKind, PatientIdentity
from dermoscopy.errors import DestinationUnavailable, Misconfigured, Rejected, UnknownPatient
from dermoscopy.patients import IssuerMap
from fhir_adapters.deliver import DESTINATIONS, FhirDestination
from fhir_adapters.render import RENDERERS
from tests.unit.fhir_adapters import scenes

ISSUERS = IssuerMap({"CLINIC_A": scenes.SYSTEM})
BASE = "https://ehr.example/fhir"


def searchset(*resources):
    entries = [{"resource": resource} for resource in resources]
    return {"resourceType": "Bundle", "type": "searchset", "total": len(entries), "entry": entries}


def patient(value=scenes.PATIENT.patient_id, id="p-1", **more):
    return {
        "resourceType": "Patient",
        "id": id,
        "identifier": [{"system": scenes.SYSTEM, "value": value}],
        "name": [{"family": "Musterfrau"}],
        **more,
    }


class Ehr:
    """Answers as told and remembers what it was asked."""

    def __init__(self):
        self.patients = searchset(patient())
        self.reports = searchset()
        self.held = {}
        self.status = "200 OK"
        self.outcome = None
        self.location = "https://ehr.example/fhir/{kind}/{index}/_history/1"
        self.response: httpx.Response | None = None
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path.endswith("Patient/_search"):
            return self._json(self.patients)
        if request.url.path.endswith("DiagnosticReport/_search"):
            return self._json(self.reports)
        if request.url.path.endswith("/_search"):
            return self._json(self.others(request.url.path.split("/")[-2]))
        return self.response or self._json(self.done(json.loads(request.content)))

    def others(self, kind):
        """What was told, else the resources that go with the report, if there is one."""
        if kind in self.held or not self.reports.get("entry"):
            return self.held.get(kind, searchset())
        return searchset(*stored(kind))

    @staticmethod
    def _json(body):
        return body if isinstance(body, httpx.Response) else httpx.Response(200, json=body)

    def done(self, bundle):
        entries = []
        for index, entry in enumerate(bundle["entry"]):
            kind = entry["resource"]["resourceType"]
            response = {"status": self.status if kind == "Observation" else "200 OK"}
            if self.location:
                response["location"] = self.location.format(kind=kind, index=index)
            if self.outcome and kind == "Observation":
                response["outcome"] = self.outcome
            entries.append({"response": response})
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}

    @property
    def sent(self):
        return [json.loads(r.content) for r in self.requests if r.url.path == "/fhir"]


@pytest.fixture
def ehr():
    return Ehr()


@pytest.fixture
def destination(ehr):
    made = FhirDestination("ehr", BASE, issuers=ISSUERS, token=SecretStr("a-token"), transport=httpx.MockTransport(ehr))
    yield made
    made.close()


ANALYSIS = scenes.analysis()
BUNDLE = RENDERERS[ArtifactKind.FHIR_BUNDLE](scenes.render_input(ANALYSIS))


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


def stored(kind, bundle=BUNDLE):
    made = [e["resource"] for e in json.loads(bundle.data)["entry"] if e["resource"]["resourceType"] == kind]
    return [
        {**one, "id": f"{kind[0].lower()}-{place}", "meta": {**one["meta"], "versionId": "3"}}
        for place, one in enumerate(made)
    ]


def stored_report(bundle=BUNDLE, **changes):
    entries = json.loads(bundle.data)["entry"]
    report = next(e["resource"] for e in entries if e["resource"]["resourceType"] == "DiagnosticReport")
    subject = {"reference": "Patient/p-1"}
    return {
        **report,
        "id": "r-1",
        "subject": subject,
        **changes,
        "meta": {**report["meta"], "versionId": "4", **changes.get("meta", {})},
    }


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


def scripted(handler):
    return FhirDestination("ehr", BASE, issuers=ISSUERS, transport=httpx.MockTransport(handler))


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


CORRECTED = RENDERERS[ArtifactKind.FHIR_BUNDLE](scenes.SCENES["class-corrected"])


def requests_of(sent, kind):
    return [e["request"] for e in sent["entry"] if e["resource"]["resourceType"] == kind]


def test_an_amendment_replaces_exactly_the_versions_that_were_looked_at(ehr, destination):
    ehr.reports = searchset(stored_report())
    destination.deliver(CORRECTED, ANALYSIS)
    (sent,) = ehr.sent
    assert requests_of(sent, "DiagnosticReport") == [
        {"method": "PUT", "url": "DiagnosticReport/r-1", "ifMatch": 'W/"4"'}
    ]
    answers = requests_of(sent, "Observation")
    assert [r.get("ifMatch") for r in answers] == ['W/"3"'] * 10 + [None]
    assert all("?identifier=" in r["url"] for r in answers if "ifMatch" not in r)


@pytest.mark.parametrize("status", ["preliminary", "final", "amended", "entered-in-error"])
def test_our_own_word_may_be_amended_whatever_its_status(status, ehr, destination):
    """A report that we withdrew or that was confirmed here can be corrected here."""
    ours = {"preliminary": "tier-urgent", "final": "confirmed", "amended": "site-corrected"}.get(status, "withdrawn")
    before = RENDERERS[ArtifactKind.FHIR_BUNDLE](scenes.SCENES[ours])
    reviews = tuple(scenes.review(n, scenes.Verdict.CORRECTED, laterality="L") for n in range(1, 6))
    after = RENDERERS[ArtifactKind.FHIR_BUNDLE](scenes.render_input(reviews=reviews))
    report = stored_report(before)
    assert report["status"] == status
    ehr.reports, ehr.held["Observation"] = searchset(report), searchset(*stored("Observation", before))
    destination.deliver(after, ANALYSIS)
    assert len(ehr.sent) == 1


@pytest.mark.parametrize(
    "changes", [{"status": "final"}, {"conclusion": "Seen, harmless."}, {"status": "entered-in-error"}]
)
def test_a_report_that_somebody_changed_there_is_for_a_person(changes, ehr, destination):
    ehr.reports = searchset(stored_report(**changes))
    with pytest.raises(Rejected, match="changed there since") as caught:
        destination.deliver(CORRECTED, ANALYSIS)
    assert "by hand" in str(caught.value)
    assert ehr.sent == []


def test_an_observation_that_somebody_changed_there_is_for_a_person(ehr, destination):
    ehr.reports = searchset(stored_report())
    answers = stored("Observation")
    answers[3]["note"] = [{"text": "I see no reason for urgency."}]
    ehr.held["Observation"] = searchset(*answers)
    with pytest.raises(Rejected, match="an Observation of this report"):
        destination.deliver(CORRECTED, ANALYSIS)
    assert ehr.sent == []


def test_an_older_report_that_comes_late_changes_nothing(ehr, destination):
    ehr.reports = searchset(stored_report(CORRECTED))
    assert destination.deliver(BUNDLE, ANALYSIS).reference == "DiagnosticReport/r-1/_history/4"
    assert ehr.sent == []


@pytest.mark.parametrize("kind", ["Observation", "DocumentReference"])
def test_a_report_without_all_of_its_parts_is_sent_again(kind, ehr, destination):
    """A server that stores entries one by one may have refused some of them."""
    ehr.reports = searchset(stored_report())
    ehr.held[kind] = searchset(*stored(kind)[1:])
    destination.deliver(BUNDLE, ANALYSIS)
    assert len(ehr.sent) == 1


def test_a_confirmed_report_without_all_of_its_parts_is_for_a_person(ehr, destination):
    ehr.reports = searchset(stored_report(status="final"))
    ehr.held["Observation"] = searchset(*stored("Observation")[1:])
    with pytest.raises(Rejected, match="not replaced"):
        destination.deliver(BUNDLE, ANALYSIS)


def test_one_observation_twice_is_for_a_person(ehr, destination):
    ehr.reports = searchset(stored_report())
    ehr.held["Observation"] = searchset(*stored("Observation"), *stored("Observation"))
    with pytest.raises(Rejected, match="twice"):
        destination.deliver(CORRECTED, ANALYSIS)


def precondition_failed():
    issue = [{"severity": "error", "code": "conflict", "diagnostics": "version of Patient/p-1"}]
    return httpx.Response(412, json={"resourceType": "OperationOutcome", "issue": issue})


def test_a_change_between_look_and_write_is_looked_at_again(ehr):
    ehr.reports = searchset(stored_report())

    def answer(request):
        if request.url.path == "/fhir" and not ehr.sent:
            ehr(request)
            ehr.reports = searchset(stored_report(status="final"))
            return precondition_failed()
        return ehr(request)

    with pytest.raises(Rejected, match="changed there since"):
        scripted(answer).deliver(CORRECTED, ANALYSIS)
    assert len(ehr.sent) == 1


def test_a_version_that_moved_without_a_change_is_tried_once_more(ehr):
    ehr.reports = searchset(stored_report())

    def answer(request):
        if request.url.path == "/fhir" and not ehr.sent:
            ehr(request)
            ehr.reports = searchset(stored_report(meta={"versionId": "5"}))
            return precondition_failed()
        return ehr(request)

    assert scripted(answer).deliver(CORRECTED, ANALYSIS).reference
    assert requests_of(ehr.sent[1], "DiagnosticReport")[0]["ifMatch"] == 'W/"5"'


def test_a_server_that_always_sees_a_change_is_for_a_person(ehr, destination):
    ehr.response = precondition_failed()
    with pytest.raises(Rejected, match="412") as caught:
        destination.deliver(BUNDLE, ANALYSIS)
    assert len(ehr.sent) == 2
    assert "p-1" not in str(caught.value)


def test_a_part_that_was_stored_is_told_from_nothing(ehr, destination):
    ehr.status = "422"
    with pytest.raises(Rejected, match="entries were stored") as caught:
        destination.deliver(BUNDLE, ANALYSIS)
    total = len(ehr.sent[0]["entry"])
    assert f"({total - 10} of {total} entries were stored)" in str(caught.value)


def order(**changes):
    return {
        "resourceType": "ServiceRequest",
        "id": "o-1",
        "status": "active",
        "identifier": [{"system": "https://ris.example", "value": "ACC-7"}],
        "subject": {"reference": "Patient/p-1"},
        **changes,
    }


def based_on(ehr):
    entries = ehr.sent[0]["entry"]
    return next(e["resource"] for e in entries if e["resource"]["resourceType"] == "DiagnosticReport")["basedOn"][0]


def test_the_one_order_with_this_accession_number_is_referred_to(ehr, destination):
    ehr.held["ServiceRequest"] = searchset(order())
    destination.deliver(BUNDLE, ANALYSIS)
    assert based_on(ehr)["reference"] == "ServiceRequest/o-1"
    assert all("ACC-7" not in str(r.url) for r in ehr.requests)


@pytest.mark.parametrize(
    "found",
    [
        searchset(),
        searchset(order(), order(id="o-2")),
        searchset(order(subject={"reference": "Patient/p-2"})),
        searchset(order(identifier=[{"value": "ACC-70"}])),
        searchset(order(status="entered-in-error")),
        searchset(order(resourceType="Task")),
        httpx.Response(404, json={"resourceType": "OperationOutcome"}),
        httpx.Response(403, text="<html>"),
        httpx.Response(501),
    ],
)
def test_an_order_that_is_not_surely_this_one_stays_logical(found, ehr, destination):
    ehr.held["ServiceRequest"] = found
    destination.deliver(BUNDLE, ANALYSIS)
    assert "reference" not in based_on(ehr)
    assert based_on(ehr)["identifier"]["value"] == "ACC-7"


def test_an_order_that_cannot_be_asked_for_now_is_asked_for_later(ehr, destination):
    ehr.held["ServiceRequest"] = httpx.Response(503, headers={"Retry-After": "5"})
    with pytest.raises(DestinationUnavailable) as caught:
        destination.deliver(BUNDLE, ANALYSIS)
    assert caught.value.retry_after == 5
    assert ehr.sent == []


def test_dicomweb_addresses_are_sent_where_the_settings_give_a_root(ehr):
    transport = httpx.MockTransport(ehr)
    with_root = FhirDestination(
        "ehr", BASE, issuers=ISSUERS, dicomweb_url="https://pacs.example/dw", transport=transport
    )
    with_root.deliver(BUNDLE, ANALYSIS)
    documents = [e["resource"] for e in ehr.sent[0]["entry"] if e["resource"]["resourceType"] == "DocumentReference"]
    assert {d["content"][0]["attachment"]["url"][:25] for d in documents} == {"https://pacs.example/dw/s"}


def test_the_state_of_a_report_can_be_read_back(ehr, destination):
    assert destination.read_report_status(ANALYSIS.id) is None
    for changes, changed in (({}, False), ({"status": "final"}, True), ({"meta": {"tag": []}}, None)):
        ehr.reports = searchset(stored_report(**changes))
        state = destination.read_report_status(ANALYSIS.id)
        assert (state.status, state.changed) == (changes.get("status", "preliminary"), changed)
        assert state.reference == "DiagnosticReport/r-1/_history/4"
