"""Realistic findings for every triage tier and for abstention, and a node to store them in. Invented data only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from audit.log import MerkleAuditLog
from cds_service.node import Node
from dermoscopy.analyses import raster_artifacts, save_artifacts, save_finding
from dermoscopy.blobs import FolderBlobStore
from dermoscopy.database import unit_of_work
from dermoscopy.domain import (
    Acquisition,
    Analysis,
    Artifact,
    ArtifactKind,
    ClassProbability,
    DermoscopicImage,
    Finding,
    ImageHeader,
    Inference,
    LesionClass,
    LesionMeasurements,
    ModelReference,
    PatientIdentity,
    Quality,
    Reason,
    Triage,
    TriageTier,
    derive_uid,
)
from dermoscopy.intake import Intake, Receipt, header_of
from dermoscopy.overlay import draw_overlay, encode_png
from dermoscopy.patients import IssuerMap
from dermoscopy.phantoms import Phantom, phantom
from dermoscopy.settings import Settings
from dermoscopy.tables import AnalysisRow, InstanceRow, utc_now

MODEL = ModelReference("lesionnet-lite0", "1.0.0", "ab" * 32)
ISSUER, SYSTEM = "HOSPITAL-A", "urn:oid:2.25.299792458"
PATIENT = PatientIdentity(ISSUER, "TEST-0042")

_PROBABILITIES: Mapping[TriageTier, Mapping[LesionClass, float]] = {
    TriageTier.URGENT: {LesionClass.MEL: 0.87, LesionClass.NV: 0.08, LesionClass.BKL: 0.05},
    TriageTier.EXPEDITED: {LesionClass.BCC: 0.61, LesionClass.AKIEC: 0.22, LesionClass.BKL: 0.17},
    TriageTier.UNDETERMINED: {LesionClass.NV: 0.31, LesionClass.MEL: 0.29, LesionClass.BKL: 0.25, LesionClass.DF: 0.15},
    TriageTier.ROUTINE: {LesionClass.BKL: 0.72, LesionClass.NV: 0.25, LesionClass.MEL: 0.03},
    TriageTier.MONITOR: {LesionClass.NV: 0.96, LesionClass.BKL: 0.03, LesionClass.MEL: 0.01},
}
_TRIAGE = {
    TriageTier.URGENT: ("Melanoma risk is above the urgent threshold", "Refer to dermatology within two weeks"),
    TriageTier.EXPEDITED: ("Malignancy risk is above the expedited threshold", "Refer to dermatology within six weeks"),
    TriageTier.UNDETERMINED: ("The algorithm abstained", "Examine the lesion yourself or take a new image"),
    TriageTier.ROUTINE: ("No risk threshold is reached", "Review at the next routine visit"),
    TriageTier.MONITOR: ("A confident benign class", "Compare with a new image in six to twelve months"),
}


@cache
def drawn_lesion() -> Phantom:
    """The picture that every finding here is about."""
    return phantom(7, kind="melanoma-like", rows=192, columns=192)


def make_finding(tier: TriageTier = TriageTier.URGENT, **changes: object) -> Finding:
    """What the algorithm says of the phantom; ``UNDETERMINED`` abstains for poor agreement."""
    drawn = drawn_lesion()
    rows, columns = drawn.mask.shape
    said = _PROBABILITIES[tier]
    probabilities = {label: said.get(label, 0.0) for label in LesionClass}
    abstains = tier is TriageTier.UNDETERMINED
    best = max(probabilities, key=lambda label: probabilities[label])
    area = float(drawn.mask.sum())
    reason, recommendation = _TRIAGE[tier]
    finding = Finding(
        model=MODEL,
        classes=tuple(ClassProbability(k, float(np.log(max(p, 1e-4))), p) for k, p in probabilities.items()),
        primary=None if abstains else best,
        confidence=probabilities[best],
        melanoma_risk=probabilities[LesionClass.MEL],
        malignancy_risk=sum(probabilities[k] for k in (LesionClass.MEL, LesionClass.BCC, LesionClass.AKIEC)),
        quality=Quality(True, (), {"sharpness": 0.81, "out_of_distribution": 0.12}),
        measurements=LesionMeasurements(
            area_px=area,
            area_percent=100 * area / (rows * columns),
            perimeter_px=301.4,
            equivalent_diameter_px=float(np.sqrt(4 * area / np.pi)),
            circularity=0.71,
            solidity=0.93,
            eccentricity=0.55,
            asymmetry=0.34,
            border_irregularity=1.41,
            colour_count=4,
            colour_variety=0.62,
            colour_fractions={"dark_brown": 0.5, "light_brown": 0.3, "black": 0.15, "blue_grey": 0.05},
            centroid=(rows / 2, columns / 2),
            bounding_box=(40, 42, 150, 152),
            area_mm2=23.4,
            perimeter_mm=19.1,
            equivalent_diameter_mm=5.46,
        ),
        triage=Triage(tier, reason, recommendation),
        abstention="the class probabilities do not agree well enough to name one" if abstains else None,
        explanation=("Irregular pigment at the upper edge drives the class",),
        inference=Inference(
            execution_provider="CPUExecutionProvider",
            precision="float32",
            preprocessing_digest="cd" * 32,
            calibration={"temperature": 1.3},
            thresholds={"urgent": 0.5, "expedited": 0.2},
            code_version="0.1.0",
            mask_digest="ef" * 32,
            heatmap_digest="01" * 32,
            milliseconds={"total": 41.0},
        ),
        mask=drawn.mask,
        heatmap=(drawn.mask * 0.8).astype(np.float32),
        embedding=np.linspace(0, 1, 1280, dtype=np.float32),
    )
    return dataclasses.replace(finding, **changes)  # type: ignore[arg-type]


NOTE = "Called basal cell carcinoma although melanocytic nevus is more probable, because it weighs 4.9 times as much."


def called_otherwise() -> Finding:
    """A finding whose called class is not the most probable one, of a model with prediction sets."""
    made = make_finding(TriageTier.EXPEDITED)
    probabilities = {LesionClass.NV: 0.55, LesionClass.BCC: 0.21, LesionClass.BKL: 0.24}
    return dataclasses.replace(
        made,
        classes=tuple(ClassProbability(k, 0.0, probabilities.get(k, 0.0)) for k in LesionClass),
        primary=LesionClass.BCC,
        confidence=0.21,
        melanoma_risk=0.0,
        malignancy_risk=0.21,
        prediction_set=(LesionClass.NV, LesionClass.BKL, LesionClass.BCC),
        decision_note=NOTE,
        inference=dataclasses.replace(made.inference, thresholds={"set.alpha": 0.1, "decision.bcc": 4.9}),
    )


def not_answered() -> Finding:
    """An abstention for two reasons."""
    reasons = (Reason("blur", "the image is blurred"), Reason("ambiguous", "too many classes cannot be excluded"))
    words = "; ".join(reason.words for reason in reasons)
    return make_finding(TriageTier.UNDETERMINED, abstention=words, abstention_reasons=reasons)


def make_header(patient: PatientIdentity = PATIENT, name: str = "1", **changes: object) -> ImageHeader:
    """A dermoscopic DICOM object of ``patient``; ``name`` tells objects apart."""
    header = ImageHeader(
        media_type="application/dicom",
        patient=patient,
        rows=192,
        columns=192,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.77.1.7",
        sop_instance_uid=derive_uid("test-instance", patient.issuer, patient.patient_id, name),
        study_instance_uid=derive_uid("test-study", patient.patient_id),
        series_instance_uid=derive_uid("test-series", patient.patient_id),
        accession_number="ACC-7",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        body_site_code="66643007",
        laterality="L",
    )
    return dataclasses.replace(header, **changes)  # type: ignore[arg-type]


class RecordedQueue:
    """A `WorkQueue` that remembers what it was asked to start, and starts nothing."""

    def __init__(self) -> None:
        self.started: list[tuple[str, ...]] = []

    def start(
        self, session: Session, workflow: str, workflow_id: str, *arguments: str, delay_seconds: float = 0.0
    ) -> None:
        self.started.append((workflow, workflow_id, *arguments))


def make_node(engine: sa.Engine, folder: Path, **settings: object) -> Node:
    """A node on ``engine`` (tables must exist) with a recording queue; nothing in it runs by itself."""
    values: dict[str, object] = {"data_dir": folder, "issuers": {ISSUER: SYSTEM}, "analyze_wait_seconds": 0, **settings}
    made = Settings(**values)  # type: ignore[arg-type]
    begin, blobs, audit = unit_of_work(engine), FolderBlobStore(folder / "blobs"), MerkleAuditLog()
    queue = RecordedQueue()
    intake = Intake(begin, blobs, audit, queue, MODEL, default_issuer=made.default_issuer)
    issuers = IssuerMap(made.issuers, default_issuer=made.default_issuer)
    return Node(made, engine, begin, blobs, audit, queue, intake, issuers, MODEL)


def take_in(node: Node, patient: PatientIdentity = PATIENT, name: str = "1", **changes: object) -> Receipt:
    """An accepted image whose analysis is queued."""
    data = f"pixels of {patient.patient_id} {name}".encode()
    return node.intake.accept(data, make_header(patient, name, **changes), source="test", caller="test")


def finish(node: Node, analysis_id: str, finding: Finding | None = None, state: str = "complete") -> Analysis:
    """Store ``finding`` and every output of a queued analysis, as the pipeline does."""
    finding = finding or make_finding()
    with node.begin() as session:
        row = session.get_one(AnalysisRow, analysis_id)
        instance = session.get_one(InstanceRow, row.instance_id)
        analysis = Analysis(
            id=row.id,
            instance_id=row.instance_id,
            created_at=row.created_at,
            finding=finding,
            header=header_of(instance),
            rows=finding.mask.shape[0],
            columns=finding.mask.shape[1],
            pixel_digest="23" * 32,
            spacing_mm=(0.05, 0.05),
            acquisition=Acquisition(),
        )
    image = DermoscopicImage(drawn_lesion().pixels, "23" * 32, (0.05, 0.05))
    overlay = encode_png(draw_overlay(image, finding))
    outputs = [*raster_artifacts(analysis), Artifact(ArtifactKind.OVERLAY, "image/png", overlay, "")]
    for kind in (ArtifactKind.SEG, ArtifactKind.SR, ArtifactKind.SECONDARY_CAPTURE):
        if kind is not ArtifactKind.SEG or finding.measurements is not None:
            outputs.append(Artifact(kind, "application/dicom", f"{kind} {row.id}".encode(), derive_uid(kind, row.id)))
    bundle = b'{"resourceType": "Bundle", "type": "transaction"}'
    outputs.append(Artifact(ArtifactKind.FHIR_BUNDLE, "application/fhir+json", bundle, ""))
    stored = [(artifact, node.blobs.put(artifact.data)) for artifact in outputs]
    with node.begin() as session:
        save_finding(session, analysis, milliseconds=41.5)
        save_artifacts(session, row.id, stored)
        done = session.get_one(AnalysisRow, row.id)
        done.state, done.completed_at = state, utc_now()
    return analysis


def fail(node: Node, analysis_id: str, error: str = "AnalysisFailed: the network gave no numbers") -> None:
    """Mark an analysis as failed for good."""
    with node.begin() as session:
        row = session.get_one(AnalysisRow, analysis_id)
        row.state, row.error, row.completed_at = "failed", error, utc_now()


def stored_analysis(
    node: Node, tier: TriageTier = TriageTier.URGENT, patient: PatientIdentity = PATIENT, name: str = "1"
) -> Analysis:
    """A finished analysis of a new image."""
    return finish(node, take_in(node, patient, name).analysis_id, make_finding(tier))


def fhir_patient(value: str = PATIENT.patient_id, system: str = SYSTEM, id: str = "p1") -> dict[str, object]:
    """The FHIR Patient that `PATIENT` is."""
    return {"resourceType": "Patient", "id": id, "identifier": [{"system": system, "value": value}]}


NOON = datetime(2026, 3, 14, 12, 0, tzinfo=UTC)
