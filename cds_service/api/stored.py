"""Stored rows → answers. Reads only what an answer shows; large blobs stay where they are unless asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, cast

import sqlalchemy as sa
from fastapi import Request
from sqlalchemy.orm import Session
from sqlmodel import col, select

from cds_service.api.answers import (
    AnalysisAnswer,
    AnalysisItem,
    ChangeAnswer,
    Delivery,
    Diagnosis,
    FactAnswer,
    ImageAnswer,
    MatchAnswer,
    QualityAnswer,
    RegionStatistics,
    ReviewAnswer,
    Segmentation,
    State,
    TriageAnswer,
)
from cds_service.api.outcome_answers import standing_outcome
from cds_service.api.refusals import NotFound, ProblemDetails
from cds_service.lesions import change_of
from cds_service.node import Node
from dermoscopy.analyses import artifact_rows, as_base64
from dermoscopy.domain import (
    ArtifactKind,
    CommitmentState,
    DeliveryState,
    LesionClass,
    ReportStatus,
    Review,
    TriageTier,
)
from dermoscopy.errors import IntegrityViolation
from dermoscopy.lesions import Change
from dermoscopy.overlay import NOTICE
from dermoscopy.ports import BlobStore
from dermoscopy.reviews import reviews_of
from dermoscopy.tables import AnalysisRow, ArtifactRow, DeliveryRow

READY = ("rendered", "complete")
"""States in which results may be shown: the finding and every output are stored."""

LINKED = {
    ArtifactKind.MASK: "mask",
    ArtifactKind.OVERLAY: "overlay",
    ArtifactKind.HEATMAP: "heatmap",
    ArtifactKind.SEG: "seg",
    ArtifactKind.SR: "sr",
    ArtifactKind.SECONDARY_CAPTURE: "secondary-capture",
    ArtifactKind.FHIR_BUNDLE: "report",
}
"""Output → last part of its address."""

DISCLAIMER = f"{NOTICE}. Research use only: not cleared as a medical device by any authority."


def node_of(request: Request) -> Node:
    """The open resources of this process."""
    return cast(Node, request.app.state.node)


def address(analysis_id: str) -> str:
    """Path of an analysis."""
    return f"/api/v1/analyses/{analysis_id}"


def find_analysis(session: Session, analysis_id: str) -> AnalysisRow:
    """Raises `NotFound`."""
    row = session.get(AnalysisRow, analysis_id)
    if row is None:
        raise NotFound("There is no analysis with this id.")
    return row


def read_blob(blobs: BlobStore, row: ArtifactRow) -> bytes:
    """Bytes of an output. Raises `IntegrityViolation` when the store has lost them."""
    try:
        return blobs.get(row.digest)
    except KeyError as error:
        raise IntegrityViolation(f"the bytes of artifact {row.id} are gone from the object store") from error


def failure_of(row: AnalysisRow) -> ProblemDetails | None:
    """Why an analysis failed, as a problem; ``None`` if it did not."""
    if row.state != "failed":
        return None
    return ProblemDetails(
        type="/docs#analysis-failed",
        title="Analysis failed",
        status=422,
        detail=row.error.partition(": ")[2] or row.error,
        report_id=row.id,
    )


def answer(session: Session, node: Node, row: AnalysisRow, *, pictures: bool) -> AnalysisAnswer:
    """Everything about one analysis; with ``pictures`` mask, heat-map and overlay come as base64."""
    ready = row.state in READY
    outputs = artifact_rows(session, row.id) if ready else {}
    deliveries = session.execute(
        select(DeliveryRow)
        .where(DeliveryRow.analysis_id == row.id)
        .order_by(col(DeliveryRow.destination), col(DeliveryRow.kind))
    ).scalars()
    shown = _pictures(node.blobs, outputs) if pictures else {}
    result = _result(json.loads(row.document), shown) if ready else {}
    return AnalysisAnswer(
        report_id=row.id,
        state=cast(State, row.state),
        created_at=row.created_at,
        completed_at=row.completed_at,
        model_version=f"{row.model_name}=={row.model_version}",
        latency_ms=row.milliseconds if ready else None,
        problem=failure_of(row),
        deliveries=[_delivery(one) for one in deliveries],
        report_status=ReportStatus(row.report_status),
        reviews=[review_answer(one) for one in reviews_of(session, row.id)] if row.reviews else [],
        outcome=standing_outcome(session, row.id) if ready else None,
        change=change_answer(change_of(session, row.id)) if ready else None,
        links=links(row.id, outputs),
        notice=DISCLAIMER,
        attention_map=shown.get(ArtifactKind.HEATMAP),
        overlay=shown.get(ArtifactKind.OVERLAY),
        **result,
    )


def links(analysis_id: str, outputs: Iterable[ArtifactKind] = ()) -> dict[str, str]:
    """Addresses of an analysis, its page, and the outputs that exist."""
    own = address(analysis_id)
    found = {"self": own, "page": f"/analyses/{analysis_id}"}
    present = set(outputs)
    return found | {name: f"{own}/{name}" for kind, name in LINKED.items() if kind in present}


def change_answer(change: Change | None) -> ChangeAnswer | None:
    """What changed, as the API shows it."""
    if change is None:
        return None
    return ChangeAnswer(
        summary=change.summary,
        match=MatchAnswer(**asdict(change.match)),
        prior_report_id=change.prior_id or None,
        prior_taken_at=change.prior_taken_at,
        taken_at=change.taken_at,
        dated=change.dated,
        days=change.days,
        candidates=change.candidates,
        facts=[FactAnswer(**asdict(fact)) for fact in change.facts],
    )


def review_answer(review: Review) -> ReviewAnswer:
    """One review, as the API shows it."""
    return ReviewAnswer(
        review_id=review.id,
        revision=review.revision,
        at=review.at,
        reviewer=review.reviewer,
        reviewer_name=review.reviewer_name,
        verdict=review.verdict,
        lesion_class=review.lesion_class,
        outline=list(review.outline),
        body_site_code=review.body_site_code,
        laterality=review.laterality,
        comment=review.comment,
    )


def item(row: Any) -> AnalysisItem:
    """One line of a list, from a row of `select_items`."""
    return AnalysisItem(
        report_id=row.id,
        state=row.state,
        created_at=row.created_at,
        tier=TriageTier(row.tier) if row.tier else None,
        primary=LesionClass(row.primary_class) if row.primary_class else None,
        confidence=row.confidence,
        melanoma_risk=row.melanoma_risk,
        report_status=ReportStatus(row.report_status),
        model_version=f"{row.model_name}=={row.model_version}",
        links=links(row.id),
    )


def select_items() -> sa.Select[Any, Any, Any, Any, Any, Any, Any, Any, Any, Any]:
    """Query for `item`: the columns a list shows, and not the documents."""
    return sa.select(
        col(AnalysisRow.id),
        col(AnalysisRow.state),
        col(AnalysisRow.created_at),
        col(AnalysisRow.tier),
        col(AnalysisRow.primary_class),
        col(AnalysisRow.confidence),
        col(AnalysisRow.melanoma_risk),
        col(AnalysisRow.report_status),
        col(AnalysisRow.model_name),
        col(AnalysisRow.model_version),
    )


def _pictures(blobs: BlobStore, outputs: Mapping[ArtifactKind, ArtifactRow]) -> dict[ArtifactKind, str]:
    kinds = (ArtifactKind.MASK, ArtifactKind.HEATMAP, ArtifactKind.OVERLAY)
    return {kind: as_base64(read_blob(blobs, outputs[kind])) for kind in kinds if kind in outputs}


def _result(document: dict[str, Any], shown: Mapping[ArtifactKind, str]) -> dict[str, Any]:
    finding = document["finding"]
    measured = finding["measurements"]
    return {
        "diagnosis": Diagnosis(
            primary=finding["primary"],
            confidence=finding["confidence"],
            melanoma_risk=finding["melanoma_risk"],
            malignancy_risk=finding["malignancy_risk"],
            all_classes={LesionClass(c["label"]): c["probability"] for c in finding["classes"]},
            most_probable=max(finding["classes"], key=lambda c: float(c["probability"]))["label"],
            decision_note=finding.get("decision_note", ""),  # this and the set: absent from earlier versions' rows
            prediction_set=finding.get("prediction_set", []),
        ),
        "segmentation": Segmentation(
            mask=shown.get(ArtifactKind.MASK),
            region_statistics=RegionStatistics.model_validate(measured) if measured else None,
        ),
        "recommendation": finding["triage"]["recommendation"],
        "triage": TriageAnswer(tier=finding["triage"]["tier"], reason=finding["triage"]["reason"]),
        "abstention": finding["abstention"],
        "abstention_reasons": finding.get("abstention_reasons", []),
        "quality": QualityAnswer.model_validate(finding["quality"]),
        "image": ImageAnswer(
            rows=document["rows"],
            columns=document["columns"],
            pixel_digest=document["pixel_digest"],
            spacing_mm=document["spacing_mm"],
            acquisition=document["acquisition"],
            remarks=document.get("remarks", []),  # absent from earlier versions' rows
        ),
        "explanation": finding["explanation"],
    }


def _delivery(row: DeliveryRow) -> Delivery:
    return Delivery(
        destination=row.destination,
        kind=ArtifactKind(row.kind),
        uid=row.uid,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        last_error=row.last_error,
        next_attempt_at=row.next_attempt_at,
        delivered_at=row.delivered_at,
        commitment=CommitmentState(row.commitment) if row.commitment else None,
        asked_at=row.asked_at,
        committed_at=row.committed_at,
    )
