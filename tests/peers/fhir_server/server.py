"""Start the FHIR R4 server and ask it the questions that tests have."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.peers.processes import LOOPBACK, PEERS, Service, free_port, installed, program

FHIR_JSON = "application/fhir+json"


class FhirServer:
    """A FHIR R4 server under `url`. Its state lies in one journal file and survives kill() and start()."""

    def __init__(self, folder: Path, *, token: str | None = None, check_references: bool = True) -> None:
        node = program("node", package="nodejs 20 or newer")
        installed(PEERS / "node_modules" / "@medplum" / "fhir-router")
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}/fhir"
        self.journal = folder / "journal.jsonl"
        environment = {**os.environ, "FHIR_CHECK_REFERENCES": "1" if check_references else "0"}
        environment.pop("FHIR_TOKEN", None)
        headers = {"Accept": FHIR_JSON}
        if token is not None:
            environment["FHIR_TOKEN"] = token
            headers["Authorization"] = f"Bearer {token}"
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=30, trust_env=False)
        self._service = Service(
            [node, str(PEERS / "fhir_server" / "server.mjs"), str(self.port), str(self.journal)],
            log=folder / "fhir-server.log",
            ready=self._answers,
            environment=environment,
        )

    def _answers(self) -> bool:
        try:
            return self.client.get("/metadata").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def start(self) -> None:
        self._service.start()

    def stop(self) -> None:
        self._service.stop()

    def forget_everything(self) -> None:
        """Empty it, and start it first where it is down: quicker than a new server."""
        if self._service.pid is None:
            self._service.start()
        self.client.post("/$forget-everything").raise_for_status()

    def kill(self) -> None:
        """SIGKILL: what was not committed is lost, what was committed is there after start()."""
        self._service.kill()

    def post(self, resource: Mapping[str, Any], *, path: str | None = None, **headers: str) -> httpx.Response:
        """POST a resource to its type, or a transaction or batch Bundle to the root. Header names with underscores."""
        if path is None:
            whole = resource["resourceType"] == "Bundle" and resource.get("type") in ("transaction", "batch")
            path = "" if whole else str(resource["resourceType"])
        return self._send("POST", path, resource, headers)

    def put(self, resource: Mapping[str, Any], path: str, **headers: str) -> httpx.Response:
        return self._send("PUT", path, resource, headers)

    def _send(self, method: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> httpx.Response:
        sent = {"Content-Type": FHIR_JSON} | {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.request(method, f"/{path}", json=dict(body), headers=sent)

    def search(self, resource_type: str, **parameters: str) -> list[dict[str, Any]]:
        """Resources that match, e.g. search("Observation", identifier="system|value", patient="Patient/1")."""
        answer = self.client.get(f"/{resource_type}", params=parameters).raise_for_status()
        return [entry["resource"] for entry in answer.json().get("entry", [])]

    def read(self, reference: str) -> dict[str, Any]:
        """The current version of e.g. "Patient/123"."""
        return dict(self.client.get(f"/{reference}").raise_for_status().json())

    def versions(self, reference: str) -> int:
        """How many versions one resource has had."""
        return int(self.client.get(f"/{reference}/_history").raise_for_status().json()["total"])


@contextmanager
def fhir_server(folder: Path, *, token: str | None = None, check_references: bool = True) -> Iterator[FhirServer]:
    """A running server with its journal and log in folder.

    token: every request needs this bearer token (the server's own `client` sends it).
    check_references: refuse a resource that refers to one that is not here, as most servers do.
    """
    server = FhirServer(folder, token=token, check_references=check_references)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.client.close()
