"""A stored bundle made ready for one addressee: its patient, its order, and where its users reach our DICOM objects.

What is filled in here is known only where the bundle is delivered, so none of it counts in the digest that makes a
repeat a repeat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fhir_adapters.elements import JsonObject

_OID = "urn:oid:"


def addressed(bundle: JsonObject, patient: str, system: str, value: str) -> JsonObject:
    """The bundle as it is sent: every logical reference to the patient made literal as well (changes ``bundle``)."""
    for entry in bundle["entry"]:
        resource = entry["resource"]
        for name in ("subject", "patient"):
            if name in resource:
                resource[name] = {
                    "reference": patient,
                    "type": "Patient",
                    "identifier": {"system": system, "value": value},
                }
    return bundle


def accession_of(bundle: JsonObject) -> str:
    """The accession number that the report is based on; empty if the image states none."""
    based_on = report_of(bundle["entry"]).get("basedOn") or [{}]
    return str(based_on[0].get("identifier", {}).get("value") or "")


def ordered_by(bundle: JsonObject, reference: str) -> JsonObject:
    """The bundle with the order also as a literal reference, ``ServiceRequest/<id>`` (changes ``bundle``)."""
    report = report_of(bundle["entry"])
    report["basedOn"] = [{**report["basedOn"][0], "reference": reference}]
    return bundle


def linked(bundle: JsonObject, root: str) -> JsonObject:
    """The bundle with DICOMweb addresses in place of bare UIDs, below ``root`` (changes ``bundle``).

    WADO-RS Retrieve Instance (PS3.18 10.4). The UIDs stay in ``masterIdentifier`` and ``identifier``.
    """
    places = _places(bundle["entry"])
    for entry in bundle["entry"]:
        resource = entry["resource"]
        contents = {"DocumentReference": resource.get("content"), "Media": [{"attachment": resource.get("content")}]}
        for content in contents.get(resource["resourceType"]) or ():
            uid = str(content["attachment"].get("url", "")).removeprefix(_OID)
            if uid in places:
                content["attachment"]["url"] = f"{root.rstrip('/')}/{places[uid]}"
    return bundle


def report_of(entries: Sequence[JsonObject]) -> JsonObject:
    """The DiagnosticReport of a bundle of ours."""
    report: JsonObject = next(e["resource"] for e in entries if e["resource"]["resourceType"] == "DiagnosticReport")
    return report


def preconditioned(
    entries: Sequence[JsonObject], found: Mapping[str, Mapping[str, Any]], base: str
) -> list[JsonObject]:
    """The entries with an update of exactly the version that was looked at, where there is one.

    ``found``: identifier value → the addressee's resource; ``base``: its FHIR base. ``If-Match``
    (https://hl7.org/fhir/R4/http.html#concurrency) beside a conditional update is something that servers read
    differently, so the id takes the condition's place, and references to the resource are literal.
    """
    made = []
    places: dict[str, str] = {}
    for entry in entries:
        resource = entry["resource"]
        values = [one.get("value") for one in resource.get("identifier") or ()]
        there = found.get(str(values[0])) if values else None
        version = str(((there or {}).get("meta") or {}).get("versionId") or "")
        if there is None or not version or not there.get("id"):
            made.append(entry)
            continue
        place = f"{resource['resourceType']}/{there['id']}"
        places[entry["fullUrl"]] = place
        request = {"method": "PUT", "url": place, "ifMatch": f'W/"{version}"'}
        made.append({"fullUrl": f"{base}/{place}", "resource": {**resource, "id": there["id"]}, "request": request})
    return [{**entry, "resource": _pointed(entry["resource"], places)} for entry in made]


def _pointed(value: Any, places: Mapping[str, str]) -> Any:
    """A copy of ``value`` in which references go to where the resources are."""
    if isinstance(value, list):
        return [_pointed(one, places) for one in value]
    if not isinstance(value, dict):
        return value
    made = {name: _pointed(one, places) for name, one in value.items()}
    if isinstance(reference := made.get("reference"), str):
        made["reference"] = places.get(reference, reference)
    return made


def _places(entries: Sequence[JsonObject]) -> dict[str, str]:
    """Path of each instance that the bundle's ImagingStudy lists, below a DICOMweb root."""
    studies = [e["resource"] for e in entries if e["resource"]["resourceType"] == "ImagingStudy"]
    return {
        instance["uid"]: f"studies/{study['identifier'][0]['value'].removeprefix(_OID)}"
        f"/series/{series['uid']}/instances/{instance['uid']}"
        for study in studies
        for series in study["series"]
        for instance in series["instance"]
    }
