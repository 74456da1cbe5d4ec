"""A FHIR search as it was asked: parameters checked against the tables of what is served, and the links that go on.

What is not served is refused, never left out of a search: an answer to another question than was asked is a wrong
answer. No address carries a patient's identifier: a page that follows one names an analysis of the patient instead.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from cds_service.api.refusals import MalformedRequest
from dermoscopy.identifiers import DICOM_SYSTEM
from fhir_adapters.facade import analysis_of
from fhir_adapters.facade_matching import BadValue, Span, Token, read_date, read_tokens
from fhir_adapters.facade_types import (
    DEFAULT_PAGE,
    LARGEST_PAGE,
    PATIENT_FORMS,
    RESULT_PARAMETERS,
    Parameter,
    Served,
    ServedType,
)

PAGE = "_page"
MOST_PARAMETERS = 50
MOST_ALTERNATIVES = 200
_UID = re.compile(r"(urn:oid:)?([0-9]+(?:\.[0-9]+)*)")
_USE_POST = (
    "A patient's identifier does not belong into an address, which ends up in logs: send this search by POST to "
    "[base]/[type]/_search with the parameters in the body (application/x-www-form-urlencoded)."
)
_NO_IDS = (
    "Patients are logical references here: search by POST with patient:identifier=system|value instead of the id of a "
    "Patient resource."
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ended: the last resource shown, and its analysis with the time by which analyses are ordered."""

    microseconds: int
    analysis_id: str
    logical_id: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One search, read."""

    served: ServedType
    ids: tuple[frozenset[str], ...] = ()
    patient: Token | None = None
    """As the body says it."""
    patient_of: str = ""
    """An analysis of the patient, on the pages that follow."""
    studies: tuple[frozenset[str], ...] = ()
    moments: tuple[Span, ...] = ()
    updated: tuple[Span, ...] = ()
    targets: tuple[frozenset[str], ...] = ()
    """``Type/id``."""
    identifiers: tuple[tuple[Token, ...], ...] = ()
    tokens: tuple[tuple[str, tuple[Token, ...]], ...] = ()
    """Element and what it may hold."""
    include: tuple[str, ...] = ()
    count: int = DEFAULT_PAGE
    only_count: bool = False
    shown: tuple[tuple[str, str], ...] = ()
    """Parameters as they were given, without the patient."""
    after: Place | None = None
    keys: frozenset[str] = field(default_factory=frozenset)
    """Names of the parameters, for the audit log."""


def read_search(served: ServedType, in_address: Sequence[tuple[str, str]], in_body: Sequence[tuple[str, str]]) -> Asked:
    """The search, or the page of one. Raises `MalformedRequest` that says which parameter is wrong and what to do."""
    given = [*in_address, *in_body]
    if len(given) > MOST_PARAMETERS:
        raise MalformedRequest(f"A search takes {MOST_PARAMETERS} parameters at most.")
    for name, _ in in_address:
        if name in PATIENT_FORMS:
            raise MalformedRequest(_USE_POST)
    pages = [value for name, value in given if name == PAGE]
    if pages:
        if len(pages) > 1 or any(name not in (PAGE, "_format") for name, _ in given):
            raise MalformedRequest(f"{PAGE} stands alone: it carries the search it goes on with.")
        return _continued(served, pages[0])
    asked = Asked(served)
    for name, value in given:
        asked = _with(asked, name, value)
    shown = tuple((name, value) for name, value in given if name not in (*PATIENT_FORMS, "_format"))
    return replace(asked, shown=shown, keys=frozenset(name for name, _ in given))


def next_page(asked: Asked, place: Place) -> str:
    """Query string of the page behind ``place``; opaque, and without patient data."""
    anchor = place.analysis_id if asked.patient or asked.patient_of else ""
    state = [list(map(list, asked.shown)), anchor, place.microseconds, place.analysis_id, place.logical_id]
    packed = base64.urlsafe_b64encode(json.dumps(state, separators=(",", ":")).encode()).decode().rstrip("=")
    return urlencode({PAGE: packed})


def _continued(served: ServedType, page: str) -> Asked:
    try:
        state = json.loads(base64.urlsafe_b64decode(page + "=" * (-len(page) % 4)))
        shown, anchor, microseconds, analysis_id, logical_id = state
        given = [(str(name), str(value)) for name, value in shown]
        place = Place(int(microseconds), str(analysis_id), str(logical_id))
    except (binascii.Error, ValueError, TypeError):
        raise MalformedRequest(f"This {PAGE} is none of ours: take the next link of a searchset as it is.") from None
    if not 0 <= place.microseconds < 2**53 or any(name in (PAGE, *PATIENT_FORMS) for name, _ in given):
        raise MalformedRequest(f"This {PAGE} is none of ours: take the next link of a searchset as it is.")
    return replace(read_search(served, given, ()), after=place, patient_of=str(anchor))


def _with(asked: Asked, name: str, value: str) -> Asked:
    if name in PATIENT_FORMS:
        stem = re.split(r"[:.]", name)[0]
        if stem not in asked.served.parameters:
            raise MalformedRequest(_not_served(asked.served, name))
        return replace(asked, patient=_patient(asked, name, value))
    if name in RESULT_PARAMETERS:
        return _with_result(asked, name, value)
    found = asked.served.parameters.get(name)
    if found is None:
        raise MalformedRequest(_not_served(asked.served, name))
    if found.served is Served.PATIENT:
        raise MalformedRequest(_NO_IDS)
    if value.count(",") >= MOST_ALTERNATIVES:
        raise MalformedRequest(f"{name}: {MOST_ALTERNATIVES} alternatives at most.")
    try:
        return _with_value(asked, found, value)
    except BadValue as error:
        raise MalformedRequest(f"{name}: {error}.") from None


def _with_value(asked: Asked, found: Parameter, value: str) -> Asked:
    if found.served in (Served.MOMENT, Served.UPDATED):
        span = read_date(value)
        if found.served is Served.MOMENT:
            return replace(asked, moments=(*asked.moments, span))
        return replace(asked, updated=(*asked.updated, span))
    if found.served is Served.TARGET:
        wanted = frozenset(value.split(","))
        if not all(analysis_of(one.partition("/")[2]) for one in wanted):
            raise BadValue("write [type]/[id] of a resource that is served here")
        return replace(asked, targets=(*asked.targets, wanted))
    wanted_tokens = read_tokens(value)
    if found.served is Served.ID:
        return replace(asked, ids=(*asked.ids, frozenset(one.code for one in wanted_tokens)))
    if found.served is Served.STUDY:
        return replace(asked, studies=(*asked.studies, frozenset(_uid(one) for one in wanted_tokens)))
    if found.served is Served.IDENTIFIER:
        if not all(one.code.startswith("urn:") for one in wanted_tokens):
            raise BadValue("identifiers that start with urn:uuid: or urn:oid: are searched for, and no others")
        return replace(asked, identifiers=(*asked.identifiers, wanted_tokens))
    return replace(asked, tokens=(*asked.tokens, (found.element, wanted_tokens)))


def _with_result(asked: Asked, name: str, value: str) -> Asked:
    if name == "_count":
        if not value.isascii() or not value.isdecimal() or len(value) > 9:
            raise MalformedRequest("_count: write a whole number.")
        count = int(value)
        return replace(asked, count=min(max(count, 1), LARGEST_PAGE), only_count=asked.only_count or count == 0)
    if name == "_summary":
        if value not in ("count", "false"):
            raise MalformedRequest("_summary: count and false are served, and no other summary.")
        return replace(asked, only_count=asked.only_count or value == "count")
    if name == "_include":
        if value not in asked.served.includes:
            known = ", ".join(asked.served.includes) or "none"
            raise MalformedRequest(f"_include: served for {asked.served.name}: {known}.")
        return replace(asked, include=(*asked.include, value))
    return asked  # _format is looked at where the form of the answer is chosen


def _patient(asked: Asked, name: str, value: str) -> Token:
    if asked.patient is not None:
        raise MalformedRequest("A search is for one patient: give one patient identifier.")
    try:
        tokens = read_tokens(value)
    except BadValue:
        tokens = ()
    if len(tokens) != 1 or tokens[0].system is None or not tokens[0].code:
        raise MalformedRequest(f"{name}: write system|value of one patient, |value where the identifier has no system.")
    return tokens[0]


def _uid(token: Token) -> str:
    found = _UID.fullmatch(token.code)
    if found is None or len(found[2]) > 64 or token.system not in (None, DICOM_SYSTEM):
        raise BadValue("write a DICOM Study Instance UID, bare or as urn:dicom:uid|urn:oid:[UID]")
    return found[2]


def _not_served(served: ServedType, name: str) -> str:
    bare = re.split(r"[:.]", name)[0]
    said = f"The parameter {bare} is" if re.fullmatch(r"[A-Za-z_-]{1,40}", bare) else "A parameter is"
    if bare != name:
        said += " in this form"
    return f"{said} not served for {served.name}. Served: {', '.join(_names(served))}."


def _names(served: ServedType) -> Iterable[str]:
    return [*served.parameters, *RESULT_PARAMETERS]
