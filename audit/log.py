"""Appending to the audit trail, inside the caller's transaction.

An entry stands exactly when what it tells of stands: same transaction, same commit, same rollback. Nothing is locked
and no counter is shared, so any number of threads and processes append at once; `audit.sequencer` orders them later.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from opentelemetry import trace
from sqlalchemy import insert
from sqlalchemy.orm import Session

from audit.leaf import canonical, finite, leaf_hash, storable
from audit.tables import LEAF, PENDING
from dermoscopy.ports import AuditEntry

_INSERT_LEAF = insert(LEAF)
_INSERT_PENDING = insert(PENDING)


def timestamp(at: datetime | None = None) -> str:
    """UTC in RFC 3339 with six decimals and ``Z``; now if not given. A naive time is taken as UTC."""
    moment = at or datetime.now(UTC)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


class MerkleAuditLog:
    """The `dermoscopy.ports.AuditLog` of this service."""

    def append(self, session: Session, entry: AuditEntry) -> None:
        """Write ``entry`` in the transaction of ``session``; it gets its tree position after the commit."""
        row = {
            "id": str(uuid.uuid4()),
            "at": timestamp(entry.at),
            "action": storable(entry.action),
            "actor": storable(entry.actor),
            "outcome": storable(entry.outcome),
            "subject_type": storable(entry.subject_type),
            "subject_id": storable(entry.subject_id),
            "patient_issuer": storable(entry.patient_issuer),
            "patient_id": storable(entry.patient_id),
            "details": canonical(finite(entry.details)),
            "trace_id": _trace_id(),
        }
        row["leaf_hash"] = leaf_hash(row)
        connection = session.connection()
        connection.execute(_INSERT_LEAF, row)
        connection.execute(_INSERT_PENDING, {"leaf_id": row["id"]})


def _trace_id() -> str:
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""
