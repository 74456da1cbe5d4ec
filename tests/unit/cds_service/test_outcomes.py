"""Outcomes from the API to the row: matched, held, amended, withdrawn, told again; never on another's lesion."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from sqlmodel import col, select

from audit.tables import AuditLeaf
from cds_service import outcome_assignment
from cds_service.authorization import LOCAL
from cds_service.hooks.standing import records_of
from cds_service.node import Node
from cds_service.outcome_assignment import Decision, assign
from dermoscopy.domain import Analysis, LesionClass, PatientIdentity, TriageTier
from dermoscopy.identifiers import report_identifier
from dermoscopy.tables import HoldRow, InstanceRow
from tests.findings import ISSUER, PATIENT, SYSTEM, finish, make_finding, take_in
from tests.pathology import BACK_LEFT, MELANOMA, NAEVUS, bundle, concept, observation, report, subject

TAKEN = datetime(2026, 11, 10, 9, 0, tzinfo=UTC)
URL = "/api/v1/outcomes"


def tell(client: TestClient, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = client.post(URL, json=body, headers={"Content-Type": "application/fhir+json"})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def told(client: TestClient, body: dict[str, Any]) -> dict[str, Any]:
    """The one outcome of a resource."""
    (resource,) = tell(client, body)["resources"]
    (outcome,) = resource["outcomes"]
    return outcome | {"result": resource["result"]}


def imaged(
    node: Node,
    name: str = "1",
    tier: TriageTier = TriageTier.URGENT,
    patient: PatientIdentity = PATIENT,
    **changes: str,
) -> Analysis:
    """A finished analysis of an image that was taken ten days before the specimen."""
    analysis = finish(node, take_in(node, patient, name, **changes).analysis_id, make_finding(tier))
    with node.begin() as session:
        session.execute(sa.update(InstanceRow).values(received_at=TAKEN))
    return analysis


def holds(node: Node, kind: str) -> list[HoldRow]:
    with node.begin() as session:
        rows = list(session.execute(select(HoldRow).where(col(HoldRow.kind) == kind)).scalars())
        session.expunge_all()
    return [row for row in rows if row.resolved_at is None]


def leaves(node: Node, action: str) -> int:
    with node.begin() as session:
        return len(session.execute(select(AuditLeaf).where(col(AuditLeaf.action) == action)).all())


def test_the_accession_number_matches_and_the_answer_says_so(client, node):
    analysis = imaged(node)
    found = told(client, report(MELANOMA))
    assert (found["report_id"], found["state"], found["matched_by"]) == (analysis.id, "matched", "accession")
    answer = client.get(f"/api/v1/analyses/{analysis.id}").json()
    assert answer["outcome"]["lesion_class"] == LesionClass.MEL
    assert leaves(node, "outcome.recorded") == 1
    assert "TEST-0042" not in client.get(URL).text


def test_our_report_is_named_by_the_order_of_the_biopsy(client, node):
    imaged(node, "1")
    wanted = imaged(node, "2")
    based = [{"identifier": {"system": "urn:ietf:rfc:3986", "value": report_identifier(wanted.id)}}]
    found = told(client, report(MELANOMA, basedOn=based))
    assert (found["report_id"], found["matched_by"]) == (wanted.id, "report")


def test_site_and_side_match_without_an_order(client, node):
    imaged(node, "1", body_site_code="73897004", laterality="")
    wanted = imaged(node, "2")
    found = told(client, observation(MELANOMA, bodySite={"coding": [c["coding"][0] for c in BACK_LEFT]}))
    assert (found["report_id"], found["matched_by"]) == (wanted.id, "site")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({}, "several lesions"), ({"subject": {}}, "no identifier"), ({"subject": subject("X")}, "no image of this")],
)
def test_what_is_not_certain_waits_for_a_person(client, node, changes, reason):
    imaged(node, "1")
    imaged(node, "2")
    found = told(client, report(MELANOMA, **changes))
    assert (found["report_id"], found["state"]) == (None, "held")
    assert reason in found["reason"]
    (held,) = holds(node, "outcome")
    assert held.subject_id == found["outcome_id"]
    assert "TEST-0042" not in held.reason


def test_another_patient_with_the_same_accession_number_is_not_touched(client, node):
    theirs = imaged(node, patient=PatientIdentity(ISSUER, "OTHER-1"))
    held = told(client, report(MELANOMA))
    assert held["report_id"] is None
    mine = imaged(node)
    path = f"{URL}/{held['outcome_id']}/assign"
    known = told(client, report(MELANOMA, id="path-2", accession=""))
    assert known["report_id"] is None
    refused = client.post(f"{URL}/{known['outcome_id']}/assign", json={"report_id": theirs.id})
    assert refused.status_code == 422
    assert "another patient" in refused.text
    assert client.post(path, json={"report_id": theirs.id}).status_code == 422
    assert client.post(path, json={"report_id": mine.id}).status_code == 200


def test_a_person_assigns_what_is_held(client, node):
    imaged(node, "1")
    wanted = imaged(node, "2")
    held = told(client, report(NAEVUS))
    path = f"{URL}/{held['outcome_id']}/assign"
    answer = client.post(path, json={"report_id": wanted.id})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["state"], answer.json()["matched_by"]) == ("matched", "person")
    assert holds(node, "outcome") == []
    assert leaves(node, "outcome.assigned") == 1
    replaced = client.post(path, json={"report_id": wanted.id, "lesion_class": "mel"})
    assert replaced.status_code == 422
    amended = told(client, report(MELANOMA, status="amended", version="2"))
    assert (amended["report_id"], amended["state"], amended["lesion_class"]) == (wanted.id, "matched", "mel")


def test_of_two_people_at_once_the_second_sees_what_the_first_said(client, node, monkeypatch):
    first, second = imaged(node, "1"), imaged(node, "2")
    outcome_id = told(client, report(NAEVUS))["outcome_id"]
    looked_up, threads = outcome_assignment._analysis, []

    def overtaken(*arguments):
        if not threads:  # in the middle of the first decision the second one has a second to overtake it
            other = (node, outcome_id, Decision(second.id))
            threads.append(threading.Thread(target=lambda: assign(*other, caller=LOCAL)))
            threads[0].start()
            threads[0].join(1)
        return looked_up(*arguments)

    monkeypatch.setattr(outcome_assignment, "_analysis", overtaken)
    assign(node, outcome_id, Decision(first.id), caller=LOCAL)
    threads[0].join(30)
    with node.begin() as session:
        query = select(AuditLeaf.details).where(col(AuditLeaf.action) == "outcome.assigned").order_by(col(AuditLeaf.at))
        before = [json.loads(details)["before"] for details in session.execute(query).scalars()]
    assert before == ["", first.id]


def test_a_code_that_is_not_known_waits_for_a_persons_word(client, node):
    analysis = imaged(node)
    held = told(client, report(concept("urn:lab", "M8720")))
    assert (held["state"], held["malignant"], held["report_id"]) == ("held", None, analysis.id)
    assert client.get(f"/api/v1/analyses/{analysis.id}").json()["outcome"] is None
    path = f"{URL}/{held['outcome_id']}/assign"
    assert client.post(path, json={"report_id": analysis.id}).status_code == 422
    said = client.post(path, json={"report_id": analysis.id, "lesion_class": "bcc"}).json()
    assert (said["state"], said["lesion_class"], said["malignant"]) == ("matched", "bcc", True)


def test_told_again_changes_nothing(client, node):
    imaged(node)
    first = told(client, report(MELANOMA))
    again = told(client, report(MELANOMA))
    assert again == first | {"result": "duplicate"}
    assert leaves(node, "outcome.recorded") == 1


def test_an_amended_report_replaces_and_the_former_is_kept(client, node):
    analysis = imaged(node)
    told(client, report(NAEVUS))
    amended = told(client, report(MELANOMA, status="amended", version="2"))
    assert (amended["lesion_class"], amended["status"], amended["report_id"]) == ("mel", "amended", analysis.id)
    late = told(client, report(NAEVUS, version="1", meta={"versionId": "0", "lastUpdated": "2026-11-21T07:00:00Z"}))
    assert (late["result"], late["lesion_class"]) == ("superseded", "mel")
    versions = client.get(f"{URL}/{amended['outcome_id']}").json()["versions"]
    assert [one["said"][0]["lesion_class"] for one in versions] == ["nv", "mel", "nv"]
    assert [one["superseded"] for one in versions] == [False, False, True]


def test_a_withdrawn_report_counts_no_more(client, node):
    analysis = imaged(node, tier=TriageTier.MONITOR)
    told(client, report(MELANOMA))
    assert len(holds(node, "missed_melanoma")) == 1
    withdrawn = told(client, report(None, status="entered-in-error", version="2"))
    assert withdrawn["state"] == "withdrawn"
    assert client.get(f"/api/v1/analyses/{analysis.id}").json()["outcome"] is None
    assert holds(node, "missed_melanoma") == []


def test_a_part_that_an_amended_report_no_longer_has_is_withdrawn(client, node):
    imaged(node)
    one = {**observation(MELANOMA), "id": "a", "specimen": {"reference": "Specimen/s1"}}
    other = {**observation(NAEVUS), "id": "b", "specimen": {"reference": "Specimen/s2"}}
    results = [{"reference": "Observation/a"}, {"reference": "Observation/b"}]
    tell(client, bundle(report(None, result=results), one, other))
    (resource,) = tell(client, bundle(report(None, result=results[:1], version="2", status="amended"), one))[
        "resources"
    ]
    assert sorted(outcome["state"] for outcome in resource["outcomes"])[-1] == "withdrawn"


def test_a_report_that_changes_its_patient_leaves_the_lesion(client, node):
    imaged(node)
    told(client, report(MELANOMA))
    moved = told(client, report(MELANOMA, version="2", status="corrected", subject=subject("OTHER-1")))
    assert (moved["report_id"], moved["state"]) == (None, "held")
    assert "another patient" in moved["reason"]


def test_a_missed_melanoma_is_told_to_a_person_once(client, node):
    analysis = imaged(node, tier=TriageTier.ROUTINE)
    told(client, report(MELANOMA))
    told(client, report(MELANOMA, version="2", status="amended"))
    (held,) = holds(node, "missed_melanoma")
    assert held.subject_id == analysis.id
    assert leaves(node, "outcome.missed_melanoma") == 1


@pytest.mark.parametrize(("tier", "diagnosis"), [(TriageTier.URGENT, MELANOMA), (TriageTier.ROUTINE, NAEVUS)])
def test_what_was_not_missed_raises_nothing(client, node, tier, diagnosis):
    imaged(node, tier=tier)
    told(client, report(diagnosis))
    assert holds(node, "missed_melanoma") == []


def test_the_gravest_stands_where_there_are_several(client, node):
    analysis = imaged(node)
    told(client, report(MELANOMA))
    told(client, report(NAEVUS, id="path-2"))
    assert client.get(f"/api/v1/analyses/{analysis.id}").json()["outcome"]["lesion_class"] == "mel"


def test_an_image_without_result_may_be_the_one(client, node):
    imaged(node, "1")
    take_in(node, name="2")
    assert "several lesions" in told(client, report(MELANOMA))["reason"]


def test_a_bundle_tells_of_each(client, node):
    imaged(node)
    patient = {"resourceType": "Patient", "id": "p", "identifier": [{"system": SYSTEM, "value": "TEST-0042"}]}
    mine = report(MELANOMA, subject={"reference": "Patient/p"})
    ours = {**report(NAEVUS, id="x"), "category": [{"text": "imaging"}]}
    taken, passed = tell(client, bundle(patient, mine, ours))["resources"]
    assert taken["outcomes"][0]["state"] == "matched"
    assert (passed["result"], passed["outcomes"]) == ("passed_over", [])
    assert "pathology" in passed["reason"]


def test_a_server_notifies_below_the_endpoint(client, node):
    imaged(node)
    sent = client.put(f"{URL}/DiagnosticReport/path-1", json=report(MELANOMA))
    assert sent.json()["resources"][0]["outcomes"][0]["state"] == "matched"
    assert client.put(f"{URL}/DiagnosticReport/path-2", json=report(MELANOMA)).status_code == 422
    assert client.post(URL).status_code == 202


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"<Bundle/>", "application/fhir+xml", 415),
        (b"{", "application/fhir+json", 400),
        (b"[]", "application/fhir+json", 400),
        (b'{"resourceType": "Patient"}', "application/fhir+json", 422),
    ],
)
def test_bad_bodies_are_told_what_is_wrong(client, content, kind, status):
    answer = client.post(URL, content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.json()["detail"]


def test_who_may_tell_and_who_may_assign(open_client):
    tokens = [{"name": role, "token": f"{role}-0123456789abcdef", "role": role} for role in ("read", "submit")]
    client = open_client(api_tokens=tokens)
    as_role = lambda role: {"Authorization": f"Bearer {role}-0123456789abcdef"}  # noqa: E731
    assert client.post(URL, json=report(MELANOMA)).status_code == 401
    assert client.post(URL, json=report(MELANOMA), headers=as_role("read")).status_code == 403
    held = client.post(URL, json=report(MELANOMA), headers=as_role("submit")).json()["resources"][0]["outcomes"][0]
    path = f"{URL}/{held['outcome_id']}/assign"
    assert client.post(path, json={"report_id": held["outcome_id"]}, headers=as_role("submit")).status_code == 403
    assert client.get(URL, headers=as_role("read")).json()["outcomes"][0]["state"] == "held"


@pytest.mark.parametrize(("diagnosis", "open_"), [(NAEVUS, False), (MELANOMA, True)])
def test_a_card_of_a_high_risk_is_closed_by_a_harmless_histopathology(client, node, diagnosis, open_):
    imaged(node)
    with node.begin() as session:
        assert records_of(session, [PATIENT]).findings[0].open
    told(client, report(diagnosis))
    with node.begin() as session:
        assert records_of(session, [PATIENT]).findings[0].open is open_
