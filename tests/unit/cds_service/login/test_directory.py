"""Where providers are: only what their own documents say, and only what is safe to ask."""

from __future__ import annotations

import json

import pytest

from cds_service.login.directory import LIFETIME_SECONDS, Directory
from cds_service.login.refusals import LoginFailed
from dermoscopy.errors import Unavailable

GOOD = {
    "issuer": "https://login.example",
    "authorization_endpoint": "https://login.example/auth",
    "token_endpoint": "https://login.example/token",
    "jwks_uri": "https://login.example/jwks",
}


def directory(**changes):
    return Directory(read=lambda address: json.dumps({**GOOD, **changes}).encode())


def test_a_document_is_read_once_an_hour():
    asked, clock = [], [0.0]

    def read(address):
        asked.append(address)
        return json.dumps(GOOD).encode()

    found = Directory(read, lambda: clock[0])
    assert found.provider("https://login.example") == found.provider("https://login.example")
    found.ehr("https://ehr.example/fhir/")
    clock[0] = LIFETIME_SECONDS + 1
    found.ehr("https://ehr.example/fhir")
    smart = "https://ehr.example/fhir/.well-known/smart-configuration"
    assert asked == ["https://login.example/.well-known/openid-configuration", smart, smart]


def test_a_provider_that_names_another_issuer_is_not_asked():
    with pytest.raises(LoginFailed, match="another issuer"):
        directory(issuer="https://evil.example").provider("https://login.example")


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
@pytest.mark.parametrize("value", [None, 7, "", "login", "http://login.example/x", "file:///etc/passwd"])
def test_every_endpoint_is_https(name, value):
    with pytest.raises(LoginFailed, match=name):
        directory(**{name: value}).ehr("https://ehr.example/fhir")


def test_loopback_needs_no_https():
    assert directory(token_endpoint="http://127.0.0.1:9/token").ehr("http://localhost:9/fhir").issuer == GOOD["issuer"]


@pytest.mark.parametrize("data", [b"<html>", b"[]", b"{}", b"[" * 100_000])
def test_what_is_no_document_is_told(data):
    with pytest.raises(LoginFailed):
        Directory(read=lambda address: data).ehr("https://ehr.example/fhir")


def test_a_provider_that_is_away_is_told():
    def away(address):
        raise Unavailable("the address answered HTTP 503")

    with pytest.raises(LoginFailed, match="HTTP 503"):
        Directory(away).provider("https://login.example")
