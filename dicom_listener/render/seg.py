"""The lesion mask as a BINARY Segmentation at source size (PS3.3 A.51, C.8.20).

Plane geometry is always written, because three of five readers need it; without a known scale it is a plane of unit
pixels, and every description says "uncalibrated".
"""

from __future__ import annotations

from typing import Final

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset

from dermoscopy.codes import (
    ARTIFICIAL_INTELLIGENCE,
    HAIR,
    HAIR_CATEGORY,
    MORPHOLOGICAL_OPERATIONS,
    SEGMENT_CATEGORY,
    SEGMENT_TYPE,
    site,
)
from dermoscopy.domain import Artifact, ArtifactKind, Mask, derive_uid
from dermoscopy.errors import AnalysisFailed
from dermoscopy.ports import RenderInput
from dermoscopy.reviews import standing
from dicom_listener.render.modules import (
    DEVICE_NOTE,
    artifact,
    coded,
    common,
    complete,
    decimals,
    lossy_history,
    put,
    stand_in,
)
from dicom_listener.render.reviewed import person_name
from dicom_listener.render.source import source_dataset
from dicom_listener.syntaxes import VL_PHOTOGRAPHIC

SEGMENT_NUMBER: Final = 1
HAIR_SEGMENT_NUMBER: Final = 2
MANUAL: Final = "MANUAL"
CORRECTED_NOTE: Final = "Lesion outline corrected by a clinician"
_CLASS_WITHOUT_FRAMES: Final = VL_PHOTOGRAPHIC
_GREEN: Final = CIELabColor.from_dicom_value((52428, 9252, 50886))
"""The green of the drawn contour."""
_ORANGE: Final = CIELabColor.from_dicom_value((45000, 42000, 50000))


def render_seg(what: RenderInput) -> Artifact:
    """Segmentation with one segment and one frame, shape (rows, columns) of the source.

    Raises `AnalysisFailed` when no lesion was found or the mask has another size than the image: there is no SEG then.
    """
    finding, image = what.analysis.finding, what.image
    mask = finding.mask if what.outlined is None else what.outlined.mask
    if (finding.measurements is None and what.outlined is None) or not mask.any():
        raise AnalysisFailed("no lesion was outlined: there is nothing to segment")
    if mask.shape != (image.rows, image.columns):
        raise AnalysisFailed(f"mask of {mask.shape} does not fit the image of {(image.rows, image.columns)}")
    source = source_dataset(what.source, image)
    hair = _hair_of(what)
    result = Segmentation(
        source_images=[_on_a_plane(what, source)],
        pixel_array=mask.astype(bool, copy=False) if hair is None else np.stack([mask, hair], axis=-1)[np.newaxis],
        segmentation_type="BINARY",
        segment_descriptions=[_segment(what, source), *([_hair_segment(what)] if hair is not None else [])],
        series_description=f"Lesion outline by AI{', uncalibrated' if not image.spacing_mm else ''}",
        content_label="LESION",
        content_description=DEVICE_NOTE if what.outlined is None else CORRECTED_NOTE,
        **common(what, source, ArtifactKind.SEG),
    )
    drawn_by = next((one for one in reversed(what.reviews) if one.outline), None)
    put(result, PatientOrientation=None, ContentCreatorName=person_name(drawn_by) if drawn_by else None)
    organization = derive_uid("dimension-organization", what.analysis.id)
    for item in (*result.DimensionOrganizationSequence, *result.DimensionIndexSequence):
        item.DimensionOrganizationUID = organization
    _name_class(result, source)
    complete(result, what, source, ArtifactKind.SEG)
    return artifact(ArtifactKind.SEG, result)


def _hair_of(what: RenderInput) -> Mask | None:
    """Hair, where it was looked for and found in an image of this size."""
    hair = what.hair
    return hair if hair is not None and hair.any() and hair.shape == (what.image.rows, what.image.columns) else None


def _hair_segment(what: RenderInput) -> SegmentDescription:
    """Hair over skin and lesion: it overlaps the lesion's segment. Ruler marks and a lens's rim may be taken for it."""
    instance_id = what.analysis.instance_id
    segment = SegmentDescription(
        segment_number=HAIR_SEGMENT_NUMBER,
        segment_label="Hair",
        segmented_property_category=coded(HAIR_CATEGORY),
        segmented_property_type=coded(HAIR),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name="Thin straight structures",
            family=coded(MORPHOLOGICAL_OPERATIONS),
            version=what.analysis.finding.inference.code_version[:64],
        ),
        tracking_id=f"hair-{instance_id}",
        tracking_uid=derive_uid("hair", instance_id),
        display_color=_ORANGE,
    )
    segment.SegmentDescription = f"Hair and other thin lines; {DEVICE_NOTE}"
    return segment


def tracking(what: RenderInput, source: Dataset) -> tuple[str, str]:
    """(Tracking ID, Tracking UID) of the lesion: the source's where it tracks one, else derived from the instance."""
    stated_id, stated_uid = str(source.get("TrackingID") or ""), str(source.get("TrackingUID") or "")
    if stated_id and stated_uid:
        return stated_id, stated_uid
    return f"lesion-{what.analysis.instance_id}", derive_uid("lesion", what.analysis.instance_id)


def _on_a_plane(what: RenderInput, source: Dataset) -> Dataset:
    """The source as highdicom takes geometry from it: a photograph has none, so it gets a plane at the origin."""
    return put(
        stand_in(source),
        SOPClassUID=_CLASS_WITHOUT_FRAMES,
        Rows=what.image.rows,
        Columns=what.image.columns,
        FrameOfReferenceUID=str(
            source.get("FrameOfReferenceUID") or derive_uid("frame-of-reference", str(source.SOPInstanceUID))
        ),
        ImagePositionPatient=[0, 0, 0],
        ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        PixelSpacing=decimals(what.image.spacing_mm or (what.image.aspect, 1.0)),
        SliceThickness=1,
        **lossy_history(source, what.source.header.transfer_syntax_uid),
    )


def _name_class(result: Dataset, source: Dataset) -> None:
    """The source's own class wherever it is referred to.

    highdicom was given one without frames, because it looks for functional groups in every class that may have some.
    """
    for element in result.iterall():
        if element.keyword == "ReferencedSOPClassUID" and element.value == _CLASS_WITHOUT_FRAMES:
            element.value = str(source.SOPClassUID)


def _how(what: RenderInput) -> str:
    """Segment Algorithm Type (0062,0008): a clinician corrects the algorithm's outline, or draws where it had none."""
    if what.outlined is None:
        return "AUTOMATIC"
    return MANUAL if what.analysis.finding.measurements is None else "SEMIAUTOMATIC"


def _segment(what: RenderInput, source: Dataset) -> SegmentDescription:
    model = what.analysis.finding.model
    site_code = standing(what.reviews).body_site_code or what.analysis.header.body_site_code
    tracking_id, tracking_uid = tracking(what, source)
    segment = SegmentDescription(
        segment_number=SEGMENT_NUMBER,
        segment_label="Lesion",
        segmented_property_category=coded(SEGMENT_CATEGORY),
        segmented_property_type=coded(SEGMENT_TYPE),
        algorithm_type=_how(what),
        algorithm_identification=None
        if _how(what) == MANUAL
        else AlgorithmIdentificationSequence(
            name=model.name[:64],
            family=coded(ARTIFICIAL_INTELLIGENCE),
            version=model.version[:64],
            parameters={"sha256": model.digest},
        ),
        tracking_id=tracking_id,
        tracking_uid=tracking_uid,
        anatomic_regions=[coded(site(site_code))] if site_code else None,
        display_color=_GREEN,
    )
    scale = "" if what.image.spacing_mm else ", uncalibrated (no scale known, unit pixels)"
    whose = f"Largest lesion in the image{scale}; {DEVICE_NOTE}"
    segment.SegmentDescription = whose if what.outlined is None else f"{CORRECTED_NOTE}{scale}"
    return segment
