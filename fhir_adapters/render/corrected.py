"""Observations whose answer a clinician gave: the class, and the size inside the outline that they drew.

The algorithm's own class is kept beside the clinician's, under its own code and label. What it measured inside an
outline that was wrong does not stand: size is told from the new outline, and shape and colour are not told at all.
"""

from __future__ import annotations

import math

from dermoscopy import codes
from dermoscopy.domain import Review
from dermoscopy.outline import outline_mask
from fhir_adapters.elements import JsonObject, absent, asserted, concept, quantity
from fhir_adapters.render.draft import Draft, reviewer

BY_HAND = "Outline drawn by a clinician"
REDRAWN = absent(
    codes.ABSENT_UNKNOWN,
    "A clinician corrected the outline; what the algorithm measured inside its own does not stand.",
)


def reclassified(draft: Draft, found: JsonObject) -> JsonObject:
    """The classification ``found`` with the clinician's class: the algorithm's part in it is gone."""
    label = draft.stands.lesion_class
    assert label is not None
    corrected = next(r for r in reversed(draft.what.reviews) if r.changes_report and r.lesion_class is label)
    gone = ("dataAbsentReason", "device", "method", "note", "component", "extension")
    kept = {name: value for name, value in found.items() if name not in gone}
    original = draft.reference("observation/algorithm-class")
    return {
        **kept,
        "meta": asserted(codes.CLINICIAN_ASSERTED),
        "performer": [reviewer(corrected)],
        "valueCodeableConcept": concept(*codes.CLASS_CODES[label]),
        "derivedFrom": [original, *kept.get("derivedFrom", ())],
        "note": [{"text": note} for note in (said(corrected), corrected.comment) if note],
    }


def resized(draft: Draft, kind: str, found: JsonObject) -> JsonObject:
    """The area, diameter or shape ``found`` after the outline was drawn anew."""
    drawn = next(r for r in reversed(draft.what.reviews) if r.changes_report and r.outline)
    kept = {
        name: value
        for name, value in found.items()
        if name not in ("valueQuantity", "dataAbsentReason", "component", "note", "device", "method")
    }
    made = {**kept, "performer": [reviewer(drawn)], "note": [{"text": said(drawn)}]}
    if kind not in ("area", "diameter"):
        return {**made, "meta": asserted(codes.AI_ASSERTED, codes.CLINICIAN_ASSERTED), **REDRAWN}
    pixels = float(outline_mask(drawn.outline, draft.analysis.rows, draft.analysis.columns).sum())
    scale = _square_millimetres(draft)
    made |= {"meta": asserted(codes.CLINICIAN_ASSERTED), "method": {"text": BY_HAND}}
    if kind == "area":
        value, unit, plain, code = pixels, codes.SQUARE_MILLIMETRE, pixels, codes.AREA_PIXELS
        factor = scale
    else:
        value = plain = 2 * math.sqrt(pixels / math.pi)
        unit, code = codes.MILLIMETRE, codes.EQUIVALENT_DIAMETER_PIXELS
        factor = math.sqrt(scale) if scale else None
    answer = quantity(value * factor, unit) if factor else absent(codes.ABSENT_UNKNOWN, "The image states no scale.")
    return {**made, **answer, "component": [{"code": concept(code), **quantity(plain, codes.PIXELS, 1)}]}


def said(review: Review) -> str:
    """Who did it and when, for people."""
    name = review.reviewer_name or review.reviewer
    return f"{review.verdict.value.capitalize()} by {name} on {review.at:%Y-%m-%d %H:%M} UTC."


def _square_millimetres(draft: Draft) -> float | None:
    """Square millimetres of one pixel, by the scale that the algorithm measured with."""
    measured = draft.finding.measurements
    if measured is not None and measured.area_mm2 is not None and measured.area_px > 0:
        return measured.area_mm2 / measured.area_px
    spacing = draft.analysis.spacing_mm
    return spacing[0] * spacing[1] if spacing else None
