"""Storage commitment, push model, as SCP (PS3.4 J.3): the request comes by N-ACTION, the report goes by N-EVENT-REPORT.

The report goes on an association of its own that we open: on the requester's own association it breaks peers. What is
recorded and when the report is sent is decided elsewhere; this room only speaks DICOM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_context, build_role
from pynetdicom.presentation import PresentationContext

from dermoscopy.errors import DermoscopyError, DestinationUnavailable, Misconfigured, Rejected, Unavailable
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from dicom_listener.tls import ClientContext, ReloadedContext

log = structlog.get_logger(__name__)

COMMITMENT_CLASS: Final = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE: Final = "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model SOP Class, and its one well-known instance."""

NO_SUCH_OBJECT: Final = 0x0112
CLASS_CONFLICT: Final = 0x0119
"""Failure Reasons (0008,1197) that we give, of PS3.3 C.14.1.1."""

MAX_REFERENCES: Final = 20_000
_REQUEST: Final = 1
_ALL_COMMITTED, _SOME_FAILED = 1, 2
_SUCCESS, _PROCESSING_FAILURE, _RESOURCE_LIMITATION = 0x0000, 0x0110, 0x0213
_ENCODINGS: Final = [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN]


@dataclass(frozen=True, slots=True)
class Reference:
    """One object that the requester wants to be sure of; ``failure`` is a Failure Reason, 0 where it is safe."""

    sop_class_uid: str
    sop_instance_uid: str
    failure: int = 0


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """An N-ACTION as it came: who asked, from which address, about what."""

    transaction_uid: str
    references: tuple[Reference, ...]
    caller: str
    address: str


_Answer = tuple[int, str]
_OTHER_INSTANCE: Final = (0x0112, "Not the storage commitment instance")
_OTHER_ACTION: Final = (0x0123, "No such action")
_UNREADABLE: Final = (0x0115, "Transaction UID or references are absent or unreadable")
_TOO_MANY: Final = (0x0115, "Too many references, or none")
_NO_ADDRESS: Final = (_PROCESSING_FAILURE, "It is not known here where to report to this AE title")
_UNEXPECTED: Final = (_PROCESSING_FAILURE, "Unexpected failure")
_LATER: Final = (_RESOURCE_LIMITATION, "Cannot be recorded now; ask again later")
REFUSALS: Final[tuple[_Answer, ...]] = (
    *(_NO_ADDRESS, _UNEXPECTED, _OTHER_INSTANCE, _UNREADABLE, _TOO_MANY, _OTHER_ACTION, _LATER),
)
"""Answers to an N-ACTION that was not taken: status (PS3.7 C) and Error Comment."""

OnCommitment = Callable[[CommitmentRequest], None]
"""Records a request durably; the report follows. Raises `DermoscopyError` where that cannot be promised."""


def answer_action(event: Any, caller: str, address: str, record: OnCommitment | None) -> tuple[int | Dataset, None]:
    """The response to an N-ACTION request (PS3.4 J.3.2.1): success once the request is recorded."""
    request = event.request
    if str(request.RequestedSOPInstanceUID) != COMMITMENT_INSTANCE:
        return _failed(_OTHER_INSTANCE)
    if request.ActionTypeID != _REQUEST or record is None:
        return _failed(_OTHER_ACTION)
    try:
        asked = _read(event.action_information, caller, address)
        record(asked)
    except (AttributeError, KeyError, TypeError, ValueError):  # what pydicom raises on an attribute list it cannot read
        return _failed(_UNREADABLE)
    except Misconfigured as error:
        log.warning("commitment.no_address", caller=caller, reason=str(error))
        return _failed(_NO_ADDRESS)
    except Unavailable:
        return _failed(_LATER)
    except DermoscopyError:
        return _failed(_TOO_MANY)
    except Exception:  # outermost loop: the peer gets an answer, the association lives
        log.exception("commitment.failed", caller=caller)
        return _failed(_UNEXPECTED)
    return _SUCCESS, None


def send_report(
    transaction_uid: str,
    references: Sequence[Reference],
    *,
    host: str,
    port: int,
    called_ae: str,
    calling_ae: str,
    timeout: float = 30.0,
    tls: ReloadedContext[ClientContext] | None = None,
) -> None:
    """N-EVENT-REPORT on an association of its own, in which we are the SCP (PS3.4 J.3.3).

    Raises `DestinationUnavailable` (try again) and `Rejected` (the requester does not take reports).
    """
    entity = AE(calling_ae)
    entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.acse_timeout = entity.connection_timeout = entity.dimse_timeout = entity.network_timeout = timeout
    association = entity.associate(
        host,
        port,
        contexts=proposed_contexts(),
        ae_title=called_ae,
        ext_neg=[build_role(COMMITMENT_CLASS, scp_role=True)],
        tls_args=(tls.current(), host) if tls is not None else None,
    )
    if not association.is_established:
        why = "refused the association" if association.is_rejected else "cannot be reached"
        raise DestinationUnavailable(f"{called_ae} {why} for a storage commitment report", retry_after=5)
    try:
        if not association.accepted_contexts:
            raise Rejected(f"{called_ae} takes no storage commitment reports")
        report = _report(transaction_uid, references, calling_ae)
        kind = _SOME_FAILED if any(reference.failure for reference in references) else _ALL_COMMITTED
        answer, _ = association.send_n_event_report(report, kind, COMMITMENT_CLASS, COMMITMENT_INSTANCE)
    except (RuntimeError, ValueError) as error:  # pynetdicom: the association ended, or our role was not accepted
        raise DestinationUnavailable(f"{called_ae} did not take a storage commitment report", retry_after=30) from error
    finally:
        association.release()
    status = int(answer.Status) if answer and "Status" in answer else None
    if status is None or status in (_PROCESSING_FAILURE, _RESOURCE_LIMITATION):
        raise DestinationUnavailable(f"{called_ae} gave no answer to a storage commitment report", retry_after=30)
    if status != _SUCCESS:
        raise Rejected(f"{called_ae} refused the storage commitment report (status {status:04X})")


def proposed_contexts() -> list[PresentationContext]:
    """Proposed where we ask for a commitment, and, with the role of an SCP, where we report one."""
    return [build_context(COMMITMENT_CLASS, _ENCODINGS)]


def _read(information: Dataset, caller: str, address: str) -> CommitmentRequest:
    transaction = str(information.TransactionUID)
    references = tuple(
        Reference(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for item in information.ReferencedSOPSequence
    )
    if not transaction or not references or len(references) > MAX_REFERENCES:
        raise Rejected("a storage commitment request names no transaction, nothing, or too much")
    return CommitmentRequest(transaction, references, caller, address)


def _report(transaction_uid: str, references: Sequence[Reference], ae_title: str) -> Dataset:
    report = Dataset()
    report.TransactionUID = transaction_uid
    committed: list[Dataset] = []
    failed: list[Dataset] = []
    for reference in references:
        item = Dataset()
        item.ReferencedSOPClassUID = reference.sop_class_uid
        item.ReferencedSOPInstanceUID = reference.sop_instance_uid
        if reference.failure:
            item.FailureReason = reference.failure
        (failed if reference.failure else committed).append(item)
    if committed:
        report.ReferencedSOPSequence = committed
    if failed:
        report.FailedSOPSequence = failed
    return report


def _failed(said: _Answer) -> tuple[Dataset, None]:
    answer = Dataset()
    answer.Status, answer.ErrorComment = said[0], said[1][:64]
    return answer, None
