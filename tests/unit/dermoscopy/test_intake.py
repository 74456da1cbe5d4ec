"""The one door in. The work queue records instead of starting work: the durable one has its own tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlmodel import select

from audit.log import MerkleAuditLog
from audit.tables import AuditLeaf
from dermoscopy.blobs import FolderBlobStore
from dermoscopy.database import UnitOfWork
from dermoscopy.domain import ImageHeader, ModelReference, PatientIdentity
from dermoscopy.errors import Rejected, StorageFull, Unavailable, UnreadableObject
from dermoscopy.intake import NO_PATIENT, PATIENT_CONFLICT, SEVERAL_FRAMES, UID_CONFLICT, Intake
from dermoscopy.routing import Action, Route
from dermoscopy.tables import AnalysisRow, HoldRow, InstanceRow

ANNA = PatientIdentity("HOSPITAL", "1")
BERT = PatientIdentity("HOSPITAL", "2")
CHAMPION = ModelReference("lesionnet", "1.0.0", "c" * 64)


class RecordingQueue:
    def __init__(self) -> None:
        self.started: list[str] = []

    def start(
        self, session: Session, workflow: str, workflow_id: str, *arguments: str, delay_seconds: float = 0.0
    ) -> None:
        self.started.append(workflow_id)


def header(patient: PatientIdentity = ANNA, uid: str = "1.2.3") -> ImageHeader:
    return ImageHeader("application/dicom", patient, rows=450, columns=600, sop_instance_uid=uid)


@pytest.fixture
def queue() -> RecordingQueue:
    return RecordingQueue()


@pytest.fixture
def intake(begin: UnitOfWork, tmp_path: Path, queue: RecordingQueue) -> Intake:
    return Intake(begin, FolderBlobStore(tmp_path / "blobs"), MerkleAuditLog(), queue, CHAMPION)


def accept(intake: Intake, data: bytes = b"pixels", h: ImageHeader | None = None) -> object:
    return intake.accept(data, h or header(), source="test", caller="CAMERA")


def actions(begin: UnitOfWork) -> list[str]:
    with begin() as session:
        return sorted(session.execute(select(AuditLeaf.action)).scalars())


def test_accepted_image_has_row_leaf_and_work(intake: Intake, begin: UnitOfWork, queue: RecordingQueue) -> None:
    receipt = intake.accept(b"pixels", header(), source="test", caller="CAMERA")
    with begin() as session:
        row = session.get_one(InstanceRow, receipt.instance_id)
        analysis = session.get_one(AnalysisRow, receipt.analysis_id)
    assert (row.state, row.caller, row.size) == ("accepted", "CAMERA", 6)
    assert (analysis.state, analysis.model_digest, analysis.patient_id) == ("queued", CHAMPION.digest, "1")
    assert queue.started == [receipt.analysis_id]
    assert actions(begin) == ["instance.accepted"]


def test_same_image_of_same_patient_is_one_instance(intake: Intake, begin: UnitOfWork, queue: RecordingQueue) -> None:
    first = intake.accept(b"pixels", header(), source="test", caller="A")
    second = intake.accept(b"pixels", header(), source="test", caller="B")
    assert second.duplicate
    assert (second.instance_id, second.analysis_id) == (first.instance_id, first.analysis_id)
    assert len(queue.started) == 1
    assert actions(begin) == ["instance.accepted", "instance.received_again"]


def test_same_picture_for_two_patients_is_never_merged(intake: Intake, queue: RecordingQueue) -> None:
    picture = replace(header(uid=""), media_type="image/png")
    anna = intake.accept(b"pixels", picture, source="test", caller="A")
    bert = intake.accept(b"pixels", replace(picture, patient=BERT), source="test", caller="A")
    assert anna.instance_id != bert.instance_id
    assert anna.analysis_id != bert.analysis_id
    assert len(queue.started) == 2


def test_same_patient_id_of_two_issuers_are_two_patients(intake: Intake) -> None:
    here = intake.accept(b"pixels", header(uid=""), source="test", caller="A")
    there = intake.accept(b"pixels", header(PatientIdentity("ELSEWHERE", "1"), uid=""), source="test", caller="A")
    assert here.instance_id != there.instance_id


@pytest.mark.parametrize(
    ("kind", "data", "second"),
    [
        (NO_PATIENT, b"other", header(PatientIdentity("", ""), "9.9")),
        (UID_CONFLICT, b"other bytes", header()),
        (PATIENT_CONFLICT, b"pixels", header(BERT)),
        (SEVERAL_FRAMES, b"frames", replace(header(uid="9.9"), frames=3)),
        (SEVERAL_FRAMES, b"frames", replace(header(PatientIdentity("", ""), "9.9"), frames=3)),
        (SEVERAL_FRAMES, b"frames", replace(header(), frames=3)),
    ],
)
def test_doubtful_image_is_kept_and_held(
    intake: Intake, begin: UnitOfWork, queue: RecordingQueue, kind: str, data: bytes, second: ImageHeader
) -> None:
    intake.accept(b"pixels", header(), source="test", caller="A")
    receipt = intake.accept(data, second, source="test", caller="A")
    assert (receipt.hold, receipt.analysis_id) == (kind, "")
    assert receipt.hold_reason
    with begin() as session:
        assert session.get_one(InstanceRow, receipt.instance_id).state == "held"
        hold = session.execute(select(HoldRow)).scalars().one()
    assert (hold.kind, hold.subject_id) == (kind, receipt.instance_id)
    assert len(queue.started) == 1
    again = intake.accept(data, second, source="test", caller="A")
    assert (again.instance_id, again.duplicate, again.hold) == (receipt.instance_id, True, kind)


def test_person_names_the_patient_of_a_held_image(intake: Intake, begin: UnitOfWork, queue: RecordingQueue) -> None:
    intake.accept(b"pixels", header(PatientIdentity("", "")), source="test", caller="A")
    with begin() as session:
        hold = session.execute(select(HoldRow)).scalars().one()
    receipt = intake.resolve_hold(hold.id, by="dr", patient=ANNA, resolution="asked the nurse")
    assert receipt is not None
    assert queue.started == [receipt.analysis_id]
    with begin() as session:
        assert session.get_one(InstanceRow, receipt.instance_id).patient_id == "1"
        assert session.get_one(HoldRow, hold.id).resolved_by == "dr"
    assert "hold.resolved" in actions(begin)
    with pytest.raises(Rejected, match="decided already"):
        intake.resolve_hold(hold.id, by="dr", patient=ANNA, resolution="")


def test_person_decides_a_uid_conflict_for_the_same_patient(intake: Intake, begin: UnitOfWork) -> None:
    intake.accept(b"pixels", header(), source="test", caller="A")
    held = intake.accept(b"other bytes", header(), source="test", caller="A")
    with begin() as session:
        hold = session.execute(select(HoldRow)).scalars().one()
    receipt = intake.resolve_hold(hold.id, by="dr", patient=ANNA, resolution="both are right")
    assert receipt is not None
    assert receipt.instance_id == held.instance_id


def test_an_image_given_to_a_patient_who_has_other_bytes_under_its_uid_is_analysed_too(
    intake: Intake, begin: UnitOfWork, queue: RecordingQueue
) -> None:
    first = intake.accept(b"of Anna", header(), source="test", caller="A")
    intake.accept(b"other bytes", header(BERT), source="test", caller="A")
    with begin() as session:
        hold = session.execute(select(HoldRow)).scalars().one()
    receipt = intake.resolve_hold(hold.id, by="dr", patient=ANNA, resolution="hers as well")
    assert receipt is not None and receipt.instance_id != first.instance_id
    assert queue.started == [first.analysis_id, receipt.analysis_id]
    with begin() as session:
        row = session.get_one(InstanceRow, receipt.instance_id)
        assert (row.patient_id, row.size, row.state) == ("1", len(b"other bytes"), "accepted")


@pytest.mark.parametrize(
    "error",
    [
        OperationalError("INSERT", {}, Exception("locked")),
        InterfaceError("INSERT", {}, Exception("connection closed")),
        PoolTimeout("no connection is free"),
    ],
)
def test_a_sender_may_send_again_when_the_database_is_away(tmp_path: Path, queue: RecordingQueue, error) -> None:
    """Anything else than `Unavailable` is a failure for good (Cxxx) to a PACS, which then drops the object."""

    @contextmanager
    def away() -> Iterator[Session]:
        raise error
        yield

    intake = Intake(away, FolderBlobStore(tmp_path / "blobs"), MerkleAuditLog(), queue, CHAMPION)
    with pytest.raises(Unavailable) as raised:
        accept(intake)
    assert raised.value.retry_after
    assert queue.started == []


def test_dismissed_image_is_never_analysed(intake: Intake, begin: UnitOfWork, queue: RecordingQueue) -> None:
    intake.accept(b"pixels", header(PatientIdentity("", "")), source="test", caller="A")
    with begin() as session:
        hold = session.execute(select(HoldRow)).scalars().one()
    assert intake.resolve_hold(hold.id, by="dr", patient=None, resolution="a test picture") is None
    assert queue.started == []


def test_default_issuer_stands_in_for_an_absent_one(begin: UnitOfWork, tmp_path: Path, queue: RecordingQueue) -> None:
    intake = Intake(begin, FolderBlobStore(tmp_path / "b"), MerkleAuditLog(), queue, CHAMPION, default_issuer="HERE")
    receipt = intake.accept(b"x", header(PatientIdentity("", "1")), source="test", caller="A")
    with begin() as session:
        assert session.get_one(InstanceRow, receipt.instance_id).issuer == "HERE"


def test_nothing_stands_when_the_work_cannot_be_started(
    intake: Intake, begin: UnitOfWork, queue: RecordingQueue
) -> None:
    def refuse(*_a: object, **_k: object) -> None:
        raise RuntimeError("queue is away")

    queue.start = refuse  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        accept(intake)
    with begin() as session:
        assert session.execute(select(InstanceRow)).first() is None
        assert session.execute(select(AuditLeaf)).first() is None


def test_full_store_promises_nothing(begin: UnitOfWork, tmp_path: Path, queue: RecordingQueue) -> None:
    store = FolderBlobStore(tmp_path / "b", watermark_bytes=1 << 62)
    with pytest.raises(StorageFull):
        accept(Intake(begin, store, MerkleAuditLog(), queue, CHAMPION))
    assert actions(begin) == []


def test_refusal_leaves_a_leaf(intake: Intake, begin: UnitOfWork) -> None:
    intake.reject(UnreadableObject("truncated"), digest="d" * 64, source="test", caller="A", header=None)
    assert actions(begin) == ["instance.rejected"]


def test_eight_senders_at_once_make_one_instance(intake: Intake, begin: UnitOfWork, queue: RecordingQueue) -> None:
    errors: list[BaseException] = []

    def send() -> None:
        try:
            accept(intake)
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            errors.append(error)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with begin() as session:
        assert len(session.execute(select(InstanceRow)).all()) == 1
    assert len(set(queue.started)) == 1


STORE = Route(Action.STORE, "overviews")


def test_what_is_only_stored_is_kept_and_not_analysed(intake: Intake, begin: UnitOfWork, queue: RecordingQueue) -> None:
    receipt = intake.accept(b"pixels", header(), source="test", caller="A", route=STORE)
    again = intake.accept(b"pixels", header(), source="test", caller="A", route=STORE)
    assert (receipt.analysis_id, again.duplicate, again.analysis_id) == ("", True, "")
    with begin() as session:
        row = session.get_one(InstanceRow, receipt.instance_id)
    assert (row.state, Route.from_text(row.route)) == ("stored", STORE)
    assert queue.started == []
    assert actions(begin) == ["instance.received_again", "instance.stored"]


def test_what_is_only_stored_needs_no_patient(intake: Intake, begin: UnitOfWork) -> None:
    receipt = intake.accept(b"pixels", header(PatientIdentity("", "")), source="test", caller="A", route=STORE)
    assert receipt.hold == ""
    with begin() as session:
        assert session.execute(select(HoldRow)).first() is None


def test_a_stored_image_that_is_wanted_now_is_analysed(
    intake: Intake, begin: UnitOfWork, queue: RecordingQueue
) -> None:
    stored = intake.accept(b"pixels", header(), source="test", caller="A", route=STORE)
    wanted = intake.accept(b"pixels", header(), source="test", caller="B", route=Route(rule="all", outputs=("sr",)))
    assert (wanted.instance_id, queue.started) == (stored.instance_id, [wanted.analysis_id])
    with begin() as session:
        row = session.get_one(InstanceRow, stored.instance_id)
    assert (row.state, Route.from_text(row.route).outputs) == ("accepted", ("sr",))


def test_a_stored_image_without_patient_that_is_wanted_now_is_held(
    intake: Intake, begin: UnitOfWork, queue: RecordingQueue
) -> None:
    nobody = header(PatientIdentity("", ""))
    intake.accept(b"pixels", nobody, source="test", caller="A", route=STORE)
    wanted = intake.accept(b"pixels", nobody, source="test", caller="B")
    assert (wanted.hold, queue.started) == (NO_PATIENT, [])


def test_a_route_goes_with_an_image_that_a_person_gives_to_another_patient(intake: Intake, begin: UnitOfWork) -> None:
    route = Route(rule="sr only", outputs=("sr",))
    held = intake.accept(b"pixels", header(PatientIdentity("", "")), source="test", caller="A", route=route)
    with begin() as session:
        (hold,) = session.execute(select(HoldRow)).scalars()
    moved = intake.resolve_hold(hold.id, by="me", patient=ANNA, resolution="seen")
    assert moved is not None and moved.instance_id != held.instance_id
    with begin() as session:
        assert Route.from_text(session.get_one(InstanceRow, moved.instance_id).route) == route
