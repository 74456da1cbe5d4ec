"""The annotated picture as a Secondary Capture (PS3.3 A.8): what a viewer shows that draws no segmentations."""

from __future__ import annotations

import numpy as np
from highdicom.sc import SCImage
from pydicom.sr.codedict import codes

from dermoscopy.domain import Artifact, ArtifactKind, ReportStatus, RGBPixels
from dermoscopy.overlay import draw_overlay
from dermoscopy.ports import RenderInput
from dermoscopy.reviews import standing
from dicom_listener.part10 import MANUFACTURER
from dicom_listener.render.modules import (
    DEVICE_NOTE,
    artifact,
    code_item,
    common,
    complete,
    decimals,
    lossy_history,
    put,
    put_laterality,
    reference,
    stand_in,
)
from dicom_listener.render.source import source_dataset
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN

_PURPOSE = codes.DCM.SourceImageForImageProcessingOperation


_STATUS = {
    ReportStatus.PRELIMINARY: "Lesion outline and legend drawn on the image",
    ReportStatus.FINAL: "Lesion outline and legend drawn on the image; confirmed by clinician",
    ReportStatus.AMENDED: "Lesion outline and legend drawn on the image; corrected by clinician",
    ReportStatus.ENTERED_IN_ERROR: "Result withdrawn by clinician, do not use; the image without outline",
}


def _drawn(what: RenderInput) -> RGBPixels:
    return draw_overlay(what.image, what.analysis.finding, standing(what.reviews), what.outlined)


def render_secondary_capture(what: RenderInput) -> Artifact:
    """Contour, legend and notice drawn on the image, uncompressed 8-bit RGB, burned-in annotation stated."""
    image = what.image
    source = source_dataset(what.source, image)
    result = SCImage.from_ref_dataset(
        stand_in(source),
        pixel_array=np.ascontiguousarray(_drawn(what), dtype=np.uint8),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        transfer_syntax_uid=EXPLICIT_LITTLE_ENDIAN,
        series_description=f"AI overlay, not a diagnosis{', uncalibrated' if not image.spacing_mm else ''}",
        **common(what, source, ArtifactKind.SECONDARY_CAPTURE),
    )
    put(
        result,
        PatientOrientation=None,  # highdicom demands one, and nobody knows it
        ConversionType="WSD",
        SecondaryCaptureDeviceManufacturer=MANUFACTURER,
        DateOfSecondaryCapture=result.ContentDate,
        TimeOfSecondaryCapture=result.ContentTime,
        ImageType=["DERIVED", "SECONDARY"],
        DerivationDescription=f"{_STATUS[what.status]}; {DEVICE_NOTE}",
        SourceImageSequence=[put(reference(source), PurposeOfReferenceCodeSequence=[code_item(_PURPOSE)])],
        BurnedInAnnotation="YES",
        **lossy_history(source, what.source.header.transfer_syntax_uid),
    )
    if image.spacing_mm:
        put(result, PixelSpacing=decimals(image.spacing_mm))
    elif image.aspect != 1.0:
        put(result, PixelAspectRatio=[str(round(1000 * image.aspect)), "1000"])
    put_laterality(result, str(source.get("ImageLaterality") or source.get("Laterality") or ""))
    complete(result, what, source, ArtifactKind.SECONDARY_CAPTURE)
    return artifact(ArtifactKind.SECONDARY_CAPTURE, result)
