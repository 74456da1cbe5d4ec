"""Gauges that look into the database when they are scraped: what waits, for how long, and who is alive."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
import structlog
from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from sqlmodel import col

from dermoscopy.tables import AnalysisRow, DeliveryRow, HoldRow
from monitoring import heartbeat, outcomes

log = structlog.get_logger(__name__)
_WAITING = ("queued", "analysed")
_OPEN = ("pending", "retrying", "held")


def register_gauges(engine: sa.Engine, folder: Path, *, audit_pending: Callable[[], int] | None = None) -> None:
    """Offer the gauges in this process; one process per database is enough (the API). Call it once."""
    meter = metrics.get_meter(__name__)
    gauges: dict[str, Callable[[], list[Observation]]] = {
        "cds_analyses_waiting": lambda: _waiting(engine),
        "cds_oldest_waiting_seconds": lambda: _oldest(engine),
        "cds_deliveries_open": lambda: _deliveries(engine),
        "cds_holds_open": lambda: _holds(engine),
        "cds_outcomes": lambda: _outcomes(engine),
        "cds_worker_heartbeat_age_seconds": lambda: _heartbeats(engine),
        "cds_disk_free_bytes": lambda: [Observation(shutil.disk_usage(folder).free)],
    }
    if audit_pending is not None:
        count = audit_pending
        gauges["cds_audit_pending_leaves"] = lambda: [Observation(count())]
    for name, look in gauges.items():
        meter.create_observable_gauge(name, [_guarded(name, look)])


def record_audit_verification(problems: int) -> None:
    """Say how the last verification of the audit log ended."""
    meter = metrics.get_meter(__name__)
    meter.create_gauge("cds_audit_problems").set(problems)
    meter.create_gauge("cds_audit_verified_timestamp_seconds").set(datetime.now(UTC).timestamp())


def _guarded(name: str, look: Callable[[], list[Observation]]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        try:
            return look()
        except (sa.exc.SQLAlchemyError, OSError) as error:  # a scrape must not fail because the database is away
            log.warning("metrics.gauge_failed", gauge=name, error=type(error).__name__)
            return []

    return observe


def _counts(engine: sa.Engine, query: sa.Select[str, int]) -> dict[str, int]:
    with engine.connect() as connection:
        return {row[0]: row[1] for row in connection.execute(query).all()}


def _waiting(engine: sa.Engine) -> list[Observation]:
    query = sa.select(col(AnalysisRow.state), sa.func.count()).where(col(AnalysisRow.state).in_(_WAITING))
    counts = _counts(engine, query.group_by(col(AnalysisRow.state)))
    return [Observation(counts.get(state, 0), {"state": state}) for state in _WAITING]


def _oldest(engine: sa.Engine) -> list[Observation]:
    query = sa.select(sa.func.min(col(AnalysisRow.created_at))).where(col(AnalysisRow.state).in_(_WAITING))
    with engine.connect() as connection:
        oldest = connection.execute(query).scalar()
    return [Observation((datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0)]


def _deliveries(engine: sa.Engine) -> list[Observation]:
    query = (
        sa.select(col(DeliveryRow.destination), col(DeliveryRow.state), sa.func.count())
        .where(col(DeliveryRow.state).in_(_OPEN))
        .group_by(col(DeliveryRow.destination), col(DeliveryRow.state))
    )
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    return [Observation(count, {"destination": destination, "state": state}) for destination, state, count in rows]


def _holds(engine: sa.Engine) -> list[Observation]:
    query = sa.select(col(HoldRow.kind), sa.func.count()).where(col(HoldRow.resolved_at).is_(None))
    counts = _counts(engine, query.group_by(col(HoldRow.kind)))
    return [Observation(count, {"kind": kind}) for kind, count in counts.items()]


def _outcomes(engine: sa.Engine) -> list[Observation]:
    labels = ("source", "model", "truth", "result")
    return [Observation(count, dict(zip(labels, key, strict=True))) for key, count in outcomes.counts(engine).items()]


def _heartbeats(engine: sa.Engine) -> list[Observation]:
    return [Observation(age, {"worker": name}) for name, age in heartbeat.ages(engine, "worker").items()]
