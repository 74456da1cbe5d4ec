"""Amendments to a scripted server: our own word is replaced, nobody else's; and what is filled in for the addressee."""

from __future__ import annotations

import httpx
import pytest

from dermoscopy.domain import ArtifactKind, Verdict
from dermoscopy.errors import DestinationUnavailable, Rejected
from fhir_adapters.deliver import FhirDestination
from fhir_adapters.render import RENDERERS
from tests.unit.fhir_adapters import scenes
from tests.unit.fhir_adapters.scripted_ehr import (
    ANALYSIS,
    BASE,
    BUNDLE,
    ISSUERS,
    scripted,
    searchset,
    stored,
    stored_report,
)

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
    reviews = tuple(scenes.review(n, Verdict.CORRECTED, laterality="L") for n in range(1, 6))
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
