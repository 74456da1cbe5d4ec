"""``cds export``: images for research or training, without anybody's identity."""

from __future__ import annotations

import getpass
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from cds_service.commands.session import prepare

_NAMED = 20
"""So many images that a person may approve are named; the record in the data folder has all."""


def export(
    to: Annotated[Path, typer.Option("--to", help="folder to write, new or empty", file_okay=False)],
    deidentify: Annotated[
        bool, typer.Option("--deidentify", help="say it: nothing is exported with a patient's identity")
    ] = False,
    project: Annotated[
        str, typer.Option(help="whose key makes the pseudonyms; the same project gives the same pseudonyms")
    ] = "default",
    format: Annotated[
        Literal["dicom", "png"], typer.Option(help="png: pictures; dicom: DICOM objects beside them")
    ] = "png",
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="only images received on this day (UTC) or later")
    ] = None,
    site: Annotated[str, typer.Option(help="only images of this body site (SNOMED CT code)")] = "",
    reviewed_only: Annotated[
        bool, typer.Option("--reviewed-only", help="only images that a clinician confirmed or corrected")
    ] = False,
    retain_patient: Annotated[
        bool, typer.Option("--retain-patient", help="keep age (90 at most), sex, size and weight")
    ] = False,
    retain_device: Annotated[
        bool, typer.Option("--retain-device", help="keep maker, model, serial number, software and station")
    ] = False,
    include: Annotated[
        list[str] | None,
        typer.Option(help="id of an image, or of its analysis, that you looked at and approve; may be repeated"),
    ] = None,
) -> None:
    """Export images under pseudonyms, with labels and a manifest (DICOM PS3.15 Annex E). In doubt nothing leaves."""
    if not deidentify:
        raise typer.BadParameter("there is no other export than --deidentify: say it, and see docs/deidentification.md")
    settings = prepare()
    from cds_service.bootstrap import open_node
    from cds_service.export import RECORDS, Asked, approvable
    from cds_service.export import export as write
    from cds_service.export_gate import WORDS
    from dicom_listener.deidentify_table import Retained

    asked = Asked(
        folder=to,
        project=project,
        form=format,
        since=since.replace(tzinfo=UTC) if since else None,
        site=site,
        reviewed_only=reviewed_only,
        include=frozenset(include or ()),
        retained=Retained(patient=retain_patient, device=retain_device),
    )
    done = write(open_node(settings), asked, actor=getpass.getuser())
    console = Console(highlight=False)
    console.print(
        f"{done.images} images of {done.patients} patients are in {to}; {done.labelled} have a label. "
        f"{len(done.approved)} of them left on your word.\nManifest SHA-256 {done.digest}",
        soft_wrap=True,
    )
    if done.kept_back:
        table = Table("kept back", "images", "why")
        for reason, count in Counter(one.reason for one in done.kept_back).most_common():
            table.add_row(reason, str(count), WORDS[reason])
        console.print(table)
    doubtful = list(approvable(done.kept_back))
    for one in doubtful[:_NAMED]:
        page = (
            f"{settings.resolved_public_url}/analyses/{one.analysis_id}" if one.analysis_id else "it was never analysed"
        )
        console.print(f"{one.reason}: {page}; --include {one.instance_id} approves it", soft_wrap=True)
    if doubtful:
        record = settings.data_dir / RECORDS / f"{done.digest[:16]}.json"
        console.print(f"All that was kept back: {record}", soft_wrap=True)
