"""The finding as a structured report: Comprehensive SR after TID 1500 "Measurement Report" (PS3.16).

Two measurement groups: the lesion (TID 1410, with the segment it measures) and the image as a whole (TID 1501: class
probabilities, risk, triage, abstention). Both name the algorithm (TID 4019). Built item by item, see `seg`.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from dermoscopy import codes
from dermoscopy.codes import Code
from dermoscopy.domain import Artifact, ArtifactKind, derive_uid
from dermoscopy.ports import RenderInput
from dicom_listener.render.attributes import Attributes, put
from dicom_listener.render.modules import (
    DEVICE_NOTE,
    MANUFACTURER,
    artifact,
    code_item,
    coded,
    coding_schemes,
    decimal,
    items,
    reference,
    result_dataset,
    result_uid,
    site_items,
)
from dicom_listener.render.seg import SEGMENT_NUMBER, tracking
from dicom_listener.render.source import source_dataset
from dicom_listener.syntaxes import COMPREHENSIVE_SR, SEGMENTATION

CONTAINS, HAS_CONCEPT_MOD, HAS_OBS_CONTEXT = "CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT"
_DCM = "DCM"


def render_sr(what: RenderInput) -> Artifact:
    """The report, flagged complete, preliminary and unverified: a clinician has not confirmed it."""
    source = source_dataset(what.source, what.image)
    result = result_dataset(what, source, ArtifactKind.SR, COMPREHENSIVE_SR)
    put(
        result,
        Modality="SR",
        SeriesDescription="AI measurements and classification",
        ReferencedPerformedProcedureStepSequence=items(),
        CodingSchemeIdentificationSequence=coding_schemes(),
        CompletionFlag="COMPLETE",
        CompletionFlagDescription=DEVICE_NOTE,
        PreliminaryFlag="PRELIMINARY",
        VerificationFlag="UNVERIFIED",
        PerformedProcedureCodeSequence=items(),
        CurrentRequestedProcedureEvidenceSequence=items(_evidence(what, source)),
        ValueType="CONTAINER",
        ConceptNameCodeSequence=items(coded("126000", _DCM, "Imaging Measurement Report")),
        ContinuityOfContent="SEPARATE",
        ContentTemplateSequence=items(_template("1500")),
        ContentSequence=items(*_report(what, source)),
    )
    return artifact(ArtifactKind.SR, result)


# --------------------------------------------------------------------------------------------------------- the report


def _report(what: RenderInput, source: Dataset) -> list[Attributes]:
    measurements = [_image_group(what, source)]
    if what.analysis.finding.measurements is not None:
        measurements.insert(0, _lesion_group(what, source))
    return [
        _with_content(
            _code(HAS_CONCEPT_MOD, coded("121049", _DCM, "Language of Content Item and Descendants"), _ENGLISH),
            _code(HAS_CONCEPT_MOD, coded("121046", _DCM, "Country of Language"), coded("US", "ISO3166_1", "US")),
        ),
        *_observer(what),
        _code(HAS_CONCEPT_MOD, coded("121058", _DCM, "Procedure reported"), code_item(codes.DERMATOSCOPY)),
        _container(
            coded("111028", _DCM, "Image Library"),
            _container(coded("126200", _DCM, "Image Library Group"), _image(None, source), template="1602"),
            template="1600",
        ),
        _container(coded("126010", _DCM, "Imaging Measurements"), *measurements),
    ]


def _observer(what: RenderInput) -> list[Attributes]:
    """Observation context: a device observes (TID 1001, 1002, 1004)."""
    model = what.analysis.finding.model
    return [
        _code(HAS_OBS_CONTEXT, coded("121005", _DCM, "Observer Type"), coded("121007", _DCM, "Device")),
        _uid(HAS_OBS_CONTEXT, coded("121012", _DCM, "Device Observer UID"), derive_uid("device", model.digest)),
        _text(HAS_OBS_CONTEXT, coded("121013", _DCM, "Device Observer Name"), model.name),
        _text(HAS_OBS_CONTEXT, coded("121014", _DCM, "Device Observer Manufacturer"), MANUFACTURER),
        _text(HAS_OBS_CONTEXT, coded("121015", _DCM, "Device Observer Model Name"), f"{model.name} {model.version}"),
    ]


def _lesion_group(what: RenderInput, source: Dataset) -> Attributes:
    """Measurements of the segmented lesion (TID 1410); millimetres only where the image states its scale."""
    measured = what.analysis.finding.measurements
    segment = put(
        reference(SEGMENTATION, result_uid(ArtifactKind.SEG, what)),
        ReferencedSegmentNumber=SEGMENT_NUMBER,
    )
    group = [
        *_tracking(*tracking(what, source)),
        _code(CONTAINS, coded("276214006", "SCT", "Finding category"), code_item(codes.SEGMENT_CATEGORY)),
        _code(CONTAINS, coded("121071", _DCM, "Finding"), code_item(codes.SEGMENT_TYPE)),
        *_sites(what),
        _image_item(coded("121214", _DCM, "Referenced Segmentation Frame"), segment),
        _image(coded("121233", _DCM, "Source image for segmentation"), source),
        *_algorithm(what),
    ]
    for row in codes.MEASUREMENTS:
        value = getattr(measured, row.attribute)
        if value is not None:
            group.append(_number(row.concept, float(value), row.unit))
    if what.image.spacing_mm is None:
        group.append(_text(CONTAINS, coded("121106", _DCM, "Comment"), "Uncalibrated: the image states no scale."))
    return _container(coded("125007", _DCM, "Measurement Group"), *group, template="1410")


def _image_group(what: RenderInput, source: Dataset) -> Attributes:
    """What the algorithm says of the image as a whole (TID 1501)."""
    finding = what.analysis.finding
    percent = codes.PERCENT
    group = [
        *_tracking(f"image-{what.analysis.instance_id}", derive_uid("image-finding", what.analysis.instance_id)),
        _code(CONTAINS, coded("121071", _DCM, "Finding"), code_item(codes.CLASSIFICATION)),
        *_sites(what),
        *_algorithm(what),
    ]
    group += [_number(codes.CLASS_PROBABILITY[c.label], 100 * c.probability, percent) for c in finding.classes]
    group += [
        _number(codes.MELANOMA_RISK, 100 * finding.melanoma_risk, percent),
        _number(codes.MALIGNANCY_RISK, 100 * finding.malignancy_risk, percent),
        _number(codes.CONFIDENCE, 100 * finding.confidence, percent),
    ]
    if finding.primary is not None:
        group.append(_code(CONTAINS, code_item(codes.CLASSIFICATION), code_item(codes.class_code(finding.primary))))
    group.append(_code(CONTAINS, code_item(codes.TRIAGE_TIER), code_item(codes.TRIAGE[finding.triage.tier])))
    if finding.abstention:
        group.append(_text(CONTAINS, code_item(codes.ABSTENTION), finding.abstention))
    explanation = "; ".join(finding.explanation)
    if explanation:
        group.append(_text(CONTAINS, code_item(codes.EXPLANATION), explanation))
    advice = " ".join(part for part in (finding.triage.reason, finding.triage.recommendation, DEVICE_NOTE) if part)
    group.append(_text(CONTAINS, coded("121106", _DCM, "Comment"), advice))
    group.append(_image(coded("121112", _DCM, "Source of Measurement"), source))
    return _container(coded("125007", _DCM, "Measurement Group"), *group, template="1501")


def _tracking(identifier: str, uid: str) -> list[Attributes]:
    return [
        _text(HAS_OBS_CONTEXT, coded("112039", _DCM, "Tracking Identifier"), identifier),
        _uid(HAS_OBS_CONTEXT, coded("112040", _DCM, "Tracking Unique Identifier"), uid),
    ]


def _sites(what: RenderInput) -> list[Attributes]:
    """Finding Site with its laterality (TID 1501 row 9)."""
    found = []
    for code in site_items(what):
        item = _code(HAS_CONCEPT_MOD, coded("363698007", "SCT", "Finding Site"), code_item(codes.site(code)))
        side = codes.LATERALITY.get(what.analysis.header.laterality)
        if side is not None:
            item = _with_content(item, _code(HAS_CONCEPT_MOD, coded("272741003", "SCT", "Laterality"), code_item(side)))
        found.append(item)
    return found


def _algorithm(what: RenderInput) -> list[Attributes]:
    """Algorithm Identification (TID 4019): name, version, and which weights and thresholds."""
    finding = what.analysis.finding
    parameters = [
        f"sha256={finding.model.digest}",
        f"preprocessing={finding.inference.preprocessing_digest}",
        *(f"threshold.{name}={value:g}" for name, value in sorted(finding.inference.thresholds.items())),
    ]
    return [
        _text(HAS_CONCEPT_MOD, code_item(codes.ALGORITHM_NAME), finding.model.name),
        _text(HAS_CONCEPT_MOD, code_item(codes.ALGORITHM_VERSION), finding.model.version),
        *(_text(HAS_CONCEPT_MOD, code_item(codes.ALGORITHM_PARAMETERS), one) for one in parameters),
    ]


def _evidence(what: RenderInput, source: Dataset) -> Attributes:
    """Current Requested Procedure Evidence: every instance that the content refers to (PS3.3 C.17.2.3)."""
    series = [(str(source.SeriesInstanceUID), str(source.SOPClassUID), str(source.SOPInstanceUID))]
    if what.analysis.finding.measurements is not None:
        seg = ArtifactKind.SEG
        series.append((derive_uid(f"series-{seg.value}", what.analysis.id), SEGMENTATION, result_uid(seg, what)))
    return put(
        Attributes(),
        StudyInstanceUID=str(source.StudyInstanceUID),
        ReferencedSeriesSequence=items(
            *(
                put(
                    Attributes(),
                    SeriesInstanceUID=uid,
                    ReferencedSOPSequence=items(reference(sop_class, sop_instance)),
                )
                for uid, sop_class, sop_instance in series
            )
        ),
    )


# ----------------------------------------------------------------------------------------- content items (PS3.3 C.17.3)

_ENGLISH = coded("en", "RFC5646", "English")


def _item(relationship: str, value_type: str, concept: Attributes | None) -> Attributes:
    item = put(Attributes(), RelationshipType=relationship, ValueType=value_type)
    return item if concept is None else put(item, ConceptNameCodeSequence=items(concept))


def _with_content(item: Attributes, *children: Attributes) -> Attributes:
    return put(item, ContentSequence=items(*children))


def _text(relationship: str, concept: Attributes, value: str) -> Attributes:
    return put(_item(relationship, "TEXT", concept), TextValue=value)


def _code(relationship: str, concept: Attributes, value: Attributes) -> Attributes:
    return put(_item(relationship, "CODE", concept), ConceptCodeSequence=items(value))


def _uid(relationship: str, concept: Attributes, value: str) -> Attributes:
    return put(_item(relationship, "UIDREF", concept), UID=value)


def _number(concept: Code, value: float, unit: Code) -> Attributes:
    measured = put(
        Attributes(),
        NumericValue=decimal(value),
        FloatingPointValue=value,
        MeasurementUnitsCodeSequence=items(code_item(unit)),
    )
    return put(_item(CONTAINS, "NUM", code_item(concept)), MeasuredValueSequence=items(measured))


def _image(concept: Attributes | None, source: Dataset) -> Attributes:
    return _image_item(concept, reference(str(source.SOPClassUID), str(source.SOPInstanceUID)))


def _image_item(concept: Attributes | None, referenced: Attributes) -> Attributes:
    return put(_item(CONTAINS, "IMAGE", concept), ReferencedSOPSequence=items(referenced))


def _container(concept: Attributes, *children: Attributes, template: str = "") -> Attributes:
    item = put(_item(CONTAINS, "CONTAINER", concept), ContinuityOfContent="SEPARATE")
    if template:
        put(item, ContentTemplateSequence=items(_template(template)))
    return _with_content(item, *children)


def _template(identifier: str) -> Attributes:
    return put(Attributes(), MappingResource="DCMR", TemplateIdentifier=identifier)
