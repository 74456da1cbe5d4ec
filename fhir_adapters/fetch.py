"""Reads from the FHIR server that a CDS call names, when the call did not bring the data (prefetch).

https://cds-hooks.hl7.org/2.0/#fhir-resource-access. The address comes from the caller, so only servers of the settings
are asked: no redirect is followed, a name that resolves to an inward address is refused unless the settings say
otherwise, and the connection goes to the address that was checked. Size and time are bounded. The access token is sent
to that server alone and appears in no error, log or trace; what a server says in its errors is not repeated either.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import structlog
from opentelemetry import trace
from pydantic import SecretStr

from dermoscopy.errors import DestinationUnavailable, Rejected
from dermoscopy.settings import is_loopback
from fhir_adapters.answers import failure
from fhir_adapters.elements import FHIR_JSON

MAX_BYTES: Final = 1024 * 1024
"""Largest resource that is read."""
AT_ONCE: Final = 16
"""Reads at a time; a slow server keeps no more threads than these busy."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_SERVER = "the FHIR server of the call"
_log = structlog.get_logger(__name__)
_tracer = trace.get_tracer(__name__)

Resolve = Callable[[str, int], Sequence[str]]


class EhrReader:
    """Reads single resources from listed FHIR servers. Safe to use from many threads."""

    def __init__(
        self,
        servers: Mapping[str, bool],
        *,
        seconds: float = 2.0,
        resolve: Resolve | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``servers``: FHIR base URL → whether its name may resolve inward. ``seconds``: whole time of one read."""
        self._inward = {normal_base(base): inward or _written_inward(base) for base, inward in servers.items()}
        self._seconds = seconds
        self._resolve = resolve or _addresses
        self._clients = {  # one each: a connection whose certificate was checked for one name serves that name only
            base: httpx.Client(
                headers={"Accept": FHIR_JSON, "Accept-Encoding": "identity", "User-Agent": "dermoscopy-cds"},
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

    def read(self, base_url: str, kind: str, resource_id: str, token: SecretStr | None) -> Mapping[str, Any]:
        """The resource ``kind``/``resource_id`` (https://hl7.org/fhir/R4/http.html#read), as JSON.

        Raises `Rejected` (a server that is not listed, no such resource, no permission, something else than asked
        for) or `DestinationUnavailable` (no answer in time, busy, failing).
        """
        base = normal_base(base_url)
        if base not in self._inward:
            raise Rejected("fhirServer is not one that this service may read from (setting hooks_fhir_servers)")
        if not resource_id.strip("."):
            raise Rejected(f"this is no id of a {kind}")  # "..": the address would be another one
        ends = time.monotonic() + self._seconds
        with _tracer.start_as_current_span("fhir.read", attributes={"fhir.resource_type": kind}):
            future = self._pool.submit(self._read, base, f"{kind}/{resource_id}", token, ends)
            try:
                resource = future.result(self._seconds)
            except TimeoutError as error:
                future.cancel()
                raise DestinationUnavailable(f"{_SERVER} did not answer in time") from error
        if resource.get("resourceType") == "OperationOutcome":
            raise Rejected(f"{_SERVER} answered with an OperationOutcome instead of a {kind}")
        if resource.get("resourceType") != kind or resource.get("id") != resource_id:
            raise Rejected(f"{_SERVER} answered with something else than the {kind} that was asked for")
        _log.info("fhir.read", resource_type=kind)
        return resource

    def _read(self, base: str, path: str, token: SecretStr | None, ends: float) -> Mapping[str, Any]:
        url = httpx.URL(f"{base}/{path}")
        address = self._address(base, url)
        headers = {"Host": url.netloc.decode("ascii")}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        extensions = {"sni_hostname": url.host} if url.scheme == "https" else {}
        found = bytearray()
        try:
            with self._clients[base].stream(
                "GET", url.copy_with(host=address), headers=headers, extensions=extensions
            ) as answer:
                self._check(answer)
                for chunk in answer.iter_bytes():
                    found += chunk
                    if len(found) > MAX_BYTES:
                        raise Rejected(f"{_SERVER} answered with more than {MAX_BYTES} bytes")
                    if time.monotonic() > ends:
                        raise DestinationUnavailable(f"{_SERVER} did not answer in time")
        except httpx.TimeoutException as error:
            raise DestinationUnavailable(f"{_SERVER} did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
            raise DestinationUnavailable(f"{_SERVER} cannot be reached ({type(error).__name__})") from error
        try:
            resource = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise Rejected(f"{_SERVER} answered with something that is not FHIR JSON") from error
        if not isinstance(resource, dict):
            raise Rejected(f"{_SERVER} answered with something that is not FHIR JSON")
        return resource

    def _check(self, answer: httpx.Response) -> None:
        if answer.is_redirect:
            raise Rejected(f"{_SERVER} redirects elsewhere (HTTP {answer.status_code}), which is not followed")
        if answer.status_code != httpx.codes.OK:
            raise failure(answer.status_code, "", _SERVER)
        kind = answer.headers.get("Content-Type", "").lower()
        if "json" not in kind or answer.headers.get("Content-Encoding", "identity").lower() != "identity":
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


def normal_base(url: str) -> str:
    """A FHIR base URL in the one form in which two can be compared; empty for what can be none."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.query or parts.fragment:
        return ""
    shown = f"[{host}]" if ":" in host else host
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{shown}" + (f":{port}" if port not in (None, default) else "") + parts.path.rstrip("/")


def is_inward(address: str) -> bool:
    """Whether an IP address is anything but a public one, also behind an IPv6 form of an IPv4 address."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return True
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return not inner.is_global
    return not ip.is_global or ip.is_multicast


def _written_inward(base: str) -> bool:
    """Whether the settings themselves write an address (or localhost): then it is meant."""
    host = urlsplit(base).hostname or ""
    if is_loopback(host):
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _addresses(host: str, port: int) -> Sequence[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
