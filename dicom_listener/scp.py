"""The storage SCP: pynetdicom's acceptor, bounded in size and time, ended cleanly."""

from __future__ import annotations

import math
import socket
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, _config, build_context, evt
from pynetdicom.association import Association
from pynetdicom.pdu import P_DATA_TF

from dermoscopy.errors import Misconfigured
from dicom_listener.admission import STOPPING, Admission, Caller, Peer, Refusal
from dicom_listener.commitment import COMMITMENT_CLASS, OnCommitment, answer_action
from dicom_listener.commitment_request import OnReport, answer_report
from dicom_listener.handlers import Accept, Asked, OnRejected, Ready, StoreHandler, StoreRequest
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.refusals import RefusalReports, Refused
from dicom_listener.rules import Rules
from dicom_listener.server import ListenerSettings, Server
from dicom_listener.status import OUT_OF_RESOURCES, SUCCESS
from dicom_listener.syntaxes import IMAGE_CLASSES, NEGOTIATED_SYNTAXES, VERIFICATION
from dicom_listener.tls import reason_of
from dicom_listener.upper_layer import guard

__all__ = ["ListenerSettings", "StorageListener"]

log = structlog.get_logger(__name__)

OVERSHOOT: Final = 16 * 1024 * 1024
"""An object this many bytes over the limit is not read to its end: the association is aborted."""

_SWEEP_SECONDS: Final = 0.02
_HEARING_SECONDS: Final = 1.0
"""At the end: how long connections that have just been accepted may still ask, to be told to come again."""


@dataclass(slots=True)
class _Load:
    """What an association has in hand. Written by its upper layer thread only."""

    received: int = 0
    """Bytes of the message that is coming in."""
    unanswered: int = 0
    """Messages that are complete and have no answer yet."""
    refused: bool = False
    """Too much has come, or too slowly; the association is being aborted."""
    began: float = 0.0
    """When the first bytes of the message came (monotonic)."""

    @property
    def busy(self) -> bool:
        return bool(self.received or self.unanswered)


class StorageListener:
    """Receives images by C-STORE and answers C-ECHO. ``accept``, ``on_rejected``, ``ready``: see `handlers`.

    ``on_refused`` is told of connections, associations and objects that were not let in (`refusals`).
    """

    def __init__(
        self,
        settings: ListenerSettings,
        accept: Accept,
        on_rejected: OnRejected | None = None,
        *,
        on_refused: Callable[[Refused], None] | None = None,
        ready: Ready | None = None,
        rules: Rules | None = None,
        on_commitment: OnCommitment | None = None,
        on_report: OnReport | None = None,
        asked: Asked | None = None,
    ) -> None:
        self.settings = settings
        self._on_commitment = on_commitment
        self._on_report = on_report
        self._store = StoreHandler(accept, on_rejected, ready, rules or Rules(), asked)
        self._refusals = RefusalReports(on_refused or (lambda _: None))
        self._admission = Admission(
            settings.ae_title,
            settings.peers,
            promiscuous=settings.promiscuous,
            require_called_ae=settings.require_called_ae,
            max_associations=settings.max_associations,
        )
        self._entity = application_entity(settings)
        self._loads: weakref.WeakKeyDictionary[Association, _Load] = weakref.WeakKeyDictionary()
        self._heard: weakref.WeakSet[Association] = weakref.WeakSet()
        self._admitted: weakref.WeakKeyDictionary[Association, tuple[Caller, Peer]] = weakref.WeakKeyDictionary()
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._port = 0
        self._stopping = threading.Event()

    @property
    def port(self) -> int:
        """The port really bound (useful with port 0). Raises `RuntimeError` before `start`."""
        if self._server is None:
            raise RuntimeError("the listener is not started")
        return self._port

    @property
    def associations(self) -> int:
        """How many associations are open now."""
        return len(self._server.active_associations) if self._server else 0

    def start(self) -> None:
        """Bind and listen; returns at once. Raises `Misconfigured` when the address cannot be bound."""
        settings = self.settings
        _config.LOG_HANDLER_LEVEL = "none"  # formats every PDU and message otherwise; ours are logged by `handlers`
        try:
            server = self._entity.make_server(
                (settings.host, settings.port),
                evt_handlers=[
                    (evt.EVT_CONN_OPEN, self._on_open),
                    (evt.EVT_CONN_CLOSE, self._on_close),
                    (evt.EVT_REQUESTED, self._on_requested),
                    (evt.EVT_PDU_RECV, self._on_pdu),
                    (evt.EVT_DIMSE_RECV, self._on_message),
                    (evt.EVT_C_STORE, self._on_store),
                    (evt.EVT_N_ACTION, self._on_action),
                    (evt.EVT_N_EVENT_REPORT, self._on_event_report),
                    (evt.EVT_PDU_SENT, self._on_sent),
                    (evt.EVT_ABORTED, self._on_aborted),
                ],
                server_class=Server,
                settings=settings,
                waiting=self._waiting,
                on_tls_failure=self._on_tls_failure,
            )
        except OSError as error:
            raise Misconfigured(
                f"cannot listen for DICOM on {settings.host}:{settings.port} ({error.strerror}); is the port taken?"
            ) from error
        self._server, self._port = cast(Server, server), int(server.server_address[1])
        threading.Thread(target=server.serve_forever, name="dicom-accept", daemon=True).start()
        log.info(
            "listener.started",
            host=settings.host,
            port=self.port,
            ae_title=settings.ae_title,
            tls=settings.tls is not None,
            peers=len(settings.peers) or "any",
        )

    def shutdown(self, grace: float = 30.0) -> None:
        """Take no new association, finish the messages in hand (at most ``grace`` seconds), abort the rest."""
        self._stopping.set()
        server = self._server
        if server is None:
            return
        server.shutdown()
        open_then = len(server.active_associations)
        now = time.monotonic()
        deadline, heard_by = now + grace, now + min(grace, _HEARING_SECONDS)
        while (still := server.active_associations) and (now := time.monotonic()) < deadline:
            for association in still:
                may_ask = association not in self._heard and now < heard_by
                if not may_ask and not self._load(association).busy:
                    _end(association)
            time.sleep(_SWEEP_SECONDS)
        for association in still:
            log.warning("listener.cut", caller=_caller(association))
            _end(association)
        for association in still:
            association.join(1)
            _cut(association)
        self._refusals.flush()
        log.info("listener.stopped", associations=open_then)

    # ---------------------------------------------------------------------- pynetdicom's events, in association threads

    def _load(self, association: Association) -> _Load:
        return self._loads.setdefault(association, _Load())

    def _on_open(self, event: evt.Event) -> None:
        guard(event.assoc, self._note_broken)

    def _on_close(self, event: evt.Event) -> None:
        if event.assoc not in self._heard:  # else the association would wait for its request until the timeout
            waiting: Any = event.assoc.dul.to_user_queue
            waiting.put(None)

    def _on_tls_failure(self, error: OSError, address: str) -> None:
        self._refusals.note(Refused("connection", f"TLS: {reason_of(error)}", address=address))

    def _on_requested(self, event: evt.Event) -> None:
        """Admit the association or reject it (PS3.8 7.1.1.7); pynetdicom goes on only with one that is not rejected."""
        association: Association = event.assoc
        request: Any = association.requestor.primitive
        caller = Caller(
            calling=request.calling_ae_title.strip(),
            called=request.called_ae_title.strip(),
            address=_address(association),
            application_context=str(request.application_context_name or ""),
        )
        with self._lock:
            refusal = self._judge(caller)
            peer = self._admission.peer(caller.calling, caller.address)
            if refusal is None and peer is not None:
                self._admitted[association] = (caller, peer)
                self._heard.add(association)
        if refusal is not None:
            association.requestor.ae_title = request.calling_ae_title
            association.acse.send_reject(refusal.result, refusal.source, refusal.diagnostic)
            answer = f"RJ {refusal.result}/{refusal.source}/{refusal.diagnostic}"
            self._refusals.note(
                Refused("association", refusal.reason, caller.calling, caller.called, caller.address, answer)
            )
            association.kill()  # returns when the answer has gone out
            self._heard.add(association)

    def _judge(self, caller: Caller) -> Refusal | None:
        server = self._server
        if server is None or self._stopping.is_set():
            return STOPPING
        admitted = (self._admitted.get(association) for association in server.active_associations)
        return self._admission.judge(caller, [entry[0].calling for entry in admitted if entry is not None])

    def _waiting(self) -> list[str]:
        """Addresses of the connections that have not asked for an association yet."""
        server = self._server
        present = server.active_associations if server is not None else []
        return [_address(association) for association in present if association not in self._heard]

    def _max_object_bytes(self, association: Association) -> int:
        entry = self._admitted.get(association)
        return (entry[1].max_object_bytes if entry is not None else 0) or self.settings.max_object_bytes

    def _on_pdu(self, event: evt.Event) -> None:
        if not isinstance(event.pdu, P_DATA_TF):
            return
        load = self._load(event.assoc)
        if not load.received:
            load.began = time.monotonic()
        load.received += event.pdu.pdu_length
        self._check_rate(event.assoc, load)
        if load.received > self._max_object_bytes(event.assoc) + OVERSHOOT and not load.refused:
            load.refused = True
            log.warning("association.object_too_large", caller=_caller(event.assoc))
            self._store(StoreRequest("", "", "", _caller(event.assoc), b"", too_large=True))  # recorded as refused
            event.assoc.abort(block=False)

    def _check_rate(self, association: Association, load: _Load) -> None:
        """Abort a sender whose object comes so slowly that it only holds a place."""
        rate = self.settings.lowest_rate
        allowed = self.settings.negotiation_timeout + load.received / rate if rate else math.inf
        if time.monotonic() - load.began > allowed and not load.refused:
            load.refused = True
            self._note_broken(association, "an object that comes too slowly")
            association.abort(block=False)

    def _note_broken(self, association: Association, how: str) -> None:
        request: Any = association.requestor.primitive
        called = request.called_ae_title.strip() if request is not None else ""
        what = f"the peer sent {how}"
        self._refusals.note(Refused("association", what, _caller(association), called, _address(association), "ABORT"))

    def _on_message(self, event: evt.Event) -> None:
        load = self._load(event.assoc)
        load.received = 0
        load.unanswered += 1
        if load.unanswered > 1:  # no asynchronous operations were negotiated (PS3.7 D.3.3.3)
            log.warning("association.out_of_turn", caller=_caller(event.assoc))
            event.assoc.abort(block=False)

    def _on_store(self, event: evt.Event) -> int | Dataset:
        """Answer one C-STORE; the dataset is taken as it was encoded."""
        request: Any = event.request
        data = request.DataSet.getvalue()
        too_large = len(data) > self._max_object_bytes(event.assoc)
        entry = self._admitted.get(event.assoc)
        too_many = entry is not None and not self._admission.may_send(entry[1])
        status = self._store(
            StoreRequest(
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=str(request.AffectedSOPInstanceUID),
                transfer_syntax_uid=str(event.context.transfer_syntax),
                caller=_caller(event.assoc),
                data=b"" if too_large else data,
                too_large=too_large,
                too_many=too_many,
                move_originator=(request.MoveOriginatorApplicationEntityTitle or "").strip(),
                move_message_id=request.MoveOriginatorMessageID or 0,
            )
        )
        if status.code == SUCCESS:
            return SUCCESS
        if status.code == OUT_OF_RESOURCES and entry is not None:
            told = f"{status.code:04X}"
            self._refusals.note(
                Refused("object", status.comment, entry[0].calling, entry[0].called, entry[0].address, told)
            )
        answer = Dataset()
        answer.Status = status.code
        answer.ErrorComment = status.comment
        return answer

    def _on_action(self, event: evt.Event) -> tuple[int | Dataset, None]:
        """Answer a storage commitment request; the report goes out on an association of its own."""
        association: Association = event.assoc
        return answer_action(event, _caller(association), _address(association), self._on_commitment)

    def _on_event_report(self, event: evt.Event) -> tuple[int, None]:
        """Answer the report of a storage commitment that we asked for."""
        caller, address = _caller(event.assoc), _address(event.assoc)
        called = event.assoc.acceptor.ae_title.strip()

        def refused(reason: str) -> None:
            self._refusals.note(Refused("report", reason, caller, called, address))

        return answer_report(event, caller, address, self._on_report, refused)

    def _on_sent(self, event: evt.Event) -> None:
        if not isinstance(event.pdu, P_DATA_TF):
            return
        load = self._load(event.assoc)
        load.unanswered = max(0, load.unanswered - 1)
        if self._stopping.is_set() and not load.busy:
            event.assoc.abort(block=False)

    def _on_aborted(self, event: evt.Event) -> None:
        log.info("association.aborted", caller=_caller(event.assoc))


def application_entity(settings: ListenerSettings) -> AE:
    """What the listener is to pynetdicom: the presentation contexts that it accepts, its limits and its names."""
    entity = AE(settings.ae_title)
    entity.supported_contexts = [
        build_context(VERIFICATION, list(NEGOTIATED_SYNTAXES[:3])),
        *(build_context(uid, list(NEGOTIATED_SYNTAXES)) for uid in IMAGE_CLASSES),
    ]
    # Whoever asks us is the user, whoever reports to us proposes to be the provider (PS3.4 J.3.3, PS3.7 D.3.3.4).
    # Roles of contexts that are assigned as a list are lost, so this one is added by itself.
    plain = list(NEGOTIATED_SYNTAXES[:2])
    entity.add_supported_context(COMMITMENT_CLASS, plain, scu_role=True, scp_role=True)
    entity.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = settings.max_pdu
    entity.maximum_associations = 1_000_000  # `admission` counts those that were admitted, not every connection
    entity.acse_timeout = settings.negotiation_timeout
    entity.dimse_timeout = entity.network_timeout = settings.idle_timeout
    return entity


def _caller(association: Association) -> str:
    return association.requestor.ae_title.strip()


def _address(association: Association) -> str:
    found = association.requestor.address_info
    return str(found.address) if found is not None else ""


def _end(association: Association) -> None:
    """Abort an established association, close the connection of one that is still being negotiated."""
    if association.is_established:
        association.abort(block=False)
    else:
        _cut(association)


def _cut(association: Association) -> None:
    wrapped = association.dul.socket
    connection = wrapped.socket if wrapped is not None else None
    if connection is not None:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # closed already
