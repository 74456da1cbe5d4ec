"""What a clinician said, in the structured report: who verified it, what it replaces, and their own groups.

The algorithm observes the report as a whole (TID 1001); each group that is a person's word says so in an observer
context of its own (TID 1002, 1003), so that nobody's word is taken for the other's.
"""

from __future__ import annotations

from typing import Any, Final

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes as dicom

from dermoscopy import codes
from dermoscopy.codes import Code
from dermoscopy.domain import ArtifactKind, ReportStatus, Review, derive_uid
from dermoscopy.identifiers import series_uid
from dermoscopy.ports import RenderInput
from dermoscopy.reviews import Standing, standing
from dicom_listener.render.modules import coded, local_time, put
from dicom_listener.syntaxes import COMPREHENSIVE_SR

_CONTAINS: Final = sr.RelationshipTypeValues.CONTAINS
_VERIFIED: Final = (ReportStatus.FINAL, ReportStatus.AMENDED)
_NOT_IN_A_NAME: Final = str.maketrans(dict.fromkeys("\\^=\r\n\t", " "))


def person_name(review: Review) -> str:
    """The reviewer as a Person Name (PS3.5 6.2.1): the name as the login gives it, else what the audit log calls them.

    One component of at most 64 characters, because nobody knows which part of it is the family name.
    """
    plain = " ".join((review.reviewer_name or review.reviewer).translate(_NOT_IN_A_NAME).split())
    return plain[:64] or "unknown"


def person_context(review: Review) -> sr.ObserverContext:
    """A person observes (TID 1002, 1003)."""
    person = sr.PersonObserverIdentifyingAttributes(name="Reviewer^")
    # highdicom warns, and so logs, names of one component
    person[0].PersonName = person_name(review)
    return sr.ObserverContext(dicom.DCM.Person, person)


def attest(result: Dataset, what: RenderInput, source: Dataset) -> None:
    """Verification and predecessor of a reviewed report (PS3.3 C.17.2); one that nobody reviewed stays as it is.

    What was confirmed or corrected is verified by the clinician who did; what was withdrawn is complete, but nobody
    stands for its content.
    """
    now = standing(what.reviews)
    if now.last is None:
        return
    result.PreliminaryFlag = "FINAL"
    if now.status in _VERIFIED:
        moment = local_time(now.last.at, source)
        observer = put(
            Dataset(),
            VerifyingObserverName=person_name(now.last),
            VerifyingObserverIdentificationCodeSequence=[],
            VerifyingOrganization=_organization(what, source),
            VerificationDateTime=f"{moment:%Y%m%d%H%M%S.%f%z}",
        )
        put(result, VerificationFlag="VERIFIED", VerifyingObserverSequence=[observer])
    former = [one for one in what.former if one.kind is ArtifactKind.SR and one.uid != str(result.SOPInstanceUID)]
    if former:
        document = put(Dataset(), ReferencedSOPClassUID=COMPREHENSIVE_SR, ReferencedSOPInstanceUID=former[-1].uid)
        series = put(
            Dataset(),
            SeriesInstanceUID=series_uid(ArtifactKind.SR, what.analysis.id),
            ReferencedSOPSequence=[document],
        )
        study = put(Dataset(), StudyInstanceUID=str(source.StudyInstanceUID), ReferencedSeriesSequence=[series])
        result.PredecessorDocumentsSequence = [study]


def review_group(what: RenderInput, source: Dataset) -> sr.MeasurementsAndQualitativeEvaluations:
    """What the clinician says of the image (TID 1501): verdict, class, site, and their words."""
    now = standing(what.reviews)
    assert now.last is not None
    said: list[tuple[Code, Code]] = [(codes.REVIEW, codes.VERDICTS[now.last.verdict])]
    named = now.lesion_class or what.analysis.finding.primary
    if named is not None and not now.withdrawn:
        said.append((codes.CLINICIAN_CLASS, codes.class_code(named)))
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=derive_uid("image-review", what.analysis.instance_id), identifier=f"review-{what.analysis.instance_id}"
        ),
        finding_type=coded(codes.REVIEW),
        finding_sites=sites(what, now),
        qualitative_evaluations=[sr.QualitativeEvaluation(coded(name), coded(value)) for name, value in said],
        source_images=[sr.SourceImageForMeasurementGroup(str(source.SOPClassUID), str(source.SOPInstanceUID))],
    )
    _observed_by(group, now.last)
    group[0].ContentSequence.extend(
        sr.TextContentItem(dicom.DCM.Comment, f"{person_name(one)}: {one.comment}", relationship_type=_CONTAINS)
        for one in what.reviews
        if one.comment and one.changes_report
    )
    return group


def observed_by_person(group: Any, what: RenderInput) -> None:
    """Mark ``group`` as the word of whoever drew the outline that stands."""
    drawn = next(one for one in reversed(what.reviews) if one.outline)
    _observed_by(group, drawn)


def sites(what: RenderInput, now: Standing) -> list[sr.FindingSite]:
    """Finding Site with its laterality (TID 1501 row 9) as it stands, where anybody states one."""
    header = what.analysis.header
    site_code, laterality = now.body_site_code or header.body_site_code, now.laterality or header.laterality
    if not site_code:
        return []
    side = codes.LATERALITY.get(laterality)
    return [sr.FindingSite(coded(codes.site(site_code)), laterality=coded(side) if side else None)]


def _observed_by(group: Any, review: Review) -> None:
    content = group[0].ContentSequence
    for position, item in enumerate(person_context(review)):
        content.insert(position, item)


def _organization(what: RenderInput, source: Dataset) -> str:
    """Verifying Organization is type 1: the institution of the image, else who issued the patient's identifier."""
    stated = str(source.get("InstitutionName") or "") or what.analysis.header.patient.issuer
    return stated.replace("\\", " ")[:64] or "not stated"
