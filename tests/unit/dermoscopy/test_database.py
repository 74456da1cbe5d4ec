import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa

from dermoscopy.database import UnitOfWork, create_database_engine
from dermoscopy.tables import HoldRow


def hold(number: int, at: datetime | None = None) -> HoldRow:
    return HoldRow(id=str(number), kind="test", subject_id="s", reason="r", created_at=at or datetime.now(UTC))


def test_every_commit_is_fsynced_and_readers_do_not_wait(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def fail_half_way(begin: UnitOfWork) -> None:
    with begin() as session:
        session.add(hold(1))
        session.flush()
        raise RuntimeError


def test_error_rolls_back(begin: UnitOfWork) -> None:
    with pytest.raises(RuntimeError):
        fail_half_way(begin)
    with begin() as session:
        assert session.get(HoldRow, "1") is None


def test_many_writers_wait_for_each_other(begin: UnitOfWork) -> None:
    errors: list[BaseException] = []

    def write(first: int) -> None:
        try:
            for number in range(first, first + 25):
                with begin() as session:
                    session.add(hold(number))
        except BaseException as error:  # noqa: BLE001 - handed to the test's thread
            errors.append(error)

    threads = [threading.Thread(target=write, args=(n * 25,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with begin() as session:
        assert session.execute(sa.select(sa.func.count()).select_from(HoldRow)).scalar_one() == 200


def test_times_come_back_as_utc(begin: UnitOfWork) -> None:
    at = datetime(2026, 3, 1, 12, 0, tzinfo=timezone(timedelta(hours=2)))
    with begin() as session:
        session.add(hold(1, at))
    with begin() as session:
        back = session.get_one(HoldRow, "1").created_at
    assert back == at
    assert back.utcoffset() == timedelta(0)


def test_naive_time_is_refused(begin: UnitOfWork) -> None:
    with pytest.raises(sa.exc.StatementError, match="naive"), begin() as session:
        session.add(hold(1, datetime(2026, 3, 1)))  # noqa: DTZ001 - the very thing that must be refused


def test_opening_an_engine_touches_no_database(tmp_path: Path) -> None:
    create_database_engine(f"sqlite:///{tmp_path / 'new' / 'x.sqlite3'}")
    assert list((tmp_path / "new").iterdir()) == []
