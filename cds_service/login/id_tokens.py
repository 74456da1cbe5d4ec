"""ID tokens: whose login it was (OpenID Connect Core 1.0, 3.1.3.7)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Final

import jwt

from cds_service.hooks.key_sets import KeySets
from cds_service.login.directory import Endpoints
from cds_service.login.refusals import LoginFailed

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "ES256", "ES384")
"""Signatures that are taken. Never ``none``, and nothing symmetric."""
SKEW_SECONDS: Final = 60.0
_REQUIRED: Final = ["iss", "sub", "aud", "exp", "iat"]


def checked_claims(token: object, endpoints: Endpoints, client_id: str, nonce: str, keys: KeySets) -> Mapping[str, Any]:
    """Claims of an ID token that is for us and for this very login. Raises `LoginFailed`; no part of it is repeated."""
    if not isinstance(token, str) or len(token) > 64 * 1024:
        raise LoginFailed("The provider gave no ID token: is the scope openid allowed for this client?")
    try:
        header = jwt.get_unverified_header(token)
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS or not isinstance(kid, str):
            raise LoginFailed("The ID token is signed in a way that is not taken here, or names no key (kid).")
        key = keys.key(endpoints.keys, kid)
        if key is None:
            raise LoginFailed("The ID token is signed with a key that the provider does not publish.")
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key=jwt.PyJWK(dict(key), algorithm).key,
            algorithms=[algorithm],
            audience=client_id,
            issuer=endpoints.issuer,
            leeway=SKEW_SECONDS,
            options={"require": _REQUIRED},
        )
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise LoginFailed(f"The ID token does not hold ({type(error).__name__}).") from error
    audience = claims["aud"]
    if isinstance(audience, list) and len(audience) > 1 and claims.get("azp") != client_id:
        raise LoginFailed("The ID token is for several clients and was not issued to this one.")
    given = claims.get("nonce")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
        raise LoginFailed("The ID token belongs to another login (nonce).")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise LoginFailed("The ID token names nobody (sub).")
    return claims
