"""``cds rules``: what the routing rules would do with an object, and why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cds_service.commands.session import prepare

app = typer.Typer(no_args_is_help=True, help="Try the routing rules of the configuration file.")


@app.callback()
def rules() -> None:
    """Try the routing rules of the configuration file."""


@app.command("test")
def try_file(
    file: Annotated[Path, typer.Argument(help="a DICOM file", exists=True, dir_okay=False)],
    calling_ae: Annotated[str, typer.Option("--calling-ae", help="AE title that would send it")] = "",
) -> None:
    """Say what would happen with a DICOM file if it were sent now, and why. Nothing is kept or sent."""
    settings = prepare(migrated=False)
    from cds_service.listening import rules as configured
    from dermoscopy.domain import ArtifactKind
    from dermoscopy.routing import OUTPUTS
    from dicom_listener.header import read_header_and_facts
    from dicom_listener.rules import CONDITIONS

    known = configured(settings)
    facts = read_header_and_facts(file.read_bytes(), None)[1]
    facts = replace(facts, calling_ae=(calling_ae,) if calling_ae else ())
    decision = known.decide(facts)
    console = Console(highlight=False)
    said = Table("fact", "values", title=file.name)
    for condition in CONDITIONS:
        said.add_row(condition, ", ".join(getattr(facts, condition)) or "absent")
    console.print(said)
    for step in decision.steps:
        console.print(f"{'takes it ' if step.holds else 'passes on'}  {step.rule}: {step.why}", markup=False)
    route = decision.route
    console.print(f"\nAction: {route.action.value}, by {route.rule or 'no rule: so it is by default'}", markup=False)
    if route.action.value != "analyse":
        return
    places = [(d.name, "FHIR") for d in settings.fhir]
    places += [(name, "PACS") for name in [*(d.name for d in settings.pacs), *(d.name for d in settings.stow)]]
    outputs = [o for o in OUTPUTS if o is not ArtifactKind.SOURCE]  # the PACS has what came as DICOM
    for name, kind in places:
        taken = [o.value for o in outputs if route.sends(o, name) and (o.value == "fhir_bundle") == (kind == "FHIR")]
        console.print(f"{kind} {name} gets: {', '.join(taken) or 'nothing'}", markup=False)
    if not places:
        console.print("No destination is configured: results stay here.")
