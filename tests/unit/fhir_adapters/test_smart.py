"""Tokens by SMART Backend Services, from a scripted authorization server: what is asked, what each answer does."""

from __future__ import annotations

import json
import threading
import time
from urllib.parse import parse_qs

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr
from structlog.testing import capture_logs

from dermoscopy.errors import DestinationUnavailable, Rejected
from fhir_adapters.client_key import ClientKey
from fhir_adapters.server import FhirServer
from fhir_adapters.smart import BackendClient, BackendServicesToken

BASE, TOKEN_URL = "https://ehr.example/fhir", "https://auth.example/token"
PRIVATE = ec.generate_private_key(ec.SECP384R1())
KEY = ClientKey(PRIVATE, "ES384", "k-1")
CLIENT = BackendClient("derm", KEY, "system/Patient.rs", TOKEN_URL)
TIMEOUT = httpx.Timeout(5)


class Authority:
    """Gives tokens ``t-1``, ``t-2`` …, and stands for the FHIR server too: it knows which of them it would take."""

    def __init__(self):
        self.now = 1_000_000.0
        self.requests: list[httpx.Request] = []
        self.answer: httpx.Response | None = None
        self.configuration = httpx.Response(200, json={"token_endpoint": TOKEN_URL})
        self.given = 0
        self.slow = 0.0
        self.expires_in: object = 300
        self.good = lambda token: True

    def __call__(self, request):
        self.requests.append(request)
        if request.url.path.endswith("smart-configuration"):
            return self.configuration
        if str(request.url) == TOKEN_URL:
            if self.answer is not None:
                return self.answer
            self.given += 1
            time.sleep(self.slow)
            said = {"access_token": f"t-{self.given}", "token_type": "bearer", "expires_in": self.expires_in}
            return httpx.Response(200, json={k: v for k, v in said.items() if v is not None})
        good = self.good(request.headers.get("Authorization", "").removeprefix("Bearer "))
        return httpx.Response(200 if good else 401, json={"resourceType": "Bundle"})

    def asked(self, host):
        return [request for request in self.requests if request.url.host == host]

    def client(self, known=CLIENT):
        transport = httpx.MockTransport(self)
        auth = BackendServicesToken(
            "FHIR server 'ehr'", BASE, known, timeout=TIMEOUT, transport=transport, clock=lambda: self.now
        )
        return httpx.Client(auth=auth, transport=transport, base_url=BASE)


@pytest.fixture
def authority():
    return Authority()


def test_the_assertion_says_who_asks_whom_once(authority):
    authority.client().post("/Patient/_search")
    (asked,) = authority.asked("auth.example")
    form = {name: value for name, (value,) in parse_qs(asked.content.decode()).items()}
    assert form["grant_type"] == "client_credentials"
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert form["scope"] == "system/Patient.rs"
    options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(form["client_assertion"], PRIVATE.public_key(), ["ES384"], options, audience=TOKEN_URL)
    assert claims["iss"] == claims["sub"] == "derm"
    assert 0 < claims["exp"] - authority.now <= 300
    assert len(claims["jti"]) >= 32
    assert jwt.get_unverified_header(form["client_assertion"]) == {"alg": "ES384", "kid": "k-1", "typ": "JWT"}


def test_a_token_serves_until_shortly_before_it_ends(authority):
    client = authority.client()
    for later, expected in ((0, "t-1"), (269, "t-1"), (2, "t-2")):
        authority.now += later
        client.get("/x")
        assert authority.requests[-1].headers["Authorization"] == f"Bearer {expected}"
    jtis = [jwt.decode(parse_qs(r.content.decode())["client_assertion"][0], options={"verify_signature": False})["jti"]
            for r in authority.asked("auth.example")]  # fmt: skip
    assert len(set(jtis)) == 2


@pytest.mark.parametrize("seconds", [None, "300", True, float("1e400"), 0, -5])
def test_a_token_of_unclear_length_is_soon_renewed(authority, seconds):
    authority.answer = httpx.Response(
        200, content=json.dumps({"access_token": "t", "token_type": "Bearer", "expires_in": seconds})
    )
    client = authority.client()
    client.get("/x")
    authority.now += 61
    client.get("/x")
    assert len(authority.asked("auth.example")) == 2


def test_a_refused_token_is_renewed_once_and_the_request_sent_again(authority):
    client = authority.client()
    client.get("/x")
    authority.good = lambda token: token == "t-2"
    assert client.post("/y", content=b"body").status_code == 200
    assert [r.content for r in authority.requests if r.url.path == "/fhir/y"] == [b"body", b"body"]
    authority.good = lambda token: False
    assert client.get("/z").status_code == 401
    assert authority.given == 3


def test_many_threads_fetch_one_token(authority):
    client, authority.slow = authority.client(), 0.1
    threads = [threading.Thread(target=client.get, args=("/x",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert authority.given == 1


def test_the_token_endpoint_is_asked_of_the_fhir_server(authority):
    found = BackendClient("derm", KEY, "s")
    authority.client(found).get("/x")
    assert [str(r.url) for r in authority.requests[:2]] == [f"{BASE}/.well-known/smart-configuration", TOKEN_URL]
    assert "Authorization" not in authority.requests[0].headers


@pytest.mark.parametrize(
    ("configuration", "error", "said"),
    [
        (httpx.Response(200, json={}), Rejected, "token_endpoint"),
        (httpx.Response(200, json={"token_endpoint": "http://auth.example/token"}), Rejected, "https"),
        (httpx.Response(200, json={"token_endpoint": "https://[::1"}), Rejected, "https"),
        (
            httpx.Response(
                200, json={"token_endpoint": TOKEN_URL, "token_endpoint_auth_signing_alg_values_supported": ["RS384"]}
            ),
            Rejected,
            "ES384",
        ),
        (httpx.Response(404, text="<html>"), Rejected, "SMART configuration"),
        (httpx.Response(503), DestinationUnavailable, "503"),
        (httpx.Response(302, headers={"Location": "https://evil.example"}), Rejected, "redirects"),
    ],
)
def test_a_configuration_that_does_not_help_is_told(authority, configuration, error, said):
    authority.configuration = configuration
    with pytest.raises(error, match=said):
        authority.client(BackendClient("derm", KEY, "s")).get("/x")
    assert authority.asked("evil.example") == []


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (httpx.Response(401, json={"error": "invalid_client", "error_description": "s3cret"}), Rejected, "public key"),
        (httpx.Response(400, json={"error": "invalid_scope"}), Rejected, "invalid_scope"),
        (httpx.Response(400, json={"error": "s3cret"}), Rejected, "400"),
        (httpx.Response(429, headers={"Retry-After": "7"}), DestinationUnavailable, "429"),
        (httpx.Response(500, text="s3cret"), DestinationUnavailable, "500"),
        (httpx.Response(200, text="<html>s3cret"), DestinationUnavailable, "without a token"),
        (httpx.Response(200, json=["s3cret"]), DestinationUnavailable, "without a token"),
        (httpx.Response(200, json={"access_token": "a\nb", "token_type": "bearer"}), DestinationUnavailable, "without"),
        (httpx.Response(200, json={"access_token": "s3cret", "token_type": "mac"}), Rejected, "Bearer"),
        (httpx.Response(307, headers={"Location": "https://evil.example"}), Rejected, "redirects"),
    ],
)
def test_refusals_are_sorted_and_nothing_secret_is_repeated(authority, answer, error, said):
    authority.answer = answer
    with pytest.raises(error, match=said) as caught:
        authority.client().get("/x")
    assert "s3cret" not in str(caught.value)
    assert authority.asked("ehr.example") == []
    if answer.headers.get("Retry-After"):
        assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("error", "said"), [(httpx.ConnectTimeout, "in time"), (httpx.ConnectError, "cannot be reached")]
)
def test_an_authority_that_is_away_is_asked_again(error, said):
    def away(request):
        raise error("t-1", request=request)

    server = FhirServer("ehr", BASE, client=CLIENT, transport=httpx.MockTransport(away))
    with pytest.raises(DestinationUnavailable, match=said):
        server.search("Patient", "s", ["v"])
    server.close()


def test_logs_and_errors_carry_neither_token_nor_assertion(authority):
    with capture_logs() as logs:
        authority.client().get("/x")
    assertion = parse_qs(authority.asked("auth.example")[0].content.decode())["client_assertion"][0]
    said = json.dumps(logs)
    assert '"fhir.token"' in said
    assert "t-1" not in said
    assert assertion[:20] not in said


def test_a_static_token_is_never_asked_for(authority):
    server = FhirServer("ehr", BASE, token=SecretStr("fixed"), transport=httpx.MockTransport(authority))
    server.search("Patient", "s", ["v"])
    assert {r.headers["Authorization"] for r in authority.requests} == {"Bearer fixed"}
    server.close()
