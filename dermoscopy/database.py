"""Engine, sessions and the unit of work: SQLite by default, PostgreSQL by URL.

The durable engine keeps its tables in the same database, so that an instance row, its audit leaf and the start of
its workflow are one transaction (`docs/adr`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session, sessionmaker

UnitOfWork = Callable[[], AbstractContextManager[Session]]
"""Opens a session, commits on success, rolls back on any error."""


def create_database_engine(url: str, *, pool_size: int = 10) -> sa.Engine:
    """Engine for ``url``; opens no connection. Its errors never repeat parameters, which may be a patient's data.

    SQLite runs in WAL mode with every commit fsynced and takes its write lock at the first write of a transaction
    (``BEGIN IMMEDIATE``), so that two writers wait for each other instead of failing in the middle.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(parsed, pool_size=pool_size, max_overflow=pool_size, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    return sa.create_engine(
        parsed, pool_size=pool_size, max_overflow=pool_size, pool_pre_ping=True, hide_parameters=True
    )


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = "IMMEDIATE"
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def one_at_a_time(session: Session, name: str) -> None:
    """Let one transaction of this ``name`` at a time go on from here; call it before anything is read or written.

    What is looked up first and written later needs it: SQLite locks at the first write only, and PostgreSQL does not
    show what another transaction has not committed yet.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})
    else:
        session.execute(sa.text("BEGIN IMMEDIATE"))


def unit_of_work(engine: sa.Engine) -> UnitOfWork:
    """Factory of transactions on ``engine``."""
    make_session = sessionmaker(engine, expire_on_commit=False)

    @contextmanager
    def begin() -> Iterator[Session]:
        with make_session() as session, session.begin():
            yield session

    return begin
