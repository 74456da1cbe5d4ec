"""Who may do what: bearer tokens with roles (RFC 6750), people who logged in, and who may ask an open service at all.

A login (a cookie, `cds_service.login`) counts for the pages alone; the APIs take tokens. Without tokens and logins
(`Settings` allows that on loopback only) everything is open to this machine. A web page of another site must then not
reach it through the browser: the Host header has to be our own (DNS rebinding) and an Origin too (CSRF).
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Annotated, Any
from urllib.parse import urlsplit

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from cds_service.api.refusals import CrossSiteRequest, LoginNeeded, Misdirected, NotAllowed, NotAuthenticated
from dermoscopy.domain import PatientIdentity
from dermoscopy.settings import ApiToken, Role, Settings, is_loopback

_RANK = {Role.READ: 0, Role.SUBMIT: 1, Role.REVIEW: 2, Role.ADMIN: 3}
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_ENDED = (
    "Your login has ended, so nothing was recorded. Log in again in another window (/login), then come back here with "
    "the browser's Back button and send it again."
)
SCHEME = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="An API token of the settings; each has a role (read, submit, review, admin)",
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the audit log names it."""

    name: str
    """Name of the API token, or ``issuer|subject`` of the login."""
    role: Role
    full_name: str = ""
    """The person's name, for people; empty where it is not known."""
    patients: tuple[PatientIdentity, ...] | None = None
    """The only patients whose data this caller may see (an EHR launch is for one patient); ``None``: any."""
    form_key: str = field(default="", repr=False)
    """What a form of this person's pages carries back (CSRF); empty without a login."""

    def may_see(self, patient: PatientIdentity) -> bool:
        return self.patients is None or patient in self.patients


LOCAL = Caller("local", Role.ADMIN)
"""Whoever is on this machine, when no tokens are configured."""


def allows(caller: Caller, role: Role) -> bool:
    """Whether the caller has ``role`` or more."""
    return _RANK[caller.role] >= _RANK[role]


def highest(roles: Iterable[Role]) -> Role | None:
    """The role with the most rights; ``None`` of none."""
    return max(roles, key=lambda role: _RANK[role], default=None)


class Gate:
    """Knows the tokens; made once by `cds_service.app.create_app`."""

    def __init__(self, tokens: Sequence[ApiToken], *, people: bool = False) -> None:
        """``people``: whether they can log in, so that the service is not open without tokens either."""
        self._people = people
        self._known = [(sha256(t.token.get_secret_value().encode()).digest(), Caller(t.name, t.role)) for t in tokens]

    @property
    def open(self) -> bool:
        """Whether neither tokens nor logins are configured."""
        return not self._known and not self._people

    def identify(self, token: str) -> Caller | None:
        """The bearer of ``token``; every known token is compared, in constant time."""
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, caller in self._known:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


def _basic_password(header: str) -> str | None:
    """Password of Basic credentials (RFC 7617), so that a browser can open a page with a token as password."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2] or None
    except (binascii.Error, UnicodeDecodeError):
        return None


def require(role: Role) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """Dependency that lets callers with ``role`` or more pass. Raises `NotAuthenticated` or `NotAllowed`."""

    async def check(
        request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Security(SCHEME)]
    ) -> Caller:
        gate: Gate = request.app.state.gate
        if gate.open:
            return LOCAL
        page = not request.url.path.startswith(("/api/", "/cds-services", "/dicom-web/", "/fhir"))
        safe = request.method in _SAFE
        token = bearer.credentials if bearer else None
        if token is None and safe:
            token = _basic_password(request.headers.get("authorization", ""))
        caller = gate.identify(token) if token else None
        if caller is None and page and (cookie := request.cookies.get(request.app.state.login_cookie)):
            caller = await run_in_threadpool(request.app.state.sessions.find, cookie)
            if caller is None:
                raise LoginNeeded(_ENDED)
        if caller is None:
            challenge = 'Basic realm="dermoscopy", charset="UTF-8"' if page and safe else 'Bearer realm="dermoscopy"'
            refused = LoginNeeded if page else NotAuthenticated
            raise refused(
                "Send a known token in the Authorization header (Bearer), or log in with a browser.",
                headers={"WWW-Authenticate": challenge},
            )
        structlog.contextvars.bind_contextvars(caller=caller.name)
        if not allows(caller, role):
            raise NotAllowed(
                f"This needs the role {role.value}; {'your login' if caller.form_key else 'the token'} has the role "
                f"{caller.role.value}.",
                headers={
                    "WWW-Authenticate": f'Bearer realm="dermoscopy", error="insufficient_scope", scope="{role.value}"'
                },
            )
        return caller

    return check


Reader = Annotated[Caller, Depends(require(Role.READ))]
Submitter = Annotated[Caller, Depends(require(Role.SUBMIT))]
Reviewer = Annotated[Caller, Depends(require(Role.REVIEW))]
Administrator = Annotated[Caller, Depends(require(Role.ADMIN))]


class OpenService:
    """Which Host and Origin headers an open loopback service answers."""

    def __init__(self, settings: Settings) -> None:
        public = urlsplit(settings.resolved_public_url)
        self._public_host = (public.hostname or "").lower()
        self._public_origin = f"{public.scheme}://{public.netloc}".lower()
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.cors_origins)

    def check(self, method: str, scheme: str, host: str, origin: str, fetch_site: str) -> None:
        """Raises `Misdirected` for a foreign Host, `CrossSiteRequest` for a change asked by a foreign page."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            name = ""
        if not (is_loopback(name) or (name and name == self._public_host)):
            raise Misdirected("This service answers to its own name only; set CDS_PUBLIC_URL to the name you use.")
        if method in _SAFE:
            return
        own = {f"{scheme}://{host}".lower(), self._public_origin} | self._origins
        if (origin and origin.lower() not in own) or (not origin and fetch_site == "cross-site"):
            raise CrossSiteRequest(
                "A page of another site may not change anything here; CDS_CORS_ORIGINS names exceptions."
            )
