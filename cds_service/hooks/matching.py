"""Which of a patient's images an order is about, and how sure that is. The order's word counts; nothing is guessed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cds_service.hooks.standing import Standing
from dermoscopy.codes import OrderKind
from fhir_adapters.concepts import site_in_words
from fhir_adapters.orders import DraftOrder

SURE = "The order names the site of this image."
BY_WORDS = "The order names the site of this image in words, not by a code."
ONLY = "The order names no site; this is the only image of the patient."
WHOLE = "The referral names no site: every result of the patient belongs to it."
UNCLEAR = "The order names no site and there are several images: check which one is meant."
UNPLACED = "This image names no site: it is unclear whether the order is about it."


@dataclass(frozen=True, slots=True)
class Match:
    """One image that an order is, or may be, about."""

    standing: Standing
    why: str
    sure: bool


def matches(order: DraftOrder, findings: Sequence[Standing]) -> list[Match]:
    """The images of ``findings`` that ``order`` is about; those at another site are not among them."""
    if not order.names_place:
        if order.kind is OrderKind.REFERRAL:
            return [Match(one, WHOLE, sure=True) for one in findings]
        alone = len(findings) == 1
        return [Match(one, ONLY if alone else UNCLEAR, sure=alone) for one in findings]
    named = site_in_words(order.words, {one.body_site_code for one in findings})
    sure = [
        Match(one, SURE if one.body_site_code in order.site_codes else BY_WORDS, sure=True)
        for one in findings
        if _same_side(order.laterality, one.laterality)
        and (one.body_site_code in order.site_codes or one.body_site_code in named)
    ]
    unplaced = [one for one in findings if not one.body_site_code and _same_side(order.laterality, one.laterality)]
    return sure or [Match(one, UNPLACED, sure=False) for one in unplaced]


def _same_side(one: str, other: str) -> bool:
    """Whether two sides can be one: ``U`` is a place without sides, and an unstated side contradicts nothing."""
    return one == other or {one, other} & {"", "U", "B"} != set()
