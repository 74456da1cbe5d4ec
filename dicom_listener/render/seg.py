"""The lesion mask as a BINARY Segmentation at source size (PS3.3 A.51, C.8.20).

Plane geometry is always written, because three of five readers need it; without a known scale it is a plane of unit
pixels, and every description says "uncalibrated". Built element by element: a general-purpose library costs several
times as much here.
"""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from dermoscopy.codes import ARTIFICIAL_INTELLIGENCE, SEGMENT_CATEGORY, SEGMENT_TYPE, site
from dermoscopy.domain import Artifact, ArtifactKind, derive_uid
from dermoscopy.errors import AnalysisFailed
from dermoscopy.ports import RenderInput
from dicom_listener.render.attributes import Attributes, put
from dicom_listener.render.modules import (
    DEVICE_NOTE,
    artifact,
    code_item,
    coded,
    decimal,
    items,
    lossy_history,
    reference,
    result_dataset,
    site_items,
)
from dicom_listener.render.source import source_dataset
from dicom_listener.syntaxes import SEGMENTATION

SEGMENT_NUMBER = 1
_GREEN_CIELAB = [52428, 9252, 50886]
"""Recommended Display CIELab Value of the contour green (PS3.3 C.10.7.1.1)."""


def render_seg(what: RenderInput) -> Artifact:
    """Segmentation with one segment and one frame, shape (rows, columns) of the source.

    Raises `AnalysisFailed` when no lesion was found or the mask has another size than the image: there is no SEG then.
    """
    finding, image = what.analysis.finding, what.image
    if finding.measurements is None or not finding.mask.any():
        raise AnalysisFailed("no lesion was outlined: there is nothing to segment")
    if finding.mask.shape != (image.rows, image.columns):
        raise AnalysisFailed(f"mask of {finding.mask.shape} does not fit the image of {(image.rows, image.columns)}")
    source = source_dataset(what.source, image)
    scale = "" if image.spacing_mm else ", uncalibrated (no scale known, unit pixels)"
    result = result_dataset(what, source, ArtifactKind.SEG, SEGMENTATION)
    put(
        result,
        Modality="SEG",
        SeriesDescription=f"Lesion outline by AI{', uncalibrated' if not image.spacing_mm else ''}",
        ImageType=["DERIVED", "PRIMARY"],
        PatientOrientation=None,
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        Rows=image.rows,
        Columns=image.columns,
        BitsAllocated=1,
        BitsStored=1,
        HighBit=0,
        PixelRepresentation=0,
        NumberOfFrames="1",
        SegmentationType="BINARY",
        SegmentsOverlap="NO",
        ContentLabel="LESION",
        ContentDescription=DEVICE_NOTE,
        ContentCreatorName=None,
        FrameOfReferenceUID=str(
            source.get("FrameOfReferenceUID") or derive_uid("frame-of-reference", str(source.SOPInstanceUID))
        ),
        PositionReferenceIndicator=None,
        SegmentSequence=items(_segment(what, source, scale)),
        SharedFunctionalGroupsSequence=items(_shared_groups(what)),
        PerFrameFunctionalGroupsSequence=items(_frame_groups(source)),
        ReferencedSeriesSequence=items(_referenced_series(source)),
        **_dimensions(what),
        **lossy_history(source, what.source.header.transfer_syntax_uid),
        PixelData=_packed(what),
    )
    return artifact(ArtifactKind.SEG, result)


def tracking(what: RenderInput, source: Dataset) -> tuple[str, str]:
    """(Tracking ID, Tracking UID) of the lesion: the source's where it tracks one, else derived from the instance."""
    stated_id, stated_uid = str(source.get("TrackingID") or ""), str(source.get("TrackingUID") or "")
    if stated_id and stated_uid:
        return stated_id, stated_uid
    return f"lesion-{what.analysis.instance_id}", derive_uid("lesion", what.analysis.instance_id)


def _packed(what: RenderInput) -> bytes:
    """One bit per pixel, the first pixel in the lowest bit (PS3.5 8.1.1), padded to an even length."""
    packed = np.packbits(what.analysis.finding.mask, bitorder="little").tobytes()
    return packed + b"\0" * (len(packed) % 2)


def _segment(what: RenderInput, source: Dataset, scale: str) -> Attributes:
    finding = what.analysis.finding
    tracking_id, tracking_uid = tracking(what, source)
    algorithm = put(
        Attributes(),
        AlgorithmFamilyCodeSequence=items(code_item(ARTIFICIAL_INTELLIGENCE)),
        AlgorithmName=finding.model.name[:64],
        AlgorithmVersion=finding.model.version[:64],
        AlgorithmParameters=f"sha256={finding.model.digest}",
    )
    segment = put(
        Attributes(),
        SegmentNumber=SEGMENT_NUMBER,
        SegmentLabel="Lesion",
        SegmentDescription=f"Largest lesion in the image{scale}; {DEVICE_NOTE}",
        SegmentAlgorithmType="AUTOMATIC",
        SegmentAlgorithmName=finding.model.name[:64],
        SegmentedPropertyCategoryCodeSequence=items(code_item(SEGMENT_CATEGORY)),
        SegmentedPropertyTypeCodeSequence=items(code_item(SEGMENT_TYPE)),
        SegmentationAlgorithmIdentificationSequence=items(algorithm),
        RecommendedDisplayCIELabValue=_GREEN_CIELAB,
        TrackingID=tracking_id,
        TrackingUID=tracking_uid,
    )
    sites = [code_item(site(code)) for code in site_items(what)]
    if sites:
        put(segment, AnatomicRegionSequence=items(*sites))
    return segment


def _shared_groups(what: RenderInput) -> Attributes:
    spacing = what.image.spacing_mm or (1.0, 1.0)
    measures = put(Attributes(), PixelSpacing=[decimal(v) for v in spacing], SliceThickness="1")
    orientation = put(Attributes(), ImageOrientationPatient=["1", "0", "0", "0", "1", "0"])
    return put(Attributes(), PixelMeasuresSequence=items(measures), PlaneOrientationSequence=items(orientation))


def _frame_groups(source: Dataset) -> Attributes:
    """Segment, place and source of the frame; readers look for the source here, not among the shared groups."""
    origin = reference(str(source.SOPClassUID), str(source.SOPInstanceUID))
    purpose = coded("121322", "DCM", "Source image for image processing operation")
    put(origin, PurposeOfReferenceCodeSequence=items(purpose), SpatialLocationsPreserved="YES")
    derivation = put(
        Attributes(),
        DerivationCodeSequence=items(coded("113076", "DCM", "Segmentation")),
        SourceImageSequence=items(origin),
    )
    return put(
        Attributes(),
        FrameContentSequence=items(put(Attributes(), DimensionIndexValues=[1, 1])),
        PlanePositionSequence=items(put(Attributes(), ImagePositionPatient=["0", "0", "0"])),
        DerivationImageSequence=items(derivation),
        SegmentIdentificationSequence=items(put(Attributes(), ReferencedSegmentNumber=SEGMENT_NUMBER)),
    )


def _dimensions(what: RenderInput) -> dict[str, object]:
    """Multi-frame Dimension module (PS3.3 C.7.6.17): by segment, then by position."""
    uid = derive_uid("dimension-organization", what.analysis.id)
    segment = put(
        Attributes(),
        DimensionOrganizationUID=uid,
        DimensionIndexPointer=0x0062000B,
        FunctionalGroupPointer=0x0062000A,
        DimensionDescriptionLabel="Segment",
    )
    position = put(
        Attributes(),
        DimensionOrganizationUID=uid,
        DimensionIndexPointer=0x00200032,
        FunctionalGroupPointer=0x00209113,
        DimensionDescriptionLabel="Position",
    )
    return {
        "DimensionOrganizationSequence": items(put(Attributes(), DimensionOrganizationUID=uid)),
        "DimensionIndexSequence": items(segment, position),
    }


def _referenced_series(source: Dataset) -> Attributes:
    return put(
        Attributes(),
        SeriesInstanceUID=str(source.SeriesInstanceUID),
        ReferencedInstanceSequence=items(reference(str(source.SOPClassUID), str(source.SOPInstanceUID))),
    )
