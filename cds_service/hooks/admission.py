"""Who may call the CDS services: an EHR with a signed token, the bearer of an API token, or anybody if so configured.

Whoever is not let in gets one and the same 401 without a reason; log and audit log have it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Annotated, Final

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials
from starlette.concurrency import run_in_threadpool

from cds_service.api.refusals import NotAuthenticated
from cds_service.authorization import LOCAL, SCHEME, Caller, Gate
from cds_service.hooks.client_trust import ClientTrust, TokenRefused
from cds_service.node import Node
from dermoscopy.ports import AuditEntry
from dermoscopy.settings import Role

log = structlog.get_logger(__name__)

LEAVES_PER_MINUTE: Final = 30
"""Refusals that are written into the audit log, per process; more are counted in the next. The log names them all."""


class Door:
    """Decides who comes in; made once by `cds_service.app.create_app`."""

    def __init__(self, node: Node, gate: Gate, trust: ClientTrust, clock: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._gate = gate
        self._trust = trust
        self._clock = clock
        self._lock = threading.Lock()
        self._minute = clock()
        self._written = 0
        self._unwritten = 0

    def admit(self, token: str | None, path: str, route: str) -> Caller:
        """Who calls ``path``, one of ``route``. Raises `NotAuthenticated`, always with the same words."""
        if self._node.settings.hooks_open:
            return LOCAL
        if token is not None and (known := self._gate.identify(token)) is not None:
            return known
        try:
            if token is None:
                raise TokenRefused("no bearer token")
            if self._trust.empty:
                raise TokenRefused("no known API token, and hooks_clients names no EHR")
            client = self._trust.check(token, f"{self._node.settings.resolved_public_url}{path}")
        except TokenRefused as refused:
            self._note(refused, route)
            raise NotAuthenticated(
                "Not authenticated.", headers={"WWW-Authenticate": 'Bearer realm="dermoscopy"'}
            ) from None
        return Caller(f"{client.name}/{client.tenant}" if client.tenant else client.name, Role.SUBMIT)

    def _note(self, refused: TokenRefused, route: str) -> None:
        log.warning("cds_client.refused", reason=refused.reason, client=refused.client)
        with self._lock:
            if self._clock() - self._minute >= 60.0:
                self._minute, self._written = self._clock(), 0
            if self._written >= LEAVES_PER_MINUTE:
                self._unwritten += 1
                return
            self._written += 1
            more, self._unwritten = self._unwritten, 0
        with self._node.begin() as session:
            self._node.audit.append(
                session,
                AuditEntry(
                    action="cds_client.refused",
                    actor=refused.client or "unknown",
                    subject_type="endpoint",
                    subject_id=route,
                    outcome="failure",
                    details={"reason": refused.reason, "further_unwritten": more},
                ),
            )


async def admit(request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Security(SCHEME)]) -> Caller:
    """Dependency of every CDS endpoint, discovery included. Raises `NotAuthenticated`."""
    door: Door = request.app.state.cds_door
    token, route = (bearer.credentials if bearer else None), request.scope["route"].path
    caller = await run_in_threadpool(door.admit, token, request.url.path, route)
    structlog.contextvars.bind_contextvars(caller=caller.name)
    return caller


CdsCaller = Annotated[Caller, Depends(admit)]
