"""``cds outcomes``: what became of the lesions, and how often the algorithm had been right."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlmodel import col, func, select

from cds_service.commands.session import prepare
from dermoscopy.tables import OutcomeRow


def outcomes(
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="only images of this day and later")
    ] = None,
    monthly: Annotated[bool, typer.Option("--monthly", help="each month of the images apart")] = False,
) -> None:
    """Print melanoma sensitivity and specificity by model, from histopathology and from reviews, told apart."""
    settings = prepare()
    from cds_service.bootstrap import open_node
    from monitoring.outcomes import REVIEW_WARNING, WARNING, Result, Share, Truth, figures, judged

    def shown(share: Share) -> str:
        if share.value is None or share.interval is None:
            return "none"
        low, high = share.interval
        return f"{share.value:.3f} ({low:.3f} to {high:.3f})"

    node = open_node(settings)
    with node.begin() as session:
        found = figures(judged(session, since=since.replace(tzinfo=UTC) if since else None))
        states = session.execute(select(OutcomeRow.state, func.count()).group_by(col(OutcomeRow.state))).all()
    console = Console(highlight=False)
    console.print("Outcomes: " + (", ".join(f"{number} {state}" for state, number in sorted(states)) or "none yet"))
    headings = ("source", "model", "images of", "melanomas", "flagged", "missed", "abstained")
    table = Table(*headings, "sensitivity (95 %)", "benign", "specificity (95 %)")
    for one in found:
        if bool(one.period) != monthly:
            continue
        results = (Result.FLAGGED, Result.REASSURED, Result.ABSTAINED)
        counted = (one.count(Truth.MELANOMA), *(one.count(Truth.MELANOMA, result) for result in results))
        benign = str(one.count(Truth.BENIGN))
        named = (one.source.value, one.model, one.period or "all")
        table.add_row(*named, *map(str, counted), shown(one.sensitivity), benign, shown(one.specificity))
    if table.row_count:
        console.print(table)
    console.print(WARNING, soft_wrap=True)
    console.print(REVIEW_WARNING, soft_wrap=True)
