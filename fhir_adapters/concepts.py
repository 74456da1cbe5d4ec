"""What CodeableConcepts of an EHR say of place and kind, in the ground's words
(https://hl7.org/fhir/R4/datatypes.html#CodeableConcept). Words count where no code does; English only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dermoscopy import codes

DERMOSCOPY = frozenset(
    (code.system, code.code) for code in (codes.DERMATOSCOPY, codes.DERMOSCOPIC_PHOTOGRAPHY, codes.MODALITY_DERMOSCOPY)
)
_DERMOSCOPY_WORDS = re.compile(r"derm(at)?oscop|epiluminescen", re.IGNORECASE)
_SIDES = {code.code: side for side, code in codes.LATERALITY.items()}
_SIDE_WORDS = (("B", r"\b(bilateral|both)\b"), ("L", r"\bleft\b"), ("R", r"\bright\b"))
_SNOMED_CODE = re.compile(r"[1-9][0-9]{5,17}")


def members(value: object) -> list[Mapping[str, Any]]:
    """The JSON objects of a list, or of one object in its place; what is neither is left out."""
    several = value if isinstance(value, list) else [value]
    return [one for one in several if isinstance(one, Mapping)]


def is_patient(reference: str, patient_id: str) -> bool:
    """Whether a literal reference, relative, absolute or to a version, is to ``Patient/<patient_id>``
    (https://hl7.org/fhir/R4/references.html#literal).
    """
    return f"/{reference.partition('/_history/')[0]}".endswith(f"/Patient/{patient_id}")


def codings(*concepts: object) -> Iterator[tuple[str, str]]:
    """(system, code) of CodeableConcepts, and of bare Codings."""
    for concept in (one for value in concepts for one in members(value)):
        for coding in members(concept.get("coding")) or [concept]:
            system, code = coding.get("system"), coding.get("code")
            if isinstance(code, str) and code:
                yield system if isinstance(system, str) else "", code


def words(*concepts: object) -> str:
    """Texts and displays of CodeableConcepts and plain texts, joined."""
    found: list[str] = []
    for value in concepts:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str):
                found.append(one)
            elif isinstance(one, Mapping):
                displays = [
                    one.get("text"),
                    one.get("display"),
                    *(c.get("display") for c in members(one.get("coding"))),
                ]
                found += [text for text in displays if isinstance(text, str)]
    return " ".join(found)


def says_dermoscopy(*concepts: object) -> bool:
    """Whether codes or words name dermoscopy."""
    return not DERMOSCOPY.isdisjoint(codings(*concepts)) or bool(_DERMOSCOPY_WORDS.search(words(*concepts)))


def side_of(*concepts: object) -> str:
    """``L``, ``R``, ``B``, or empty where codes and words name no side, or more than one."""
    coded = {_SIDES[code] for system, code in codings(*concepts) if system == codes.SNOMED and code in _SIDES}
    said = words(*concepts)
    found = coded or {side for side, pattern in _SIDE_WORDS if re.search(pattern, said, re.IGNORECASE)}
    return found.pop() if len(found) == 1 else ""


def site_codes(*concepts: object) -> list[str]:
    """SNOMED CT codes of body sites, sides left out."""
    return [
        code
        for system, code in codings(*concepts)
        if system == codes.SNOMED and code not in _SIDES and _SNOMED_CODE.fullmatch(code)
    ]


def site_in_words(said: str, sites: Iterable[str]) -> frozenset[str]:
    """Which of ``sites`` (SNOMED CT codes of `codes.SITES`) a text names: "left cheek" names "Skin of cheek"."""
    text = f" {re.sub(r'[^a-z]+', ' ', said.lower())} "
    return frozenset(
        code
        for code in sites
        if code in codes.SITES and f" {codes.SITES[code].display.lower().removeprefix('skin of ')} " in text
    )
