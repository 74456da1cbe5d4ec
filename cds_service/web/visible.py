"""Whose data a login may see: an EHR launches the page for one patient, and it is that patient's page then."""

from __future__ import annotations

from cds_service.api.refusals import NotAllowed
from cds_service.api.stored import find_analysis
from cds_service.authorization import Caller
from cds_service.node import Node
from dermoscopy.domain import PatientIdentity
from dermoscopy.ports import AuditEntry


def check_visible(node: Node, caller: Caller, analysis_id: str) -> None:
    """Raises `NotFound`, and `NotAllowed` for another patient's analysis, which leaves a leaf in the audit log."""
    if caller.patients is None:
        return  # whoever asks next finds out whether there is such an analysis
    with node.begin() as session:
        row = find_analysis(session, analysis_id)
        allowed = caller.may_see(PatientIdentity(row.issuer, row.patient_id))
        if not allowed:
            node.audit.append(
                session,
                AuditEntry(
                    action="analysis.refused",
                    actor=caller.name,
                    subject_type="analysis",
                    subject_id=row.id,
                    outcome="failure",
                    patient_issuer=row.issuer,
                    patient_id=row.patient_id,
                    details={"reason": "the login was launched for another patient"},
                ),
            )
    if not allowed:
        raise NotAllowed(
            "This login was opened from the chart of another patient: open this patient's chart and launch again."
        )
