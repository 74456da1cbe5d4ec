"""Sends a stored bundle to an EHR: find the patient, fill in the reference, POST the transaction.

FHIR R4 RESTful API: https://hl7.org/fhir/R4/http.html#transaction
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
import structlog
from opentelemetry import trace
from pydantic import SecretStr

from dermoscopy.domain import Analysis, Artifact, ArtifactKind, DeliveryReceipt, PatientIdentity
from dermoscopy.errors import DestinationUnavailable, Misconfigured, Rejected, UnknownPatient
from dermoscopy.patients import IssuerMap
from fhir_adapters.answers import failure, json_of, outcome_text
from fhir_adapters.elements import FHIR_JSON, JsonObject
from fhir_adapters.read import current_identifiers, patient_identities

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
LIMITS = httpx.Limits(max_keepalive_connections=8, keepalive_expiry=2.0)
"""Idle connections are let go before common servers close them (5 s), which would cost an attempt each time."""
_OPEN = frozenset({"registered", "partial", "preliminary", "unknown"})
"""Report states that nobody has confirmed yet (https://hl7.org/fhir/R4/valueset-diagnostic-report-status.html)."""
_log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)


class FhirDestination:
    """A FHIR R4 server that takes reports; implements `dermoscopy.ports.Destination`. Safe to use from many threads."""

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        issuers: IssuerMap,
        token: SecretStr | None = None,
        timeout: httpx.Timeout = TIMEOUT,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``base_url`` is the server's FHIR base. Raises `Misconfigured` if it is no plain http(s) address."""
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
            raise Misconfigured(f"fhir destination {name!r}: base_url must be http(s)://host/path without credentials")
        self._name = name
        self._issuers = issuers
        headers = {"Accept": FHIR_JSON, "User-Agent": "dermoscopy-cds"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        self._base = base_url.rstrip("/")
        self._client = httpx.Client(
            headers=headers, timeout=timeout, limits=LIMITS, follow_redirects=False, transport=transport
        )

    @property
    def name(self) -> str:
        return self._name

    @property
    def accepts(self) -> frozenset[ArtifactKind]:
        return frozenset({ArtifactKind.FHIR_BUNDLE})

    def close(self) -> None:
        """Close the connections that are kept open between deliveries."""
        self._client.close()

    def deliver(self, artifact: Artifact, analysis: Analysis) -> DeliveryReceipt:
        """Send once; the receipt names the report as ``DiagnosticReport/<id>/_history/<version>``.

        Raises `UnknownPatient` (the server has none or several: hold), `Rejected` (refused, also in part),
        `DestinationUnavailable` (no answer, busy, failing, or not FHIR: send again).
        """
        if artifact.kind not in self.accepts:
            raise Rejected(f"{self._server} takes FHIR bundles, not {artifact.kind.value}")
        with _tracer.start_as_current_span(
            "fhir.deliver", attributes={"destination": self._name, "analysis.id": analysis.id}
        ):
            identity = self._issuers.canonical(analysis.header.patient)
            system = self._issuers.system_of(identity.issuer)
            patient = self._find_patient(identity, system)
            bundle = addressed(json.loads(artifact.data), patient, system, identity.patient_id)
            secrets = (identity.patient_id, patient.removeprefix("Patient/"))
            sent = json.dumps(bundle, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
            reference = self._stored(bundle["entry"], patient, secrets)
            repeated = bool(reference)
            if not repeated:
                answer = json_of(self._post("", sent, FHIR_JSON), self._server, secrets)
                reference = self._receipt(bundle["entry"], answer, secrets)
        _log.info(
            "fhir.delivered", destination=self._name, analysis_id=analysis.id, reference=reference, repeated=repeated
        )
        return DeliveryReceipt(reference)

    @property
    def _server(self) -> str:
        return f"FHIR server {self._name!r}"

    def _find_patient(self, identity: PatientIdentity, system: str) -> str:
        """``Patient/<id>`` of the one patient in use with this identifier."""
        if not identity.known or not system:
            raise UnknownPatient("the image states no patient id, or no issuer and there is no default_issuer")
        answer = self._search("Patient", system, identity.patient_id)
        wanted = (system, identity.patient_id)
        found = {
            str(resource["id"]): resource
            for resource in _resources(answer)
            if resource.get("resourceType") == "Patient"
            and resource.get("id")
            and resource.get("active") is not False
            and wanted in set(current_identifiers(resource))
        }
        if len(found) != 1:
            count = "no patient" if not found else "several patients"
            raise UnknownPatient(f"{self._server} has {count} with this identifier in the system {system!r}")
        ((patient_id, patient),) = found.items()
        patient_identities(patient, self._issuers.issuer_of_system)  # one patient, but under one identifier only
        return f"Patient/{patient_id}"

    def _stored(self, entries: Sequence[JsonObject], patient: str, secrets: tuple[str, ...]) -> str:
        """The report if the server has exactly this one for this patient; empty if the bundle is to be sent.

        Raises `Rejected` if a report that is no longer preliminary would be replaced: a clinician has spoken since.
        """
        report = next(e["resource"] for e in entries if e["resource"]["resourceType"] == "DiagnosticReport")
        identifier = report["identifier"][0]
        wanted = (identifier["system"], identifier["value"])
        answer = self._search("DiagnosticReport", *wanted, secrets)
        found = [
            resource
            for resource in _resources(answer)
            if resource.get("resourceType") == "DiagnosticReport" and wanted in set(current_identifiers(resource))
        ]
        if len(found) > 1:
            raise Rejected(f"{self._server} holds {len(found)} reports with the identifier of this one")
        if not found:
            return ""
        of_patient = str((found[0].get("subject") or {}).get("reference") or "")
        if f"/{of_patient}".endswith(f"/{patient}") and _tagged(found[0], report["meta"]["tag"][0]):
            return _location({}, found[0])
        if found[0].get("status") not in _OPEN:
            raise Rejected(f"{self._server} holds this report as {found[0].get('status')!r}: it is not replaced")
        return ""

    def _search(self, kind: str, system: str, value: str, secrets: tuple[str, ...] = ()) -> Mapping[str, Any]:
        """Search by identifier in a POST, since addresses end up in logs (https://hl7.org/fhir/R4/http.html#search)."""
        token = f"{_escape(system)}|{_escape(value)}"
        form = str(httpx.QueryParams({"identifier": token, "_count": "10"})).encode("ascii")
        response = self._post(f"/{kind}/_search", form, "application/x-www-form-urlencoded")
        answer = json_of(response, self._server, (value, *secrets))
        if answer["resourceType"] != "Bundle":
            raise DestinationUnavailable(f"{self._server} answered a search with {answer['resourceType']}")
        return answer

    def _post(self, path: str, content: bytes, media_type: str) -> httpx.Response:
        """POST below the base; a 307 or 308 is followed once, and only on the same host."""
        url, headers = f"{self._base}{path}", {"Content-Type": media_type}
        try:
            response = self._client.post(url, content=content, headers=headers)
            if response.status_code in {307, 308}:
                target = httpx.URL(url).join(response.headers.get("Location", ""))
                if target.netloc == httpx.URL(url).netloc and target.scheme == httpx.URL(url).scheme:
                    response = self._client.post(target, content=content, headers=headers)
        except httpx.TimeoutException as error:
            raise DestinationUnavailable(f"{self._server} did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DestinationUnavailable(f"{self._server} cannot be reached ({type(error).__name__})") from error
        return response

    def _receipt(self, entries: Sequence[JsonObject], answer: Mapping[str, Any], secrets: tuple[str, ...]) -> str:
        """Reference of the stored report; every entry of the answer must say that it was done."""
        if answer["resourceType"] != "Bundle":
            raise DestinationUnavailable(f"{self._server} answered a transaction with {answer['resourceType']}")
        done = [entry.get("response") or {} for entry in answer.get("entry") or ()]
        if len(done) != len(entries):
            raise DestinationUnavailable(f"{self._server} answered {len(done)} of {len(entries)} entries")
        failures = []
        for sent, response in zip(entries, done, strict=True):
            status = str(response.get("status") or "")[:3]
            if not status.startswith("2"):
                kind = sent["resource"]["resourceType"]
                said = outcome_text(response.get("outcome"), secrets)
                code = int(status) if status.isdigit() else 500
                failures.append(failure(code, f"{kind} was not stored. {said}".strip(), self._server))
        if failures:
            raise next((e for e in failures if isinstance(e, DestinationUnavailable)), failures[0])
        kinds = [entry["resource"]["resourceType"] for entry in entries]
        place = kinds.index("DiagnosticReport")
        return _location(done[place], (answer["entry"][place] or {}).get("resource"))


def _escape(token: str) -> str:
    """Search values escape the characters that separate them (https://hl7.org/fhir/R4/search.html#escaping)."""
    for character in "\\$,|":
        token = token.replace(character, f"\\{character}")
    return token


def _resources(bundle: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = [entry.get("resource") for entry in bundle.get("entry") or () if isinstance(entry, Mapping)]
    return [resource for resource in found if isinstance(resource, Mapping)]


def _tagged(resource: Mapping[str, Any], tag: Mapping[str, str]) -> bool:
    tags = (resource.get("meta") or {}).get("tag") or ()
    return any((t.get("system"), t.get("code")) == (tag["system"], tag["code"]) for t in tags)


def addressed(bundle: JsonObject, patient: str, system: str, value: str) -> JsonObject:
    """The bundle as it is sent: every logical reference to the patient made literal as well (changes ``bundle``)."""
    for entry in bundle["entry"]:
        resource = entry["resource"]
        if "subject" in resource:
            resource["subject"] = {
                "reference": patient,
                "type": "Patient",
                "identifier": {"system": system, "value": value},
            }
    return bundle


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
