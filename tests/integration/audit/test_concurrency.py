"""Many threads and processes append and sequence at once: every entry is placed exactly once, and the log holds."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from audit.checkpoint import open_signer, public_keys, read_checkpoints
from audit.log import MerkleAuditLog
from audit.sequencer import latest, sequence, sequence_all, waiting
from audit.tables import LEAF, TREE
from audit.verify import ProblemKind, verify, verify_or_raise
from dermoscopy.database import unit_of_work
from dermoscopy.errors import AuditLogTampered
from dermoscopy.ports import AuditEntry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[3]
APPENDER = Path(__file__).with_name("appender.py")
COUNT = 20
only_postgresql = pytest.mark.parametrize(
    "url", [pytest.param("postgresql", marks=pytest.mark.peers)], indirect=True, ids=["postgresql"]
)
"""SQLite has one writer: there the second one waits for its turn."""


def start(url, keys, name, count=COUNT):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, str(APPENDER), url, str(keys), name, str(count)], env=environment)


def count(engine):
    with engine.connect() as connection:
        return connection.execute(sa.select(sa.func.count()).select_from(LEAF)).scalar_one()


def subjects(engine):
    query = sa.select(LEAF.c.subject_id).join(TREE, TREE.c.leaf_id == LEAF.c.id).order_by(TREE.c.position)
    with engine.connect() as connection:
        return list(connection.execute(query).scalars())


def test_two_processes_of_four_threads_each(url, engine, tmp_path):
    keys = tmp_path / "keys"
    processes = [start(url, keys, name) for name in ("one", "two")]
    try:
        assert [process.wait(240) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    sequence_all(engine, open_signer(keys), witness=keys / "outside.jsonl")
    wanted = {f"{name}-{thread}-{number}" for name in ("one", "two") for thread in range(4) for number in range(COUNT)}
    placed = subjects(engine)
    assert len(placed) == len(wanted)
    assert set(placed) == wanted
    result = verify_or_raise(engine, public_keys(keys), external=read_checkpoints(keys / "outside.jsonl"))
    assert (result.size, result.pending) == (len(wanted), 0)


@pytest.mark.crash
def test_killed_in_the_middle_nothing_is_lost_or_doubled(url, engine, tmp_path):
    keys = tmp_path / "keys"
    for turn in range(4):
        process = start(url, keys, f"killed{turn}", 100000)
        before = count(engine)
        try:
            while count(engine) < before + 20 and process.poll() is None:
                time.sleep(0.05)
            time.sleep(0.1 * turn)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(30)
    sequence_all(engine, open_signer(keys), witness=keys / "outside.jsonl")
    with engine.connect() as connection:
        committed = set(connection.execute(sa.select(LEAF.c.subject_id)).scalars())
    placed = subjects(engine)
    assert len(placed) == len(committed) > 0
    assert set(placed) == committed
    assert verify(engine, public_keys(keys), external=read_checkpoints(keys / "outside.jsonl")).ok


@only_postgresql
def test_only_one_sequences_at_a_time(engine, tmp_path):
    append(engine, 5)
    signer = open_signer(tmp_path)
    with engine.connect() as other, other.begin():
        assert other.execute(sa.text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": 0x61756469745F7472}).scalar()
        assert sequence(engine, signer).count == 0
    assert sequence(engine, signer).count == 5


@only_postgresql
def test_appending_waits_for_no_other_transaction(engine):
    with unit_of_work(engine)() as open_session:
        MerkleAuditLog().append(open_session, AuditEntry("test.slow", "x", "t", "slow"))
        append(engine, 3)
    assert waiting(engine) == 4


@only_postgresql
def test_a_leaf_that_commits_late_is_placed_late(engine, tmp_path):
    signer = open_signer(tmp_path)
    with unit_of_work(engine)() as open_session:
        MerkleAuditLog().append(open_session, AuditEntry("test.slow", "x", "t", "slow"))
        append(engine, 3)
        assert sequence(engine, signer).count == 3
    assert sequence(engine, signer).count == 1
    assert subjects(engine)[-1] == "slow"
    assert verify(engine, public_keys(tmp_path)).ok


def test_the_database_refuses_changes_and_verification_names_them(engine, break_in, tmp_path):
    append(engine, 9)
    signer = open_signer(tmp_path)
    sequence(engine, signer, limit=4)
    sequence(engine, signer)
    for refused in ("UPDATE audit_leaf SET actor = 'y'", "DELETE FROM audit_tree", "DELETE FROM audit_checkpoint"):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(sa.text(refused))
    with engine.connect() as connection:
        victim = connection.execute(sa.select(TREE.c.leaf_id).where(TREE.c.position == 6)).scalar_one()
    break_in(f"UPDATE audit_leaf SET actor = 'y' WHERE id = '{victim}'", "DELETE FROM audit_tree WHERE position = 2")
    result = verify(engine, public_keys(tmp_path))
    found = {(problem.kind, problem.position) for problem in result.problems}
    assert {(ProblemKind.CHANGED, 6), (ProblemKind.REMOVED, 2)} <= found
    assert any(problem.leaf_id == victim for problem in result.problems)
    with pytest.raises(AuditLogTampered):
        verify_or_raise(engine, public_keys(tmp_path))


def test_verification_beside_a_running_log(url, engine, tmp_path):
    keys = tmp_path / "keys"
    signer = open_signer(keys)
    append(engine, 3)
    sequence(engine, signer, witness=keys / "outside.jsonl")
    process = start(url, keys, "busy", 20)
    try:
        while process.poll() is None:
            result = verify(engine, public_keys(keys), external=read_checkpoints(keys / "outside.jsonl"))
            assert result.ok, result.problems
    finally:
        process.kill()
        process.wait()


def test_the_newest_head_is_known(engine, tmp_path):
    assert latest(engine) is None
    append(engine, 2)
    assert sequence(engine, open_signer(tmp_path)).checkpoint == latest(engine)


def append(engine, count):
    with unit_of_work(engine)() as session:
        for number in range(count):
            MerkleAuditLog().append(
                session, AuditEntry("test.appended", "x", "t", f"s{number}", patient_id=f"P{number}")
            )
