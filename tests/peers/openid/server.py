"""Start the OpenID provider. It goes by the name ``localhost``, so that it is another site than a page on 127.0.0.1."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.peers.processes import PEERS, Service, free_port, installed, program

SECRET = "a secret of the test client, 32 ch"


class OpenIdProvider:
    """A provider under `issuer` and an EHR under `fhir` (an address for ``iss``)."""

    def __init__(
        self,
        folder: Path,
        *,
        callback: str,
        port: int = 0,
        people: Mapping[str, Mapping[str, Any]],
        patients: Sequence[Mapping[str, Any]] = (),
        launches: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """``callback``: redirect address of both clients, ``page`` (confidential) and ``smart`` (public)."""
        node = program("node", package="nodejs 20 or newer")
        installed(PEERS / "node_modules" / "oidc-provider")
        self.port = port or free_port()
        self.issuer = f"http://localhost:{self.port}"
        self.fhir = f"{self.issuer}/fhir"
        shared = {"redirect_uris": [callback], "grant_types": ["authorization_code"], "response_types": ["code"]}
        config = {
            "clients": [
                {"client_id": "page", "client_secret": SECRET, **shared, "scope": "openid profile roles"},
                {
                    "client_id": "smart",
                    "token_endpoint_auth_method": "none",
                    "scope": "openid profile fhirUser launch patient/*.read",
                    **shared,
                },
            ],
            "people": people,
            "patients": patients,
            "launches": launches or {},
        }
        self._service = Service(
            [node, str(PEERS / "openid" / "server.mjs"), str(self.port), json.dumps(config)],
            log=folder / "openid.log",
            ready=self._answers,
        )

    def _answers(self) -> bool:
        try:
            address = f"http://127.0.0.1:{self.port}/.well-known/openid-configuration"
            return httpx.get(address, trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def requests(self) -> list[dict[str, str]]:
        """Parameters of the authorization requests that somebody answered, oldest first."""
        found: list[dict[str, str]] = httpx.get(f"http://127.0.0.1:{self.port}/requests", trust_env=False).json()
        return found

    def start(self) -> None:
        self._service.start()

    def stop(self) -> None:
        self._service.stop()


@contextmanager
def openid_provider(folder: Path, **options: Any) -> Iterator[OpenIdProvider]:
    """A running provider with the arguments of `OpenIdProvider`."""
    provider = OpenIdProvider(folder, **options)
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()
