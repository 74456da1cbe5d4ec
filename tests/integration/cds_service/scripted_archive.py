"""A PACS that answers C-FIND, C-MOVE and C-GET with what a test tells it to, lies included."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt

from dicom_listener.query import STUDY_ROOT_FIND
from dicom_listener.retrieve import STUDY_ROOT_GET, STUDY_ROOT_MOVE
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN
from tests.peers.processes import free_port


@dataclass
class ScriptedArchive:
    """``studies`` are the datasets that it says match, ``sends`` is what it sends, whatever was asked for."""

    listener: int
    port: int = field(default_factory=free_port)
    studies: list[Dataset] = field(default_factory=list)
    sends: list[Dataset] = field(default_factory=list)
    originator: str | None = "DERMCDS"
    """Who it says asked for what it sends; pynetdicom by itself names the sender, which is wrong."""
    counts: bool = False
    """Leave the sub-operations to pynetdicom, which counts those that fail, and names the wrong originator."""
    find_status: int | None = None
    """Status in place of every answer."""
    move_status: int | None = None
    asked: list[Dataset] = field(default_factory=list)

    def forget(self) -> None:
        """As it was at the start."""
        self.studies, self.sends, self.asked = [], [], []
        self.originator, self.counts = "DERMCDS", False
        self.find_status = self.move_status = None

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Its entry in ``pacs``."""
        there = {"name": "pacs", "host": "127.0.0.1", "port": self.port, "ae_title": "PACS", "query": True}
        return {**there, **changes}

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        wanted = event.identifier
        self.asked.append(wanted)
        if self.find_status is not None:
            yield self.find_status, None
            return
        level = wanted.QueryRetrieveLevel
        for one in self.studies:
            if level != "STUDY" and one.StudyInstanceUID != wanted.StudyInstanceUID:
                continue
            if event.is_cancelled:
                yield 0xFE00, None
                return
            answer = Dataset()
            answer.QueryRetrieveLevel = level
            for element in wanted:
                if element.keyword in one:
                    setattr(answer, element.keyword, one[element.keyword].value)
            yield 0xFF00, answer

    def move(self, event: evt.Event) -> Iterator[Any]:
        self.asked.append(event.identifier)
        if self.move_status is not None:
            yield "127.0.0.1", self.listener, {"contexts": _storage().requested_contexts}
            yield 1
            yield self.move_status, _failed(self.sends)
            return
        if self.counts:
            yield "127.0.0.1", self.listener, {"contexts": _storage().requested_contexts}
            yield len(self.sends)
            for one in self.sends:
                yield 0xFF00, one
            return
        yield "127.0.0.1", self.listener, {"contexts": _storage().requested_contexts}
        association = _storage().associate("127.0.0.1", self.listener, ae_title="DERMCDS")
        for one in self.sends:
            number = event.request.MessageID if self.originator else None
            association.send_c_store(one, originator_aet=self.originator, originator_id=number)
        association.release()
        yield 0

    def get(self, event: evt.Event) -> Iterator[Any]:
        yield len(self.sends)
        for one in self.sends:
            yield 0xFF00, one


def _storage() -> AE:
    entity = AE("PACS")
    entity.add_requested_context(DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN)
    return entity


def _failed(sends: list[Dataset]) -> Dataset:
    answer = Dataset()
    answer.FailedSOPInstanceUIDList = [one.SOPInstanceUID for one in sends]
    return answer


@contextmanager
def scripted_archive(listener: int, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedArchive]:
    """One that runs, and whose C-MOVE goes to this port."""
    made = ScriptedArchive(listener)
    entity = AE("PACS")
    for model in (STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET):
        entity.add_supported_context(model)
    entity.add_supported_context(DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN, scu_role=False, scp_role=True)
    handlers = [(evt.EVT_C_FIND, made.find), (evt.EVT_C_MOVE, made.move), (evt.EVT_C_GET, made.get)]
    server = entity.start_server(("127.0.0.1", made.port), block=False, ssl_context=tls, evt_handlers=handlers)
    try:
        yield made
    finally:
        server.shutdown()
