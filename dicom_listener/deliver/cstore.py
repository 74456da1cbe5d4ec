"""A PACS that takes results by C-STORE (PS3.4 B), over one association that is kept open between deliveries."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Iterable
from io import BytesIO
from typing import Any, Final

import structlog
from opentelemetry import trace
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from dermoscopy.domain import Analysis, Artifact, ArtifactKind, DeliveryReceipt
from dermoscopy.errors import DestinationUnavailable, Rejected
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, PARSE_ERRORS
from dicom_listener.syntaxes import (
    COMPREHENSIVE_SR,
    EXPLICIT_LITTLE_ENDIAN,
    IMAGE_CLASSES,
    IMPLICIT_LITTLE_ENDIAN,
    KEY_OBJECT_SELECTION,
    NATIVE_SYNTAXES,
    SECONDARY_CAPTURE,
    SEGMENTATION,
    TRANSFER_SYNTAXES,
    VERIFICATION,
)
from dicom_listener.tls import ClientContext, ReloadedContext

log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)

ACCEPTS: Final = frozenset(
    {
        ArtifactKind.SOURCE,
        ArtifactKind.SEG,
        ArtifactKind.SR,
        ArtifactKind.SECONDARY_CAPTURE,
        ArtifactKind.REJECTION_NOTE,
    }
)
_OWN: Final = (VERIFICATION, SEGMENTATION, COMPREHENSIVE_SR, KEY_OBJECT_SELECTION)
_PLAIN: Final = [EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN]
_DUPLICATE_INSTANCE: Final = 0x0111
_PROCESSING_FAILURE: Final = 0x0110
_RESOURCE_LIMITATION: Final = 0x0213

PATIENCE_SECONDS: Final = 10.0
"""How long a delivery waits for its turn: one silent PACS must not hold all the threads that others need as well."""
_SLOW_SECONDS: Final = 1.0
_REST_SECONDS: Final = 30.0
"""After a PACS was silent, not merely absent, it is left alone for so long (or for as long as it was silent)."""


class CStoreDestination:
    """Implements `dermoscopy.ports.Destination`; safe to call from many threads, which take turns.

    Times are in seconds. The association is released after ``idle_seconds`` without a delivery, so that it does not
    occupy a place at the PACS.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        called_ae: str,
        calling_ae: str,
        *,
        timeout: float = 30.0,
        idle_seconds: float = 10.0,
        max_pdu: int = 131072,
        tls: ReloadedContext[ClientContext] | None = None,
        rejection_notes: bool = True,
    ) -> None:
        self._name, self._rejection_notes = name, rejection_notes
        self._host, self._port, self._called_ae = host, port, called_ae
        self._timeout, self._idle_seconds, self._max_pdu, self._tls = timeout, idle_seconds, max_pdu, tls
        self._ae = AE(ae_title=calling_ae)
        self._ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
        self._ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._ae.acse_timeout = self._ae.connection_timeout = self._ae.dimse_timeout = timeout
        self._ae.network_timeout = max(timeout, idle_seconds) + 30
        self._lock = threading.Lock()
        self._association: Association | None = None
        self._last_used = 0.0
        self._silent_until = 0.0
        self._watch: threading.Timer | None = None

    @property
    def name(self) -> str:
        """Name of the destination in settings, deliveries and logs."""
        return self._name

    @property
    def accepts(self) -> frozenset[ArtifactKind]:
        """The DICOM kinds; rejection notes where the archive understands them."""
        return ACCEPTS if self._rejection_notes else ACCEPTS - {ArtifactKind.REJECTION_NOTE}

    def deliver(self, artifact: Artifact, analysis: Analysis) -> DeliveryReceipt:
        """Store ``artifact`` (a Part 10 file) at the PACS; the same object again is the same SOP instance there.

        Raises `DestinationUnavailable` (no association, no answer in time, out of resources, busy) and `Rejected`
        (refused for good, no common encoding).
        """
        with _tracer.start_as_current_span(
            "dicom.deliver", attributes={"destination": self._name, "artifact": artifact.kind.value}
        ):
            dataset = _read(artifact)
            if not self._lock.acquire(timeout=PATIENCE_SECONDS):
                raise DestinationUnavailable(f"{self._name} is busy with other objects", retry_after=1)
            try:
                status = self._send_unless_silent(dataset)
            finally:
                self._last_used = time.monotonic()
                self._start_watch()
                self._lock.release()
        self._judge(status, artifact, analysis)
        return DeliveryReceipt(reference=artifact.uid)

    def echo(self) -> None:
        """C-ECHO, for readiness checks. Raises `DestinationUnavailable`."""
        with self._lock:
            answer = self._connected().send_c_echo()
            self._last_used = time.monotonic()
            self._start_watch()
        if not answer or answer.Status != 0:
            raise DestinationUnavailable(f"{self._name} did not answer a DICOM echo")

    def close(self) -> None:
        """Release the association, if one is open."""
        with self._lock:
            self._release()

    # ------------------------------------------------------------------------------------------------- inside the lock

    def _send_unless_silent(self, dataset: Dataset) -> int:
        began = time.monotonic()
        if began < self._silent_until:
            raise DestinationUnavailable(
                f"{self._name} gave no answer a moment ago", retry_after=self._silent_until - began
            )
        try:
            return self._send(dataset)
        except DestinationUnavailable:
            silent = time.monotonic() - began
            if silent > _SLOW_SECONDS:
                self._silent_until = time.monotonic() + min(silent, _REST_SECONDS)
            raise

    def _send(self, dataset: Dataset) -> int:
        """Send over the open association; one that the peer has closed meanwhile is replaced once."""
        reused = self._association is not None and self._association.is_established
        for last in (False, True) if reused else (True,):
            association = self._connected()
            try:
                answer = association.send_c_store(_in_accepted_encoding(dataset, association, self._name))
            except ValueError as error:  # pynetdicom cannot write the dataset in the accepted encoding
                raise Rejected("the object cannot be encoded for this PACS") from error
            except RuntimeError as error:  # pynetdicom: the association ended between check and use
                log.info("deliver.association_lost", destination=self._name, reason=type(error).__name__)
                answer = None
            if answer and "Status" in answer:
                if comment := str(answer.get("ErrorComment") or ""):
                    log.info("deliver.comment", destination=self._name, characters=len(comment))
                return int(answer.Status)
            association.abort()
            self._association = None
            if last:
                break
        raise DestinationUnavailable(f"{self._name} gave no answer to C-STORE", retry_after=5)

    def _connected(self) -> Association:
        if self._association is not None and self._association.is_established:
            return self._association
        self._association = None
        secured = self._tls.current() if self._tls is not None else None
        if secured is not None:
            secured.failure = ""
        association = self._ae.associate(
            self._host,
            self._port,
            contexts=proposed_contexts(),
            ae_title=self._called_ae,
            max_pdu=self._max_pdu,
            tls_args=(secured, self._host) if secured is not None else None,
        )
        if not association.is_established:
            if secured is not None and secured.failure:
                raise DestinationUnavailable(f"{self._name} cannot be reached by TLS: {secured.failure}", retry_after=5)
            why = "refused the association" if association.is_rejected else "cannot be reached"
            raise DestinationUnavailable(
                f"{self._name} {why}: check address, port and AE titles ({self._called_ae})", retry_after=5
            )
        self._association = association
        return association

    def _release(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        association, self._association = self._association, None
        if association is not None and association.is_established:
            association.release()

    def _start_watch(self) -> None:
        if self._watch is None and self._association is not None:
            self._watch = threading.Timer(self._idle_seconds, self._on_watch)
            self._watch.daemon = True
            self._watch.start()

    def _on_watch(self) -> None:
        with self._lock:
            self._watch = None
            if time.monotonic() - self._last_used >= self._idle_seconds * 0.9:
                self._release()
            else:
                self._start_watch()

    # ------------------------------------------------------------------------------------------------------------------

    def _judge(self, status: int, artifact: Artifact, analysis: Analysis) -> None:
        where = {"destination": self._name, "artifact": artifact.kind.value, "analysis_id": analysis.id}
        if judge(status, self._name, artifact.kind.value):
            log.warning("deliver.stored_with_warning", status=f"{status:04X}", **where)
        else:
            log.info("deliver.stored", status=f"{status:04X}", **where)


def judge(status: int, name: str, what: str) -> bool:
    """What an answer means for the delivery (PS3.4 Table B.2-1, PS3.7 C): whether it was stored with a warning.

    Raises `DestinationUnavailable` and `Rejected`.
    """
    if status == 0x0000 or status == _DUPLICATE_INSTANCE:
        return False
    if status >> 12 == 0xB or status in (0x0001, 0x0107, 0x0116):
        return True
    if status >> 8 == 0xA7 or status in (_PROCESSING_FAILURE, _RESOURCE_LIMITATION):
        raise DestinationUnavailable(f"{name} is out of resources (status {status:04X})", retry_after=30)
    raise Rejected(f"{name} refused the {what} object (status {status:04X})")


def _read(artifact: Artifact) -> Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dcmread(BytesIO(artifact.data))
    except PARSE_ERRORS as error:
        raise Rejected(f"the {artifact.kind.value} artifact is not a DICOM file") from error


def proposed_contexts() -> list[PresentationContext]:
    """Proposed to every PACS.

    One context per compressed encoding of the image classes, so that it can accept each by itself.
    """
    contexts = [build_context(uid, _PLAIN) for uid in _OWN]
    for uid in IMAGE_CLASSES:
        contexts.append(build_context(uid, _PLAIN))
        if uid != SECONDARY_CAPTURE:
            contexts += [build_context(uid, [syntax]) for syntax in TRANSFER_SYNTAXES if syntax not in _PLAIN]
    return contexts


def _in_accepted_encoding(dataset: Dataset, association: Association, name: str) -> Dataset:
    """``dataset`` in an encoding that the PACS accepted for its class, decompressed if need be."""
    syntax, sop_class = str(dataset.file_meta.TransferSyntaxUID), str(dataset.SOPClassUID)
    accepted = set(_accepted(association.accepted_contexts, sop_class))
    if not accepted:
        raise Rejected(f"{name} does not take objects of SOP class {sop_class}")
    if syntax in accepted or (syntax in NATIVE_SYNTAXES and accepted & set(_PLAIN)):
        return dataset  # pynetdicom writes implicit for explicit and the other way round where that was accepted
    if not accepted & set(_PLAIN):
        raise Rejected(f"{name} accepts no encoding that this object can be sent in")
    try:
        dataset.decompress(generate_instance_uid=False)
    except PARSE_ERRORS as error:
        raise Rejected("the object cannot be decompressed for a PACS that takes no compressed images") from error
    return dataset


def _accepted(contexts: Iterable[Any], sop_class: str) -> Iterable[str]:
    for context in contexts:
        if context.abstract_syntax == sop_class:
            yield from (str(uid) for uid in context.transfer_syntax)
