"""FHIR servers asked again and again for pathology: one worker at a time, from where the last question ended.

The cursor moves only after everything before it is recorded, and each question goes back a little, since a server may
commit late what it stamped early; what comes twice changes nothing. A server that is away is asked again after pauses
that double; one that refuses is asked on, and a person is told.
"""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, time, timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, col

from cds_service.fhir_servers import outcome_source
from cds_service.node import Node
from cds_service.outcomes import Arrival, record
from cds_service.steps import hold
from dermoscopy.errors import DermoscopyError, Unavailable
from dermoscopy.settings import OutcomeServer
from dermoscopy.tables import InstanceRow, OutcomeCursorRow, utc_now
from fhir_adapters.outcome_search import OutcomeSource
from fhir_adapters.pathology import Told, read_outcomes

log = structlog.get_logger(__name__)
_CURSORS = SQLModel.metadata.tables["outcome_cursor"]

TICK_SECONDS = 1.0
OVERLAP = timedelta(seconds=60)
LEASE = timedelta(minutes=15)
HOLD = "outcome_server"
_LONGEST_PAUSE = 3600.0


class OutcomePolls:
    """Asks, in a worker."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._sources: dict[str, OutcomeSource] = {}

    def run(self, stopping: threading.Event) -> None:
        """Ask whatever is due until ``stopping`` is set."""
        while not stopping.wait(TICK_SECONDS):
            try:
                self.ask_due()
            except sa.exc.OperationalError as error:
                log.warning("outcomes.poll_postponed", error=type(error).__name__)
        self.close()

    def close(self) -> None:
        """Close the connections that are kept open between questions."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()

    def ask_due(self) -> int:
        """Ask every server that is due and that no other worker is asking; how many questions were made."""
        asked = 0
        for server in self._node.settings.outcome_servers:
            for kind in server.resources:
                try:
                    asked += self._ask_if_due(server, kind)
                except sa.exc.OperationalError:
                    raise
                except Exception as error:
                    log.exception("outcomes.poll_broke", server=server.name, resource_type=kind)
                    self._failed(server, kind, f"internal error ({type(error).__name__}): see the log", wait=None)
        return asked

    def _ask_if_due(self, server: OutcomeServer, kind: str) -> bool:
        key = _cursor_id(server, kind)
        with self._node.begin() as session:
            _first(session, key)
            now = utc_now()
            claimed = session.execute(
                sa.update(OutcomeCursorRow)
                .where(
                    col(OutcomeCursorRow.id) == key,
                    col(OutcomeCursorRow.due_at) <= now,
                    sa.or_(col(OutcomeCursorRow.leased_until).is_(None), col(OutcomeCursorRow.leased_until) < now),
                )
                .values(leased_until=now + LEASE)
                .returning(col(OutcomeCursorRow.cursor))
            ).first()
            if claimed is None:
                return False
            since = claimed[0] or _start(session, server)
        try:
            newest, whole, count = self._ask(server, kind, since)
        except Unavailable as error:
            self._failed(server, kind, str(error), wait=error.retry_after)
        except DermoscopyError as error:
            self._failed(server, kind, str(error), wait=None, refused=True)
        else:
            with self._node.begin() as session:
                row = session.get_one(OutcomeCursorRow, key, with_for_update=True)
                row.cursor = max(one for one in (newest, row.cursor, since) if one is not None)
                row.polled_at, row.failures, row.last_error, row.leased_until = utc_now(), 0, "", None
                asked_meanwhile = row.due_at > now
                row.due_at = row.due_at if asked_meanwhile else utc_now() + timedelta(seconds=server.seconds)
                if not whole:
                    row.due_at = utc_now()
            log.info("outcomes.polled", server=server.name, resource_type=kind, resources=count, whole=whole)
        return True

    def _ask(self, server: OutcomeServer, kind: str, since: datetime) -> tuple[datetime | None, bool, int]:
        if server.name not in self._sources:
            self._sources[server.name] = outcome_source(server)
        source = self._sources[server.name]
        # the cursor itself may be re-read without end where a page is full of what is known: then no step back
        page = source.changed(kind, since - OVERLAP, server.parameters)
        if not page.whole and page.newest is not None and page.newest <= since:
            page = source.changed(kind, since, server.parameters)
        more = source.referred(page.resources)
        arrival = Arrival(origin=server.name, way="poll", caller=f"poll:{server.name}")
        for resource in page.resources:
            body = json.dumps(resource, separators=(",", ":"), ensure_ascii=False).encode()
            for told in read_outcomes(resource, more, source.base):
                if isinstance(told, Told):
                    record(self._node, told, body, arrival)
        return page.newest, page.whole, len(page.resources)

    def _failed(
        self, server: OutcomeServer, kind: str, reason: str, *, wait: float | None, refused: bool = False
    ) -> None:
        key = _cursor_id(server, kind)
        with self._node.begin() as session:
            row = session.get_one(OutcomeCursorRow, key, with_for_update=True)
            row.failures, row.last_error, row.leased_until = row.failures + 1, reason, None
            pause = max(wait or 0.0, min(_LONGEST_PAUSE, server.seconds * 2 ** min(row.failures - 1, 10)))
            row.due_at = utc_now() + timedelta(seconds=pause)
            if refused or row.failures >= 5:
                hold(session, HOLD, key, f"{server.name} is asked for {kind} in vain: {reason}")
        log.warning("outcomes.poll_failed", server=server.name, resource_type=kind, reason=reason, pause=pause)


def ask_soon(node: Node) -> None:
    """Have every server asked at the next moment: one of them said that there is something new."""
    with node.begin() as session:
        session.execute(sa.update(OutcomeCursorRow).values(due_at=utc_now()))


def _cursor_id(server: OutcomeServer, kind: str) -> str:
    return f"{server.name}|{kind}"


def _first(session: Session, key: str) -> None:
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    values = {"id": key, "due_at": utc_now(), "failures": 0, "last_error": ""}
    session.execute(insert(_CURSORS).values(values).on_conflict_do_nothing())


def _start(session: Session, server: OutcomeServer) -> datetime:
    """Where the first question begins: nothing that was reported before our first image can be about it."""
    if server.since is not None:
        return datetime.combine(server.since, time(), UTC)
    oldest = session.execute(sa.select(sa.func.min(col(InstanceRow.received_at)))).scalar()
    return oldest or utc_now()
