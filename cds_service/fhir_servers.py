"""The FHIR servers of the settings as destinations, and the keys by which this service proves itself to them."""

from __future__ import annotations

from typing import Any

from dermoscopy.patients import IssuerMap
from dermoscopy.settings import FhirDestination as FhirSettings
from dermoscopy.settings import OutcomeServer, Settings
from fhir_adapters.client_key import ClientKey, key_set, load_client_key
from fhir_adapters.deliver import FhirDestination
from fhir_adapters.outcome_search import OutcomeSource
from fhir_adapters.smart import BackendClient


def fhir_destination(fhir: FhirSettings, issuers: IssuerMap) -> FhirDestination:
    """A FHIR server that takes reports. Raises `Misconfigured`, also for a key that cannot be used."""
    key = _key(fhir)
    client = BackendClient(fhir.client_id, key, fhir.scope, fhir.token_url) if key else None
    return FhirDestination(
        name=fhir.name,
        base_url=fhir.base_url,
        issuers=issuers,
        token=fhir.token,
        client=client,
        dicomweb_url=fhir.dicomweb_url,
    )


def outcome_source(server: OutcomeServer) -> OutcomeSource:
    """A FHIR server that is asked for pathology. Raises `Misconfigured`, also for a key that cannot be used."""
    key = _key(server)
    client = BackendClient(server.client_id, key, server.scope, server.token_url) if key else None
    return OutcomeSource(server.name, server.base_url, token=server.token, client=client)


def public_keys(settings: Settings) -> dict[str, Any]:
    """The JWK set (RFC 7517) that EHRs check our signatures by; without keys it is empty. Raises `Misconfigured`."""
    return key_set(key for key in map(_key, (*settings.fhir, *settings.outcome_servers)) if key)


def _key(fhir: FhirSettings) -> ClientKey | None:
    return load_client_key(fhir.private_key, fhir.key_id) if fhir.private_key else None
