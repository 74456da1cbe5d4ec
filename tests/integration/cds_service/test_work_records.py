"""Looking at durable work and removing it, on the engine's own tables."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from cds_service.schema import migrate
from dermoscopy.database import create_database_engine, unit_of_work
from dermoscopy.tables import utc_now
from dermoscopy.workqueue import AMEND, EXPORT, DurableWorkQueue, WorkRecords


def test_work_is_found_by_its_name_and_gone_once_removed(tmp_path: Path) -> None:
    engine = create_database_engine(f"sqlite:///{tmp_path / 'cds.sqlite3'}")
    migrate(engine)
    queue, records = DurableWorkQueue(engine), WorkRecords(engine)
    began = utc_now()
    with unit_of_work(engine)() as session:
        queue.start(session, EXPORT, "first", "an order", delay_seconds=60)
        queue.start(session, EXPORT, "second", "another")
        queue.start(session, AMEND, "other", "analysis", "review")
    found = records.find(EXPORT, "first")
    assert found is not None
    assert (found.state, found.arguments, found.result) == ("waiting", ("an order",), "")
    assert abs(found.asked_at - began) < timedelta(minutes=1)
    assert records.find(EXPORT, "other") is None  # work of another kind is not shown
    assert records.find(EXPORT, "absent") is None

    records.remove("first")
    records.remove("first")
    assert records.find(EXPORT, "first") is None
    records.remove_before(EXPORT, began - timedelta(hours=1))
    assert records.find(EXPORT, "second") is not None
    records.remove_before(EXPORT, utc_now() + timedelta(minutes=1))
    assert records.find(EXPORT, "second") is None
    assert records.find(AMEND, "other") is not None
    engine.dispose()
