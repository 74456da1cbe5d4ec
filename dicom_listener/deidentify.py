"""De-identification of one photograph: PS3.15 Annex E, Basic Application Level Confidentiality Profile with options.

`dicom_listener.deidentify_table` has what the standard says of each attribute and `dicom_listener.deidentify_kept` what
passes at all; an attribute leaves only when both allow it. Pixels come decoded, looked at and cleaned; they are written
uncompressed, so that nothing of an encoder (EXIF, XMP, comments, profiles) is left.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Final

from pydicom import config
from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from dermoscopy.codes import SITE_SKIN, SITES
from dermoscopy.domain import RGBPixels
from dicom_listener.deidentify_kept import WALKED, Check, image_type, kept, lossy_ratio, many
from dicom_listener.deidentify_table import Retained, action_for, claimed
from dicom_listener.part10 import PARSE_ERRORS, file_meta
from dicom_listener.render.modules import code_item, coded
from dicom_listener.syntaxes import (
    DERMOSCOPIC_PHOTOGRAPHY,
    EXPLICIT_LITTLE_ENDIAN,
    SECONDARY_CAPTURE,
    VL_ENDOSCOPIC,
    VL_PHOTOGRAPHIC,
)

METHOD: Final = "PS3.15 Annex E Basic Profile with options; dates moved"
"""De-identification Method (0012,0063), of at most 64 characters; the codes beside it say it exactly."""
ABSENT: Final = "REMOVED"
"""Dummy for words that an IOD demands (type 1)."""
_EMPTY: Final = (
    "PatientBirthDate",
    "PatientSex",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
    "Manufacturer",
)
"""Type 2 in every photograph (PS3.3 C.7.1.1, C.7.2.1, C.7.5.1): they stay, empty, where nothing may stand in them."""
_ORDER: Final = ("StudyDate", "SeriesNumber", "InstanceNumber")
_DERMOSCOPIC: Final = (
    "PositionReferenceIndicator",
    "LightSourcePolarization",
    "EmitterColorTemperature",
    "ContactMethod",
    "OpticalMagnificationFactor",
)
"""Type 2 in Dermoscopic Photography (PS3.3 A.32.11, C.8.12.13)."""
_MODALITIES: Final = {DERMOSCOPIC_PHOTOGRAPHY: "DMS", VL_PHOTOGRAPHIC: "XC", VL_ENDOSCOPIC: "ES"}
"""Modality of each visible light class (PS3.3 C.8.12.1.1.1): there is no choice."""
_EQUIPMENT: Final = ("Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions")
"""Type 1 there (Enhanced General Equipment, PS3.3 C.7.5.2)."""
_DATES: Final = frozenset(
    {"StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "AcquisitionDateTime", "InstanceCreationDate"}
)
"""Dates of the picture, which are moved; any other (of birth, of a visit) is not needed and is left out."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What stands in the place of this patient: pseudonym, days by which dates are moved back, and new UIDs."""

    patient: str
    days: int
    uid: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Deidentified:
    """The object as a Part 10 file, and what was done: (attribute, action) → how often; names, never values."""

    data: bytes
    sop_instance_uid: str
    actions: Mapping[tuple[str, str], int]


def deidentify(
    source: Dataset,
    pixels: RGBPixels,
    identity: Identity,
    *,
    retained: Retained,
    body_site_code: str = "",
    altered: bool = False,
) -> Deidentified:
    """``source`` (its pixel data is not looked at) with ``pixels`` uint8 [rows, columns, 3] as an object to give away.

    ``body_site_code`` (SNOMED CT) stands as the anatomic region where CID 4029 lists it, else skin. ``altered`` says
    that the pixels are no longer those of the source.
    """
    log: Counter[tuple[str, str]] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning about an odd value quotes it
        made = _cleaned(source, identity, retained, kept(retained), "", log)
    _complete(made, source, identity, retained, body_site_code, altered)
    _put_pixels(made, pixels)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, made)
    uid = str(made.SOPInstanceUID)
    data = file_meta(str(made.SOPClassUID), uid, EXPLICIT_LITTLE_ENDIAN) + buffer.getvalue()
    return Deidentified(data, uid, _told(log, made))


def moved_date(text: str, days: int) -> str:
    """A date (``YYYYMMDD…``, PS3.5 6.2 DA or DT) ``days`` earlier, without the time of day; empty if it is none."""
    digits = text.strip(" \0")[:8]
    if not (len(digits) == 8 and digits.isascii() and digits.isdigit()):
        return ""
    try:
        moved = date(int(digits[:4]), int(digits[4:6]), int(digits[6:])) - timedelta(days=days)
    except (ValueError, OverflowError):
        return ""
    return f"{moved:%Y%m%d}" if moved.year >= 1900 else ""


def _told(log: Mapping[tuple[str, str], int], made: Dataset) -> dict[tuple[str, str], int]:
    """``log``, with what was left out and has a dummy or nothing in its place told apart from what is gone."""
    told: dict[tuple[str, str], int] = {}
    put = {element.keyword: element for element in made}
    for (name, action), count in log.items():
        if action.startswith("removed") and name in put:  # of top level: a path is no keyword
            empty = put[name].is_empty or put[name].value == ABSENT
            action = "emptied" if empty else "replaced"
        told[name, action] = told.get((name, action), 0) + count
    return told


def _cleaned(
    source: Dataset,
    identity: Identity,
    retained: Retained,
    rules: Mapping[str, Check],
    path: str,
    log: Counter[tuple[str, str]],
) -> Dataset:
    made = Dataset()
    for tag in source.keys():  # noqa: SIM118 - iterating a dataset itself would convert every value
        name = path + _name(tag)
        if tag.is_private:
            log[name, "private, removed"] += 1
            continue
        if tag.group == 0x7FE0 or tag.group == 0x0002 or tag.element == 0:
            continue  # pixels are put anew, and so are file meta information and group lengths
        keyword = keyword_for_tag(tag)
        value: Any
        vr = "UN"
        try:
            element = source[tag]
            vr = element.VR
            if keyword in WALKED and element.VR == "SQ":
                items = [_cleaned(item, identity, retained, rules, f"{name} > ", log) for item in element.value or ()]
                items = [item for item in items if "ReferencedSOPInstanceUID" in item and len(item) > 1]
                value, action = (items or None), "kept, items cleaned"
            else:
                value, action = _decided(element, keyword, identity, retained, rules)
        except PARSE_ERRORS:
            value, action = None, "unreadable, removed"
        if value is None:
            log[name, action if "removed" in action else "removed"] += 1
        else:
            made.add(DataElement(tag, vr, value, validation_mode=config.IGNORE))
            log[name, action] += 1
    return made


def _decided(
    element: DataElement, keyword: str, identity: Identity, retained: Retained, rules: Mapping[str, Check]
) -> tuple[Any, str]:
    """The value that may leave (``None``: none) and what was done, in words."""
    action = action_for(int(element.tag), retained)
    if element.VR == "UI" and (action == "U" or keyword == "ReferencedSOPInstanceUID"):
        uids = [UID(identity.uid(str(one).strip(" \0"))) for one in many(element.value)]
        return (uids if len(uids) > 1 else uids[0]) if uids else None, "UID replaced"
    if keyword in _DATES and element.VR in ("DA", "DT") and action == "C":
        days = [moved_date(str(one), identity.days) for one in many(element.value)]
        return (days[0] if len(days) == 1 else days) if days and all(days) else None, "date moved"
    if action not in ("", "K"):
        return None, f"removed (profile: {action})"
    rule = rules.get(keyword)
    if rule is None:
        return None, "removed (not needed)"
    value = rule(element.value)
    return value, "kept" if value is not None else "removed (not a known value)"


def _name(tag: Any) -> str:
    keyword = "" if tag.is_private else keyword_for_tag(tag)
    return keyword or f"({tag.group:04X},{tag.element:04X})"


def _complete(
    made: Dataset, source: Dataset, identity: Identity, retained: Retained, body_site_code: str, altered: bool
) -> None:
    """What stands in every object, whatever the source had."""
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID = made.get("SOPClassUID") or UID(SECONDARY_CAPTURE)
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if keyword not in made:
            setattr(made, keyword, identity.uid(f"{keyword} {identity.patient}"))
    for keyword in (*_EMPTY, *_ORDER):
        if keyword not in made:
            setattr(made, keyword, None)
    made.PatientID, made.PatientName = identity.patient, f"{identity.patient}^Pseudonym"
    made.PatientIdentityRemoved = "YES"
    made.DeidentificationMethod = METHOD
    made.DeidentificationMethodCodeSequence = [_method(option.code, option.meaning) for option in claimed(retained)]
    made.LongitudinalTemporalInformationModified = "MODIFIED"
    made.BurnedInAnnotation = made.RecognizableVisualFeatures = "NO"
    made.ImageType = image_type(source.get("ImageType"))
    if altered:
        made.ImageType = ["DERIVED", made.ImageType[1]]
    visible = str(made.SOPClassUID) in _MODALITIES
    made.Modality = _MODALITIES[str(made.SOPClassUID)] if visible else made.get("Modality") or "OT"
    made.PatientOrientation = None
    if "ImageLaterality" not in made and "Laterality" not in made:
        made.Laterality = None
    region = SITES.get(body_site_code, SITE_SKIN)
    made.AnatomicRegionSequence = [code_item(coded(region))]
    if visible:
        made.AcquisitionContextSequence = []
        made.LossyImageCompression = made.get("LossyImageCompression")
    if made.SOPClassUID == DERMOSCOPIC_PHOTOGRAPHY:
        made.FrameOfReferenceUID = made.get("FrameOfReferenceUID") or UID(
            identity.uid(f"frame of reference {made.SeriesInstanceUID}")
        )
        for keyword in _DERMOSCOPIC:
            if keyword not in made:
                setattr(made, keyword, None)
        for keyword in _EQUIPMENT:
            setattr(made, keyword, made.get(keyword) or ABSENT)
    ratio = lossy_ratio(source.get("LossyImageCompressionRatio"))
    if ratio is not None and made.get("LossyImageCompression") == "01":
        made.LossyImageCompressionRatio = ratio


def _method(code: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "DCM", meaning
    return item


def _put_pixels(made: Dataset, pixels: RGBPixels) -> None:
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.Rows, made.Columns = int(pixels.shape[0]), int(pixels.shape[1])
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    data = pixels.tobytes()
    made.add_new(0x7FE00010, "OB", data + b"\0" * (len(data) % 2))
