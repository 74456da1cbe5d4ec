"""Migrations: an old database comes to the present schema with what it holds, and is then what the code declares."""

from __future__ import annotations

from pathlib import Path

import alembic.command
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlmodel import SQLModel

from cds_service import schema
from dermoscopy.database import create_database_engine


@pytest.fixture
def first(tmp_path: Path) -> sa.Engine:
    """A database at revision 0001 with one instance."""
    engine = create_database_engine(f"sqlite:///{tmp_path / 'old.sqlite3'}")
    with engine.connect() as connection:
        configuration = schema._configuration()
        configuration.attributes["connection"] = connection
        alembic.command.upgrade(configuration, "0001")
        columns = [c["name"] for c in sa.inspect(connection).get_columns("instance")]
        values = {c: 0 if c in ("size", "rows", "columns") else f"{c}-1" for c in columns}
        values["received_at"] = "2026-03-04 05:06:07"
        names = ", ".join(f'"{c}"' for c in columns)
        connection.execute(sa.text(f"INSERT INTO instance ({names}) VALUES (:{', :'.join(columns)})"), values)
        connection.commit()
    return engine


def test_what_was_there_is_kept_and_goes_everywhere(first):
    schema.migrate(first)
    with first.connect() as connection:
        assert connection.execute(sa.text("SELECT id, route FROM instance")).one() == ("id-1", "")
    schema.check_schema(first)


def test_the_schema_is_what_the_code_declares(first):
    schema.migrate(first)
    with first.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={"include_name": lambda name, kind, _: kind != "table" or name in SQLModel.metadata.tables},
        )
        assert compare_metadata(context, SQLModel.metadata) == []


def test_deliveries_of_before_say_what_they_were_started_for(first):
    with first.connect() as connection:
        configuration = schema._configuration()
        configuration.attributes["connection"] = connection
        alembic.command.upgrade(configuration, "0005")
        for statement in (
            "INSERT INTO analysis (id, instance_id, issuer, patient_id, state, created_at, model_name, model_version, "
            "model_digest, tier, primary_class, abstention, document, embedding, error) VALUES "
            "('a', 'id-1', '', '', 'complete', '2026-03-04 05:06:07', 'm', '1', 'd', '', '', '', '', '', '')",
            "INSERT INTO artifact (id, analysis_id, kind, media_type, digest, size, uid, sop_class_uid) VALUES "
            "('r', 'a', 'seg', 'application/dicom', 'digest-r', 1, '1.2.3', '1.2')",
            "INSERT INTO delivery (id, analysis_id, artifact_id, destination, kind, state, attempts, reference, "
            "last_error) VALUES ('d', 'a', 'r', 'pacs', 'seg', 'delivered', 1, '', '')",
        ):
            connection.execute(sa.text(statement))
        connection.commit()
    schema.migrate(first)
    with first.connect() as connection:
        row = connection.execute(sa.text("SELECT digest, uid, commitment, unconfirmed FROM delivery")).one()
    assert row == ("digest-r", "1.2.3", "", 0)
