"""The rejection note: a Key Object Selection that names what an amendment replaced (IHE RAD TF-3 4.66, IOCM).

An archive that knows the profile hides the objects named, so that the amended ones replace them. Each note names all of
the earlier revisions, so that one that never arrived is made good by the next.
"""

from __future__ import annotations

from typing import Final

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dicom
from pydicom.sr.coding import Code as DicomCode

from dermoscopy.domain import Artifact, ArtifactKind
from dermoscopy.errors import AnalysisFailed
from dermoscopy.identifiers import series_uid
from dermoscopy.ports import FormerOutput, RenderInput
from dermoscopy.reviews import standing
from dicom_listener.render.modules import artifact, common, complete, put, stand_in
from dicom_listener.render.reviewed import person_context
from dicom_listener.render.source import source_dataset

QUALITY: Final = dicom.DCM.RejectedForQualityReasons
SAFETY: Final = DicomCode("113037", "DCM", "Rejected for Patient Safety Reasons")
_IMAGES: Final = (ArtifactKind.SEG, ArtifactKind.SECONDARY_CAPTURE)


def render_rejection_note(what: RenderInput) -> Artifact:
    """Key Object Selection (TID 2010) of every former object that is not part of the present revision.

    Titled "Rejected for Quality Reasons" where amended ones stand in their place, "Rejected for Patient Safety Reasons"
    where the result was withdrawn. Raises `AnalysisFailed` when nothing was replaced.
    """
    present = {one.uid for one in what.companions.values()}
    gone = [one for one in dict.fromkeys(what.former) if one.uid not in present]
    if not gone:
        raise AnalysisFailed("nothing was replaced: there is nothing to reject")
    now = standing(what.reviews)
    source = source_dataset(what.source, what.image)
    evidence = [_former(one, what, source) for one in gone]
    why = "Withdrawn by a clinician: do not use" if now.withdrawn else "Replaced by results that a clinician amended"
    content = KeyObjectSelection(
        document_title=SAFETY if now.withdrawn else QUALITY,
        referenced_objects=evidence,
        observer_person_context=person_context(now.last) if now.last else None,
        description=why,
    )
    result = KeyObjectSelectionDocument(
        evidence=evidence,
        content=content,
        series_description="AI results replaced or withdrawn",
        **common(what, source, ArtifactKind.REJECTION_NOTE),
    )
    complete(result, what, source, ArtifactKind.REJECTION_NOTE)
    return artifact(ArtifactKind.REJECTION_NOTE, result)


def _former(one: FormerOutput, what: RenderInput, source: Dataset) -> Dataset:
    """A former object as highdicom takes references from it; what has rows is referred to as an image."""
    uids = put(
        Dataset(),
        StudyInstanceUID=str(source.StudyInstanceUID),
        SeriesInstanceUID=series_uid(one.kind, what.analysis.id),
        SOPClassUID=one.sop_class_uid,
        SOPInstanceUID=one.uid,
    )
    size = {"Rows": what.image.rows, "Columns": what.image.columns} if one.kind in _IMAGES else {}
    return put(stand_in(uids), **size)
