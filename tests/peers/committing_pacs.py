"""A PACS by pynetdicom that stores, is asked for storage commitment, and reports what the test tells it to."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, build_role, evt

from tests.peers.processes import LOOPBACK, free_port

COMMITMENT = "1.2.840.10008.1.20.1"
INSTANCE = "1.2.840.10008.1.20.1.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


@dataclass
class Asked:
    """One N-ACTION: its transaction, the objects, and the association that it came on."""

    transaction_uid: str
    pairs: list[tuple[str, str]]
    association: Any


@dataclass
class CommittingPacs:
    """``classes`` are the storage classes that it takes; without ``commits`` it knows no storage commitment."""

    classes: Sequence[str]
    commits: bool = True
    aet: str = "PACS"
    port: int = field(default_factory=free_port)
    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """Per SOP class: answers to the next C-STOREs, then 0."""
    delay: float = 0
    """Seconds before the answer to a C-STORE."""
    action_status: int = 0
    report_to: int = 0
    """Port to which everything is reported as committed by itself; 0 waits for `report`."""
    stored: list[Dataset] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    _server: Any = None

    def start(self) -> None:
        entity = AE(self.aet)
        for uid in self.classes:
            entity.add_supported_context(uid, [EXPLICIT, IMPLICIT])
        entity.add_supported_context("1.2.840.10008.1.1")
        if self.commits:
            entity.add_supported_context(COMMITMENT)
        handlers: list[Any] = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._action)]
        self._server = entity.start_server(
            (LOOPBACK, self.port), block=False, evt_handlers=handlers, ssl_context=self.server_tls
        )

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def uids(self) -> list[str]:
        """SOP Instance UIDs in the order in which they came."""
        return [str(one.SOPInstanceUID) for one in self.stored]

    def report(
        self,
        port: int,
        asked: Asked,
        *,
        failed: Iterable[tuple[str, str, int]] = (),
        committed: Sequence[tuple[str, str]] | None = None,
        transaction_uid: str = "",
        aet: str = "",
        event: int = 0,
    ) -> int | None:
        """N-EVENT-REPORT on an association of its own; the status that it was answered with."""
        entity = AE(aet or self.aet)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
        association = entity.associate(
            LOOPBACK,
            port,
            contexts=[build_context(COMMITMENT, [EXPLICIT, IMPLICIT])],
            ae_title="DERMCDS",
            ext_neg=[build_role(COMMITMENT, scp_role=True)],
            tls_args=(self.client_tls, LOOPBACK) if self.client_tls else None,
        )
        if not association.is_established:
            raise ConnectionError("no association to report on")
        told, kind = self.information(asked, failed, committed, transaction_uid)
        answer, _ = association.send_n_event_report(told, event or kind, COMMITMENT, INSTANCE)
        association.release()
        return int(answer.Status) if "Status" in answer else None

    def report_on_same(self, asked: Asked) -> int | None:
        """Report on the association of the request, while it is open."""
        told, kind = self.information(asked)
        # pynetdicom lets an acceptor send only in a role that was negotiated; its context says otherwise by default
        for context in asked.association.accepted_contexts:
            context._as_scu = context._as_scp = True
        answer, _ = asked.association.send_n_event_report(told, kind, COMMITMENT, INSTANCE)
        return int(answer.Status) if "Status" in answer else None

    @staticmethod
    def information(
        asked: Asked,
        failed: Iterable[tuple[str, str, int]] = (),
        committed: Sequence[tuple[str, str]] | None = None,
        transaction_uid: str = "",
    ) -> tuple[Dataset, int]:
        """Event information and event type (PS3.4 Table J.3-2); everything else that was asked is committed."""
        bad = list(failed)
        named = {(sop_class, uid) for sop_class, uid, _ in bad}
        good = committed if committed is not None else [pair for pair in asked.pairs if pair not in named]
        told = Dataset()
        told.TransactionUID = transaction_uid or asked.transaction_uid
        if good:
            told.ReferencedSOPSequence = [_item(*pair) for pair in good]
        if bad:
            told.FailedSOPSequence = [_item(*one) for one in bad]
        return told, 2 if bad else 1

    def _store(self, event: Any) -> int:
        time.sleep(self.delay)
        dataset = event.dataset
        waiting = self.statuses.get(str(dataset.SOPClassUID))
        status = waiting.pop(0) if waiting else 0
        if status == 0:
            self.stored.append(dataset)
        return status

    def _action(self, event: Any) -> tuple[int, None]:
        told = event.action_information
        pairs = [(str(i.ReferencedSOPClassUID), str(i.ReferencedSOPInstanceUID)) for i in told.ReferencedSOPSequence]
        asked = Asked(str(told.TransactionUID), pairs, event.assoc)
        self.asked.append(asked)
        if self.report_to and self.action_status == 0:
            threading.Timer(0.1, self.report, [self.report_to, asked]).start()
        return self.action_status, None


def _item(sop_class: str, sop_instance: str, reason: int = 0) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    if reason:
        item.FailureReason = reason
    return item
