"""``cds audit``: prove that the audit log is whole, or say which row is not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cds_service.bootstrap import WITNESS
from cds_service.commands.session import prepare
from dermoscopy.errors import AuditLogTampered

app = typer.Typer(no_args_is_help=True, help="Verify and export the tamper-evident audit log.")


@app.command()
def verify(
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            help="tree heads kept outside the database; the copy in the data folder if not given", exists=True
        ),
    ] = None,
) -> None:
    """Check every row, its place and every signed tree head. Exit code 5 names what was changed."""
    settings = prepare()
    from audit.checkpoint import public_keys, read_checkpoints
    from audit.sequencer import sequence_all
    from audit.verify import verify as check
    from cds_service.bootstrap import audit_folder, open_audit_signer
    from dermoscopy.database import create_database_engine

    engine = create_database_engine(settings.resolved_database_url)
    folder = audit_folder(settings)
    kept = folder / WITNESS
    sequence_all(engine, open_audit_signer(settings), witness=kept)
    witness = checkpoints or kept
    external = read_checkpoints(witness) if witness.exists() else ()
    result = check(engine, public_keys(folder), external=external)
    console = Console(highlight=False)
    if result.ok:
        console.print(
            f"The audit log is whole: {result.size} entries, {result.checkpoints} signed tree heads, "
            f"{result.pending} waiting for their place.\nRoot {result.root_hash}"
        )
        return
    table = Table("what", "position", "entry", "detail", title="The audit log was changed")
    for problem in result.problems:
        position = "" if problem.position is None else str(problem.position)
        table.add_row(problem.kind.value, position, problem.leaf_id or "", problem.message)
    console.print(table)
    count = len(result.problems) + result.more_problems
    raise AuditLogTampered(f"{count} problems in the audit log: keep a copy as it is and call your compliance officer")


@app.command()
def export(
    path: Annotated[Path, typer.Argument(help="JSON lines file to write")],
    proofs: Annotated[bool, typer.Option("--proofs", help="add an inclusion proof to each entry")] = False,
    patients: Annotated[bool, typer.Option(help="keep who the patient is, or leave it out")] = True,
) -> None:
    """Write every entry as JSON lines, with proofs that a third party can check."""
    settings = prepare()
    from audit.export import export as write
    from dermoscopy.database import create_database_engine

    count = -1  # the first line is the signed tree head
    with path.open("w", encoding="utf-8") as file:
        for line in write(create_database_engine(settings.resolved_database_url), proofs=proofs, patients=patients):
            file.write(line + "\n")
            count += 1
    Console().print(f"{max(count, 0)} entries written to {path}.")
