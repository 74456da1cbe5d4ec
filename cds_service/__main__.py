"""The command line ``cds``.

Exit codes: 0 done · 1 the answer is no (an analysis failed, drift was found) · 2 wrong usage · 3 wrong configuration ·
4 something is away for the moment, try again · 5 an integrity check failed: stop and look.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cds_service.commands import (
    analyze,
    audit,
    conformance,
    demo,
    drift,
    evaluate,
    export,
    holds,
    models,
    outcomes,
    pull,
    rules,
    train,
)
from cds_service.commands.session import prepare
from dermoscopy.errors import DermoscopyError, IntegrityViolation, Misconfigured, Unavailable

Role = Literal["all", "api", "listener", "worker"]
EXIT_NO, EXIT_MISCONFIGURED, EXIT_UNAVAILABLE, EXIT_INTEGRITY = 1, 3, 4, 5

app = typer.Typer(
    name="cds",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="AI second opinions on dermoscopy for PACS and EHR. A medical device by nature, with weights for research.",
    epilog="Configuration: environment variables CDS_… or the TOML file named by CDS_CONFIG (docs/configuration.md).",
)
app.command()(analyze.analyze)
app.command()(demo.demo)
app.command()(train.train)
app.command()(evaluate.evaluate)
app.command()(drift.drift)
app.command()(pull.pull)
app.command()(outcomes.outcomes)
app.command()(export.export)
app.command()(conformance.conformance)
app.add_typer(models.app, name="models")
app.add_typer(audit.app, name="audit")
app.add_typer(holds.app, name="holds")
app.add_typer(rules.app, name="rules")


@app.command()
def serve(
    role: Annotated[Role, typer.Option(help="one process, or all of them under a supervisor")] = "all",
    number: Annotated[int, typer.Option(help="number of this process within its role", min=0)] = 0,
) -> None:
    """Run the service: HTTP, DICOM listener and workers, until it is stopped."""
    from cds_service import serve as service

    settings = prepare(service=role)
    if role == "all":
        raise typer.Exit(service.supervise(settings))
    service.run_role(role, settings, number)


@app.command()
def migrate() -> None:
    """Create the database or bring it to the present schema. `cds serve` does this by itself."""
    settings = prepare(migrated=False)
    from cds_service.schema import migrate as bring_up
    from dermoscopy.database import create_database_engine

    bring_up(create_database_engine(settings.resolved_database_url))
    Console().print("The database is at the present schema.")


@app.command()
def openapi(
    path: Annotated[Path | None, typer.Argument(help="file to write; standard output if not given")] = None,
) -> None:
    """Write the OpenAPI description of the REST API."""
    import json

    from cds_service.app import create_app
    from cds_service.bootstrap import open_node

    document = json.dumps(create_app(open_node(prepare()), readiness=None, render_metrics=None).openapi(), indent=2)
    if path is None:
        sys.stdout.write(document + "\n")
    else:
        path.write_text(document + "\n", encoding="utf-8")


def main() -> None:
    """Run ``cds``; errors of ours become one plain sentence and an exit code that scripts can trust."""
    try:
        app()
    except DermoscopyError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]cds:[/] {error}", soft_wrap=True)
        raise SystemExit(exit_code(error)) from error


def exit_code(error: DermoscopyError) -> int:
    """Exit code of an error by its type."""
    for kind, code in (
        (Misconfigured, EXIT_MISCONFIGURED),
        (Unavailable, EXIT_UNAVAILABLE),
        (IntegrityViolation, EXIT_INTEGRITY),
    ):
        if isinstance(error, kind):
            return code
    return EXIT_NO


if __name__ == "__main__":
    main()
