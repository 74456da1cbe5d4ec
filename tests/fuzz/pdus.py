"""Conversations that lie: a sound association as PDUs (PS3.8 9.3), and one to three things wrong with it."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN
from tests.fuzz.objects import bits_flipped, noise_inserted, piece_removed, sound

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
VERIFICATION, COMMITMENT = "1.2.840.10008.1.1", "1.2.840.10008.1.20.1"
LENGTHS = (0, 1, 2, 4, 6, 0xFF, 0xFFFF, 16385, 131073, 1 << 20, (1 << 20) + 1, 0x7FFFFFFF, 0xFFFFFFFF)


@dataclass(slots=True)
class Pdu:
    """One PDU. ``length`` is what is announced when that is not the length of ``body``."""

    kind: int
    body: bytes
    length: int | None = None

    def encoded(self) -> bytes:
        announced = len(self.body) if self.length is None else self.length
        return struct.pack(">BBI", self.kind & 0xFF, 0, announced & 0xFFFFFFFF) + self.body


@dataclass(slots=True)
class Talk:
    """A conversation in the making; ``ending`` is how the sender takes its leave."""

    random: random.Random
    pdus: list[Pdu]
    ending: str = "half-close"
    cut: int | None = None
    """Where in all of its bytes it breaks off."""

    def any(self, *kinds: int) -> Pdu:
        return self.random.choice([pdu for pdu in self.pdus if pdu.kind in kinds] or self.pdus)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is sent, in pieces, and how it ends: ``half-close`` (and listen), ``close``, ``reset``.

    ``waits``: whether an honest sender would hear something before it says the next piece.
    """

    seed: int
    faults: tuple[str, ...]
    pieces: tuple[bytes, ...]
    waits: tuple[bool, ...]
    ending: str


def item(kind: int, value: bytes, length: int | None = None) -> bytes:
    """An item of an A-ASSOCIATE PDU (PS3.8 9.3.2)."""
    return struct.pack(">BBH", kind, 0, (len(value) if length is None else length) & 0xFFFF) + value


def context(number: int, sop_class: str, *syntaxes: str) -> bytes:
    """A presentation context item (PS3.8 9.3.2.2)."""
    inside = item(0x30, sop_class.encode()) + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes)
    return item(0x20, bytes([number & 0xFF, 0, 0, 0]) + inside)


def request(
    contexts: bytes = b"",
    user: bytes = b"",
    *,
    calling: bytes = b"FUZZ",
    called: bytes = b"DERMCDS",
    version: int = 1,
    application: bytes = b"1.2.840.10008.3.1.1.1",
    max_length: int = 16384,
) -> Pdu:
    """An A-ASSOCIATE-RQ."""
    contexts = contexts or (
        context(1, DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)
        + context(3, VERIFICATION, IMPLICIT_LITTLE_ENDIAN)
        + context(5, COMMITMENT, IMPLICIT_LITTLE_ENDIAN)
    )
    user = user or item(0x51, struct.pack(">I", max_length)) + item(0x52, b"1.2.3.4")
    head = struct.pack(">HH", version, 0) + called.ljust(16)[:16] + calling.ljust(16)[:16] + bytes(32)
    return Pdu(ASSOCIATE_RQ, head + item(0x10, application) + contexts + item(0x50, user))


def command(elements: dict[int, bytes], *, group_length: int | None = None) -> bytes:
    """A command set in implicit VR little endian (PS3.7 6.3.1)."""
    body = b"".join(struct.pack("<HHI", 0, number, len(value)) + value for number, value in sorted(elements.items()))
    return struct.pack("<HHII", 0, 0, 4, len(body) if group_length is None else group_length) + body


def store_command(instance: str = "2.25.1", *, data: bool = True, field_: int = 1) -> dict[int, bytes]:
    """Elements of a C-STORE-RQ (PS3.7 9.3.1.1)."""
    return {
        0x0002: _even(DERMOSCOPIC_PHOTOGRAPHY), 0x0100: struct.pack("<H", field_), 0x0110: b"\7\0", 0x0700: b"\0\0",
        0x0800: b"\1\0" if data else b"\1\1", 0x1000: _even(instance),
    }  # fmt: skip


def _even(text: str) -> bytes:
    return text.encode() + b"\0" * (len(text) % 2)


def value(control: int, data: bytes, number: int = 1, length: int | None = None) -> bytes:
    """A presentation data value item (PS3.8 9.3.5.1)."""
    announced = len(data) + 2 if length is None else length
    return struct.pack(">IBB", announced & 0xFFFFFFFF, number & 0xFF, control & 0xFF) + data


def echo() -> list[Pdu]:
    """A C-ECHO."""
    told = {0x0002: _even(VERIFICATION), 0x0100: b"\x30\0", 0x0110: b"\1\0", 0x0800: b"\1\1"}
    return [Pdu(P_DATA, value(3, command(told), 3))]


def store(instance: str, chance: random.Random) -> list[Pdu]:
    """A C-STORE of a sound object in fragments."""
    data = sound(EXPLICIT_LITTLE_ENDIAN)
    size = chance.choice((600, 1500, 8000))
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return [
        Pdu(P_DATA, value(3, command(store_command(instance)))),
        *(Pdu(P_DATA, value(2 if n == len(pieces) - 1 else 0, piece)) for n, piece in enumerate(pieces)),
    ]


def talk(seed: int) -> Talk:
    """The sound conversation that ``seed`` starts from."""
    chance = random.Random(f"pdu {seed}")
    # The sound object's own UID where it is to be taken, another one where the command is to lie.
    own = sound(EXPLICIT_LITTLE_ENDIAN)
    at = own.index(b"\x08\x00\x18\x00UI") + 8
    instance = own[at : at + own[at - 2]].decode().strip("\0") if chance.random() < 0.7 else "2.25.1"
    middle = chance.choice((lambda: store(instance, chance), lambda: store(instance, chance), echo))()
    if chance.random() < 0.2:
        middle += echo()
    return Talk(chance, [request(), *middle, Pdu(RELEASE_RQ, bytes(4))])


# -------------------------------------------------------------------------------------------------------------- faults


def length_lies(t: Talk) -> None:
    pdu = t.any(*range(8))
    pdu.length = t.random.choice((*LENGTHS, len(pdu.body) - 1, len(pdu.body) + 1, t.random.getrandbits(32)))


def type_changed(t: Talk) -> None:
    t.any(*range(8)).kind = t.random.choice((*range(9), 0x10, 0x7F, 0xFF))


def body_damaged(t: Talk) -> None:
    pdu = t.any(*range(8))
    pdu.body = t.random.choice((bits_flipped, noise_inserted, piece_removed))(t.random, pdu.body)


def body_emptied(t: Talk) -> None:
    t.any(*range(8)).body = b""


def body_replaced(t: Talk) -> None:
    t.any(*range(8)).body = t.random.randbytes(t.random.choice((1, 4, 5, 6, 68, 500)))


def context_changed(t: Talk) -> None:
    pdu = t.any(P_DATA)
    pdu.body = pdu.body[:4] + bytes([t.random.choice((0, 2, 3, 5, 7, 99, 254, 255))]) + pdu.body[5:]


def control_changed(t: Talk) -> None:
    pdu = t.any(P_DATA)
    pdu.body = pdu.body[:5] + bytes([t.random.choice((0, 1, 2, 3, 4, 7, 0x80, 0xFF))]) + pdu.body[6:]


def value_length_lies(t: Talk) -> None:
    pdu = t.any(P_DATA)
    pdu.body = struct.pack(">I", t.random.choice(LENGTHS)) + pdu.body[4:]


def several_values(t: Talk) -> None:
    pdu = t.any(P_DATA)
    pdu.body += t.random.choice((pdu.body, value(0, b""), value(1, b"x", 3), b"\0\0\0\0", b"\0\0\0\1\1", b"\0"))


def never_last(t: Talk) -> None:
    for pdu in t.pdus:
        if pdu.kind == P_DATA and len(pdu.body) > 5:
            pdu.body = pdu.body[:5] + bytes([pdu.body[5] & 1]) + pdu.body[6:]


def without_data(t: Talk) -> None:
    kept = [n for n, pdu in enumerate(t.pdus) if pdu.kind == P_DATA]
    del t.pdus[(kept[0] if kept else 0) + 1 : -1]


def data_first(t: Talk) -> None:
    if len(t.pdus) > 2:
        del t.pdus[1]


def no_request(t: Talk) -> None:
    del t.pdus[0]


def limits(t: Talk) -> None:
    t.pdus[0] = request(max_length=t.random.choice((0, 1, 6, 7, 11, 12, 13, 128, 0xFFFFFFFF, 0x80000000)))


def request_changed(t: Talk) -> None:
    t.pdus[0] = t.random.choice(
        (
            lambda: request(version=t.random.choice((0, 2, 3, 0xFFFF))),
            lambda: request(application=t.random.choice((b"", b"1.2.3", b"x" * 300, b"\xff\xfe"))),
            lambda: request(calling=t.random.choice((b"", b" " * 16, b"\0" * 16, b"\xff" * 16, b"A\nB", b"\\" * 16))),
            lambda: request(called=t.random.choice((b"", b"OTHER", b"\0" * 16, b"\xe9" * 16))),
            lambda: request(b"".join(context(n, VERIFICATION, EXPLICIT_LITTLE_ENDIAN) for n in range(256))),
            lambda: request(b"".join(context(1, DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN) for _ in range(130))),
            lambda: request(context(t.random.choice((0, 2, 255)), VERIFICATION, IMPLICIT_LITTLE_ENDIAN)),
            lambda: request(context(1, t.random.choice(("", "x", "../..", "1" * 70)), IMPLICIT_LITTLE_ENDIAN)),
            lambda: request(context(1, DERMOSCOPIC_PHOTOGRAPHY)),
            lambda: request(context(1, DERMOSCOPIC_PHOTOGRAPHY, *(f"1.2.{n}" for n in range(2000)))),
            lambda: request(context(1, DERMOSCOPIC_PHOTOGRAPHY, "", "\xff", "9" * 200)),
            lambda: request(item(0x20, b"\1\0\0\0")),
            lambda: request(item(0x20, b"\1")),
            lambda: request(item(0x20, b"\1\0\0\0" + item(0x30, b"1.2", t.random.choice((0, 1, 200, 0xFFFF))))),
        )
    )()


def user_items(t: Talk) -> None:
    kinds = (0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0x5A, 0x00, 0xFF)
    made = b""
    for _ in range(t.random.randint(1, 6)):
        inside = t.random.choice(
            (
                b"", b"\0", b"\0\0\0\0", b"\1\1\0\4user\0\0", b"\2\1\xff\xffuser", struct.pack(">HH", 0, 0),
                struct.pack(">H", 25) + DERMOSCOPIC_PHOTOGRAPHY.encode() + b"\1\1",
                struct.pack(">H", 0xFFFF) + b"x", t.random.randbytes(t.random.randrange(1, 80)), b"9" * 65,
            )
        )  # fmt: skip
        made += item(t.random.choice(kinds), inside, t.random.choice((None, None, None, 0, 1, 0xFFFF)))
    t.pdus[0] = request(user=made)


def command_changed(t: Talk) -> None:
    chance = t.random
    field_ = chance.choice((0, 1, 2, 0x20, 0x21, 0x10, 0x30, 0x100, 0x110, 0x120, 0x130, 0x140, 0x150, 0x0FFF, 0x8001,
                            0x8030, 0x8110, 0xFFFF))  # fmt: skip
    told = store_command(field_=field_, data=chance.random() < 0.6)
    for _ in range(chance.randint(0, 3)):
        number = chance.choice((0x0002, 0x0003, 0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x1000, 0x1001, 0x1008))
        if chance.random() < 0.4:
            told.pop(number, None)
        else:
            told[number] = chance.choice(
                (
                    b"", b"\0", b"\1\0", b"\xff" * 64, b"1.2\0", b"../../etc/passwd", b"9" * 66, b"\\\\",
                    chance.randbytes(6), _even(COMMITMENT), _even(VERIFICATION),
                )
            )  # fmt: skip
    lie = chance.choice((None, None, 0, 1, 0xFFFFFFFF))
    replaced = Pdu(P_DATA, value(3, command(told, group_length=lie), chance.choice((1, 1, 1, 3, 5))))
    at = next((n for n, pdu in enumerate(t.pdus) if pdu.kind == P_DATA), 0)
    t.pdus[at] = replaced


def command_is_rubbish(t: Talk) -> None:
    at = next((n for n, pdu in enumerate(t.pdus) if pdu.kind == P_DATA), 0)
    t.pdus[at] = Pdu(P_DATA, value(3, t.random.randbytes(t.random.choice((0, 1, 8, 12, 100)))))


def doubled(t: Talk) -> None:
    at = t.random.randrange(len(t.pdus))
    t.pdus[at:at] = [t.pdus[at]] * t.random.choice((1, 1, 5))


def out_of_order(t: Talk) -> None:
    t.random.shuffle(t.pdus)


def strangers(t: Talk) -> None:
    kind = t.random.choice((ASSOCIATE_AC, ASSOCIATE_RJ, RELEASE_RP, RELEASE_RQ, ABORT, ASSOCIATE_RQ))
    body = request().body if kind in (ASSOCIATE_RQ, ASSOCIATE_AC) else bytes(4)
    t.pdus.insert(t.random.randrange(len(t.pdus) + 1), Pdu(kind, body))


def rubbish_between(t: Talk) -> None:
    t.pdus.insert(t.random.randrange(len(t.pdus) + 1), Pdu(t.random.getrandbits(8), t.random.randbytes(20)))


def dropped_between(t: Talk) -> None:
    del t.pdus[t.random.randrange(len(t.pdus)) :]
    t.ending = t.random.choice(("half-close", "close", "reset"))


def dropped_inside(t: Talk) -> None:
    t.cut = t.random.getrandbits(30)
    t.ending = t.random.choice(("half-close", "close", "reset"))


def many_small(t: Talk) -> None:
    """Each data value in PDUs of a few bytes."""
    split: list[Pdu] = []
    for pdu in t.pdus:
        if pdu.kind == P_DATA and len(pdu.body) > 100:
            number, control, data = pdu.body[4], pdu.body[5], pdu.body[6:]
            step = max(1, len(data) // 40)
            pieces = [data[at : at + step] for at in range(0, len(data), step)]
            ends = [control & 1] * (len(pieces) - 1) + [control]
            split += [Pdu(P_DATA, value(c, piece, number)) for c, piece in zip(ends, pieces, strict=True)]
        else:
            split.append(pdu)
    t.pdus = split


FAULTS: dict[str, Callable[[Talk], None]] = {
    f.__name__: f
    for f in (
        length_lies, type_changed, body_damaged, body_emptied, body_replaced, context_changed, control_changed,
        value_length_lies, several_values, never_last, without_data, data_first, no_request, limits, request_changed,
        user_items, command_changed, command_is_rubbish, doubled, out_of_order, strangers, rubbish_between,
        dropped_between, dropped_inside, many_small,
    )
}  # fmt: skip


def conversation(seed: int) -> Conversation:
    """The conversation of ``seed``: the same pieces each time and on each machine."""
    made = talk(seed)
    chosen = made.random.sample(sorted(FAULTS), k=made.random.choice((1, 1, 2, 3)))
    for name in chosen:
        if made.pdus:
            FAULTS[name](made)
    encoded = [pdu.encoded() for pdu in made.pdus]
    waits = [
        pdu.kind in (ASSOCIATE_RQ, RELEASE_RQ) or (pdu.kind == P_DATA and _ends_message(pdu.body)) for pdu in made.pdus
    ]
    if made.cut is not None:
        left = made.cut % (sum(map(len, encoded)) + 1)
        for at, piece in enumerate(encoded):
            encoded[at], left = piece[:left], max(0, left - len(piece))
    if made.random.random() < 0.15:
        encoded, waits = [b"".join(encoded)], [False]  # in one go, whatever the answers are
    return Conversation(seed, tuple(chosen), tuple(encoded), tuple(waits), made.ending)


def _ends_message(body: bytes) -> bool:
    control = body[5] if len(body) > 5 else 0
    return control == 2 or (control == 3 and b"\0\0\0\x08\2\0\0\0\1\1" in body)
