"""What a FHIR server's answer means for a delivery: done, try again, or a person must look.

Texts that servers send are cleaned of the patient's identifiers before they reach an error message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from dermoscopy.errors import DermoscopyError, DestinationUnavailable, Rejected

LONGEST_WAIT = 86400.0
LATER = frozenset({408, 409, 425, 429})
"""Refusals below 500 that pass by themselves."""
_FINAL = frozenset({401, 403, 413})
_PRECONDITION_FAILED = 412
_LONGEST_TEXT = 300


class ChangedMeanwhile(Rejected):
    """Somebody wrote between our look and our write (HTTP 412); worth another look, then for a person."""


def json_of(response: httpx.Response, server: str, secrets: Iterable[str] = ()) -> Mapping[str, Any]:
    """The resource in a successful answer.

    Raises `DestinationUnavailable` (busy, failing, or something other than a FHIR server answered) or `Rejected`.
    """
    body = _resource(response)
    if response.is_success and body is not None:
        return body
    status = response.status_code
    if response.is_redirect:
        raise Rejected(f"{server} redirects elsewhere (HTTP {status}); set its base_url to where it is now")
    if response.is_success or (body is None and 400 <= status < 500 and status not in _FINAL | LATER):
        raise DestinationUnavailable(
            f"{server} answered HTTP {status} with something that is not FHIR JSON; a proxy or login page in between?",
            retry_after=retry_after(response.headers),
        )
    raise failure(status, outcome_text(body, secrets), server, retry_after(response.headers))


def failure(status: int, said: str, server: str, wait: float | None = None) -> DermoscopyError:
    """The error for an HTTP status, of a whole answer or of one entry of a transaction response."""
    text = f"{server} answered HTTP {status}" + (f": {said}" if said else "")
    if status in LATER or status >= 500:
        return DestinationUnavailable(text, retry_after=wait)
    return ChangedMeanwhile(text) if status == _PRECONDITION_FAILED else Rejected(text)


def outcome_text(resource: Mapping[str, Any] | None, secrets: Iterable[str] = ()) -> str:
    """What an OperationOutcome says, without ``secrets``; may be empty (https://hl7.org/fhir/R4/operationoutcome.html)."""
    if not resource or resource.get("resourceType") != "OperationOutcome":
        return ""
    parts: list[str] = []
    for issue in resource.get("issue") or ():
        if not isinstance(issue, Mapping) or issue.get("severity") in {"information", "warning"}:
            continue
        details = issue.get("details")
        said = details.get("text") if isinstance(details, Mapping) else None
        where = issue.get("expression") or issue.get("location") or ()
        place = str(where[0]) if isinstance(where, list) and where else ""
        code = str(issue.get("code") or "")
        text = str(said or issue.get("diagnostics") or "")
        parts.append(": ".join(part for part in (code, place, text) if part))
    joined = "; ".join(parts)
    for secret in sorted({secret for secret in secrets if secret}, key=len, reverse=True):
        joined = re.sub(rf"(?<![A-Za-z0-9]){re.escape(secret)}(?![A-Za-z0-9])", "[patient]", joined)
    return joined if len(joined) <= _LONGEST_TEXT else joined[: _LONGEST_TEXT - 1] + "…"


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait by Retry-After, seconds or an HTTP date (RFC 9110, 10.2.3); ``None`` if it says nothing."""
    stated = headers.get("Retry-After", "").strip()
    if not stated:
        return None
    if stated.isascii() and stated.isdigit():
        return min(float(stated), LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(stated)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - (now or datetime.now(UTC))).total_seconds(), 0.0), LONGEST_WAIT)


def _resource(response: httpx.Response) -> Mapping[str, Any] | None:
    if "json" not in response.headers.get("Content-Type", "json").lower():
        return None
    try:
        body = response.json()
    except ValueError:  # not JSON, or not even text
        return None
    return body if isinstance(body, Mapping) and isinstance(body.get("resourceType"), str) else None
