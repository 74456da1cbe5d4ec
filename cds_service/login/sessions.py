"""Who is logged in: rows of the database, found by the hash of a cookie. The cookie's value is kept nowhere here."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlmodel import col

from cds_service.authorization import Caller
from dermoscopy.database import UnitOfWork
from dermoscopy.domain import PatientIdentity
from dermoscopy.ports import AuditEntry, AuditLog, JsonValue
from dermoscopy.settings import Role, Settings
from dermoscopy.tables import LoginRow, utc_now

_NOTE_EVERY = timedelta(minutes=1)
LEAVES_PER_MINUTE: Final = 30
"""Failed logins that are written into the audit log, per process; more are counted in the next."""


class Sessions:
    """Starts, finds and ends logins; each start, failure and end leaves a leaf in the audit log."""

    def __init__(
        self, begin: UnitOfWork, audit: AuditLog, settings: Settings, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._begin = begin
        self._audit = audit
        self._idle = timedelta(minutes=settings.session_idle_minutes)
        self._longest = timedelta(hours=settings.session_hours)
        self._tokens = {token.name: token.role for token in settings.api_tokens}
        self._clock = clock
        self._lock = threading.Lock()
        self._minute = clock()
        self._written = self._unwritten = 0

    def start(self, who: Caller, *, how: str) -> str:
        """Log ``who`` in; the value for the cookie. ``how``: ``provider``, ``launch`` or ``token``."""
        token, now = secrets.token_urlsafe(32), self._clock()
        patients = [[p.issuer, p.patient_id] for p in who.patients] if who.patients is not None else None
        with self._begin() as session:
            session.execute(sa.delete(LoginRow).where(_over(now, self._idle)))
            session.add(
                LoginRow(
                    id=_digest(token),
                    name=who.name,
                    full_name=who.full_name,
                    role=who.role.value,
                    patients=json.dumps(patients) if patients is not None else "",
                    created_at=now,
                    seen_at=now,
                    expires_at=now + self._longest,
                )
            )
            self._append_leaf(session, "login.succeeded", who.name, how, {"role": who.role.value}, who.patients)
        return token

    def find(self, token: str) -> Caller | None:
        """Who is logged in with this cookie; ``None`` if nobody is, or not any more."""
        if not 0 < len(token) <= 100:
            return None
        now = self._clock()
        with self._begin() as session:
            row = session.get(LoginRow, _digest(token))
            if row is None or row.expires_at <= now or row.seen_at + self._idle <= now:
                return None
            if "|" not in row.name and self._tokens.get(row.name) is not Role(row.role):
                return None  # came in by an API token that the settings no longer hold, or not with this role
            if now - row.seen_at >= min(_NOTE_EVERY, self._idle / 4):
                row.seen_at = now
            patients = tuple(PatientIdentity(i, p) for i, p in json.loads(row.patients)) if row.patients else None
            return Caller(row.name, Role(row.role), row.full_name, patients, form_key(token))

    def end(self, token: str) -> None:
        """Log out; doing it twice changes nothing."""
        with self._begin() as session:
            row = session.get(LoginRow, _digest(token))
            if row is not None:
                self._append_leaf(session, "login.ended", row.name, "logout", {}, None)
                session.delete(row)

    def fail(self, how: str, provider: str, reason: str) -> None:
        """Note that somebody was not let in; ``reason`` holds nothing that the person typed."""
        with self._lock:
            if self._clock() - self._minute >= timedelta(minutes=1):
                self._minute, self._written = self._clock(), 0
            if self._written >= LEAVES_PER_MINUTE:
                self._unwritten += 1
                return
            self._written += 1
            more, self._unwritten = self._unwritten, 0
        details: dict[str, JsonValue] = {"provider": provider, "reason": reason, "further_unwritten": more}
        with self._begin() as session:
            self._append_leaf(session, "login.failed", "unknown", how, details, None)

    def _append_leaf(
        self,
        session: sa.orm.Session,
        action: str,
        actor: str,
        how: str,
        details: dict[str, JsonValue],
        patients: tuple[PatientIdentity, ...] | None,
    ) -> None:
        whose = patients[0] if patients else PatientIdentity("", "")
        self._audit.append(
            session,
            AuditEntry(
                action=action,
                actor=actor,
                subject_type="login",
                subject_id=how,
                outcome="failure" if action == "login.failed" else "success",
                patient_issuer=whose.issuer,
                patient_id=whose.patient_id,
                details={"how": how, **details},
            ),
        )


def form_key(token: str) -> str:
    """What forms of this login carry back: only a page that was read with the cookie can know it."""
    return hashlib.sha256(b"form\n" + token.encode()).hexdigest()


def _digest(token: str) -> str:
    return hashlib.sha256(b"login\n" + token.encode("utf-8", "surrogateescape")).hexdigest()


def _over(now: datetime, idle: timedelta) -> sa.ColumnElement[bool]:
    return sa.or_(col(LoginRow.expires_at) <= now, col(LoginRow.seen_at) <= now - idle)
