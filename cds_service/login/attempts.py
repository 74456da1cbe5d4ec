"""A login that has begun, kept in the browser that began it until the provider sends it back.

Its cookie is what binds the provider's answer to this browser (state, RFC 6749, 10.12), to this request (nonce) and to
this code (PKCE, RFC 7636). Nothing is stored here, so that nobody can fill our database from outside.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from dataclasses import asdict, dataclass, field
from typing import Final, Literal, TypedDict

LIFETIME_SECONDS: Final = 600
_STATE = re.compile(r"[A-Za-z0-9_-]{43}")


class CookieAttributes(TypedDict):
    """How every cookie of ours is set."""

    path: str
    secure: bool
    httponly: bool
    samesite: Literal["lax"]


def _random() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login under way."""

    ehr: str = ""
    """FHIR base address of the EHR that launched us; empty: the provider of the settings."""
    next: str = "/worklist"
    """Path to go to afterwards."""
    state: str = field(default_factory=_random, repr=False)
    nonce: str = field(default_factory=_random, repr=False)
    verifier: str = field(default_factory=_random, repr=False)

    def to_cookie(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode().rstrip("=")


def is_state(text: str) -> bool:
    """Whether ``text`` has the form of one of our states (and so may be part of a cookie's name)."""
    return _STATE.fullmatch(text) is not None


def from_cookie(value: str) -> Attempt | None:
    """The attempt in a cookie; ``None`` for anything else."""
    try:
        said = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
        if not isinstance(said, dict) or not all(isinstance(v, str) for v in said.values()):
            return None
        return Attempt(**said)
    except (ValueError, TypeError, RecursionError):
        return None


def local_path(wanted: str) -> str:
    """``wanted`` if it is a path of our own (never another site), else the worklist."""
    own = wanted.startswith("/") and not wanted.startswith("//") and wanted.isprintable()
    return wanted if own and "\\" not in wanted and len(wanted) <= 500 else "/worklist"
