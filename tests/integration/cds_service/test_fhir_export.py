"""A registry pulls from the whole service: search, and an export that the durable engine carries out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dermoscopy.overlay import encode_png
from dermoscopy.phantoms import phantom
from tests.peers.processes import wait_until
from tests.service import SYSTEM, running_service

pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]


def test_a_registry_searches_and_exports(tmp_path: Path, validate_r4) -> None:
    picture = encode_png(phantom(7, kind="nevus", rows=192, columns=192).pixels)
    with running_service(tmp_path / "service") as service:
        client = service.client
        for patient in ("PAT-4711", "PAT-4712"):
            said = {"patient_system": SYSTEM, "patient_id": patient}
            files = {"image": (f"{patient}.png", picture, "image/png")}
            client.post("/api/v1/analyze", files=files, data=said).raise_for_status()
        wait_until(lambda: all(one["state"] == "complete" for one in service.analyses()), "results", seconds=90)

        wanted = {"patient:identifier": f"{SYSTEM}|PAT-4711", "_include": "DiagnosticReport:result"}
        page = client.post("/fhir/DiagnosticReport/_search", data=wanted).raise_for_status().json()
        assert validate_r4(page) == []
        assert [e["search"]["mode"] for e in page["entry"]].count("match") == 1
        patients = {e["resource"]["subject"]["identifier"]["value"] for e in page["entry"]}
        assert patients == {"PAT-4711"}

        answer = client.get("/fhir/$export", headers={"Prefer": "respond-async", "Accept": "application/fhir+json"})
        assert answer.status_code == 202
        status = answer.headers["Content-Location"]
        assert client.get(status).status_code == 202
        wait_until(lambda: client.get(status).status_code == 200, "the export", seconds=60)
        manifest = client.get(status).json()
        for one in manifest["output"]:
            resources = [json.loads(line) for line in client.get(one["url"]).raise_for_status().text.splitlines()]
            assert resources
            for resource in resources:
                assert validate_r4(resource) == []
            if one["type"] == "DiagnosticReport":
                assert {r["subject"]["identifier"]["value"] for r in resources} == {"PAT-4711", "PAT-4712"}
        assert client.delete(status).status_code == 202
        assert client.get(status).status_code == 404
        log = (service.folder / "service.log").read_text()
        assert "/fhir/" in log and "PAT-4711" not in log
