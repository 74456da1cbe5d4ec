"""ID tokens: what is believed, and every way in which one is not."""

from __future__ import annotations

import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cds_service.hooks.key_sets import KeySets
from cds_service.login.directory import Endpoints
from cds_service.login.id_tokens import checked_claims
from cds_service.login.refusals import LoginFailed

ISSUER, CLIENT, NONCE = "https://login.example", "page", "n-0S6_WzA2Mj"
ENDPOINTS = Endpoints(ISSUER, f"{ISSUER}/auth", f"{ISSUER}/token", f"{ISSUER}/jwks")
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def keys():
    published = [
        {**json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA_KEY.public_key())), "kid": "rsa", "use": "sig"},
        {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC_KEY.public_key())), "kid": "ec"},
    ]
    return KeySets(read=lambda source: json.dumps({"keys": published}).encode())


def token(*, key=RSA_KEY, algorithm="RS256", kid="rsa", without=(), **changes):
    now = time.time()
    claims = {"iss": ISSUER, "sub": "ada", "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": NONCE, **changes}
    said = {name: value for name, value in claims.items() if name not in without}
    return jwt.encode(said, key, algorithm=algorithm, headers={"kid": kid} if kid else {})


def check(text, keys):
    return checked_claims(text, ENDPOINTS, CLIENT, NONCE, keys)


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA_KEY, "RS256", "rsa"), (EC_KEY, "ES256", "ec")])
def test_a_good_token_says_who_it_was(keys, key, algorithm, kid):
    assert check(token(key=key, algorithm=algorithm, kid=kid, name="Ada"), keys)["sub"] == "ada"


def test_several_audiences_need_the_authorised_party(keys):
    assert check(token(aud=[CLIENT, "other"], azp=CLIENT), keys)["sub"] == "ada"
    with pytest.raises(LoginFailed, match="several clients"):
        check(token(aud=[CLIENT, "other"]), keys)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://evil.example"}, "InvalidIssuer"),
        ({"aud": "another"}, "InvalidAudience"),
        ({"exp": time.time() - 120}, "Expired"),
        ({"iat": time.time() + 600}, "Immature"),
        ({"nonce": "another"}, "nonce"),
        ({"without": ("nonce",)}, "nonce"),
        ({"without": ("sub",)}, "MissingRequiredClaim"),
        ({"without": ("exp",)}, "MissingRequiredClaim"),
        ({"sub": ""}, "names nobody"),
        ({"kid": "unknown"}, "does not publish"),
        ({"kid": None}, "names no key"),
        ({"kid": "ec"}, "does not hold"),
        ({"key": "x" * 64, "algorithm": "HS256"}, "signed in a way"),
        ({"key": None, "algorithm": "none"}, "signed in a way"),
    ],
)
def test_what_is_wrong_is_not_believed(keys, changes, why):
    with pytest.raises(LoginFailed, match=why):
        check(token(**changes), keys)


@pytest.mark.parametrize("text", [None, "", "a.b.c", "x" * 70_000, 7])
def test_what_is_no_token_is_not_believed(keys, text):
    with pytest.raises(LoginFailed):
        check(text, keys)


def test_a_token_signed_with_another_key_of_that_name_is_not_believed(keys):
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(LoginFailed, match="does not hold"):
        check(token(key=other), keys)
