"""One FHIR server to talk to: POST and search, with every way in which an answer can fail (http.html of FHIR R4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from dermoscopy.errors import DestinationUnavailable, Misconfigured
from fhir_adapters.answers import json_of
from fhir_adapters.elements import FHIR_JSON
from fhir_adapters.smart import BackendClient, BackendServicesToken, StaticToken

TIMEOUT = httpx.Timeout(30.0, connect=5.0)
LIMITS = httpx.Limits(max_keepalive_connections=8, keepalive_expiry=2.0)
"""Idle connections are let go before common servers close them (5 s), which would cost an attempt each time."""


class FhirServer:
    """Safe to use from many threads."""

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        token: SecretStr | None = None,
        client: BackendClient | None = None,
        timeout: httpx.Timeout = TIMEOUT,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """``token`` is sent as it is, ``client`` gets one. Raises `Misconfigured` for no plain http(s) address."""
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
            raise Misconfigured(f"fhir destination {name!r}: base_url must be http(s)://host/path without credentials")
        self.name = f"FHIR server {name!r}"
        self.base = base_url.rstrip("/")
        self._renewed = (
            BackendServicesToken(self.name, base_url, client, timeout=timeout, transport=transport) if client else None
        )
        self._client = httpx.Client(
            auth=self._renewed or (StaticToken(token) if token is not None else None),
            headers={"Accept": FHIR_JSON, "User-Agent": "dermoscopy-cds"},
            timeout=timeout,
            limits=LIMITS,
            follow_redirects=False,
            transport=transport,
        )

    def close(self) -> None:
        """Close the connections that are kept open between requests."""
        self._client.close()
        if self._renewed is not None:
            self._renewed.close()

    def search(
        self, kind: str, system: str, values: Sequence[str], secrets: tuple[str, ...] = ()
    ) -> list[Mapping[str, Any]]:
        """Resources of one kind with any of these identifiers, as far as the server's first page goes.

        The search goes in a POST, since addresses end up in logs (https://hl7.org/fhir/R4/http.html#search).
        """
        answer = json_of(self.post_search(kind, system, values), self.name, (*values, *secrets))
        if answer["resourceType"] != "Bundle":
            raise DestinationUnavailable(f"{self.name} answered a search with {answer['resourceType']}")
        entries = answer.get("entry") or ()
        found = [entry.get("resource") for entry in entries if isinstance(entry, Mapping)]
        return [one for one in found if isinstance(one, Mapping) and one.get("resourceType") == kind]

    def post_search(self, kind: str, system: str, values: Sequence[str]) -> httpx.Response:
        """The bare answer to a search; an empty ``system`` means any (https://hl7.org/fhir/R4/search.html#token)."""
        prefix = f"{_escape(system)}|" if system else ""
        token = ",".join(prefix + _escape(value) for value in values)
        form = str(httpx.QueryParams({"identifier": token, "_count": str(max(10, 2 * len(values)))})).encode("ascii")
        return self.post(f"/{kind}/_search", form, "application/x-www-form-urlencoded")

    def post(self, path: str, content: bytes, media_type: str) -> httpx.Response:
        """POST below the base; a 307 or 308 is followed once, and only on the same host."""
        url, headers = f"{self.base}{path}", {"Content-Type": media_type}
        try:
            response = self._client.post(url, content=content, headers=headers)
            if response.status_code in {307, 308}:
                target = httpx.URL(url).join(response.headers.get("Location", ""))
                if target.netloc == httpx.URL(url).netloc and target.scheme == httpx.URL(url).scheme:
                    response = self._client.post(target, content=content, headers=headers)
        except httpx.TimeoutException as error:
            raise DestinationUnavailable(f"{self.name} did not answer in time") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise DestinationUnavailable(f"{self.name} cannot be reached ({type(error).__name__})") from error
        return response


def _escape(token: str) -> str:
    """Search values escape the characters that separate them (https://hl7.org/fhir/R4/search.html#escaping)."""
    for character in "\\$,|":
        token = token.replace(character, f"\\{character}")
    return token
