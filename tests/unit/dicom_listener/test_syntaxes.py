"""Each transfer syntax that is negotiated is really decoded here."""

from __future__ import annotations

import base64
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000, JPEGLSNearLossless

from dermoscopy.domain import SourceObject
from dicom_listener.decode import decode
from dicom_listener.header import read_header
from dicom_listener.part10 import split_part10
from dicom_listener.syntaxes import (
    DEFLATED_LITTLE_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMAGE_CLASSES,
    IMPLICIT_LITTLE_ENDIAN,
    JPEG_EXTENDED,
    NEGOTIATED_SYNTAXES,
    TRANSFER_SYNTAXES,
)
from tests.peers.processes import program
from tests.unit.dicom_listener.samples import RECEIVED, as_file, compressed, dataset, encoded, part10, picture

HTJ2K_16_X_16 = base64.b64decode(
    "/0//UQAvQAAAAAAQAAAAEAAAAAAAAAAAAAAAEAAAABAAAAAAAAAAAAADBwEBBwEBBwEB/1AACAACAAAAA/9SAAwAAgABAQUEBEAB"
    "/1wAEyBQWFhYWFhYWFhYWFhYUFBQ/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAYwAAf+TwBKA7wAHdADAEoDIAQd0"
    "AMASAP4AYwAAAADACWAEoOQAB3QA8gCHdADACWAEoJ0BB3QA0wGHdADACWAEoDYBh3QANQGHdADACWAE0AIwAOUwUwA4/gADVAAA"
    "AwDACaAE0AJATfMAgnQA5+cAQ1QA/gADAMAJoATAGs0BAnQAmZkAQ1QAwAqIAVMAKkADBP0S8TllAADOmQHJ7VkWAOv/f0DFT3G2"
    "AMAKqAFYgFFK+UCnANbmAADe8Tj+ABCB7VkXAMAKiAFUiqIoqnCCdQDLZVn+wBCB7LYAwBXwBbMAVgAIEIQEu0Ny42s23G5QDAAA"
    "AAhAoCALFJgJObZILXt1t1i26KQ/KnABAMAAoLCxlQWDodoAwBbMAW/AFQBVQAwAXgDwAoAXA/Oup/nXU/zrqeUttx8AAAAAEZgj"
    "MEdgjsH8AAAEe2AAFuu666m666m/fvwzAUfmUDSliScAwBWwBaAAAAAAAOfKenpwAngAYQghhBD+/YAAe/YAAey6AP/Z"
)
"""``picture(16, 16)``, reversible, written by OpenJPH."""
LOSSY = {"1.2.840.10008.1.2.4.50": 4, JPEG_EXTENDED: 4, "1.2.840.10008.1.2.4.81": 3, "1.2.840.10008.1.2.4.91": 4}
"""Transfer syntax → mean difference allowed, in grey levels."""


def encapsulated(frame: bytes, pixels: np.ndarray, photometric: str) -> Dataset:
    made = dataset(pixels, PhotometricInterpretation=photometric)
    made.PixelData = encapsulate([frame])
    made["PixelData"].is_undefined_length = True
    return made


def sample(syntax: str, folder: Path) -> tuple[bytes, np.ndarray]:
    """(dataset bytes in ``syntax``, the picture in it)."""
    pixels = picture()
    if syntax in (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN):
        return encoded(dataset(), syntax), pixels
    if syntax == DEFLATED_LITTLE_ENDIAN:
        engine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        return engine.compress(encoded(dataset())) + engine.flush(), pixels
    if syntax in ("1.2.840.10008.1.2.4.50", JPEG_EXTENDED):
        made = encapsulated(as_file(pixels, "JPEG", quality=95), pixels, "YBR_FULL_422")
        return encoded(made), pixels
    if syntax in ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"):
        (folder / "plain.dcm").write_bytes(part10(dataset()))
        option = "+el" if syntax.endswith("57") else "+e1"
        tool = program("dcmcjpeg", package="dcmtk")
        subprocess.run([tool, option, str(folder / "plain.dcm"), str(folder / "packed.dcm")], check=True)
        data, written = split_part10((folder / "packed.dcm").read_bytes())
        assert written == syntax
        return data, pixels
    if ".4.20" in syntax:
        return encoded(encapsulated(HTJ2K_16_X_16, picture(16, 16), "YBR_RCT")), picture(16, 16)
    made = dataset()
    if syntax == JPEG2000:
        made.compress(syntax, j2k_cr=[4], generate_instance_uid=False)
    elif syntax == JPEGLSNearLossless:
        made.compress(syntax, jls_error=2, generate_instance_uid=False)
    else:
        made = compressed(syntax)
    return encoded(made), pixels


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_it_decodes(syntax, tmp_path: Path):
    data, pixels = sample(syntax, tmp_path)
    header = read_header(data, syntax)
    assert header.transfer_syntax_uid == syntax
    seen = decode(SourceObject("x", data, header, RECEIVED)).pixels
    difference = np.abs(seen.astype(int) - pixels.astype(int)).mean()
    assert difference <= LOSSY.get(syntax, 0)


@pytest.mark.parametrize("colour", [True, False])
def test_twelve_bit_jpeg_decodes(colour, tmp_path: Path):
    deep = picture().astype(np.uint16) << 4
    made = dataset(deep if colour else deep[..., 0].copy(), BitsStored=12, HighBit=11)
    (tmp_path / "plain.dcm").write_bytes(part10(made))
    tool = program("dcmcjpeg", package="dcmtk")
    subprocess.run([tool, "+ee", str(tmp_path / "plain.dcm"), str(tmp_path / "packed.dcm")], check=True)
    data, syntax = split_part10((tmp_path / "packed.dcm").read_bytes())
    assert syntax == JPEG_EXTENDED
    seen = decode(SourceObject("x", data, read_header(data, syntax), RECEIVED)).pixels
    shown = picture() if colour else picture()[..., :1]
    assert np.abs(seen.astype(int) - shown).mean() < 1.5


def test_every_syntax_that_decodes_is_negotiated():
    assert set(NEGOTIATED_SYNTAXES) == set(TRANSFER_SYNTAXES)


def test_big_endian_and_video_are_not_taken():
    assert not {"1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.102"} & set(TRANSFER_SYNTAXES)


def test_what_costs_no_decoding_is_preferred():
    assert NEGOTIATED_SYNTAXES[:2] == (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN)


def test_lossless_is_preferred_to_lossy():
    order = list(NEGOTIATED_SYNTAXES)
    lossy = [order.index(uid) for uid in LOSSY if uid in order]
    assert min(lossy) > order.index("1.2.840.10008.1.2.4.70")


def test_dermoscopic_photography_is_taken():
    assert "1.2.840.10008.5.1.4.1.1.77.1.7" in IMAGE_CLASSES
