"""Resources of stored bundles as the read side serves them: ids, versions, relative references, searchsets.

A logical id says which analysis a resource is of, and holds nothing else: 32 hexadecimal digits of the analysis, a dot,
and 24 of the resource's ``fullUrl`` in the bundle, which is derived and stays over all versions. A Device is shared by
all analyses of the same weights, so its id is its ``fullUrl`` alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from dermoscopy.domain import ModelReference
from dermoscopy.identifiers import device_urn
from fhir_adapters.addressing import linked
from fhir_adapters.elements import JsonObject, entry_url, instant
from fhir_adapters.facade_types import TYPES

_ID = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{24})")
_DEVICE = "Device"


@dataclass(frozen=True, slots=True)
class Edition:
    """One version of the results of one analysis, as stored."""

    analysis_id: str
    revision: int
    stored_at: datetime
    """When this version took the place of the one before it (UTC)."""

    @property
    def version(self) -> str:
        """``meta.versionId``; the first version is 1."""
        return str(self.revision + 1)


def etag(version: str) -> str:
    """https://hl7.org/fhir/R4/http.html#versioning"""
    return f'W/"{version}"'


def analysis_of(logical_id: str) -> str:
    """Id of the analysis that a logical id names; empty if it is no id of ours (or a Device's)."""
    found = _ID.fullmatch(logical_id)
    return str(UUID(found[1])) if found else ""


def device_id(model: ModelReference) -> str:
    """Logical id of the Device that stands for these weights."""
    return entry_url(device_urn(model)).removeprefix("urn:uuid:")


def views(bundle: JsonObject, edition: Edition, *, dicomweb: str, system_of: Callable[[str], str]) -> list[JsonObject]:
    """Every resource of a stored bundle as it is served, in the order of the bundle (changes ``bundle``).

    ``dicomweb``: root of our DICOMweb service, where DocumentReference and Media find their objects; ``system_of``:
    issuer of patient ids → FHIR identifier system, empty where there is none.
    """
    entries = linked(bundle, dicomweb)["entry"]
    places = {one["fullUrl"]: _place(one, edition.analysis_id) for one in entries}
    made = []
    for one in entries:
        resource = _pointed(one["resource"], places)
        resource["id"] = places[one["fullUrl"]].partition("/")[2]
        shared = resource["resourceType"] == _DEVICE
        resource["meta"] = {
            **resource.get("meta", {}),
            "versionId": "1" if shared else edition.version,
            "lastUpdated": instant(edition.stored_at),
        }
        _name_system(resource, system_of)
        made.append(resource)
    return [one for one in made if one["resourceType"] in TYPES]


def included(report: JsonObject, present: Iterable[JsonObject], wanted: Sequence[str]) -> list[JsonObject]:
    """Resources among ``present`` that ``_include`` values ask for beside ``report``, once each."""
    paths = TYPES[report["resourceType"]].includes
    named = {place for value in wanted for place in _references(report, paths[value])}
    return [one for one in present if f"{one['resourceType']}/{one['id']}" in named]


def searchset(
    base: str,
    matches: Sequence[JsonObject],
    others: Sequence[JsonObject] = (),
    *,
    links: Mapping[str, str],
    total: int | None = None,
    warning: str = "",
) -> JsonObject:
    """Bundle that answers a search (https://hl7.org/fhir/R4/bundle.html#searchset).

    ``links``: relation → address; ``others``: what was included; ``warning``: what the searcher must know of the
    answer. ``total`` is left out where nobody counted.
    """
    found: JsonObject = {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": relation, "url": url} for relation, url in links.items()],
    }
    if total is not None:
        found["total"] = total
    entries = [_entry(base, one, "match") for one in matches] + [_entry(base, one, "include") for one in others]
    if warning:
        issue = {"severity": "warning", "code": "incomplete", "diagnostics": warning}
        outcome = {"resourceType": "OperationOutcome", "issue": [issue]}
        entries.append({"resource": outcome, "search": {"mode": "outcome"}})
    if entries:
        found["entry"] = entries
    return found


def _entry(base: str, resource: JsonObject, mode: str) -> JsonObject:
    url = f"{base}/{resource['resourceType']}/{resource['id']}"
    return {"fullUrl": url, "resource": resource, "search": {"mode": mode}}


def _place(entry: JsonObject, analysis_id: str) -> str:
    kind, url = entry["resource"]["resourceType"], entry["fullUrl"].removeprefix("urn:uuid:")
    if kind == _DEVICE:
        return f"{kind}/{url}"
    return f"{kind}/{UUID(analysis_id).hex}.{UUID(url).hex[:24]}"


def _pointed(value: Any, places: Mapping[str, str]) -> Any:
    """A copy of ``value`` in which references between entries are relative ones."""
    if isinstance(value, list):
        return [_pointed(one, places) for one in value]
    if not isinstance(value, dict):
        return value
    made = {name: _pointed(one, places) for name, one in value.items()}
    if isinstance(reference := made.get("reference"), str):
        made["reference"] = places.get(reference, reference)
    return made


def _references(value: Any, path: Sequence[str]) -> list[str]:
    """Literal references at ``path``, whose elements may repeat."""
    if isinstance(value, list):
        return [found for one in value for found in _references(one, path)]
    if not path:
        return [value["reference"]] if "reference" in value else []
    return _references(value[path[0]], path[1:]) if path[0] in value else []


def _name_system(resource: JsonObject, system_of: Callable[[str], str]) -> None:
    """Say which system the patient's identifier is of; the reference stays a logical one."""
    for name in ("subject", "patient"):
        identifier = resource.get(name, {}).get("identifier")
        if identifier is None:
            continue
        system = system_of(identifier.get("assigner", {}).get("display", ""))
        if ":" in system:  # an issuer that no setting maps is a name, and no URI
            resource[name] = {**resource[name], "identifier": {"system": system, **identifier}}
