"""The finding as a structured report: Comprehensive SR after TID 1500 "Measurement Report" (PS3.16).

Two measurement groups: the lesion (TID 1410, with the segment it measures) and the image as a whole (TID 1501: class
probabilities, risk, triage, abstention). Both name the algorithm (TID 4019).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dicom
from pydicom.sr.coding import Code as DicomCode

from dermoscopy import codes
from dermoscopy.codes import Code
from dermoscopy.domain import Artifact, ArtifactKind, LesionMeasurements, ReportStatus, ScaleSource, derive_uid
from dermoscopy.identifiers import series_uid
from dermoscopy.ports import RenderInput
from dermoscopy.reviews import UNREVIEWED, Standing, standing
from dicom_listener.part10 import MANUFACTURER
from dicom_listener.render.modules import (
    DEVICE_NOTE,
    artifact,
    coded,
    common,
    complete,
    put,
    stand_in,
)
from dicom_listener.render.reviewed import attest, observed_by_person, review_group, sites
from dicom_listener.render.revisions import result_uid
from dicom_listener.render.seg import SEGMENT_NUMBER, tracking
from dicom_listener.render.source import source_dataset
from dicom_listener.syntaxes import SEGMENTATION

Group = sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations

_CONTAINS: Final = sr.RelationshipTypeValues.CONTAINS
_COMMENT: Final = dicom.DCM.Comment
_OBSERVER: Final = dicom.DCM.Device
_SOURCE: Final = dicom.SCT.Source
_LIBRARY: Final = dicom.DCM.ImageLibrary
_LIBRARY_GROUP: Final = dicom.DCM.ImageLibraryGroup


def render_sr(what: RenderInput) -> Artifact:
    """The report, flagged complete, preliminary and unverified until a clinician has reviewed it.

    A reviewed one says what the clinician says beside what the algorithm says; a withdrawn one says only that.
    """
    source = source_dataset(what.source, what.image)
    outlined = exists_segmentation(what)
    report = sr.MeasurementReport(
        observation_context=_observer(what),
        procedure_reported=coded(codes.DERMATOSCOPY),
        imaging_measurements=_groups(what, source),
    )
    evidence = [stand_in(source), *([_segmentation(what, source)] if outlined else [])]
    result = sr.ComprehensiveSR(
        evidence=evidence,
        content=_references(report[0], evidence),
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="AI measurements and classification",
        coding_schemes=[_our_scheme()],
        **common(what, source, ArtifactKind.SR),
    )
    result.ContentSequence = report[0].ContentSequence
    result.ContentSequence.insert(len(result.ContentSequence) - 1, _image_library(source))
    withdrawn = what.status is ReportStatus.ENTERED_IN_ERROR
    result.CompletionFlagDescription = "Withdrawn by a clinician: do not use" if withdrawn else DEVICE_NOTE
    attest(result, what, source)
    complete(result, what, source, ArtifactKind.SR)
    return artifact(ArtifactKind.SR, result)


def exists_segmentation(what: RenderInput) -> bool:
    """Whether there is a segmentation that the report refers to."""
    if what.status is ReportStatus.ENTERED_IN_ERROR:
        return False
    return what.outlined is not None or what.analysis.finding.measurements is not None


def _groups(what: RenderInput, source: Dataset) -> list[Group]:
    """The measurement groups: the clinician's first, then the algorithm's own."""
    clinician: list[Group] = []
    if what.revision:
        clinician.append(review_group(what, source))
    if what.status is ReportStatus.ENTERED_IN_ERROR:
        return clinician
    if what.outlined is not None:
        group = _lesion_group(what, source, what.outlined.measurements, standing(what.reviews))
        observed_by_person(group, what)
        note = "Outline drawn by a clinician; measured in it by this service."
        group[0].ContentSequence.append(_text(_COMMENT, note))
        clinician.append(group)
    measured = what.analysis.finding.measurements
    if measured is None:
        return [*clinician, _image_group(what, source)]
    own = _lesion_group(what, source, measured) if what.outlined is None else _replaced_group(what, source, measured)
    return [*clinician, own, _image_group(what, source)]


def _replaced_group(
    what: RenderInput, source: Dataset, measured: LesionMeasurements
) -> sr.MeasurementsAndQualitativeEvaluations:
    """What the algorithm measured in its own outline, which is not the segmentation any more (TID 1501)."""
    tracking_id, tracking_uid = tracking(what, source)
    values = [(row, getattr(measured, row.attribute)) for row in codes.MEASUREMENTS]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=tracking_uid, identifier=tracking_id),
        finding_category=coded(codes.SEGMENT_CATEGORY),
        finding_type=coded(codes.SEGMENT_TYPE),
        finding_sites=_sites(what),
        algorithm_id=_algorithm(what),
        measurements=[_number(row.concept, value, row.unit) for row, value in values if value is not None],
        source_images=[sr.SourceImageForMeasurementGroup(str(source.SOPClassUID), str(source.SOPInstanceUID))],
    )
    note = "Measured by the algorithm in its own outline, which a clinician has replaced."
    group[0].ContentSequence.append(_text(_COMMENT, note))
    return group


def _references(root: Dataset, evidence: Sequence[Dataset]) -> Dataset:
    """The root of the report with nothing below it but references to the evidence.

    highdicom copies and parses what it is given, item by item, to find in it which evidence is referred to: half of
    the whole rendering. All of ours is, so it is given the short answer, and the whole tree is put in afterwards.
    """
    short = Dataset()
    for element in root:
        if element.keyword != "ContentSequence":
            short.add(element)
    references = [
        sr.ImageContentItem(_SOURCE, str(one.SOPClassUID), str(one.SOPInstanceUID), relationship_type=_CONTAINS)
        for one in evidence
    ]
    short.ContentSequence = sr.ContentSequence(references)
    return short


def _our_scheme() -> CodingSchemeIdentificationItem:
    """Our private coding scheme (PS3.3 C.12.1.1); highdicom drops the UID of one that no registry lists."""
    scheme = CodingSchemeIdentificationItem(codes.SCHEMES[codes.LOCAL], "Dermoscopy CDS concepts")
    scheme.CodingSchemeUID = codes.LOCAL_UID
    return scheme


def _segmentation(what: RenderInput, source: Dataset) -> Dataset:
    """What the evidence says of our segmentation (PS3.3 C.17.2.3)."""
    return put(
        Dataset(),
        StudyInstanceUID=str(source.StudyInstanceUID),
        SeriesInstanceUID=series_uid(ArtifactKind.SEG, what.analysis.id),
        SOPClassUID=SEGMENTATION,
        SOPInstanceUID=result_uid(ArtifactKind.SEG, what),
    )


def _observer(what: RenderInput) -> sr.ObservationContext:
    """A device observes (TID 1001, 1002, 1004)."""
    model = what.analysis.finding.model
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derive_uid("device", model.digest),
        name=model.name,
        manufacturer_name=MANUFACTURER,
        model_name=f"{model.name} {model.version}",
    )
    return sr.ObservationContext(observer_device_context=sr.ObserverContext(_OBSERVER, device))


def _image_library(source: Dataset) -> sr.ContainerContentItem:
    """Image Library (TID 1600). By hand, because highdicom's own does not know Dermoscopic Photography."""
    library = sr.ContainerContentItem(_LIBRARY, template_id="1600", relationship_type=_CONTAINS)
    group = sr.ContainerContentItem(_LIBRARY_GROUP, relationship_type=_CONTAINS)
    image = sr.ImageContentItem(
        _SOURCE, str(source.SOPClassUID), str(source.SOPInstanceUID), relationship_type=_CONTAINS
    )
    group.ContentSequence = sr.ContentSequence([image])
    library.ContentSequence = sr.ContentSequence([group])
    return library


# ----------------------------------------------------------------------------------------------- the measurement groups


def _lesion_group(
    what: RenderInput, source: Dataset, measured: LesionMeasurements, corrected: Standing | None = None
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """Measurements of the segmented lesion (TID 1410); millimetres only where the image states its scale.

    ``corrected`` is what stands where the outline is a clinician's: then no algorithm is named as its author.
    """
    tracking_id, tracking_uid = tracking(what, source)
    segment = sr.ReferencedSegmentationFrame(
        sop_class_uid=SEGMENTATION,
        sop_instance_uid=result_uid(ArtifactKind.SEG, what),
        frame_number=1,
        segment_number=SEGMENT_NUMBER,
        source_image=sr.SourceImageForSegmentation(str(source.SOPClassUID), str(source.SOPInstanceUID)),
    )
    # frame or segment, never both (PS3.3 10.3); the constructor demands both
    del segment[0].ReferencedSOPSequence[0].ReferencedFrameNumber
    values = [(row, getattr(measured, row.attribute)) for row in codes.MEASUREMENTS]
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=tracking_uid, identifier=tracking_id),
        referenced_segment=segment,
        finding_category=coded(codes.SEGMENT_CATEGORY),
        finding_type=coded(codes.SEGMENT_TYPE),
        finding_sites=_sites(what) if corrected is None else sites(what, corrected),
        algorithm_id=_algorithm(what) if corrected is None else None,
        measurements=[_number(row.concept, value, row.unit) for row, value in values if value is not None],
    )
    if measured.scale_source is ScaleSource.RULER:
        note = "Calibrated by ruler marks read in the image, not by its header."
        group[0].ContentSequence.append(_text(_COMMENT, note))
    elif what.image.spacing_mm is None:
        group[0].ContentSequence.append(_text(_COMMENT, "Uncalibrated: the image states no scale."))
    return group


def _image_group(what: RenderInput, source: Dataset) -> sr.MeasurementsAndQualitativeEvaluations:
    """What the algorithm says of the image as a whole (TID 1501)."""
    finding, instance_id = what.analysis.finding, what.analysis.instance_id
    numbers = [(codes.CLASS_PROBABILITY[one.label], one.probability) for one in finding.classes]
    numbers += [
        (codes.MELANOMA_RISK, finding.melanoma_risk),
        (codes.MALIGNANCY_RISK, finding.malignancy_risk),
        (codes.CONFIDENCE, finding.confidence),
    ]
    said = [(codes.TRIAGE_TIER, codes.TRIAGE[finding.triage.tier])]
    if finding.primary is not None:
        said.insert(0, (codes.CLASSIFICATION, codes.class_code(finding.primary)))
    said += [(codes.PREDICTION_SET, codes.class_code(label)) for label in finding.prediction_set]
    said += [(codes.ABSTENTION, codes.ABSTENTION_REASONS[reason.code]) for reason in finding.abstention_reasons]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=derive_uid("image-finding", instance_id), identifier=f"image-{instance_id}"
        ),
        finding_type=coded(codes.CLASSIFICATION),
        finding_sites=_sites(what),
        algorithm_id=_algorithm(what),
        measurements=[_number(concept, 100 * value, codes.PERCENT) for concept, value in numbers],
        qualitative_evaluations=[sr.QualitativeEvaluation(coded(name), coded(value)) for name, value in said],
        source_images=[sr.SourceImageForMeasurementGroup(str(source.SOPClassUID), str(source.SOPInstanceUID))],
    )
    advice = " ".join(part for part in (finding.triage.reason, finding.triage.recommendation, DEVICE_NOTE) if part)
    texts = [
        (coded(codes.ABSTENTION), finding.abstention),
        (coded(codes.DECISION_NOTE), finding.decision_note),
        (coded(codes.EXPLANATION), "; ".join(finding.explanation)),
        (coded(codes.CHANGE), "" if what.change is None else what.change.summary),
        (_COMMENT, advice),
    ]
    group[0].ContentSequence.extend(_text(name, value) for name, value in texts if value)
    return group


def _sites(what: RenderInput) -> list[sr.FindingSite]:
    """Finding Site with its laterality (TID 1501 row 9), where the image states one."""
    return sites(what, UNREVIEWED)


def _algorithm(what: RenderInput) -> sr.AlgorithmIdentification:
    """Algorithm Identification (TID 4019): name, version, and which weights and thresholds."""
    finding = what.analysis.finding
    parameters = [
        f"sha256={finding.model.digest}",
        f"preprocessing={finding.inference.preprocessing_digest}",
        *(f"threshold.{name}={value:g}" for name, value in sorted(finding.inference.thresholds.items())),
    ]
    return sr.AlgorithmIdentification(finding.model.name, finding.model.version, parameters)


def _number(concept: Code, value: float, unit: Code) -> sr.Measurement:
    return sr.Measurement(coded(concept), float(value), coded(unit))


def _text(concept: DicomCode, value: str) -> sr.TextContentItem:
    return sr.TextContentItem(concept, value, relationship_type=_CONTAINS)
