"""The command line: ``python -m benchmarks [all|PART|report FILE]``; `BENCHMARKS` names the parts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import cards, chart, end_to_end, endurance, inference, ingest, rooms, startup
from benchmarks.machine import describe
from benchmarks.results import Table, markdown, on_screen
from benchmarks.sample_files import SampleImages
from benchmarks.setting import Setting
from benchmarks.sizes import SIZES
from cds_service.bootstrap import chosen_package
from dermoscopy.errors import DermoscopyError
from dermoscopy.settings import read_settings
from monitoring.logs import configure_logging

BENCHMARKS: Mapping[str, Callable[[Setting], list[Table]]] = {
    "end-to-end": end_to_end.measure,
    "ingest": ingest.measure,
    "endurance": endurance.measure,
    "cards": cards.measure,
    "arrivals": cards.measure_arrivals,
    "chart": chart.measure,
    "startup": startup.measure,
    "rooms": rooms.measure,
    "inference": inference.measure,
}
FILE_WIDTH = 150
"""Columns of the tables where the output goes into a file."""
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


class What(StrEnum):
    """What may be asked for."""

    ALL = "all"
    END_TO_END = "end-to-end"
    INGEST = "ingest"
    ENDURANCE = "endurance"
    CARDS = "cards"
    ARRIVALS = "arrivals"
    CHART = "chart"
    STARTUP = "startup"
    ROOMS = "rooms"
    INFERENCE = "inference"
    REPORT = "report"


def main(
    what: Annotated[What, typer.Argument(help="what to measure; report shows an earlier run as Markdown")] = What.ALL,
    file: Annotated[Path | None, typer.Argument(help="with report: JSON that --output wrote", dir_okay=False)] = None,
    size: Annotated[str, typer.Option(help="full, medium, or small to see that everything runs")] = "full",
    output: Annotated[Path | None, typer.Option(help="write machine, medians and samples here as JSON")] = None,
    images: Annotated[Path | None, typer.Option(help="folder with JPEG or PNG images, or tar files of them")] = None,
    model: Annotated[str, typer.Option(help="name==version of the model; the champion if not given")] = "",
    folder: Annotated[
        Path | None, typer.Option(help="where to keep files while running: on the disk that counts")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(help="with report: put the tables between the marks of this file")
    ] = None,
) -> None:
    """Measure the service beside its peers on this machine; leave the machine alone meanwhile."""
    if (what is What.REPORT) != (file is not None):
        raise typer.BadParameter("report needs a FILE, and nothing else takes one", param_hint="FILE")
    if size not in SIZES:
        raise typer.BadParameter(f"choose one of {', '.join(SIZES)}", param_hint="--size")
    if model:
        os.environ["CDS_MODEL"] = model  # noqa: TID251 - written for the processes of this run, which read it
    if file is not None:
        _report(file, into)
    else:
        _run([*BENCHMARKS] if what is What.ALL else [what.value], size, output, images, folder)


def _run(names: list[str], size: str, output: Path | None, images: Path | None, folder: Path | None) -> None:
    """Measure, print each table as soon as it stands, and keep what stands even when the next one breaks."""
    signal.signal(signal.SIGTERM, _ended)  # so that every process and folder of this run is cleared away
    console = Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
    configure_logging(level="WARNING", format="console")
    settings = read_settings()
    model = chosen_package(settings).reference
    work = Path(tempfile.mkdtemp(prefix="cds-bench-", dir=folder))
    work.chmod(0o755)
    tables: list[Table] = []
    machine = {**describe(work, f"{model.name} {model.version}"), "size": size}
    for key, value in machine.items():
        console.print(f"[dim]{key:12}[/] {value}")
    try:
        with console.status("preparing images") as status:
            setting = Setting(SIZES[size], SampleImages.open(images), work, settings, status.update)
            for name in names:
                found = BENCHMARKS[name](setting)
                tables += found
                for table in found:
                    console.print()
                    console.print(on_screen(table))
                _write(output, machine, tables)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _ended(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def _write(output: Path | None, machine: Mapping[str, str], tables: list[Table]) -> None:
    if output is not None:
        document = {"machine": machine, "tables": [table.plain() for table in tables]}
        output.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _report(file: Path, into: Path | None) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    text = markdown(document["machine"], [Table.read(table) for table in document["tables"]])
    if into is None:
        sys.stdout.write(text)
        return
    page = into.read_text(encoding="utf-8")
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise typer.BadParameter(f"{into} needs the marks {BEGIN} and {END}, once each", param_hint="--into")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    into.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    try:
        with suppress(KeyboardInterrupt):
            typer.run(main)
    except DermoscopyError as error:
        raise SystemExit(f"benchmarks: {error}") from error
