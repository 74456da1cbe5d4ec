"""The cells of the matrix: one picture, written in every encoding and colour model that the service says it takes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from dermoscopy.domain import derive_uid
from dermoscopy.phantoms import phantom
from dicom_listener.syntaxes import (
    DEFLATED_LITTLE_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    GRAYSCALE_BYTE_CAPTURE,
    GRAYSCALE_WORD_CAPTURE,
    IMAGE_CLASSES,
    IMPLICIT_LITTLE_ENDIAN,
    TRANSFER_SYNTAXES,
    TRUE_COLOR_CAPTURE,
)
from tests.peers.processes import program
from tests.unit.dicom_listener.samples import as_file, dataset, picture
from tests.unit.dicom_listener.test_colour import halved
from tests.unit.dicom_listener.test_syntaxes import HTJ2K_16_X_16

SKIN = phantom(5, rows=64, columns=80, vignette=False).pixels
YBR = np.asarray(Image.fromarray(SKIN).convert("YCbCr"))
_DARKEST, _BRIGHTEST = int(SKIN[..., 1].min()), int(SKIN[..., 1].max())
GREY = ((SKIN[..., 1].astype(int) - _DARKEST) * 255 // (_BRIGHTEST - _DARKEST)).astype(np.uint8)
"""From black to white: dcmcjpeg subtracts the darkest value of a grey picture and does not write down that it did."""

JPEG = "1.2.840.10008.1.2.4."
RLE = "1.2.840.10008.1.2.5"
MULTI_FRAME = (TRUE_COLOR_CAPTURE, GRAYSCALE_BYTE_CAPTURE, GRAYSCALE_WORD_CAPTURE)


@dataclass(frozen=True)
class Written:
    """A dataset, the RGB picture that it shows, and how far (mean, grey levels) a decoder may be off."""

    made: Dataset
    shows: np.ndarray
    tolerance: float = 0.0


@dataclass(frozen=True)
class Cell:
    """``name`` of the colour model, the transfer syntax, and who writes it."""

    syntax: str
    model: str
    write: Callable[[Path], Written]

    @property
    def id(self) -> str:
        return f"{self.model} in {TRANSFER_SYNTAXES[self.syntax]}"

    def classes(self) -> Iterator[str]:
        """The SOP classes that may hold such pixels (PS3.3 A.8.3.4, A.8.4.4, A.8.5.4)."""
        grey, deep = self.model.startswith("MONOCHROME"), "deep" in self.model
        for uid in IMAGE_CLASSES:
            only = {TRUE_COLOR_CAPTURE: not grey, GRAYSCALE_BYTE_CAPTURE: grey and not deep}
            only[GRAYSCALE_WORD_CAPTURE] = grey and deep
            if only.get(uid, True):
                yield uid

    def files(self, folder: Path) -> dict[str, tuple[Path, Written]]:
        """SOP class → the file of this cell in that class; UIDs say which cell it is."""
        written, found = self.write(folder), {}
        for uid in self.classes():
            made = written.made
            made.SOPClassUID, made.SOPInstanceUID = uid, derive_uid("matrix", self.id, uid)
            made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
            made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
            made.file_meta.TransferSyntaxUID = UID(self.syntax)
            if uid in MULTI_FRAME:
                made.NumberOfFrames = "1"
            path = folder / f"{made.SOPInstanceUID}.dcm"
            made.save_as(path, enforce_file_format=True)
            found[uid] = path, written
        return found


def _palette(deep: bool) -> Written:
    small = Image.fromarray(SKIN).quantize(200)
    indices = np.asarray(small)
    colours = np.array(small.getpalette()[:600], np.uint8).reshape(200, 3)
    made = dataset(indices, PhotometricInterpretation="PALETTE COLOR")
    for number, name in enumerate(("Red", "Green", "Blue")):
        column = colours[:, number]
        data = (column.astype("<u2") * 257).tobytes() if deep else column.tobytes()
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [200, 0, 16 if deep else 8])
        setattr(made, f"{name}PaletteColorLookupTableData", data)
    return Written(made, colours[indices])


def _with(pixels: np.ndarray, shows: np.ndarray, tolerance: float = 0.0, data: bytes = b"", **changes) -> Written:
    made = dataset(pixels, **changes)
    if data:
        made.PixelData = data
    return Written(made, shows, tolerance)


def _grey(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels[..., None], 3, axis=2)


PLAIN: dict[str, Callable[[], Written]] = {
    "RGB": lambda: _with(SKIN, SKIN),
    "RGB by plane": lambda: _with(SKIN, SKIN, data=SKIN.transpose(2, 0, 1).tobytes(), PlanarConfiguration=1),
    "RGB deep": lambda: _with(SKIN.astype(np.uint16) << 8, SKIN),
    "RGB of 12 bits": lambda: _with(SKIN.astype(np.uint16) << 4, SKIN, BitsStored=12, HighBit=11),
    "YBR_FULL": lambda: _with(YBR, SKIN, 1.5, PhotometricInterpretation="YBR_FULL"),
    "YBR_FULL_422": lambda: _with(YBR, SKIN, 3.0, halved(YBR), PhotometricInterpretation="YBR_FULL_422"),
    "PALETTE COLOR": lambda: _palette(False),
    "PALETTE COLOR, deep entries": lambda: _palette(True),
    "MONOCHROME1": lambda: _with(GREY, 255 - _grey(GREY), PhotometricInterpretation="MONOCHROME1"),
    "MONOCHROME2": lambda: _with(GREY, _grey(GREY)),
    "MONOCHROME2 deep": lambda: _with(GREY.astype(np.uint16) << 4, _grey(GREY), BitsStored=12, HighBit=11),
}


def _compressed(model: str, syntax: str, tolerance: float, **options) -> Callable[[Path], Written]:
    def write(folder: Path) -> Written:
        plain = PLAIN[model]()
        plain.made.compress(syntax, generate_instance_uid=False, **options)
        return Written(plain.made, plain.shows, plain.tolerance + tolerance)

    return write


def _by_dcmtk(model: str, tool: str, tolerance: float, *options: str) -> Callable[[Path], Written]:
    def write(folder: Path) -> Written:
        plain = PLAIN[model]()
        before, after = folder / "plain.tmp", folder / "packed.tmp"
        plain.made.save_as(before, enforce_file_format=True)
        subprocess.run([program(tool, package="dcmtk"), *options, str(before), str(after)], check=True)
        return Written(dcmread(after), plain.shows, plain.tolerance + tolerance)

    return write


def _in_stream(
    stream: bytes, pixels: np.ndarray, photometric: str, tolerance: float = 0.0
) -> Callable[[Path], Written]:
    def write(folder: Path) -> Written:
        made = dataset(pixels, PhotometricInterpretation=photometric)
        made.PixelData = encapsulate([stream])
        made["PixelData"].is_undefined_length = True
        return Written(made, pixels, tolerance)

    return write


def cells() -> Iterator[Cell]:
    """Every transfer syntax that is negotiated, with the colour models that it can carry."""
    for syntax in (EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN, DEFLATED_LITTLE_ENDIAN):
        for model, plain in PLAIN.items():
            yield Cell(syntax, model, lambda folder, plain=plain: plain())
    greys = ("MONOCHROME1", "MONOCHROME2", "MONOCHROME2 deep")
    for model in ("RGB", "RGB deep", "YBR_FULL", "PALETTE COLOR", *greys):
        yield Cell(RLE, model, _compressed(model, RLE, 0))
    yield Cell(RLE, "RGB (dcmtk)", _by_dcmtk("RGB", "dcmcrle", 0))
    for model in ("RGB", "RGB of 12 bits", "YBR_FULL", "PALETTE COLOR", "MONOCHROME2", "MONOCHROME2 deep"):
        yield Cell(f"{JPEG}80", model, _compressed(model, f"{JPEG}80", 0))
        yield Cell(f"{JPEG}90", model, _compressed(model, f"{JPEG}90", 0))
    for model in ("RGB", "PALETTE COLOR", "MONOCHROME2", "MONOCHROME2 deep"):
        yield Cell(f"{JPEG}80", f"{model} (dcmtk)", _by_dcmtk(model, "dcmcjpls", 0, "+el"))
        yield Cell(f"{JPEG}57", model, _by_dcmtk(model, "dcmcjpeg", 0, "+el"))
        yield Cell(f"{JPEG}70", model, _by_dcmtk(model, "dcmcjpeg", 0, "+e1"))
    for model in ("RGB", "MONOCHROME2"):
        yield Cell(f"{JPEG}81", model, _by_dcmtk(model, "dcmcjpls", 2, "+en"))
        yield Cell(f"{JPEG}91", model, _compressed(model, f"{JPEG}91", 3, j2k_cr=[4]))
        yield Cell(f"{JPEG}50", f"{model} as YBR_FULL_422" if model == "RGB" else model,
                   _by_dcmtk(model, "dcmcjpeg", 3, "+eb", "+q", "95"))  # fmt: skip
    yield Cell(f"{JPEG}50", "RGB", _by_dcmtk("RGB", "dcmcjpeg", 3, "+eb", "+cr", "+q", "95"))
    for model in ("RGB", "RGB of 12 bits", "MONOCHROME2 deep"):
        yield Cell(f"{JPEG}51", model, _by_dcmtk(model, "dcmcjpeg", 3, "+ee", "+q", "95"))
    reversible = as_file(SKIN, "JPEG2000", mct=1, irreversible=False, no_jp2=True)
    lossy = as_file(SKIN, "JPEG2000", mct=1, irreversible=True, quality_mode="rates", quality_layers=[4], no_jp2=True)
    yield Cell(f"{JPEG}90", "YBR_RCT", _in_stream(reversible, SKIN, "YBR_RCT"))
    yield Cell(f"{JPEG}91", "YBR_ICT", _in_stream(lossy, SKIN, "YBR_ICT", 3))
    for number in (201, 202, 203):
        yield Cell(f"{JPEG}{number}", "YBR_RCT", _in_stream(HTJ2K_16_X_16, picture(16, 16), "YBR_RCT"))
