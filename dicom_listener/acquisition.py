"""How a picture was taken: scale, shape of the pixels, contact, polarisation, immersion, and what to remark of it."""

from __future__ import annotations

import math
from typing import Any, Final

import structlog
from pydicom.dataset import Dataset

from dermoscopy.domain import Acquisition, Remark
from dicom_listener.syntaxes import LOSSY_SYNTAXES

log = structlog.get_logger(__name__)

FIELD_OF_VIEW_MM: Final = (1.0, 1000.0)
"""A scale that makes the longer side of the picture shorter or longer than this is a mistake and is not used.

Imager Pixel Spacing (0018,1164) is measured at the receptor (PS3.3 10.7.1.3): some devices write the pitch of the
sensor there, which would make a lesion a hundred times too small.
"""
SQUARE_WITHIN: Final = 0.02
"""Pixels whose sides differ by less are taken as square: that is rounding of a stated spacing, not a shape."""
MOST_OBLONG: Final = 4.0
"""A stated ratio of sides beyond this is a mistake and is not used."""
_SPACING_KEYWORDS: Final = ("PixelSpacing", "NominalScannedPixelSpacing", "ImagerPixelSpacing")


def read_spacing(dataset: Dataset) -> tuple[float, float] | None:
    """(row, column) spacing in mm from the first attribute that states a plausible one (PS3.3 10.7)."""
    for keyword in _SPACING_KEYWORDS:
        values = _pair(dataset, keyword)
        if values is None:
            continue
        longest = max(values[0] * int(dataset.Rows), values[1] * int(dataset.Columns))
        if FIELD_OF_VIEW_MM[0] <= longest <= FIELD_OF_VIEW_MM[1]:
            return values
        log.warning("decode.scale_implausible", attribute=keyword)
    return None


def read_aspect(dataset: Dataset, spacing: tuple[float, float] | None) -> tuple[float, tuple[Remark, ...]]:
    """Height of a pixel over its width, by its spacing, else by Pixel Aspect Ratio (PS3.3 C.7.6.3.1.7)."""
    sides = spacing or _pair(dataset, "PixelAspectRatio")
    if sides is None or abs(sides[0] / sides[1] - 1.0) < SQUARE_WITHIN:
        return 1.0, ()
    ratio = sides[0] / sides[1]
    if not 1.0 / MOST_OBLONG <= ratio <= MOST_OBLONG:
        return 1.0, (Remark("aspect_unusable", f"the stated shape of the pixels ({ratio:.3g} : 1) was not used"),)
    return ratio, (
        Remark(
            "aspect",
            f"pixels are {ratio:.3g} times as high as wide: the algorithm sees them stretched to squares, "
            "outlines are in pixels of the source",
        ),
    )


def read_acquisition(dataset: Dataset) -> Acquisition:
    """Dermoscopic Image attributes (PS3.3 C.8.12.13); what is absent or odd is ``None``.

    They are read in every class of object: a dermoscope that sends Secondary Captures may state them all the same.
    """
    contact = _word(dataset, "ContactMethod")
    polarised = _word(dataset, "LightSourcePolarization")
    immersion = dataset.get("ImmersionMedia")
    try:
        magnification: float | None = float(dataset.get("OpticalMagnificationFactor"))
        if not (magnification and math.isfinite(magnification) and magnification > 0):
            magnification = None
    except (TypeError, ValueError):
        magnification = None
    media = [immersion] if isinstance(immersion, str) else list(immersion or ())
    station = " ".join(
        part for part in (str(dataset.get(k) or "").strip() for k in ("Manufacturer", "ManufacturerModelName")) if part
    )
    return Acquisition(
        contact={"CONTACT": True, "NON_CONTACT": False}.get(contact),
        polarised={"POLARIZED": True, "NON_POLARIZED": False}.get(polarised),
        immersion="+".join(str(m).strip().lower() for m in media) or None,
        magnification=magnification,
        station=station or None,
    )


def read_remarks(dataset: Dataset, syntax: str) -> tuple[Remark, ...]:
    """What the header says that a person who reads the result should know of the picture."""
    remarks = []
    if _word(dataset, "LossyImageCompression") == "01" or syntax in LOSSY_SYNTAXES:
        remarks.append(Remark("lossy", f"the picture was compressed with loss{_ratio(dataset)}"))
    if _word(dataset, "BurnedInAnnotation") == "YES":
        remarks.append(Remark("burned_in", "text or marks are burned into the picture"))
    if any(str(value or "").strip() for value in _values(dataset, "PatientOrientation")):
        remarks.append(
            Remark("orientation", "the header states the patient's orientation; the picture is analysed as stored")
        )
    if _word(dataset, "PartialView") == "YES":
        remarks.append(Remark("partial_view", "the picture shows a part of the lesion's view"))
    return tuple(remarks)


def _ratio(dataset: Dataset) -> str:
    ratios = []
    for value in _values(dataset, "LossyImageCompressionRatio"):
        try:
            ratios.append(float(value))
        except (TypeError, ValueError):
            return ""
    total = math.prod(ratios)
    return f", {total:.3g} : 1" if ratios and math.isfinite(total) and total > 0 else ""


def _pair(dataset: Dataset, keyword: str) -> tuple[float, float] | None:
    try:
        values = [float(v) for v in dataset.get(keyword) or ()]
    except (TypeError, ValueError):
        return None
    if len(values) != 2 or not all(math.isfinite(v) and v > 0 for v in values):
        return None
    return values[0], values[1]


def _values(dataset: Dataset, keyword: str) -> list[Any]:
    value = dataset.get(keyword)
    if value is None:
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def _word(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip().upper()
