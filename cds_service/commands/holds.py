"""``cds holds``: what waits for a person, and what the person decides."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from sqlmodel import col, select

from cds_service.commands.session import prepare
from dermoscopy.domain import PatientIdentity
from dermoscopy.tables import HoldRow, InstanceRow

app = typer.Typer(no_args_is_help=True, help="List and decide what is held for a person.")


@app.command("list")
def list_holds() -> None:
    """List what is held, oldest first."""
    from cds_service.bootstrap import open_node

    node = open_node(prepare())
    with node.begin() as session:
        waiting = select(HoldRow).where(col(HoldRow.resolved_at).is_(None)).order_by(col(HoldRow.created_at))
        rows = session.execute(waiting).scalars().all()
    table = Table("hold", "kind", "since", "reason")
    for row in rows:
        table.add_row(row.id, row.kind, f"{row.created_at:%Y-%m-%d %H:%M}", row.reason)
    Console().print(table if rows else "Nothing is held.")


@app.command("send-again")
def send_again(
    hold: Annotated[str, typer.Argument(help="id of the hold of one delivery")] = "",
    destination: Annotated[str, typer.Option(help="all that is held on its way to this destination")] = "",
) -> None:
    """Send held deliveries again: one, or all of one destination. The decision is kept in the audit log."""
    if bool(hold) == bool(destination):
        raise typer.BadParameter("give either the id of a hold or --destination")
    from cds_service import deliveries
    from cds_service.bootstrap import open_node

    node = open_node(prepare())
    by = getpass.getuser()
    if destination:
        sent = deliveries.send_again_to(node, destination, by=by, resolution="send_again")
    else:
        deliveries.send_again(node, hold, by=by, resolution="send_again")
        sent = 1
    Console().print(f"{sent} {'delivery is' if sent == 1 else 'deliveries are'} sent again.")


@app.command()
def resolve(
    hold: Annotated[str, typer.Argument(help="id of the hold")],
    patient: Annotated[str, typer.Option(help="whose image it is: patient id")] = "",
    issuer: Annotated[str, typer.Option(help="issuer of the patient id, or FHIR identifier system")] = "",
    dismiss: Annotated[
        bool, typer.Option("--dismiss", help="leave an image unanalysed, or a delivery unsent, for good")
    ] = False,
) -> None:
    """Decide about what is held: name the patient of an image, or dismiss it. The decision is kept in the audit log."""
    if dismiss == bool(patient):
        raise typer.BadParameter("give either --patient or --dismiss")
    from cds_service import holding
    from cds_service.bootstrap import open_node

    node = open_node(prepare())
    identity = None if dismiss else PatientIdentity(node.issuers.issuer_of(issuer), patient)
    said = "dismissed" if dismiss else "patient named"
    by = getpass.getuser()
    with node.begin() as session:
        row = session.get(HoldRow, hold)
        of_an_image = row is None or session.get(InstanceRow, row.subject_id) is not None
    if dismiss and not of_an_image:
        holding.dismiss(node, hold, by=by, resolution=said)
        receipt = None
    else:
        receipt = node.intake.resolve_hold(hold, by=by, patient=identity, resolution=said)
    Console().print("Dismissed." if receipt is None else f"Analysis {receipt.analysis_id} is under way.")
