"""Storage commitment, push model, as SCU (PS3.4 J.3): we ask by N-ACTION, and the PACS reports by N-EVENT-REPORT.

The report comes on an association that the PACS opens to our listener, or on the one on which it was asked: so that one
stays open for a moment. What a report means, and whether it is believed, is decided elsewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, evt
from pynetdicom.association import Association

from dermoscopy.errors import DermoscopyError, DestinationUnavailable, Rejected, Unavailable
from dicom_listener.commitment import (
    COMMITMENT_CLASS,
    COMMITMENT_INSTANCE,
    MAX_REFERENCES,
    Reference,
    proposed_contexts,
)
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.tls import ClientContext, ReloadedContext

log = structlog.get_logger(__name__)

_REQUEST: Final = 1
_EVENTS: Final = (1, 2)
_SUCCESS, _PROCESSING_FAILURE, _NO_SUCH_INSTANCE, _NO_SUCH_EVENT = 0x0000, 0x0110, 0x0112, 0x0113
_INVALID_ARGUMENT, _DUPLICATE_INVOCATION, _RESOURCE_LIMITATION = 0x0115, 0x0210, 0x0213
ANSWERS: Final[tuple[tuple[int, str], ...]] = (
    (_SUCCESS, "The report is recorded"),
    (_PROCESSING_FAILURE, "Unexpected failure here; report again later"),
    (_NO_SUCH_INSTANCE, "Not the storage commitment instance"),
    (_NO_SUCH_EVENT, "No such event type"),
    (_INVALID_ARGUMENT, "Unreadable, of an unknown transaction, of another AE title, or of objects not asked about"),
    (_RESOURCE_LIMITATION, "Cannot be recorded now; report again later"),
)
"""What a PACS that reports is answered (PS3.7 10.1.1.1.8)."""


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """An N-EVENT-REPORT as it came: what is said of which objects, by whom. Nothing in it is verified yet."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[Reference, ...]
    """Each with its Failure Reason, 0 where the report names none."""
    caller: str
    address: str


OnReport = Callable[[CommitmentReport], None]
"""Records a report durably. Raises `Rejected` where it is not believed, `Unavailable` where it cannot be recorded."""


def answer_report(
    event: Any, caller: str, address: str, record: OnReport | None, refused: Callable[[str], None] | None = None
) -> tuple[int, None]:
    """The response to an N-EVENT-REPORT request (PS3.4 J.3.3.1.3): success once the report is recorded.

    ``refused`` is told why a report was not believed.
    """
    request = event.request
    if str(request.AffectedSOPInstanceUID) != COMMITMENT_INSTANCE or record is None:
        return _NO_SUCH_INSTANCE, None
    if request.EventTypeID not in _EVENTS:
        return _NO_SUCH_EVENT, None
    try:
        record(_read(event.event_information, caller, address))
    except (AttributeError, KeyError, TypeError, ValueError):  # what pydicom raises on an attribute list it cannot read
        reason = "Transaction UID or references are absent or unreadable"
    except Rejected as error:
        reason = str(error)
    except Unavailable:
        return _RESOURCE_LIMITATION, None
    except DermoscopyError:
        return _PROCESSING_FAILURE, None
    except Exception:  # outermost loop: the peer gets an answer, the association lives
        log.exception("commitment_report.failed", caller=caller)
        return _PROCESSING_FAILURE, None
    else:
        return _SUCCESS, None
    if refused is not None:
        refused(reason)
    return _INVALID_ARGUMENT, None


class CommitmentRequester:
    """Asks one PACS; safe to call from many threads. Times are in seconds.

    ``on_report`` is told of reports that come within ``linger_seconds`` on the association of the request. One
    association at a time is kept for that: the next request ends it.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        called_ae: str,
        calling_ae: str,
        on_report: OnReport,
        *,
        timeout: float = 30.0,
        linger_seconds: float = 5.0,
        tls: ReloadedContext[ClientContext] | None = None,
    ) -> None:
        self._name, self._host, self._port, self._called_ae = name, host, port, called_ae
        self._on_report, self._linger_seconds, self._tls = on_report, linger_seconds, tls
        self._entity = AE(calling_ae)
        self._entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        self._entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._entity.acse_timeout = self._entity.connection_timeout = self._entity.dimse_timeout = timeout
        self._entity.network_timeout = max(timeout, linger_seconds) + 30
        self._lock = threading.Lock()
        self._lingering: Association | None = None
        self._reading = threading.Lock()
        """Held while a report is recorded, so that its association is not released meanwhile."""

    def ask(self, transaction_uid: str, references: Sequence[Reference]) -> bool:
        """Ask for commitment of ``references`` in a transaction of this UID.

        True: taken, the report will come. False: sent, and not taken now or not answered; the UID is spent (PS3.4
        J.3.2.1.2) and another transaction may ask later. Raises `DestinationUnavailable` (nothing was sent; ask again
        with the same UID) and `Rejected` (this PACS does not take such requests).
        """
        self.close()
        association = self._connected()
        try:
            answer, _ = association.send_n_action(
                _request(transaction_uid, references), _REQUEST, COMMITMENT_CLASS, COMMITMENT_INSTANCE
            )
        except (RuntimeError, ValueError):  # pynetdicom: the association ended, or our role was not accepted
            answer = Dataset()
        status = int(answer.Status) if answer and "Status" in answer else None
        try:
            taken = judge(status, self._name)
        except Rejected:
            if association.is_established:
                association.release()
            raise
        if taken:
            self._linger(association)
            return True
        if association.is_established:
            association.release()
        log.info("commitment_request.not_taken", destination=self._name, status=status)
        return False

    def close(self) -> None:
        """Release the association that is kept open for a report, if there is one."""
        with self._lock:
            association, self._lingering = self._lingering, None
        if association is not None:
            self._release(association)

    def _connected(self) -> Association:
        secured = self._tls.current() if self._tls is not None else None
        association = self._entity.associate(
            self._host,
            self._port,
            contexts=proposed_contexts(),
            ae_title=self._called_ae,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take_report)],
            tls_args=(secured, self._host) if secured is not None else None,
        )
        if association.is_established:
            return association
        if association.rejected_contexts:
            raise Rejected(
                f"{self._name} takes no storage commitment requests: turn that on there, or set commitment = false"
            )
        why = "refused the association" if association.is_rejected else "cannot be reached"
        raise DestinationUnavailable(
            f"{self._name} {why} for storage commitment: check address, port and AE titles ({self._called_ae})",
            retry_after=5,
        )

    def _linger(self, association: Association) -> None:
        with self._lock:
            before, self._lingering = self._lingering, association
        if before is not None:
            self._release(before)
        watch = threading.Timer(self._linger_seconds, self._let_go, [association])
        watch.daemon = True
        watch.start()

    def _let_go(self, association: Association) -> None:
        with self._lock:
            if self._lingering is not association:
                return  # released already
            self._lingering = None
        self._release(association)

    def _release(self, association: Association) -> None:
        with self._reading:
            if association.is_established:
                association.release()

    def _take_report(self, event: Any) -> tuple[int, None]:
        with self._reading:
            return answer_report(event, self._called_ae, self._host, self._on_report, self._refuse)

    def _refuse(self, reason: str) -> None:
        log.warning("report.refused", caller=self._called_ae, reason=reason)


def judge(status: int | None, name: str) -> bool:
    """What an answer to the N-ACTION means: taken, or not now (also ``None``, no answer). Raises `Rejected`."""
    if status in (_SUCCESS, _DUPLICATE_INVOCATION):  # the second: an attempt before a crash had arrived
        return True
    if status is None or status in (_PROCESSING_FAILURE, _RESOURCE_LIMITATION):
        return False
    raise Rejected(f"{name} refused the storage commitment request (status {status:04X})")


def _request(transaction_uid: str, references: Sequence[Reference]) -> Dataset:
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    asked.ReferencedSOPSequence = [_item(reference) for reference in references]
    return asked


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _read(information: Dataset, caller: str, address: str) -> CommitmentReport:
    """PS3.4 Table J.3-2; either sequence may be absent."""
    transaction = str(information.TransactionUID)
    committed = tuple(_reference(item) for item in information.get("ReferencedSOPSequence") or ())
    failed = tuple(_reference(item) for item in information.get("FailedSOPSequence") or ())
    if not transaction or not (committed or failed) or len(committed) + len(failed) > MAX_REFERENCES:
        raise Rejected("the report names no transaction, nothing, or too much")
    return CommitmentReport(transaction, committed, failed, caller, address)


def _reference(item: Dataset) -> Reference:
    reason = item.get("FailureReason")
    return Reference(str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID), int(reason or 0))
