"""whether the PACS has committed what was sent to it

Revision ID: 0006
Revises: 0005
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | Sequence[str] | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


_TEXTS = ("uid", "digest", "commitment", "commitment_id")
_TIMES = ("asked_at", "committed_at")


def upgrade() -> None:
    for name in _TEXTS:
        op.add_column("delivery", sa.Column(name, sa.String(), nullable=False, server_default=""))
    for name in _TIMES:
        op.add_column("delivery", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column("delivery", sa.Column("unconfirmed", sa.Integer(), nullable=False, server_default="0"))
    # Until now an artifact never changed, so that what was delivered is what is there.
    op.execute(
        "UPDATE delivery SET uid = (SELECT uid FROM artifact WHERE artifact.id = delivery.artifact_id), "
        "digest = (SELECT digest FROM artifact WHERE artifact.id = delivery.artifact_id)"
    )
    op.create_table(
        "result_commitment",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("transaction_uid", sa.String(), nullable=False),
        sa.Column("analysis_id", sa.String(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("peer", sa.String(), nullable=False),
        sa.Column("asked_for", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reported_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["analysis_id"], ["analysis.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("transaction_uid"),
    )
    op.create_index("ix_result_commitment_analysis_id", "result_commitment", ["analysis_id"])


def downgrade() -> None:
    op.drop_table("result_commitment")
    with op.batch_alter_table("delivery") as table:
        for name in ("unconfirmed", *reversed(_TIMES), *reversed(_TEXTS)):
            table.drop_column(name)
