"""Calls of the CDS services, as an EHR makes them."""

from __future__ import annotations

import json
import uuid
from typing import Any

import sqlalchemy as sa

from audit.tables import AuditLeaf
from tests.findings import fhir_patient

TOKEN = "secret-access-token"
SELECT, SIGN = "dermoscopy-order-select", "dermoscopy-order-sign"
DISCHARGE, VIEW = "dermoscopy-discharge", "dermoscopy-triage"
HOOKS = {VIEW: "patient-view", SELECT: "order-select", SIGN: "order-sign", DISCHARGE: "encounter-discharge"}
SKIN_OF_BACK, LEFT = "66643007", "7771000"


def service_request(own_id: str = "order-1", code: tuple[str, str] = ("sct", "240977001"), **changes: Any) -> dict:
    """A biopsy of skin in draft."""
    system = {"sct": "http://snomed.info/sct", "cpt": "http://www.ama-assn.org/go/cpt"}.get(code[0], code[0])
    resource = {
        "resourceType": "ServiceRequest",
        "id": own_id,
        "status": "draft",
        "intent": "order",
        "code": {"coding": [{"system": system, "code": code[1]}]},
        "subject": {"reference": "Patient/p1"},
    }
    return {name: value for name, value in (resource | changes).items() if value is not ...}


def body_site(code: str = SKIN_OF_BACK, side: str = "") -> list[dict]:
    """``bodySite`` of an order."""
    site = [{"coding": [{"system": "http://snomed.info/sct", "code": code}]}]
    return site + ([{"coding": [{"system": "http://snomed.info/sct", "code": side}]}] if side else [])


def bundle(*resources: dict) -> dict:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in resources]}


def request(service: str = VIEW, *orders: dict, **changes: Any) -> dict:
    """The body of a call; ``context`` given in ``changes`` is added to the usual one. ``...`` leaves a member out."""
    context: dict[str, Any] = {"userId": "Practitioner/1", "patientId": "p1", "encounterId": "e1"}
    if service in (SELECT, SIGN):
        context["draftOrders"] = bundle(*orders)
    if service == SELECT:
        context["selections"] = [f"{one['resourceType']}/{one['id']}" for one in orders]
    body = {
        "hook": HOOKS.get(service, service),
        "hookInstance": str(uuid.uuid4()),
        "prefetch": {"patient": fhir_patient()},
    }
    context = {k: v for k, v in (context | changes.pop("context", {})).items() if v is not ...}
    return {k: v for k, v in (body | {"context": context} | changes).items() if v is not ...}


def cards(client, service: str = VIEW, *orders: dict, **changes: Any) -> list[dict]:
    """The cards that answer a call."""
    answer = client.post(f"/cds-services/{service}", json=request(service, *orders, **changes))
    assert answer.status_code == 200, answer.text
    return answer.json()["cards"]


def leaves(node, like: str = "card.%") -> list:
    with node.begin() as session:
        rows = session.execute(sa.select(AuditLeaf).where(AuditLeaf.action.like(like)).order_by(AuditLeaf.at))
        return [(row.action, json.loads(row.details)) for row in rows.scalars()]
