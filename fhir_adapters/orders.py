"""Draft orders of a CDS call that a finding has something to say about, and what is suggested for them.

https://cds-hooks.hl7.org/hooks/order-select/, …/order-sign/ and https://hl7.org/fhir/R4/servicerequest.html. An order
is recognised by a code of `dermoscopy.codes.ORDER_CODES`, or, which is weaker and said so, by its English words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from dermoscopy import codes
from dermoscopy.codes import Code, OrderKind
from dermoscopy.errors import Rejected
from fhir_adapters.concepts import codings, is_patient, members, side_of, site_codes, words

PRIORITIES: Final = ("routine", "urgent", "asap", "stat")
"""http://hl7.org/fhir/request-priority, rising; nothing stands between routine and urgent."""
_SKIN = re.compile(r"\b(skin|dermat\w*|cutaneous|mole|n(a?e)vus|n(a?e)vi|lesion|melanom\w*)\b", re.IGNORECASE)
_DERMATOLOGY = re.compile(r"\bdermatolog", re.IGNORECASE)
_KIND_WORDS = (
    (OrderKind.EXCISION, re.compile(r"\bexcis", re.IGNORECASE)),
    (OrderKind.BIOPSY, re.compile(r"\bbiops", re.IGNORECASE)),
    (OrderKind.REFERRAL, re.compile(r"\b(refer|consult)", re.IGNORECASE)),
)


class Ground(StrEnum):
    """What an order was recognised by."""

    CODE = "code"
    WORDS = "words"


@dataclass(frozen=True, slots=True)
class DraftOrder:
    """A referral, biopsy or excision that is not signed yet."""

    reference: str
    """``ServiceRequest/id``; empty where it has no id, and then nothing can be suggested for it."""
    resource: Mapping[str, Any]
    kind: OrderKind
    ground: Ground
    selected: bool
    """Whether the user just chose it (``order-select``)."""
    site_codes: frozenset[str]
    laterality: str
    """``L``, ``R``, ``B``, or empty."""
    words: str
    """Everything that it says of its place in words."""

    @property
    def names_place(self) -> bool:
        return bool(self.site_codes or self.laterality or self.words.strip())


def draft_orders(bundle: Mapping[str, Any], patient_id: str, selections: Sequence[str] = ()) -> tuple[DraftOrder, ...]:
    """The orders in ``context.draftOrders`` that concern skin lesions.

    Where no selection names an entry, all count as selected: better one card too many. Raises `Rejected` for what is
    no Bundle, and for an order of another patient than the context names.
    """
    if bundle.get("resourceType") != "Bundle":
        raise Rejected("context.draftOrders is not a Bundle")
    entries = [(entry, r) for entry in members(bundle.get("entry")) for r in members(entry.get("resource"))]
    chosen = [_is_selected(entry, resource, selections) for entry, resource in entries]
    found: list[DraftOrder] = []
    for (_, resource), selected in zip(entries, chosen, strict=True):
        subject = resource.get("subject")
        whose = subject.get("reference") if isinstance(subject, Mapping) else None
        if isinstance(whose, str) and not is_patient(whose, patient_id) and "Patient/" in whose:
            raise Rejected("context.draftOrders holds an order for another patient than context.patientId")
        if resource.get("resourceType") != "ServiceRequest" or resource.get("status", "draft") != "draft":
            continue
        recognised = _recognise(resource)
        if recognised is not None:
            found.append(_order(resource, *recognised, selected or not any(chosen)))
    return tuple(found)


def raised(order: DraftOrder, priority: str) -> Mapping[str, Any] | None:
    """The order with ``priority``; ``None`` where it has that or a higher one already: it is never lowered."""
    stated = order.resource.get("priority", "routine")
    known = stated in PRIORITIES
    if not order.reference or not known or PRIORITIES.index(stated) >= PRIORITIES.index(priority):
        return None
    return {**order.resource, "priority": priority}


def referral(
    patient_id: str, *, encounter_id: str, requester: str, priority: str, site: Code | None, side: Code | None, why: str
) -> dict[str, Any]:
    """A ServiceRequest in draft that refers the patient to dermatology."""
    place = [code for code in (site, side) if code is not None]
    resource: dict[str, Any] = {
        "resourceType": "ServiceRequest",
        "status": "draft",
        "intent": "order",
        "priority": priority,
        "code": {"coding": [_coding(codes.PATIENT_REFERRAL)], "text": "Referral to dermatology"},
        "subject": {"reference": f"Patient/{patient_id}"},
        "performerType": {"coding": [_coding(codes.DERMATOLOGY)]},
        "reasonCode": [{"text": why}],
    }
    if encounter_id:
        resource["encounter"] = {"reference": f"Encounter/{encounter_id}"}
    if requester.partition("/")[0] in ("Practitioner", "PractitionerRole"):
        resource["requester"] = {"reference": requester}
    if site is not None:
        resource["bodySite"] = [
            {"coding": [_coding(code) for code in place], "text": ", ".join(c.display for c in place if c.display)}
        ]
        if not resource["bodySite"][0]["text"]:
            del resource["bodySite"][0]["text"]
    return resource


def _coding(code: Code) -> dict[str, str]:
    coding = {"system": code.system, "code": code.code}
    return coding | ({"display": code.display} if code.display else {})


def _is_selected(entry: Mapping[str, Any], resource: Mapping[str, Any], selections: Sequence[str]) -> bool:
    names = (f"{resource.get('resourceType')}/{resource.get('id')}", resource.get("id"), entry.get("fullUrl"))
    return any(selection in names for selection in selections)


def _recognise(resource: Mapping[str, Any]) -> tuple[OrderKind, Ground] | None:
    said = words(resource.get("code"), resource.get("category"), resource.get("orderDetail"))
    dermatology = (codes.SNOMED, codes.DERMATOLOGY.code) in set(codings(resource.get("performerType")))
    dermatology = dermatology or bool(_DERMATOLOGY.search(f"{said} {words(resource.get('performerType'))}"))
    place = f"{said} {words(resource.get('bodySite'), resource.get('reasonCode'))}"
    skin = (
        dermatology or bool(_SKIN.search(place)) or any(c in codes.SITES for c in site_codes(resource.get("bodySite")))
    )
    for pair in codings(resource.get("code")):
        row = codes.ORDER_CODES.get(pair)
        if row is not None and (row.skin or (dermatology if row.kind is OrderKind.REFERRAL else skin)):
            return row.kind, Ground.CODE
    for kind, pattern in _KIND_WORDS:
        if pattern.search(said) and (dermatology if kind is OrderKind.REFERRAL else skin):
            return kind, Ground.WORDS
    return None


def _order(resource: Mapping[str, Any], kind: OrderKind, ground: Ground, selected: bool) -> DraftOrder:
    places = resource.get("bodySite")
    own_id = resource.get("id")
    return DraftOrder(
        reference=f"ServiceRequest/{own_id}" if isinstance(own_id, str) and own_id else "",
        resource=resource,
        kind=kind,
        ground=ground,
        selected=selected,
        site_codes=frozenset(site_codes(places)),
        laterality=side_of(places) or side_of(resource.get("code")),
        words=words(places),
    )
