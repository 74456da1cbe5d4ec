"""``cds drift``: compare the images of two windows of time, so that a change is seen before it does harm."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cds_service.commands.session import prepare
from dermoscopy.tables import utc_now


def drift(
    days: Annotated[float, typer.Option(help="length of the present window", min=0.01)] = 7.0,
    reference_days: Annotated[float, typer.Option(help="length of the reference window before it", min=0.01)] = 30.0,
    output: Annotated[Path | None, typer.Option(help="folder for the report; <data folder>/drift if not given")] = None,
) -> None:
    """Write an Evidently report (HTML and JSON) of this window against the one before it. Exit code 1 means drift."""
    settings = prepare()
    from cds_service.bootstrap import open_node
    from monitoring.drift import report
    from monitoring.features import stored_features

    node = open_node(settings)
    now = utc_now()
    start = now - timedelta(days=days)
    digest = node.champion.digest
    with node.begin() as session:
        before = list(
            stored_features(session, since=start - timedelta(days=reference_days), until=start, model_digest=digest)
        )
        present = list(stored_features(session, since=start, until=now, model_digest=digest))
    folder = output or settings.data_dir / "drift"
    result = report(before, present, folder)
    console = Console(highlight=False)
    table = Table("feature", "score", "drifted", title=f"{len(present)} inferences against {len(before)}")
    for feature in result.features:
        table.add_row(feature.name, f"{feature.score:.3f}", "yes" if feature.drifted else "")
    console.print(table)
    for stratum in result.strata:
        named = ", ".join(f"{feature.name} ({feature.score:.3f})" for feature in stratum.features) or "nothing drifted"
        rows = f"{stratum.current_rows} against {stratum.reference_rows}"
        console.print(f"{stratum.stratum.removeprefix('stratum_')} {stratum.value} ({rows}): {named}")
    for note in result.notes:
        console.print(note)
    console.print(f"Report: {result.html or result.json}")
    raise typer.Exit(1 if result.drifted else 0)
