"""Peers that break the protocol, trickle, or come by the thousand: each has its answer, good senders get through."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_listener import server, turned_away
from dicom_listener.refusals import Refused
from dicom_listener.scp import ListenerSettings, StorageListener
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN
from tests.fuzz.outside import ListenerProcess, Wire, good_object, listening, send_object
from tests.fuzz.pdus import (
    ABORT,
    ASSOCIATE_AC,
    ASSOCIATE_RJ,
    P_DATA,
    RELEASE_RQ,
    Pdu,
    command,
    context,
    item,
    request,
    store_command,
    value,
)
from tests.integration.dicom_listener.test_receiving import Door, RawSender, send
from tests.unit.dicom_listener.samples import dataset, encoded

# A thread of pynetdicom's that ends with a traceback is a fault, here as in production.
pytestmark = pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
LOCAL_LIMIT = bytes((0, 2, 3, 2))
VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def refused() -> list[Refused]:
    return []


@pytest.fixture
def listen(door, refused) -> Iterator[Callable[..., StorageListener]]:
    started: list[StorageListener] = []

    def start(**settings) -> StorageListener:
        listener = StorageListener(
            ListenerSettings(port=0, **settings), door.accept, door.reject, on_refused=refused.append
        )
        listener.start()
        started.append(listener)
        return listener

    yield start
    for listener in started:
        listener.shutdown(grace=1)


def until_free(listener: StorageListener, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while listener.associations and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not listener.associations


# ------------------------------------------------------------------------------------------ the protocol is not kept to


@pytest.mark.parametrize(
    "changes",
    [{0x1000: None}, {0x0002: None}, {0x0110: None}, {0x0100: b"\1\x80"}],
    ids=["no instance", "no class", "no message id", "an answer"],
)
def test_a_request_that_lacks_something_is_aborted_and_not_left_waiting(listen, door, refused, changes):
    listener = listen()
    sender = RawSender(listener)
    told = {**store_command(), **changes}
    sender.value(3, command({number: data for number, data in told.items() if data is not None}))
    sender.value(2, encoded(dataset()))
    assert sender.answer()[0] in (ABORT, 0)
    until_free(listener)
    assert not door.kept
    assert [told.answer for told in refused] == ["ABORT"]
    assert send(listener, dataset())[0].Status == 0


@pytest.mark.parametrize("operation", [0x0030, 0x0140, 0x0130, 0x0110], ids=["echo", "create", "action", "get"])
def test_another_operation_on_an_image_class_does_not_reach_the_door(listen, door, operation):
    listener = listen()
    sender = RawSender(listener)
    told = {**store_command(data=False, field_=operation), 0x0003: store_command()[0x0002], 0x1008: b"\1\0"}
    sender.value(3, command(told))
    assert sender.answer()[0] == ABORT
    assert not door.kept
    assert not door.refused


@pytest.mark.parametrize(
    "asked",
    [
        request(context(1, DERMOSCOPIC_PHOTOGRAPHY)),
        request(context(1, "1" * 70, EXPLICIT_LITTLE_ENDIAN)),
        request(item(0x20, b"\1\0\0\0")),
        request(context(0, VERIFICATION, EXPLICIT_LITTLE_ENDIAN)),
        request(user=item(0x58, b"\1")),
        request(application=b"\xff\xfe"),
        request(version=0),
    ],
    ids=["no syntax", "long class", "no class", "even number", "half an identity", "context name", "version 0"],
)
def test_a_request_that_cannot_be_negotiated_is_ended_at_once(listen, asked):
    listener = listen(negotiation_timeout=60)
    wire = Wire(listener.port)
    wire.send(asked.encoded())
    wire.socket.shutdown(socket.SHUT_WR)
    while wire.pdu() is not None:
        pass
    wire.close()
    until_free(listener)
    assert send(listener, dataset())[0].Status == 0


def test_a_peer_that_is_gone_before_its_answer_leaves_nothing(listen):
    listener = listen()
    for _ in range(20):
        wire = Wire(listener.port)
        wire.send(request().encoded() + Pdu(ABORT, bytes(4)).encoded())
        wire.close(reset=True)
    until_free(listener)
    assert send(listener, dataset())[0].Status == 0


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_drop_at_every_boundary_and_inside_every_pdu_keeps_nothing(listen, door, reset):
    listener = listen(max_associations=1000)
    data, uid = encoded(dataset()), str(dataset().SOPInstanceUID)
    pieces = [data[at : at + 3000] for at in range(0, len(data), 3000)]
    conversation = [
        request(),
        Pdu(P_DATA, value(3, command(store_command(uid)))),
        *(Pdu(P_DATA, value(2 if n == len(pieces) - 1 else 0, piece)) for n, piece in enumerate(pieces)),
    ]
    whole = [pdu.encoded() for pdu in conversation]
    ends = [sum(map(len, whole[:n])) for n in range(len(whole))]
    cuts = sorted({cut for end, pdu in zip(ends, whole, strict=True) for cut in (end, end + 3, end + len(pdu) // 2)})
    stream = b"".join(whole)
    for cut in cuts:
        wire = Wire(listener.port)
        wire.send(stream[: min(cut, len(whole[0]))])
        if cut > len(whole[0]):
            answer = wire.pdu()
            assert answer is not None and answer.kind == ASSOCIATE_AC
            wire.send(stream[len(whole[0]) : cut])
        wire.close(reset=reset)
    until_free(listener)
    assert not door.kept
    assert not door.refused
    assert send(listener, dataset())[0].Status == 0


# ------------------------------------------------------------------------------------------------------------- too slow


def test_an_object_that_trickles_is_cut_off(listen, door, refused):
    listener = listen(negotiation_timeout=0.4, lowest_rate=100_000)
    sender = RawSender(listener)
    sender.command(DERMOSCOPIC_PHOTOGRAPHY, "2.25.1")
    sender.socket.settimeout(0.05)
    heard = b""
    for _ in range(100):
        try:
            sender.value(0, b"x")
            heard = sender.socket.recv(10)
            break
        except TimeoutError:
            continue
        except OSError:
            break
    assert heard[:1] in (bytes([ABORT]), b"")
    until_free(listener)
    assert "too slowly" in refused[0].reason
    assert not door.kept


def test_trickling_senders_do_not_hold_every_place_for_ever(listen):
    listener = listen(negotiation_timeout=0.5, lowest_rate=50_000, max_associations=3)
    stop = threading.Event()

    def trickle(sender: RawSender) -> None:
        sender.command(DERMOSCOPIC_PHOTOGRAPHY, "2.25.1")
        sender.socket.sendall(struct.pack(">BBI", P_DATA, 0, 5000))
        while not stop.wait(0.05):
            try:
                sender.socket.sendall(b"\0")
            except OSError:
                return

    threads = [threading.Thread(target=trickle, args=(RawSender(listener),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until_free(listener)
        assert send(listener, dataset())[0].Status == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# ------------------------------------------------------------------------------------------------------------- too many


def test_one_too_many_is_told_to_come_again(listen, monkeypatch):
    monkeypatch.setattr(server, "MAX_WAITING_PER_ADDRESS", 1)
    listener = listen()
    silent = Wire(listener.port)
    while not listener.associations:  # its thread is on its way
        time.sleep(0.01)
    turned = Wire(listener.port)
    turned.send(request().encoded())
    answer = turned.pdu()
    assert answer is not None
    assert (answer.kind, answer.body) == (ASSOCIATE_RJ, LOCAL_LIMIT)
    turned.close()
    silent.close()
    until_free(listener)
    assert send(listener, dataset())[0].Status == 0


def test_who_is_turned_away_and_says_nothing_is_closed(listen, monkeypatch):
    monkeypatch.setattr(server, "MAX_WAITING", 0)
    monkeypatch.setattr(turned_away, "SECONDS", 0.2)
    listener = listen()
    quiet = Wire(listener.port)
    assert quiet.pdu() is None
    quiet.close()


def test_more_than_can_be_told_are_closed(listen, monkeypatch):
    monkeypatch.setattr(server, "MAX_WAITING", 0)
    monkeypatch.setattr(turned_away, "MAX_KEPT", 2)
    listener = listen()
    wires = [Wire(listener.port) for _ in range(4)]
    ends = []
    for wire in reversed(wires):
        wire.send(request().encoded())
        answer = wire.pdu()
        ends.append(answer.kind if answer else 0)
        wire.close()
    assert sorted(ends) == [0, 0, ASSOCIATE_RJ, ASSOCIATE_RJ]


def test_descriptors_run_out_politely(listen, monkeypatch):
    monkeypatch.setattr(server, "_SELECTABLE", 0)
    listener = listen()
    wire = Wire(listener.port)
    wire.send(request().encoded())
    answer = wire.pdu()
    assert answer is not None and answer.body == LOCAL_LIMIT
    wire.close()


def _ask(listener: ListenerProcess, heard: list[str], lock: threading.Lock, together: threading.Barrier) -> None:
    together.wait(60)
    outcome = "nothing"
    try:
        wire = Wire(listener.port)
        wire.send(request(calling=b"FLOOD").encoded())
        answer = wire.pdu()
        if answer is not None:
            outcome = "accepted" if answer.kind == ASSOCIATE_AC else f"{answer.kind} {answer.body.hex()}"
        time.sleep(1)
        wire.send(Pdu(RELEASE_RQ, bytes(4)).encoded())
        wire.close()
    except TimeoutError:
        outcome = "hang"
    except OSError as error:
        outcome = type(error).__name__
    with lock:
        heard.append(outcome)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_thousand_at_once(tmp_path: Path):
    with listening(tmp_path / "listener") as listener:
        heard: list[str] = []
        lock, together = threading.Lock(), threading.Barrier(1000)
        threads = [threading.Thread(target=_ask, args=(listener, heard, lock, together)) for _ in range(1000)]
        threading.stack_size(256 * 1024)
        for thread in threads:
            thread.start()
        threading.stack_size(0)
        before = listener.state()
        good, attempts = "", 0
        data, uid = good_object(1)
        while good != "0000" and attempts < 600:  # an honest sender tries again, as it is told to
            try:
                good = send_object(listener.port, data, EXPLICIT_LITTLE_ENDIAN, DERMOSCOPIC_PHOTOGRAPHY, uid)
            except OSError as error:
                good = type(error).__name__
            attempts += 1
            time.sleep(0.1)
        for thread in threads:
            thread.join(120)
        assert good == "0000"
        assert len(heard) == 1000
        assert heard.count("accepted") >= 32
        refused = heard.count(f"{ASSOCIATE_RJ} {LOCAL_LIMIT.hex()}")
        assert refused > 0
        # Beyond those that can be told, a connection is closed; none is left hanging.
        assert set(heard) <= {
            "accepted",
            f"3 {LOCAL_LIMIT.hex()}",
            "nothing",
            "ConnectionResetError",
            "BrokenPipeError",
        }
        deadline = time.monotonic() + 30
        while (state := listener.state())["associations"] and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not state["associations"]
        assert state["threads"] <= before["threads"] + 4
        assert state["rss"] - before["rss"] < 300 * 1024 * 1024
        assert listener.stop()["wrong"] == listener.errors() == []
