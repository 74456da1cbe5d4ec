"""The annotated picture as a Secondary Capture (PS3.3 A.8): what a viewer shows that draws no segmentations."""

from __future__ import annotations

import numpy as np

from dermoscopy.domain import Artifact, ArtifactKind
from dermoscopy.overlay import draw_overlay
from dermoscopy.ports import RenderInput
from dicom_listener.render.attributes import put
from dicom_listener.render.modules import (
    DEVICE_NOTE,
    MANUFACTURER,
    artifact,
    coded,
    decimal,
    items,
    lossy_history,
    put_laterality,
    reference,
    result_dataset,
)
from dicom_listener.render.source import source_dataset
from dicom_listener.syntaxes import SECONDARY_CAPTURE


def render_secondary_capture(what: RenderInput) -> Artifact:
    """Contour, legend and notice drawn on the image, uncompressed 8-bit RGB, burned-in annotation stated."""
    image = what.image
    source = source_dataset(what.source, image)
    drawn = np.ascontiguousarray(draw_overlay(image, what.analysis.finding), dtype=np.uint8)
    result = result_dataset(what, source, ArtifactKind.SECONDARY_CAPTURE, SECONDARY_CAPTURE)
    origin = reference(str(source.SOPClassUID), str(source.SOPInstanceUID))
    put(
        origin,
        PurposeOfReferenceCodeSequence=items(coded("121322", "DCM", "Source image for image processing operation")),
    )
    put(
        result,
        Modality="OT",
        SeriesDescription=f"AI overlay, not a diagnosis{', uncalibrated' if not image.spacing_mm else ''}",
        ConversionType="WSD",
        SecondaryCaptureDeviceManufacturer=MANUFACTURER,
        ImageType=["DERIVED", "SECONDARY"],
        DerivationDescription=f"Lesion outline and legend drawn on the image; {DEVICE_NOTE}",
        SourceImageSequence=items(origin),
        PatientOrientation=None,
        BurnedInAnnotation="YES",
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
        Rows=int(drawn.shape[0]),
        Columns=int(drawn.shape[1]),
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
        PixelRepresentation=0,
        **lossy_history(source, what.source.header.transfer_syntax_uid),
        PixelData=drawn.tobytes() + b"\0" * (drawn.size % 2),
    )
    put_laterality(result, str(source.get("ImageLaterality") or source.get("Laterality") or ""))
    if image.spacing_mm:
        put(result, PixelSpacing=[decimal(v) for v in image.spacing_mm])
    return artifact(ArtifactKind.SECONDARY_CAPTURE, result)
