"""Reads from the servers that a CDS call names, when the call did not bring the data (prefetch).

https://cds-hooks.hl7.org/2.0/#fhir-resource-access. The address comes from the caller, so only servers of the settings
are asked: no redirect is followed, a name that resolves to an inward address is refused unless the settings say
otherwise, and the connection goes to the address that was checked. Size and time are bounded. The access token is sent
to that server alone and appears in no error, log or trace; what a server says in its errors is not repeated either.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import httpx
import structlog
from opentelemetry import trace
from pydantic import SecretStr

from dermoscopy.errors import DermoscopyError, DestinationUnavailable, Rejected
from fhir_adapters.answers import failure
from fhir_adapters.elements import FHIR_JSON
from fhir_adapters.inward import is_inward, normal_base, written_inward
from fhir_adapters.text import text_fault

MAX_BYTES: Final = 1024 * 1024
"""Largest resource that is read."""
MAX_SEARCH_BYTES: Final = 16 * 1024 * 1024
"""Largest page of a search: images may stand in it as base64."""
AT_ONCE: Final = 16
"""Reads at a time; a slow server keeps no more threads than these busy."""
_ODD: Final = re.compile(r"\\|%(2e|2f|5c)", re.IGNORECASE)
"""What some server may read as a way up to another place than the one that is listed."""
_SERVER = "the FHIR server of the call"
_NOT_LISTED = "fhirServer is not one that this service may read from (setting hooks_fhir_servers)"
_log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)

Resolve = Callable[[str, int], Sequence[str]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where some bytes are: a listed server, and the path below it."""

    base: str
    path: str
    accept: str


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes as a server sent them."""

    media_type: str
    """Content-Type, parameters included."""
    data: bytes


class EhrReader:
    """Reads from listed FHIR and image servers. Safe to use from many threads."""

    def __init__(
        self,
        servers: Mapping[str, bool],
        *,
        seconds: float = 2.0,
        image_servers: Mapping[str, tuple[bool, SecretStr | None]] | None = None,
        resolve: Resolve | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``servers``: FHIR base URL → whether its name may resolve inward. ``seconds``: whole time of one read.

        ``image_servers``: base URL → the same, and the token of ours for it; `contents` reads from them as well.
        """
        images = {normal_base(base): entry for base, entry in (image_servers or {}).items()}
        self._fhir = frozenset(normal_base(base) for base in servers)
        self._tokens = {base: token for base, (_, token) in images.items() if token is not None}
        may = {base: inward for base, (inward, _) in images.items()}
        may |= {normal_base(base): inward for base, inward in servers.items()}
        self._inward = {base: inward or written_inward(base) for base, inward in may.items()}
        self._seconds = seconds
        self._resolve = resolve or _addresses
        self._clients = {  # one each: a connection whose certificate was checked for one name serves that name only
            base: httpx.Client(
                headers={"Accept-Encoding": "identity", "User-Agent": "dermoscopy-cds"},
                timeout=seconds,
                follow_redirects=False,
                trust_env=False,
                transport=transport,
            )
            for base in self._inward
        }
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ehr-read")

    def close(self) -> None:
        """Close connections and threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            client.close()

    def may_ask(self, base_url: str) -> bool:
        """Whether this FHIR server is on the list."""
        return normal_base(base_url) in self._fhir

    def read(self, base_url: str, kind: str, resource_id: str, token: SecretStr | None) -> Mapping[str, Any]:
        """The resource ``kind``/``resource_id`` (https://hl7.org/fhir/R4/http.html#read), as JSON.

        Raises `Rejected` (a server that is not listed, no such resource, no permission, something else than asked
        for) or `DestinationUnavailable` (no answer in time, busy, failing).
        """
        base = normal_base(base_url)
        if base not in self._fhir:
            raise Rejected(_NOT_LISTED)
        if not resource_id.strip("."):
            raise Rejected(f"this is no id of a {kind}")  # "..": the address would be another one
        ends = time.monotonic() + self._seconds
        with _tracer.start_as_current_span("fhir.read", attributes={"fhir.resource_type": kind}):
            reading = self._pool.submit(self._json, Place(base, f"{kind}/{resource_id}", FHIR_JSON), token, ends)
            resource = _result(reading, self._seconds)
        if isinstance(resource, DermoscopyError):
            raise resource
        if resource.get("resourceType") == "OperationOutcome":
            raise Rejected(f"{_SERVER} answered with an OperationOutcome instead of a {kind}")
        if resource.get("resourceType") != kind or resource.get("id") != resource_id:
            raise Rejected(f"{_SERVER} answered with something else than the {kind} that was asked for")
        _log.info("fhir.read", resource_type=kind)
        return resource

    def search(
        self, base_url: str, queries: Mapping[str, Mapping[str, str]], token: SecretStr | None, seconds: float
    ) -> dict[str, Mapping[str, Any] | DermoscopyError]:
        """First page of several searches at once (https://hl7.org/fhir/R4/http.html#search): type → searchset or error.

        ``queries``: resource type → parameters. Raises `Rejected` for a server that is not listed, and for nothing
        else: one type that the server does not know says nothing about the others.
        """
        base = normal_base(base_url)
        if base not in self._fhir:
            raise Rejected(_NOT_LISTED)
        ends = time.monotonic() + seconds
        with _tracer.start_as_current_span("fhir.search"):
            asked = {
                kind: self._pool.submit(
                    self._json, Place(base, f"{kind}?{urlencode(said)}", FHIR_JSON), token, ends, MAX_SEARCH_BYTES
                )
                for kind, said in queries.items()
            }
            found: dict[str, Mapping[str, Any] | DermoscopyError] = {}
            for kind, future in asked.items():
                bundle = _result(future, ends - time.monotonic())
                found[kind] = bundle
                if isinstance(bundle, Mapping) and bundle.get("resourceType") != "Bundle":
                    found[kind] = Rejected(f"{_SERVER} answered with something else than a Bundle")
        return found

    def place(self, url: str, base_url: str, accept: str) -> Place:
        """Where ``url`` is: relative to the FHIR server of the call, or below any listed server.

        Raises `Rejected` for an address that is not below one.
        """
        try:
            relative = not url.startswith("//") and not urlsplit(url).scheme
        except ValueError:  # "http://[::1"
            relative = False
        if relative:
            url = f"{normal_base(base_url)}/{url.lstrip('/')}"
        cut, _, query = url.partition("?")
        whole = normal_base(cut)
        below = [base for base in self._inward if whole.startswith(f"{base}/")]
        path = whole[len(max(below, key=len)) + 1 :] if below else ""
        odd = bool(_ODD.search(path)) or any(not part.strip(".") for part in path.split("/"))
        if not below or odd:
            raise Rejected("the address of the image is not below a listed server (setting hooks_image_servers)")
        return Place(max(below, key=len), f"{path}?{query}" if query else path, accept)

    def contents(
        self, places: Sequence[Place], base_url: str, token: SecretStr | None, *, seconds: float, limit: int
    ) -> list[Content | DermoscopyError]:
        """Bytes of several places at once, each at most ``limit``; what cannot be had in time is an error in its place.

        ``token`` goes to the FHIR server ``base_url`` alone; every other server gets what the settings have for it.
        """
        own, ends = normal_base(base_url), time.monotonic() + seconds
        with _tracer.start_as_current_span("fhir.content"):
            futures = [
                self._pool.submit(
                    self._get, place, token if place.base == own else self._tokens.get(place.base), ends, limit
                )
                for place in places
            ]
            found: list[Content | DermoscopyError] = []
            for future in futures:
                content = _result(future, ends - time.monotonic())
                found.append(content)
            return found

    def _json(self, place: Place, token: SecretStr | None, ends: float, limit: int = MAX_BYTES) -> Mapping[str, Any]:
        content = self._get(place, token, ends, limit)
        if "json" not in content.media_type.lower():
            raise Rejected(f"{_SERVER} answered with something that is not FHIR JSON")
        try:
            resource = json.loads(content.data)
        except (ValueError, RecursionError) as error:
            raise Rejected(f"{_SERVER} answered with something that is not FHIR JSON") from error
        if not isinstance(resource, dict) or text_fault(resource):
            raise Rejected(f"{_SERVER} answered with something that is not FHIR JSON")
        return resource

    def _get(self, place: Place, token: SecretStr | None, ends: float, limit: int) -> Content:
        left = ends - time.monotonic()
        if left <= 0:
            raise DestinationUnavailable(f"{_SERVER} did not answer in time")
        try:
            url = httpx.URL(f"{place.base}/{place.path}")
        except httpx.InvalidURL as error:
            raise Rejected("this is no address that can be read") from error
        address = self._address(place.base, url)
        headers = {"Host": url.netloc.decode("ascii"), "Accept": place.accept}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        extensions = {"sni_hostname": url.host} if url.scheme == "https" else {}
        found = bytearray()
        try:
            with self._clients[place.base].stream(
                "GET", url.copy_with(host=address), headers=headers, extensions=extensions, timeout=left
            ) as answer:
                self._check(answer)
                for chunk in answer.iter_bytes():
                    found += chunk
                    if len(found) > limit:
                        raise Rejected(f"{_SERVER} answered with more than {limit} bytes")
                    if time.monotonic() > ends:
                        raise DestinationUnavailable(f"{_SERVER} did not answer in time")
                return Content(answer.headers.get("Content-Type", ""), bytes(found))
        except httpx.TimeoutException as error:
            raise DestinationUnavailable(f"{_SERVER} did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
            raise DestinationUnavailable(f"{_SERVER} cannot be reached ({type(error).__name__})") from error

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_redirect:
            raise Rejected(f"{_SERVER} redirects elsewhere (HTTP {answer.status_code}), which is not followed")
        if answer.status_code != httpx.codes.OK:
            raise failure(answer.status_code, "", _SERVER)
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Rejected(f"{_SERVER} answered with something that is not FHIR JSON")

    def _address(self, base: str, url: httpx.URL) -> str:
        """The checked address to connect to: the name is not resolved a second time."""
        try:
            found = self._resolve(url.host, url.port or (443 if url.scheme == "https" else 80))
        except OSError as error:
            raise DestinationUnavailable(f"{_SERVER} cannot be reached (its name does not resolve)") from error
        if not found:
            raise DestinationUnavailable(f"{_SERVER} cannot be reached (its name does not resolve)")
        if not self._inward[base] and any(is_inward(address) for address in found):
            raise Rejected(
                f"{_SERVER} resolves to an inward address, which its entry in hooks_fhir_servers does not allow"
            )
        return found[0]


def _result(reading: Future[T], seconds: float) -> T | DermoscopyError:
    try:
        return reading.result(max(seconds, 0.0))
    except TimeoutError:
        reading.cancel()
        return DestinationUnavailable(f"{_SERVER} did not answer in time")
    except DermoscopyError as error:
        return error


def _addresses(host: str, port: int) -> Sequence[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
