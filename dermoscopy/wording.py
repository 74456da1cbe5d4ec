"""What every reader of a finding is told in the same words: on the card, the page, in the report and in the picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dermoscopy.domain import LesionClass, TriageTier
from dermoscopy.overlay import CLASS_TITLES

SET_ALPHA = "set.alpha"
"""Key of `Inference.thresholds`: the share of each class's images whose prediction set may miss it."""


def not_excluded(prediction_set: Sequence[LesionClass], thresholds: Mapping[str, float]) -> str:
    """The prediction set as a sentence; empty where the model has no sets."""
    if not prediction_set:
        return ""
    rate = f" at an error rate of {100 * thresholds[SET_ALPHA]:.0f} %" if SET_ALPHA in thresholds else ""
    only = " only" if len(prediction_set) == 1 else ""
    return f"Cannot be excluded{rate}: {', '.join(CLASS_TITLES[label] for label in prediction_set)}{only}."


@dataclass(frozen=True, slots=True)
class PlainWords:
    """How urgent it is and what to do, for somebody who is no clinician: no probability, no name of a disease."""

    heading: str
    explanation: str
    next_step: str


PATIENT_NOTICE = (
    "This comes from a computer program that is being tested. It is not a diagnosis and can be wrong. "
    "A doctor decides. If the spot bleeds, hurts, or changes in size, shape or colour, do not wait: see a doctor."
)
PATIENT_WORDS: Mapping[TriageTier, PlainWords] = {
    TriageTier.URGENT: PlainWords(
        "See a skin doctor as soon as possible",
        "The program found signs in this picture that a skin doctor should look at very soon. This does not mean that "
        "something bad was found: only an examination can tell.",
        "Call a skin clinic today and ask for the earliest appointment. Take this report with you.",
    ),
    TriageTier.EXPEDITED: PlainWords(
        "See a skin doctor soon",
        "The program found signs in this picture that a skin doctor should look at before long.",
        "Make an appointment at a skin clinic within the next two weeks. Take this report with you.",
    ),
    TriageTier.UNDETERMINED: PlainWords(
        "The program cannot say",
        "The picture could not be judged. That is not good news and not bad news.",
        "Have the picture taken again, or show the spot to a doctor.",
    ),
    TriageTier.ROUTINE: PlainWords(
        "Show it at your next skin check",
        "The program found nothing in this picture that has to be seen at once. It can miss things.",
        "Have a doctor look at the spot at your next appointment.",
    ),
    TriageTier.MONITOR: PlainWords(
        "Keep an eye on it",
        "The program found nothing unusual in this picture. It can miss things.",
        "Look at the spot once a month. If it changes, see a doctor.",
    ),
}
"""Tier → what a patient is told. No tier says that all is well."""
