"""Risks to an urgency tier with its reason and a plain recommendation.

The order of the questions is the safety argument: a missed melanoma can kill, so a doubt never lowers a tier. Only a
frame that is no dermoscopic photograph at all stops before the first question, because there the network's answer means
nothing. Nobody is sent away by this: the mildest tier still says what to watch for.
"""

from __future__ import annotations

from dataclasses import dataclass

from dermoscopy.domain import MALIGNANT, LesionClass, Triage, TriageTier
from models.manifest import MalignancyPoint, OperatingPoint

MONITOR_RISK_SHARE = 0.25
"""`MONITOR` only where melanoma and malignancy risk are both below this share of their operating points …"""
MONITOR_CONFIDENCE = 0.80
"""… and the primary class is benign with at least this calibrated probability."""

NAMES: dict[LesionClass, str] = {
    LesionClass.AKIEC: "actinic keratosis or intraepithelial carcinoma",
    LesionClass.BCC: "basal cell carcinoma",
    LesionClass.BKL: "benign keratosis",
    LesionClass.DF: "dermatofibroma",
    LesionClass.MEL: "melanoma",
    LesionClass.NV: "melanocytic nevus",
    LesionClass.VASC: "vascular lesion",
}
"""Plain names of the classes as they appear in sentences."""


@dataclass(frozen=True, slots=True)
class Risks:
    """Calibrated probabilities that triage looks at. ``best`` is the most probable class, believed or not."""

    melanoma: float
    malignancy: float
    best: LesionClass
    confidence: float


def triage(
    risks: Risks,
    melanoma: OperatingPoint,
    malignancy: MalignancyPoint,
    *,
    faults: tuple[str, ...] = (),
    abstention: str | None = None,
) -> Triage:
    """Tier, reason and recommendation. ``faults`` and ``abstention`` come from `models.quality` and the prediction."""
    if faults:
        return Triage(
            TriageTier.UNDETERMINED,
            f"The image cannot be analysed: {'; '.join(faults)}.",
            "Retake the dermoscopic image, or examine the lesion in person.",
        )
    caution = f" The analysis is uncertain ({abstention})." if abstention else ""
    retake = " Retake the image as well." if abstention else ""
    if risks.melanoma >= melanoma.probability:
        return Triage(
            TriageTier.URGENT,
            f"Melanoma risk {_percent(risks.melanoma)} is at or above the operating point "
            f"{_percent(melanoma.probability)}{_cost(melanoma)}.{caution}",
            f"Urgent dermatologist review; consider excision biopsy.{retake}",
        )
    if risks.malignancy >= malignancy.probability:
        return Triage(
            TriageTier.EXPEDITED,
            "Melanoma risk is below its operating point, but the risk of a malignant or premalignant lesion, "
            f"{_percent(risks.malignancy)}, is at or above {_percent(malignancy.probability)}{_cost(malignancy)}."
            f"{caution}",
            f"Expedited dermatologist review; consider biopsy.{retake}",
        )
    if abstention:
        return Triage(
            TriageTier.UNDETERMINED,
            f"The algorithm abstains: {abstention}.",
            "Retake the dermoscopic image, or examine the lesion in person.",
        )
    name = NAMES[risks.best]
    if risks.best in MALIGNANT or risks.best in malignancy.classes:
        return Triage(
            TriageTier.EXPEDITED,
            f"Risks are below their operating points, but the most probable class is {name}.",
            "Expedited dermatologist review; consider biopsy.",
        )
    clear = (
        risks.confidence >= MONITOR_CONFIDENCE
        and risks.melanoma < MONITOR_RISK_SHARE * melanoma.probability
        and risks.malignancy < MONITOR_RISK_SHARE * malignancy.probability
    )
    if clear:
        return Triage(
            TriageTier.MONITOR,
            f"The image looks like {name}; melanoma and malignancy risks are far below their operating points.",
            "Routine skin checks; look again at once if the lesion changes, bleeds, or worries patient or clinician.",
        )
    return Triage(
        TriageTier.ROUTINE,
        f"The most probable class is {name}, and risks are below their operating points, but not by a wide margin.",
        "Clinical examination at a routine appointment; sooner if the lesion changes, bleeds, or stands out.",
    )


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def _cost(point: OperatingPoint) -> str:
    if point.sensitivity is None or point.specificity is None:
        return ""
    fold = f" on the {point.fold} fold" if point.fold else ""
    return f" (sensitivity {_percent(point.sensitivity)}, specificity {_percent(point.specificity)}{fold})"
