"""SMART Backend Services over real sockets: a token endpoint that checks assertions (RFC 7523), before a real EHR."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cds_service.fhir_servers import fhir_destination, public_keys
from dermoscopy.domain import ArtifactKind
from dermoscopy.errors import Rejected
from dermoscopy.patients import IssuerMap
from dermoscopy.settings import FhirDestination as FhirSettings
from dermoscopy.settings import Settings
from fhir_adapters.render import RENDERERS
from tests.peers.fhir_server import fhir_server
from tests.peers.fixtures import unavailable
from tests.peers.processes import MissingPeer
from tests.unit.fhir_adapters import scenes

pytestmark = pytest.mark.peers
TOKEN = "the-token-that-the-ehr-takes"
PATIENT = {
    "resourceType": "Patient",
    "identifier": [{"system": scenes.SYSTEM, "value": scenes.PATIENT.patient_id}],
}


class Authority(ThreadingHTTPServer):
    """Knows one client by its JWK set; each assertion is taken once."""

    daemon_threads = True

    def __init__(self, tokens):
        super().__init__(("127.0.0.1", 0), Handler)
        self.key_set: dict = {"keys": []}
        self.tokens = list(tokens)
        self.used: set[str] = set()
        self.refused: list[str] = []
        self.assertions: list[str] = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/token"

    def check(self, form):
        """Empty if this client may have a token, else what is wrong."""
        assertion = form.get("client_assertion", "")
        keys = {key["kid"]: key for key in self.key_set["keys"]}
        try:
            kid = jwt.get_unverified_header(assertion).get("kid")
            if kid not in keys:
                return "unknown key"
            claims = jwt.decode(
                assertion,
                jwt.PyJWK(keys[kid]).key,
                algorithms=[keys[kid]["alg"]],
                audience=self.url,
                options={"require": ["iss", "sub", "aud", "exp", "jti"]},
            )
        except jwt.PyJWTError as error:
            return type(error).__name__
        if claims["iss"] != "derm" or claims["sub"] != "derm":
            return "unknown client"
        if claims["exp"] - claims["iat"] > 300:
            return "too long"
        if claims["jti"] in self.used:
            return "replay"
        self.used.add(claims["jti"])
        return ""


class Handler(BaseHTTPRequestHandler):
    server: Authority

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.server.assertions.append(form.get("client_assertion", ""))
        if problem := self.server.check(form):
            self.server.refused.append(problem)
            return self.say(401, {"error": "invalid_client", "error_description": problem})
        token = self.server.tokens.pop(0) if len(self.server.tokens) > 1 else self.server.tokens[0]
        return self.say(200, {"access_token": token, "token_type": "bearer", "expires_in": 300, "scope": form["scope"]})

    def say(self, status, content):
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def authority():
    server = Authority([TOKEN])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def locked_ehr(tmp_path_factory):
    try:
        with fhir_server(tmp_path_factory.mktemp("locked"), token=TOKEN) as server:
            yield server
    except MissingPeer as missing:
        unavailable(missing)


@pytest.fixture
def ehr(locked_ehr):
    locked_ehr.forget_everything()
    locked_ehr.post(PATIENT).raise_for_status()
    return locked_ehr


@pytest.fixture
def configured(tmp_path, ehr, authority):
    """Settings with a key of our own, which the authority knows by the JWK set that we publish."""

    def made(private=None):
        path = tmp_path / "key.pem"
        how = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes((private or ec.generate_private_key(ec.SECP384R1())).private_bytes(
            serialization.Encoding.PEM, *how
        ))  # fmt: skip
        entry = FhirSettings(name="ehr", base_url=ehr.url, client_id="derm", private_key=path, token_url=authority.url)
        return entry, public_keys(Settings(fhir=(entry,)))

    return made


def deliver(entry):
    what = scenes.SCENES["tier-urgent"]
    destination = fhir_destination(entry, IssuerMap({"CLINIC_A": scenes.SYSTEM}))
    try:
        return destination.deliver(RENDERERS[ArtifactKind.FHIR_BUNDLE](what), what.analysis)
    finally:
        destination.close()


@pytest.mark.parametrize(
    "private", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)], ids=["ES384", "RS384"]
)
def test_a_report_arrives_by_a_token_for_our_signature(private, configured, authority):
    entry, authority.key_set = configured(private)
    assert deliver(entry).reference.startswith("DiagnosticReport/")
    assert (len(authority.assertions), authority.refused) == (1, [])


def test_a_token_that_the_ehr_no_longer_takes_is_renewed_once(configured, authority):
    entry, authority.key_set = configured()
    authority.tokens = ["withdrawn", TOKEN]
    assert deliver(entry).reference
    assert len(set(authority.assertions)) == 2
    authority.tokens = ["withdrawn"]
    with pytest.raises(Rejected, match="401"):
        deliver(entry)
    assert authority.refused == []


def test_a_key_that_nobody_registered_is_held_with_the_reason(configured, authority):
    entry, _ = configured()
    with pytest.raises(Rejected, match="registered there under this client_id"):
        deliver(entry)
    assert authority.refused == ["unknown key"]


def test_the_authority_of_these_tests_refuses_a_replay_and_a_forgery(configured, authority):
    """A guard for the tests above: what is accepted there was looked at."""
    entry, authority.key_set = configured()
    deliver(entry)
    assert authority.check({"client_assertion": authority.assertions[0]}) == "replay"
    foreign = jwt.encode({"iss": "derm"}, ec.generate_private_key(ec.SECP384R1()), "ES384", {"kid": "x"})
    assert authority.check({"client_assertion": foreign}) == "unknown key"
    kid = authority.key_set["keys"][0]["kid"]
    forged = jwt.encode({"iss": "derm"}, ec.generate_private_key(ec.SECP384R1()), "ES384", {"kid": kid})
    assert authority.check({"client_assertion": forged}) == "InvalidSignatureError"
