"""What a received object goes through: header → intake's door → status. Nothing else happens before the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog
from opentelemetry import trace

from dermoscopy.domain import ImageHeader
from dermoscopy.errors import DermoscopyError, IntegrityViolation, Rejected, UnsupportedImage, UnsupportedSopClass
from dermoscopy.routing import Action, Route
from dicom_listener.header import read_header_and_facts
from dicom_listener.rules import Facts, RefusedByRule, Rules
from dicom_listener.status import SUCCESS, DimseStatus, TooManyObjects, status_of

log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)

Ready = Callable[[], None]
"""Raises `Unavailable` while no object can be taken: too little room, too much work waiting."""
Accept = Callable[[bytes, ImageHeader, str, Route], object]
"""Intake's door: (dataset, header, calling AE title, route). Returns once it is durable; raises `DermoscopyError`."""
OnRejected = Callable[[Rejected, ImageHeader | None, str, str], None]
"""Told of each refusal for good: (error, header if it could be read, calling AE title, SHA-256 of the bytes)."""


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """One C-STORE request: what the command set announces and the encoded dataset as it came (PS3.7 9.1.1)."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    caller: str
    data: bytes
    too_large: bool = False
    """The dataset went over the size limit and was not kept; ``data`` is empty."""
    too_many: bool = False
    """The caller has sent as many objects in a minute as it may."""
    move_originator: str = ""
    """AE title of whoever asked for it by C-MOVE, and the Message ID of that request (PS3.7 9.1.1.1)."""
    move_message_id: int = 0


Asked = Callable[[StoreRequest, ImageHeader, Route], Route]
"""Whether an object that came because we asked for it is what we asked for (`asked`): its route, or `Rejected`."""


@dataclass(frozen=True, slots=True)
class StoreHandler:
    """Answers C-STORE requests; safe to call from many threads."""

    accept: Accept
    on_rejected: OnRejected | None = None
    ready: Ready | None = None
    rules: Rules = field(default_factory=Rules)
    asked: Asked | None = None

    def __call__(self, request: StoreRequest) -> DimseStatus:
        """The status of ``request``. Never raises: the sender gets an answer and the association lives."""
        with _tracer.start_as_current_span("dicom.c_store", attributes={"dicom.caller": request.caller}) as span:
            header: ImageHeader | None = None
            try:
                self._check_room(request)
                header, facts = self._checked(request)
                self.accept(request.data, header, request.caller, self._route(facts, header, request))
                status = DimseStatus(SUCCESS)
            except Rejected as error:
                status = status_of(error)
                self._report(error, header, request)
            except DermoscopyError as error:
                status = status_of(error)
                level = log.critical if isinstance(error, IntegrityViolation) else log.warning
                level("store.not_kept", error=type(error).__name__, status=f"{status.code:04X}", caller=request.caller)
            except Exception as error:
                status = status_of(error)
                span.record_exception(error)
                log.exception("store.failed", status=f"{status.code:04X}", caller=request.caller)
            span.set_attribute("dicom.status", f"{status.code:04X}")
            return status

    def _check_room(self, request: StoreRequest) -> None:
        if request.too_many:
            raise TooManyObjects("This AE title sends more objects in a minute than it may.")
        if self.ready is not None:
            self.ready()

    def _route(self, facts: Facts, header: ImageHeader, request: StoreRequest) -> Route:
        decision = self.rules.decide(replace(facts, calling_ae=(request.caller,)))
        if decision.route.action is Action.REFUSE:
            raise RefusedByRule(f"The rule {decision.route.rule!r} refuses such objects.")
        return decision.route if self.asked is None else self.asked(request, header, decision.route)

    def _checked(self, request: StoreRequest) -> tuple[ImageHeader, Facts]:
        if request.too_large:
            raise UnsupportedImage("The object is larger than this service takes; send a single still image.")
        header, facts = read_header_and_facts(request.data, request.transfer_syntax_uid)
        if (header.sop_class_uid, header.sop_instance_uid) != (request.sop_class_uid, request.sop_instance_uid):
            raise UnsupportedSopClass(
                "SOP class or instance UID of the dataset differ from those of the C-STORE command."
            )
        return header, facts

    def _report(self, error: Rejected, header: ImageHeader | None, request: StoreRequest) -> None:
        digest = hashlib.sha256(request.data).hexdigest()
        log.warning(
            "store.rejected", error=type(error).__name__, reason=str(error), digest=digest, caller=request.caller
        )
        if self.on_rejected is None:
            return
        try:
            self.on_rejected(error, header, request.caller, digest)
        except Exception:
            log.exception("store.rejection_not_recorded", digest=digest)
