"""What pathology and clinicians report of a lesion, in the ground's words (FHIR R4).

https://hl7.org/fhir/R4/diagnosticreport.html with ``conclusionCode`` or Observations in ``result``,
https://hl7.org/fhir/R4/observation.html with a coded value, https://hl7.org/fhir/R4/condition.html. Read tolerantly:
whatever else stands in a resource is its server's affair. Nothing is concluded from words: a diagnosis is a code of
`dermoscopy.diagnoses`, or it is unknown and a person reads the report.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from dermoscopy import diagnoses
from dermoscopy.codes import LOINC, SNOMED
from dermoscopy.domain import LesionClass
from dermoscopy.errors import Rejected
from dermoscopy.outcomes import Certainty, Outcome, OutcomeStatus
from fhir_adapters.concepts import codings, members, side_of, site_codes
from fhir_adapters.read import current_identifiers

KINDS: Final = ("DiagnosticReport", "Observation", "Condition")
_SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
_CERTAIN = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
_PATHOLOGY: Final = frozenset(
    {
        *((_SECTION, code) for code in ("SP", "PAT", "CP", "CTH")),
        *((LOINC, code) for code in ("11526-1", "11529-5", "22637-3", "34122-2", "60567-5", "60568-3", "59847-4")),
        *((SNOMED, code) for code in ("252416005", "441950002")),
    }
)
"""How a report or an Observation says that it is pathology: section of HL7 v2 table 0074 (surgical pathology,
pathology, cytopathology), LOINC of a pathology study or diagnosis, SNOMED CT histopathology (DICOM CID 7030, 8131)."""
_OPEN: Final = frozenset({"registered", "partial", "preliminary"})
_FINAL: Final = {
    "final": OutcomeStatus.FINAL,
    "amended": OutcomeStatus.AMENDED,
    "corrected": OutcomeStatus.AMENDED,
    "appended": OutcomeStatus.AMENDED,
    "cancelled": OutcomeStatus.ENTERED_IN_ERROR,
    "entered-in-error": OutcomeStatus.ENTERED_IN_ERROR,
}
"""https://hl7.org/fhir/R4/valueset-diagnostic-report-status.html and …-observation-status.html."""
_LOCAL: Final = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")
_SEVERAL: Final = "it is about several specimens and says not which of them its diagnosis is of"
_NOWHERE: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Part:
    """One finding of a resource. ``key`` tells it from others of the same resource, and stays when it is amended."""

    key: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Told:
    """What one resource says."""

    resource_type: str
    resource_id: str
    business: str
    """``system|value`` of its first business identifier; empty if it has none."""
    version: str
    """``meta.versionId``; else what says the same of the moment or of the content."""
    version_at: datetime | None
    """``meta.lastUpdated``."""
    status: OutcomeStatus
    identifiers: tuple[tuple[str, str], ...]
    """(system, value) by which its patient is known; empty if it says none."""
    patient_reference: str
    """Of the patient, where only that is said."""
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Passed:
    """A resource that tells no outcome, and why, in a fixed word and in plain words."""

    resource_type: str
    code: str
    """``not_pathology``, ``not_final``, ``unconfirmed``."""
    words: str


def read_outcomes(
    body: Mapping[str, Any], more: Iterable[Mapping[str, Any]] = (), base: str = ""
) -> list[Told | Passed]:
    """What a resource, or each resource of a Bundle, says. Raises `Rejected` for anything that is none of `KINDS`.

    ``more``: what was fetched from the server ``base`` for it.

    Observations that a report of the same Bundle names are read with it, and not once more by themselves.
    """
    kind = body.get("resourceType")
    if kind == "Bundle":
        resources = [one for entry in members(body.get("entry")) if isinstance(one := entry.get("resource"), Mapping)]
        found = Resources(body, more, base)
        named = {id(one) for report in resources for one in _named_observations(report, found)}
        wanted = [one for one in resources if one.get("resourceType") in KINDS and id(one) not in named]
        if not wanted:
            raise Rejected("the Bundle holds no DiagnosticReport, Observation or Condition")
        return [read_one(one, found) for one in wanted]
    if kind not in KINDS:
        raise Rejected("outcomes are told by a DiagnosticReport, Observation or Condition, or by a Bundle with them")
    return [read_one(body, Resources({}, more, base))]


class Resources:
    """What a Bundle, or the server ``base``, brings along, by reference; what another server has is not it."""

    def __init__(self, bundle: Mapping[str, Any], more: Iterable[Mapping[str, Any]] = (), base: str = "") -> None:
        self._base = base
        self._found: dict[str, Mapping[str, Any]] = {}
        for entry in members(bundle.get("entry")):
            resource = entry.get("resource")
            if isinstance(resource, Mapping):
                self._add(resource)
                if isinstance(url := entry.get("fullUrl"), str):
                    self._found[url] = resource
        for resource in more:
            self._add(resource)

    def _add(self, resource: Mapping[str, Any]) -> None:
        if isinstance(resource.get("id"), str):
            self._found[f"{resource.get('resourceType')}/{resource['id']}"] = resource

    def get(self, reference: Mapping[str, Any], within: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a Reference of the resource ``within`` leads to; empty if it is not here."""
        place = reference.get("reference")
        if not isinstance(place, str):
            return _NOWHERE
        if place.startswith("#"):
            return next((one for one in members(within.get("contained")) if one.get("id") == place[1:]), _NOWHERE)
        return self._found.get(_relative(place, self._base), _NOWHERE)


def references_of(resource: Mapping[str, Any], base: str) -> list[str]:
    """``Type/id`` on the server ``base`` of what it takes to read this resource: patient, order, specimens, results."""
    wanted = [
        one.get("reference")
        for name in ("subject", "basedOn", "specimen", "request", "result", "hasMember", "derivedFrom")
        for one in members(resource.get(name))
    ]
    evidence = [one for each in members(resource.get("evidence")) for one in members(each.get("detail"))]
    places = [*wanted, *(one.get("reference") for one in evidence)]
    found = [_relative(place, base) for place in places if isinstance(place, str)]
    return list(dict.fromkeys(place for place in found if _LOCAL.fullmatch(place)))


def _relative(place: str, base: str) -> str:
    """``Type/id`` of a reference to ``base``; a reference to elsewhere as it is (https://hl7.org/fhir/R4/references.html)."""
    place = place.partition("/_history/")[0]
    return place.removeprefix(f"{base}/") if base else place


def read_one(resource: Mapping[str, Any], found: Resources) -> Told | Passed:
    """What one DiagnosticReport, Observation or Condition says; ``found`` holds what it refers to."""
    kind = str(resource.get("resourceType"))
    status = _status(resource)
    if isinstance(status, Passed):
        return status
    withdrawn = status is OutcomeStatus.ENTERED_IN_ERROR
    if kind != "Condition" and not withdrawn and not _is_pathology(resource):
        return Passed(kind, "not_pathology", f"the {kind} does not say that it is pathology (category or code)")
    identifiers, reference = _patient(resource, found)
    meta = resource.get("meta")
    meta = meta if isinstance(meta, Mapping) else _NOWHERE
    updated = _moment(meta.get("lastUpdated"))[0]
    own_id = resource.get("id")
    return Told(
        resource_type=kind,
        resource_id=own_id if isinstance(own_id, str) else "",
        business=next((f"{system}|{value}" for system, value in _identifiers(resource)), ""),
        version=str(meta.get("versionId") or (updated.isoformat() if updated else "") or _digest(resource)),
        version_at=updated or _moment(resource.get("issued"))[0],
        status=status,
        identifiers=identifiers,
        patient_reference=reference,
        parts=() if withdrawn else tuple(_parts(resource, found, status)),
    )


# ------------------------------------------------------------------------------------------------ what is one finding


def _parts(resource: Mapping[str, Any], found: Resources, status: OutcomeStatus) -> Iterator[Part]:
    kind = resource["resourceType"]
    if kind == "Condition":
        yield Part("", _outcome(resource, [resource.get("code")], found, status, _certainty(resource, found)))
        return
    told = [resource.get("valueCodeableConcept")] if kind == "Observation" else [resource.get("conclusionCode")]
    results = [one for one in _named_observations(resource, found) if _diagnosing(one)]
    specimens = {_specimen_key(one) for one in results} - {""}
    if kind == "Observation" or len(specimens) < 2:
        told += [one.get("valueCodeableConcept") for one in results]
        outcome = _outcome(resource, told, found, status, Certainty.HISTOPATHOLOGY, *results)
        if len(members(resource.get("specimen"))) > 1:  # which of them it is about is nowhere said
            outcome = replace(outcome, lesion_class=None, malignant=None, doubt=_SEVERAL, alone=False)
        yield Part("", outcome)
        return
    # several specimens are several lesions: what the whole report concludes says not which of them it is
    for key in sorted(specimens):
        ours = [one for one in results if _specimen_key(one) == key]
        values = [one.get("valueCodeableConcept") for one in ours]
        own = {**resource, "specimen": ours[0].get("specimen"), "conclusionCode": None}
        outcome = _outcome(own, values, found, status, Certainty.HISTOPATHOLOGY, *ours)
        yield Part(key, replace(outcome, alone=False))


def _outcome(
    resource: Mapping[str, Any],
    concepts: Sequence[object],
    found: Resources,
    status: OutcomeStatus,
    certainty: Certainty,
    *results: Mapping[str, Any],
) -> Outcome:
    each = [one for concept in concepts for one in members(concept)]
    said = diagnoses.read(codings(*each))
    specimens = [found.get(one, resource) for one in members(resource.get("specimen"))]
    specimens += [found.get(one, result) for result in results for one in members(result.get("specimen"))]
    moment, timed = _when(resource, specimens)
    places = [one.get("bodySite") for one in (resource, *results)]
    places += [_collection(one).get("bodySite") for one in specimens]
    sites = set(site_codes(*places))
    outcome = Outcome(
        status=status,
        certainty=certainty,
        diagnosed_at=moment,
        timed=timed,
        references=tuple(dict.fromkeys(_references(resource, specimens, results, found))),
        body_site_code=sites.pop() if len(sites) == 1 else "",
        laterality=side_of(*places),
    )
    unread = [one for one in each if any(codings(one)) and not any(diagnoses.diagnosis_of(*c) for c in codings(one))]
    if said.diagnosis is None or (unread and not _melanoma(said)):
        return replace(outcome, doubt=_doubt(said))  # what is not known beside it could be graver
    code = said.diagnosis.code
    return replace(
        outcome,
        lesion_class=said.diagnosis.lesion_class,
        malignant=said.diagnosis.malignant,
        diagnosis_system=code.system,
        diagnosis_code=code.code,
        diagnosis=code.display,
    )


def _melanoma(said: diagnoses.Reading) -> bool:
    return said.diagnosis is not None and said.diagnosis.lesion_class is LesionClass.MEL


def _doubt(said: diagnoses.Reading) -> str:
    if said.contradictory:
        return "it states several diagnoses that are not one"
    if said.unknown:
        shown = ", ".join(f"{system[:80] or 'no system'} {code[:40]}" for system, code in said.unknown[:3])
        return f"its diagnosis is coded by what is not known here: {shown}"
    return "it states no coded diagnosis"


def _named_observations(resource: Mapping[str, Any], found: Resources) -> list[Mapping[str, Any]]:
    """Observations that a report names in ``result``, or an Observation in ``hasMember``."""
    if resource.get("resourceType") not in ("DiagnosticReport", "Observation"):
        return []
    named = [*members(resource.get("result")), *members(resource.get("hasMember"))]
    here = [found.get(one, resource) for one in named]
    return [one for one in here if one.get("resourceType") == "Observation"]


def _diagnosing(observation: Mapping[str, Any]) -> bool:
    """Whether it states a diagnosis: a pathology diagnosis by its code, or one whose value is a known diagnosis."""
    if _FINAL.get(str(observation.get("status"))) is OutcomeStatus.ENTERED_IN_ERROR:
        return False
    value = list(codings(observation.get("valueCodeableConcept")))
    return bool(value) and (
        not _PATHOLOGY.isdisjoint(codings(observation.get("code")))
        or any(diagnoses.diagnosis_of(*pair) for pair in value)
    )


def _specimen_key(observation: Mapping[str, Any]) -> str:
    specimen = next(iter(members(observation.get("specimen"))), _NOWHERE)
    identifier = specimen.get("identifier")
    value = identifier.get("value") if isinstance(identifier, Mapping) else None
    key = specimen.get("reference") or value
    return key.partition("/_history/")[0] if isinstance(key, str) else ""


# ---------------------------------------------------------------------------------------------- status, who, when, how


def _status(resource: Mapping[str, Any]) -> OutcomeStatus | Passed:
    kind = str(resource.get("resourceType"))
    if kind == "Condition":
        verified = {code for system, code in codings(resource.get("verificationStatus")) if system in (_CERTAIN, "")}
        if "entered-in-error" in verified:
            return OutcomeStatus.ENTERED_IN_ERROR
        if "confirmed" not in verified:
            return Passed(kind, "unconfirmed", "the Condition is not confirmed (verificationStatus)")
        return OutcomeStatus.FINAL
    stated = str(resource.get("status"))
    if stated in _OPEN:
        return Passed(kind, "not_final", f"the {kind} is not final yet: send it again when it is")
    if stated not in _FINAL:
        return Passed(kind, "not_final", f"the {kind} states no status by which it counts")
    return _FINAL[stated]


def _is_pathology(resource: Mapping[str, Any]) -> bool:
    return not _PATHOLOGY.isdisjoint(codings(resource.get("category"), resource.get("code")))


def _certainty(condition: Mapping[str, Any], found: Resources) -> Certainty:
    """Histopathology where the evidence of a Condition is a pathology result, else a clinician's word."""
    evidence = members(condition.get("evidence"))
    if not _PATHOLOGY.isdisjoint(codings(*(one.get("code") for one in evidence))):
        return Certainty.HISTOPATHOLOGY
    shown = [found.get(one, condition) for each in evidence for one in members(each.get("detail"))]
    return Certainty.HISTOPATHOLOGY if any(_is_pathology(one) for one in shown) else Certainty.FOLLOW_UP


def _patient(resource: Mapping[str, Any], found: Resources) -> tuple[tuple[tuple[str, str], ...], str]:
    subject = next(iter(members(resource.get("subject"))), _NOWHERE)
    patient = found.get(subject, resource)
    identifiers = tuple(_identifiers(patient)) if patient.get("resourceType") == "Patient" else ()
    stated = tuple(_identifiers(subject))
    reference = subject.get("reference")
    both = tuple(dict.fromkeys((*stated, *identifiers)))
    return both, reference if isinstance(reference, str) else ""


def _identifiers(resource: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return current_identifiers({"identifier": members(resource.get("identifier"))})


def _references(
    resource: Mapping[str, Any],
    specimens: Sequence[Mapping[str, Any]],
    results: Sequence[Mapping[str, Any]],
    found: Resources,
) -> Iterator[str]:
    """Values of everything that may name our order, report or image."""
    yield from _values(resource.get("identifier"))
    for one in (resource, *results):
        for name in ("basedOn", "imagingStudy", "derivedFrom", "focus"):
            for reference in members(one.get(name)):
                yield from _values(reference.get("identifier"))
                target = found.get(reference, one)
                yield from _values(target.get("identifier"))
                yield from _values(target.get("requisition"))
    for specimen in specimens:
        yield from _values(specimen.get("accessionIdentifier"))
        yield from _values(specimen.get("identifier"))
        for reference in members(specimen.get("request")):
            yield from _values(reference.get("identifier"))
            yield from _values(found.get(reference, specimen).get("identifier"))
    for evidence in members(resource.get("evidence")):
        for reference in members(evidence.get("detail")):
            yield from _values(reference.get("identifier"))
            yield from _values(found.get(reference, resource).get("identifier"))


def _values(identifiers: object) -> Iterator[str]:
    for one in members(identifiers):
        value = one.get("value")
        if isinstance(value, str) and value.strip():
            yield value.strip()


def _collection(specimen: Mapping[str, Any]) -> Mapping[str, Any]:
    found = specimen.get("collection")
    return found if isinstance(found, Mapping) else _NOWHERE


def _when(resource: Mapping[str, Any], specimens: Sequence[Mapping[str, Any]]) -> tuple[datetime | None, bool]:
    """When the specimen was taken, else the clinically relevant time; not when somebody wrote it up."""
    stated: list[object] = []
    for one in specimens:
        collection = _collection(one)
        period = collection.get("collectedPeriod")
        stated += [collection.get("collectedDateTime"), period.get("start") if isinstance(period, Mapping) else None]
    period = resource.get("effectivePeriod")
    stated += [resource.get("effectiveDateTime"), period.get("start") if isinstance(period, Mapping) else None]
    stated += [resource.get("effectiveInstant"), resource.get("onsetDateTime"), resource.get("recordedDate")]
    stated.append(resource.get("issued"))
    return next((one for one in map(_moment, stated) if one[0] is not None), (None, False))


def _moment(stated: object) -> tuple[datetime | None, bool]:
    """A FHIR dateTime or instant in UTC, and whether it has a time of day; a bare year or month is no day."""
    if not isinstance(stated, str) or len(stated) < len("2026-01-01"):
        return None, False
    try:
        moment = datetime.fromisoformat(stated)
    except ValueError:
        return None, False
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return aware.astimezone(UTC), "T" in stated
    except OverflowError:
        return None, False


def _digest(resource: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(resource, sort_keys=True, default=str).encode()).hexdigest()
