"""Our key: what is taken, what it is called, and that only its public half is shown."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import PyJWK

from dermoscopy.errors import Misconfigured
from fhir_adapters.client_key import key_set, load_client_key, thumbprint

P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)


def pem(key, password=b""):
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


@pytest.fixture
def written(tmp_path):
    def write(content):
        path = tmp_path / "key.pem"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize(("key", "algorithm"), [(P384, "ES384"), (RSA, "RS384")])
def test_the_key_decides_the_algorithm_and_its_public_half_checks_its_signatures(key, algorithm, written):
    found = load_client_key(written(pem(key)))
    assert found.algorithm == algorithm
    assert found.public_jwk["kid"] == found.kid == thumbprint(found.public_jwk)
    assert PyJWK(dict(found.public_jwk)).key.public_numbers() == key.public_key().public_numbers()


@pytest.mark.parametrize("key", [P384, RSA])
def test_nothing_private_is_published_or_shown(key, written):
    found = load_client_key(written(pem(key)), "2026-a")
    (published,) = key_set([found, found])["keys"]
    assert published["kid"] == "2026-a"
    assert set(published) <= {"kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"}
    assert "PRIVATE" not in repr(found)
    assert "object at" not in repr(found)


def test_the_thumbprint_is_that_of_the_example_of_rfc_7638():
    jwk = json.loads(
        '{"kty":"RSA","e":"AQAB","alg":"RS256","kid":"2011-04-29","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx'
        "4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-"
        "65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lF"
        'd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}'
    )
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n",
        pem(P384, b"password"),
        pem(ec.generate_private_key(ec.SECP256R1())),
        pem(rsa.generate_private_key(65537, 1024)),
        pem(ed25519.Ed25519PrivateKey.generate()),
    ],
)
def test_keys_that_cannot_be_used_are_named_without_their_content(content, written):
    with pytest.raises(Misconfigured, match=r"key\.pem") as caught:
        load_client_key(written(content))
    assert "secret" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(Misconfigured, match="cannot be read"):
        load_client_key(tmp_path / "none.pem")
