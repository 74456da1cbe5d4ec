"""Alembic environment: runs on the connection that `cds_service.schema` hands over."""

from alembic import context
from sqlmodel import SQLModel

import audit.tables
import dermoscopy.tables
import monitoring.tables  # noqa: F401 - importing a room's tables registers them


def _ours(name: str | None, kind: str, _parents: object) -> bool:
    """Only tables that our metadata knows: the durable engine keeps its own in the same database."""
    return kind != "table" or name in SQLModel.metadata.tables


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    include_name=_ours,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
