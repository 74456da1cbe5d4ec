"""Numbers and codes of an analysis in the words of the pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cds_service.api.answers import Diagnosis
from dermoscopy import codes
from dermoscopy.domain import ReportStatus, Verdict
from dermoscopy.overlay import CLASS_TITLES
from dermoscopy.reviews import Standing

TITLES = {label.value: title for label, title in CLASS_TITLES.items()}
SITES = sorted(((code, site.display) for code, site in codes.SITES.items()), key=lambda pair: pair[1])
SIDES = [(side, code.display) for side, code in codes.LATERALITY.items()]
STATUSES = {
    ReportStatus.PRELIMINARY.value: "preliminary: no clinician has reviewed it",
    ReportStatus.FINAL.value: "final: confirmed by a clinician",
    ReportStatus.AMENDED.value: "amended by a clinician",
    ReportStatus.ENTERED_IN_ERROR.value: "withdrawn: not usable",
}
VERDICTS = {
    Verdict.CONFIRMED.value: "confirmed",
    Verdict.CORRECTED.value: "corrected",
    Verdict.UNUSABLE.value: "said that it is not usable",
    Verdict.COMMENTED.value: "commented",
}
_ROWS = (
    ("area_mm2", "Area", "mm²"),
    ("area_px", "Area", "pixels"),
    ("area_percent", "Share of the image", "%"),
    ("equivalent_diameter_mm", "Diameter of the circle of equal area", "mm"),
    ("equivalent_diameter_px", "Diameter of the circle of equal area", "pixels"),
    ("perimeter_mm", "Perimeter", "mm"),
    ("perimeter_px", "Perimeter", "pixels"),
    ("asymmetry", "Asymmetry (0 is symmetric)", ""),
    ("border_irregularity", "Border irregularity (1 is a circle)", ""),
    ("circularity", "Circularity", ""),
    ("solidity", "Solidity", ""),
    ("eccentricity", "Eccentricity", ""),
    ("colour_count", "Dermoscopic colours", "of 6"),
    ("colour_variety", "Colour variety", ""),
)


def called(primary: str, stands: Standing, nothing: str) -> str:
    """The class in words: a clinician's before the algorithm's; ``nothing`` where there is none."""
    if stands.withdrawn:
        return "withdrawn by a clinician"
    if stands.lesion_class:
        return f"{TITLES[stands.lesion_class.value]}, by a clinician"
    return TITLES[primary] if primary else nothing


def probabilities(said: Diagnosis) -> list[dict[str, Any]]:
    """Most probable first; marked are the called class, where it is another one, and those that are not excluded."""
    ordered = sorted(said.all_classes.items(), key=lambda pair: -pair[1])
    return [
        {
            "title": CLASS_TITLES[label],
            "probability": share,
            "called": bool(said.decision_note) and label == said.primary,
            "kept": label in said.prediction_set,
        }
        for label, share in ordered
    ]


def measurements(measured: Any) -> list[tuple[str, str]]:
    """(title, value with unit) of what was measured."""
    if measured is None:
        return []
    values = ((title, getattr(measured, name), unit) for name, title, unit in _ROWS)
    return [(title, f"{_number(value)} {unit}".strip()) for title, value, unit in values if value is not None]


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def colours(measured: Any) -> list[tuple[str, float]]:
    """Colours that are there, the largest share first."""
    if measured is None:
        return []
    seen = ((name.replace("_", " "), share) for name, share in measured.colour_fractions.items() if share > 0)
    return sorted(seen, key=lambda pair: -pair[1])


def place(site: str, side: str) -> str:
    """Body site and side in words; empty where neither is known."""
    known = (codes.SITES.get(site), codes.LATERALITY.get(side))
    return ", ".join(part.display for part in known if part is not None)


def acquisition(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the picture was taken, as far as the sender said so (PS3.3 C.8.12.13)."""
    taken = document.get("acquisition") or {}
    spacing = document.get("spacing_mm")
    rows = [
        ("Contact", _either(taken.get("contact"), "in contact with the skin", "without contact")),
        ("Light", _either(taken.get("polarised"), "polarised", "not polarised")),
        ("Immersion", str(taken.get("immersion") or "")),
        ("Magnification", f"{taken['magnification']:g} ×" if taken.get("magnification") else ""),
        ("Station", str(taken.get("station") or "")),
        ("Scale", f"{spacing[0]:.4g} × {spacing[1]:.4g} mm per pixel" if spacing else ""),
    ]
    return [(title, value) for title, value in rows if value]


def _either(value: bool | None, yes: str, no: str) -> str:
    return "" if value is None else yes if value else no
