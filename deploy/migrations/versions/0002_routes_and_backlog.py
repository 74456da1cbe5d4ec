"""the route of an instance, and an index that counts what waits

Revision ID: 0002
Revises: 0001
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | Sequence[str] | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("instance", sa.Column("route", sa.Text(), server_default="", nullable=False))
    queued = sa.text("state = 'queued'")
    op.create_index("ix_analysis_queued", "analysis", ["state"], sqlite_where=queued, postgresql_where=queued)


def downgrade() -> None:
    op.drop_index("ix_analysis_queued", "analysis")
    op.drop_column("instance", "route")
