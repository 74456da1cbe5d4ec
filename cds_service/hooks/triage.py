"""The service ``dermoscopy-triage``: what is stored of the patient whose chart was opened. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sqlmodel import col, or_, select

from cds_service.api.refusals import PrefetchMissing
from cds_service.api.stored import READY
from cds_service.hooks.calls import Call
from cds_service.hooks.cards import CardWriter
from cds_service.hooks.messages import Card, HookRequest
from cds_service.node import Node
from dermoscopy.analyses import AnalysisSummary, summaries_of_patients
from dermoscopy.domain import PatientIdentity, TriageTier, derive_id
from dermoscopy.errors import DestinationUnavailable, Rejected, UnknownPatient
from dermoscopy.ports import AuditEntry, JsonValue
from dermoscopy.tables import HoldRow, InstanceRow, utc_now
from fhir_adapters.read import patient_identities, prefetched_patient

log = structlog.get_logger(__name__)

ID = "dermoscopy-triage"
PATIENT_KEY = "patient"
AMBIGUOUS_PATIENT = "ambiguous_patient"
MAX_FINDINGS = 10
"""Findings with a card of their own; the rest share one."""
_URGENCY = {tier.value: rank for rank, tier in enumerate(TriageTier)}


def answer(call: Call, request: HookRequest) -> list[Card]:
    """Cards for the patient of ``request``; the call leaves one leaf in the audit log.

    Raises `PrefetchMissing` when the patient neither came along nor can be read from the EHR, or is another one than
    the context names.
    """
    node = call.node
    told: dict[str, JsonValue] = {"client": call.caller.name}
    try:
        patient = prefetched_patient(request.prefetch, PATIENT_KEY, request.context.patient_id)
        if patient is None:
            patient = _fetched_patient(call, request)
            told["fetched"] = [PATIENT_KEY]
        identities = patient_identities(patient, node.issuers.issuer_of_system)
    except UnknownPatient as error:
        _hold(node, request, error, told)
        return []
    except (Rejected, DestinationUnavailable) as error:
        raise PrefetchMissing(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    with node.begin() as session:
        analyses = summaries_of_patients(session, identities)
        waiting = _held_instances(session, identities)
        cards, shown = _cards(node, analyses, waiting)
        _leave_leaf(node, session, request, identities, cards, shown, **told)
    return cards


def _fetched_patient(call: Call, request: HookRequest) -> Mapping[str, Any]:
    """The patient of the context, read from the EHR with the access that the call gives."""
    missing = f"prefetch {PATIENT_KEY!r} (Patient/{{{{context.patientId}}}}) is missing"
    if request.fhir_server is None:
        raise Rejected(f"{missing}, and no fhirServer is named to read it from")
    patient_id, access = request.context.patient_id.removeprefix("Patient/"), request.fhir_authorization
    if access is not None and access.patient not in (None, patient_id):
        raise Rejected(f"{missing}, and fhirAuthorization is for another patient than the context names")
    try:
        return call.ehr.read(request.fhir_server, "Patient", patient_id, access.access_token if access else None)
    except (Rejected, DestinationUnavailable) as error:
        log.warning("card.patient_not_fetched", reason=str(error))
        raise type(error)(f"{missing}, and {error}") from error


def _cards(
    node: Node, analyses: Sequence[AnalysisSummary], waiting: Sequence[str]
) -> tuple[list[Card], list[AnalysisSummary]]:
    """Cards, and the analyses they speak of, in the order of the cards."""
    writer = CardWriter(ID, node.settings.resolved_public_url)
    newest: dict[str, AnalysisSummary] = {}
    finished: dict[str, AnalysisSummary] = {}
    for one in analyses:  # newest first
        newest.setdefault(one.instance_id, one)
        if one.state in READY:
            finished.setdefault(one.instance_id, one)
    found = sorted(finished.values(), key=lambda a: (_URGENCY[a.tier], -a.created_at.timestamp()))
    failed = [a for a in newest.values() if a.state == "failed" and a.instance_id not in finished][:MAX_FINDINGS]
    under_way = [a for a in newest.values() if a.state not in READY and a.state != "failed"]
    cards = [writer.finding(a) for a in found[:MAX_FINDINGS]]
    cards += [writer.more(found[MAX_FINDINGS:])] if found[MAX_FINDINGS:] else []
    cards += [writer.failed(a) for a in failed]
    cards += [writer.held(waiting)] if waiting else []
    cards += [writer.under_way(under_way)] if under_way else []
    return cards, [*found, *failed, *under_way]


def _held_instances(session: Session, patients: Sequence[PatientIdentity]) -> list[str]:
    if not patients:
        return []
    whose = or_(
        *((col(InstanceRow.issuer) == p.issuer) & (col(InstanceRow.patient_id) == p.patient_id) for p in patients)
    )
    return list(session.execute(select(InstanceRow.id).where(whose, InstanceRow.state == "held").limit(50)).scalars())


def _leave_leaf(
    node: Node,
    session: Session,
    request: HookRequest,
    identities: Sequence[PatientIdentity],
    cards: Sequence[Card],
    shown: Sequence[AnalysisSummary],
    **more: JsonValue,
) -> None:
    who = identities[0] if identities else PatientIdentity(request.fhir_server or "", request.context.patient_id)
    details: dict[str, JsonValue] = {
        "service": ID,
        "hook_instance": str(request.hook_instance),
        "cards": [card.uuid for card in cards],
        "analyses": [analysis.id for analysis in shown],
        **more,
    }
    node.audit.append(
        session,
        AuditEntry(
            action="card.shown" if cards else "card.none",
            actor=request.context.actor,
            subject_type="analysis" if shown else "hook_instance",
            subject_id=shown[0].id if shown else str(request.hook_instance),
            patient_issuer=who.issuer,
            patient_id=who.patient_id,
            details=details,
        ),
    )


def _hold(node: Node, request: HookRequest, error: UnknownPatient, told: Mapping[str, JsonValue]) -> None:
    """No card, but a person is told: somebody has to clean up the patient's identifiers."""
    patient = request.context.patient_id.removeprefix("Patient/")
    hold_id = derive_id("hold", AMBIGUOUS_PATIENT, request.fhir_server or "", patient)
    for attempt in (1, 2):
        try:
            with node.begin() as session:
                if session.get(HoldRow, hold_id) is None:
                    session.add(
                        HoldRow(
                            id=hold_id,
                            kind=AMBIGUOUS_PATIENT,
                            subject_id=f"Patient/{patient}",
                            reason=str(error),
                            created_at=utc_now(),
                        )
                    )
                    session.flush()
                _leave_leaf(node, session, request, (), (), (), hold=hold_id, reason=str(error), **told)
            break
        except IntegrityError:  # another call opened the same hold in the same moment
            if attempt == 2:
                raise
    log.warning("card.ambiguous_patient", hold_id=hold_id)
