"""The key by which this service proves to an authorization server who it is (asymmetric client authentication).

https://hl7.org/fhir/smart-app-launch/client-confidential-asymmetric.html: a signature by RS384 or ES384; the public
half is registered with the EHR, as a JWK set (RFC 7517) or as the address of one.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from dermoscopy.errors import Misconfigured

MIN_RSA_BITS = 2048
_REQUIRED = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")}
"""Members that make the thumbprint of a key (RFC 7638, 3.2)."""


@dataclass(frozen=True, slots=True)
class ClientKey:
    """A private key with the algorithm that it signs by and the name under which its public half is known."""

    private: EllipticCurvePrivateKey | RSAPrivateKey = field(repr=False)
    algorithm: str
    """``ES384`` or ``RS384``."""
    kid: str

    @property
    def public_jwk(self) -> Mapping[str, Any]:
        """The public half (RFC 7517), for the EHR to check our signatures by."""
        return {**_public_members(self.private), "kid": self.kid, "alg": self.algorithm, "use": "sig"}


def load_client_key(path: Path, kid: str = "") -> ClientKey:
    """The key in a PEM file without a password; ``kid`` defaults to its thumbprint (RFC 7638).

    Raises `Misconfigured` if there is none that can be used; the file's content is never repeated.
    """
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise Misconfigured(f"private_key {path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError) as error:
        raise Misconfigured(f"private_key {path} is no private key in PEM without a password") from error
    if isinstance(private, EllipticCurvePrivateKey) and isinstance(private.curve, SECP384R1):
        return ClientKey(private, "ES384", kid or thumbprint(_public_members(private)))
    if isinstance(private, RSAPrivateKey) and private.key_size >= MIN_RSA_BITS:
        return ClientKey(private, "RS384", kid or thumbprint(_public_members(private)))
    raise Misconfigured(f"private_key {path} must be on the curve P-384 (ES384), or RSA of {MIN_RSA_BITS} bits (RS384)")


def key_set(keys: Iterable[ClientKey]) -> dict[str, Any]:
    """The JWK set (RFC 7517, 5) of the public halves, each once."""
    return {"keys": list({key.kid: dict(key.public_jwk) for key in keys}.values())}


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """SHA-256 thumbprint of a public key (RFC 7638), base64url."""
    members = {name: jwk[name] for name in _REQUIRED[jwk["kty"]]}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode("ascii")
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).decode("ascii").rstrip("=")


def _public_members(private: EllipticCurvePrivateKey | RSAPrivateKey) -> dict[str, Any]:
    found: dict[str, Any]
    if isinstance(private, EllipticCurvePrivateKey):
        found = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    else:
        found = RSAAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return {name: found[name] for name in _REQUIRED[found["kty"]]}
