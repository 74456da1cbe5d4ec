"""Whether a signed call comes from an EHR of the settings (https://cds-hooks.hl7.org/2.0/#trusting-cds-clients).

A JSON Web Token (RFC 7519) by ES384 or RS384: issuer and address of the keys are on the list, the audience is exactly
the address that was called, the times fit, and the token was never used before.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
import sqlalchemy as sa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from sqlalchemy.exc import IntegrityError

from cds_service.hooks.key_sets import JsonWebKey, KeySets
from dermoscopy.database import UnitOfWork
from dermoscopy.settings import CdsClient
from dermoscopy.tables import ClientTokenRow, utc_now

ALGORITHMS: Final[Mapping[str, str]] = {"ES384": "EC", "RS384": "RSA"}
"""Signatures that are taken, and the type of their keys. Never ``none``, and nothing symmetric."""
MAX_LIFETIME: Final = 3600.0
"""Seconds from ``iat`` to ``exp``; the specification recommends five minutes at most."""
MAX_TOKEN: Final = 8192
"""Characters."""
_MIN_RSA_BITS = 2048
_CLEAN_EVERY = timedelta(minutes=1)
_UNCHECKED: Final = {f"verify_{name}": False for name in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
"""PyJWT's own checks have no clock of ours: they are off, and `_check_claims` does them."""


class TokenRefused(Exception):
    """Why a token is not believed, for our log and audit; the caller is told nothing. Holds no part of the token."""

    def __init__(self, reason: str, client: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.client = client


@dataclass(frozen=True, slots=True)
class TrustedClient:
    """Who signed a call."""

    name: str
    tenant: str = ""


class ClientTrust:
    """Checks tokens of the clients that the settings name; safe to use from many threads and processes."""

    def __init__(
        self,
        clients: Sequence[CdsClient],
        begin: UnitOfWork,
        *,
        skew: float = 60.0,
        keys: KeySets | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """``skew``: seconds that a client's clock may be off."""
        self._clients = tuple(clients)
        self._begin = begin
        self._skew = skew
        self._keys = keys or KeySets()
        self._clock = clock
        self._cleaned = datetime.min.replace(tzinfo=UTC)

    @property
    def empty(self) -> bool:
        """Whether no client is named."""
        return not self._clients

    def check(self, token: str, audience: str) -> TrustedClient:
        """Who signed ``token`` for the address ``audience``; the token is used up. Raises `TokenRefused`."""
        if len(token) > MAX_TOKEN:
            raise TokenRefused("the token is too long")
        header, unproven = _unproven(token)
        client = self._client(header, unproven)
        try:
            claims = self._proven(token, header, client)
            identity = self._check_claims(claims, audience, client)
            self._use_up(claims)
        except TokenRefused as refused:
            refused.client = client.name
            raise
        return identity

    def _client(self, header: Mapping[str, Any], claims: Mapping[str, Any]) -> CdsClient:
        named = [client for client in self._clients if client.issuer == claims.get("iss")]
        if not named:
            raise TokenRefused("iss is not on the list")
        jku = header.get("jku")
        for client in named:
            if jku is None or jku in client.jku:
                return client
        raise TokenRefused("jku is not on the list", named[0].name)

    def _proven(self, token: str, header: Mapping[str, Any], client: CdsClient) -> Mapping[str, Any]:
        """Claims of a token whose signature holds."""
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise TokenRefused("alg is neither ES384 nor RS384")
        if str(header.get("typ", "")).upper() != "JWT":
            raise TokenRefused("typ is not JWT")
        if not isinstance(kid, str) or not kid:
            raise TokenRefused("kid is missing")
        source = str(client.key_set) if client.key_set else str(header.get("jku") or client.jku[0])
        key = self._keys.key(source, kid)
        if key is None:
            raise TokenRefused("no key with this kid in the client's key set")
        try:
            return jwt.decode(token, key=_public_key(key, algorithm), algorithms=[algorithm], options=_UNCHECKED)  # type: ignore[arg-type]
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise TokenRefused(f"the signature does not hold ({type(error).__name__})") from error

    def _check_claims(self, claims: Mapping[str, Any], audience: str, client: CdsClient) -> TrustedClient:
        stated = claims.get("aud")
        if audience not in (stated if isinstance(stated, list) else [stated]):
            raise TokenRefused("aud is not the address that was called")
        issued, expires = _seconds(claims, "iat"), _seconds(claims, "exp")
        now = self._clock().timestamp()
        if expires <= issued or expires - issued > MAX_LIFETIME:
            raise TokenRefused(f"exp is not within {MAX_LIFETIME:.0f} seconds after iat")
        if now >= expires + self._skew:
            raise TokenRefused("the token has expired")
        starts = max(issued, _seconds(claims, "nbf")) if "nbf" in claims else issued
        if starts > now + self._skew:
            raise TokenRefused("the token is from the future: compare the clocks")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not 0 < len(jti) <= 500:
            raise TokenRefused("jti is missing")
        tenant = claims.get("tenant", "")
        if not isinstance(tenant, str) or len(tenant) > 200 or (client.tenants and tenant not in client.tenants):
            raise TokenRefused("tenant is not on the list")
        return TrustedClient(client.name, tenant)

    def _use_up(self, claims: Mapping[str, Any]) -> None:
        """Note the token; the database's key decides when one comes twice at once, to whichever process."""
        now = self._clock()
        expires = datetime.fromtimestamp(float(claims["exp"]) + self._skew, UTC)
        digest = hashlib.sha256(f"{claims['iss']}\n{claims['jti']}".encode("utf-8", "surrogatepass")).hexdigest()
        try:
            with self._begin() as session:
                session.execute(sa.insert(ClientTokenRow).values(id=digest, expires_at=expires))
                if now - self._cleaned > _CLEAN_EVERY:
                    self._cleaned = now
                    session.execute(sa.delete(ClientTokenRow).where(ClientTokenRow.expires_at < now))  # type: ignore[arg-type]
        except IntegrityError as error:
            raise TokenRefused("the token was used before") from error


def _unproven(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims as they say of themselves, to find the key by."""
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise TokenRefused("this is no JSON Web Token") from error
    return header, claims


def _public_key(key: JsonWebKey, algorithm: str) -> Any:
    """The key for `jwt.decode`. Raises `TokenRefused` for one that is not for ``algorithm``, or too weak."""
    if key.get("kty") != ALGORITHMS[algorithm] or key.get("alg", algorithm) != algorithm:
        raise TokenRefused("the key is not for this alg")
    public = {name: key[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in key}
    if algorithm == "ES384":
        if key.get("crv") != "P-384":
            raise TokenRefused("ES384 needs a key on P-384")
        return ECAlgorithm.from_jwk(public)
    found = RSAAlgorithm.from_jwk(public)
    if found.key_size < _MIN_RSA_BITS:
        raise TokenRefused(f"an RSA key needs {_MIN_RSA_BITS} bits")
    return found


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    """A NumericDate (RFC 7519, 2)."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TokenRefused(f"{name} is missing or no time")
    if not 0 <= value < 253402300800 - MAX_LIFETIME:  # the year 10000, where our calendar ends
        raise TokenRefused(f"{name} is missing or no time")
    return float(value)
