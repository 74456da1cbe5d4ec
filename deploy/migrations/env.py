"""Alembic environment: runs on the connection that `cds_service.schema` hands over."""

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString

import audit.tables
import dermoscopy.tables
import monitoring.tables


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    """Only tables that our metadata knows: the durable engine keeps its own in the same database."""
    return kind != "table" or name in SQLModel.metadata.tables


def _plain(kind: str, item: object, _context: AutogenContext) -> str | Literal[False]:
    """Column types as plain SQLAlchemy: a migration must not change when our code does."""
    if kind == "type" and isinstance(item, dermoscopy.tables.UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, AutoString):
        return f"sa.String(length={item.length})" if item.length else "sa.String()"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    include_name=_ours,
    render_item=_plain,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
