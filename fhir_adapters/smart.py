"""Access tokens by SMART Backend Services: this service proves itself by a signature, no person is asked.

https://hl7.org/fhir/smart-app-launch/backend-services.html: a client assertion (RFC 7523) signed by our private key is
exchanged for a short-lived token at the authorization server that the FHIR server names. Neither assertion nor token
appears in an error, log or trace, and of what the authorization server says only its error code is repeated.
"""

from __future__ import annotations

import math
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
import structlog
from pydantic import SecretStr

from dermoscopy.errors import DestinationUnavailable, Rejected
from dermoscopy.settings import is_loopback
from fhir_adapters.answers import LATER, retry_after
from fhir_adapters.client_key import ClientKey

ASSERTION_SECONDS: Final = 240.0
"""How long an assertion holds; the specification allows five minutes, and clocks differ."""
UNSTATED_SECONDS: Final = 60.0
"""How long a token is used whose answer does not say how long it holds."""
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_ERRORS = frozenset(
    {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"}
    | {"invalid_scope", "access_denied", "invalid_target"}
)
"""Codes of RFC 6749, 5.2 and its registry that may be repeated: a server's own words could hold anything."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BackendClient:
    """How one authorization server knows us. ``token_url`` is empty where the FHIR server is to be asked for it."""

    client_id: str
    key: ClientKey
    scope: str
    token_url: str = ""


class StaticToken(httpx.Auth):
    """A token that somebody put into the settings."""

    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """https://www.python-httpx.org/advanced/authentication/#custom-authentication-schemes"""
        request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        yield request


class BackendServicesToken(httpx.Auth):
    """Fetches a token when one is needed and again shortly before it runs out, or once when it is refused (401).

    Safe to use from many threads: one of them fetches, the others wait for it.
    """

    def __init__(
        self,
        server: str,
        base_url: str,
        client: BackendClient,
        *,
        timeout: httpx.Timeout,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``server`` is its name in errors; ``base_url`` is the FHIR base; ``clock`` gives seconds since 1970."""
        self._server = server
        self._base = base_url.rstrip("/")
        self._client = client
        self._clock = clock
        self._http = httpx.Client(
            headers={"Accept": "application/json", "User-Agent": "dermoscopy-cds"},
            timeout=timeout,
            follow_redirects=False,
            transport=transport,
        )
        self._lock = threading.Lock()
        self._token = SecretStr("")
        self._ends = -math.inf

    def close(self) -> None:
        """Close the connection to the authorization server."""
        self._http.close()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Raises `Rejected` (this client is not let in) or `DestinationUnavailable` (ask again later)."""
        token = self._current(refused=None)
        request.headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        response = yield request
        if response.status_code == httpx.codes.UNAUTHORIZED:
            token = self._current(refused=token)
            request.headers["Authorization"] = f"Bearer {token.get_secret_value()}"
            yield request

    def _current(self, refused: SecretStr | None) -> SecretStr:
        """A token that should work; a new one where ``refused`` is the one in hand."""
        with self._lock:
            if self._clock() >= self._ends or self._token is refused:
                self._token, seconds = self._fetch()
                self._ends = self._clock() + seconds - min(30.0, seconds / 5)
                _log.info("fhir.token", server=self._server, scope=self._client.scope, seconds=round(seconds))
            return self._token

    def _fetch(self) -> tuple[SecretStr, float]:
        address = self._client.token_url or self._discovered()
        form = {
            "grant_type": "client_credentials",
            "scope": self._client.scope,
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": self._assertion(address),
        }
        response = self._send("POST", address, form)
        answer = _object(response)
        if not response.is_success:
            raise self._refusal(response, answer)
        token, kind, seconds = (answer.get(name) for name in ("access_token", "token_type", "expires_in"))
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise DestinationUnavailable(f"{self._authority} answered without a token; a proxy or login page?")
        if not isinstance(kind, str) or kind.lower() != "bearer":
            raise Rejected(f"{self._authority} gives tokens of another type than Bearer")
        stated = isinstance(seconds, int | float) and not isinstance(seconds, bool) and math.isfinite(seconds)
        return SecretStr(token), max(float(seconds), 0.0) if stated and seconds is not None else UNSTATED_SECONDS

    def _assertion(self, address: str) -> str:
        """The signed statement of who asks, for this address, once (client-confidential-asymmetric, 3.2)."""
        now, key = self._clock(), self._client.key
        claims = {
            "iss": self._client.client_id,
            "sub": self._client.client_id,
            "aud": address,
            "iat": int(now),
            "exp": int(now + ASSERTION_SECONDS),
            "jti": str(uuid.uuid4()),
        }
        return jwt.encode(claims, key.private, key.algorithm, {"kid": key.kid, "typ": "JWT"})

    def _discovered(self) -> str:
        """The token endpoint that the FHIR server names (https://hl7.org/fhir/smart-app-launch/conformance.html)."""
        response = self._send("GET", f"{self._base}/.well-known/smart-configuration")
        found = _object(response)
        if not response.is_success:
            raise self._refusal(response, {}, "the SMART configuration of ")
        address = found.get("token_endpoint")
        if not isinstance(address, str) or not _secure(address):
            raise Rejected(f"{self._server} names no usable token_endpoint (https) in its SMART configuration")
        taken = found.get("token_endpoint_auth_signing_alg_values_supported")
        if isinstance(taken, list) and taken and self._client.key.algorithm not in taken:
            raise Rejected(f"{self._server} does not take {self._client.key.algorithm}; use another private_key")
        return address

    def _send(self, method: str, address: str, form: Mapping[str, str] | None = None) -> httpx.Response:
        try:
            return self._http.request(method, address, data=form)
        except httpx.TimeoutException as error:
            raise DestinationUnavailable(f"{self._authority} did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DestinationUnavailable(f"{self._authority} cannot be reached ({type(error).__name__})") from error

    @property
    def _authority(self) -> str:
        return f"the authorization server of {self._server}"

    def _refusal(
        self, response: httpx.Response, answer: Mapping[str, Any], what: str = ""
    ) -> Rejected | DestinationUnavailable:
        status, code = response.status_code, answer.get("error")
        where = f"{what}{self._server}" if what else self._authority
        if response.is_redirect:
            return Rejected(f"{where} redirects elsewhere (HTTP {status}), which is not followed; set token_url")
        if status in LATER or status >= 500:
            return DestinationUnavailable(f"{where} answered HTTP {status}", retry_after=retry_after(response.headers))
        told = f": {code}" if code in _ERRORS else ""
        hint = "; is our public key registered there under this client_id?" if code == "invalid_client" else ""
        return Rejected(f"{where} answered HTTP {status}{told}{hint}")


def _object(response: httpx.Response) -> Mapping[str, Any]:
    """The JSON object of an answer; empty if it is none."""
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _secure(address: str) -> bool:
    """Whether a token may travel there: by https, or by http on this machine."""
    try:
        parts = urlsplit(address)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
