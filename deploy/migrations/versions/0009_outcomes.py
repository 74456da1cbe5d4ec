"""what pathology and clinicians found

Revision ID: 0009
Revises: 0008
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | Sequence[str] | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


_TIME = sa.DateTime(timezone=True)


def _text(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(), nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "outcome",
        *_text("id", "source_key", "business_key", "part", "origin", "resource_type", "resource_id", "version"),
        sa.Column("version_at", _TIME, nullable=True),
        *_text("status", "state", "reason", "analysis_id", "matched_by", "assigned_by", "issuer", "patient_id"),
        *_text("certainty", "lesion_class"),
        sa.Column("malignant", sa.Boolean(), nullable=True),
        *_text("diagnosis_system", "diagnosis_code", "diagnosis", "doubt"),
        sa.Column("diagnosed_at", _TIME, nullable=True),
        sa.Column("timed", sa.Boolean(), nullable=False),
        *_text("body_site_code", "laterality"),
        sa.Column("references", sa.Text(), nullable=False),
        sa.Column("received_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    for name in ("source_key", "business_key", "state", "analysis_id", "received_at"):
        op.create_index(f"ix_outcome_{name}", "outcome", [name])
    op.create_index("ix_outcome_patient", "outcome", ["issuer", "patient_id"])
    op.create_table(
        "outcome_version",
        *_text("id", "source_key", "version"),
        sa.Column("version_at", _TIME, nullable=True),
        *_text("digest", "way", "caller"),
        sa.Column("received_at", _TIME, nullable=False),
        sa.Column("superseded", sa.Boolean(), nullable=False),
        sa.Column("told", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("source_key", "version"),
    )
    op.create_table(
        "outcome_cursor",
        *_text("id"),
        sa.Column("cursor", _TIME, nullable=True),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("leased_until", _TIME, nullable=True),
        sa.Column("polled_at", _TIME, nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        *_text("last_error"),
        sa.PrimaryKeyConstraint("id"),
    )


def downgrade() -> None:
    for table in ("outcome_cursor", "outcome_version", "outcome"):
        op.drop_table(table)
