"""Rows of monitoring: heartbeats of processes, and the features of each inference for drift reports."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from dermoscopy.tables import UtcDateTime


class HeartbeatRow(SQLModel, table=True):
    """When a process was last alive. ``kind`` is its role (``worker``), ``name`` is stable per node."""

    __tablename__ = "heartbeat"

    kind: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime)


class FeatureRow(SQLModel, table=True):
    """The features of one inference (`monitoring.features.features`): numbers and strata, no patient, no pixels."""

    __tablename__ = "inference_features"
    __table_args__ = (sa.Index("ix_features_model_at", "model_digest", "at"),)

    analysis_id: str = Field(primary_key=True)
    at: datetime = Field(sa_type=UtcDateTime)
    model_digest: str
    document: str = Field(sa_type=sa.Text)
    """JSON object: feature name → number, text or null."""
