"""The one leaf that each call leaves in the audit log."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from cds_service.hooks.calls import Call, Told
from cds_service.hooks.messages import HookRequest
from dermoscopy.domain import PatientIdentity
from dermoscopy.ports import AuditEntry, JsonValue


def leave_leaf(
    call: Call,
    session: Session,
    service: str,
    request: HookRequest,
    identities: Sequence[PatientIdentity],
    shown: Sequence[Told],
    **more: JsonValue,
) -> None:
    """Write down which cards were given to whom; ``more`` are further facts."""
    who = identities[0] if identities else PatientIdentity(request.fhir_server or "", request.context.patient_id)
    analyses = [one.analysis_id for one in shown if one.analysis_id]
    details: dict[str, JsonValue] = {
        "service": service,
        "hook_instance": str(request.hook_instance),
        "client": call.caller.name,
        "cards": [one.card.uuid for one in shown],
        "analyses": analyses,
        **more,
    }
    call.node.audit.append(
        session,
        AuditEntry(
            action="card.shown" if shown else "card.none",
            actor=request.context.actor,
            subject_type="analysis" if analyses else "hook_instance",
            subject_id=analyses[0] if analyses else str(request.hook_instance),
            patient_issuer=who.issuer,
            patient_id=who.patient_id,
            details=details,
        ),
    )
