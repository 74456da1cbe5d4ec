"""Asks a FHIR server for what pathology reported since the last time, and for what the reports refer to.

Every search is a POST, since addresses end up in logs (https://hl7.org/fhir/R4/http.html#search). Pages are not
followed by link: results are asked for in the order of their last change, so that the next question begins where this
one ended.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import httpx
from pydantic import SecretStr

from dermoscopy.errors import DestinationUnavailable, Rejected
from fhir_adapters.answers import json_of
from fhir_adapters.concepts import members
from fhir_adapters.elements import instant
from fhir_adapters.pathology import references_of
from fhir_adapters.server import TIMEOUT, FhirServer
from fhir_adapters.smart import BackendClient

PAGE: Final = 100
MOST: Final = 3200
"""So many resources of one moment are asked for at most."""
_TOGETHER: Final = 50
_FORM: Final = "application/x-www-form-urlencoded"
_KIND: Final = re.compile(r"[A-Z][A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Page:
    """What changed since a moment, oldest first. ``whole``: nothing newer was left out."""

    resources: tuple[Mapping[str, Any], ...]
    newest: datetime | None
    whole: bool


class OutcomeSource:
    """One server that is asked. Safe to use from many threads."""

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
        """As `fhir_adapters.server.FhirServer`. Raises `Misconfigured`."""
        self._server = FhirServer(name, base_url, token=token, client=client, timeout=timeout, transport=transport)

    @property
    def base(self) -> str:
        return self._server.base

    def close(self) -> None:
        """Close the connections that are kept open between questions."""
        self._server.close()

    def changed(self, kind: str, since: datetime | None, parameters: Mapping[str, str]) -> Page:
        """Resources of ``kind`` that changed at ``since`` or later.

        Raises `DestinationUnavailable` (ask again) or `Rejected` (refused, or it does not do what was asked).
        """
        count = PAGE
        while True:
            form = {**parameters, "_sort": "_lastUpdated", "_count": str(count)}
            if since is not None:
                form["_lastUpdated"] = f"ge{instant(since)}"
            resources, more = self._search(kind, form)
            more = more or len(resources) >= count  # not every server says that there is more
            moments = [_updated(one) for one in resources]
            if any(moment is None for moment in moments):
                raise Rejected(f"{self._server.name} does not say when its resources changed (meta.lastUpdated)")
            known = [moment for moment in moments if moment is not None]
            if more and known != sorted(known):
                raise Rejected(f"{self._server.name} does not sort by _lastUpdated: a question cannot be continued")
            newest = max(known, default=None)
            if not more or newest != since or count >= MOST:
                break
            count *= 2  # everything on this page changed at one moment: the next question would be the same
        if more and newest == since:
            raise Rejected(f"{self._server.name} has more than {MOST} resources that changed at one moment")
        return Page(tuple(resources), newest, not more)

    def referred(self, resources: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """What ``resources`` refer to on this server, and what that refers to: patients, orders, specimens, results."""
        found: dict[str, Mapping[str, Any]] = {}
        asked: set[str] = set()
        around: Sequence[Mapping[str, Any]] = resources
        for _ in range(2):
            wanted = {place for one in around for place in references_of(one, self.base)} - asked
            asked |= wanted
            around = self._read(sorted(wanted))
            found |= {f"{one['resourceType']}/{one.get('id')}": one for one in around}
        return list(found.values())

    def _read(self, places: Sequence[str]) -> list[Mapping[str, Any]]:
        by_kind: dict[str, list[str]] = defaultdict(list)
        for place in places:
            kind, _, own_id = place.partition("/")
            by_kind[kind].append(own_id)
        found: list[Mapping[str, Any]] = []
        for kind, ids in by_kind.items():
            for start in range(0, len(ids), _TOGETHER):
                some = ids[start : start + _TOGETHER]
                found += self._search(kind, {"_id": ",".join(some), "_count": str(2 * _TOGETHER)})[0]
        return found

    def _search(self, kind: str, form: Mapping[str, str]) -> tuple[list[Mapping[str, Any]], bool]:
        """Matches of one page, and whether there is another."""
        if not _KIND.fullmatch(kind):
            raise Rejected("this is no FHIR resource type")
        content = str(httpx.QueryParams(dict(form))).encode("ascii")
        secrets = tuple(form.get("_id", "").split(","))
        answer = json_of(self._server.post(f"/{kind}/_search", content, _FORM), self._server.name, secrets)
        if answer["resourceType"] != "Bundle":
            raise DestinationUnavailable(f"{self._server.name} answered a search with {answer['resourceType']}")
        entries = [entry.get("resource") for entry in members(answer.get("entry"))]
        found = [one for one in entries if isinstance(one, Mapping) and one.get("resourceType") == kind]
        return found, any(link.get("relation") == "next" for link in members(answer.get("link")))


def _updated(resource: Mapping[str, Any]) -> datetime | None:
    meta = resource.get("meta")
    stated = meta.get("lastUpdated") if isinstance(meta, Mapping) else None
    try:
        moment = datetime.fromisoformat(stated) if isinstance(stated, str) else None
    except ValueError:
        return None
    return None if moment is None else (moment if moment.tzinfo else moment.replace(tzinfo=UTC))
