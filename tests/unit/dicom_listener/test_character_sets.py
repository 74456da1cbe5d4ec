"""Patient names in every encoding that a hospital may send come back from our results; a wrong one stops nothing."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread

from dermoscopy.domain import ArtifactKind, SourceObject
from dermoscopy.ports import RenderInput
from dicom_listener.header import read_header
from dicom_listener.render import RENDERERS
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN
from tests.fuzz.elements import elements_of, joined
from tests.unit.dicom_listener.samples import RECEIVED, dataset, encoded, render_input

RESULTS = (ArtifactKind.SEG, ArtifactKind.SR, ArtifactKind.SECONDARY_CAPTURE)


def sent(charset: bytes, name: bytes) -> RenderInput:
    """An analysis of an object whose name stands in exactly these bytes."""
    elements = elements_of(encoded(dataset()))
    for element in elements:
        if element.tag == 0x00080005:
            element.value = charset + b" " * (len(charset) % 2)
        elif element.tag == 0x00100010:
            element.value = name + b" " * (len(name) % 2)
    data = joined(elements, implicit=False)
    return render_input(SourceObject("instance-1", data, read_header(data, EXPLICIT_LITTLE_ENDIAN), RECEIVED))


def name_in(kind: ArtifactKind, what: RenderInput) -> str:
    made = RENDERERS[kind](what)
    assert made is not None
    read = dcmread(BytesIO(made.data))
    assert read.SpecificCharacterSet == "ISO_IR 192"
    assert (read.PatientID, read.IssuerOfPatientID) == ("4711", "HOSPITAL-A")
    return str(read.PatientName)


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize(
    ("charset", "name", "text"),
    [  # the examples of PS3.5 H.3, I.2, J.1, K.2 where there is one
        (
            b"\\ISO 2022 IR 87",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
        ),
        (
            b"ISO_IR 13\\ISO 2022 IR 87",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
        ),
        (b"\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong^Gildong=洪^吉洞"),
        (b"\\ISO 2022 IR 58", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=", "Zhang^XiaoDong=张^小东="),
        (b"ISO_IR 192", "Wang^XiaoDong=王^小东=".encode(), "Wang^XiaoDong=王^小东="),
        (b"GB18030", "Wang^XiaoDong=王^小东=".encode("gb18030"), "Wang^XiaoDong=王^小东="),
        (b"GBK", "Wang^XiaoDong=王^小东=".encode("gbk"), "Wang^XiaoDong=王^小东="),
        (b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
        (b"ISO_IR 144", "Люкceмбypг".encode("iso8859_5"), "Люкceмбypг"),
        (b"ISO_IR 127", "قباني^لنزار".encode("iso8859_6"), "قباني^لنزار"),
        (b"ISO_IR 126", "Διονυσιος".encode("iso8859_7"), "Διονυσιος"),
        (b"ISO_IR 138", "שרון^דבורה".encode("iso8859_8"), "שרון^דבורה"),
    ],
    ids=lambda value: value.decode().strip("\\") if isinstance(value, bytes) and value[:1] in b"\\IG" else "",
)
def test_names_come_back_in_utf_8(kind, charset, name, text):
    assert name_in(kind, sent(charset, name)).rstrip("=") == text.rstrip("=")


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (b"ISO_IR 100", "山田^太郎".encode()),
        (b"ISO_IR 192", b"M\xfcller^J\xfcrg"),
        (b"ISO_IR 999", b"M\xfcller"),
        (b"utf8", "Müller".encode()),
        (b"", "Müller".encode()),
        (b"\\\\\\", b"M\xfcller"),
        (b"ISO_IR 192\\ISO 2022 IR 87", b"\x1b$B;3ED\x1b(B"),
        (b"\\ISO 2022 IR 87", b"\x1b$B;3E"),
        (b"ISO_IR 192", b"\xed\xa0\x80"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_wrongly_declared_name_stops_no_result(charset, name):
    what = sent(charset, name)
    names = {name_in(kind, what) for kind in RESULTS}
    assert len(names) == 1
    assert names.pop()
