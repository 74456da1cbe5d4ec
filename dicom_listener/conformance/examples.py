"""Objects really rendered from synthetic phantoms, for the tables of the statement: no patient, and no network.

Each case differs from the others in everything that an object may take from its source or from the analysis, so that
what is the same in all of them is fixed, and what is absent in one is not always there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from dermoscopy.codes import ABSTENTION_REASONS
from dermoscopy.domain import (
    Analysis,
    Artifact,
    ArtifactKind,
    ClassProbability,
    Finding,
    Inference,
    LesionClass,
    LesionMeasurements,
    Mask,
    ModelReference,
    PatientIdentity,
    Quality,
    Reason,
    ReportStatus,
    Review,
    ScaleSource,
    SourceObject,
    Triage,
    TriageTier,
    Verdict,
    derive_uid,
)
from dermoscopy.lesions import Change, Match, MatchState
from dermoscopy.phantoms import Phantom, phantom
from dermoscopy.ports import FormerOutput, Outlined, RenderInput
from dicom_listener.decode import decode
from dicom_listener.header import read_header, read_picture_header
from dicom_listener.render import REJECTION, RENDERERS, source_dataset
from dicom_listener.render.modules import put
from dicom_listener.render.source import picture_instance
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN, VL_PHOTOGRAPHIC

_WHEN: Final = datetime(2026, 3, 4, 5, 6, 7, 89000, tzinfo=UTC)
_WITHOUT_ISSUER: Final = 2
_CORNERS: Final = ((20.0, 14.0), (44.0, 14.0), (44.0, 34.0), (20.0, 34.0))


@dataclass(frozen=True, slots=True)
class Example:
    """One rendered object with the dataset that it refers to."""

    kind: ArtifactKind
    case: str
    dataset: Dataset
    source: Dataset


@cache
def examples(*, hair: bool) -> tuple[Example, ...]:
    """Every object of every case, drawn once; ``hair`` as the setting ``seg_hair``."""
    return tuple(example for name, what in _cases(hair=hair) for example in _rendered(name, what))


def _rendered(name: str, what: RenderInput) -> Iterator[Example]:
    source = source_dataset(what.source, what.image)
    drawn: dict[ArtifactKind, Artifact] = {}
    for kind, renderer in {**RENDERERS, **REJECTION}.items():
        if _exists(kind, what):
            drawn[kind] = renderer(replace(what, companions=dict(drawn)))
            yield Example(kind, name, dcmread(BytesIO(drawn[kind].data)), source)


def _exists(kind: ArtifactKind, what: RenderInput) -> bool:
    withdrawn = what.status is ReportStatus.ENTERED_IN_ERROR
    exists: Mapping[ArtifactKind, bool] = {
        ArtifactKind.SOURCE: what.source.header.media_type != "application/dicom",
        ArtifactKind.SEG: not withdrawn and what.analysis.finding.measurements is not None,
        ArtifactKind.REJECTION_NOTE: bool(what.former),
    }
    return exists.get(kind, True)


def _cases(*, hair: bool) -> Iterator[tuple[str, RenderInput]]:
    full = _input(1, _photograph(1, full=True), TriageTier.URGENT)
    if hair:
        lines = np.zeros(full.analysis.finding.mask.shape, bool)
        lines[4:40, 30:32] = True
        full = replace(full, hair=lines)
    yield "calibrated", full
    bare = _input(2, _photograph(2, full=False), TriageTier.UNDETERMINED)
    yield "abstained", _abstained(bare)
    picture = _input(3, _picture(3), TriageTier.ROUTINE)
    yield "picture", picture
    photograph = _photograph(4, full=False, sop_class=VL_PHOTOGRAPHIC)
    yield "ruler", _ruler(_input(4, photograph, TriageTier.EXPEDITED))
    corrected = {"lesion_class": LesionClass.NV, "outline": _CORNERS, "body_site_code": "75093004", "laterality": "R"}
    amended = _reviewed(full, Verdict.CORRECTED, **corrected)
    yield "corrected", replace(amended, outlined=Outlined(_square(full), _measured(9, millimetres=True)))
    confirmed = _reviewed(_input(5, _picture(5, "JPEG"), TriageTier.MONITOR), Verdict.CONFIRMED)
    yield "confirmed", confirmed
    yield "withdrawn", _reviewed(confirmed, Verdict.UNUSABLE, comment="not skin")


# ------------------------------------------------------------------------------------------------------------- sources


def _drawn(seed: int) -> Phantom:
    return phantom(seed, rows=46 + 2 * seed, columns=62 + 2 * seed)


def _picture(seed: int, form: str = "PNG") -> SourceObject:
    """A picture with the patient and the site that came with it."""
    buffer = BytesIO()
    Image.fromarray(_drawn(seed).pixels).save(buffer, form)
    header = read_picture_header(buffer.getvalue(), PatientIdentity(f"ISSUER-{seed}", f"PHANTOM-{seed}"))
    if form == "PNG":
        header = replace(header, body_site_code="66643007", laterality="L", accession_number=f"A{seed}")
    received = _WHEN + timedelta(days=seed, hours=seed, minutes=seed, seconds=seed)
    return SourceObject(f"instance-{seed}", buffer.getvalue(), header, received)


def _photograph(seed: int, *, full: bool, sop_class: str = DERMOSCOPIC_PHOTOGRAPHY) -> SourceObject:
    """An object as a camera might send it; ``full`` with everything that results copy."""
    picture = _picture(seed, "JPEG")
    made = dcmread(BytesIO(picture_instance(picture, decode(picture), manufacturer="Camera maker").data))
    made.SOPClassUID = sop_class
    if seed == _WITHOUT_ISSUER:
        del made.IssuerOfPatientID
    if full:
        qualifier = put(Dataset(), UniversalEntityID="2.25.1", UniversalEntityIDType="ISO")
        issuer = put(Dataset(), LocalNamespaceEntityID="RIS")
        other = put(Dataset(), PatientID=f"OTHER-{seed}", TypeOfPatientID="TEXT")
        put(
            made,
            PatientName=f"Phantom^{seed}",
            PatientBirthDate="19700102",
            PatientSex="F",
            PatientAge="056Y",
            OtherPatientIDsSequence=[other],
            IssuerOfPatientIDQualifiersSequence=[qualifier],
            ReferringPhysicianName=f"Referrer^{seed}",
            StudyID=f"S{seed}",
            StudyDescription="Mole check",
            AccessionNumber=f"A{seed}",
            IssuerOfAccessionNumberSequence=[issuer],
            TimezoneOffsetFromUTC="+0100",
            ImageLaterality="L",
            PixelSpacing=["0.02", "0.02"],
            LossyImageCompression="01",
            LossyImageCompressionRatio="10",
            LossyImageCompressionMethod="ISO_10918_1",
            TrackingID=f"mole {seed}",
            TrackingUID=derive_uid("tracked", str(seed)),
        )
        if "Laterality" in made:
            del made.Laterality
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, made)
    body = buffer.getvalue()
    header = read_header(body, EXPLICIT_LITTLE_ENDIAN)
    return SourceObject(picture.instance_id, body, header, picture.received_at)


# ------------------------------------------------------------------------------------------- what is said of a phantom


def _input(seed: int, source: SourceObject, tier: TriageTier) -> RenderInput:
    image = decode(source)
    calibrated = image.spacing_mm is not None
    finding = Finding(
        model=ModelReference(f"model-{seed}", f"{seed}.0", f"{seed:064x}"),
        classes=tuple(ClassProbability(label, 0.5, 1 / len(LesionClass)) for label in LesionClass),
        primary=list(LesionClass)[seed % len(LesionClass)],
        confidence=0.5 + seed / 100,
        melanoma_risk=0.2 + seed / 100,
        malignancy_risk=0.3 + seed / 100,
        quality=Quality(True, (), {"sharpness": 0.9}),
        measurements=_measured(seed, millimetres=calibrated),
        triage=Triage(tier, f"reason {seed}", f"recommendation {seed}"),
        abstention=None,
        explanation=(f"sign {seed}",),
        inference=Inference("CPU", "fp32", f"{seed:064x}", {}, {"melanoma": 0.3}, f"code-{seed}", "", "", {}),
        mask=_drawn(seed).mask,
        heatmap=np.zeros((1, 1), np.float32),
        embedding=np.zeros(1, np.float32),
        prediction_set=tuple(LesionClass) if seed == 1 else (),
        decision_note="it weighs more" if seed == 1 else "",
    )
    analysis = Analysis(
        id=f"analysis-{seed}",
        instance_id=source.instance_id,
        created_at=_WHEN + timedelta(days=40 + seed, hours=seed, minutes=seed, seconds=seed),
        finding=finding,
        header=source.header,
        rows=image.rows,
        columns=image.columns,
        pixel_digest=image.pixel_digest,
        spacing_mm=image.spacing_mm,
        acquisition=image.acquisition,
    )
    return RenderInput(analysis, image, source)


def _measured(seed: int, *, millimetres: bool) -> LesionMeasurements:
    size = 100.0 + seed
    return LesionMeasurements(
        area_px=size,
        area_percent=3.0,
        perimeter_px=size,
        equivalent_diameter_px=11.0,
        circularity=0.9,
        solidity=0.9,
        eccentricity=0.1,
        asymmetry=0.1,
        border_irregularity=1.1,
        colour_count=2,
        colour_variety=0.3,
        colour_fractions={"light_brown": 1.0},
        centroid=(20.0, 30.0),
        bounding_box=(8, 16, 40, 48),
        area_mm2=1.0 if millimetres else None,
        perimeter_mm=4.0 if millimetres else None,
        equivalent_diameter_mm=1.1 if millimetres else None,
        scale_source=ScaleSource.DICOM if millimetres else ScaleSource.NONE,
    )


def _abstained(what: RenderInput) -> RenderInput:
    """No lesion, and every reason there is for having no opinion."""
    reasons = tuple(Reason(code, "in words") for code in ABSTENTION_REASONS)
    finding = replace(
        what.analysis.finding,
        primary=None,
        measurements=None,
        abstention="in words",
        abstention_reasons=reasons,
        explanation=(),
        mask=np.zeros_like(what.analysis.finding.mask),
    )
    return replace(what, analysis=replace(what.analysis, finding=finding))


def _ruler(what: RenderInput) -> RenderInput:
    """The scale read from ruler marks in the picture, and an earlier image to compare with."""
    measured = replace(_measured(7, millimetres=True), scale_source=ScaleSource.RULER)
    finding = replace(what.analysis.finding, measurements=measured)
    now = what.analysis.created_at
    change = Change(Match(MatchState.LIKELY, "in words"), now, "analysis-0", now - timedelta(days=90))
    return replace(what, analysis=replace(what.analysis, finding=finding), change=change)


def _reviewed(what: RenderInput, verdict: Verdict, **said: object) -> RenderInput:
    """After a review, with what was drawn before as what it replaces."""
    results = (ArtifactKind.SEG, ArtifactKind.SR, ArtifactKind.SECONDARY_CAPTURE)
    former = tuple(
        FormerOutput(one.kind, str(one.dataset.SOPInstanceUID), str(one.dataset.SOPClassUID))
        for one in _rendered("before", what)
        if one.kind in results
    )
    revision = len(what.reviews) + 1
    review = Review(
        id=f"review-{revision}-{what.analysis.id}",
        analysis_id=what.analysis.id,
        revision=revision,
        at=what.analysis.created_at + timedelta(hours=revision),
        reviewer="phantom-reviewer",
        reviewer_name=f"Reviewer of {what.analysis.id}",
        verdict=verdict,
        **said,  # type: ignore[arg-type]
    )
    return replace(what, reviews=(*what.reviews, review), former=(*what.former, *former))


def _square(what: RenderInput) -> Mask:
    mask = np.zeros_like(what.analysis.finding.mask)
    mask[14:34, 20:44] = True
    return mask
