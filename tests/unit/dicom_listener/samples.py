"""Synthetic dermoscopy objects, made by code: the picture, the dataset around it, and what an analysis says of it."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from dermoscopy.domain import (
    Analysis,
    ClassProbability,
    Finding,
    ImageHeader,
    Inference,
    LesionClass,
    LesionMeasurements,
    ModelReference,
    PatientIdentity,
    Quality,
    SourceObject,
    Triage,
    TriageTier,
    derive_uid,
)
from dermoscopy.ports import RenderInput
from dicom_listener.decode import decode
from dicom_listener.header import read_header, read_picture_header
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN, IMPLICIT_LITTLE_ENDIAN

RECEIVED = datetime(2026, 3, 4, 5, 6, 7, 89000, tzinfo=UTC)


def picture(rows: int = 48, columns: int = 64) -> np.ndarray:
    """A smooth RGB picture, shape (rows, columns, 3): compresses well, and channels differ."""
    y, x = np.mgrid[0:rows, 0:columns]
    red = 255 * x / max(1, columns - 1)
    green = 255 * y / max(1, rows - 1)
    blue = 255 - (red + green) / 2
    return np.rint(np.stack([red, green, blue], axis=2)).astype(np.uint8)


def dataset(pixels: np.ndarray | None = None, **changes: Any) -> Dataset:
    """A valid Dermoscopic Photography dataset in explicit little endian; ``changes`` by keyword, ``None`` deletes."""
    pixels = picture() if pixels is None else pixels
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(EXPLICIT_LITTLE_ENDIAN)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID = DERMOSCOPIC_PHOTOGRAPHY
    made.SOPInstanceUID = derive_uid("test-instance", "1")
    made.StudyInstanceUID = derive_uid("test-study", "1")
    made.SeriesInstanceUID = derive_uid("test-series", "1")
    made.StudyDate, made.StudyTime, made.StudyID = "20260304", "050607", "S1"
    made.AccessionNumber = "ACC-1"
    made.PatientName, made.PatientID, made.IssuerOfPatientID = "Müller^Jürg", "4711", "HOSPITAL-A"
    made.PatientBirthDate, made.PatientSex = "19700102", "F"
    made.ReferringPhysicianName = None
    made.Modality, made.Manufacturer, made.ManufacturerModelName = "DMS", "Lens", "One"
    made.ImageLaterality = "L"
    made.RecognizableVisualFeatures = "NO"
    region = Dataset()
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "66643007", "SCT", "Skin of back"
    made.AnatomicRegionSequence = [region]
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    made.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    bits = pixels.dtype.itemsize * 8
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = bits, bits, bits - 1, 0
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    made["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in changes.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def encoded(made: Dataset, syntax: str = EXPLICIT_LITTLE_ENDIAN) -> bytes:
    """The dataset bytes without file meta information, as they travel over the network."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, syntax == IMPLICIT_LITTLE_ENDIAN
    write_dataset(buffer, made)
    return buffer.getvalue()


def part10(made: Dataset) -> bytes:
    """A whole DICOM file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def compressed(syntax: str, pixels: np.ndarray | None = None) -> Dataset:
    """`dataset` compressed by pydicom."""
    made = dataset(pixels)
    made.compress(syntax, generate_instance_uid=False)
    return made


def source(made: Dataset | None = None, syntax: str = EXPLICIT_LITTLE_ENDIAN) -> SourceObject:
    """A stored DICOM source."""
    data = encoded(made or dataset(), syntax)
    return SourceObject("instance-1", data, read_header(data, syntax), RECEIVED)


def as_file(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    """A PNG or JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, **options)
    return buffer.getvalue()


def picture_source(form: str = "PNG", pixels: np.ndarray | None = None) -> SourceObject:
    """A stored PNG or JPEG source."""
    data = as_file(picture(49, 65) if pixels is None else pixels, form)
    return SourceObject("instance-2", data, read_picture_header(data, PatientIdentity("HOSPITAL-A", "4711")), RECEIVED)


def render_input(stored: SourceObject | None = None, **finding_changes: Any) -> RenderInput:
    """An analysis of ``stored`` with a disc as the lesion."""
    stored = stored or source()
    image = decode(stored)
    y, x = np.mgrid[0 : image.rows, 0 : image.columns]
    mask = (y - image.rows / 2) ** 2 + (x - image.columns / 2) ** 2 < (min(image.rows, image.columns) / 3) ** 2
    area, calibrated = float(mask.sum()), image.spacing_mm is not None
    measured = LesionMeasurements(
        area_px=area,
        area_percent=100 * area / mask.size,
        perimeter_px=100.5,
        equivalent_diameter_px=32.0,
        circularity=0.98,
        solidity=0.99,
        eccentricity=0.1,
        asymmetry=0.05,
        border_irregularity=1.02,
        colour_count=2,
        colour_variety=0.3,
        colour_fractions={"light_brown": 0.7, "dark_brown": 0.3},
        centroid=(image.rows / 2, image.columns / 2),
        bounding_box=(8, 16, 40, 48),
        area_mm2=0.01 * area if calibrated else None,
        perimeter_mm=10.05 if calibrated else None,
        equivalent_diameter_mm=3.2 if calibrated else None,
    )
    finding = Finding(
        model=ModelReference("lite0", "1.2.0", "ab" * 32),
        classes=tuple(ClassProbability(label, 0.5, 1 / 7) for label in LesionClass),
        primary=LesionClass.MEL,
        confidence=0.8,
        melanoma_risk=0.75,
        malignancy_risk=0.8,
        quality=Quality(True, (), {"sharpness": 0.9}),
        measurements=measured,
        triage=Triage(TriageTier.URGENT, "melanoma risk above the threshold", "see within two weeks"),
        abstention=None,
        explanation=("irregular border", "two colours"),
        inference=Inference("CPU", "fp32", "cd" * 32, {"t": 1.5}, {"melanoma": 0.3}, "0.1.0", "ee", "ff", {}),
        mask=mask,
        heatmap=mask.astype(np.float32),
        embedding=np.zeros(8, np.float32),
    )
    analysis = Analysis(
        id="analysis-1",
        instance_id=stored.instance_id,
        created_at=datetime(2026, 3, 4, 6, 7, 8, 90000, tzinfo=UTC),
        finding=replace(finding, **finding_changes),
        header=stored.header,
        rows=image.rows,
        columns=image.columns,
        pixel_digest=image.pixel_digest,
        spacing_mm=image.spacing_mm,
        acquisition=image.acquisition,
    )
    return RenderInput(analysis, image, stored)


def for_patient(what: RenderInput, patient: PatientIdentity) -> RenderInput:
    """The same analysis after a person gave the image to ``patient``."""
    header: ImageHeader = replace(what.analysis.header, patient=patient)
    return replace(what, analysis=replace(what.analysis, header=header), source=replace(what.source, header=header))
