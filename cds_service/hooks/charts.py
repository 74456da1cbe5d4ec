"""Whose chart a call is about: the prefetched patient, or the one read from the EHR, as identities of images here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy.exc import IntegrityError

from cds_service.api.refusals import PrefetchMissing
from cds_service.hooks.calls import Call, Chart
from cds_service.hooks.messages import HookRequest
from cds_service.hooks.traces import leave_leaf
from dermoscopy.domain import derive_id
from dermoscopy.errors import DestinationUnavailable, Rejected, UnknownPatient
from dermoscopy.tables import HoldRow, utc_now
from fhir_adapters.read import patient_identities, prefetched_patient

log = structlog.get_logger(__name__)

PATIENT_KEY = "patient"
AMBIGUOUS_PATIENT = "ambiguous_patient"


def open_chart(call: Call, service: str, request: HookRequest) -> Chart | None:
    """The patient of ``request``; ``None`` when it is unclear who it is here, and then a person is told by a hold.

    Raises `PrefetchMissing` when the patient neither came along nor can be read from the EHR, or is another one than
    the context names.
    """
    fetched = False
    try:
        patient = prefetched_patient(request.prefetch, PATIENT_KEY, request.context.patient_id)
        if patient is None:
            patient, fetched = _fetched_patient(call, request), True
        identities = patient_identities(patient, call.node.issuers.issuer_of_system)
    except UnknownPatient as error:
        _hold(call, service, request, error)
        return None
    except (Rejected, DestinationUnavailable) as error:
        raise PrefetchMissing(f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    return Chart(identities, fetched)


def _fetched_patient(call: Call, request: HookRequest) -> Mapping[str, Any]:
    """The patient of the context, read from the EHR with the access that the call gives."""
    missing = f"prefetch {PATIENT_KEY!r} (Patient/{{{{context.patientId}}}}) is missing"
    if request.fhir_server is None:
        raise Rejected(f"{missing}, and no fhirServer is named to read it from")
    patient_id, access = request.context.patient, request.fhir_authorization
    if access is not None and access.patient not in (None, patient_id):
        raise Rejected(f"{missing}, and fhirAuthorization is for another patient than the context names")
    try:
        return call.ehr.read(request.fhir_server, "Patient", patient_id, access.access_token if access else None)
    except (Rejected, DestinationUnavailable) as error:
        log.warning("card.patient_not_fetched", reason=str(error))
        raise type(error)(f"{missing}, and {error}") from error


def _hold(call: Call, service: str, request: HookRequest, error: UnknownPatient) -> None:
    """No card, but a person is told: somebody has to clean up the patient's identifiers."""
    node, patient = call.node, request.context.patient
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
                leave_leaf(call, session, service, request, (), (), hold=hold_id, reason=str(error))
            break
        except IntegrityError:  # another call opened the same hold in the same moment
            if attempt == 2:
                raise
    log.warning("card.ambiguous_patient", hold_id=hold_id)
