"""How long a chart waits for its card, with few and with many analyses stored."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.results import NOT_INSTALLED, Cell, Table, quantile, rounded
from benchmarks.setting import Setting
from benchmarks.stored import example_analyses, fill, patient_of
from dermoscopy.domain import Analysis
from tests.peers.postgres import postgres
from tests.peers.processes import LOOPBACK, MissingPeer
from tests.service import SYSTEM

AIM_MS = 50
CLIENTS = (1, 4)
WARM_UP = 20
EXAMPLES = 8
_STEP = 7919
"""A prime: calls walk over the patients in an order of no meaning."""


def measure(setting: Setting) -> list[Table]:
    """Both databases, few and many analyses, one client and several."""
    rows: list[tuple[Cell, ...]] = []
    samples: dict[str, list[float]] = {}
    with setting.fresh_folder() as folder:
        examples = example_analyses(setting.settings, setting.images.write(folder, EXAMPLES, batch="cards"))
    for database in ("SQLite", "PostgreSQL"):
        for stored in (setting.size.cards_few, setting.size.cards_stored):
            setting.tell(f"cards from {stored:,} stored analyses on {database}")
            try:
                with _database(database) as url, setting.fresh_folder() as folder:
                    found = _latencies(setting, folder, url, examples, stored)
            except MissingPeer:
                rows.append((database, stored, *[NOT_INSTALLED] * 5))
                continue
            for clients, (latencies, seconds) in found.items():
                samples[f"{database}, {stored} stored, {clients} clients, ms"] = [rounded(ms) for ms in latencies]
                shares = (quantile(latencies, 0.5), quantile(latencies, 0.99), rounded(max(latencies)))
                rows.append((database, stored, clients, *shares, rounded(len(latencies) / seconds)))
    columns = ("database", "stored analyses", "clients", "p50 ms", "p99 ms", "max ms", "calls/s")
    note = (
        f"{setting.size.card_calls:,} patient-view calls over kept-alive HTTP, "
        f"{setting.size.analyses_per_patient} analyses per patient; "
        "each call writes its audit leaf, and a worker runs beside. "
        f"Aim: p99 < {AIM_MS} ms."
    )
    return [Table("cards", "CDS Hooks card latency", columns, tuple(rows), note, samples)]


@contextmanager
def _database(kind: str) -> Iterator[str]:
    if kind == "SQLite":
        yield ""
    else:
        with postgres() as cluster, cluster.database() as url:
            yield url


def _latencies(
    setting: Setting, folder: Path, url: str, examples: list[Analysis], stored: int
) -> dict[int, tuple[list[float], float]]:
    """By number of clients: milliseconds of every call, and seconds of all calls together."""
    each = setting.size.analyses_per_patient
    changes = {"data_dir": folder / "data", "database_url": url}
    fill(setting.settings.model_copy(update=changes), examples, stored, analyses_per_patient=each)
    found: dict[int, tuple[list[float], float]] = {}
    with setting.service(folder, database_url=url, dicom_processes=0) as service:
        patients = stored // each
        _call_all(service.port, patients, each, WARM_UP, 0)
        for clients in CLIENTS:
            share = setting.size.card_calls // clients
            began = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                calls = [
                    pool.submit(_call_all, service.port, patients, each, share, client * share)
                    for client in range(clients)
                ]
                latencies = [ms for call in calls for ms in call.result()]
            found[clients] = latencies, time.perf_counter() - began
    return found


def _call_all(port: int, patients: int, each: int, calls: int, first: int) -> list[float]:
    """Milliseconds of ``calls`` one after the other on one connection."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
    milliseconds = []
    try:
        for number in range(first, first + calls):
            patient = patient_of(number * _STEP % patients * each, each)
            body = json.dumps(_hook(patient)).encode()
            began = time.perf_counter()
            connection.request("POST", "/cds-services/dermoscopy-triage", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            milliseconds.append((time.perf_counter() - began) * 1000)
            if answer.status != http.client.OK or not json.loads(text)["cards"]:
                raise RuntimeError(f"no card for {patient}: {answer.status} {text[:300].decode(errors='replace')}")
    finally:
        connection.close()
    return milliseconds


_numbers = count()


def _hook(patient_id: str) -> dict[str, object]:
    """A `patient-view` call as an EHR sends it."""
    logical = f"bench-{patient_id}"
    patient = {"resourceType": "Patient", "id": logical, "identifier": [{"system": SYSTEM, "value": patient_id}]}
    return {
        "hook": "patient-view",
        "hookInstance": str(uuid.uuid5(uuid.NAMESPACE_URL, f"bench-{next(_numbers)}")),
        "context": {"userId": "Practitioner/bench", "patientId": logical},
        "prefetch": {"patient": patient},
    }
