"""``cds pull``: fetch patients' earlier images from a PACS or archive."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cds_service.commands.session import prepare
from dermoscopy.domain import PatientIdentity


def pull(
    patient: Annotated[
        str, typer.Option(help="patient id, or - for one per line on standard input: a shell remembers what is typed")
    ] = "",
    patients: Annotated[
        Path | None,
        typer.Option(help="file with one patient id per line; an issuer may follow, after a tab", exists=True),
    ] = None,
    issuer: Annotated[str, typer.Option(help="issuer of the patient ids, or FHIR identifier system")] = "",
    source: Annotated[str, typer.Option("--from", help="name of the PACS or archive, where there are several")] = "",
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="only studies of this day and later")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="count what would be fetched, fetch nothing")] = False,
    store_only: Annotated[bool, typer.Option("--store-only", help="keep what comes, analyse nothing of it")] = False,
) -> None:
    """Fetch a patient's earlier images from the PACS. What is here already is not fetched again.

    By C-MOVE they come to our listener, which must run. Prints numbers, never a patient id.
    """
    if bool(patient) == (patients is not None):
        raise typer.BadParameter("give --patient ID, --patient - (standard input) or --patients FILE")
    if patients is not None:
        wanted = list(read_patients(patients.read_text(encoding="utf-8"), issuer))
    elif patient == "-":
        wanted = list(read_patients(sys.stdin.read(), issuer))
    else:
        wanted = [(patient.strip(), issuer)]
    if not wanted:
        raise typer.BadParameter("there is no patient id in it")
    settings = prepare()
    from cds_service.bootstrap import open_node
    from cds_service.pull import Asked
    from cds_service.pull import pull as fetch

    node = open_node(settings)
    day = since.date().isoformat().replace("-", "") if since else ""  # strftime pads no years
    told = Table("patient", "found", "here", "ours", "taken", "held", "failed", "misfiled", "others' studies")
    complete = True
    try:
        for number, (patient_id, patient_issuer) in enumerate(wanted, 1):
            identity = PatientIdentity(patient_issuer, patient_id)
            asked = Asked(identity, source, day, dry_run=dry_run, store_only=store_only)
            done = fetch(node, asked, actor=getpass.getuser())
            counts = (done.found, done.known, done.own, done.taken, done.held, done.failed, done.misfiled)
            told.add_row(f"{number} of {len(wanted)}", *map(str, counts), str(done.other_patient))
            complete = complete and done.complete
    finally:
        if told.row_count:
            Console().print(told)
    if not complete:
        Console(stderr=True, highlight=False).print("Not everything came, or not only what was asked for: see the log.")
        raise typer.Exit(1)


def read_patients(text: str, issuer: str) -> Iterator[tuple[str, str]]:
    """(patient id, issuer) of each line that is not empty; ``issuer`` where the line names none after a tab."""
    for line in text.splitlines():
        patient_id, _, named = line.partition("\t")
        if patient_id.strip():
            yield patient_id.strip(), named.strip() or issuer
