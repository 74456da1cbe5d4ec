"""Observations whose answer rests on a clinician: the class, and what was measured inside the outline that they drew.

The algorithm's own class is kept beside the clinician's, under its own code and label. What it measured inside an
outline that was wrong does not stand.
"""

from __future__ import annotations

from dermoscopy import codes
from dermoscopy.domain import Review
from fhir_adapters.elements import JsonObject, absent, asserted, concept
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


def remeasured(draft: Draft, found: JsonObject) -> JsonObject:
    """The measure ``found`` after the outline was drawn anew: computed as before, inside what a clinician drew."""
    drawn = next(r for r in reversed(draft.what.reviews) if r.changes_report and r.outline)
    made = {
        **found,
        "meta": asserted(codes.AI_ASSERTED, codes.CLINICIAN_ASSERTED),
        "performer": [reviewer(drawn)],
        "note": [{"text": f"{BY_HAND}. {said(drawn)}"}],
    }
    if draft.what.outlined is not None:
        return made
    kept = {name: value for name, value in made.items() if name not in ("valueQuantity", "component")}
    return {**kept, **REDRAWN}


def said(review: Review) -> str:
    """Who did it and when, for people."""
    name = review.reviewer_name or review.reviewer
    return f"{review.verdict.value.capitalize()} by {name} on {review.at:%Y-%m-%d %H:%M} UTC."
