"""Two at once at intake's door: neither a mix-up of patients nor a person's decision may slip through between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, select

from audit.log import MerkleAuditLog
from dermoscopy.blobs import FolderBlobStore
from dermoscopy.database import create_database_engine, unit_of_work
from dermoscopy.domain import ImageHeader, ModelReference, PatientIdentity
from dermoscopy.errors import Rejected
from dermoscopy.intake import PATIENT_CONFLICT, Intake
from dermoscopy.ports import AuditEntry
from dermoscopy.tables import AnalysisRow, HoldRow
from tests.findings import RecordedQueue

pytestmark = [pytest.mark.peers, pytest.mark.timeout(60)]

ANNA, BERT, NOBODY = PatientIdentity("HOME", "1"), PatientIdentity("HOME", "2"), PatientIdentity("", "")
CHAMPION = ModelReference("m", "1", "0" * 64)
OVERTAKING_SECONDS = 1.0


class Overtaken(MerkleAuditLog):
    """In the middle of the first transaction that it is told of, something else has a second to overtake it."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] | None = None
        self.thread: threading.Thread | None = None
        self.raised: list[Exception] = []

    def append(self, session: Session, entry: AuditEntry) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            self.thread = threading.Thread(target=self._run, args=(meanwhile,))
            self.thread.start()
            self.thread.join(OVERTAKING_SECONDS)
        super().append(session, entry)

    def _run(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Rejected as error:
            self.raised.append(error)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else f"sqlite:///{tmp_path / 'r.db'}"
    made = create_database_engine(url)
    SQLModel.metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def log() -> Overtaken:
    return Overtaken()


@pytest.fixture
def intake(engine: sa.Engine, tmp_path: Path, log: Overtaken) -> Intake:
    return Intake(unit_of_work(engine), FolderBlobStore(tmp_path / "blobs"), log, RecordedQueue(), CHAMPION)


def accept(intake: Intake, patient: PatientIdentity, data: bytes) -> None:
    header = ImageHeader("application/dicom", patient, rows=450, columns=600, sop_instance_uid="1.2.3")
    intake.accept(data, header, source="test", caller="CAMERA")


def rows(engine: sa.Engine, kind: type[SQLModel]) -> list[SQLModel]:
    with unit_of_work(engine)() as session:
        return list(session.execute(select(kind)).scalars())


def test_one_uid_for_two_patients_at_once_is_held(intake: Intake, engine: sa.Engine, log: Overtaken) -> None:
    log.meanwhile = lambda: accept(intake, BERT, b"of Bert")
    accept(intake, ANNA, b"of Anna")
    assert log.thread is not None
    log.thread.join()
    assert [hold.kind for hold in rows(engine, HoldRow)] == [PATIENT_CONFLICT]
    assert [analysis.patient_id for analysis in rows(engine, AnalysisRow)] == ["1"]


def test_two_people_who_decide_at_once_do_not_both_name_a_patient(
    intake: Intake, engine: sa.Engine, log: Overtaken
) -> None:
    accept(intake, NOBODY, b"of nobody")
    (hold,) = rows(engine, HoldRow)
    log.meanwhile = lambda: intake.resolve_hold(hold.id, by="two", patient=BERT, resolution="Bert's")
    intake.resolve_hold(hold.id, by="one", patient=ANNA, resolution="Anna's")
    assert log.thread is not None
    log.thread.join()
    assert "decided already" in str(log.raised[0])
    assert [analysis.patient_id for analysis in rows(engine, AnalysisRow)] == ["1"]
