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

from benchmarks.arrivals import Signer, steady
from benchmarks.results import NOT_INSTALLED, Cell, Table, quantile, rounded
from benchmarks.setting import Setting
from benchmarks.stored import example_analyses, fill, multiply, patient_of, patient_of_copy
from dermoscopy.database import create_database_engine
from dermoscopy.domain import Analysis
from tests.peers.postgres import postgres
from tests.peers.processes import LOOPBACK, MissingPeer
from tests.service import SYSTEM

AIM_MS = 50
RATES = (50, 100, 200)
"""Calls a second."""
API_PROCESSES = 2
PATH = "/cds-services/dermoscopy-triage"
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


def measure_arrivals(setting: Setting) -> list[Table]:
    """Signed calls that arrive at a steady rate, whether or not earlier ones were answered."""
    rows: list[tuple[Cell, ...]] = []
    samples: dict[str, list[float]] = {}
    size = setting.size
    with setting.fresh_folder() as folder:
        examples = example_analyses(setting.settings, setting.images.write(folder, EXAMPLES, batch="cards"))
    for database, most in (("SQLite", size.arrivals_sqlite), ("PostgreSQL", size.arrivals_postgres)):
        for stored in (size.cards_stored, most):
            setting.tell(f"signed calls on {stored:,} stored analyses on {database}")
            try:
                with _database(database) as url, setting.fresh_folder() as folder:
                    found = _arrivals(setting, folder, url, examples, stored)
            except MissingPeer:
                rows.append((database, stored, *[NOT_INSTALLED] * 5))
                continue
            for rate, latencies in found.items():
                samples[f"{database}, {stored} stored, {rate}/s, ms"] = [rounded(ms) for ms in latencies]
                shares = [quantile(latencies, share) for share in (0.5, 0.95, 0.99)]
                rows.append((database, stored, rate, *shares, rounded(max(latencies))))
    return [
        Table(
            "arrivals",
            "CDS Hooks cards of signed calls at a steady rate",
            ("database", "stored analyses", "calls/s", "p50 ms", "p95 ms", "p99 ms", "max ms"),
            tuple(rows),
            f"{size.arrivals:,} patient-view calls for each row, due whether or not earlier ones were answered, "
            "all over the stored patients; milliseconds count from the moment a call was due. Each carries an ES384 "
            f"token of its own, which is checked and remembered; {API_PROCESSES} API processes, a worker beside; the "
            f"client runs on the same machine. Aim: p99 < {AIM_MS} ms at {RATES[-1]} calls/s, and flat.",
            samples,
        )
    ]


def _arrivals(
    setting: Setting, folder: Path, url: str, examples: list[Analysis], stored: int
) -> dict[int, list[float]]:
    """Milliseconds of every call, by calls a second."""
    each, base, count = setting.size.analyses_per_patient, setting.size.cards_stored, setting.size.arrivals
    settings = setting.settings.model_copy(update={"data_dir": folder / "data", "database_url": url})
    fill(settings, examples, base, analyses_per_patient=each)
    engine = create_database_engine(settings.resolved_database_url)
    multiply(engine, stored // base)
    engine.dispose()
    signer = Signer(folder)
    services = {"database_url": url, "dicom_processes": 0, "api_processes": API_PROCESSES}
    with setting.service(folder, hooks_open=False, hooks_clients=[signer.client], **services) as service:
        audience = f"{service.url}{PATH}"

        def calls(first: int, number: int) -> list[tuple[bytes, str]]:
            patients = (
                patient_of_copy(n * _STEP % (base // each) * each, n % max(stored // base, 1), each)
                for n in range(first, first + number)
            )
            return [(json.dumps(_hook(patient)).encode(), signer.token(audience)) for patient in patients]

        steady(service.port, PATH, calls(0, WARM_UP), rate=RATES[0])
        return {rate: steady(service.port, PATH, calls(WARM_UP, count), rate=rate) for rate in RATES}


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
            connection.request("POST", PATH, body, {"Content-Type": "application/json"})
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
    """A `patient-view` call as an EHR sends it, in an encounter of its own: what was shown is not shown again."""
    logical, number = f"bench-{patient_id}", next(_numbers)
    patient = {"resourceType": "Patient", "id": logical, "identifier": [{"system": SYSTEM, "value": patient_id}]}
    return {
        "hook": "patient-view",
        "hookInstance": str(uuid.uuid5(uuid.NAMESPACE_URL, f"bench-{number}")),
        "context": {"userId": "Practitioner/bench", "patientId": logical, "encounterId": f"{number}"},
        "prefetch": {"patient": patient},
    }
