"""The storage SCP over real sockets: pynetdicom and dcmtk as senders, and everything that senders get wrong."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context

from dermoscopy.domain import ImageHeader
from dermoscopy.errors import Misconfigured, Rejected, StorageFull
from dermoscopy.routing import Route
from dicom_listener import scp
from dicom_listener.part10 import split_part10
from dicom_listener.scp import ListenerSettings, StorageListener
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN, NEGOTIATED_SYNTAXES
from tests.peers.dcmtk import echoscu, storescu, transcode
from tests.unit.dicom_listener.samples import compressed, dataset, encoded, part10, picture

HOST = "127.0.0.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass
class Door:
    """Stands for intake: keeps what it is given, or does what ``behaviour`` says."""

    kept: list[tuple[bytes, ImageHeader, str]] = field(default_factory=list)
    refused: list[tuple[Rejected, ImageHeader | None, str, str]] = field(default_factory=list)
    behaviour: Callable[[], None] = lambda: None

    def accept(self, data: bytes, header: ImageHeader, caller: str, route: Route) -> None:
        self.behaviour()
        self.kept.append((data, header, caller))

    def reject(self, error: Rejected, header: ImageHeader | None, caller: str, digest: str) -> None:
        self.refused.append((error, header, caller, digest))


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def listen(door: Door) -> Iterator[Callable[..., StorageListener]]:
    started: list[StorageListener] = []

    def start(**settings) -> StorageListener:
        listener = StorageListener(ListenerSettings(port=0, **settings), door.accept, door.reject)
        listener.start()
        started.append(listener)
        return listener

    yield start
    for listener in started:
        listener.shutdown(grace=1)


@pytest.fixture
def listener(listen) -> StorageListener:
    return listen()


def associate(listener: StorageListener, sop_class=DERMOSCOPIC_PHOTOGRAPHY, syntaxes=None, calling="CAMERA"):
    sender = AE(calling)
    sender.acse_timeout = sender.dimse_timeout = sender.network_timeout = 20
    contexts = [build_context(sop_class, list(syntaxes or [EXPLICIT_LITTLE_ENDIAN]))]
    return sender.associate(HOST, listener.port, contexts=contexts, ae_title="DERMCDS", max_pdu=131072)


def send(listener: StorageListener, *objects: Dataset, **options) -> list[Dataset]:
    association = associate(listener, **options)
    assert association.is_established
    answers = [association.send_c_store(one) for one in objects]
    association.release()
    return answers


class RawSender:
    """A sender that says exactly the bytes it is told to; for what no honest library would send."""

    def __init__(self, listener: StorageListener, sop_class=DERMOSCOPIC_PHOTOGRAPHY) -> None:
        self.socket = socket.create_connection((HOST, listener.port), timeout=10)
        context = self.item(0x30, sop_class.encode()) + self.item(0x40, EXPLICIT_LITTLE_ENDIAN.encode())
        body = (
            struct.pack(">HH", 1, 0) + b"DERMCDS".ljust(16) + b"RAW".ljust(16) + bytes(32)
            + self.item(0x10, b"1.2.840.10008.3.1.1.1") + self.item(0x20, b"\1\0\0\0" + context)
            + self.item(0x50, self.item(0x51, struct.pack(">I", 16384)))
        )  # fmt: skip
        self.pdu(1, body)
        assert self.answer()[0] == 2

    def __del__(self) -> None:
        self.socket.close()

    @staticmethod
    def item(kind: int, value: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(value)) + value

    def pdu(self, kind: int, body: bytes) -> None:
        self.socket.sendall(struct.pack(">BBI", kind, 0, len(body)) + body)

    def value(self, control: int, data: bytes, context: int = 1) -> None:
        self.pdu(4, struct.pack(">IBB", len(data) + 2, context, control) + data)

    def command(self, sop_class: str, sop_instance: str, operation: int = 1, has_data: bool = True) -> None:
        elements = [(2, sop_class.encode()), (0x100, struct.pack("<H", operation)), (0x110, b"\7\0"),
                    (0x700, b"\0\0"), (0x800, b"\1\0" if has_data else b"\1\1"),
                    (0x1000, sop_instance.encode())]  # fmt: skip
        body = b"".join(struct.pack("<HHI", 0, e, len(v) + len(v) % 2) + v + b"\0" * (len(v) % 2) for e, v in elements)
        self.value(3, struct.pack("<HHII", 0, 0, 4, len(body)) + body)

    def answer(self) -> tuple[int, bytes]:
        head = self.exactly(6)
        return (head[0], self.exactly(int.from_bytes(head[2:6], "big"))) if head else (0, b"")

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count and (more := self.socket.recv(count - len(data))):
            data += more
        return data

    def status(self) -> int:
        kind, body = self.answer()
        assert kind == 4
        at = body.index(struct.pack("<HHI", 0, 0x900, 2))
        return int.from_bytes(body[at + 8 : at + 10], "little")


# ------------------------------------------------------------------------------------------------------------- success


def test_the_dataset_arrives_as_it_was_sent(listener, door):
    (answer,) = send(listener, dataset())
    assert answer.Status == 0
    data, header, caller = door.kept[0]
    assert data == encoded(dataset())
    assert caller == "CAMERA"
    assert header.sop_instance_uid == dataset().SOPInstanceUID
    assert not door.refused


def test_success_is_said_only_after_the_door_has_closed_behind_the_object(listener, door):
    moments = []
    door.behaviour = lambda: (time.sleep(0.3), moments.append(time.monotonic()))
    send(listener, dataset())
    assert moments[0] < time.monotonic()
    assert len(door.kept) == 1


def test_many_objects_over_one_association(listener, door):
    answers = send(listener, *[dataset(SOPInstanceUID=f"2.25.{n}") for n in range(1, 31)])
    assert [a.Status for a in answers] == [0] * 30
    assert len({header.sop_instance_uid for _, header, _ in door.kept}) == 30


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.80"])
def test_compressed_objects_stay_compressed(listener, door, syntax):
    (answer,) = send(listener, compressed(syntax), syntaxes=[syntax])
    assert answer.Status == 0
    assert door.kept[0][1].transfer_syntax_uid == syntax


def test_no_patient_id_is_accepted_here(listener, door):
    (answer,) = send(listener, dataset(PatientID=None))
    assert answer.Status == 0
    assert not door.kept[0][1].patient.known


def test_echo(listener):
    association = associate(listener, "1.2.840.10008.1.1")
    assert association.send_c_echo().Status == 0
    association.release()


def test_a_large_object_in_small_pieces(listen, door):
    listener = listen(max_pdu=4096)
    (answer,) = send(listener, dataset(picture(600, 800)))
    assert answer.Status == 0
    assert door.kept[0][0] == encoded(dataset(picture(600, 800)))


def test_associations_side_by_side(listener, door):
    def run(first: int) -> None:
        send(listener, *[dataset(SOPInstanceUID=f"2.25.{first + n}") for n in range(10)])

    threads = [threading.Thread(target=run, args=(100 * k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({header.sop_instance_uid for _, header, _ in door.kept}) == 40


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("made", "status"),
    [
        (dataset(PixelData=None), 0xC000),
        (dataset(PixelData=b"\0" * 64), 0xC000),
        (dataset(picture(1, 1)), 0xC110),
        (dataset(Rows=20_000, Columns=20_000), 0xC110),
        (dataset(NumberOfFrames=5), 0xC000),
    ],
    ids=["no pixel data", "truncated", "1 x 1", "20000 x 20000", "fewer frames than stated"],
)
def test_a_bad_object_is_refused_and_the_next_one_taken(listener, door, made, status):
    answers = send(listener, made, dataset())
    assert [a.Status for a in answers] == [status, 0]
    assert 0 < len(answers[0].ErrorComment) <= 64
    assert "4711" not in answers[0].ErrorComment
    assert len(door.kept) == len(door.refused) == 1
    error, _, caller, digest = door.refused[0]
    assert isinstance(error, Rejected)
    assert caller == "CAMERA"
    assert len(digest) == 64


@pytest.mark.parametrize(
    ("sop_class", "sop_instance"),
    [("1.2.840.10008.5.1.4.1.1.77.1.4", None), (DERMOSCOPIC_PHOTOGRAPHY, "2.25.99")],
    ids=["another class", "another instance"],
)
def test_a_command_that_announces_something_else(listener, door, sop_class, sop_instance):
    sender = RawSender(listener)
    sender.command(sop_class, sop_instance or str(dataset().SOPInstanceUID))
    sender.value(2, encoded(dataset()))
    assert sender.status() == 0xA900
    assert not door.kept


@pytest.mark.parametrize(
    "data", [b"", b"this is no DICOM at all" * 20, bytes(5000), encoded(dataset())[:200]],
    ids=["empty", "text", "zeros", "cut"],
)  # fmt: skip
def test_garbage_for_a_dataset(listener, door, data):
    sender = RawSender(listener)
    for _ in range(2):  # and the association lives
        sender.command(DERMOSCOPIC_PHOTOGRAPHY, "2.25.1")
        sender.value(2, data)
        assert sender.status() == 0xC000
    assert len(door.refused) == 2


def test_classes_and_encodings_that_are_not_taken_are_refused_at_negotiation(listener):
    for options in (
        {"sop_class": CT},
        {"syntaxes": ["1.2.840.10008.1.2.4.102"]},
        {"syntaxes": ["1.2.840.10008.1.2.2"]},
    ):
        association = associate(listener, **options)
        assert not association.accepted_contexts
        association.abort()


def test_of_many_encodings_for_one_class_our_first_preference_is_chosen(listener):
    association = associate(listener, syntaxes=list(reversed(NEGOTIATED_SYNTAXES)))
    assert association.accepted_contexts[0].transfer_syntax == [EXPLICIT_LITTLE_ENDIAN]
    association.release()


def test_an_object_over_the_limit_is_not_kept(listen, door):
    listener = listen(max_object_bytes=20_000)
    answers = send(listener, dataset(picture(200, 200)), dataset())
    assert [a.Status for a in answers] == [0xC110, 0]
    assert "larger" in str(door.refused[0][0])


def test_an_object_far_over_the_limit_is_not_even_read_to_its_end(listen, door, monkeypatch):
    monkeypatch.setattr(scp, "OVERSHOOT", 20_000)
    listener = listen(max_object_bytes=20_000)
    sender = RawSender(listener)
    sender.command(DERMOSCOPIC_PHOTOGRAPHY, "2.25.1")
    for _ in range(5):
        sender.value(0, bytes(9_000))
    assert sender.answer()[0] == 7
    assert [(str(error)[:20], caller) for error, _, caller, _ in door.refused] == [("The object is larger", "RAW")]
    assert not door.kept
    assert send(listener, dataset(picture(64, 64)))[0].Status == 0


def test_no_room_means_come_again(listener, door):
    def full() -> None:
        raise StorageFull("no room")

    door.behaviour = full
    (answer,) = send(listener, dataset())
    assert answer.Status == 0xA700
    assert not door.refused


def test_an_unexpected_failure_is_answered_and_survived(listener, door):
    def broken() -> None:
        door.behaviour = lambda: None
        raise ZeroDivisionError("patient 4711")

    door.behaviour = broken
    answers = send(listener, dataset(), dataset())
    assert [a.Status for a in answers] == [0xC211, 0]
    assert "4711" not in answers[0].ErrorComment


def test_a_refusal_that_cannot_be_recorded_is_still_answered(door):
    def broken(*_: object) -> None:
        raise OSError("audit log is away")

    listener = StorageListener(ListenerSettings(port=0), door.accept, broken)
    listener.start()
    try:
        assert [a.Status for a in send(listener, dataset(PixelData=None), dataset())] == [0xC000, 0]
    finally:
        listener.shutdown(1)


# ------------------------------------------------------------------------------------------------------ upper layer


def test_more_associations_than_allowed_are_told_to_wait(listen):
    listener = listen(max_associations=2)
    first, second = associate(listener), associate(listener)
    third = associate(listener)
    assert third.is_rejected
    assert third.acceptor.primitive.result == 2  # transient
    first.release()
    second.release()
    deadline = time.monotonic() + 5
    while listener.associations and time.monotonic() < deadline:
        time.sleep(0.01)
    again = associate(listener)
    assert again.is_established
    again.release()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\x00\x00\x00\x04abcd",
        b"\x01\x00\xff\xff\xff\xff",
        b"\x04\0\0\0\0\0",
        b"\x04\0\xff\xff\xff\xff",
        b"\0" * 64,
    ],
    ids=["HTTP", "short request", "endless request", "data first", "endless data", "zeros"],
)
def test_noise_is_aborted_and_the_listener_lives(listener, data):
    with socket.create_connection((HOST, listener.port), timeout=5) as noise:
        noise.sendall(data)
        assert noise.recv(1) in (b"\x07", b"")
    assert send(listener, dataset())[0].Status == 0


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "body", [b"\0\0\0\1", struct.pack(">IBB", 500, 1, 3) + b"ab", struct.pack(">IBB", 3, 99, 3) + b"a"]
)
def test_broken_data_values_abort_the_association(listener, body):
    sender = RawSender(listener)
    sender.pdu(4, body)
    if len(body) < 6:
        sender.socket.shutdown(socket.SHUT_WR)
    assert sender.answer()[0] in (7, 0)
    assert send(listener, dataset())[0].Status == 0


def test_a_sender_that_dies_in_the_middle_leaves_nothing(listener, door):
    sender = RawSender(listener)
    sender.command(DERMOSCOPIC_PHOTOGRAPHY, str(dataset().SOPInstanceUID))
    sender.value(0, encoded(dataset())[:2000])
    sender.socket.close()
    assert send(listener, dataset())[0].Status == 0
    assert len(door.kept) == 1
    assert not door.refused


@pytest.mark.parametrize("said", [b"", b"\x01", b"\x01\0\0\0\1\0abc"], ids=["nothing", "a byte", "half a request"])
def test_a_silent_peer_is_dropped(listen, said):
    listener = listen(negotiation_timeout=0.3)
    with socket.create_connection((HOST, listener.port), timeout=5) as silent:
        silent.sendall(said)
        assert silent.recv(1) in (b"\x07", b"")
    assert send(listener, dataset())[0].Status == 0


def test_a_peer_that_falls_silent_inside_an_object_is_dropped(listen, door):
    listener = listen(negotiation_timeout=0.3)
    sender = RawSender(listener)
    sender.command(DERMOSCOPIC_PHOTOGRAPHY, str(dataset().SOPInstanceUID))
    sender.socket.sendall(struct.pack(">BBI", 4, 0, 5000) + bytes(100))
    assert sender.answer()[0] in (7, 0)
    assert not door.kept


def test_an_idle_association_is_ended(listen):
    sender = RawSender(listen(idle_timeout=0.3))
    assert sender.answer()[0] == 7


def test_silent_peers_do_not_hold_up_others(listener):
    silent = [socket.create_connection((HOST, listener.port), timeout=5) for _ in range(3)]
    half = RawSender(listener)
    half.command(DERMOSCOPIC_PHOTOGRAPHY, "2.25.1")
    half.socket.sendall(struct.pack(">BBI", 4, 0, 5000) + bytes(100))
    started = time.monotonic()
    assert send(listener, dataset())[0].Status == 0
    assert time.monotonic() - started < 5
    for connection in silent:
        connection.close()


def test_a_second_request_before_the_first_is_answered_ends_the_association(listener, door):
    door.behaviour = lambda: time.sleep(0.5)
    sender = RawSender(listener)
    for _ in range(2):
        sender.command(DERMOSCOPIC_PHOTOGRAPHY, str(dataset().SOPInstanceUID))
        sender.value(2, encoded(dataset()))
    assert sender.answer()[0] == 7
    assert send(listener, dataset())[0].Status == 0


def test_other_services_are_not_served(listener):
    sender = RawSender(listener)
    sender.command(DERMOSCOPIC_PHOTOGRAPHY, "2.25.1", operation=0x0020, has_data=False)  # C-FIND
    assert sender.answer()[0] in (7, 0)
    assert send(listener, dataset())[0].Status == 0


def test_commands_and_data_in_many_fragments(listener, door):
    sender = RawSender(listener)
    sender.command(DERMOSCOPIC_PHOTOGRAPHY, str(dataset().SOPInstanceUID))
    data = encoded(dataset())
    for start in range(0, len(data), 1000):
        sender.value(0 if start + 1000 < len(data) else 2, data[start : start + 1000])
    assert sender.status() == 0
    assert door.kept[0][0] == data


def test_shutdown_finishes_the_object_in_hand_and_ends_the_rest(listen, door):
    listener = listen()
    entered = threading.Event()
    door.behaviour = lambda: (entered.set(), time.sleep(0.5))
    idle = RawSender(listener)
    busy = RawSender(listener)
    busy.command(DERMOSCOPIC_PHOTOGRAPHY, str(dataset().SOPInstanceUID))
    busy.value(2, encoded(dataset()))
    assert entered.wait(5)
    listener.shutdown(grace=10)
    assert busy.status() == 0
    assert len(door.kept) == 1
    assert idle.answer()[0] in (7, 0)
    assert not listener.associations
    with pytest.raises(OSError):
        socket.create_connection((HOST, listener.port), 1)


def test_shutdown_does_not_wait_longer_than_its_grace(listen, door):
    listener = listen()
    entered, leave = threading.Event(), threading.Event()
    door.behaviour = lambda: (entered.set(), leave.wait(20))
    stuck = RawSender(listener)
    stuck.command(DERMOSCOPIC_PHOTOGRAPHY, str(dataset().SOPInstanceUID))
    stuck.value(2, encoded(dataset()))
    assert entered.wait(5)
    started = time.monotonic()
    listener.shutdown(grace=0.3)
    assert time.monotonic() - started < 4
    assert stuck.answer()[0] in (7, 0)  # nothing was promised
    leave.set()


def test_a_taken_port_is_said_plainly(listener, door):
    with pytest.raises(Misconfigured, match="is the port taken"):
        StorageListener(ListenerSettings(port=listener.port), door.accept).start()


def test_processes_may_share_a_port(listen, door):
    first = listen(share_port=True)
    second = StorageListener(ListenerSettings(port=first.port, share_port=True), door.accept)
    second.start()
    try:
        for _ in range(4):
            assert send(first, dataset())[0].Status == 0
    finally:
        second.shutdown(1)


# --------------------------------------------------------------------------------------------------------------- dcmtk


@pytest.mark.peers
def test_echoscu(listener):
    assert echoscu(listener.port, called="DERMCDS").ok


@pytest.mark.peers
def test_storescu_sends_a_dermoscopic_photograph(listener, door, tmp_path: Path):
    file = tmp_path / "a.dcm"
    file.write_bytes(part10(dataset()))
    outcome = storescu(listener.port, [file], called="DERMCDS")
    assert outcome.ok, outcome.output
    assert door.kept[0][0] == split_part10(file.read_bytes())[0]
    assert door.kept[0][2] == "STORESCU"


@pytest.mark.peers
@pytest.mark.parametrize(
    ("syntax", "option"), [("jpeg-baseline", "-xy"), ("jpeg-lossless", "-xs"), ("jpeg-ls", "-xt"), ("rle", "-xr")]
)
def test_storescu_sends_what_dcmtk_compressed(listener, door, tmp_path: Path, syntax, option):
    plain, packed = tmp_path / "a.dcm", tmp_path / "b.dcm"
    plain.write_bytes(part10(dataset()))
    assert transcode(plain, packed, syntax).ok
    outcome = storescu(listener.port, [packed], called="DERMCDS", options=[option])
    assert outcome.ok, outcome.output
    assert door.kept[0][1].transfer_syntax_uid == split_part10(packed.read_bytes())[1]


@pytest.mark.peers
def test_storescu_shows_the_refusal(listener, tmp_path: Path):
    file = tmp_path / "a.dcm"
    file.write_bytes(part10(dataset(NumberOfFrames=3)))
    outcome = storescu(listener.port, [file], called="DERMCDS", options=["-v"])
    assert "CannotUnderstand" in outcome.output
