"""Public keys of CDS clients: JWK sets (RFC 7517) by address or file, kept for an hour, read anew for an unknown key.

Only addresses that the settings name are ever asked; a redirect is not followed, and neither size nor time is the
server's to choose.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import structlog

from dermoscopy.errors import Unavailable

log = structlog.get_logger(__name__)

LIFETIME_SECONDS: Final = 3600.0
"""A key that the client withdrew is believed so long at most (twice that while its address does not answer)."""
PAUSE_SECONDS: Final = 30.0
"""Between two reads of one set: whoever sends unknown key ids cannot make us ask more often."""
FETCH_SECONDS: Final = 3.0
MAX_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 100

JsonWebKey = Mapping[str, Any]


def read_key_set(source: str) -> bytes:
    """The bytes at an address (https://…) or in a file (file name). Raises `Unavailable` with what is wrong."""
    if not source.startswith(("http://", "https://")):
        try:
            return Path(source).read_bytes()
        except OSError as error:
            raise Unavailable(f"the file cannot be read ({type(error).__name__})") from error
    ends = time.monotonic() + FETCH_SECONDS
    found = bytearray()
    try:
        with httpx.stream("GET", source, timeout=FETCH_SECONDS, follow_redirects=False) as answer:
            if answer.status_code != httpx.codes.OK:
                raise Unavailable(f"the address answered HTTP {answer.status_code}")
            for chunk in answer.iter_bytes():
                found += chunk
                if len(found) > MAX_BYTES:
                    raise Unavailable("the key set is too large")
                if time.monotonic() > ends:
                    raise Unavailable("the address answers too slowly")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"the address cannot be read ({type(error).__name__})") from error
    return bytes(found)


@dataclass(slots=True)
class _KeySet:
    keys: Mapping[str, JsonWebKey] = field(default_factory=dict)
    read_at: float | None = None
    """When the keys were read; ``None`` before the first time."""
    tried_at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class KeySets:
    """Keys by source and id; safe to use from many threads."""

    def __init__(
        self, read: Callable[[str], bytes] = read_key_set, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._sets: dict[str, _KeySet] = {}

    def key(self, source: str, kid: str) -> JsonWebKey | None:
        """The key ``kid`` of the set at ``source``, which must be one of the settings; ``None`` if there is none."""
        known = self._sets.setdefault(source, _KeySet())
        if kid in known.keys and self._age(known) < LIFETIME_SECONDS:
            return known.keys[kid]
        with known.lock:
            fresh = self._age(known) < LIFETIME_SECONDS
            paused = known.tried_at is not None and self._clock() - known.tried_at < PAUSE_SECONDS
            if not (fresh and kid in known.keys) and not paused:
                self._refresh(source, known)
            if self._age(known) >= 2 * LIFETIME_SECONDS:
                return None
            return known.keys.get(kid)

    def _age(self, known: _KeySet) -> float:
        return float("inf") if known.read_at is None else self._clock() - known.read_at

    def _refresh(self, source: str, known: _KeySet) -> None:
        known.tried_at = self._clock()
        try:
            known.keys = parse_key_set(self._read(source))
            known.read_at = self._clock()
        except Unavailable as error:
            log.warning("cds_client.keys_unavailable", source=source, reason=str(error))


def parse_key_set(data: bytes) -> dict[str, JsonWebKey]:
    """Keys of a JWK set by ``kid``; one without ``kid`` or not for signatures is left out. Raises `Unavailable`."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unavailable("the key set is not JSON") from error
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise Unavailable("this is no JWK set, or one with too many keys")
    return {
        key["kid"]: key
        for key in keys
        if isinstance(key, dict) and isinstance(key.get("kid"), str) and key.get("use", "sig") == "sig"
    }
