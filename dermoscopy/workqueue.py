"""Client of the durable engine (DBOS): starts work inside the caller's transaction, knows no workflow code."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from dbos import DBOSClient, EnqueueOptions
from sqlalchemy.orm import Session

APPLICATION = "dermoscopy-cds"
APPLICATION_VERSION = "1"
"""Set explicitly and raised only when a running workflow could not go on in the new code: by default DBOS hashes the
workflow source, and after an upgrade what was in flight would never be recovered."""

ANALYSIS_QUEUE = "analysis"
DELIVERY_QUEUE = "delivery"
AMENDMENT_QUEUE = "amendment"
"""Of its own, so that a clinician's correction never waits behind a day's images or a slow PACS."""
PULL_QUEUE = "pull"
ANALYSE = "analyse"
DELIVER = "deliver"
COMMIT = "commit"
PULL = "pull"
AMEND = "amend"
COMPARE = "compare"
"""Compare an image once more with earlier ones of the lesion, after another of them has come."""
ASK_COMMITMENT = "ask_commitment"
END_COMMITMENT = "end_commitment"
EXPORT = "export"
QUEUE_OF_WORKFLOW = {
    ANALYSE: ANALYSIS_QUEUE,
    DELIVER: DELIVERY_QUEUE,
    COMMIT: DELIVERY_QUEUE,
    PULL: PULL_QUEUE,
    ASK_COMMITMENT: DELIVERY_QUEUE,
    END_COMMITMENT: DELIVERY_QUEUE,
    EXPORT: DELIVERY_QUEUE,
    AMEND: AMENDMENT_QUEUE,
    COMPARE: ANALYSIS_QUEUE,
}


class DurableWorkQueue:
    """`WorkQueue` on DBOS. The database must be migrated before; the client never runs migrations."""

    def __init__(self, engine: sa.Engine) -> None:
        self._client = DBOSClient(system_database_engine=engine, application_name=APPLICATION, lazy=True)

    def start(
        self, session: Session, workflow: str, workflow_id: str, *arguments: str, delay_seconds: float = 0.0
    ) -> None:
        options: EnqueueOptions = {
            "workflow_name": workflow,
            "queue_name": QUEUE_OF_WORKFLOW[workflow],
            "workflow_id": workflow_id,
            "app_version": APPLICATION_VERSION,
        }
        if delay_seconds > 0:
            options["delay_seconds"] = delay_seconds
        self._client.enqueue_in_transaction(session, options, *arguments)

    def close(self) -> None:
        self._client.destroy()


@dataclass(frozen=True, slots=True)
class Work:
    """How far a piece of durable work is."""

    state: str
    """``waiting``, ``running``, ``done`` or ``failed``."""
    arguments: tuple[str, ...]
    result: str
    """What it returned; empty before it is done."""
    asked_at: datetime


_STATES = {"DELAYED": "waiting", "ENQUEUED": "waiting", "PENDING": "running", "SUCCESS": "done"}
_CANCELLED = "CANCELLED"


class WorkRecords:
    """Looks at durable work and removes it; for work whose arguments and result are texts."""

    def __init__(self, engine: sa.Engine) -> None:
        self._client = DBOSClient(system_database_engine=engine, application_name=APPLICATION, lazy=True)

    def find(self, workflow: str, workflow_id: str) -> Work | None:
        """``None`` if there is no such work of this workflow, or it was removed."""
        for one in self._client.list_workflows(workflow_ids=[workflow_id], name=workflow):
            if one.status == _CANCELLED:
                return None
            arguments = tuple(str(argument) for argument in one.input["args"]) if one.input else ()
            asked_at = datetime.fromtimestamp((one.created_at or 0) / 1000, UTC)
            return Work(_STATES.get(one.status, "failed"), arguments, str(one.output or ""), asked_at)
        return None

    def remove(self, workflow_id: str) -> None:
        """Forget it, and stop it first if it is under way; doing so twice changes nothing."""
        self._client.cancel_workflow(workflow_id)
        self._client.delete_workflow(workflow_id)

    def remove_before(self, workflow: str, moment: datetime) -> None:
        """Forget all work of this workflow that was asked for before ``moment``."""
        old = self._client.list_workflows(
            name=workflow, end_time=moment.isoformat(), load_input=False, load_output=False
        )
        if old:
            self._client.delete_workflows([one.workflow_id for one in old])
