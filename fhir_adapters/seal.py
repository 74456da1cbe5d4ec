"""Whether a resource still says what this service wrote: a digest of its content travels in its own tags.

A later amendment replaces what the algorithm or an earlier review said, and never what somebody changed in the EHR.
Version numbers cannot tell the two apart: servers count versions for reasons of their own. The digest covers what a
clinician reads and could change; what servers fill in or rewrite (ids, references, narrative, times) is left out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from dermoscopy import codes
from fhir_adapters.elements import JsonObject

SYSTEM: Final = codes.LOCAL
"""System of our tags: the code system of this project's own codes."""
_SEAL, _REVISION = "content-", "revision-"
_CONCEPTS = ("code", "conclusionCode", "valueCodeableConcept", "dataAbsentReason", "interpretation", "bodySite")
_REFERENCES = ("performer", "resultsInterpreter")


def seal(resource: Mapping[str, Any]) -> JsonObject:
    """The tag with the digest of ``resource`` as it stands."""
    text = json.dumps(_content(resource), sort_keys=True, separators=(",", ":"))
    return {"system": SYSTEM, "code": f"{_SEAL}{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"}


def untouched(resource: Mapping[str, Any]) -> bool | None:
    """Whether nobody changed it since this service wrote it; ``None`` if it carries no seal (of an earlier version)."""
    seals = [code for code in _tags(resource) if code.startswith(_SEAL)]
    return seal(resource)["code"] in seals if seals else None


def revision_tag(revision: int) -> JsonObject:
    """The tag by which an older report that arrives late is known as such."""
    return {"system": SYSTEM, "code": f"{_REVISION}{revision}"}


def revision_of(resource: Mapping[str, Any]) -> int:
    """The newest revision among the tags: servers may keep those of earlier ones. 0 without any."""
    numbers = [code.removeprefix(_REVISION) for code in _tags(resource) if code.startswith(_REVISION)]
    return max((int(number) for number in numbers if number.isascii() and number.isdigit()), default=0)


def _tags(resource: Mapping[str, Any]) -> list[str]:
    meta = resource.get("meta")
    tags = meta.get("tag") if isinstance(meta, Mapping) else None
    return [
        str(tag.get("code"))
        for tag in (tags if isinstance(tags, list) else ())
        if isinstance(tag, Mapping) and tag.get("system") == SYSTEM
    ]


def _content(resource: Mapping[str, Any]) -> JsonObject:
    """What a clinician reads, in one form whatever a server did to blanks, order and numbers."""
    found: JsonObject = {"status": resource.get("status"), "conclusion": _words(resource.get("conclusion"))}
    for name in _CONCEPTS:
        found[name] = _concepts(resource.get(name))
    for name in _REFERENCES:
        found[name] = sorted(_words(one.get("display")) for one in _objects(resource.get(name)))
    found["note"] = [_words(one.get("text")) for one in _objects(resource.get("note"))]
    quantity = resource.get("valueQuantity")
    if isinstance(quantity, Mapping):
        value = quantity.get("value")
        found["quantity"] = [float(value) if isinstance(value, int | float) else None, quantity.get("code")]
    found["others"] = sorted(
        name for name in resource if name.startswith("value") and name not in ("valueQuantity", "valueCodeableConcept")
    )
    if parts := _objects(resource.get("component")):
        found["component"] = sorted(json.dumps(_content(part), sort_keys=True) for part in parts)
    return {name: value for name, value in found.items() if value}


def _concepts(value: Any) -> list[Any]:
    several = _objects(value if isinstance(value, list) else [value])
    return [[_coded(one), _words(one.get("text"))] for one in several]


def _coded(concept: Mapping[str, Any]) -> list[list[str]]:
    return sorted([str(one.get("system")), str(one.get("code"))] for one in _objects(concept.get("coding")))


def _objects(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _words(text: Any) -> str:
    return " ".join(text.split()) if isinstance(text, str) else ""
