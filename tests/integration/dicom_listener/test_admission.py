"""Associations that are refused, limits of one sender, and the end of a listener, over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_network

import pytest

from dermoscopy.errors import StorageFull
from dicom_listener import scp, server, turned_away
from dicom_listener.admission import Peer
from dicom_listener.refusals import Refused
from dicom_listener.scp import ListenerSettings, StorageListener
from tests.integration.dicom_listener.test_receiving import HOST, Door, associate, send
from tests.peers.dcmtk import echoscu
from tests.unit.dicom_listener.samples import dataset, picture


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def refused() -> list[Refused]:
    return []


@pytest.fixture
def listen(door, refused) -> Iterator[Callable[..., StorageListener]]:
    started: list[StorageListener] = []

    def start(ready=None, **settings) -> StorageListener:
        listener = StorageListener(
            ListenerSettings(port=0, **settings), door.accept, door.reject, on_refused=refused.append, ready=ready
        )
        listener.start()
        started.append(listener)
        return listener

    yield start
    for listener in started:
        listener.shutdown(grace=1)


def rejection(association) -> tuple[int, int, int]:
    assert association.is_rejected
    answer = association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def until_free(listener: StorageListener) -> None:
    deadline = time.monotonic() + 10
    while listener.associations and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_caller_that_is_not_on_the_list(listen, refused):
    listener = listen(peers=(Peer("CAMERA"),))
    assert rejection(associate(listener, calling="STRANGER")) == (1, 1, 3)
    assert send(listener, dataset())[0].Status == 0
    (told,) = refused
    assert (told.kind, told.caller, told.called, told.address) == ("association", "STRANGER", "DERMCDS", HOST)
    assert told.answer == "RJ 1/1/3"


def test_a_listed_caller_from_elsewhere(listen, refused):
    listener = listen(peers=(Peer("CAMERA", (ip_network("192.0.2.0/24"),)),))
    assert rejection(associate(listener)) == (1, 1, 3)
    assert "address" in refused[0].reason


def test_another_called_title(listen):
    assert rejection(associate(listen(ae_title="SOMEBODY"))) == (1, 1, 7)
    assert associate(listen(ae_title="SOMEBODY", require_called_ae=False)).is_established


def test_one_sender_may_not_take_every_place(listen, refused):
    listener = listen(peers=(Peer("CAMERA", max_associations=1), Peer("OTHER")))
    first = associate(listener)
    assert rejection(associate(listener)) == (2, 3, 2)
    other = associate(listener, calling="OTHER")
    assert other.is_established
    first.release()
    other.release()
    until_free(listener)
    again = associate(listener)
    assert again.is_established
    again.release()


def test_a_sender_that_is_too_fast_is_told_to_wait(listen, door, refused):
    listener = listen(peers=(Peer("CAMERA", objects_per_minute=3),))
    answers = send(listener, *[dataset(SOPInstanceUID=f"2.25.{n}") for n in range(1, 6)])
    assert [a.Status for a in answers] == [0, 0, 0, 0xA700, 0xA700]
    assert "Too many objects" in answers[-1].ErrorComment
    assert len(door.kept) == 3
    assert [(told.kind, told.answer) for told in refused] == [("object", "A700")]


def test_a_smaller_limit_on_the_objects_of_one_sender(listen, door):
    listener = listen(peers=(Peer("CAMERA", max_object_bytes=20_000), Peer("OTHER")))
    large = dataset(picture(200, 200))
    assert send(listener, large)[0].Status == 0xC110
    assert send(listener, large, calling="OTHER")[0].Status == 0
    assert len(door.kept) == 1


def test_no_room_is_said_before_anything_is_read(listen, door, refused):
    full = [StorageFull("no room")]

    def ready() -> None:
        if full:
            raise full[0]

    listener = listen(ready=ready)
    assert send(listener, dataset())[0].Status == 0xA700
    assert not door.kept
    assert refused[0].answer == "A700"
    full.clear()
    assert send(listener, dataset())[0].Status == 0


def test_connections_that_say_nothing_take_no_place_from_those_that_do(listen, monkeypatch):
    monkeypatch.setattr(server, "MAX_WAITING_PER_ADDRESS", 5)
    monkeypatch.setattr(turned_away, "SECONDS", 0.2)
    listener = listen(max_associations=2)
    silent = [socket.create_connection((HOST, listener.port), timeout=10) for _ in range(4)]
    association = associate(listener)
    assert association.is_established
    silent.append(socket.create_connection((HOST, listener.port), timeout=10))
    while listener.associations < 6:  # its thread is on its way
        time.sleep(0.01)
    silent.append(socket.create_connection((HOST, listener.port), timeout=10))
    assert silent[-1].recv(1) == b""  # one too many from this address
    association.release()
    for peer in silent:
        peer.close()
    until_free(listener)
    assert send(listener, dataset())[0].Status == 0


def test_who_comes_while_the_service_stops_is_told_to_come_again(listen, door, monkeypatch):
    monkeypatch.setattr(scp, "_HEARING_SECONDS", 5.0)
    listener = listen()
    entered, leave = threading.Event(), threading.Event()
    door.behaviour = lambda: (entered.set(), leave.wait(20))
    outcome: list[int] = []
    sending = threading.Thread(target=lambda: outcome.extend(a.Status for a in send(listener, dataset())))
    sending.start()
    assert entered.wait(10)
    early = socket.create_connection((HOST, listener.port), timeout=10)  # accepted, has not asked yet
    ending = threading.Thread(target=listener.shutdown, args=(10,))
    ending.start()
    while not listener._stopping.is_set():
        time.sleep(0.01)
    context = b"\x30\0\0\x11" + b"1.2.840.10008.1.1" + b"\x40\0\0\x13" + b"1.2.840.10008.1.2.1"
    body = (
        b"\0\1\0\0" + b"DERMCDS".ljust(16) + b"LATE".ljust(16) + bytes(32) + b"\x10\0\0\x15" + b"1.2.840.10008.3.1.1.1"
        + b"\x20\0" + (len(context) + 4).to_bytes(2, "big") + b"\1\0\0\0" + context
        + b"\x50\0\0\x08\x51\0\0\x04\0\0\x40\0"
    )  # fmt: skip
    early.sendall(b"\1\0" + len(body).to_bytes(4, "big") + body)
    assert early.recv(10) == b"\3\0\0\0\0\4\0\2\3\1"
    early.close()
    leave.set()
    ending.join(20)
    sending.join(20)
    assert outcome == [0]
    assert len(door.kept) == 1


@pytest.mark.peers
def test_echoscu_is_told_why(listen):
    listener = listen(peers=(Peer("CAMERA"),))
    assert echoscu(listener.port, called="DERMCDS", calling="CAMERA").ok
    assert "Calling AE Title Not Recognized" in echoscu(listener.port, called="DERMCDS", calling="NOBODY").output
    assert "Called AE Title Not Recognized" in echoscu(listener.port, called="OTHER", calling="CAMERA").output
