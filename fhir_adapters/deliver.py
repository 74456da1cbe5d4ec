"""Sends a stored bundle to an EHR: find the patient, look at what is there, POST the transaction.

FHIR R4 RESTful API: https://hl7.org/fhir/R4/http.html#transaction. What this service wrote before is amended; what
somebody changed in the EHR since is never replaced.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx
import structlog
from opentelemetry import trace
from pydantic import SecretStr

from dermoscopy.domain import Analysis, Artifact, ArtifactKind, DeliveryReceipt, PatientIdentity
from dermoscopy.errors import DestinationUnavailable, Rejected, UnknownPatient
from dermoscopy.identifiers import SYSTEM, report_identifier
from dermoscopy.patients import IssuerMap
from fhir_adapters.addressing import accession_of, addressed, linked, ordered_by, preconditioned, report_of
from fhir_adapters.answers import ChangedMeanwhile, failure, json_of, outcome_text
from fhir_adapters.elements import FHIR_JSON, JsonObject
from fhir_adapters.read import current_identifiers, patient_identities
from fhir_adapters.seal import revision_of, untouched
from fhir_adapters.server import TIMEOUT, FhirServer
from fhir_adapters.smart import BackendClient

_OPEN = frozenset({"registered", "partial", "preliminary", "unknown"})
"""Report states that nobody has confirmed yet (https://hl7.org/fhir/R4/valueset-diagnostic-report-status.html)."""
_LOOKS: Final = 2
"""How often what is there is looked at again when it changes between the look and the write."""
_NO_ORDERS: Final = frozenset({400, 401, 403, 404, 405, 406, 410, 415, 422, 501})
"""Answers of a server that lets nobody, or not us, search its orders: the report goes without the literal reference."""
_log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)


@dataclass(frozen=True, slots=True)
class ReportState:
    """What an EHR says of a report of ours."""

    status: str
    reference: str
    """``DiagnosticReport/<id>/_history/<version>``."""
    changed: bool | None
    """Whether somebody changed it since we wrote it; ``None`` if that cannot be told."""


class FhirDestination:
    """A FHIR R4 server that takes reports; implements `dermoscopy.ports.Destination`. Safe to use from many threads."""

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        issuers: IssuerMap,
        token: SecretStr | None = None,
        client: BackendClient | None = None,
        dicomweb_url: str = "",
        timeout: httpx.Timeout = TIMEOUT,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``base_url`` is the server's FHIR base. Raises `Misconfigured` if it is no plain http(s) address.

        ``token`` is sent as it is, ``client`` gets one by SMART Backend Services. ``dicomweb_url`` is the root by
        which the EHR's users reach our DICOM objects; without it they are named by UID alone.
        """
        self._name = name
        self._issuers = issuers
        self._dicomweb = dicomweb_url
        self._server = FhirServer(name, base_url, token=token, client=client, timeout=timeout, transport=transport)

    @property
    def name(self) -> str:
        return self._name

    @property
    def accepts(self) -> frozenset[ArtifactKind]:
        return frozenset({ArtifactKind.FHIR_BUNDLE})

    def close(self) -> None:
        """Close the connections that are kept open between deliveries."""
        self._server.close()

    def deliver(self, artifact: Artifact, analysis: Analysis) -> DeliveryReceipt:
        """Send once; the receipt names the report as ``DiagnosticReport/<id>/_history/<version>``.

        Raises `UnknownPatient` (the server has none or several: hold), `Rejected` (refused, also in part, or changed
        by somebody there), `DestinationUnavailable` (no answer, busy, failing, or not FHIR: send again).
        """
        if artifact.kind not in self.accepts:
            raise Rejected(f"{self._server.name} takes FHIR bundles, not {artifact.kind.value}")
        with _tracer.start_as_current_span(
            "fhir.deliver", attributes={"destination": self._name, "analysis.id": analysis.id}
        ):
            identity = self._issuers.canonical(analysis.header.patient)
            system = self._issuers.system_of(identity.issuer)
            patient = self._find_patient(identity, system)
            bundle = addressed(json.loads(artifact.data), patient, system, identity.patient_id)
            if self._dicomweb:
                linked(bundle, self._dicomweb)
            secrets = (identity.patient_id, patient.removeprefix("Patient/"))
            reference, sent = self._written(bundle, patient, secrets)
        _log.info(
            "fhir.delivered", destination=self._name, analysis_id=analysis.id, reference=reference, repeated=not sent
        )
        return DeliveryReceipt(reference)

    def read_report_status(self, analysis_id: str) -> ReportState | None:
        """What the server holds as the report of this analysis; ``None`` if it holds none.

        Raises `Rejected` or `DestinationUnavailable` as `deliver` does.
        """
        report = self._report(report_identifier(analysis_id), ())
        if report is None:
            return None
        seal = untouched(report)
        return ReportState(str(report.get("status") or ""), _location({}, report), None if seal is None else not seal)

    def _written(self, bundle: JsonObject, patient: str, secrets: tuple[str, ...]) -> tuple[str, bool]:
        """Reference of the report as it stands there, and whether it was sent for that."""
        entries = bundle["entry"]
        ordered = False
        for look in range(1, _LOOKS + 1):
            reference, found = self._standing(entries, patient, secrets)
            if reference:
                return reference, False
            if not ordered:
                self._add_order(bundle, patient)
                ordered = True
            made = preconditioned(entries, found, self._server.base)
            sent = json.dumps({**bundle, "entry": made}, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
            try:
                answer = json_of(self._server.post("", sent, FHIR_JSON), self._server.name, secrets)
                return self._receipt(made, answer, secrets), True
            except ChangedMeanwhile:
                if look == _LOOKS:
                    raise
        raise AssertionError  # every look returns or raises

    def _find_patient(self, identity: PatientIdentity, system: str) -> str:
        """``Patient/<id>`` of the one patient in use with this identifier."""
        if not identity.known or not system:
            raise UnknownPatient("the image states no patient id, or no issuer and there is no default_issuer")
        wanted = (system, identity.patient_id)
        found = {
            str(resource["id"]): resource
            for resource in self._server.search("Patient", system, [identity.patient_id])
            if resource.get("id") and _in_use(resource) and _identified(resource, wanted)
        }
        if len(found) != 1:
            count = "no patient" if not found else "several patients"
            raise UnknownPatient(f"{self._server.name} has {count} with this identifier in the system {system!r}")
        ((patient_id, patient),) = found.items()
        patient_identities(patient, self._issuers.issuer_of_system)  # one patient, but under one identifier only
        return f"Patient/{patient_id}"

    def _standing(
        self, entries: Sequence[JsonObject], patient: str, secrets: tuple[str, ...]
    ) -> tuple[str, dict[str, Mapping[str, Any]]]:
        """The report if nothing is to be sent, since the server has this one whole or a newer one; else what is there.

        Raises `Rejected` if somebody changed the report or an Observation there: their word is not replaced.
        """
        ours = report_of(entries)
        there = self._report(ours["identifier"][0]["value"], secrets)
        if there is None:
            return "", {}
        if revision_of(there) > revision_of(ours):
            return _location({}, there), {}  # this one comes late: what a clinician said since stands there already
        found = {ours["identifier"][0]["value"]: there}
        of_patient = f"/{(there.get('subject') or {}).get('reference') or ''}".endswith(f"/{patient}")
        repeated = of_patient and _tagged(there, ours["meta"]["tag"][0])
        for kind in ("Observation", "DocumentReference") if repeated else ("Observation",):
            found |= self._resources(entries, kind, secrets)
        wanted = {_value(e["resource"]) for e in entries if e["resource"]["resourceType"] in _NEEDED}
        if repeated and wanted <= set(found):
            return _location({}, there), {}
        for resource in found.values():
            self._require_ours(resource)
        return "", {value: one for value, one in found.items() if one.get("resourceType") != "DocumentReference"}

    def _require_ours(self, resource: Mapping[str, Any]) -> None:
        """Raises `Rejected` for a report or Observation that is no longer what this service wrote."""
        as_written, status = untouched(resource), resource.get("status")
        if as_written or (as_written is None and status in _OPEN) or resource["resourceType"] == "DocumentReference":
            return
        what = "this report" if resource["resourceType"] == "DiagnosticReport" else "an Observation of this report"
        raise Rejected(
            f"{self._server.name} holds {what} as {status!r}, changed there since this service wrote it: it is not "
            "replaced. Compare both; take over there by hand what is new here"
        )

    def _report(self, value: str, secrets: tuple[str, ...]) -> Mapping[str, Any] | None:
        found = [
            resource
            for resource in self._server.search("DiagnosticReport", SYSTEM, [value], secrets)
            if _identified(resource, (SYSTEM, value))
        ]
        if len(found) > 1:
            raise Rejected(f"{self._server.name} holds {len(found)} reports with the identifier of this one")
        return found[0] if found else None

    def _resources(
        self, entries: Sequence[JsonObject], kind: str, secrets: tuple[str, ...]
    ) -> dict[str, Mapping[str, Any]]:
        """Identifier value → the server's resource of this kind, for those that the bundle has."""
        values = [_value(e["resource"]) for e in entries if e["resource"]["resourceType"] == kind]
        if not values:
            return {}
        found: dict[str, Mapping[str, Any]] = {}
        for resource in self._server.search(kind, SYSTEM, values, secrets):
            for value in values:
                if _identified(resource, (SYSTEM, value)):
                    if value in found:
                        raise Rejected(f"{self._server.name} holds one {kind} of this report twice")
                    found[value] = resource
        return found

    def _add_order(self, bundle: JsonObject, patient: str) -> None:
        """Refer to the order literally where the server has exactly one with this accession number for this patient."""
        accession = accession_of(bundle)
        if not accession:
            return
        response = self._server.post_search("ServiceRequest", "", [accession])
        if response.status_code in _NO_ORDERS:
            return
        answer = json_of(response, self._server.name, (accession, patient.removeprefix("Patient/")))
        resources = [entry.get("resource") for entry in answer.get("entry") or () if isinstance(entry, Mapping)]
        orders = {
            str(one["id"])
            for one in resources
            if isinstance(one, Mapping)
            and one.get("resourceType") == "ServiceRequest"
            and one.get("id")
            and one.get("status") not in ("entered-in-error", "revoked")
            and any(i.get("value") == accession for i in one.get("identifier") or () if isinstance(i, Mapping))
            and f"/{(one.get('subject') or {}).get('reference') or ''}".endswith(f"/{patient}")
        }
        if len(orders) == 1:
            ordered_by(bundle, f"ServiceRequest/{orders.pop()}")

    def _receipt(self, entries: Sequence[JsonObject], answer: Mapping[str, Any], secrets: tuple[str, ...]) -> str:
        """Reference of the stored report; every entry of the answer must say that it was done."""
        server = self._server.name
        if answer["resourceType"] != "Bundle":
            raise DestinationUnavailable(f"{server} answered a transaction with {answer['resourceType']}")
        done = [entry.get("response") or {} for entry in answer.get("entry") or () if isinstance(entry, Mapping)]
        if len(done) != len(entries):
            raise DestinationUnavailable(f"{server} answered {len(done)} of {len(entries)} entries")
        stored = sum(str(response.get("status") or "").startswith("2") for response in done)
        failures = []
        for sent, response in zip(entries, done, strict=True):
            status = str(response.get("status") or "")[:3]
            if not status.startswith("2"):
                kind = sent["resource"]["resourceType"]
                said = outcome_text(response.get("outcome"), secrets)
                code = int(status) if status.isdigit() else 500
                told = f"{kind} was not stored. {said}".strip()
                failures.append(failure(code, f"{told} ({stored} of {len(entries)} entries were stored)", server))
        if failures:
            order = (ChangedMeanwhile, DestinationUnavailable, Rejected)
            raise next(error for kind in order for error in failures if isinstance(error, kind))
        kinds = [entry["resource"]["resourceType"] for entry in entries]
        place = kinds.index("DiagnosticReport")
        return _location(done[place], (answer["entry"][place] or {}).get("resource"))


_NEEDED: Final = frozenset({"DiagnosticReport", "Observation", "DocumentReference"})
"""Kinds that must all be there for a report to count as delivered: a server may have stored a part of a transaction."""


def _value(resource: Mapping[str, Any]) -> str:
    return str(resource["identifier"][0]["value"])


def _in_use(patient: Mapping[str, Any]) -> bool:
    """Whether it may be written to: neither inactive nor merged into another (https://hl7.org/fhir/R4/patient.html#links)."""
    links = patient.get("link")
    merged = any(
        isinstance(one, Mapping) and one.get("type") == "replaced-by"
        for one in (links if isinstance(links, list) else ())
    )
    return patient.get("active") is not False and not merged


def _identified(resource: Mapping[str, Any], wanted: tuple[str, str]) -> bool:
    return wanted in set(current_identifiers(resource))


def _tagged(resource: Mapping[str, Any], tag: Mapping[str, str]) -> bool:
    tags = (resource.get("meta") or {}).get("tag") or ()
    return any((t.get("system"), t.get("code")) == (tag["system"], tag["code"]) for t in tags)


def _location(response: Mapping[str, Any], resource: Mapping[str, Any] | None) -> str:
    """``DiagnosticReport/<id>/_history/<version>`` from a location, absolute or not; empty if the server is silent."""
    location = str(response.get("location") or "")
    if "DiagnosticReport/" in location:
        return "DiagnosticReport/" + location.rpartition("DiagnosticReport/")[2].strip("/")
    if not resource or resource.get("resourceType") != "DiagnosticReport" or not resource.get("id"):
        return ""
    version = (resource.get("meta") or {}).get("versionId")
    return f"DiagnosticReport/{resource['id']}" + (f"/_history/{version}" if version else "")


DESTINATIONS = {"fhir": FhirDestination}
"""Outbound transports of this room, by the settings table that configures them."""
