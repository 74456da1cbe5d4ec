"""A patient's earlier images fetched from a PACS on request; see `cds_service.pull`."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from cds_service.api.refusals import problems
from cds_service.api.stored import node_of
from cds_service.api.uploads import PLAIN, PatientReference
from cds_service.authorization import Submitter
from cds_service.pull import Asked, pull

router = APIRouter(prefix="/api/v1/pulls", tags=["pulls"])


class PullRequest(BaseModel):
    """Whose images, from where."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    patient: PatientReference
    source: Annotated[str, Field(max_length=100, pattern=PLAIN)] = Field(
        default="", description="Name of a PACS or archive in the settings; needed where there are several"
    )
    since: date | None = Field(default=None, description="Only studies of this day and later")
    dry_run: bool = Field(default=False, description="Look, fetch nothing")
    store_only: bool = Field(default=False, description="Keep what comes, analyse nothing of it")


class PullAnswer(BaseModel):
    """What was found and what has come, in objects."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    found: int
    known: int = Field(description="Here already, not fetched again")
    own: int = Field(description="Results of this service, never fetched")
    taken: int
    held: int = Field(description="Taken in and held for a person")
    failed: int = Field(description="Asked for and not here: not sent, or refused")
    misfiled: int = Field(description="Sent under another patient; kept under the one that they name")
    other_patient: int = Field(description="Studies of other patients in the answer; not followed")
    complete: bool = Field(description="All that was found is here (or was only looked for), and nothing was another's")


@router.post("", summary="Pull earlier images", responses=problems(400, 401, 403, 413, 421, 422, 500, 503))
def pull_images(request: Request, caller: Submitter, wanted: PullRequest) -> PullAnswer:
    """Answers when it is done, which may take minutes. Asking again fetches only what is still missing."""
    done = pull(
        node_of(request),
        Asked(
            wanted.patient.identity(),
            wanted.source,
            wanted.since.isoformat().replace("-", "") if wanted.since else "",
            dry_run=wanted.dry_run,
            store_only=wanted.store_only,
        ),
        actor=caller.name,
    )
    return PullAnswer(
        found=done.found,
        known=done.known,
        own=done.own,
        taken=done.taken,
        held=done.held,
        failed=done.failed,
        misfiled=done.misfiled,
        other_patient=done.other_patient,
        complete=done.complete,
    )
