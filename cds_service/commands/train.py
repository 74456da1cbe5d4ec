"""``cds train``: make a model package from a configuration and a data set."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from dermoscopy.errors import Misconfigured


def train(
    configuration: Annotated[Path, typer.Argument(help="training configuration (YAML)", exists=True, dir_okay=False)],
    data: Annotated[Path, typer.Option(help="folder with the data set", exists=True, file_okay=False)],
    output: Annotated[Path, typer.Option(help="folder for checkpoints and logs")] = Path("var/training"),
    store: Annotated[Path, typer.Option(help="model store that receives the package")] = Path("models/store"),
    restart: Annotated[
        bool, typer.Option("--restart", help="throw away what an earlier run of this version left in the output folder")
    ] = False,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="leave out images that cannot be read, and name them, instead of refusing"),
    ] = False,
) -> None:
    """Split, train, calibrate, evaluate and export a model, and write its package and report.

    Stages that are done are skipped. A run that was stopped goes on from its last checkpoint.
    """
    if find_spec("torch") is None:
        raise Misconfigured("training needs the training set-up: run `make train CONFIG=… DATA=…`, which installs it")
    from models.training.command import train as run

    run(configuration, data=data, output=output, store=store, restart=restart, skip_bad=skip_bad)
