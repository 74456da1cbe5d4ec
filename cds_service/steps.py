"""What every step of the pipeline does around its work: join the image's trace, time itself, hold for a person."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from opentelemetry import metrics, propagate, trace
from sqlalchemy.orm import Session
from sqlmodel import col, select

from cds_service.node import Node
from dermoscopy.domain import derive_id
from dermoscopy.tables import AnalysisRow, HoldRow, InstanceRow, utc_now

_tracer = trace.get_tracer(__name__)
_seconds = metrics.get_meter(__name__).create_histogram(
    "cds_step_seconds", unit="s", description="duration of a pipeline step"
)

ACTOR = "pipeline"
"""Who does what nobody asked for at that moment, in the audit log."""


@contextmanager
def step(node: Node, name: str, analysis_id: str) -> Iterator[None]:
    """Span in the trace that began when the image was received, duration metric, log context."""
    with node.begin() as session:
        carrier = session.execute(
            select(InstanceRow.trace)
            .join(AnalysisRow, col(AnalysisRow.instance_id) == col(InstanceRow.id))
            .where(AnalysisRow.id == analysis_id)
        ).scalar_one_or_none()
    parent = propagate.extract({"traceparent": carrier} if carrier else {})
    began = time.perf_counter()
    with (
        _tracer.start_as_current_span(f"pipeline.{name}", context=parent, attributes={"cds.analysis_id": analysis_id}),
        structlog.contextvars.bound_contextvars(analysis_id=analysis_id, step=name),
    ):
        yield
    _seconds.record(time.perf_counter() - began, {"step": name})


def hold(session: Session, kind: str, subject_id: str, reason: str) -> None:
    """Leave something for a person to decide; doing it twice changes nothing, a decided hold is opened again."""
    hold_id = derive_id("hold", kind, subject_id)
    row = session.get(HoldRow, hold_id)
    if row is None:
        session.add(HoldRow(id=hold_id, kind=kind, subject_id=subject_id, reason=reason, created_at=utc_now()))
    elif row.resolved_at is not None:
        row.reason, row.created_at = reason, utc_now()
        row.resolved_at, row.resolved_by, row.resolution = None, "", ""
