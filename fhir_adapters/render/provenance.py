"""Provenance: which computation made this, from what (https://hl7.org/fhir/R4/provenance.html, AI Provenance)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from dermoscopy import codes
from dermoscopy.domain import Review, Verdict
from dermoscopy.identifiers import SYSTEM, digest_uri
from fhir_adapters.elements import JsonObject, ai_asserted, asserted, concept, dicom_identifier, instant, narrative
from fhir_adapters.render.corrected import said
from fhir_adapters.render.draft import NOTICE, Draft, reviewer


def provenance(draft: Draft, targets: Sequence[str]) -> JsonObject:
    """R4 gives Provenance no identifier, so a tag with the derived URN makes it findable and a repeat harmless."""
    tag = {"system": SYSTEM, "code": draft.urn("provenance")}
    return {
        "resourceType": "Provenance",
        "meta": {**ai_asserted(), "tag": [tag]},
        "text": narrative(_computation(draft)),
        "target": [{"reference": url} for url in targets],
        "occurredDateTime": draft.created,
        "recorded": draft.created,
        "reason": [concept(codes.AI_ASSERTED)],
        "agent": [
            {
                "type": concept(codes.PARTICIPANT_AUTHOR),
                "role": [concept(codes.AI_DEVICE)],
                "who": draft.device,
            }
        ],
        "entity": [{"role": "source", "what": _source(draft)}],
    }


def review_provenances(draft: Draft, targets: Sequence[str]) -> list[JsonObject]:
    """One for each review that changed the report: who, when, and what they said of it."""
    return [_review_provenance(draft, review, targets) for review in draft.what.reviews if review.changes_report]


def _review_provenance(draft: Draft, review: Review, targets: Sequence[str]) -> JsonObject:
    who, at = reviewer(review), instant(review.at)
    agents = [{"type": concept(codes.PARTICIPANT_VERIFIER), "who": who}]
    if review.verdict is Verdict.CORRECTED:
        agents.append({"type": concept(codes.PARTICIPANT_AUTHOR), "who": who})
    return {
        "resourceType": "Provenance",
        "meta": {
            **asserted(codes.CLINICIAN_ASSERTED),
            "tag": [{"system": SYSTEM, "code": draft.urn(f"provenance/{review.id}")}],
        },
        "text": narrative([said(review)]),
        "target": [{"reference": url} for url in targets],
        "occurredDateTime": at,
        "recorded": at,
        "reason": [concept(codes.CLINICIAN_ASSERTED)],
        "activity": {"text": f"Review: {review.verdict.value}"},
        "agent": agents,
        "entity": [{"role": "source", "what": _source(draft)}],
    }


def _source(draft: Draft) -> JsonObject:
    if draft.source_uid:
        return {"identifier": dicom_identifier(draft.source_uid), "display": "Dermoscopic image"}
    digest = hashlib.sha256(draft.what.source.data).hexdigest()
    return {"identifier": {"system": SYSTEM, "value": digest_uri(digest)}, "display": "Dermoscopic image"}


def _computation(draft: Draft) -> list[str]:
    model, run = draft.finding.model, draft.finding.inference
    thresholds = ", ".join(f"{name} {value:g}" for name, value in sorted(run.thresholds.items()))
    return [
        NOTICE,
        f"Model {model.name} {model.version}, weights SHA-256 {model.digest}; code {run.code_version}.",
        f"Computed on {run.execution_provider} in {run.precision}; preprocessing {run.preprocessing_digest}.",
        f"Pixels {draft.analysis.pixel_digest}; mask {run.mask_digest}; heat-map {run.heatmap_digest}.",
        f"Thresholds: {thresholds}." if thresholds else "",
    ]
