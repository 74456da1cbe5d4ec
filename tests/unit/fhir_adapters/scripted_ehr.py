"""An EHR that answers as a test tells it, and what it would hold after a delivery of ours."""

from __future__ import annotations

import json

import httpx

from dermoscopy.domain import ArtifactKind
from dermoscopy.patients import IssuerMap
from fhir_adapters.deliver import FhirDestination
from fhir_adapters.render import RENDERERS
from tests.unit.fhir_adapters import scenes

ISSUERS = IssuerMap({"CLINIC_A": scenes.SYSTEM})
BASE = "https://ehr.example/fhir"
ANALYSIS = scenes.analysis()
BUNDLE = RENDERERS[ArtifactKind.FHIR_BUNDLE](scenes.render_input(ANALYSIS))


def searchset(*resources):
    entries = [{"resource": resource} for resource in resources]
    return {"resourceType": "Bundle", "type": "searchset", "total": len(entries), "entry": entries}


def patient(value=scenes.PATIENT.patient_id, id="p-1", **more):
    return {
        "resourceType": "Patient",
        "id": id,
        "identifier": [{"system": scenes.SYSTEM, "value": value}],
        "name": [{"family": "Musterfrau"}],
        **more,
    }


class Ehr:
    """Answers as told and remembers what it was asked."""

    def __init__(self):
        self.patients = searchset(patient())
        self.reports = searchset()
        self.held = {}
        self.status = "200 OK"
        self.outcome = None
        self.location = "https://ehr.example/fhir/{kind}/{index}/_history/1"
        self.response: httpx.Response | None = None
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path.endswith("Patient/_search"):
            return self._json(self.patients)
        if request.url.path.endswith("DiagnosticReport/_search"):
            return self._json(self.reports)
        if request.url.path.endswith("/_search"):
            return self._json(self.others(request.url.path.split("/")[-2]))
        return self.response or self._json(self.done(json.loads(request.content)))

    def others(self, kind):
        """What was told, else the resources that go with the report, if there is one."""
        if kind in self.held or not self.reports.get("entry"):
            return self.held.get(kind, searchset())
        return searchset(*stored(kind))

    @staticmethod
    def _json(body):
        return body if isinstance(body, httpx.Response) else httpx.Response(200, json=body)

    def done(self, bundle):
        entries = []
        for index, entry in enumerate(bundle["entry"]):
            kind = entry["resource"]["resourceType"]
            response = {"status": self.status if kind == "Observation" else "200 OK"}
            if self.location:
                response["location"] = self.location.format(kind=kind, index=index)
            if self.outcome and kind == "Observation":
                response["outcome"] = self.outcome
            entries.append({"response": response})
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": entries}

    @property
    def sent(self):
        return [json.loads(r.content) for r in self.requests if r.url.path == "/fhir"]


def stored(kind, bundle=BUNDLE):
    made = [e["resource"] for e in json.loads(bundle.data)["entry"] if e["resource"]["resourceType"] == kind]
    return [
        {**one, "id": f"{kind[0].lower()}-{place}", "meta": {**one["meta"], "versionId": "3"}}
        for place, one in enumerate(made)
    ]


def stored_report(bundle=BUNDLE, **changes):
    entries = json.loads(bundle.data)["entry"]
    report = next(e["resource"] for e in entries if e["resource"]["resourceType"] == "DiagnosticReport")
    subject = {"reference": "Patient/p-1"}
    return {
        **report,
        "id": "r-1",
        "subject": subject,
        **changes,
        "meta": {**report["meta"], "versionId": "4", **changes.get("meta", {})},
    }


def scripted(handler):
    return FhirDestination("ehr", BASE, issuers=ISSUERS, transport=httpx.MockTransport(handler))
