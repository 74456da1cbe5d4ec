"""What may leave in a de-identified export, and what is kept back and why. In doubt nothing leaves.

Every reason is a fixed code. Those in `APPROVABLE` are doubts about what the picture shows: a person who looked at it
may approve it by name. The others are no doubts: whose image it is, or whether it may be used at all, is not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from dermoscopy.codes import SITES
from dermoscopy.domain import Analysis, RGBPixels
from dicom_listener.deidentify_source import Photograph
from models.annotations import field, find_writing

HELD: Final = "held"
WITHDRAWN: Final = "withdrawn"
UNREADABLE: Final = "unreadable"
NOT_REVIEWED: Final = "not_reviewed"
APPROVABLE: Final[Mapping[str, str]] = {
    "not_analysed": "the gate never judged it, so it may show anything",
    "not_dermoscopy": "the gate says that it is no dermoscopic image",
    "unlike_training": "the gate says that it is unlike dermoscopic images",
    "no_lesion": "no lesion was found, so it may show anything",
    "abstained": "the algorithm abstained and its reasons are not coded (an analysis of an earlier version)",
    "may_show_face": "a clinical photograph of the head, or of nobody knows where",
    "recognisable_features": "the object says that a person can be recognised in it",
    "burned_in_annotation": "the object says that writing is burned in, and what was cleaned is not certain to be all",
    "writing": "something looks like writing inside the field",
}
WORDS: Final[Mapping[str, str]] = {
    **APPROVABLE,
    HELD: "it waits for a person (cds holds)",
    WITHDRAWN: "a clinician said that it must not be used",
    UNREADABLE: "it cannot be decoded",
    NOT_REVIEWED: "nobody has said what it shows (--reviewed-only)",
}
_DOUBTED: Final = ("not_dermoscopy", "unlike_training", "no_lesion")
_BELOW_THE_HEAD: Final = frozenset(
    {
        *("abdomen", "ankle", "antecubital", "arm", "axilla", "back", "buttock", "chest", "elbow", "epigastric"),
        *("extremity", "finger", "foot", "forearm", "groin", "hand", "heel", "hypogastric", "infraclavicular"),
        *("inguinal", "knee", "leg", "nail", "palm", "popliteal", "sole", "sternal", "thigh", "thorax", "toe"),
        *("trunk", "umbilicus", "wrist"),
    }
)
"""Words of body sites from which a photograph shows no face."""


@dataclass(frozen=True, slots=True)
class Cleaned:
    """Pixels without what surrounds the field, and what else was found in them."""

    pixels: RGBPixels
    altered: bool
    """Whether any pixel is another than before."""
    written_around: bool
    """Whether there was writing in what was blacked."""
    written_inside: bool


def clean(pixels: RGBPixels) -> Cleaned:
    """uint8 RGB ``pixels`` [rows, columns, 3] with everything outside the dermoscopic field black."""
    inside = field(pixels)
    cleaned = np.where(inside[..., np.newaxis], pixels, np.uint8(0))
    writing = find_writing(pixels).boxes if not inside.all() else ()
    around = any(not inside[top:bottom, left:right].all() for top, left, bottom, right in writing)
    return Cleaned(cleaned, bool((cleaned != pixels).any()), around, find_writing(cleaned).found)


def doubts_of_finding(analysis: Analysis | None) -> list[str]:
    """What the gate of the algorithm says against a picture."""
    if analysis is None:
        return ["not_analysed"]
    finding = analysis.finding
    if finding.abstention and not finding.abstention_reasons:
        return ["abstained"]
    codes = {reason.code for reason in finding.abstention_reasons}
    return [code for code in _DOUBTED if code in codes]


def doubts_of_object(photograph: Photograph, body_site_code: str) -> list[str]:
    """What the object says against itself."""
    found = ["recognisable_features"] if photograph.recognisable else []
    if photograph.clinical and may_show_face(body_site_code):
        found.append("may_show_face")
    return found


def doubts_of_pixels(photograph: Photograph, cleaned: Cleaned) -> list[str]:
    """Whether writing may be left in ``cleaned``."""
    if cleaned.written_inside:
        return ["writing"]
    return ["burned_in_annotation"] if photograph.annotated and not cleaned.written_around else []


def may_show_face(body_site_code: str) -> bool:
    """Whether a photograph of this site (SNOMED CT) can show a face; one of nobody knows where can."""
    site = SITES.get(body_site_code)
    return site is None or _BELOW_THE_HEAD.isdisjoint(site.display.lower().split())


def first(doubts: Iterable[str], *, approved: bool) -> str:
    """The reason that keeps an image back; empty when it may leave."""
    return next((doubt for doubt in doubts if not (approved and doubt in APPROVABLE)), "")
