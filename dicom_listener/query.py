"""What a PACS holds of a patient: C-FIND as SCU, Study Root, STUDY → SERIES → IMAGE (PS3.4 C.4.1, C.6.2).

Hierarchical only: the one way that every PACS must offer (PS3.4 C.4.1.2.1). Answers are believed no further than they
say whose they are; the objects themselves are checked again when they come (`asked`).

======================  =====================================  ===============================
status                  PS3.4 Table C.4-1                      here
======================  =====================================  ===============================
``0x0000``              Success                                that was all
``0xFF00``, ``0xFF01``  Pending (01: keys not supported)       one match; the keys are checked here
``0xFE00``              Cancel                                 `DestinationUnavailable`
``0xA700``              Refused: Out of resources              `DestinationUnavailable`
``0xA900``              Data Set does not match SOP Class      `Rejected`
``0xCxxx``              Unable to process                      `Rejected`
``0x0122``, ``0x0124``  SOP class not supported, not allowed   `Rejected` (PS3.7 C)
none                    no answer in time, association lost    `DestinationUnavailable`
======================  =====================================  ===============================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import DestinationUnavailable, Rejected
from dicom_listener.asking import AWAY_SECONDS, BUSY_SECONDS, PacsAddress, associated
from dicom_listener.header import issuer_of
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN, IMAGE_CLASSES, IMPLICIT_LITTLE_ENDIAN

log = structlog.get_logger(__name__)

STUDY_ROOT_FIND: Final = "1.2.840.10008.5.1.4.1.2.2.1"
MAX_ANSWERS: Final = 5000
"""Matches of one question that are read; a PACS that has more is told to stop, and the person asked to narrow."""
_ENCODINGS: Final = [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN]
_SUCCESS, _CANCEL, _OUT_OF_RESOURCES = 0x0000, 0xFE00, 0xA700
_PENDING: Final = frozenset({0xFF00, 0xFF01})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose photographs are looked for. ``since``: ``YYYYMMDD`` or empty; ``modalities``: empty means any."""

    patient: PatientIdentity
    modalities: tuple[str, ...] = ()
    since: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """One object that the PACS says it has; ``sop_class_uid`` is empty where it does not say (an optional key)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found, and the studies in the answer that are of another patient than the one asked for."""

    matches: tuple[Match, ...]
    of_others: tuple[str, ...] = ()
    """Study Instance UIDs."""


class SameIssuer(Protocol):
    """Whether an answer is of the patient asked for; knows the default issuer and the names an issuer has."""

    def __call__(self, answered: PatientIdentity) -> bool: ...


def find(pacs: PacsAddress, wanted: Wanted, same: SameIssuer) -> Found:
    """Every photograph of the patient, one association for all levels.

    An answer that names another patient, or none, or no study, is left out and told (`Found.of_others`). One that names
    no issuer is followed, since dcmtk and others never return it: the object that comes will name its own. Raises
    `DestinationUnavailable` and `Rejected`.
    """
    check_patient(wanted.patient)
    matches: dict[str, Match] = {}
    others: list[str] = []
    with associated(pacs, find_contexts()) as association:
        for study in _answers(association, pacs.name, study_identifier(wanted)):
            study_uid = text_of(study, "StudyInstanceUID")
            if not study_uid or not is_of(study, wanted.patient, same):  # an empty key would match every study
                others.append(study_uid)
                continue
            for match in _photographs(association, pacs.name, wanted, study_uid):
                matches.setdefault(match.sop_instance_uid, match)
    if others:
        log.warning("query.other_patient", source=pacs.name, studies=len(others))
    return Found(tuple(matches.values()), tuple(others))


def _photographs(association: Association, name: str, wanted: Wanted, study_uid: str) -> Iterator[Match]:
    for series in _answers(association, name, series_identifier(study_uid)):
        series_uid = text_of(series, "SeriesInstanceUID")
        if not series_uid or not is_modality(text_of(series, "Modality"), wanted.modalities):
            continue
        for image in _answers(association, name, image_identifier(study_uid, series_uid)):
            match = Match(study_uid, series_uid, text_of(image, "SOPInstanceUID"), text_of(image, "SOPClassUID"))
            if match.sop_instance_uid and (not match.sop_class_uid or match.sop_class_uid in IMAGE_CLASSES):
                yield match


def find_contexts() -> list[PresentationContext]:
    """Proposed for C-FIND."""
    return [build_context(STUDY_ROOT_FIND, _ENCODINGS)]


def study_identifier(wanted: Wanted) -> Dataset:
    """Study level (PS3.4 C.6.2.1.2): the patient's id, from a date on.

    The issuer is only asked to be returned: where a PACS keeps none, matching on it would find nothing.
    """
    asked = _level("STUDY")
    asked.PatientID = wanted.patient.patient_id
    asked.IssuerOfPatientID = ""
    asked.StudyDate = f"{wanted.since}-" if wanted.since else ""
    asked.StudyInstanceUID = ""
    return asked


def series_identifier(study_uid: str) -> Dataset:
    """Series level (PS3.4 C.6.2.1.3): all series, since one key takes one modality only."""
    asked = _level("SERIES")
    asked.StudyInstanceUID, asked.SeriesInstanceUID, asked.Modality = study_uid, "", ""
    return asked


def image_identifier(study_uid: str, series_uid: str) -> Dataset:
    """Composite object instance level (PS3.4 C.6.2.1.4), with the optional SOP Class UID."""
    asked = _level("IMAGE")
    asked.StudyInstanceUID, asked.SeriesInstanceUID = study_uid, series_uid
    asked.SOPInstanceUID = asked.SOPClassUID = ""
    return asked


def check_patient(patient: PatientIdentity) -> None:
    """Raises `Rejected` for an id that would match other patients' too (wild cards and lists, PS3.4 C.2.2.2)."""
    identifier = patient.patient_id
    if not identifier.strip() or len(identifier) > 64:
        raise Rejected("name one patient: an id of 1 to 64 characters")
    if any(character in "*?\\" or ord(character) < 32 for character in identifier):
        raise Rejected("this patient id cannot be asked for: * ? \\ and control characters mean other patients too")


def is_of(answer: Dataset, patient: PatientIdentity, same: SameIssuer) -> bool:
    """Whether an answer is of ``patient``; one that names no issuer passes by its id."""
    issuer, patient_id = issuer_of(answer), text_of(answer, "PatientID")
    if not issuer:
        return patient_id == patient.patient_id
    return same(PatientIdentity(issuer, patient_id))


def is_modality(modality: str, wanted: Iterable[str]) -> bool:
    """Whether a series may hold photographs; one that does not say its modality may."""
    chosen = tuple(wanted)
    return not chosen or not modality or modality in chosen


def text_of(answer: Dataset, keyword: str) -> str:
    """A value as text, without padding; empty where it is absent or has several values."""
    value = answer.get(keyword)
    return value.strip(" \0") if isinstance(value, str) else ""


def _level(level: str) -> Dataset:
    asked = Dataset()
    asked.QueryRetrieveLevel = level
    return asked


def _answers(association: Association, name: str, asked: Dataset) -> list[Dataset]:
    """The matches of one question. Raises `DestinationUnavailable` and `Rejected`."""
    found: list[Dataset] = []
    status: int | None = None
    cancelled = False
    for told, answer in association.send_c_find(asked, STUDY_ROOT_FIND):
        status = int(told.Status) if "Status" in told else None
        if status in _PENDING and answer is None:
            raise DestinationUnavailable(f"{name} gave an answer that cannot be read", retry_after=AWAY_SECONDS)
        if status in _PENDING and answer is not None:
            found.append(answer)
            if len(found) > MAX_ANSWERS and not cancelled:
                cancelled = True
                association.send_c_cancel(1, query_model=STUDY_ROOT_FIND)
    if cancelled:
        raise Rejected(f"{name} has more than {MAX_ANSWERS} matches: ask for a shorter time")
    judge(status, name)
    return found


def judge(status: int | None, name: str) -> None:
    """What the last status of a C-FIND means (table above). Raises `DestinationUnavailable` and `Rejected`."""
    if status == _SUCCESS:
        return
    if status is None or status in _PENDING:
        raise DestinationUnavailable(f"{name} gave no answer to C-FIND", retry_after=AWAY_SECONDS)
    if status == _CANCEL:
        raise DestinationUnavailable(f"{name} broke the query off (status FE00)", retry_after=BUSY_SECONDS)
    if status >> 8 == _OUT_OF_RESOURCES >> 8:
        raise DestinationUnavailable(f"{name} is out of resources (status {status:04X})", retry_after=BUSY_SECONDS)
    raise Rejected(f"{name} refused the query (status {status:04X})")
