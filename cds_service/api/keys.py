"""Our public keys, by which EHRs know that it is this service that asks for a token (SMART Backend Services)."""

from __future__ import annotations

from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict

from cds_service.api.refusals import problems
from cds_service.fhir_servers import public_keys
from dermoscopy.settings import Settings

PATH = "/.well-known/jwks.json"
_SECONDS = 3600


class PublicKey(BaseModel):
    """One public key (RFC 7517), with the members of its type."""

    model_config = ConfigDict(frozen=True, extra="allow")
    kty: str
    kid: str
    alg: str
    use: str = "sig"


class KeySet(BaseModel):
    """A JWK set."""

    model_config = ConfigDict(frozen=True)
    keys: list[PublicKey]


def add_keys(app: FastAPI, settings: Settings) -> None:
    """Add ``/.well-known/jwks.json``. Raises `Misconfigured` if a private key of the settings cannot be used."""
    found = KeySet.model_validate(public_keys(settings))

    @app.get(PATH, tags=["health"], summary="Public keys", responses=problems(421))
    def jwks(response: Response) -> KeySet:
        """Register this address with an EHR whose `fhir` entry has `client_id` and `private_key`."""
        response.headers["Cache-Control"] = f"public, max-age={_SECONDS}"
        return found
