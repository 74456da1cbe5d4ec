"""Bringing the database to the present schema: our tables by Alembic, the durable engine's by its own migrations."""

from __future__ import annotations

from pathlib import Path

import alembic.command
import alembic.config
import sqlalchemy as sa
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from dbos import DBOS

from dermoscopy.errors import Misconfigured

MIGRATIONS = Path(__file__).resolve().parent.parent / "deploy" / "migrations"
_ADVISORY_LOCK = 0x6465726D6D696772
"""Key of the PostgreSQL advisory lock ("dermmigr"): one process migrates, the others wait."""


def migrate(engine: sa.Engine) -> None:
    """Create or upgrade every table; safe to run from several processes at once, and again."""
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
            connection.commit()
        try:
            DBOS.migrate(engine.url.render_as_string(hide_password=False))
            configuration = _configuration()
            configuration.attributes["connection"] = connection
            alembic.command.upgrade(configuration, "head")
            connection.commit()
        finally:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": _ADVISORY_LOCK})
                connection.commit()


def head_revision() -> str:
    """The schema revision that this code needs."""
    return ScriptDirectory.from_config(_configuration()).get_current_head() or ""


def check_schema(engine: sa.Engine) -> None:
    """Raises `Misconfigured` when the database is not at the schema of this code."""
    with engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    wanted = head_revision()
    if present != wanted:
        raise Misconfigured(f"the database schema is {present or 'empty'}, this code needs {wanted}: run `cds migrate`")


def _configuration() -> alembic.config.Config:
    configuration = alembic.config.Config()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    return configuration
