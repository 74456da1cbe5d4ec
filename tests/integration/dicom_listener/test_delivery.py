"""Results sent to a PACS by C-STORE: dcmtk, Orthanc, and a pynetdicom SCP that answers what it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO

import pytest
from pydicom import dcmread
from pynetdicom import AE, evt

from dermoscopy.domain import Artifact, ArtifactKind
from dermoscopy.errors import DestinationUnavailable, Rejected
from dicom_listener.deliver import DESTINATIONS, CStoreDestination, cstore
from dicom_listener.render import RENDERERS
from dicom_listener.syntaxes import (
    COMPREHENSIVE_SR,
    DERMOSCOPIC_PHOTOGRAPHY,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    SECONDARY_CAPTURE,
    SEGMENTATION,
    VERIFICATION,
)
from tests.peers.fault_proxy import Fault, tcp_fault_proxy
from tests.peers.processes import free_port
from tests.unit.dicom_listener.samples import compressed, dataset, part10, picture, picture_source, render_input

WHAT = render_input(picture_source())
ARTIFACTS = {kind: renderer(WHAT) for kind, renderer in RENDERERS.items()}
_LARGE = dataset(picture(600, 800))
LARGE = Artifact(ArtifactKind.SOURCE, "application/dicom", part10(_LARGE), str(_LARGE.SOPInstanceUID))


@dataclass
class ScriptedPacs:
    """An SCP that answers with ``statuses`` in turn, then 0; ``delay`` seconds before each answer."""

    port: int = field(default_factory=free_port)
    syntaxes: tuple[str, ...] = (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)
    classes: tuple[str, ...] = (
        VERIFICATION,
        SEGMENTATION,
        COMPREHENSIVE_SR,
        SECONDARY_CAPTURE,
        DERMOSCOPIC_PHOTOGRAPHY,
    )
    statuses: list[int] = field(default_factory=list)
    delay: float = 0
    received: list = field(default_factory=list)
    associations: int = 0

    def start(self) -> None:
        entity = AE("PACS")
        for uid in self.classes:
            entity.add_supported_context(uid, list(self.syntaxes))
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_ESTABLISHED, self._established)]
        self._server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        self._server.shutdown()

    def drop_associations(self) -> None:
        for association in self._server.active_associations:
            association.abort()

    def _established(self, event) -> None:
        self.associations += 1

    def _store(self, event) -> int:
        time.sleep(self.delay)
        status = self.statuses.pop(0) if self.statuses else 0
        if status == 0 or status >> 12 == 0xB:
            self.received.append((event.dataset, str(event.context.transfer_syntax)))
        return status


@pytest.fixture
def scripted() -> Iterator[ScriptedPacs]:
    pacs = ScriptedPacs()
    pacs.start()
    yield pacs
    pacs.stop()


def destination(port: int, **options) -> CStoreDestination:
    return CStoreDestination("pacs", "127.0.0.1", port, "PACS", "DERMCDS", **{"timeout": 5.0, **options})


@pytest.fixture
def to_scripted(scripted: ScriptedPacs) -> Iterator[CStoreDestination]:
    made = destination(scripted.port)
    yield made
    made.close()


@pytest.mark.parametrize("kind", list(RENDERERS))
def test_every_result_is_delivered(to_scripted, scripted, kind):
    receipt = to_scripted.deliver(ARTIFACTS[kind], WHAT.analysis)
    assert receipt.reference == ARTIFACTS[kind].uid
    sent = dcmread(BytesIO(ARTIFACTS[kind].data))
    assert scripted.received[0][0] == sent


def test_one_association_serves_many_deliveries(to_scripted, scripted):
    for artifact in ARTIFACTS.values():
        to_scripted.deliver(artifact, WHAT.analysis)
    assert (scripted.associations, len(scripted.received)) == (1, len(ARTIFACTS))


def test_threads_take_turns(to_scripted, scripted):
    threads = [
        threading.Thread(target=to_scripted.deliver, args=(ARTIFACTS[ArtifactKind.SEG], WHAT.analysis))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (scripted.associations, len(scripted.received)) == (1, 8)


def test_an_association_that_the_pacs_ended_is_replaced(to_scripted, scripted):
    to_scripted.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)
    scripted.drop_associations()
    time.sleep(0.2)
    to_scripted.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)
    assert scripted.associations == 2


def test_an_association_that_dies_between_check_and_send_is_replaced(scripted):
    with tcp_fault_proxy(scripted.port, cut_after=100_000) as proxy:
        proxy.script(Fault.TRUNCATE)
        made = destination(proxy.port)
        made.echo()  # opens the association that is then cut in the middle of the object
        made.deliver(LARGE, WHAT.analysis)
        assert proxy.done == [Fault.TRUNCATE, Fault.NONE]
        assert [one.SOPInstanceUID for one, _ in scripted.received] == [LARGE.uid]
        made.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)
        assert proxy.received == 2  # the second association is kept
        made.close()


def test_a_new_association_that_dies_is_not_tried_again_here(scripted):
    with tcp_fault_proxy(scripted.port, cut_after=100_000) as proxy:
        proxy.always(Fault.TRUNCATE)
        made = destination(proxy.port)
        with pytest.raises(DestinationUnavailable, match="no answer"):
            made.deliver(LARGE, WHAT.analysis)
        assert proxy.received == 1
        assert not scripted.received
        made.close()


def test_an_association_that_ends_while_the_object_is_prepared_is_replaced(to_scripted, scripted, monkeypatch):
    """pynetdicom then raises instead of answering."""
    to_scripted.echo()
    prepare = cstore._in_accepted_encoding

    def slow(prepared, association, name):
        if scripted.associations == 1:
            association.abort()
        return prepare(prepared, association, name)

    monkeypatch.setattr(cstore, "_in_accepted_encoding", slow)
    to_scripted.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)
    assert (scripted.associations, len(scripted.received)) == (2, 1)


def test_an_idle_association_is_released(scripted):
    made = destination(scripted.port, idle_seconds=0.3)
    made.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)
    deadline = time.monotonic() + 5
    while scripted._server.active_associations and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not scripted._server.active_associations
    made.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)
    assert len(scripted.received) == 2
    made.close()


@pytest.mark.parametrize(
    ("status", "error"),
    [(0xA700, DestinationUnavailable), (0xA702, DestinationUnavailable), (0x0110, DestinationUnavailable),
     (0xA900, Rejected), (0xC000, Rejected), (0xC123, Rejected), (0x0122, Rejected), (0x0124, Rejected)],
)  # fmt: skip
def test_what_the_pacs_answers_decides_who_tries_again(to_scripted, scripted, status, error):
    scripted.statuses = [status]
    with pytest.raises(error, match=f"{status:04X}"):
        to_scripted.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)
    to_scripted.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)
    assert scripted.associations == 1


@pytest.mark.parametrize("status", [0xB000, 0xB007, 0x0111])
def test_warnings_and_duplicates_count_as_stored(to_scripted, scripted, status):
    scripted.statuses = [status]
    assert to_scripted.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis).reference


def test_a_pacs_that_is_away():
    with pytest.raises(DestinationUnavailable, match="cannot be reached"):
        destination(free_port()).deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)


def test_a_pacs_that_does_not_answer_in_time(scripted):
    scripted.delay = 3
    made = destination(scripted.port, timeout=0.5)
    with pytest.raises(DestinationUnavailable, match="no answer"):
        made.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)
    made.close()


def test_a_pacs_that_is_silent_is_left_alone_for_a_moment(scripted):
    scripted.delay = 3
    made = destination(scripted.port, timeout=1.5)
    for reason in ("no answer to", "no answer a moment ago", "no answer a moment ago"):
        with pytest.raises(DestinationUnavailable, match=reason):
            made.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)
    assert scripted.associations == 1
    scripted.delay = 0
    made._silent_until = 0
    made.deliver(ARTIFACTS[ArtifactKind.SR], WHAT.analysis)
    made.close()


def test_a_slow_pacs_does_not_hold_every_thread(scripted, monkeypatch):
    monkeypatch.setattr(cstore, "PATIENCE_SECONDS", 0.2)
    scripted.delay = 2
    made = destination(scripted.port)
    first = threading.Thread(target=made.deliver, args=(ARTIFACTS[ArtifactKind.SR], WHAT.analysis))
    first.start()
    while not made._lock.locked():
        time.sleep(0.01)
    with pytest.raises(DestinationUnavailable, match="busy"):
        made.deliver(ARTIFACTS[ArtifactKind.SEG], WHAT.analysis)
    first.join()
    assert len(scripted.received) == 1
    made.close()


def test_a_class_that_the_pacs_does_not_take():
    pacs = ScriptedPacs(classes=(VERIFICATION, SECONDARY_CAPTURE))
    pacs.start()
    made = destination(pacs.port)
    try:
        with pytest.raises(Rejected, match="does not take"):
            made.deliver(ARTIFACTS[ArtifactKind.SEG], WHAT.analysis)
        made.deliver(ARTIFACTS[ArtifactKind.SECONDARY_CAPTURE], WHAT.analysis)
    finally:
        made.close()
        pacs.stop()


@pytest.mark.parametrize("only", [(IMPLICIT_LITTLE_ENDIAN,), (EXPLICIT_LITTLE_ENDIAN,)])
def test_a_compressed_source_is_decompressed_for_a_pacs_that_takes_none(only):
    pacs = ScriptedPacs(syntaxes=only)
    pacs.start()
    made = destination(pacs.port)
    packed = compressed("1.2.840.10008.1.2.5")
    try:
        artifact = Artifact(ArtifactKind.SOURCE, "application/dicom", part10(packed), str(packed.SOPInstanceUID))
        made.deliver(artifact, WHAT.analysis)
        assert pacs.received[0][0].PixelData == dataset().PixelData
        assert pacs.received[0][0].SOPInstanceUID == packed.SOPInstanceUID
    finally:
        made.close()
        pacs.stop()


def test_an_artifact_that_is_no_dicom(to_scripted):
    broken = replace(ARTIFACTS[ArtifactKind.SR], data=b"{}")
    with pytest.raises(Rejected, match="not a DICOM file"):
        to_scripted.deliver(broken, WHAT.analysis)


def test_echo(to_scripted, scripted):
    to_scripted.echo()
    scripted.stop()
    to_scripted.close()
    with pytest.raises(DestinationUnavailable):
        destination(scripted.port, timeout=1).echo()
    scripted.start()


def test_every_destination_names_itself_and_what_it_accepts():
    where = {"cstore": ("127.0.0.1", 1, "A", "B"), "stow": ("http://127.0.0.1:1/dicom-web",)}
    for transport, kind in DESTINATIONS.items():
        made = kind(transport, *where[transport])
        assert made.name == transport
        assert ArtifactKind.SEG in made.accepts
        assert ArtifactKind.FHIR_BUNDLE not in made.accepts


@pytest.mark.peers
def test_dcmtk_stores_every_result_byte_for_byte(dcmtk_receiver):
    made = CStoreDestination("dcmtk", "127.0.0.1", dcmtk_receiver.port, "STORESCP", "DERMCDS")
    for artifact in ARTIFACTS.values():
        made.deliver(artifact, WHAT.analysis)
    made.close()
    stored = {str(dcmread(file).SOPInstanceUID): dcmread(file) for file in dcmtk_receiver.files()}
    for artifact in ARTIFACTS.values():
        assert stored[artifact.uid] == dcmread(BytesIO(artifact.data))


@pytest.mark.peers
def test_orthanc_stores_every_result_and_takes_it_twice(pacs):
    made = CStoreDestination("orthanc", "127.0.0.1", pacs.dicom_port, pacs.aet, "DERMCDS")
    for _ in range(2):
        for artifact in ARTIFACTS.values():
            made.deliver(artifact, WHAT.analysis)
    made.close()
    assert {one.sop_instance_uid for one in pacs.instances()} == {artifact.uid for artifact in ARTIFACTS.values()}
