"""images of one lesion over time

Revision ID: 0010
Revises: 0009
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | Sequence[str] | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "lesion_image",
        sa.Column("analysis_id", sa.String(), nullable=False),
        sa.Column("issuer", sa.String(), nullable=False),
        sa.Column("patient_id", sa.String(), nullable=False),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dated", sa.Boolean(), nullable=False),
        sa.Column("tracking_uid", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["analysis_id"], ["analysis.id"]),
        sa.PrimaryKeyConstraint("analysis_id"),
    )
    op.create_index("ix_lesion_image_patient", "lesion_image", ["issuer", "patient_id"])
    op.create_table(
        "lesion_change",
        sa.Column("analysis_id", sa.String(), nullable=False),
        sa.Column("prior_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["analysis_id"], ["analysis.id"]),
        sa.PrimaryKeyConstraint("analysis_id"),
    )
    op.create_index("ix_lesion_change_prior_id", "lesion_change", ["prior_id"])


def downgrade() -> None:
    op.drop_index("ix_lesion_change_prior_id", table_name="lesion_change")
    op.drop_table("lesion_change")
    op.drop_index("ix_lesion_image_patient", table_name="lesion_image")
    op.drop_table("lesion_image")
