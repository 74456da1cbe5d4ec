"""Holds: what waits, and what a person decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa

from audit.tables import AuditLeaf
from cds_service.steps import hold
from dermoscopy.analyses import artifact_rows
from dermoscopy.domain import ArtifactKind, PatientIdentity, derive_id
from dermoscopy.tables import AnalysisRow, DeliveryRow, HoldRow, InstanceRow, utc_now
from tests.findings import ISSUER, PATIENT, SYSTEM, make_header, stored_analysis, take_in

NOBODY = PatientIdentity("", "")


def hold_of(receipt):
    return derive_id("hold", receipt.hold, receipt.instance_id)


def resolve(client, hold_id, **body):
    return client.post(f"/api/v1/holds/{hold_id}/resolve", json=body)


@pytest.fixture
def unnamed(node):
    return take_in(node, NOBODY)


@pytest.fixture
def delivery_hold(node):
    hold_id = derive_id("hold", "delivery", "d1")
    with node.begin() as session:
        session.add(HoldRow(id=hold_id, kind="delivery", subject_id="d1", reason="refused", created_at=utc_now()))
    return hold_id


def test_what_waits_is_listed_oldest_first(client, unnamed, delivery_hold):
    said = client.get("/api/v1/holds").json()["holds"]
    assert [hold["hold_id"] for hold in said] == [hold_of(unnamed), delivery_hold]
    assert said[0]["kind"] == "no_patient_id" and said[0]["resolved_at"] is None
    assert client.get("/api/v1/holds?resolved=true").json() == {"holds": []}


def test_an_image_gets_its_patient_and_its_analysis(client, node, unnamed):
    answer = resolve(client, hold_of(unnamed), decision="analyse", patient={"system": SYSTEM, "id": "TEST-0042"})
    assert answer.status_code == 200
    report_id = answer.json()["report_id"]
    with node.begin() as session:
        row = session.get_one(AnalysisRow, report_id)
        assert (row.issuer, row.patient_id) == (ISSUER, "TEST-0042")
    assert answer.json()["hold"]["resolved_by"] == "local"
    assert client.get("/api/v1/holds").json() == {"holds": []}
    assert [h["hold_id"] for h in client.get("/api/v1/holds?resolved=true").json()["holds"]] == [hold_of(unnamed)]


def test_whose_image_it_is_must_be_said_when_the_image_does_not(client, node, unnamed):
    answer = resolve(client, hold_of(unnamed), decision="analyse")
    assert answer.status_code == 409
    assert "patient" in answer.json()["detail"]
    with node.begin() as session:
        assert session.get_one(HoldRow, hold_of(unnamed)).resolved_at is None


def test_a_conflicting_image_can_be_analysed_for_the_patient_it_names(client, node):
    take_in(node)
    other = node.intake.accept(b"other pixels", make_header(), source="test", caller="test")
    assert other.hold == "uid_conflict"
    answer = resolve(client, hold_of(other), decision="analyse", comment="the second one is right")
    assert answer.json()["report_id"]
    with node.begin() as session:
        row = session.get_one(AnalysisRow, answer.json()["report_id"])
        assert (row.instance_id, row.patient_id) == (other.instance_id, PATIENT.patient_id)
        assert session.get_one(HoldRow, hold_of(other)).resolution == "analyse: the second one is right"


def test_a_dismissed_image_stays_unanalysed(client, node, unnamed):
    answer = resolve(client, hold_of(unnamed), decision="dismiss")
    assert (answer.status_code, answer.json()["report_id"]) == (200, None)
    with node.begin() as session:
        assert session.get_one(InstanceRow, unnamed.instance_id).state == "dismissed"
        assert session.execute(sa.select(AnalysisRow)).first() is None


@pytest.mark.parametrize("kind", ["image", "delivery"])
def test_decided_once_for_good(client, unnamed, delivery_hold, kind):
    hold_id = hold_of(unnamed) if kind == "image" else delivery_hold
    assert resolve(client, hold_id, decision="dismiss").status_code == 200
    answer = resolve(client, hold_id, decision="dismiss")
    assert answer.status_code == 409
    assert "decided already" in answer.json()["detail"]


def test_other_holds_are_closed_with_a_leaf(client, node, delivery_hold):
    assert resolve(client, delivery_hold, decision="analyse").status_code == 409
    assert resolve(client, delivery_hold, decision="dismiss", comment="sent by hand").status_code == 200
    with node.begin() as session:
        leaf = session.execute(sa.select(AuditLeaf).where(AuditLeaf.action == "hold.resolved")).scalar_one()  # type: ignore[arg-type]
    assert leaf.subject_id == delivery_hold
    assert "sent by hand" in leaf.details


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"decision": "maybe"},
        {"decision": "dismiss", "patient": {"id": "1"}},
        {"decision": "dismiss", "why": "x"},
        {"decision": "dismiss", "comment": "x" * 501},
        {"decision": "analyse", "patient": {"system": "x"}},
    ],
)
def test_wrong_decisions_change_nothing(client, node, unnamed, body):
    assert resolve(client, hold_of(unnamed), **body).status_code == 422
    with node.begin() as session:
        assert session.get_one(HoldRow, hold_of(unnamed)).resolved_at is None


def test_unknown_holds(client):
    assert resolve(client, "6f0f3d3e-8c0e-5a43-9d0b-3f6c4c1f2a77", decision="dismiss").status_code == 404
    assert resolve(client, "x", decision="dismiss").status_code == 404


def test_an_object_of_several_frames_can_only_be_dismissed(client, node):
    receipt = node.intake.accept(b"frames", replace(make_header(), frames=4), source="test", caller="CAMERA")
    assert receipt.hold == "several_frames"
    answer = resolve(client, hold_of(receipt), decision="analyse")
    assert answer.status_code == 422
    assert "image of its own" in answer.json()["detail"]
    assert resolve(client, hold_of(receipt), decision="dismiss").status_code == 200
    with node.begin() as session:
        assert session.get_one(InstanceRow, receipt.instance_id).state == "dismissed"
        assert session.execute(sa.select(AnalysisRow)).first() is None


@pytest.fixture
def held(node):
    """Two held deliveries to one PACS and one to another; their holds."""
    return [held_delivery(node, name, destination) for name, destination in (("1", "a"), ("2", "a"), ("3", "b"))]


def held_delivery(node, name, destination):
    analysis = stored_analysis(node, name=name)
    delivery_id = derive_id("delivery", name, destination)
    with node.begin() as session:
        artifact = artifact_rows(session, analysis.id)[ArtifactKind.SEG]
        session.add(
            DeliveryRow(
                id=delivery_id,
                analysis_id=analysis.id,
                artifact_id=artifact.id,
                destination=destination,
                kind="seg",
                state="held",
                attempts=3,
            )
        )
        session.flush()
        hold(session, "delivery", delivery_id, "refused")
    node.queue.started.clear()
    return delivery_id, derive_id("hold", "delivery", delivery_id)


def test_a_held_delivery_is_sent_again_and_may_be_held_again(client, node, held):
    delivery_id, hold_id = held[0]
    answer = resolve(client, hold_id, decision="send_again", comment="the PACS has room")
    assert answer.status_code == 200
    assert answer.json()["hold"]["resolution"] == "send_again: the PACS has room"
    assert node.queue.started == [("deliver", f"{delivery_id}:4", delivery_id, "4")]
    with node.begin() as session:
        row = session.get_one(DeliveryRow, delivery_id)
        assert (row.state, session.get_one(AnalysisRow, row.analysis_id).state) == ("pending", "rendered")
        leaves = session.execute(sa.select(AuditLeaf.action, AuditLeaf.actor)).all()
        assert {("hold.resolved", "local"), ("delivery.sent_again", "local")} <= {tuple(leaf) for leaf in leaves}
        hold(session, "delivery", delivery_id, "refused again")
    assert hold_id in [one["hold_id"] for one in client.get("/api/v1/holds").json()["holds"]]


def test_all_held_deliveries_of_a_destination_are_sent_again(open_client):
    pacs = [{"name": name, "host": "h", "port": 104, "ae_title": "P"} for name in ("a", "b")]
    client = open_client(pacs=pacs)
    node = client.app.state.node
    made = [held_delivery(node, name, destination) for name, destination in (("1", "a"), ("2", "a"), ("3", "b"))]
    assert client.post("/api/v1/holds/send-again", json={"destination": "a"}).json() == {"sent": 2}
    assert sorted(job[2] for job in node.queue.started) == sorted(delivery_id for delivery_id, _ in made[:2])
    assert client.post("/api/v1/holds/send-again", json={"destination": "a"}).json() == {"sent": 0}
    assert client.post("/api/v1/holds/send-again", json={"destination": "c"}).status_code == 404
    assert [one["hold_id"] for one in client.get("/api/v1/holds").json()["holds"]] == [made[2][1]]


def test_only_held_deliveries_are_sent_again(client, node, unnamed, delivery_hold, held):
    assert resolve(client, hold_of(unnamed), decision="send_again").status_code == 409
    assert resolve(client, delivery_hold, decision="send_again").status_code == 409  # its delivery is gone
    assert resolve(client, held[0][1], decision="dismiss").status_code == 200
    assert resolve(client, held[0][1], decision="send_again").status_code == 409
    assert node.queue.started == []
