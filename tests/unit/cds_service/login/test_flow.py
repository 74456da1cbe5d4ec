"""Logins from beginning to end against scripted providers: roles, patients, and what may be asked of whom."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from cds_service.login.attempts import Attempt
from cds_service.login.directory import Directory
from cds_service.login.flow import LoginFlow, granted_role, launched_role
from cds_service.login.refusals import LoginFailed
from dermoscopy.patients import IssuerMap
from dermoscopy.settings import LoginProvider, Role, Settings, SmartServer

EHR = "https://ehr.example/fhir"
DOCUMENT = {
    "issuer": "https://login.example",
    "authorization_endpoint": "https://login.example/auth?tenant=1",
    "token_endpoint": "https://login.example/token",
    "jwks_uri": "https://login.example/jwks",
}
PROVIDER = LoginProvider(
    issuer="https://login.example", client_id="page", roles={"derm": Role.REVIEW, "it": Role.ADMIN, "ward": Role.READ}
)
SERVER = SmartServer(base_url=EHR, client_id="smart")


@pytest.fixture
def flow():
    settings = Settings(login=PROVIDER, smart_launch_servers=(SERVER,), public_url="https://derm.example")
    made = LoginFlow(settings, IssuerMap(), directory=Directory(read=lambda address: json.dumps(DOCUMENT).encode()))
    yield made
    made.close()


def asked(address):
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}


def test_a_login_asks_for_a_code_with_proof_and_nonce(flow):
    address, attempt = flow.begin_login("/worklist?urgency=urgent")
    said = asked(address)
    assert address.startswith("https://login.example/auth?tenant=1&")
    assert said["response_type"] == "code" and said["scope"] == "openid profile"
    assert said["redirect_uri"] == "https://derm.example/login/callback"
    assert (said["state"], said["nonce"]) == (attempt.state, attempt.nonce)
    assert said["code_challenge_method"] == "S256" and attempt.verifier not in address
    assert attempt.next == "/worklist?urgency=urgent" and attempt.ehr == ""


def test_a_launch_asks_the_ehr_that_launched_with_its_launch(flow):
    address, attempt = flow.begin_launch(EHR + "/", "xyz123")
    said = asked(address)
    assert (said["aud"], said["launch"], said["client_id"]) == (EHR + "/", "xyz123", "smart")
    assert said["scope"] == "launch openid fhirUser patient/*.read"
    assert attempt.ehr == EHR


@pytest.mark.parametrize("iss", ["", "https://evil.example/fhir", EHR + "/..", EHR.upper(), "http://ehr.example/fhir"])
def test_nobody_else_launches(flow, iss):
    with pytest.raises(LoginFailed, match="smart_launch_servers"):
        flow.begin_launch(iss, "xyz123")


def test_a_launch_without_launch_is_none(flow):
    with pytest.raises(LoginFailed, match="no launch parameter"):
        flow.begin_launch(EHR, "")


def test_an_answer_of_another_provider_is_refused_before_the_code_goes_anywhere(flow):
    with pytest.raises(LoginFailed, match="Another provider"):
        flow.finish(Attempt(), "code", "https://evil.example")
    with pytest.raises(LoginFailed, match="may not launch the page any more"):
        flow.finish(Attempt(ehr="https://evil.example/fhir"), "code")


@pytest.mark.parametrize(
    ("claims", "role"),
    [
        ({"roles": ["derm"]}, Role.REVIEW),
        ({"roles": ["ward", "it", "derm"]}, Role.ADMIN),
        ({"roles": "ward other"}, Role.READ),
        ({"roles": ["admin", 7, None]}, None),
        ({"roles": {"derm": True}}, None),
        ({}, None),
    ],
)
def test_roles_come_from_the_claim_that_the_settings_name(claims, role):
    assert granted_role(PROVIDER, claims) is role


def test_a_claim_may_lie_deeper_and_a_default_may_stand_in():
    deeper = PROVIDER.model_copy(update={"role_claim": "realm_access.roles"})
    assert granted_role(deeper, {"realm_access": {"roles": ["derm"]}}) is Role.REVIEW
    assert granted_role(deeper, {"realm_access": ["derm"]}) is None
    assert granted_role(deeper.model_copy(update={"default_role": Role.READ}), {}) is Role.READ


@pytest.mark.parametrize("user", ["Practitioner/7", f"{EHR}/Practitioner/7", f"{EHR}/PractitionerRole/7/"])
def test_a_practitioner_has_the_role_of_the_settings(user):
    assert launched_role(SERVER, {"fhirUser": user}) is Role.REVIEW


def test_whom_the_ehr_does_not_name_only_reads():
    assert launched_role(SERVER, {}) is Role.READ


@pytest.mark.parametrize("user", ["Patient/7", f"{EHR}/RelatedPerson/1", "", 7, "Practitioner", f"{EHR}/Person/1"])
def test_a_patient_is_not_let_in(user):
    with pytest.raises(LoginFailed, match="clinicians"):
        launched_role(SERVER, {"fhirUser": user})
