"""A client that shares no code with us runs every hook, signed, with and without prefetch, over real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import sqlalchemy as sa

from dermoscopy.overlay import encode_png
from dermoscopy.settings import CdsClient
from dermoscopy.tables import CardFeedbackRow, InstanceRow
from tests.findings import PATIENT, SYSTEM, drawn_lesion, stored_analysis
from tests.integration.cds_service.conftest import live_application
from tests.peers.processes import free_port

SCRIPT = Path(__file__).resolve().parents[2] / "acceptance" / "cds_client.py"


@pytest.mark.timeout(180)
def test_every_hook_signed_with_and_without_prefetch(engine: sa.Engine, tmp_path: Path) -> None:
    port = free_port()
    own = f"http://127.0.0.1:{port}"
    settings = {
        "api_tokens": (),
        "hooks_clients": (CdsClient(name="ehr", issuer=own, jku=(f"{own}/jwks.json",)),),
        "hooks_fhir_servers": (f"{own}/fhir",),
        "hooks_image_seconds": 1.0,
    }
    picture = tmp_path / "lesion.png"
    picture.write_bytes(encode_png(drawn_lesion().pixels))
    with live_application(engine, tmp_path / "data", **settings) as live:
        stored_analysis(live.node)
        command = [sys.executable, "-I", str(SCRIPT), live.url, "--identifier", SYSTEM, PATIENT.patient_id]
        command += ["--port", str(port), "--image", str(picture)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False, cwd=tmp_path)
        with live.node.begin() as session:
            taken = session.execute(sa.select(InstanceRow).where(InstanceRow.source == "ehr")).scalars().all()  # type: ignore[arg-type]
            said = session.execute(sa.select(CardFeedbackRow)).scalars().all()
    assert done.returncode == 0, done.stderr + done.stdout
    calls = [json.loads(line) for line in done.stdout.splitlines()]
    hooks = ("patient-view", "order-select", "order-sign", "encounter-discharge")
    assert Counter(call["hook"] for call in calls) == dict.fromkeys(hooks, 2)
    assert all(call["cards"] for call in calls)
    assert [call["hook"] for call in calls if call["suggestions"]] == ["order-select"] * 2 + ["order-sign"] * 2
    assert [(one.patient_id, one.issuer) for one in taken] == [(PATIENT.patient_id, PATIENT.issuer)]
    assert said and all(one.known for one in said)
