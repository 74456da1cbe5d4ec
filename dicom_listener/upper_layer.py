"""pynetdicom's upper layer, so that a peer that breaks the protocol gets an abort and leaves nothing behind.

Where a PDU makes pynetdicom's state machine or its dispatcher raise, the thread ends with a traceback, the connection
stays open and the association waits for a timeout; a request without its UIDs is not answered at all. Here such a peer
is aborted, once, in one line of the log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

import structlog
from pynetdicom.association import Association
from pynetdicom.pdu import A_ABORT_RQ

from dicom_listener.commitment import COMMITMENT_CLASS
from dicom_listener.syntaxes import IMAGE_CLASSES, VERIFICATION

log = structlog.get_logger(__name__)

Broken = Callable[[Association, str], None]
"""Told that the peer of an association broke the protocol, and how."""

_INVALID_PDU: Final = "Evt19"
"""Unrecognised or invalid PDU (PS3.8 9.2.3, Table 9-10)."""
_SERVED: Final[dict[str, tuple[str, ...]]] = {
    VERIFICATION: ("C-ECHO",),
    COMMITMENT_CLASS: ("N-ACTION", "N-EVENT-REPORT"),
    **dict.fromkeys(IMAGE_CLASSES, ("C-STORE",)),
}
"""SOP class → the operations of its service. pynetdicom hands whatever comes to the class's one handler."""


def guard(association: Association, on_broken: Broken) -> None:
    """Make ``association`` end well whatever its peer sends. Called before its threads start."""
    dul: Any = association.dul
    dul.daemon = True  # an answer that never comes must not keep the process alive
    machine, guarded = (
        dul.state_machine,
        cast(Any, association),
    )  # the association's own attributes are replaced, not the class's
    negotiator: Any = association.acse
    do_action, serve, answer = machine.do_action, guarded._serve_request, negotiator.negotiate_association

    def act(event: str) -> None:
        if event == _INVALID_PDU:
            on_broken(association, "a PDU that cannot be read")
        try:
            do_action(event)
        except Exception as error:  # noqa: BLE001 - outermost loop of the connection's thread
            if not _crossed(event):
                on_broken(association, f"a PDU that does not belong there ({type(error).__name__})")
            _abandon(association)

    def serve_checked(message: Any, context_id: int) -> None:
        fault = _fault(message)
        if fault:
            on_broken(association, fault)
            association.abort(block=False)
            return
        try:
            serve(message, context_id)
        except Exception as error:  # noqa: BLE001 - outermost loop of the association's thread
            on_broken(association, f"a request that cannot be served ({type(error).__name__})")
            association.abort(block=False)

    def negotiate() -> None:
        try:
            answer()
        except Exception as error:  # noqa: BLE001 - outermost loop of the association's thread
            on_broken(association, f"an association request that cannot be answered ({type(error).__name__})")
            _abandon(association)

    machine.do_action = act
    negotiator.negotiate_association = negotiate
    guarded._serve_request = serve_checked


def _fault(message: Any) -> str:
    """What is wrong with a complete message, or nothing."""
    if not message.is_valid_request:
        return "a message that is no request, or lacks what a request must have"
    sop_class = getattr(message, "AffectedSOPClassUID", None) or getattr(message, "RequestedSOPClassUID", None)
    kind = type(message).__name__.replace("_", "-")
    return "" if kind in _SERVED.get(str(sop_class), ()) else "a request for a service that is not offered"


def _crossed(event: str) -> bool:
    """Whether ``event`` is of our own doing: the peer went away while an answer was on its way to it."""
    return event in ("Evt7", "Evt8", "Evt9", "Evt11", "Evt14", "Evt15")


def _abandon(association: Association) -> None:
    """Abort without the state machine, which is of no use any more (as pynetdicom does for errors of its loop)."""
    dul: Any = association.dul
    abort = A_ABORT_RQ()
    abort.source, abort.reason_diagnostic = 0x02, 0x00
    if dul.socket is not None and dul.socket.socket is not None:
        dul.socket.send(abort.encode())
    association.is_aborted, association.is_established = True, False
    association._kill = True
    dul.kill_dul()
    dul.to_user_queue.put(None)  # else the association would wait for its request until the timeout
