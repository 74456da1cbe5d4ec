"""``cds evaluate``: how good an installed model is on somebody's own labelled images."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cds_service.commands.session import prepare

if TYPE_CHECKING:
    from models.registry import ModelPackage

CHAMPION = "champion"


def evaluate(
    model: Annotated[
        str, typer.Argument(help="name==version, a name (its newest version), 'champion', or a package folder")
    ],
    dataset: Annotated[
        Path, typer.Argument(help="folder of images with a CSV (image_id, dx), masks, or both; or that CSV")
    ],
    output: Annotated[
        Path | None, typer.Option(help="folder for report.html and report.json (var/evaluation/… if not given)")
    ] = None,
    images: Annotated[str, typer.Option(help="folder or archives with the images, where there are several")] = "",
    masks: Annotated[str, typer.Option(help="folder or archives with the masks; 'none' judges no outline")] = "",
    labels: Annotated[Path | None, typer.Option(help="CSV with image_id and dx, where there are several")] = None,
    split: Annotated[Path | None, typer.Option(help="CSV with image_id and fold", exists=True, dir_okay=False)] = None,
    fold: Annotated[str, typer.Option(help="evaluate this fold only, such as test")] = "",
    limit: Annotated[int, typer.Option(help="evaluate so many images, evenly spread; 0: all", min=0)] = 0,
    skip_bad: Annotated[bool, typer.Option(help="leave out what cannot be read or judged, and count it")] = False,
    thorough: Annotated[
        bool, typer.Option(help="also distortions, faithfulness of the maps and the gate (slow)")
    ] = False,
    pictures: Annotated[bool, typer.Option(help="draw the worst cases into pictures/ beside the report")] = False,
    threads: Annotated[int, typer.Option(help="threads of the network", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="of the bootstrap and of what is drawn by lot")] = 0,
) -> None:
    """Measure a model on labelled images: one page and one JSON with every figure and its interval."""
    settings = prepare(migrated=False)
    from models.evaluation.command import Extent, write_report
    from models.evaluation.command import evaluate as measure
    from models.evaluation.layouts import Choice, open_dataset

    started = time.perf_counter()
    package = _package(settings.models_dir, model, settings.model)
    console = Console(stderr=True, highlight=False)
    choice = Choice(images, masks, labels, split, fold, limit, skip_bad)
    with console.status("looking at the images"):
        found = open_dataset(dataset, [label.value for label in package.manifest.classes], choice)
    name = f"{package.manifest.name}=={package.manifest.version}"
    console.print(f"{name} on {found.name}: {len(found.cases)} images, {found.labelled} with a diagnosis")
    for note in found.notes:
        console.print(f"  {note}")
    extent = Extent(
        thorough=thorough, skip_bad=skip_bad, seed=seed, threads=threads, progress=True, command=_command(sys.argv[1:])
    )
    report = measure(package, found, extent)
    folder = output or Path("var/evaluation") / name.replace("==", "-") / "-".join(filter(None, (found.name, fold)))
    if pictures:
        from models.evaluation.pictures import draw_pictures

        draw_pictures(package, found, report, folder / "pictures")
    data, page = write_report(report, folder)
    Console().print(_table(report, name))
    if report["dataset"]["seen_in_training"]:
        console.print(f"[bold red]careful:[/] {report['dataset']['notes'][0]}")
    for one in report["dataset"]["left_out"]:
        console.print(f"left out: {one['id']}: {one['why']}")
    console.print(f"{page}\n{data}\n{time.perf_counter() - started:.0f} s")


def _package(store: Path, model: str, setting: str) -> ModelPackage:
    """The package that the first argument names."""
    from dermoscopy.errors import Misconfigured
    from models.manifest import MANIFEST_NAME, read_manifest
    from models.registry import ModelPackage, champion, installed

    folder = Path(model)
    if (folder / MANIFEST_NAME).is_file():
        return ModelPackage(folder, read_manifest(folder / MANIFEST_NAME))
    if model == CHAMPION:
        return champion(store, setting)
    if "==" in model:
        return champion(store, model)
    versions = [one for one in installed(store) if one.manifest.name == model]
    if not versions:
        there = ", ".join(f"{one.manifest.name}=={one.manifest.version}" for one in installed(store)) or "none"
        raise Misconfigured(f"no model {model!r} is installed in {store}; installed: {there}")
    return versions[-1]


def _command(arguments: list[str]) -> str:
    """The command for the record: an absolute path keeps its name only, since the rest tells about this machine."""
    words = [f"<folder>/{Path(word).name}" if word.startswith("/") else word for word in arguments]
    return shlex.join(["cds", *words]).replace("'<folder>", "<folder>").replace("'", "")


def _table(report: dict[str, Any], name: str) -> Table:
    from models.evaluation.sections import NAMES

    table = Table("figure", "value", "95 %", title=f"{name} on {report['dataset']['name']}")
    for key, figure in report["figures"].items():
        if figure["value"] is not None:
            interval = figure["interval"]
            table.add_row(
                NAMES[key],
                f"{figure['value']:.3f}",
                f"{interval[0]:.3f}–{interval[1]:.3f}" if interval else "–",
            )
    melanoma = report.get("operating_points", {}).get("melanoma")
    if melanoma and melanoma["sensitivity"]["value"] is not None:
        for side in ("sensitivity", "specificity"):
            low, high = melanoma[side]["interval"] or (float("nan"),) * 2
            table.add_row(
                f"Melanoma {side} at the set point", f"{melanoma[side]['value']:.3f}", f"{low:.3f}–{high:.3f}"
            )
    table.add_row("Abstained", f"{report['abstention']['abstained']['value']:.3f}", "")
    return table
