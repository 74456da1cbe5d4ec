"""Whether an object that comes from a PACS is what we asked for: of that patient, and of no other.

An object that a PACS sends because of our C-MOVE comes to the listener, on another association and perhaps to another
process or machine. It carries our AE title and the Message ID of our request (Move Originator, PS3.7 9.1.1.1). So the
Message ID, ours to choose (PS3.7 9.1.4.1.1), says in 15 bits for which patient we asked, and in one whether the
images are only to be kept. An object of another patient is refused at the door; where a PACS leaves the originator
out it is an ordinary object, kept under the patient that it names itself, and `cds_service.pull` tells of it.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Final

from dermoscopy.domain import ImageHeader, PatientIdentity
from dermoscopy.errors import Rejected
from dermoscopy.routing import Action, Route

_STORE_ONLY: Final = 0x8000
STORE_ONLY_RULE: Final = "pull --store-only"
"""Name in place of a rule's where whoever pulled wanted the images kept and not analysed."""

Canonical = Callable[[PatientIdentity], PatientIdentity]
"""The identity under the one name of its issuer (`dermoscopy.patients.IssuerMap.canonical`)."""
Admit = Callable[[ImageHeader, Route], Route]
"""Raises `OtherPatient`, or says what is to happen with the object after all."""


class OtherPatient(Rejected):
    """A PACS was asked for the images of one patient and sent one of another, or of nobody."""


def message_id(patient: PatientIdentity, *, store_only: bool) -> int:
    """Message ID (0000,0110) of a C-MOVE for a patient, whose identity must be canonical."""
    digest = sha256(f"{patient.issuer}\0{patient.patient_id}".encode()).digest()
    return (int.from_bytes(digest[:2], "big") & ~_STORE_ONLY) | (_STORE_ONLY if store_only else 0)


def admit_moved(originator: int, canonical: Canonical) -> Admit:
    """The check of an object that came because of the C-MOVE of ours with the Message ID ``originator``."""
    store_only = bool(originator & _STORE_ONLY)

    def admit(header: ImageHeader, route: Route) -> Route:
        if message_id(canonical(header.patient), store_only=store_only) != originator:
            raise OtherPatient("The object is not of the patient that was asked for.")
        return kept(route) if store_only else route

    return admit


def admit_fetched(patient: PatientIdentity, canonical: Canonical, *, store_only: bool) -> Admit:
    """The check of an object that came as the answer itself (C-GET, WADO-RS); ``patient`` is canonical."""

    def admit(header: ImageHeader, route: Route) -> Route:
        if canonical(header.patient) != patient:
            raise OtherPatient("The object is not of the patient that was asked for.")
        return kept(route) if store_only else route

    return admit


def kept(route: Route) -> Route:
    """``route`` without analysis."""
    return route if route.action is not Action.ANALYSE else Route(Action.STORE, STORE_ONLY_RULE)
