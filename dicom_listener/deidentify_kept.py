"""What a photograph of skin may keep, and in which values: everything else is left out, known or not.

The table of the standard says what must go; it is silent about attributes where identity does not belong, and cameras
write it there all the same. So an attribute passes only when it is listed here and its value is one of the terms, or
a number in the range, that belong there. Words typed by people have no rule and never pass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pydicom.valuerep import DSfloat

from dicom_listener.deidentify_table import Retained
from dicom_listener.syntaxes import IMAGE_CLASSES

Check = Callable[[Any], Any]
"""The value as it may leave, written anew; ``None`` where it may not."""


def _terms(*allowed: str) -> Check:
    """One or several of these terms."""

    def check(value: Any) -> Any:
        words = [str(one).strip(" \0") for one in many(value)]
        return (words if len(words) > 1 else words[0]) if words and set(words) <= set(allowed) else None

    return check


def _decimals(least: float, most: float, *, count: int = 1) -> Check:
    """``count`` decimal numbers within bounds, with six digits that count: an identifier does not survive that."""

    def check(value: Any) -> Any:
        try:
            numbers = [float(one) for one in many(value)]
        except (TypeError, ValueError, OverflowError):
            return None
        if len(numbers) != count or not all(math.isfinite(n) and least <= n <= most for n in numbers):
            return None
        written = [DSfloat(float(f"{number:.6g}"), auto_format=True) for number in numbers]
        return written if count > 1 else written[0]

    return check


def _integers(least: int, most: int, *, count: int = 1) -> Check:
    def check(value: Any) -> Any:
        try:
            numbers = [int(one) for one in many(value)]
        except (TypeError, ValueError, OverflowError):
            return None
        if len(numbers) != count or not all(least <= number <= most for number in numbers):
            return None
        return numbers if count > 1 else numbers[0]

    return check


def _registered(value: Any) -> Any:
    """A UID that the standard itself defines (PS3.6 Annex A)."""
    text = str(value or "").strip(" \0")
    return UID(text) if text in UID_dictionary else None


def _image_class(value: Any) -> Any:
    text = str(value or "").strip(" \0")
    return UID(text) if text in IMAGE_CLASSES else None


def _age(value: Any) -> Any:
    """Age String (PS3.5 6.2); from 90 years on only that, since so few are (45 CFR 164.514(b)(2)(i)(C))."""
    text = str(value or "").strip(" \0")
    if not re.fullmatch(r"\d{3}[DWMY]", text):
        return None
    return "090Y" if text[3] == "Y" and int(text[:3]) >= 90 else text


def _device_text(value: Any) -> Any:
    """What a maker calls a device; retained as it is, by the option that somebody asked for."""
    words = [re.sub(r"[^\x20-\x7e]", "", str(one)).strip()[:64] for one in many(value)]
    return (words if len(words) > 1 else words[0]) if any(words) else None


def many(value: Any) -> list[Any]:
    """The values of an element as a list; none where it is empty."""
    if value is None or value == "":
        return []
    if isinstance(value, (str, bytes, int, float)):
        return [value]
    return list(value)


def image_type(value: Any) -> list[str]:
    """The two first values of Image Type (PS3.3 C.8.12.1.1.6); those after them are anybody's and are left out."""
    words = [str(one).strip(" \0") for one in many(value)][:2]
    origin = words[0] if words and words[0] in ("ORIGINAL", "DERIVED") else "DERIVED"
    return [origin, "SECONDARY" if words[1:] == ["SECONDARY"] else "PRIMARY"]


_NEVER_TYPED: Final[Mapping[str, Check]] = {
    "SOPClassUID": _image_class,
    "ReferencedSOPClassUID": _registered,
    "Modality": _terms("DMS", "XC", "GM", "ES", "OT"),
    "Laterality": _terms("R", "L"),
    "ImageLaterality": _terms("R", "L", "B", "U"),
    "BodyPartExamined": _terms("SKIN"),
    "ConversionType": _terms("DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"),
    "SeriesNumber": _integers(0, 9999),
    "InstanceNumber": _integers(0, 9999),
    "ContactMethod": _terms("CONTACT", "NON_CONTACT"),
    "LightSourcePolarization": _terms("POLARIZED", "NON_POLARIZED"),
    "ImmersionMedia": _terms("AIR", "ALCOHOL", "GEL", "GLYCERIN", "GLYCEROL", "OIL", "WATER"),
    "OpticalMagnificationFactor": _decimals(0.1, 1000.0),
    "EmitterColorTemperature": _decimals(500.0, 50_000.0),
    "PixelSpacing": _decimals(1e-5, 100.0, count=2),
    "NominalScannedPixelSpacing": _decimals(1e-5, 100.0, count=2),
    "ImagerPixelSpacing": _decimals(1e-5, 100.0, count=2),
    "PixelSpacingCalibrationType": _terms("GEOMETRY", "FIDUCIAL"),
    "PixelAspectRatio": _integers(1, 100_000, count=2),
    "LossyImageCompression": _terms("00", "01"),
    "LossyImageCompressionMethod": _terms(
        "ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_15444_15", "ISO_13818_2", "ISO_14496_10", "ISO_23008_2"
    ),
}
_PATIENT: Final[Mapping[str, Check]] = {
    "PatientSex": _terms("M", "F", "O"),
    "PatientAge": _age,
    "PatientSize": _decimals(0.2, 2.8),
    "PatientWeight": _decimals(0.3, 500.0),
    "SmokingStatus": _terms("YES", "NO", "UNKNOWN"),
    "PregnancyStatus": _integers(1, 4),
}
_DEVICE: Final[Mapping[str, Check]] = dict.fromkeys(
    ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "StationName"), _device_text
)
WALKED: Final = frozenset({"SourceImageSequence", "ReferencedImageSequence"})
"""Sequences that are kept and cleaned item by item; they say which pictures belong together."""


def kept(retained: Retained) -> Mapping[str, Check]:
    """Keyword → rule, of everything that may pass."""
    return {**_NEVER_TYPED, **(_PATIENT if retained.patient else {}), **(_DEVICE if retained.device else {})}


def lossy_ratio(value: Any) -> list[Any] | None:
    """Lossy Image Compression Ratio (0028,2112), one per compression, as a whole."""
    written = [_decimals(0.1, 10_000.0)(one) for one in many(value)]
    return written if written and None not in written else None
