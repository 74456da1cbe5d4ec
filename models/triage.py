"""Risks to an urgency tier with its reason and a plain recommendation.

The order of the questions is the safety argument: a missed melanoma can kill, so a doubt never lowers a tier. Only a
frame that is no dermoscopic photograph at all stops before the first question, because there the network's answer means
nothing. Nobody is sent away by this: the mildest tier still says what to watch for.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    """Calibrated probabilities that triage looks at. ``best`` is the most probable class, believed or not, and
    ``confidence`` its probability; ``called`` is what the decision rule names (``None``: ``best`` as well).
    """

    melanoma: float
    malignancy: float
    best: LesionClass
    confidence: float
    called: LesionClass | None = None


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
    called = risks.called or risks.best
    dangerous = MALIGNANT.union(malignancy.classes)
    for label, role in ((risks.best, "most probable class"), (called, "class called")):
        if label in dangerous:
            return Triage(
                TriageTier.EXPEDITED,
                f"Risks are below their operating points, but the {role} is {NAMES[label]}.",
                "Expedited dermatologist review; consider biopsy.",
            )
    name = NAMES[called]
    clear = (
        called == risks.best
        and risks.confidence >= MONITOR_CONFIDENCE
        and risks.melanoma < MONITOR_RISK_SHARE * melanoma.probability
        and risks.malignancy < MONITOR_RISK_SHARE * malignancy.probability
    )
    if clear:
        return Triage(
            TriageTier.MONITOR,
            f"The image looks like {name}; melanoma and malignancy risks are far below their operating points.",
            "Routine skin checks; look again at once if the lesion changes, bleeds, or worries patient or clinician.",
        )
    role = "most probable class" if called == risks.best else "class called"
    return Triage(
        TriageTier.ROUTINE,
        f"The {role} is {name}, and risks are below their operating points, but not by a wide margin.",
        "Clinical examination at a routine appointment; sooner if the lesion changes, bleeds, or stands out.",
    )


def decision_note(
    called: LesionClass,
    best: LesionClass,
    probability: Mapping[LesionClass, float],
    weight: Mapping[LesionClass, float],
) -> str:
    """Why ``called`` is not the most probable class ``best``, for every reader of the finding; empty where it is."""
    if called == best:
        return ""
    return (
        f"Called {NAMES[called]} ({_percent(probability[called])}) although {NAMES[best]} is more probable "
        f"({_percent(probability[best])}), because the model's decision rule gives {NAMES[called]} "
        f"{weight[called] / weight[best]:.1f} times the weight of {NAMES[best]}, so that rarer diagnoses are not "
        "overlooked."
    )


def _percent(probability: float) -> str:
    return f"{100 * probability:.1f} %"


def _cost(point: OperatingPoint) -> str:
    if point.sensitivity is None or point.specificity is None:
        return ""
    fold = f" on the {point.fold} fold" if point.fold else ""
    return f" (sensitivity {_percent(point.sensitivity)}, specificity {_percent(point.specificity)}{fold})"
