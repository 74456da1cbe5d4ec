"""``cds analyze``: files in, a table of results out, through the same intake and workflows as every other way in."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from cds_service.commands.session import prepare
from cds_service.node import Node
from dermoscopy.analyses import IN_FLIGHT
from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import Rejected
from dermoscopy.tables import AnalysisRow


@dataclass(slots=True)
class _Line:
    name: str
    analysis_id: str = ""
    problem: str = ""


def analyze(
    files: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG files", exists=True, dir_okay=False)],
    patient: Annotated[str, typer.Option(help="patient id, for pictures that carry none")] = "",
    issuer: Annotated[str, typer.Option(help="issuer of the patient id, or FHIR identifier system")] = "",
    wait: Annotated[float, typer.Option(help="seconds to wait for all results", min=1)] = 300.0,
) -> None:
    """Analyse image files and print what was found. Exit code 1 if any file has no result."""
    settings = prepare()
    from cds_service.bootstrap import open_node

    node = open_node(settings)
    identity = PatientIdentity(node.issuers.issuer_of(issuer), patient)
    console = Console()
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        taking = progress.add_task("taking in", total=len(files))
        lines = [_take(node, path, identity, lambda: progress.advance(taking)) for path in files]
        wanted = [line.analysis_id for line in lines if line.analysis_id]
        analysing = progress.add_task("analysing", total=len(wanted))
        with _worker(node):
            rows = _wait(node, wanted, wait, lambda done: progress.update(analysing, completed=done))
    console.print(_table(lines, rows))
    unfinished = [line for line in lines if line.problem or rows[line.analysis_id].state in ("failed", *IN_FLIGHT)]
    raise typer.Exit(1 if unfinished else 0)


def _take(node: Node, path: Path, identity: PatientIdentity, advance: Callable[[], None]) -> _Line:
    from cds_service.reading import read_object

    line = _Line(path.name)
    data = path.read_bytes()
    try:
        body, header = read_object(data, identity)
        receipt = node.intake.accept(body, header, source="command line", caller="cds analyze")
        line.analysis_id, line.problem = receipt.analysis_id, receipt.hold_reason
    except Rejected as error:
        from dermoscopy.blobs import digest_of

        node.intake.reject(error, digest=digest_of(data), source="command line", caller="cds analyze", header=None)
        line.problem = str(error)
    advance()
    return line


def _worker(node: Node) -> AbstractContextManager[None]:
    """A worker in this process, unless the service's own workers are alive."""
    from monitoring.heartbeat import alive

    if alive(node.engine, "worker"):
        return nullcontext()
    from cds_service.worker import running_worker

    return running_worker(node)


def _wait(node: Node, wanted: list[str], seconds: float, report: Callable[[int], None]) -> dict[str, AnalysisRow]:
    deadline = time.monotonic() + seconds
    while True:
        with node.begin() as session:
            rows = {identity: session.get_one(AnalysisRow, identity) for identity in wanted}
        done = sum(row.state not in IN_FLIGHT for row in rows.values())
        report(done)
        if done == len(rows) or time.monotonic() > deadline:
            return rows
        time.sleep(0.1)


def _table(lines: list[_Line], rows: dict[str, AnalysisRow]) -> Table:
    table = Table(
        "image", "primary", "melanoma risk", "triage", "time", "note", title="AI second opinion, not a diagnosis"
    )
    for line in lines:
        row = rows.get(line.analysis_id)
        if row is None:
            table.add_row(line.name, "", "", "", "", line.problem)
        elif row.state in IN_FLIGHT:
            table.add_row(line.name, "", "", "", "", f"under way: {row.id}")
        elif row.state == "failed":
            table.add_row(line.name, "", "", "", "", row.error)
        else:
            table.add_row(
                line.name,
                row.primary_class or "none named",
                f"{row.melanoma_risk or 0:.1%}",
                row.tier,
                f"{row.milliseconds or 0:.0f} ms",
                row.abstention,
            )
    return table
