"""The pages of logging in and out, and the address that an EHR launches (``/launch?iss=…&launch=…``)."""

from __future__ import annotations

import hmac
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from cds_service.authorization import Gate
from cds_service.login import attempts
from cds_service.login.flow import CALLBACK, LoginFlow
from cds_service.login.refusals import LoginFailed
from cds_service.login.sessions import Sessions
from cds_service.node import Node
from cds_service.web.templating import render
from dermoscopy.settings import Settings

_router = APIRouter(include_in_schema=False)
_SEE_OTHER = 303


def add_login(app: FastAPI, node: Node) -> None:
    """Add the routes to ``app``, and what they need to its state."""
    app.state.sessions = Sessions(node.begin, node.audit, node.settings)
    app.state.login_flow = LoginFlow(node.settings, node.issuers)
    app.state.login_cookie = cookie_name(node.settings)
    app.include_router(_router)


def cookie_name(settings: Settings) -> str:
    """With https the name itself makes the browser insist on Secure and on this very host (RFC 6265bis, 4.1.3.2)."""
    return "__Host-cds" if _secure(settings) else "cds"


@_router.get("/login")
def login_page(request: Request, next_path: Annotated[str, Query(alias="next", max_length=600)] = "") -> HTMLResponse:
    """How one can log in here."""
    return _page(request, attempts.local_path(next_path))


@_router.get("/login/start")
def start(request: Request, next_path: Annotated[str, Query(alias="next", max_length=600)] = "") -> Response:
    """Off to the login provider."""
    flow: LoginFlow = request.app.state.login_flow
    return _depart(request, *flow.begin_login(attempts.local_path(next_path)))


@_router.get("/launch")
def launch(
    request: Request,
    iss: Annotated[str, Query(max_length=2000)] = "",
    launch: Annotated[str, Query(max_length=4000)] = "",
) -> Response:
    """SMART App Launch, EHR launch: off to the EHR's own login."""
    flow: LoginFlow = request.app.state.login_flow
    sessions: Sessions = request.app.state.sessions
    try:
        address, attempt = flow.begin_launch(iss, launch)
    except LoginFailed as failed:
        sessions.fail("launch", "", failed.detail)
        raise
    return _depart(request, address, attempt)


@_router.get(CALLBACK)
def finish(
    request: Request,
    state: Annotated[str, Query(max_length=200)] = "",
    code: Annotated[str, Query(max_length=8000)] = "",
    error: Annotated[str, Query(max_length=200)] = "",
    iss: Annotated[str, Query(max_length=2000)] = "",
) -> Response:
    """Back from the provider."""
    flow: LoginFlow = request.app.state.login_flow
    sessions: Sessions = request.app.state.sessions
    name = _attempt_cookie(request, state)
    attempt = attempts.from_cookie(request.cookies.get(name, "")) if name else None
    how = "launch" if attempt is not None and attempt.ehr else "provider"
    try:
        if attempt is None or not hmac.compare_digest(attempt.state, state):
            raise LoginFailed("This browser did not begin this login, or too long ago: begin again.")
        if error or not code:
            raise LoginFailed("The provider ended the login without letting you in.")
        who, path = flow.finish(attempt, code, iss)
    except LoginFailed as failed:
        sessions.fail(how, flow.named(attempt.ehr) if attempt is not None else "", failed.detail)
        raise
    answer = _logged_in(request, sessions.start(who, how=how), attempts.local_path(path))
    answer.delete_cookie(name, **_cookie(request))
    return answer


@_router.post("/login/token")
def with_token(
    request: Request,
    token: Annotated[str, Form(max_length=1000)] = "",
    next_path: Annotated[str, Form(alias="next", max_length=600)] = "",
) -> Response:
    """An API token in place of a provider."""
    gate: Gate = request.app.state.gate
    sessions: Sessions = request.app.state.sessions
    _same_site(request)
    caller = gate.identify(token.strip()) if token.strip() else None
    if caller is None:
        sessions.fail("token", "", "the token is not known")
        return _page(request, attempts.local_path(next_path), "This token is not known here.", 401)
    return _logged_in(request, sessions.start(caller, how="token"), attempts.local_path(next_path))


@_router.post("/logout")
def logout(request: Request) -> Response:
    """The login ends here; the provider's own may go on."""
    sessions: Sessions = request.app.state.sessions
    name = request.app.state.login_cookie
    _same_site(request)
    if token := request.cookies.get(name):
        sessions.end(token)
    answer = _page(request, "/worklist", "You are logged out here. Close the browser to end your provider's login too.")
    answer.delete_cookie(name, **_cookie(request))
    return answer


def _page(request: Request, next_path: str, told: str = "", status: int = 200) -> HTMLResponse:
    settings: Settings = request.app.state.node.settings
    gate: Gate = request.app.state.gate
    return HTMLResponse(
        render(
            "login.html",
            caller=None,
            told=told,
            wrong=status != 200,
            next=next_path,
            provider=settings.login.name if settings.login else "",
            tokens=bool(settings.api_tokens),
            launches=bool(settings.smart_launch_servers),
            open=gate.open,
        ),
        status,
    )


def _depart(request: Request, address: str, attempt: attempts.Attempt) -> Response:
    answer = RedirectResponse(address, _SEE_OTHER)
    name = f"{request.app.state.login_cookie}-{attempt.state}"
    answer.set_cookie(name, attempt.to_cookie(), max_age=attempts.LIFETIME_SECONDS, **_cookie(request))
    return answer


def _logged_in(request: Request, token: str, path: str) -> Response:
    sessions: Sessions = request.app.state.sessions
    if former := request.cookies.get(request.app.state.login_cookie):
        sessions.end(former)  # one browser, one login: the former one could not be ended by anybody any more
    answer = RedirectResponse(path, _SEE_OTHER)
    answer.set_cookie(request.app.state.login_cookie, token, **_cookie(request))
    return answer


def _attempt_cookie(request: Request, state: str) -> str:
    return f"{request.app.state.login_cookie}-{state}" if attempts.is_state(state) else ""


def _cookie(request: Request) -> attempts.CookieAttributes:
    return {"path": "/", "secure": _secure(request.app.state.node.settings), "httponly": True, "samesite": "lax"}


def _secure(settings: Settings) -> bool:
    return urlsplit(settings.resolved_public_url).scheme == "https"


def _same_site(request: Request) -> None:
    """Nobody logs somebody in or out from another site. Raises `CrossSiteRequest`."""
    from cds_service.web.forms import check_origin

    check_origin(request)
