"""Heartbeats: a process that stopped saying it is alive is not ready, whatever its socket says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import SQLModel, col

from monitoring.tables import HeartbeatRow

STALE_AFTER = timedelta(seconds=15)
"""Seven missed beats of two seconds."""
_TABLE = SQLModel.metadata.tables["heartbeat"]


def beat(engine: sa.Engine, kind: str, name: str, *, at: datetime | None = None) -> None:
    """Say that ``name`` of ``kind`` is alive."""
    values = {"kind": kind, "name": name, "at": at or datetime.now(UTC)}
    upsert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
    statement = upsert(_TABLE).values(values)
    statement = statement.on_conflict_do_update(index_elements=["kind", "name"], set_={"at": values["at"]})
    with engine.begin() as connection:
        connection.execute(statement)


def ages(engine: sa.Engine, kind: str) -> dict[str, float]:
    """Seconds since the last heartbeat, by name."""
    query = sa.select(col(HeartbeatRow.name), col(HeartbeatRow.at)).where(col(HeartbeatRow.kind) == kind)
    now = datetime.now(UTC)
    with engine.connect() as connection:
        return {name: (now - at).total_seconds() for name, at in connection.execute(query)}


def alive(engine: sa.Engine, kind: str, *, within: timedelta = STALE_AFTER) -> bool:
    """Whether any process of ``kind`` has beaten lately."""
    return any(age <= within.total_seconds() for age in ages(engine, kind).values())
