"""what clinicians say of a result

Revision ID: 0005
Revises: 0004
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | Sequence[str] | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "review",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("analysis_id", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("reviewer_name", sa.String(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False),
        sa.Column("lesion_class", sa.String(), nullable=False),
        sa.Column("outline", sa.Text(), nullable=False),
        sa.Column("body_site_code", sa.String(), nullable=False),
        sa.Column("laterality", sa.String(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["analysis_id"], ["analysis.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("analysis_id", "revision"),
    )
    op.create_index("ix_review_analysis_id", "review", ["analysis_id"])
    op.add_column("analysis", sa.Column("reviews", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("analysis", sa.Column("report_status", sa.String(), nullable=False, server_default="preliminary"))
    op.add_column("analysis", sa.Column("rendered_revision", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("artifact", sa.Column("current", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.create_table(
        "former_artifact",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("analysis_id", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("sop_class_uid", sa.String(), nullable=False),
        sa.Column("replaced_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["analysis_id"], ["analysis.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_former_artifact_analysis_id", "former_artifact", ["analysis_id"])
    op.create_index("ix_former_artifact_uid", "former_artifact", ["uid"])


def downgrade() -> None:
    # without batch mode: that would drop and copy tables which others refer to
    op.drop_table("former_artifact")
    op.drop_column("artifact", "current")
    op.drop_column("analysis", "rendered_revision")
    op.drop_column("analysis", "report_status")
    op.drop_column("analysis", "reviews")
    op.drop_table("review")
