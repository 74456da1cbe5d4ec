"""CDS Hooks from outside: discovery, calls, feedback, and what each leaves in the audit log."""

from __future__ import annotations

import json
import uuid

import pytest
import sqlalchemy as sa

from audit.tables import AuditLeaf
from cds_service.hooks.services import SERVICES
from dermoscopy.domain import PatientIdentity, TriageTier, derive_id
from dermoscopy.settings import ApiToken, Role
from dermoscopy.tables import AnalysisRow, HoldRow
from tests.findings import (
    ISSUER,
    NOTE,
    PATIENT,
    SYSTEM,
    called_otherwise,
    fail,
    fhir_patient,
    finish,
    make_finding,
    make_header,
    not_answered,
    stored_analysis,
    take_in,
)

CALL = "/cds-services/dermoscopy-triage"
JSON = {"Content-Type": "application/json"}
INSTANCE = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"
TOKEN = "secret-access-token"


def request(patient=None, **changes):
    body = {
        "hook": "patient-view",
        "hookInstance": INSTANCE,
        "fhirServer": "https://ehr.example/fhir",
        "fhirAuthorization": {
            "access_token": TOKEN, "token_type": "Bearer", "expires_in": 300, "scope": "user/*.rs", "subject": "cds",
        },
        "context": {"userId": "Practitioner/1", "patientId": "p1"},
        "prefetch": {"patient": patient or fhir_patient()},
    }  # fmt: skip
    return {k: v for k, v in (body | changes).items() if v is not ...}


def cards(client, **changes):
    answer = client.post(CALL, json=request(**changes))
    assert answer.status_code == 200, answer.text
    assert_no_empty_values(answer.json()["cards"])
    return answer.json()["cards"]


def assert_no_empty_values(value):
    """CDS Hooks 2.0: no null and no empty JSON values."""
    if isinstance(value, dict):
        for member in value.values():
            assert member is not None and member != {} and member != [] and member != ""
            assert_no_empty_values(member)
    elif isinstance(value, list):
        for member in value:
            assert_no_empty_values(member)


def leaves(node):
    with node.begin() as session:
        rows = session.execute(sa.select(AuditLeaf).where(AuditLeaf.action.like("card.%")).order_by(AuditLeaf.at))  # type: ignore[attr-defined]
        return rows.scalars().all()


def test_discovery_names_what_is_required(client):
    services = client.get("/cds-services").json()["services"]
    assert [service["id"] for service in services] == list(SERVICES)
    for service in services:
        assert {"hook", "id", "title", "description", "prefetch"} <= set(service)
        assert_no_empty_values(service)
        assert service["prefetch"]["patient"] == "Patient/{{context.patientId}}"


@pytest.mark.parametrize(
    ("tier", "indicator", "says"),
    [
        (TriageTier.URGENT, "critical", "Urgent review: melanoma, probability 87 %"),
        (TriageTier.EXPEDITED, "warning", "Expedited review: basal cell carcinoma, probability 61 %"),
        (TriageTier.UNDETERMINED, "warning", "Undetermined: the algorithm abstains"),
        (TriageTier.ROUTINE, "info", "Routine review: benign keratosis-like lesion, probability 72 %"),
        (TriageTier.MONITOR, "info", "Monitor: melanocytic nevus, probability 96 %"),
    ],
)
def test_one_card_for_one_finding(client, node, tier, indicator, says):
    analysis = stored_analysis(node, tier)
    (card,) = cards(client)
    assert card["summary"].startswith(says) and len(card["summary"]) < 140
    assert card["indicator"] == indicator
    assert card["uuid"] == derive_id("card", "dermoscopy-triage", analysis.id)
    assert card["links"] == [
        {
            "label": "Open image, outline and report",
            "url": f"http://127.0.0.1:8600/analyses/{analysis.id}",
            "type": "absolute",
        }
    ]
    detail = card["detail"]
    for part in (f"Triage: {tier.value}", "Recommendation", "23.4 mm²", "lesionnet-lite0 1.0.0", "medical device"):
        assert part in detail
    assert card["source"]["topic"]["code"] == "1237125003"
    assert PATIENT.patient_id not in json.dumps(card)


def test_a_class_called_although_another_is_more_probable_says_so(client, node):
    finish(node, take_in(node).analysis_id, called_otherwise())
    (card,) = cards(client)
    assert "basal cell carcinoma, probability 21 %; more probable: melanocytic nevus 55 %" in card["summary"]
    assert len(card["summary"]) < 140
    assert NOTE in card["detail"]
    assert "Cannot be excluded at an error rate of 10 %: melanocytic nevus" in card["detail"]


def test_an_abstention_gives_its_reasons_and_no_set(client, node):
    finish(node, take_in(node).analysis_id, not_answered())
    (card,) = cards(client)
    assert "**No answer:** the image is blurred; too many classes cannot be excluded" in card["detail"]
    assert "Cannot be excluded" not in card["detail"]


def test_an_urgent_abstention_says_first_why_it_is_urgent(client, node):
    import dataclasses

    urgent = dataclasses.replace(not_answered(), triage=make_finding(TriageTier.URGENT).triage, melanoma_risk=0.41)
    finish(node, take_in(node).analysis_id, urgent)
    (card,) = cards(client)
    assert card["summary"].startswith("Urgent review: melanoma risk 41 %, although the algorithm abstains")
    assert card["indicator"] == "critical"


def test_an_uncalibrated_image_claims_no_millimetres(client, node):
    import dataclasses

    receipt = take_in(node)
    measured = make_finding().measurements
    assert measured is not None
    bare = dataclasses.replace(measured, area_mm2=None, perimeter_mm=None, equivalent_diameter_mm=None)
    finish(node, receipt.analysis_id, make_finding(measurements=bare))
    assert "no millimetres" in cards(client)[0]["detail"]


def test_the_most_urgent_card_stands_first_and_the_same_call_gives_the_same_cards(client, node):
    for tier in reversed(TriageTier):
        stored_analysis(node, tier, name=tier.value)
    shown = cards(client)
    assert [card["summary"].partition(":")[0] for card in shown] == [
        "Urgent review", "Expedited review", "Undetermined", "Routine review", "Monitor",
    ]  # fmt: skip
    assert cards(client) == shown


def test_the_newest_analysis_of_an_image_counts(client, node):
    stored_analysis(node, TriageTier.MONITOR)
    with node.begin() as session:
        old = session.execute(sa.select(AnalysisRow)).scalar_one()
        newer = AnalysisRow(
            **(old.model_dump() | {"id": str(uuid.uuid4()), "model_version": "2.0.0", "tier": "urgent"})
        )
        newer.created_at = old.created_at.replace(year=old.created_at.year + 1)
        session.add(newer)
    (card,) = cards(client)
    assert card["indicator"] == "critical" and "2.0.0" in card["detail"]


def test_more_findings_than_fit_are_not_forgotten(client, node):
    for number in range(12):
        stored_analysis(node, TriageTier.ROUTINE, name=str(number))
    shown = cards(client)
    assert len(shown) == 11
    assert shown[-1]["summary"].startswith("2 further dermoscopy findings")


def test_nothing_stored_is_no_card(client):
    assert cards(client) == []


def test_work_under_way_is_told(client, node):
    take_in(node)
    (card,) = cards(client)
    assert card["indicator"] == "info" and "no result yet" in card["summary"]


def test_a_failed_analysis_is_told(client, node):
    fail(node, take_in(node).analysis_id)
    (card,) = cards(client)
    assert card["indicator"] == "warning" and "could not be analysed" in card["summary"]
    assert "the network gave no numbers" in card["detail"]


def test_more_failures_than_have_a_card_are_counted(client, node):
    for number in range(12):
        fail(node, take_in(node, name=str(number)).analysis_id)
    shown = cards(client)
    assert len(shown) == 11
    assert shown[-1]["summary"] == "2 further dermoscopy images could not be analysed: look at them yourself"


def test_a_held_image_is_told(client, node):
    stored_analysis(node, TriageTier.MONITOR)
    assert node.intake.accept(b"other", make_header(), source="test", caller="test").hold == "uid_conflict"
    shown = cards(client)
    assert [card["indicator"] for card in shown] == ["info", "warning"]
    assert "waits for a decision" in shown[1]["summary"]


@pytest.mark.parametrize(
    "other",
    [
        PatientIdentity(ISSUER, "TEST-0043"),
        PatientIdentity("HOSPITAL-B", "TEST-0042"),
        PatientIdentity("", "TEST-0042"),
    ],
)
def test_another_patient_is_never_shown(client, node, other):
    stored_analysis(node, patient=other)
    assert cards(client) == []


def test_an_unlisted_system_is_its_own_issuer(client, node):
    stored_analysis(node, patient=PatientIdentity("urn:other", "X"))
    assert len(cards(client, patient=fhir_patient("X", "urn:other"))) == 1


def test_two_identifiers_of_one_issuer_are_no_card_but_a_hold(client, node):
    stored_analysis(node)
    twice = fhir_patient()
    twice["identifier"] = [{"system": SYSTEM, "value": "TEST-0042"}, {"system": SYSTEM, "value": "TEST-0043"}]
    assert cards(client, patient=twice) == []
    assert cards(client, patient=twice) == []
    with node.begin() as session:
        hold = session.execute(sa.select(HoldRow)).scalar_one()
    assert (hold.kind, hold.subject_id) == ("ambiguous_patient", "Patient/p1")
    assert [leaf.action for leaf in leaves(node)] == ["card.none", "card.none"]
    assert json.loads(leaves(node)[0].details)["hold"] == hold.id


def test_each_call_leaves_one_leaf(client, node):
    analysis = stored_analysis(node)
    (card,) = cards(client)
    (leaf,) = leaves(node)
    assert (leaf.action, leaf.actor, leaf.subject_id) == ("card.shown", "Practitioner/1", analysis.id)
    assert (leaf.patient_issuer, leaf.patient_id) == (ISSUER, "TEST-0042")
    details = json.loads(leaf.details)
    assert details["hook_instance"] == INSTANCE
    assert (details["cards"], details["analyses"]) == ([card["uuid"]], [analysis.id])


def test_a_patient_who_looks_at_their_own_chart_is_not_named_as_actor(client, node):
    cards(client, context={"userId": "Patient/p1", "patientId": "p1"})
    assert leaves(node)[0].actor == "Patient"


def test_the_access_token_is_nowhere(client, node, tmp_path, capsys):
    stored_analysis(node)
    cards(client)
    bad = request(hookInstance="x")
    assert TOKEN not in client.post(CALL, json=bad).text
    assert TOKEN not in capsys.readouterr().out
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert TOKEN.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"hook": "order-sign"}, 400),
        ({"hook": ...}, 400),
        ({"hookInstance": "x"}, 400),
        ({"hookInstance": ...}, 400),
        ({"context": {}}, 400),
        ({"context": {"patientId": "p1"}}, 400),
        ({"context": {"userId": "Practitioner/1"}}, 400),
        ({"context": {"userId": "1", "patientId": "p1"}}, 400),
        ({"fhirServer": ...}, 400),
        ({"fhirAuthorization": {"access_token": "x"}}, 400),
        ({"prefetch": ...}, 412),
        ({"prefetch": None}, 412),
        ({"prefetch": {}}, 412),
        ({"prefetch": {"patient": None}}, 412),
        ({"prefetch": {"patient": {"resourceType": "OperationOutcome", "issue": []}}}, 412),
        ({"prefetch": {"patient": {"resourceType": "Patient", "id": "p2"}}}, 412),
        ({"prefetch": {"patient": "Patient/p1"}}, 412),
    ],
)
def test_what_is_wrong_with_a_call_is_told_as_an_outcome(client, node, changes, status):
    answer = client.post(CALL, json=request(**changes))
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/fhir+json"
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome" and outcome["issue"][0]["diagnostics"]
    assert not leaves(node)


def test_a_call_without_authorization_of_the_ehr_is_fine(client):
    assert cards(client, fhirServer=..., fhirAuthorization=...) == []


def test_unknown_services(client):
    assert client.post("/cds-services/nope", json=request()).status_code == 404
    said = {"feedback": [{"card": INSTANCE, "outcome": "accepted", "outcomeTimestamp": "2026-03-14T12:00:00Z"}]}
    assert client.post("/cds-services/nope/feedback", json=said).status_code == 404


def test_malformed_json_is_told(client):
    answer = client.post(CALL, content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert "not JSON" in answer.json()["issue"][0]["diagnostics"]


class TestFeedback:
    ADDRESS = f"{CALL}/feedback"

    def said(self, **changes):
        one = {
            "card": INSTANCE,
            "outcome": "overridden",
            "overrideReason": {"reason": {"code": "known", "system": "urn:x"}, "userComment": "Mr Example disagrees"},
            "outcomeTimestamp": "2026-03-14T12:00:00Z",
        }
        return {"feedback": [{k: v for k, v in (one | changes).items() if v is not ...}]}

    def test_it_is_one_leaf_however_often_it_comes(self, client, node):
        for stamp in ("2026-03-14T12:00:00Z", "2026-03-14T13:00:00+01:00", "2026-03-14T12:00:00.000Z"):
            answer = client.post(self.ADDRESS, json=self.said(outcomeTimestamp=stamp))
            assert (answer.status_code, answer.content) == (200, b"")
        (leaf,) = leaves(node)
        details = json.loads(leaf.details)
        assert (leaf.action, details["card"], details["outcome"]) == ("card.feedback", INSTANCE, "overridden")
        assert (details["override_code"], details["comment_length"]) == ("known", 20)
        assert "Example" not in leaf.details

    def test_another_time_is_another_outcome(self, client, node):
        client.post(self.ADDRESS, json=self.said())
        client.post(self.ADDRESS, json=self.said(outcomeTimestamp="2026-03-14T12:00:01Z", outcome="accepted"))
        assert len(leaves(node)) == 2

    @pytest.mark.parametrize(
        "changes",
        [
            {"card": "x"},
            {"outcome": "ignored"},
            {"outcomeTimestamp": "yesterday"},
            {"outcomeTimestamp": "2026-03-14T12:00:00"},
            {"outcomeTimestamp": 0},
            {"outcomeTimestamp": "0"},
            {"outcomeTimestamp": "0001-01-01T00:00:00+14:00"},
        ],
    )
    def test_wrong_feedback_is_400_and_leaves_nothing(self, client, node, changes):
        assert client.post(self.ADDRESS, json=self.said(**changes)).status_code == 400
        assert not leaves(node)

    def test_empty_feedback_is_400(self, client):
        assert client.post(self.ADDRESS, json={"feedback": []}).status_code == 400

    def rows(self, client):
        answer = client.get("/api/v1/card-feedback")
        assert answer.status_code == 200
        return answer.json()["feedback"]

    def test_it_is_kept_with_its_words_for_those_who_watch(self, client, node, capsys):
        analysis = stored_analysis(node)
        (card,) = cards(client)
        reason = card["overrideReasons"][0]
        override = {"reason": reason, "userComment": "Mr Example disagrees"}
        for _ in range(2):
            client.post(self.ADDRESS, json=self.said(card=card["uuid"], overrideReason=override))
        (row,) = self.rows(client)
        assert (row["card"], row["known"], row["report_id"]) == (card["uuid"], True, analysis.id)
        assert (row["reason_system"], row["reason_code"]) == (reason["system"], reason["code"])
        assert row["comment"] == "Mr Example disagrees"
        with node.begin() as session:
            told = session.execute(sa.select(AuditLeaf.details)).scalars().all()
        assert not any("Example" in details for details in told)
        assert "Example" not in capsys.readouterr().out

    def test_accepted_suggestions_are_named(self, client):
        client.post(
            self.ADDRESS, json=self.said(outcome="accepted", overrideReason=..., acceptedSuggestions=[{"id": "s-1"}])
        )
        (row,) = self.rows(client)
        assert (row["outcome"], row["accepted_suggestions"]) == ("accepted", ["s-1"])

    def test_a_card_that_nobody_remembers_is_noted_as_such(self, client, node):
        assert client.post(self.ADDRESS, json=self.said()).status_code == 200
        (row,) = self.rows(client)
        assert row["known"] is False and row["report_id"] is None
        assert json.loads(leaves(node)[0].details)["known"] is False

    def test_who_reads_it_is_written_down_and_only_administrators_may(self, open_client):
        tokens = tuple(
            ApiToken(name=role.value, token=f"{role.value}-token-0123456789", role=role)
            for role in (Role.REVIEW, Role.ADMIN)
        )
        client = open_client(api_tokens=tokens)
        for role, status in ((Role.REVIEW, 403), (Role.ADMIN, 200)):
            headers = {"Authorization": f"Bearer {role.value}-token-0123456789"}
            assert client.get("/api/v1/card-feedback", headers=headers).status_code == status
        (leaf,) = leaves(client.app.state.node)
        assert (leaf.action, leaf.actor) == ("card.feedback_read", "admin")

    def test_the_list_goes_on_before_a_time(self, client):
        for second in range(3):
            client.post(self.ADDRESS, json=self.said(outcomeTimestamp=f"2026-03-14T12:00:0{second}Z"))
        first = self.rows(client)
        assert len(first) == 3
        answer = client.get("/api/v1/card-feedback", params={"before": first[0]["received_at"], "limit": 1})
        assert [row["feedback_id"] for row in answer.json()["feedback"]] == [first[1]["feedback_id"]]


def test_reasons_to_override_are_of_real_code_systems(client, node):
    stored_analysis(node)
    (card,) = cards(client)
    assert len(card["overrideReasons"]) >= 4
    for reason in card["overrideReasons"]:
        assert reason["display"] and reason["code"]
        assert reason["system"] in ("http://terminology.hl7.org/CodeSystem/v3-ActCode", "http://snomed.info/sct")


def test_a_context_of_megabytes_is_read_and_a_larger_one_refused(open_client):
    client = open_client(hooks_max_request_bytes=3_000_000)
    body = request()
    body["context"]["draftOrders"] = {"resourceType": "Bundle", "entry": [{"resource": {"text": "x" * 2_000_000}}]}
    assert client.post(CALL, json=body).status_code == 200
    body["context"]["draftOrders"]["entry"] *= 2
    answer = client.post(CALL, json=body)
    assert answer.status_code == 413 and answer.json()["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize("text", ["\ud800", "a\x00b"])
def test_text_that_nothing_can_hold_is_400_and_not_500(client, node, text):
    stored_analysis(node)
    media = {"resourceType": "Media", "subject": {"reference": "Patient/p1"}, "content": {"data": text}}
    for prefetch in ({"patient": fhir_patient(text)}, {"patient": fhir_patient(), "media": media}):
        answer = client.post(CALL, content=json.dumps(request(prefetch=prefetch)), headers=JSON)
        assert answer.status_code == 400, answer.text
        assert answer.json()["resourceType"] == "OperationOutcome"


def test_an_image_with_an_address_that_is_none_breaks_nothing(client, node):
    stored_analysis(node)
    media = {
        "resourceType": "Media",
        "id": "1",
        "subject": {"reference": "Patient/p1"},
        "content": {"url": "http://[::1"},
    }
    shown = cards(client, prefetch={"patient": fhir_patient(), "media": media, "documents": None, "studies": None})
    assert [card["indicator"] for card in shown] == ["critical", "info"]
    assert "not fetched" in shown[1]["summary"]


def test_a_context_that_is_endlessly_deep_is_400(client):
    deep = json.dumps(request()).replace('"patientId": "p1"', f'"patientId": "p1", "x": {"[" * 100_000}{"]" * 100_000}')
    assert client.post(CALL, content=deep, headers={"Content-Type": "application/json"}).status_code == 400
