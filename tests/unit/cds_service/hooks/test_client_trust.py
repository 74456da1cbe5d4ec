"""Tokens of CDS clients: what is believed, and what is not, by a clock of the test."""

from __future__ import annotations

import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from cds_service.hooks.client_trust import ClientTrust, TokenRefused, TrustedClient
from cds_service.hooks.key_sets import KeySets
from dermoscopy.settings import CdsClient
from dermoscopy.tables import ClientTokenRow

NOW = datetime(2026, 3, 14, 12, 0, tzinfo=UTC)
ISSUER, JKU, AUDIENCE = "https://ehr.example", "https://ehr.example/jwks.json", "https://derm.example/cds-services/x"
EC_KEY, RSA_KEY = ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)
WEAK_RSA, OTHER_CURVE, FOREIGN = (
    rsa.generate_private_key(65537, 1024),
    ec.generate_private_key(ec.SECP256R1()),
    ec.generate_private_key(ec.SECP384R1()),
)


def public(key, kid, **more):
    algorithm = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else RSAAlgorithm
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, **more}


KEYS = [
    public(EC_KEY, "ec", alg="ES384", use="sig"),
    public(RSA_KEY, "rsa"),
    public(WEAK_RSA, "weak"),
    public(OTHER_CURVE, "p256"),
    public(EC_KEY, "for-encryption", use="enc"),
    {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldC1zZWNyZXQ", "kid": "shared"},
]
CLIENT = CdsClient(name="ehr", issuer=ISSUER, jku=JKU)


def key_set(*_source):
    return json.dumps({"keys": KEYS}).encode()


def token(key=EC_KEY, alg="ES384", header=(), **claims):
    said = {
        "iss": ISSUER, "aud": AUDIENCE, "jti": "1",
        "iat": int(NOW.timestamp()), "exp": int(NOW.timestamp()) + 300, **claims,
    }  # fmt: skip
    head = {"kid": "ec", "jku": JKU, **dict(header)}
    return jwt.encode(
        {k: v for k, v in said.items() if v is not ...}, key, alg, {k: v for k, v in head.items() if v is not ...}
    )


@pytest.fixture
def make_trust(begin):
    def make(*clients, now=NOW, **more):
        return ClientTrust(clients or (CLIENT,), begin, keys=KeySets(key_set), clock=lambda: now, **more)

    return make


def refusal(trust, *tokens, audience=AUDIENCE):
    for one in tokens[:-1]:
        trust.check(one, audience)
    with pytest.raises(TokenRefused) as caught:
        trust.check(tokens[-1], audience)
    return caught.value.reason


@pytest.mark.parametrize(
    "good",
    [
        lambda: token(),
        lambda: token(RSA_KEY, "RS384", {"kid": "rsa"}),
        lambda: token(aud=["https://other.example", AUDIENCE]),
        lambda: token(header={"jku": ...}),
        lambda: token(iat=int(NOW.timestamp()) + 59, exp=int(NOW.timestamp()) + 300),
        lambda: token(iat=int(NOW.timestamp()) - 359, exp=int(NOW.timestamp()) - 59),
    ],
)
def test_a_token_of_a_listed_client_is_believed(make_trust, good):
    assert make_trust().check(good(), AUDIENCE) == TrustedClient("ehr")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (lambda: "no.token.atall", "no JSON Web Token"),
        (lambda: "x" * 9000, "too long"),
        (lambda: token(FOREIGN), "signature"),
        (lambda: token()[:-8] + "AAAAAAAA", "signature"),
        (lambda: token(iss="https://evil.example"), "iss is not"),
        (lambda: token(iss=...), "iss is not"),
        (lambda: token(header={"jku": "https://evil.example/jwks.json"}), "jku is not"),
        (lambda: token(header={"kid": "nobody"}), "no key with this kid"),
        (lambda: token(header={"kid": "for-encryption"}), "no key with this kid"),
        (lambda: token(header={"kid": ...}), "kid is missing"),
        (lambda: token(header={"typ": "other"}), "typ is not"),
        (lambda: token("", "none"), "alg is neither"),
        (lambda: token("secret-" * 7, "HS384", {"kid": "shared"}), "alg is neither"),
        (lambda: token(OTHER_CURVE, "ES256", {"kid": "p256"}), "alg is neither"),
        (lambda: token(RSA_KEY, "RS384"), "not for this alg"),
        (lambda: token(WEAK_RSA, "RS384", {"kid": "weak"}), "2048 bits"),
        (lambda: token(header={"kid": "p256"}), "P-384"),
        (lambda: token(aud="https://derm.example/cds-services/x/"), "aud is not"),
        (lambda: token(aud="https://derm.example/cds-services"), "aud is not"),
        (lambda: token(aud=...), "aud is not"),
        (lambda: token(aud=[]), "aud is not"),
        (lambda: token(exp=...), "exp is missing"),
        (lambda: token(exp="soon"), "exp is missing"),
        (lambda: token(exp=1e300), "exp is missing"),
        (lambda: token(iat=...), "iat is missing"),
        (lambda: token(iat=True), "iat is missing"),
        (lambda: token(exp=int(NOW.timestamp()) + 3601), "within 3600 seconds"),
        (lambda: token(exp=int(NOW.timestamp())), "within 3600 seconds"),
        (lambda: token(iat=int(NOW.timestamp()) - 360, exp=int(NOW.timestamp()) - 60), "expired"),
        (lambda: token(iat=int(NOW.timestamp()) + 61), "future"),
        (lambda: token(nbf=int(NOW.timestamp()) + 61), "future"),
        (lambda: token(jti=...), "jti is missing"),
        (lambda: token(jti=""), "jti is missing"),
        (lambda: token(tenant=7), "tenant"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:The RSA key is 1024")
def test_anything_else_is_not(make_trust, begin, bad, reason):
    bad = bad()
    said = refusal(make_trust(), bad)
    assert reason in said
    assert bad not in said
    with begin() as session:
        assert not session.execute(sa.select(ClientTokenRow)).all()


def test_a_token_is_good_once_also_in_another_process(make_trust):
    one = token()
    assert "used before" in refusal(make_trust(), one, one)
    assert "used before" in refusal(make_trust(), one)
    assert make_trust().check(token(jti="2"), AUDIENCE)


def test_of_a_token_that_comes_many_times_at_once_one_is_let_in(make_trust):
    trust, one, found = make_trust(), token(), []

    def check():
        try:
            found.append(trust.check(one, AUDIENCE).name)
        except TokenRefused as refused:
            found.append(refused.reason)

    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["ehr"] + ["the token was used before"] * 7


def test_used_tokens_are_forgotten_when_they_have_expired(make_trust, begin):
    make_trust().check(token(), AUDIENCE)
    later = NOW + timedelta(seconds=361)
    make_trust(now=later).check(token(jti="2", iat=int(later.timestamp()), exp=int(later.timestamp()) + 60), AUDIENCE)
    with begin() as session:
        assert len(session.execute(sa.select(ClientTokenRow)).all()) == 1


def test_tenants(make_trust):
    listed = CdsClient(name="ehr", issuer=ISSUER, jku=JKU, tenants=("ward",))
    assert make_trust(listed).check(token(tenant="ward"), AUDIENCE) == TrustedClient("ehr", "ward")
    assert "tenant" in refusal(make_trust(listed), token(jti="2"))


def test_one_clients_key_does_not_speak_for_another(begin):
    other = CdsClient(name="other", issuer="https://other.example", jku="https://other.example/jwks.json")
    sets = {JKU: [], other.jku[0]: [public(FOREIGN, "ec")]}
    keys = KeySets(lambda source: json.dumps({"keys": sets[source]}).encode())
    trust = ClientTrust((CLIENT, other), begin, keys=keys, clock=lambda: NOW)
    assert "jku is not" in refusal(trust, token(FOREIGN, header={"jku": other.jku[0]}))


def test_the_recorded_call_of_the_official_sandbox_verifies_at_its_own_time(open_client):
    default = Path(__file__).resolve().parents[4].parent / "shared" / "data"
    vectors = Path(os.environ.get("CDS_SHARED_DATA", default)).parent / "vectors"
    if not vectors.is_dir():
        pytest.skip(f"no recorded call: {vectors} is absent (set CDS_SHARED_DATA to its sibling)")
    call = json.loads((vectors / "cds-hooks-sandbox-request.json").read_text())
    client = CdsClient(
        name="sandbox",
        issuer="https://sandbox.cds-hooks.org",
        jku="https://sandbox.cds-hooks.org/.well-known/jwks.json",
        key_set=vectors / "cds-hooks-sandbox-jwks.json",
    )
    http = open_client(
        hooks_clients=(client,),
        hooks_service_ids={"dermoscopy-triage": "derm"},
        hooks_fhir_servers=(call["body"]["fhirServer"],),
    )

    def ask():
        return http.post(call["path"], json=call["body"], headers=call["headers"])

    assert ask().status_code == 401  # expired long ago
    claims = jwt.decode(call["headers"]["Authorization"].split()[1], options={"verify_signature": False})
    http.app.state.cds_door._trust._clock = lambda: datetime.fromtimestamp(claims["iat"], UTC)
    answer = ask()
    assert (answer.status_code, answer.json()) == (200, {"cards": []})
    assert ask().status_code == 401  # a replay
