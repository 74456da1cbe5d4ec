"""Objects of a PACS brought here: C-MOVE to our own listener, or C-GET on the same association (PS3.4 C.4.2, C.4.3).

One request per series, at IMAGE level with a list of UIDs (PS3.4 C.4.2.2.1), so that what we have is not sent again.

============  ===========================================  =================================================
status        PS3.4 Tables C.4-2 and C.4-3                 here
============  ===========================================  =================================================
``0x0000``    Sub-operations complete, no failures         done
``0xFF00``    Pending                                      counted on
``0xB000``    Complete, one or more failures               done, with its failures (`Retrieved.failed`)
``0xFE00``    Cancel                                       `DestinationUnavailable`
``0xA701``    Out of resources                             `DestinationUnavailable`
``0xA702``    Out of resources, or all of them failed      as B000 where it counts failures, else as A701
``0xA801``    Move Destination unknown                     `Rejected`: the PACS must know our AE title and address
``0xA900``    Identifier does not match SOP Class          `Rejected`
``0xCxxx``    Unable to process                            `Rejected`
``0x0122``    SOP class not supported (PS3.7 C)            `Rejected`
none          no answer in time, association lost          `DestinationUnavailable`
============  ===========================================  =================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_context, build_role, evt
from pynetdicom.presentation import PresentationContext

from dermoscopy.errors import DestinationUnavailable, Rejected
from dicom_listener.asking import AWAY_SECONDS, BUSY_SECONDS, PacsAddress, associated
from dicom_listener.handlers import StoreHandler, StoreRequest
from dicom_listener.query import Match
from dicom_listener.syntaxes import (
    EXPLICIT_LITTLE_ENDIAN,
    IMAGE_CLASSES,
    IMPLICIT_LITTLE_ENDIAN,
    NATIVE_SYNTAXES,
    NEGOTIATED_SYNTAXES,
)

log = structlog.get_logger(__name__)

STUDY_ROOT_MOVE: Final = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET: Final = "1.2.840.10008.5.1.4.1.2.2.3"
TOGETHER: Final = 100
"""Objects in one request."""
_ENCODINGS: Final = [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN]
_SUCCESS, _PENDING, _WARNING, _CANCEL, _DESTINATION_UNKNOWN = 0x0000, 0xFF00, 0xB000, 0xFE00, 0xA801
_UNABLE: Final = 0xA702


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What the PACS says of its sub-operations: how many were completed, completed with a warning, failed."""

    completed: int = 0
    warnings: int = 0
    failed: int = 0

    def __add__(self, other: Retrieved) -> Retrieved:
        return Retrieved(self.completed + other.completed, self.warnings + other.warnings, self.failed + other.failed)


def move(pacs: PacsAddress, matches: Iterable[Match], *, destination: str, message_id: int) -> Retrieved:
    """Ask ``pacs`` to send ``matches`` to the AE title ``destination``, which is our listener.

    ``message_id`` tells the listener whose images were asked for (`asked.message_id`). What has really come only the
    database knows. Raises `DestinationUnavailable` and `Rejected`.
    """
    done = Retrieved()
    with associated(pacs, move_contexts()) as association:
        for asked in identifiers(matches):
            answers = association.send_c_move(asked, destination, STUDY_ROOT_MOVE, msg_id=message_id)
            done += _outcome(answers, pacs.name, "C-MOVE")
    return done


def get(pacs: PacsAddress, matches: Iterable[Match], *, door: StoreHandler, max_object_bytes: int) -> Retrieved:
    """Have ``matches`` sent on our own association; ``door`` answers each of them as it answers any C-STORE.

    Raises `DestinationUnavailable` and `Rejected`.
    """

    def store(event: evt.Event) -> Dataset:
        request: Any = event.request
        data = request.DataSet.getvalue()
        too_large = len(data) > max_object_bytes
        status = door(
            StoreRequest(
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                caller=pacs.called_ae,
                data=b"" if too_large else data,
                too_large=too_large,
            )
        )
        answer = Dataset()
        answer.Status = status.code
        if status.comment:
            answer.ErrorComment = status.comment
        return answer

    done = Retrieved()
    roles = [build_role(uid, scp_role=True) for uid in IMAGE_CLASSES]
    handlers = [(evt.EVT_C_STORE, store)]
    with associated(pacs, get_contexts(), roles=roles, handlers=handlers) as association:
        for asked in identifiers(matches):
            done += _outcome(association.send_c_get(asked, STUDY_ROOT_GET), pacs.name, "C-GET")
    return done


def identifiers(matches: Iterable[Match]) -> Iterator[Dataset]:
    """Requests at IMAGE level with the unique keys of the levels above (PS3.4 C.4.2.2.1), one series in each."""
    ordered = sorted(matches, key=_series)
    for (study, series), members in groupby(ordered, key=_series):
        uids = [match.sop_instance_uid for match in members]
        for start in range(0, len(uids), TOGETHER):
            asked = Dataset()
            asked.QueryRetrieveLevel = "IMAGE"
            asked.StudyInstanceUID, asked.SeriesInstanceUID = study, series
            asked.SOPInstanceUID = uids[start : start + TOGETHER]
            yield asked


def _series(match: Match) -> tuple[str, str]:
    return match.study_instance_uid, match.series_instance_uid


def move_contexts() -> list[PresentationContext]:
    """Proposed for C-MOVE."""
    return [build_context(STUDY_ROOT_MOVE, _ENCODINGS)]


def get_contexts() -> list[PresentationContext]:
    """Proposed for C-GET: the query model, each image class for the plain encodings and for each compressed one."""
    contexts = [build_context(STUDY_ROOT_GET, _ENCODINGS)]
    for uid in IMAGE_CLASSES:
        contexts.append(build_context(uid, [s for s in NEGOTIATED_SYNTAXES if s in NATIVE_SYNTAXES]))
        contexts += [build_context(uid, [s]) for s in NEGOTIATED_SYNTAXES if s not in NATIVE_SYNTAXES]
    return contexts


def _outcome(answers: Iterable[tuple[Dataset, Dataset | None]], name: str, service: str) -> Retrieved:
    """Follow one request to its end; numbers are those of the last response that has them."""
    told = Dataset()
    done = Retrieved()
    for told, _ in answers:
        done = Retrieved(
            int(told.get("NumberOfCompletedSuboperations") or 0) or done.completed,
            int(told.get("NumberOfWarningSuboperations") or 0) or done.warnings,
            int(told.get("NumberOfFailedSuboperations") or 0) or done.failed,
        )
    status = int(told.Status) if "Status" in told else None
    if status == _UNABLE and done.failed:
        status = _WARNING
    judge(status, name, service)
    if done.failed or done.warnings:
        log.warning("retrieve.incomplete", source=name, failed=done.failed, warnings=done.warnings)
    return done


def judge(status: int | None, name: str, service: str) -> None:
    """What the last status means (table above). Raises `DestinationUnavailable` and `Rejected`."""
    if status in (_SUCCESS, _WARNING):
        return
    if status is None or status == _PENDING:
        raise DestinationUnavailable(f"{name} gave no answer to {service}", retry_after=AWAY_SECONDS)
    if status == _CANCEL:
        raise DestinationUnavailable(f"{name} broke the {service} off (status FE00)", retry_after=BUSY_SECONDS)
    if status == _DESTINATION_UNKNOWN:
        raise Rejected(
            f"{name} does not know where to send: tell it AE title, address and port of our listener (status A801)"
        )
    if status >> 8 == 0xA7:
        raise DestinationUnavailable(f"{name} is out of resources (status {status:04X})", retry_after=BUSY_SECONDS)
    hint = (
        ": see that it knows our listener (AE title, address, port), and that this runs" if service == "C-MOVE" else ""
    )
    raise Rejected(f"{name} refused the {service} (status {status:04X}){hint}")
