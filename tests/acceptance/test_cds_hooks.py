"""An EHR that shares no code with us, and an image in its chart: every hook, and the result in the same call."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dermoscopy.overlay import encode_png
from dermoscopy.phantoms import phantom
from tests.peers.processes import free_port
from tests.service import SYSTEM, running_service

SCRIPT = Path(__file__).resolve().with_name("cds_client.py")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_image_in_the_chart_is_answered_with_its_result(tmp_path: Path) -> None:
    port = free_port()
    own = f"http://127.0.0.1:{port}"
    picture = tmp_path / "lesion.png"
    picture.write_bytes(encode_png(phantom(7, kind="melanoma-like", rows=450, columns=600).pixels))
    settings = {
        "hooks_open": False,
        "hooks_clients": [{"name": "ehr", "issuer": own, "jku": f"{own}/jwks.json"}],
        "hooks_fhir_servers": [f"{own}/fhir"],
        "hooks_image_seconds": 20,
    }
    with running_service(tmp_path / "service", **settings) as service:
        command = [sys.executable, "-I", str(SCRIPT), service.url, "--identifier", SYSTEM, "4711"]
        command += ["--port", str(port), "--image", str(picture)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    first, *others = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(others) == 7
    (card,) = first["cards"]
    assert "no result yet" not in card and "could not" not in card
