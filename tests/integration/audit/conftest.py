"""The audit log on both databases."""

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from audit import tables
from dermoscopy.database import create_database_engine

ROWS = (tables.AuditLeaf, tables.AuditPending, tables.AuditTree, tables.AuditCheckpoint)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peers)])
def url(request, tmp_path):
    """Address of a database that has the audit tables."""
    if request.param == "sqlite":
        address = f"sqlite:///{tmp_path / 'audit.sqlite3'}"
    else:
        address = request.getfixturevalue("postgres_url")
    engine = create_database_engine(address)
    SQLModel.metadata.create_all(engine, tables=[tables.table(row) for row in ROWS])
    engine.dispose()
    return address


@pytest.fixture
def engine(url):
    engine = create_database_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def break_in(engine):
    """Runs SQL as somebody who owns the database and has taken its guards away."""

    def run(*statements):
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
            else:
                names = connection.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars()
                for name in list(names):
                    connection.execute(sa.text(f"DROP TRIGGER {name}"))
            for statement in statements:
                connection.execute(sa.text(statement))

    return run
