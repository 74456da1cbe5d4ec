"""A small audit log on SQLite, and ways to break into it."""

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlmodel import SQLModel

import audit.tables
from audit.checkpoint import open_signer, public_keys, read_checkpoints
from audit.log import MerkleAuditLog
from audit.sequencer import sequence
from audit.verify import verify
from dermoscopy.database import create_database_engine, unit_of_work
from dermoscopy.ports import AuditEntry

BATCHES = (5, 1, 8, 3)
PENDING = 2


@dataclass
class Log:
    """One audit log: database, key folder, and the file of checkpoints kept outside."""

    folder: Path

    @property
    def database(self) -> Path:
        return self.folder / "log.sqlite3"

    @property
    def outside(self) -> Path:
        return self.folder / "outside.jsonl"

    def engine(self):
        return create_database_engine(f"sqlite:///{self.database}")

    def append(self, count, start=0):
        log, begin = MerkleAuditLog(), unit_of_work(engine := self.engine())
        for number in range(start, start + count):
            with begin() as session:
                entry = AuditEntry(
                    "instance.accepted", "STORE_SCU", "instance", f"instance-{number}",
                    patient_issuer="ward", patient_id=f"P{number}", details={"bytes": number, "score": number / 7},
                )  # fmt: skip
                log.append(session, entry)
        engine.dispose()

    def sequence(self, limit=1000):
        engine = self.engine()
        done = sequence(engine, open_signer(self.folder / "keys"), limit=limit, witness=self.outside)
        engine.dispose()
        return done

    def verify(self, *, outside=False):
        engine = self.engine()
        try:
            external = read_checkpoints(self.outside) if outside else ()
            return verify(engine, public_keys(self.folder / "keys"), external=external)
        finally:
            engine.dispose()

    def copy(self, target):
        """A copy of the whole log in ``target``."""
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.folder, target)
        return Log(target)

    def break_in(self):
        """A connection of somebody who owns the database and has taken its guards away."""
        connection = sqlite3.connect(self.database)
        connection.row_factory = sqlite3.Row
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.commit()
        return connection


def new_log(folder):
    """An empty log in ``folder``."""
    log = Log(folder)
    engine = log.engine()
    SQLModel.metadata.create_all(engine, tables=[audit.tables.table(row) for row in (
        audit.tables.AuditLeaf, audit.tables.AuditPending, audit.tables.AuditTree, audit.tables.AuditCheckpoint
    )])  # fmt: skip
    engine.dispose()
    return log


@pytest.fixture
def empty_log(tmp_path):
    return new_log(tmp_path / "log")


@pytest.fixture(scope="session")
def whole_log(tmp_path_factory):
    """17 leaves in four batches and two that still wait. Tests copy it before they touch it."""
    log = new_log(tmp_path_factory.mktemp("audit") / "log")
    start = 0
    for batch in BATCHES:
        log.append(batch, start)
        assert log.sequence().count == batch
        start += batch
    log.append(PENDING, start)
    connection = sqlite3.connect(log.database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert log.verify(outside=True).ok
    return log
