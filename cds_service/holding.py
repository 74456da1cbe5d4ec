"""What a person decided about something that was held: the row and its audit leaf."""

from __future__ import annotations

from sqlalchemy.orm import Session

from cds_service.node import Node
from dermoscopy.errors import Rejected
from dermoscopy.ports import AuditEntry
from dermoscopy.tables import HoldRow, utc_now


def close(node: Node, session: Session, hold: HoldRow, *, by: str, resolution: str) -> None:
    """Write the decision. Raises `Rejected` where there was one already."""
    if hold.resolved_at is not None:
        raise Rejected(f"this hold was decided already: {hold.resolution}")
    hold.resolved_at, hold.resolved_by, hold.resolution = utc_now(), by, resolution
    node.audit.append(
        session,
        AuditEntry(
            action="hold.resolved",
            actor=by,
            subject_type="hold",
            subject_id=hold.id,
            details={"hold": hold.kind, "resolution": resolution, "subject": hold.subject_id},
        ),
    )


def dismiss(node: Node, hold_id: str, *, by: str, resolution: str) -> None:
    """Close a hold that is no image's. Raises `Rejected` where there is none, or it was decided already."""
    with node.begin() as session:
        hold = session.get(HoldRow, hold_id)
        if hold is None:
            raise Rejected(f"no hold {hold_id}")
        close(node, session, hold, by=by, resolution=resolution)
