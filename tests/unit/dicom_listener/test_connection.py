"""What pynetdicom reads through our sockets is what was sent, in whatever pieces both sides choose."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_listener.connection import MAX_ASSOCIATE_BYTES, Connection

LIMIT = 5000


def pdu(kind: int, body: bytes) -> bytes:
    return bytes([kind, 0]) + len(body).to_bytes(4, "big") + body


def pair(patience: float = 5.0) -> tuple[Connection, socket.socket]:
    ours, theirs = socket.socketpair()
    return Connection(ours, LIMIT, patience), theirs


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = pair(0.2)
    yield ours, theirs
    ours.close()
    theirs.close()


def read_as_pynetdicom(connection: Connection) -> bytes:
    """All PDUs until the end: the header, then pieces of at most 4 KiB."""
    received = b""
    while header := connection.recv(6):
        received += header
        left = int.from_bytes(header[2:6], "big")
        while left and (piece := connection.recv(min(4096, left))):
            received += piece
            left -= len(piece)
    return received


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(1, 7), st.integers(0, LIMIT)), max_size=6), st.integers(1, 9000))
def test_every_byte_comes_once_and_in_order(pdus, chunk):
    sent = b"".join(pdu(kind, bytes(n % 251 for n in range(size))) for kind, size in pdus)
    ours, theirs = pair()

    def send() -> None:
        for start in range(0, len(sent), chunk):
            theirs.sendall(sent[start : start + chunk])
        theirs.close()

    sender = threading.Thread(target=send)
    sender.start()
    try:
        assert read_as_pynetdicom(ours) == sent
    finally:
        sender.join()
        ours.close()


@pytest.mark.parametrize("head", [b"\4\0" + (LIMIT + 1).to_bytes(4, "big"), b"\1\0\xff\xff\xff\xff"])
def test_a_pdu_longer_than_agreed_is_refused_from_its_header(ends, head):
    ours, theirs = ends
    theirs.sendall(head)
    with pytest.raises(ConnectionAbortedError, match="longer than agreed"):
        ours.recv(6)


def test_a_request_may_be_longer_than_a_data_pdu(ends):
    ours, theirs = ends
    theirs.sendall(b"\1\0" + MAX_ASSOCIATE_BYTES.to_bytes(4, "big"))
    assert len(ours.recv(6)) == 6


def test_silence_inside_a_pdu_ends_the_read(ends):
    ours, theirs = ends
    theirs.sendall(pdu(4, bytes(100))[:50])
    ours.recv(6)
    with pytest.raises(BlockingIOError):
        ours.recv(100)


def test_an_end_inside_a_pdu_gives_what_came(ends):
    ours, theirs = ends
    theirs.sendall(pdu(4, bytes(100))[:50])
    theirs.close()
    ours.recv(6)
    assert ours.recv(100) == bytes(44)
    assert ours.recv(56) == b""


def test_a_header_in_two_pieces_is_still_checked(ends):
    """Else a pause inside the header would be the way around the limit on lengths."""
    ours, theirs = ends
    head = b"\4\0" + (LIMIT + 1).to_bytes(4, "big")
    sender = threading.Timer(0.1, theirs.sendall, (head[3:],))
    theirs.sendall(head[:3])
    sender.start()
    with pytest.raises(ConnectionAbortedError, match="longer than agreed"):
        ours.recv(6)
    sender.join()


@pytest.mark.parametrize("after_the_header", [False, True], ids=["in the header", "in the body"])
def test_a_byte_now_and_then_is_no_sender_at_work(after_the_header):
    ours, theirs = socket.socketpair()
    connection = Connection(ours, LIMIT, 0.2, lowest_rate=10_000)
    data = pdu(4, bytes(1000))
    stop = threading.Event()

    def trickle() -> None:
        if after_the_header:
            theirs.sendall(data[:6])
        for byte in data[6 if after_the_header else 0 :]:
            if stop.wait(0.1):
                return
            theirs.sendall(bytes([byte]))

    sender = threading.Thread(target=trickle)
    sender.start()
    try:
        with pytest.raises((TimeoutError, BlockingIOError)):
            read_as_pynetdicom(connection)
    finally:
        stop.set()
        sender.join()
        connection.close()
        theirs.close()


def test_a_slow_line_has_the_time_that_its_length_needs():
    ours, theirs = socket.socketpair()
    connection = Connection(ours, LIMIT, 0.2, lowest_rate=1000)
    data = pdu(4, bytes(range(250)) * 4)

    def send() -> None:
        for start in range(0, len(data), 100):
            theirs.sendall(data[start : start + 100])
            time.sleep(0.05)
        theirs.close()

    sender = threading.Thread(target=send)
    sender.start()
    assert read_as_pynetdicom(connection) == data
    sender.join()
    connection.close()
