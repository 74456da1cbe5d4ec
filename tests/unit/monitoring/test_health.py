"""Ready means: it could do its work right now."""

import time
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from dermoscopy.database import create_database_engine
from monitoring import heartbeat
from monitoring.health import database_check, disk_check, folder_check, readiness, worker_check


def fine():
    return ""


def test_all_checks_must_pass():
    assert readiness({}).ok
    assert readiness({"a": fine, "b": fine}).ok
    result = readiness({"a": fine, "b": lambda: "no room"})
    assert not result.ok
    assert [(check.name, check.ok, check.problem) for check in result.checks] == [
        ("a", True, ""),
        ("b", False, "no room"),
    ]


def test_what_raises_is_not_ready_and_says_no_more_than_its_type():
    def broken():
        raise RuntimeError("patient Doe^Jane")

    (check,) = readiness({"broken": broken}, seconds=60).checks
    assert (check.ok, check.problem) == (False, "RuntimeError")


def test_what_hangs_is_not_ready_and_holds_nobody_up():
    def slow():
        time.sleep(5)
        return ""

    began = time.monotonic()
    result = readiness({"slow": slow, "fine": fine}, seconds=0.5)
    assert time.monotonic() - began < 4
    assert {check.name: check.ok for check in result.checks} == {"slow": False, "fine": True}


def test_database(engine):
    assert database_check(engine)() == ""
    assert "never migrated" in database_check(engine, "2")()
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE alembic_version (version_num TEXT)"))
        connection.execute(sa.text("INSERT INTO alembic_version VALUES ('1')"))
    assert "revision 1, not 2" in database_check(engine, "2")()
    assert database_check(engine, "1")() == ""
    away = create_database_engine("postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert not readiness({"database": database_check(away)}).ok


def test_folder_and_disk(tmp_path):
    assert folder_check(tmp_path)() == ""
    assert list(tmp_path.iterdir()) == []
    assert "not writable" in folder_check(tmp_path / "missing")()
    assert disk_check(tmp_path, 1)() == ""
    assert "needed" in disk_check(tmp_path, 2**62)()


def test_worker(engine):
    assert "ever started" in worker_check(engine)()
    assert not heartbeat.alive(engine, "worker")
    heartbeat.beat(engine, "worker", "one", at=datetime.now(UTC) - timedelta(minutes=5))
    assert "alive for 300 s" in worker_check(engine)()
    assert not heartbeat.alive(engine, "worker")
    heartbeat.beat(engine, "worker", "one")
    assert worker_check(engine)() == ""
    assert heartbeat.alive(engine, "worker")
    assert not heartbeat.alive(engine, "listener")
