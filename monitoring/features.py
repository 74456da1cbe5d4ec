"""The features of one inference, for drift reports. Numbers and strata; no patient data, no pixels, no UIDs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from datetime import datetime

import numpy as np
from sqlalchemy.orm import Session
from sqlmodel import col, select

from dermoscopy.domain import Analysis
from monitoring.tables import FeatureRow

Feature = float | str | None
EMBEDDING_DIRECTIONS = 4
_PROFILES = ("applied", "broken", "absent")
_SEED = 6962


def features(analysis: Analysis) -> dict[str, Feature]:
    """Flat mapping, the same keys in the same order for the same model.

    The embedding enters as its norm and a few fixed random projections (Johnson–Lindenstrauss): they move when the
    embeddings' distribution moves, and need no fitted axes that a new reference window would change.
    """
    finding, acquisition = analysis.finding, analysis.acquisition
    remarks = {remark.code for remark in analysis.remarks}
    probabilities = np.array([item.probability for item in finding.classes], dtype=np.float64)
    result: dict[str, Feature] = {
        "image_megapixels": analysis.rows * analysis.columns / 1e6,
        "image_aspect": analysis.columns / analysis.rows if analysis.rows else None,
        "spacing_mm": analysis.spacing_mm[0] if analysis.spacing_mm else None,
        "confidence": finding.confidence,
        "melanoma_risk": finding.melanoma_risk,
        "malignancy_risk": finding.malignancy_risk,
        "entropy": _entropy(probabilities),
        **{f"probability_{item.label.value}": item.probability for item in finding.classes},
    }
    measurements = finding.measurements
    for name in ("area_percent", "asymmetry", "border_irregularity", "colour_variety", "eccentricity", "area_mm2"):
        result[f"lesion_{name}"] = getattr(measurements, name) if measurements else None
    result["lesion_colour_count"] = float(measurements.colour_count) if measurements else None
    result.update({f"quality_{name}": float(score) for name, score in sorted(finding.quality.scores.items())})
    result.update(_embedding(np.asarray(finding.embedding, dtype=np.float64).ravel()))
    result.update(
        {
            "stratum_primary": finding.primary.value if finding.primary else "none",
            "stratum_tier": finding.triage.tier.value,
            "stratum_abstained": "yes" if finding.abstention else "no",
            "stratum_contact": _yes_no(acquisition.contact),
            "stratum_polarised": _yes_no(acquisition.polarised),
            "stratum_immersion": acquisition.immersion,
            "stratum_magnification": None if acquisition.magnification is None else f"{acquisition.magnification:g}",
            "stratum_station": acquisition.station,
            "stratum_media_type": analysis.header.media_type or None,
            "stratum_lossy": _yes_no("lossy" in remarks),
            "stratum_profile": next((word for word in _PROFILES if f"profile_{word}" in remarks), "sRGB"),
            "stratum_body_site": analysis.header.body_site_code or None,
        }
    )
    return {name: _finite(value) for name, value in result.items()}


def store_features(session: Session, analysis: Analysis) -> None:
    """Keep the features of ``analysis`` in the caller's transaction; twice changes nothing."""
    session.merge(
        FeatureRow(
            analysis_id=analysis.id,
            at=analysis.created_at,
            model_digest=analysis.finding.model.digest,
            document=json.dumps(features(analysis), allow_nan=False),
        )
    )


def stored_features(
    session: Session, *, since: datetime, until: datetime, model_digest: str | None = None
) -> Iterator[dict[str, Feature]]:
    """Features of the inferences accepted in a window (``since`` inclusive, ``until`` exclusive), in order of time."""
    query = select(FeatureRow.document).where(col(FeatureRow.at) >= since, col(FeatureRow.at) < until)
    if model_digest is not None:
        query = query.where(col(FeatureRow.model_digest) == model_digest)
    for document in session.execute(query.order_by(col(FeatureRow.at))).scalars():
        yield json.loads(document)


def _embedding(embedding: np.ndarray) -> dict[str, Feature]:
    if embedding.size == 0:
        return {}
    directions = np.random.default_rng(_SEED).standard_normal((EMBEDDING_DIRECTIONS, embedding.size))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    projections = {f"embedding_{number}": float(value) for number, value in enumerate(directions @ embedding)}
    return {"embedding_norm": float(np.linalg.norm(embedding)), **projections}


def _entropy(probabilities: np.ndarray) -> float:
    positive = probabilities[probabilities > 0]
    return float(-(positive * np.log(positive)).sum())


def _yes_no(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _finite(value: Feature) -> Feature:
    return None if isinstance(value, float) and not math.isfinite(value) else value
