"""FHIR R4 data types as plain JSON, from the ground's types (https://hl7.org/fhir/R4/datatypes.html)."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

from dermoscopy import codes
from dermoscopy.codes import Code
from dermoscopy.domain import derive_id
from dermoscopy.identifiers import DICOM_SYSTEM, SYSTEM, dicom_urn

JsonObject = dict[str, Any]
"""One FHIR element or resource; `fhir_adapters.render.bundle` checks the whole against the R4 types."""

FHIR_JSON = "application/fhir+json"


def coding(code: Code) -> JsonObject:
    """https://hl7.org/fhir/R4/datatypes.html#Coding"""
    found = {"system": code.system, "code": code.code}
    return {**found, "display": code.display} if code.display else found


def concept(*several: Code, text: str = "") -> JsonObject:
    """https://hl7.org/fhir/R4/datatypes.html#CodeableConcept; ``text`` defaults to the first display."""
    return {"coding": [coding(code) for code in several], "text": text or several[0].display}


def number(value: float, digits: int) -> float | int | None:
    """``value`` as a JSON number, or ``None`` where FHIR has no number for it (not finite)."""
    if not math.isfinite(value):
        return None
    rounded = round(float(value), digits)
    return int(rounded) if rounded == int(rounded) else rounded


def quantity(value: float, unit: Code, digits: int = 4) -> JsonObject:
    """``valueQuantity`` in UCUM, or ``dataAbsentReason`` for a value that is no number."""
    found = number(value, digits)
    if found is None:
        return absent(codes.ABSENT_UNKNOWN, "The computation gave no number.")
    return {
        "valueQuantity": {"value": found, "unit": unit.display, "system": unit.system, "code": unit.code},
    }


def absent(reason: Code, text: str, *causes: Code) -> JsonObject:
    """``dataAbsentReason`` with its explanation (https://hl7.org/fhir/R4/valueset-data-absent-reason.html).

    ``causes`` say it in our own codes: the binding is extensible, and wants one coding of its own value set.
    """
    return {"dataAbsentReason": concept(reason, *causes, text=text)}


def own_identifier(urn: str) -> JsonObject:
    """A derived ``urn:uuid:`` as business identifier."""
    return {"system": SYSTEM, "value": urn}


def entry_url(urn: str) -> str:
    """``fullUrl`` of the resource with this identifier, on purpose another URN.

    A server puts its own id wherever a bundle says a ``fullUrl``; some do so in identifiers too, which would then no
    longer be found when the bundle comes again.
    """
    return f"urn:uuid:{derive_id('fhir-entry', urn)}"


def dicom_identifier(uid: str) -> JsonObject:
    """A DICOM UID as identifier (https://hl7.org/fhir/R4/imagingstudy.html#notes)."""
    return {"system": DICOM_SYSTEM, "value": dicom_urn(uid)}


def instant(moment: datetime) -> str:
    """https://hl7.org/fhir/R4/datatypes.html#instant in UTC; a time without zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def attachment(data: bytes, media_type: str, title: str, created: str) -> JsonObject:
    """https://hl7.org/fhir/R4/datatypes.html#Attachment without its content; ``hash`` is SHA-1 by definition."""
    digest = hashlib.sha1(data, usedforsecurity=False).digest()
    return {
        "contentType": media_type,
        "title": title,
        "creation": created,
        "size": len(data),
        "hash": base64.b64encode(digest).decode("ascii"),
    }


def ai_asserted() -> JsonObject:
    """``meta`` with the AI security label (https://build.fhir.org/ig/HL7/aitransparency-ig/)."""
    return asserted(codes.AI_ASSERTED)


def asserted(*by: Code) -> JsonObject:
    """``meta`` with security labels that say who says so: the algorithm, a clinician, or both."""
    return {"security": [coding(code) for code in by]}


def narrative(paragraphs: Sequence[str]) -> JsonObject:
    """https://hl7.org/fhir/R4/narrative.html from plain text."""
    body = "".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs if paragraph)
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{body}</div>'}


def sentence(text: str) -> str:
    """``text`` with an end, so that what follows is another sentence."""
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."
