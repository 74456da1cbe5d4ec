"""What an EHR says of a patient, in the ground's words (https://hl7.org/fhir/R4/patient.html).

Reads tolerantly: only identifiers are looked at, and whatever else a server puts into its resources is its own affair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import Rejected, UnknownPatient


def prefetched_patient(prefetch: Mapping[str, Any] | None, key: str, patient_id: str) -> Mapping[str, Any] | None:
    """The Patient under ``key`` of a CDS Hooks prefetch, checked to be the patient of the request's context.

    ``None`` if the client had no data (key absent, ``null``, or an OperationOutcome in its place): fetch it or answer
    that it cannot be had (https://cds-hooks.hl7.org/2.0/#prefetch-template). A searchset Bundle of one Patient counts.
    Raises `Rejected` for anything else, above all for another patient than ``context.patientId``.
    """
    found = (prefetch or {}).get(key)
    if isinstance(found, Mapping) and found.get("resourceType") == "Bundle":
        resources = [entry.get("resource") for entry in found.get("entry") or () if isinstance(entry, Mapping)]
        patients = [r for r in resources if isinstance(r, Mapping) and r.get("resourceType") == "Patient"]
        if len(patients) > 1:
            raise Rejected(f"prefetch {key!r} holds {len(patients)} patients; the context names one")
        found = patients[0] if patients else None
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise Rejected(f"prefetch {key!r} is not a FHIR resource")
    kind = found.get("resourceType")
    if kind == "OperationOutcome":
        return None
    if kind != "Patient":
        raise Rejected(f"prefetch {key!r} is not a Patient")
    if not patient_id or found.get("id") != patient_id.removeprefix("Patient/"):
        raise Rejected(f"prefetch {key!r} is another patient than context.patientId; nothing was looked up")
    return found


def patient_identities(
    resource: Mapping[str, Any], issuer_of_system: Mapping[str, str], *, now: datetime | None = None
) -> tuple[PatientIdentity, ...]:
    """Under which issuer and id DICOM objects of this Patient may stand; identifiers no longer in force do not count.

    ``issuer_of_system`` is `dermoscopy.patients.IssuerMap.issuer_of_system`; a system it does not list is its own
    issuer. Raises `UnknownPatient` if the resource gives two values under one listed system, since it would then be
    unclear whose image is meant; two values under an unlisted system are left out. `Rejected` if it is no Patient.
    """
    if resource.get("resourceType") != "Patient":
        raise Rejected("expected a Patient resource")
    values: dict[str, set[str]] = {}
    for system, value in current_identifiers(resource, now=now):
        values.setdefault(system, set()).add(value)
    unclear = [system for system, several in values.items() if len(several) > 1]
    if listed := sorted(system for system in unclear if system in issuer_of_system):
        raise UnknownPatient(f"the patient has several identifiers of the system {listed[0]!r}: a person must decide")
    return tuple(
        PatientIdentity(issuer_of_system.get(system, system), value)
        for system, (value, *others) in ((system, sorted(several)) for system, several in values.items())
        if not others
    )


def current_identifiers(resource: Mapping[str, Any], *, now: datetime | None = None) -> Iterator[tuple[str, str]]:
    """(system, value) of the identifiers in force: neither ``old`` nor outside their period."""
    moment = (now or datetime.now(UTC)).astimezone(UTC)
    for identifier in resource.get("identifier") or ():
        if not isinstance(identifier, Mapping) or identifier.get("use") == "old":
            continue
        system, value = identifier.get("system"), identifier.get("value")
        if not isinstance(system, str) or not isinstance(value, str) or not system.strip() or not value.strip():
            continue
        period = identifier.get("period")
        if isinstance(period, Mapping) and not _in_force(period, moment):
            continue
        yield system.strip(), value.strip()


def _in_force(period: Mapping[str, Any], moment: datetime) -> bool:
    """Both ends belong to a period, each as precisely as it is stated (https://hl7.org/fhir/R4/datatypes.html#Period)."""
    start, end = period.get("start"), period.get("end")
    return not (isinstance(start, str) and _order(start, moment) > 0) and not (
        isinstance(end, str) and _order(end, moment) < 0
    )


def _order(stated: str, moment: datetime) -> int:
    """-1, 0 or 1: whether a partial or full dateTime lies before, at or after ``moment``; 0 if it cannot be read."""
    if "T" not in stated:
        today = moment.date().isoformat()[: len(stated)]
        return (stated > today) - (stated < today)
    try:
        exact = datetime.fromisoformat(stated)
    except ValueError:
        return 0
    exact = exact if exact.tzinfo else exact.replace(tzinfo=UTC)
    return (exact > moment) - (exact < moment)
