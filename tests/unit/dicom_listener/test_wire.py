from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_listener import wire
from dicom_listener.part10 import IMPLEMENTATION_CLASS_UID
from dicom_listener.status import DimseStatus
from dicom_listener.wire import Command, ProtocolError


def request_body() -> bytes:
    def item(kind: int, value: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(value)) + value

    context = item(0x30, b"1.2.840.10008.1.1") + item(0x40, b"1.2.840.10008.1.2") + item(0x40, b"1.2.840.10008.1.2.1")
    return (
        struct.pack(">HH", 1, 0)
        + b"DERMCDS".ljust(16)
        + b"CAMERA".ljust(16)
        + bytes(32)
        + item(0x10, b"1.2.840.10008.3.1.1.1")
        + item(0x20, b"\3\0\0\0" + context)
        + item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x55, b"MAKER_1"))
    )


def test_an_association_request_is_read():
    request = wire.parse_associate_request(request_body())
    assert (request.called, request.calling) == ("DERMCDS", "CAMERA")
    assert (request.max_pdu, request.implementation) == (16384, "MAKER_1")
    (context,) = request.contexts
    assert context.context_id == 3
    assert context.transfer_syntaxes == ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


def test_the_acceptance_is_what_another_implementation_reads():
    request = wire.parse_associate_request(request_body())
    encoded = wire.encode_accept(request, {3: (0, "1.2.840.10008.1.2.1")}, 131072)
    pdu = A_ASSOCIATE_AC()
    pdu.decode(encoded)
    answer: A_ASSOCIATE = pdu.to_primitive()
    assert answer.calling_ae_title == "CAMERA"
    (context,) = answer.presentation_context_definition_results_list
    assert (context.context_id, context.result, context.transfer_syntax) == (3, 0, ["1.2.840.10008.1.2.1"])
    said = {type(item).__name__: item for item in answer.user_information}
    assert said["MaximumLengthNotification"].maximum_length_received == 131072
    assert said["ImplementationClassUIDNotification"].implementation_class_uid == IMPLEMENTATION_CLASS_UID


def test_our_reading_agrees_with_another_implementation():
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(wire.pdu(wire.ASSOCIATE_RQ, request_body()))
    other = pdu.to_primitive()
    ours = wire.parse_associate_request(request_body())
    assert other.called_ae_title == ours.called
    assert other.maximum_length_received == ours.max_pdu


@pytest.mark.parametrize("length", [0, 10, 67, 70, 95])
def test_a_cut_request_is_a_protocol_error(length):
    with pytest.raises(ProtocolError):
        wire.parse_associate_request(request_body()[:length])


def test_another_protocol_version():
    with pytest.raises(ProtocolError, match="version"):
        wire.parse_associate_request(b"\0\2" + request_body()[2:])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_never_breaks_the_readers(noise):
    for reader in (wire.parse_associate_request, wire.parse_command):
        try:
            reader(noise)
        except ProtocolError:
            continue


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_request_is_read_or_refused(data):
    damaged = bytearray(request_body())
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        wire.parse_associate_request(bytes(damaged))
    except ProtocolError as error:
        assert str(error)  # noqa: PT017 - refused or read, both are right


def command(*elements: tuple[int, bytes]) -> bytes:
    return b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in elements)


def test_a_response_answers_its_request():
    asked = wire.parse_command(
        command((0x0002, b"1.2.3\0"), (0x0100, b"\1\0"), (0x0110, b"\x09\0"), (0x1000, b"1.2.4\0"))
    )
    answer = wire.encode_response(5, asked, DimseStatus(0xC000, "odd"))
    kind, length = answer[0], int.from_bytes(answer[2:6], "big")
    assert (kind, length) == (wire.P_DATA, len(answer) - 6)
    assert answer[10:12] == bytes([5, 3])
    said = wire.parse_command(answer[12:])
    assert said.number(0x0100) == 0x8001
    assert said.number(0x0120) == 9
    assert said.number(0x0900) == 0xC000
    assert said.number(0x0800) == wire.NO_DATASET
    assert (said.uid(0x0002), said.uid(0x1000)) == ("1.2.3", "1.2.4")
    assert said.elements[0x0902] == b"odd "
    assert int.from_bytes(said.elements[0x0000], "little") == len(answer) - 12 - 12


def test_a_command_without_its_numbers():
    with pytest.raises(ProtocolError, match="0110"):
        Command({}).number(0x0110)
