"""Client of the durable engine (DBOS): starts work inside the caller's transaction, knows no workflow code."""

from __future__ import annotations

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
QUEUE_OF_WORKFLOW = {
    ANALYSE: ANALYSIS_QUEUE,
    DELIVER: DELIVERY_QUEUE,
    COMMIT: DELIVERY_QUEUE,
    PULL: PULL_QUEUE,
    ASK_COMMITMENT: DELIVERY_QUEUE,
    END_COMMITMENT: DELIVERY_QUEUE,
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
