"""Which cards a user has had: the same finding is not shown twice to the same user in one encounter.

Where no encounter is named, the same UTC day stands for it. Kept is a hash of client, FHIR server, user, encounter and
what the card says, never the parts. A repeat of a call (the same ``hookInstance``) gets its cards again, and whatever
changed (a new result, an amended one) has another key. `Told.alone` and `Told.always` say what is not silenced.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlmodel import SQLModel, col

from cds_service.authorization import Caller
from cds_service.hooks.calls import Told
from cds_service.hooks.messages import HookRequest
from dermoscopy.tables import CardShownRow, utc_now

_TABLE = SQLModel.metadata.tables["card_shown"]
_CLEAN_EVERY: Final = timedelta(minutes=10)


class ShownCards:
    """Remembers for ``days``; 0 silences nothing. Safe to use from many threads and processes."""

    def __init__(self, days: int, clock: Callable[[], datetime] = utc_now) -> None:
        self._days = days
        self._clock = clock
        self._lock = threading.Lock()
        self._cleaned = clock()

    def unseen(
        self, session: Session, caller: Caller, service: str, request: HookRequest, told: Sequence[Told]
    ) -> list[Told]:
        """Those of ``told`` that this user has not had, in their order; they count as shown from now on."""
        if not told:
            return []
        now = self._clock()
        self._clean(session, now)
        context = request.context
        scope = (caller.name, request.fhir_server or "", context.user_id, context.encounter or f"{now:%Y-%m-%d}")
        instance = _digest(str(request.hook_instance))
        keys = [_digest(*scope, context.patient, service if one.alone or one.always else "", one.key) for one in told]
        values = {
            key: {
                "id": key,
                "card": one.card.uuid,
                "service": service,
                "analysis_id": one.analysis_id,
                "hook_instance": instance,
                "shown_at": now,
                "expires_at": now + timedelta(days=max(self._days, 1)),
            }
            for key, one in zip(keys, told, strict=True)
        }
        postgres = session.get_bind().dialect.name == "postgresql"
        insert = postgresql.insert(_TABLE) if postgres else sqlite.insert(_TABLE)
        # in one order, so that two calls at once wait for each other instead of locking each other out
        session.execute(insert.on_conflict_do_nothing(), [values[key] for key in sorted(values)])
        wanted = sa.select(_TABLE.c.id, _TABLE.c.hook_instance, _TABLE.c.expires_at).where(_TABLE.c.id.in_(keys))
        known = {row.id: row for row in session.execute(wanted)}  # less what another call cleaned away in this moment
        late = [key for key, row in known.items() if row.expires_at <= now]
        for key in late:
            session.execute(sa.update(_TABLE).where(_TABLE.c.id == key).values(values[key]))
        return [
            one
            for key, one in zip(keys, told, strict=True)
            if one.always or self._days == 0 or key in late or key not in known or known[key].hook_instance == instance
        ]

    def _clean(self, session: Session, now: datetime) -> None:
        with self._lock:
            if now - self._cleaned < _CLEAN_EVERY:
                return
            self._cleaned = now
        session.execute(sa.delete(CardShownRow).where(col(CardShownRow.expires_at) < now))


def _digest(*parts: str) -> str:
    return sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
