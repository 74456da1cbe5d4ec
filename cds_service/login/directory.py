"""Where an OpenID provider or an EHR has its endpoints, as its own document says; kept for an hour.

Only addresses of the settings are asked. OpenID Connect Discovery 1.0, 4; SMART App Launch 2.2,
https://hl7.org/fhir/smart-app-launch/conformance.html.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from cds_service.hooks.key_sets import read_key_set
from cds_service.login.refusals import LoginFailed
from dermoscopy.errors import Unavailable
from dermoscopy.settings import is_loopback

LIFETIME_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What a login needs of a provider; addresses are https, or http on loopback."""

    issuer: str
    """``iss`` of its ID tokens."""
    authorization: str
    token: str
    keys: str
    """Address of its JWK set."""


class Directory:
    """Endpoints by address of the document; safe to use from many threads."""

    def __init__(
        self, read: Callable[[str], bytes] = read_key_set, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``read`` gives the bytes at an address, bounded in size and time, or raises `Unavailable`."""
        self._read = read
        self._clock = clock
        self._known: dict[str, tuple[float, Endpoints]] = {}

    def provider(self, issuer: str) -> Endpoints:
        """Endpoints of an OpenID provider. Raises `LoginFailed`."""
        found = self._endpoints(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.issuer != issuer:  # 4.3: else somebody else could speak for it
            raise LoginFailed("The provider's discovery document names another issuer than login.issuer.")
        return found

    def ehr(self, base_url: str) -> Endpoints:
        """Endpoints of an EHR, from its FHIR base address. Raises `LoginFailed`."""
        return self._endpoints(f"{base_url.rstrip('/')}/.well-known/smart-configuration")

    def _endpoints(self, address: str) -> Endpoints:
        known = self._known.get(address)
        if known is not None and self._clock() - known[0] < LIFETIME_SECONDS:
            return known[1]
        try:
            document = json.loads(self._read(address))
        except Unavailable as error:
            raise LoginFailed(f"The login provider does not say where it takes logins: {error}.") from error
        except (ValueError, RecursionError) as error:
            raise LoginFailed("The login provider's discovery document is not JSON.") from error
        if not isinstance(document, dict):
            raise LoginFailed("The login provider's discovery document is no JSON object.")
        issuer = document.get("issuer")
        if not isinstance(issuer, str) or not issuer:
            raise LoginFailed("The provider's document names no issuer (is OpenID Connect switched on?).")
        found = Endpoints(
            issuer,
            *(_address(document, name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")),
        )
        self._known[address] = (self._clock(), found)
        return found


def _address(document: dict[str, Any], name: str) -> str:
    value = document.get(name)
    parts = urlsplit(value) if isinstance(value, str) else None
    if parts is None or not parts.hostname or parts.fragment:
        raise LoginFailed(f"The login provider's discovery document has no usable {name}.")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname)):
        raise LoginFailed(f"The login provider's {name} is not https.")
    return str(value)
