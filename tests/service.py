"""The real service in processes of its own, as a hospital runs it: start, stop, kill, start again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.peers.processes import Service, free_port

REPOSITORY = Path(__file__).resolve().parent.parent
ISSUER = "HOSPITAL-A"
SYSTEM = "urn:oid:2.25.299792458"


class RunningService:
    """`cds serve` with a data folder and free ports of its own."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = int(str(settings.get("port") or free_port()))
        self.dicom_port = int(str(settings.get("dicom_port") or free_port()))
        values: dict[str, object] = {
            "data_dir": folder / "data",
            "port": self.port,
            "executor_id": "test-node",
            "hooks_open": not settings.get("api_tokens"),
            "issuers": {ISSUER: SYSTEM},
            "default_issuer": ISSUER,
            "delivery_backoff_seconds": 0.2,
            "delivery_backoff_limit_seconds": 2,
            **settings,
            "dicom_port": self.dicom_port,
        }
        kept = ("CDS_MODELS_DIR",)
        self.environment = {n: v for n, v in os.environ.items() if n in kept or not n.startswith("CDS_")}
        for name, value in values.items():
            text = json.dumps(value) if isinstance(value, dict | list) else str(value)
            self.environment[f"CDS_{name.upper()}"] = text
        self.url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)
        self.use_code(REPOSITORY)

    def use_code(self, checkout: Path) -> None:
        """Run the code of this checkout from the next start on."""
        self.environment.update(PYTHONPATH=str(checkout), PYTHONSAFEPATH="1")
        self.service = Service(
            [sys.executable, "-m", "cds_service", "serve"],
            log=self.folder / "service.log",
            ready=self._ready,
            environment=self.environment,
            seconds=120,
        )

    def _ready(self) -> bool:
        try:
            return self.client.get("/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def command(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run ``cds`` with the same settings beside the service."""
        return subprocess.run(
            [sys.executable, "-m", "cds_service", *arguments],
            env={**self.environment, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def analyses(self) -> list[dict[str, Any]]:
        """Every analysis, newest first."""
        answer = self.client.get("/api/v1/analyses", params={"limit": 200}).raise_for_status()
        found: list[dict[str, Any]] = answer.json()["analyses"]
        return found

    def analysis(self, report_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.get(f"/api/v1/analyses/{report_id}").raise_for_status().json()
        return answer

    def file(self, report_id: str, name: str) -> bytes:
        """One result as a file: mask, overlay, heatmap, seg, sr, secondary-capture, report."""
        return self.client.get(f"/api/v1/analyses/{report_id}/{name}").raise_for_status().content

    def card(self, patient: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Cards of a `patient-view` call for this FHIR Patient."""
        request = {
            "hook": "patient-view",
            "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
            "context": {"userId": "Practitioner/1", "patientId": patient["id"]},
            "prefetch": {"patient": patient},
        }
        answer = self.client.post("/cds-services/dermoscopy-triage", json=request).raise_for_status()
        cards: list[dict[str, Any]] = answer.json()["cards"]
        return cards


@contextmanager
def running_service(folder: Path, **settings: object) -> Iterator[RunningService]:
    """Start the service and wait until it says that it is ready; stop it at the end."""
    service = RunningService(folder, settings)
    service.service.start()
    try:
        yield service
    finally:
        service.service.stop(seconds=60)
        service.client.close()
