"""Reading from the FHIR server of a call: only listed servers, never inward by surprise, bounded, leaving no trace."""

from __future__ import annotations

import json
import threading

import httpx
import pytest
from pydantic import SecretStr

from dermoscopy.errors import DestinationUnavailable, Rejected
from fhir_adapters import fetch
from fhir_adapters.fetch import EhrReader
from fhir_adapters.inward import is_inward, normal_base

BASE, TOKEN = "https://ehr.example/fhir", SecretStr("secret-access-token")
PATIENT = {"resourceType": "Patient", "id": "p1"}


def answer(status=200, content=None, kind="application/fhir+json", **headers):
    body = json.dumps(PATIENT if content is None else content).encode() if not isinstance(content, bytes) else content
    return httpx.Response(status, content=body, headers={"Content-Type": kind, **headers})


@pytest.fixture
def make_reader():
    made = []

    def make(respond=lambda _request: answer(), *, inward=False, address="93.184.216.34", seconds=5.0, base=BASE):
        transport = httpx.MockTransport(respond)
        made.append(
            EhrReader({base: inward}, seconds=seconds, resolve=lambda _host, _port: [address], transport=transport)
        )
        return made[-1]

    yield make
    for reader in made:
        reader.close()


def test_the_request_goes_to_the_checked_address_with_the_token_and_the_name(make_reader):
    seen = []
    reader = make_reader(lambda request: seen.append(request) or answer())
    assert reader.read(f"{BASE}/", "Patient", "p1", TOKEN) == PATIENT
    (request,) = seen
    assert str(request.url) == "https://93.184.216.34/fhir/Patient/p1"
    assert (request.headers["Host"], request.extensions["sni_hostname"]) == ("ehr.example", "ehr.example")
    assert request.headers["Authorization"] == "Bearer secret-access-token"
    reader.read(BASE, "Patient", "p1", None)
    assert "Authorization" not in seen[1].headers


@pytest.mark.parametrize(
    "server",
    [
        "https://evil.example/fhir",
        "https://ehr.example",
        "https://ehr.example/fhir/../admin",
        "https://ehr.example:8443/fhir",
        "http://ehr.example/fhir",
        "https://ehr.example/fhir?x=1",
        "https://user@ehr.example/fhir",
        "https://ehr.example.evil.example/fhir",
        "http://169.254.169.254/latest",
        "http://[::1]/fhir",
        "http://localhost:99999/fhir",
        "https://[ehr.example/fhir",
    ],
)
def test_a_server_that_is_not_listed_is_not_even_resolved(make_reader, server):
    reader = make_reader(address=None)  # breaks if it is looked at
    with pytest.raises(Rejected, match="not one that this service may read from"):
        reader.read(server, "Patient", "p1", TOKEN)


def test_a_name_that_turns_inward_is_refused_unless_that_is_meant(make_reader):
    with pytest.raises(Rejected, match="inward"):
        make_reader(address="10.0.0.7").read(BASE, "Patient", "p1", TOKEN)
    assert make_reader(address="10.0.0.7", inward=True).read(BASE, "Patient", "p1", TOKEN)
    written = "https://10.0.0.7/fhir"
    assert make_reader(address="10.0.0.7", base=written).read(written, "Patient", "p1", TOKEN)


@pytest.mark.parametrize(
    ("address", "inward"),
    [
        ("8.8.8.8", False), ("2606:4700::1111", False), ("127.0.0.1", True), ("10.1.2.3", True),
        ("169.254.169.254", True), ("0.0.0.0", True), ("100.64.0.1", True), ("224.0.0.1", True), ("::1", True),
        ("fe80::1%eth0", True), ("fd00::1", True), ("::ffff:127.0.0.1", True), ("::ffff:8.8.8.8", False),
        ("64:ff9b::7f00:1", True),
        ("64:ff9b::808:808", False), ("2002:7f00:1::", True), ("surely not", True),
    ],
)  # fmt: skip
def test_inward_addresses(address, inward):
    assert is_inward(address) is inward


@pytest.mark.parametrize(
    ("response", "error", "says"),
    [
        (lambda: answer(302, Location="https://evil.example/"), Rejected, "redirects"),
        (lambda: answer(307, Location=f"{BASE}/Patient/p2"), Rejected, "redirects"),
        (lambda: answer(401, {"resourceType": "OperationOutcome"}), Rejected, "HTTP 401"),
        (lambda: answer(404, b""), Rejected, "HTTP 404"),
        (lambda: answer(429), DestinationUnavailable, "HTTP 429"),
        (lambda: answer(503, b"<html>TEST-0042"), DestinationUnavailable, "HTTP 503"),
        (lambda: answer(200, b"<html>TEST-0042", "text/html"), Rejected, "not FHIR JSON"),
        (lambda: answer(200, b"<html>"), Rejected, "not FHIR JSON"),
        (lambda: answer(200, b"[]"), Rejected, "not FHIR JSON"),
        (lambda: answer(200, b"[" * 100_000), Rejected, "not FHIR JSON"),
        (lambda: answer(200, b"\xff\xfe"), Rejected, "not FHIR JSON"),
        (lambda: answer(200, PATIENT | {"name": "\ud800"}), Rejected, "not FHIR JSON"),
        (lambda: answer(200, PATIENT | {"name": "a\x00b"}), Rejected, "not FHIR JSON"),
        (lambda: answer(200, {"resourceType": "OperationOutcome"}), Rejected, "OperationOutcome"),
        (lambda: answer(200, {"resourceType": "Patient", "id": "p2"}), Rejected, "something else"),
        (lambda: answer(200, {"resourceType": "Person", "id": "p1"}), Rejected, "something else"),
        (lambda: answer(200, b" " * (fetch.MAX_BYTES + 1)), Rejected, "more than"),
    ],
)
def test_an_answer_that_is_not_the_patient_is_none(make_reader, response, error, says):
    with pytest.raises(error, match=says) as caught:
        make_reader(lambda _request: response()).read(BASE, "Patient", "p1", TOKEN)
    assert "TEST-0042" not in str(caught.value) and "secret" not in str(caught.value)


@pytest.mark.parametrize("resource_id", ["..", ".", "..."])
def test_an_id_cannot_lead_elsewhere(make_reader, resource_id):
    with pytest.raises(Rejected, match="no id"):
        make_reader().read(BASE, "Patient", resource_id, None)


def test_a_server_that_hangs_is_given_up_in_time(make_reader):
    release = threading.Event()
    reader = make_reader(lambda _request: release.wait(60) and answer(), seconds=0.05)
    try:
        with pytest.raises(DestinationUnavailable, match="in time"):
            reader.read(BASE, "Patient", "p1", TOKEN)
    finally:
        release.set()


def test_a_connection_that_fails_is_told_without_its_text(make_reader):
    def fail(_request):
        raise httpx.ConnectError("secret-access-token")

    with pytest.raises(DestinationUnavailable, match="cannot be reached") as caught:
        make_reader(fail).read(BASE, "Patient", "p1", TOKEN)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("HTTPS://EHR.example:443/fhir/", "https://ehr.example/fhir"),
        ("http://127.0.0.1:8601", "http://127.0.0.1:8601"),
        ("http://[::1]:80/r4", "http://[::1]/r4"),
        ("ftp://ehr.example", ""),
        ("https://ehr.example#x", ""),
    ],
)
def test_addresses_are_compared_in_one_form(written, compared):
    assert normal_base(written) == compared


@pytest.mark.parametrize(
    "address",
    [
        "http://[::1",
        "Binary/..%2f..%2fadmin",
        "Binary/x%5c..%5cadmin",
        "Binary/%2E%2E/admin",
        "https://ehr.example/fhir/../admin",
        "//evil.example/Binary/1",
    ],
)
def test_an_address_that_leads_out_of_its_server_is_no_place(make_reader, address):
    with pytest.raises(Rejected, match="not below a listed server"):
        make_reader().place(address, BASE, "image/png")
