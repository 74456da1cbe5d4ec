"""``cds demo``: the main job end to end, as a hospital would see it, on one machine and on loopback.

Starts the real service, sends images to it by C-STORE as a camera or PACS would, waits for the results, and shows what
clinicians would see. Nothing in here takes a short cut through the service's own insides.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dermoscopy.errors import Misconfigured, Unavailable
from dermoscopy.settings import Settings, read_settings

ISSUER, SYSTEM, PATIENT = "DEMO-HOSPITAL", "urn:oid:2.25.1", "DEMO-0001"
START_SECONDS = 120.0
RESULT_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class _Service:
    url: str
    settings: Settings


def demo(
    images: Annotated[Path | None, typer.Option(help="folder with JPEG, PNG or DICOM images of your own")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="leave the service running until Ctrl-C")] = False,
    folder: Annotated[Path, typer.Option(help="where the demo keeps its database and results")] = Path("var/demo"),
) -> None:
    """Start the service, send it a few images over DICOM, and show the results."""
    from cds_service.commands.demo_images import instances_of, phantom_instances

    console = Console(highlight=False)
    objects = instances_of(images, ISSUER, PATIENT) if images else phantom_instances(ISSUER, PATIENT)
    if not objects:
        raise Misconfigured(f"no JPEG, PNG or DICOM image in {images}")
    what = f"{len(objects)} images of {images}" if images else f"{len(objects)} synthetic phantoms (no patient's data)"
    console.print(f"[bold]Demo:[/] {what}; expect half a minute. Everything stays on this machine.\n")
    with _service(console, folder) as service, httpx.Client(base_url=service.url, timeout=60) as client:
        ids = _send(console, service, client, objects)
        results = _wait(console, client, ids)
        files = _download(client, results, folder / "results")
        _show(console, client, service, results, files)
        if keep:
            console.print(
                f"\nThe service is up at {service.url}, DICOM on port {service.settings.dicom_port}. Ctrl-C stops it."
            )
            _sleep_until_interrupted()
    failed = [r for r in results if r["state"] == "failed"]
    if failed:
        console.print(f"[red]{len(failed)} of {len(results)} images have no result; the table says why.[/]")
    raise typer.Exit(1 if failed else 0)


@contextmanager
def _service(console: Console, folder: Path) -> Iterator[_Service]:
    """The service in processes of its own, with a data folder of its own, on free ports."""
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {
        "CDS_DATA_DIR": str(folder.resolve()),
        "CDS_DEFAULT_ISSUER": ISSUER,
        "CDS_ISSUERS": f'{{"{ISSUER}": "{SYSTEM}"}}',
        "CDS_PORT": str(_free_port(8600)),
        "CDS_DICOM_PORT": str(_free_port(11112)),
    }
    if "CDS_API_TOKENS" not in os.environ and "CDS_HOOKS_CLIENTS" not in os.environ:
        defaults["CDS_HOOKS_OPEN"] = "true"  # this machine alone asks
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    settings = read_settings()
    url = f"http://{settings.host}:{settings.port}"
    log = folder / "service.log"
    with log.open("ab") as output:
        command = [sys.executable, "-m", "cds_service", "serve"]
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)  # noqa: S603 - our own
        try:
            with console.status("Starting the service: API, DICOM listener, worker …"):
                began = time.monotonic()
                _await_ready(process, url, log)
            console.print(f"Service ready after {time.monotonic() - began:.1f} s (log: {log})")
            yield _Service(url, settings)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _await_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Unavailable(f"the service ended while starting (code {process.returncode}): see {log}")
        try:
            if httpx.get(f"{url}/health/ready", timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.2)
    raise Unavailable(f"the service was not ready within {START_SECONDS:.0f} s: see {log}")


def _send(
    console: Console, service: _Service, client: httpx.Client, objects: list[tuple[str, bytes]]
) -> dict[str, str]:
    """C-STORE each object on one association; returns analysis id → image name."""

    from dicom_listener.camera import sending

    ids: dict[str, str] = {}
    settings = service.settings
    with (
        sending(
            settings.dicom_host, settings.dicom_port, called_ae=settings.ae_title, calling_ae="DEMO-CAMERA"
        ) as send,
        _progress(console) as progress,
    ):
        task = progress.add_task("C-STORE", total=len(objects))
        for name, data in objects:
            sop_instance_uid = send(data)
            found = (
                client.get("/api/v1/analyses", params={"sop_instance_uid": sop_instance_uid}).raise_for_status().json()
            )
            for item in found["analyses"]:
                ids[item["report_id"]] = name
            progress.advance(task)
    return ids


def _wait(console: Console, client: httpx.Client, ids: dict[str, str]) -> list[dict[str, Any]]:
    """Poll until each analysis has its results."""
    results: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + RESULT_SECONDS
    with _progress(console) as progress:
        task = progress.add_task("analyse and render", total=len(ids))
        while len(results) < len(ids):
            for report_id in ids.keys() - results.keys():
                answer = client.get(f"/api/v1/analyses/{report_id}").raise_for_status().json()
                if answer["state"] in ("rendered", "complete", "failed"):
                    results[report_id] = {**answer, "name": ids[report_id]}
                    progress.advance(task)
            if time.monotonic() > deadline:
                raise Unavailable(f"only {len(results)} of {len(ids)} images were done within {RESULT_SECONDS:.0f} s")
            time.sleep(0.1)
    return [results[report_id] for report_id in ids]


def _download(client: httpx.Client, results: list[dict[str, Any]], folder: Path) -> list[Path]:
    """The files that a PACS, an EHR or a person would get."""
    files = []
    for result in results:
        target = folder / Path(result["name"]).stem
        target.mkdir(parents=True, exist_ok=True)
        for path, name in (("seg", "seg.dcm"), ("sr", "sr.dcm"), ("report", "report.json"), ("overlay", "overlay.png")):
            answer = client.get(f"/api/v1/analyses/{result['report_id']}/{path}")
            if answer.status_code == httpx.codes.NOT_FOUND:
                continue  # no lesion was found, so there is no SEG
            (target / name).write_bytes(answer.raise_for_status().content)
            files.append(target / name)
    return files


def _show(
    console: Console, client: httpx.Client, service: _Service, results: list[dict[str, Any]], files: list[Path]
) -> None:
    table = Table("image", "primary", "melanoma risk", "triage", "time", title="AI second opinion, not a diagnosis")
    for result in results:
        diagnosis = result.get("diagnosis")
        if diagnosis is None:
            table.add_row(result["name"], "failed", "", "", result.get("error") or "")
            continue
        risk = f"{diagnosis['melanoma_risk']:.1%}"
        took = f"{result['latency_ms']:.0f} ms"
        table.add_row(result["name"], diagnosis["primary"] or "none named", risk, result["triage"]["tier"], took)
    console.print(table)
    cards = client.post("/cds-services/dermoscopy-triage", json=_hook()).raise_for_status().json()["cards"]
    if cards:
        text = f"**{cards[0]['summary']}**\n\n{cards[0].get('detail', '')}"
        more = f" (first of {len(cards)})" if len(cards) > 1 else ""
        console.print(Panel(Markdown(text), title=f"The card in the EHR{more}", subtitle=cards[0]["indicator"]))
    console.print("Files written:")
    for path in files[:8]:
        console.print(f"  {path}")
    if len(files) > 8:
        console.print(f"  … and {len(files) - 8} more in {files[0].parent.parent}")
    console.print(
        f"\nTo open while the service runs (KEEP=1): {service.url}/ · {service.url}/docs · {service.url}/worklist"
    )
    console.print("[bold green]Done:[/] images went in over DICOM; SEG, SR, FHIR report and EHR card came out.")


def _hook() -> dict[str, Any]:
    """A `patient-view` call as an EHR sends it (https://cds-hooks.hl7.org/hooks/patient-view/)."""
    patient = {"resourceType": "Patient", "id": "demo", "identifier": [{"system": SYSTEM, "value": PATIENT}]}
    return {
        "hook": "patient-view",
        "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
        "context": {"userId": "Practitioner/demo", "patientId": "demo"},
        "prefetch": {"patient": patient},
    }


def _progress(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=console)


def _free_port(wanted: int) -> int:
    """``wanted`` if it is free, else any free port."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Unavailable("no free port on loopback")


def _sleep_until_interrupted() -> None:
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
