"""Objects that lie: a sound image, one to three things wrong with it, all of it following from one number."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO

import numpy as np
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from dicom_listener.syntaxes import (
    DEFLATED_LITTLE_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    NEGOTIATED_SYNTAXES,
)
from tests.fuzz.elements import (
    ITEM_END,
    PIXEL_DATA,
    SEQUENCE_END,
    UNDEFINED,
    Element,
    delimiter,
    elements_of,
    item,
    joined,
    nested,
)
from tests.unit.dicom_listener.samples import compressed, dataset, encoded, picture

JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
SOP_CLASS, SOP_INSTANCE, STUDY, SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
CHARACTER_SET, PATIENT_NAME, PATIENT_ID, ISSUER = 0x00080005, 0x00100010, 0x00100020, 0x00100021

PATHS = (
    "../../etc/passwd", "/etc/shadow", "..\\..\\windows", "1.2.3/../../../tmp/x", "%2e%2e%2f", "1.2.3\0.dcm", "C:\\x",
    "1.2.3;rm -rf /", "${jndi:ldap://x}", "<script>", "1..2", ".", "..", "1.2.", "01.2", "1" * 65, "9." * 3000, " ",
    "1.2.840.10008.1.1\n", "1.2.3\r\nX-Header: y", "１.２.３", "' OR 1=1 --", "con", "1.2.3?x=y#z",
)  # fmt: skip
CHARSETS = (
    "ISO_IR 100", "ISO_IR 192", "GB18030", "GBK", "ISO_IR 13", "ISO 2022 IR 87", "\\ISO 2022 IR 87",
    "ISO 2022 IR 6\\ISO 2022 IR 149", "\\ISO 2022 IR 58", "ISO_IR 13\\ISO 2022 IR 87", "ISO_IR 999", "utf8", "\\\\\\",
    "ISO_IR 192\\ISO 2022 IR 87", "\0\0", "ISO 2022 IR 159\\ISO 2022 IR 13", "latin1", "ISO_IR 101 ", "..",
)  # fmt: skip
NAMES = (
    "Yamada^Tarou=山田^太郎".encode("iso2022_jp"), "김희중".encode("euc_kr"), "王^小东".encode("gb18030"),
    "Müller^Jürg".encode(), "Müller".encode("latin-1"), b"\x1b$B", b"\x1b$)C\xfb\xf3", b"\x1b" * 40, b"\xff\xfe\xfd",
    b"=" * 500, b"^" * 500, b"\\" * 500, b"\0" * 64, "‮evil".encode(), b"\xed\xa0\x80", b"a" * 70000,
)  # fmt: skip
VRS = ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "OB", "OD", "OF", "OL", "OV", "OW", "PN",
       "SH", "SL", "SQ", "SS", "ST", "SV", "TM", "UC", "UI", "UL", "UN", "UR", "US", "UT", "UV",
       "ZZ", "XX", "AA", "??", "\0\0", "ob", "  ")  # fmt: skip
LIES = (0, 1, 2, 3, 7, 0xFF, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFD, 0xFFFFFFFE, UNDEFINED)
"""Lengths that nobody should announce."""


@dataclass(slots=True)
class Subject:
    """An object in the making: elements until it is encoded, bytes after."""

    random: random.Random
    syntax: str
    elements: list[Element]
    done: list[str] = field(default_factory=list)

    @property
    def implicit(self) -> bool:
        return self.syntax == IMPLICIT_LITTLE_ENDIAN

    def any(self) -> Element:
        return self.random.choice(self.elements)

    def at(self, tag: int) -> Element:
        """The element with this tag; a new one where an earlier fault took it away."""
        for element in self.elements:
            if element.tag == tag:
                return element
        self.elements.append(Element(tag, "LO", b""))
        return self.elements[-1]

    def add(self, element: Element) -> None:
        """Put ``element`` where its tag belongs."""
        at = next((n for n, other in enumerate(self.elements) if other.tag > element.tag), len(self.elements))
        self.elements.insert(at, element)


@dataclass(frozen=True, slots=True)
class Mutated:
    """A broken object: what was done to it, the dataset as it travels, and what a C-STORE command says of it."""

    seed: int
    faults: tuple[str, ...]
    syntax: str
    data: bytes
    sop_class_uid: str
    sop_instance_uid: str


# ------------------------------------------------------------------------------------------------------- sound objects


@cache
def sound(syntax: str) -> bytes:
    """A sound image in ``syntax`` before deflation; native ones in explicit VR."""
    small = picture(32, 40)
    if syntax in (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, DEFLATED_LITTLE_ENDIAN):
        return encoded(dataset(small))
    if syntax == JPEG_BASELINE:
        buffer = BytesIO()
        Image.fromarray(small).save(buffer, "JPEG")
        made = dataset(small, PhotometricInterpretation="YBR_FULL_422")
        made.PixelData = encapsulate([buffer.getvalue()])
        made["PixelData"].is_undefined_length = True
        return encoded(made)
    return encoded(compressed(syntax, small))


@cache
def sound_grey() -> bytes:
    """A palette-free 16-bit grey image."""
    return encoded(dataset((np.arange(24 * 32, dtype=np.uint16) * 80).reshape(24, 32)))


SYNTAXES = (
    EXPLICIT_LITTLE_ENDIAN, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, DEFLATED_LITTLE_ENDIAN,
    JPEG_BASELINE, str(RLELossless), str(JPEGLSLossless), str(JPEG2000Lossless),
)  # fmt: skip


def subject(seed: int) -> Subject:
    """The sound object that ``seed`` starts from; a thousand UIDs and fifty patients, so that they meet again."""
    chance = random.Random(f"object {seed}")
    syntax = chance.choice(SYNTAXES)
    grey = syntax in (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN) and chance.random() < 0.2
    made = Subject(chance, syntax, elements_of(sound_grey() if grey else sound(syntax)))
    instance = seed if chance.random() < 0.8 else seed % 1000
    made.at(SOP_INSTANCE).value = _padded(f"2.25.{instance + 1}".encode(), b"\0")
    made.at(PATIENT_ID).value = _padded(f"P{chance.randrange(50)}".encode(), b" ")
    return made


def _padded(value: bytes, with_: bytes) -> bytes:
    return value + with_ * (len(value) % 2)


# ------------------------------------------------------------------------------------------------ faults of the content


def length_lies(s: Subject) -> None:
    element = s.any()
    true = len(element.value)
    element.length = s.random.choice((*LIES, true + 1, true - 1, true * 2, s.random.getrandbits(32)))


def group_length_lies(s: Subject) -> None:
    group = s.any().tag >> 16
    s.add(Element(group << 16, "UL", struct.pack("<I", s.random.choice((*LIES, s.random.getrandbits(32))))))


def vr_swapped(s: Subject) -> None:
    s.any().vr = s.random.choice(VRS)


def identity_vr_swapped(s: Subject) -> None:
    tag = s.random.choice((SOP_CLASS, SOP_INSTANCE, STUDY, SERIES, PATIENT_ID, ISSUER, CHARACTER_SET))
    s.at(tag).vr = s.random.choice(VRS)


def private_elements(s: Subject) -> None:
    for _ in range(s.random.randint(1, 30)):
        tag = (s.random.randrange(0x0009, 0x7FDF, 2) << 16) | s.random.getrandbits(16)
        s.add(Element(tag, s.random.choice(VRS), s.random.randbytes(s.random.randrange(0, 40))))


def nested_sequences(s: Subject) -> None:
    depth = s.random.choice((1, 2, 10, 60, 100, 200, 300, 500, 1000))
    tag = s.random.choice((0x00091010, 0x00082218, 0x00100024, 0x00081140, 0x00400555))
    undefined = s.random.random() < 0.7
    s.add(nested(depth, s.implicit, undefined=undefined, closed=s.random.random() < 0.8, tag=tag))


def unclosed(s: Subject) -> None:
    element = s.any()
    element.length = UNDEFINED
    element.value += s.random.choice((b"", delimiter(SEQUENCE_END), delimiter(ITEM_END), item(b"")))


def truncated_at_a_tag(s: Subject) -> None:
    del s.elements[s.random.randrange(len(s.elements)) :]


def paths_for_uids(s: Subject) -> None:
    tag = s.random.choice((SOP_CLASS, SOP_INSTANCE, SOP_INSTANCE, STUDY, SERIES))
    s.at(tag).value = _padded(s.random.choice(PATHS).encode(), b"\0")


def duplicate_tags(s: Subject) -> None:
    for _ in range(s.random.randint(1, 4)):
        twin = s.any()
        value = twin.value if s.random.random() < 0.5 else s.random.randbytes(len(twin.value))
        s.elements.insert(s.random.randrange(len(s.elements) + 1), Element(twin.tag, twin.vr, value, twin.length))


def charset_changed(s: Subject) -> None:
    s.at(CHARACTER_SET).value = _padded(s.random.choice(CHARSETS).encode(), b" ")
    s.at(s.random.choice((PATIENT_NAME, PATIENT_ID, ISSUER, 0x00081030))).value = s.random.choice(NAMES)


def odd_length(s: Subject) -> None:
    s.any().value += b"\0"


def values_replaced(s: Subject) -> None:
    element = s.any()
    size = s.random.choice((0, 1, 2, 4, len(element.value), 64, 1000))
    element.value = s.random.choice((s.random.randbytes(size), bytes(size), b"\xff" * size, b"\\" * size, b"9" * size))


def numbers_replaced(s: Subject) -> None:
    for _ in range(s.random.randint(1, 3)):
        tag = s.random.choice((0x00280002, 0x00280006, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102,
                               0x00280103))  # fmt: skip
        number = s.random.choice((0, 1, 2, 3, 8, 12, 15, 16, 24, 32, 255, 20_000, 65535, s.random.getrandbits(16)))
        s.at(tag).value = struct.pack("<H", number)


def words_replaced(s: Subject) -> None:
    words = ("MONOCHROME1", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "HSV", "RGB", "ARGB", "", "rgb")
    s.at(0x00280004).value = _padded(s.random.choice(words).encode(), b" ")


def frames_and_decimals(s: Subject) -> None:
    text = s.random.choice(("0", "2", "-1", "1e9", "1.5", "nan", "inf", "1\\1", "9" * 16, "9" * 400, "abc", " 1 ", ""))
    tag, vr = s.random.choice(((0x00280008, "IS"), (0x00280030, "DS"), (0x00280034, "IS"), (0x00181164, "DS")))
    s.add(Element(tag, vr, _padded(text.encode(), b" ")))


def identity_replaced(s: Subject) -> None:
    tag = s.random.choice((PATIENT_ID, PATIENT_ID, ISSUER, 0x00080050))
    s.at(tag).value = s.random.choice((*NAMES, b"", b" ", b"A\0B", b"A\x7fB", b"\n", b"x" * 3000, b"A\\B"))


def removed(s: Subject) -> None:
    for _ in range(s.random.randint(1, 3)):
        if len(s.elements) > 1:
            s.elements.remove(s.any())


def shuffled(s: Subject) -> None:
    s.random.shuffle(s.elements)


def many_elements(s: Subject) -> None:
    first = s.random.choice((0x0009, 0x0021))
    s.elements[3:3] = [Element(first << 16 | n, "LO", b"") for n in range(s.random.choice((*[40] * 20, 2000, 21000)))]


def fragments_lie(s: Subject) -> None:
    element = s.at(PIXEL_DATA)
    value, chance = element.value, s.random
    end = delimiter(SEQUENCE_END)
    element.length = UNDEFINED
    element.value = chance.choice(
        (
            value[: len(value) - 8],
            value.replace(end, b""),
            item(b"") + end,
            end,
            b"",
            item(b"") * chance.choice((3, 1000, 20000)) + end,
            item(chance.randbytes(8)) + value[8:],
            item(b"\0" * 4) + item(value[16:], chance.choice(LIES)) + end,
            item(b"") + item(chance.randbytes(chance.randrange(1, 400))) + end,
            item(b"") + item(value[16 : chance.randrange(17, max(18, len(value)))]) + end,
            value + value,
            item(b"") + value[8:] * 2,
        )
    )


def pixels_cut(s: Subject) -> None:
    element = s.at(PIXEL_DATA)
    element.value = element.value[: s.random.randrange(0, max(1, len(element.value)))]


def stream_damaged(s: Subject) -> None:
    """Bits inside pixel data only: what a decoder gets to see."""
    element = s.at(PIXEL_DATA)
    element.value = _flipped(s.random, element.value, s.random.randint(1, 12), start=min(16, len(element.value)))


def palettes(s: Subject) -> None:
    s.at(0x00280004).value = b"PALETTE COLOR "
    s.at(0x00280002).value = b"\1\0"
    for tag in (0x00281101, 0x00281102, 0x00281103):
        s.add(Element(tag, "US", struct.pack("<HHH", *(s.random.choice((0, 1, 256, 65535)) for _ in range(3)))))
        s.add(Element(tag + 0x100, "OW", s.random.randbytes(s.random.choice((0, 2, 512, 511)))))


def colour_profile(s: Subject) -> None:
    s.add(Element(0x00282000, "OB", s.random.randbytes(s.random.choice((0, 4, 128, 600)))))


# ----------------------------------------------------------------------------------------------- faults of the encoding


def _flipped(chance: random.Random, data: bytes, count: int, start: int = 0) -> bytes:
    changed = bytearray(data)
    for _ in range(count):
        if len(changed) > start:
            changed[chance.randrange(start, len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def bits_flipped(chance: random.Random, data: bytes) -> bytes:
    return _flipped(chance, data, chance.randint(1, 20))


def header_bits_flipped(chance: random.Random, data: bytes) -> bytes:
    return _flipped(chance, data[:700], chance.randint(1, 8)) + data[700:]


def truncated_anywhere(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(0, max(1, len(data)))]


def piece_doubled(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(0, max(1, len(data)))
    return data[:start] + data[start : start + chance.randrange(1, 200)] + data[start:]


def piece_removed(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(0, max(1, len(data)))
    return data[:start] + data[start + chance.randrange(1, 200) :]


def noise_inserted(chance: random.Random, data: bytes) -> bytes:
    start = chance.randrange(0, max(1, len(data)))
    return data[:start] + chance.randbytes(chance.randrange(1, 100)) + data[start:]


def rubbish(chance: random.Random, _data: bytes) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 7, 8, 9, 132, 2000)))


def tail_added(chance: random.Random, data: bytes) -> bytes:
    return data + chance.choice((b"\0", delimiter(SEQUENCE_END), chance.randbytes(50), b"\xfe\xff\x00\xe0" * 20))


CONTENT: dict[str, Callable[[Subject], None]] = {
    f.__name__: f
    for f in (
        length_lies, group_length_lies, vr_swapped, identity_vr_swapped, private_elements, nested_sequences, unclosed,
        truncated_at_a_tag, paths_for_uids, duplicate_tags, charset_changed, odd_length, values_replaced,
        numbers_replaced, words_replaced, frames_and_decimals, identity_replaced, removed, shuffled, many_elements,
        fragments_lie, pixels_cut, stream_damaged, palettes, colour_profile,
    )
}  # fmt: skip
ENCODING: dict[str, Callable[[random.Random, bytes], bytes]] = {
    f.__name__: f
    for f in (
        bits_flipped, header_bits_flipped, truncated_anywhere, piece_doubled, piece_removed, noise_inserted, rubbish,
        tail_added,
    )
}  # fmt: skip
RELABELLED = "relabelled"


def mutated(seed: int) -> Mutated:
    """The object of ``seed``: the same bytes each time and on each machine."""
    made = subject(seed)
    chance = made.random
    data, syntax = b"", made.syntax
    chosen = chance.choices((*CONTENT, *CONTENT, *ENCODING, RELABELLED), k=chance.choice((1, 1, 1, 2, 2, 3)))
    for name in chosen:
        if name in CONTENT and made.elements:
            CONTENT[name](made)
    announced = [
        next((e.value for e in made.elements if e.tag == tag), b"").decode("latin-1").strip("\0 ")
        for tag in (SOP_CLASS, SOP_INSTANCE)
    ]
    data = joined(made.elements, made.implicit)
    for name in chosen:
        if name in ENCODING:
            data = ENCODING[name](chance, data)
    if syntax == DEFLATED_LITTLE_ENDIAN:
        engine = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = engine.compress(data) + engine.flush()
        if chance.random() < 0.3:
            data = chance.choice((bits_flipped, truncated_anywhere, tail_added))(chance, data)
    if RELABELLED in chosen:
        syntax = chance.choice(NEGOTIATED_SYNTAXES)
    return Mutated(seed, tuple(chosen), syntax, data, announced[0], announced[1])
