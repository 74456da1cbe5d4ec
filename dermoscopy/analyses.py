"""Stored analyses: how a `Finding` becomes rows and blobs, and how it is read back exactly.

Mask and heat-map are lossless PNG blobs, the embedding is float32 in the row, the rest is one JSON document.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from sqlalchemy.orm import Session
from sqlmodel import col, or_, select

from dermoscopy.domain import (
    Acquisition,
    Analysis,
    Artifact,
    ArtifactKind,
    ClassProbability,
    Finding,
    Inference,
    LesionClass,
    LesionMeasurements,
    ModelReference,
    PatientIdentity,
    Quality,
    Reason,
    Remark,
    ScaleSource,
    SourceObject,
    Triage,
    TriageTier,
    derive_id,
)
from dermoscopy.errors import Rejected
from dermoscopy.intake import header_of
from dermoscopy.overlay import decode_grey_png, encode_heatmap, encode_mask
from dermoscopy.ports import BlobStore
from dermoscopy.tables import AnalysisRow, ArtifactRow, FormerArtifactRow, InstanceRow, utc_now

IN_FLIGHT = ("queued", "analysed")
"""States of an analysis that has no results to show yet."""

_NOTHING = np.zeros((0, 0))
_MEASUREMENTS = TypeAdapter(LesionMeasurements | None)
_QUALITY = TypeAdapter(Quality)
_TRIAGE = TypeAdapter(Triage)
_INFERENCE = TypeAdapter(Inference)
_CLASSES = TypeAdapter(tuple[ClassProbability, ...])
_REASONS = TypeAdapter(tuple[Reason, ...])
_ACQUISITION = TypeAdapter(Acquisition)
_REMARKS = TypeAdapter(tuple[Remark, ...])


def _document(analysis: Analysis) -> str:
    plain = replace(analysis.finding, mask=_NOTHING, heatmap=_NOTHING, embedding=_NOTHING)  # type: ignore[arg-type]
    finding = asdict(plain)
    for array in ("mask", "heatmap", "embedding"):
        del finding[array]
    return json.dumps(
        {
            "finding": finding,
            "rows": analysis.rows,
            "columns": analysis.columns,
            "pixel_digest": analysis.pixel_digest,
            "spacing_mm": analysis.spacing_mm,
            "acquisition": asdict(analysis.acquisition),
            "remarks": [asdict(remark) for remark in analysis.remarks],
        },
        sort_keys=True,
    )


def raster_artifacts(analysis: Analysis) -> tuple[Artifact, Artifact]:
    """Mask and heat-map of an analysis as PNG artifacts."""
    return (
        Artifact(ArtifactKind.MASK, "image/png", encode_mask(analysis.finding.mask), uid=""),
        Artifact(ArtifactKind.HEATMAP, "image/png", encode_heatmap(analysis.finding.heatmap), uid=""),
    )


def save_finding(session: Session, analysis: Analysis, *, milliseconds: float) -> None:
    """Write the finding into its row; the state becomes ``analysed``."""
    finding = analysis.finding
    row = session.get_one(AnalysisRow, analysis.id)
    row.state = "analysed"
    row.tier = finding.triage.tier.value
    row.primary_class = finding.primary.value if finding.primary else ""
    row.confidence = finding.confidence
    row.melanoma_risk = finding.melanoma_risk
    row.abstention = finding.abstention or ""
    row.document = _document(analysis)
    row.embedding = finding.embedding.astype("<f4").tobytes()
    row.milliseconds = milliseconds
    row.error = ""


def save_artifacts(session: Session, analysis_id: str, artifacts: Iterable[tuple[Artifact, str]]) -> list[ArtifactRow]:
    """Record artifacts with the digests their bytes were stored under; an existing row of that kind is replaced."""
    rows = []
    for artifact, digest in artifacts:
        row_id = derive_id("artifact", analysis_id, artifact.kind)
        row = session.get(ArtifactRow, row_id)
        if row is None:
            row = ArtifactRow(
                id=row_id, analysis_id=analysis_id, kind=artifact.kind.value, media_type="", digest="", size=0
            )
            session.add(row)
        row.media_type, row.digest, row.size = artifact.media_type, digest, len(artifact.data)
        row.uid, row.sop_class_uid, row.current = artifact.uid, artifact.sop_class_uid, True
        rows.append(row)
    return rows


def keep_former(session: Session, row: ArtifactRow, *, revision: int) -> None:
    """Keep what ``row`` says of an output of this ``revision`` before it changes; doing it twice changes nothing."""
    kept = derive_id("former-artifact", row.id, row.digest, row.uid)
    if session.get(FormerArtifactRow, kept) is None:
        session.add(
            FormerArtifactRow(
                id=kept,
                analysis_id=row.analysis_id,
                revision=revision,
                kind=row.kind,
                media_type=row.media_type,
                digest=row.digest,
                size=row.size,
                uid=row.uid,
                sop_class_uid=row.sop_class_uid,
                replaced_at=utc_now(),
            )
        )


def former_artifacts(session: Session, analysis_id: str) -> list[FormerArtifactRow]:
    """Outputs of earlier revisions, oldest first."""
    query = (
        select(FormerArtifactRow)
        .where(FormerArtifactRow.analysis_id == analysis_id)
        .order_by(col(FormerArtifactRow.revision), col(FormerArtifactRow.kind), col(FormerArtifactRow.id))
    )
    return list(session.execute(query).scalars())


def load_source(session: Session, blobs: BlobStore, instance_id: str) -> SourceObject:
    """The object an instance stands for. Raises `Rejected` if there is no such instance."""
    row = session.get(InstanceRow, instance_id)
    if row is None:
        raise Rejected(f"no instance {instance_id}")
    return SourceObject(row.id, blobs.get(row.digest), header_of(row), row.received_at)


def artifact_rows(session: Session, analysis_id: str) -> dict[ArtifactKind, ArtifactRow]:
    """Artifacts of an analysis by kind; what was withdrawn is not among them."""
    query = select(ArtifactRow).where(ArtifactRow.analysis_id == analysis_id, col(ArtifactRow.current))
    found = session.execute(query).scalars()
    return {ArtifactKind(row.kind): row for row in found}


def load_artifact(blobs: BlobStore, row: ArtifactRow) -> Artifact:
    """An artifact with its bytes."""
    return Artifact(ArtifactKind(row.kind), row.media_type, blobs.get(row.digest), row.uid, row.sop_class_uid)


def _measurements(document: dict[str, Any] | None) -> LesionMeasurements | None:
    """Measurements as stored; those of earlier versions took millimetres from nowhere but the image's header."""
    if document is not None and "scale_source" not in document:
        known = document.get("area_mm2") is not None
        document = {**document, "scale_source": ScaleSource.DICOM if known else ScaleSource.NONE}
    return _MEASUREMENTS.validate_python(document)


def load_analysis(session: Session, blobs: BlobStore, analysis_id: str) -> Analysis:
    """A stored analysis with its arrays, equal to what was saved (the heat-map to 1/255).

    Raises `Rejected` if it does not exist or has no finding yet.
    """
    row = session.get(AnalysisRow, analysis_id)
    if row is None or not row.document:
        raise Rejected(f"no finished analysis {analysis_id}")
    document: dict[str, Any] = json.loads(row.document)
    said = document["finding"]
    artifacts = artifact_rows(session, analysis_id)
    mask = decode_grey_png(blobs.get(artifacts[ArtifactKind.MASK].digest)) > 127
    heatmap = decode_grey_png(blobs.get(artifacts[ArtifactKind.HEATMAP].digest)).astype(np.float32) / np.float32(255)
    finding = Finding(
        model=ModelReference(**said["model"]),
        classes=_CLASSES.validate_python(said["classes"]),
        primary=LesionClass(said["primary"]) if said["primary"] else None,
        confidence=said["confidence"],
        melanoma_risk=said["melanoma_risk"],
        malignancy_risk=said["malignancy_risk"],
        quality=_QUALITY.validate_python(said["quality"]),
        measurements=_measurements(said["measurements"]),
        triage=_TRIAGE.validate_python(said["triage"]),
        abstention=said["abstention"],
        explanation=tuple(said["explanation"]),
        inference=_INFERENCE.validate_python(said["inference"]),
        mask=mask,
        heatmap=heatmap,
        embedding=np.frombuffer(row.embedding, "<f4"),
        # absent from rows of earlier versions
        abstention_reasons=_REASONS.validate_python(said.get("abstention_reasons", ())),
        prediction_set=tuple(LesionClass(label) for label in said.get("prediction_set", ())),
        decision_note=said.get("decision_note", ""),
    )
    spacing = document["spacing_mm"]
    return Analysis(
        id=row.id,
        instance_id=row.instance_id,
        created_at=row.created_at,
        finding=finding,
        header=header_of(session.get_one(InstanceRow, row.instance_id)),
        rows=document["rows"],
        columns=document["columns"],
        pixel_digest=document["pixel_digest"],
        spacing_mm=(spacing[0], spacing[1]) if spacing else None,
        acquisition=_ACQUISITION.validate_python(document["acquisition"]),
        remarks=_REMARKS.validate_python(document.get("remarks", ())),
    )


@dataclass(frozen=True, slots=True)
class AnalysisSummary:
    """What a list or a card shows of an analysis, without reading its arrays."""

    id: str
    instance_id: str
    state: str
    created_at: datetime
    tier: str
    primary_class: str
    confidence: float | None
    melanoma_risk: float | None
    abstention: str
    error: str
    model_name: str
    model_version: str
    study_instance_uid: str
    body_site_code: str
    laterality: str
    document: str
    reviews: int = 0
    """How many reviews clinicians wrote."""

    @property
    def recommendation(self) -> str:
        return str(json.loads(self.document)["finding"]["triage"]["recommendation"]) if self.document else ""

    @property
    def triage_reason(self) -> str:
        return str(json.loads(self.document)["finding"]["triage"]["reason"]) if self.document else ""


def summaries_of_patients(
    session: Session, patients: Sequence[PatientIdentity], *, limit: int = 200
) -> list[AnalysisSummary]:
    """Newest analyses of these patients first, by one indexed query.

    Of a patient who has more than ``limit``, those older ones too that are urgent or expedited or that somebody
    reviewed, ``limit`` of them at most: a high risk that is still open is not lost behind many harmless images.
    """
    if not patients:
        return []
    wanted = or_(
        *((col(AnalysisRow.issuer) == p.issuer) & (col(AnalysisRow.patient_id) == p.patient_id) for p in patients)
    )
    query = (
        select(AnalysisRow, InstanceRow.study_instance_uid, InstanceRow.body_site_code, InstanceRow.laterality)
        .join(InstanceRow, col(InstanceRow.id) == col(AnalysisRow.instance_id))
        .where(wanted)
        .order_by(col(AnalysisRow.created_at).desc())
        .limit(limit)
    )
    found = [_summary(row, *rest) for row, *rest in session.execute(query)]
    if len(found) < limit:
        return found
    grave = col(AnalysisRow.tier).in_([TriageTier.URGENT.value, TriageTier.EXPEDITED.value])
    older = query.where(or_(grave, col(AnalysisRow.reviews) > 0))
    known = {one.id for one in found}
    found += [_summary(row, *rest) for row, *rest in session.execute(older) if row.id not in known]
    return sorted(found, key=lambda one: one.created_at, reverse=True)


def _summary(row: AnalysisRow, study: str, site: str, laterality: str) -> AnalysisSummary:
    return AnalysisSummary(
        id=row.id,
        instance_id=row.instance_id,
        state=row.state,
        created_at=row.created_at,
        tier=row.tier,
        primary_class=row.primary_class,
        confidence=row.confidence,
        melanoma_risk=row.melanoma_risk,
        abstention=row.abstention,
        error=row.error,
        model_name=row.model_name,
        model_version=row.model_version,
        study_instance_uid=study,
        body_site_code=site,
        laterality=laterality,
        document=row.document,
        reviews=row.reviews,
    )


def as_base64(data: bytes) -> str:
    """Standard base64 text, as FHIR ``base64Binary`` and the REST API carry bytes."""
    return base64.b64encode(data).decode("ascii")
