"""The door of the CDS services: one and the same 401 for everybody outside, the reason in the audit log alone."""

from __future__ import annotations

import json

import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from audit.tables import AuditLeaf
from cds_service.hooks import admission
from dermoscopy.errors import Misconfigured
from dermoscopy.settings import ApiToken, CdsClient, Settings
from dermoscopy.tables import utc_now
from tests.findings import fhir_patient, stored_analysis

CALL = "/cds-services/dermoscopy-triage"
BODY = {
    "hook": "patient-view",
    "hookInstance": "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea",
    "context": {"userId": "Practitioner/1", "patientId": "p1"},
    "prefetch": {"patient": fhir_patient()},
}
ISSUER, JKU = "https://ehr.example", "https://ehr.example/jwks.json"
KEY = ec.generate_private_key(ec.SECP384R1())
API = ApiToken(name="ward", token="read-token-0123456789")  # type: ignore[arg-type]


def signed(path=CALL, key=KEY, **claims):
    now = int(utc_now().timestamp())
    said = {"iss": ISSUER, "aud": f"https://derm.example{path}", "iat": now, "exp": now + 60, "jti": "1", **claims}
    return {"Authorization": "Bearer " + jwt.encode(said, key, "ES384", {"kid": "a", "jku": JKU})}


@pytest.fixture
def guarded(open_client, tmp_path):
    keys = {"keys": [{**ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True), "kid": "a"}]}
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    client = CdsClient(name="ehr", issuer=ISSUER, jku=JKU, key_set=tmp_path / "keys.json")
    return open_client(hooks_clients=(client,), public_url="https://derm.example")


def leaves(client, action):
    with client.app.state.node.begin() as session:
        found = session.execute(sa.select(AuditLeaf).where(AuditLeaf.action == action))  # type: ignore[arg-type]
        return list(found.scalars())


def test_a_signed_call_is_let_in_and_stands_in_the_audit_log(guarded):
    stored_analysis(guarded.app.state.node)
    assert len(guarded.post(CALL, json=BODY, headers=signed(tenant="ward")).json()["cards"]) == 1
    (leaf,) = leaves(guarded, "card.shown")
    assert json.loads(leaf.details)["client"] == "ehr/ward"


def test_discovery_and_feedback_have_audiences_of_their_own(guarded):
    assert guarded.get("/cds-services", headers=signed("/cds-services")).status_code == 200
    assert guarded.get("/cds-services", headers=signed(jti="2")).status_code == 401
    said = {
        "feedback": [{"card": BODY["hookInstance"], "outcome": "accepted", "outcomeTimestamp": "2026-03-14T12:00:00Z"}]
    }
    path = f"{CALL}/feedback"
    assert guarded.post(path, json=said, headers=signed(path, jti="3")).status_code == 200
    assert leaves(guarded, "card.feedback")[0].actor == "ehr"


def test_every_refusal_looks_the_same_and_only_the_audit_log_has_the_reason(guarded):
    bad = [
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic YTpi"},
        signed(key=ec.generate_private_key(ec.SECP384R1())),
        signed(exp=1_000_000_060, iat=1_000_000_000),
        signed("/cds-services/other"),
        signed(iss="https://evil.example"),
    ]
    answers = [guarded.post(CALL, json=BODY, headers=headers) for headers in bad]
    answers += [guarded.post(CALL, content=b"{}", headers={"Content-Type": "application/json"})]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.content for answer in answers}) == 1
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {'Bearer realm="dermoscopy"'}
    refused = leaves(guarded, "cds_client.refused")
    assert len(refused) == len(answers)
    reasons = {json.loads(leaf.details)["reason"] for leaf in refused}
    assert {"the token has expired", "aud is not the address that was called", "iss is not on the list"} <= reasons
    assert {leaf.subject_id for leaf in refused} == {"/cds-services/{service_id}"}
    for headers in bad[1:]:
        said = headers["Authorization"].split()[1]
        assert not any(said in leaf.details + leaf.subject_id + leaf.actor for leaf in refused)


def test_a_flood_of_refusals_does_not_flood_the_audit_log(guarded, monkeypatch):
    monkeypatch.setattr(admission, "LEAVES_PER_MINUTE", 2)
    door = guarded.app.state.cds_door
    now = door._minute
    monkeypatch.setattr(door, "_clock", lambda: now)
    for _ in range(5):
        assert guarded.get("/cds-services").status_code == 401
    assert len(leaves(guarded, "cds_client.refused")) == 2
    now += 60.0
    guarded.get("/cds-services")
    further = [json.loads(leaf.details)["further_unwritten"] for leaf in leaves(guarded, "cds_client.refused")]
    assert sorted(further) == [0, 0, 3]


def test_open_is_asked_for(open_client):
    assert open_client(hooks_open=False).post(CALL, json=BODY).status_code == 401
    assert open_client(hooks_open=True).post(CALL, json=BODY).status_code == 200


def test_an_api_token_opens_the_door_too(open_client):
    client = open_client(api_tokens=(API,))
    assert client.post(CALL, json=BODY).status_code == 401
    given = {"Authorization": f"Bearer {API.token.get_secret_value()}"}
    assert client.post(CALL, json=BODY, headers=given).status_code == 200


def test_a_service_under_another_id(open_client):
    client = open_client(hooks_service_ids={"dermoscopy-triage": "derm"})
    offered = [service["id"] for service in client.get("/cds-services").json()["services"]]
    assert offered[0] == "derm" and "dermoscopy-triage" not in offered
    assert client.post("/cds-services/derm", json=BODY).status_code == 200
    assert client.post(CALL, json=BODY).status_code == 404
    with pytest.raises(Misconfigured, match="no service 'x'"):
        open_client(hooks_service_ids={"x": "derm"})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"hooks_open": True, "host": "0.0.0.0", "api_tokens": (API,)}, "loopback only"),
        ({"hooks_open": True, "api_tokens": (API,)}, "choose one"),
        ({"hooks_open": True, "hooks_clients": ({"name": "a", "issuer": "x", "jku": JKU},)}, "choose one"),
        ({"hooks_clients": ({"name": "a", "issuer": "x"},)}, "needs jku"),
        ({"hooks_clients": ({"name": "a", "issuer": "x", "jku": "http://ehr.example/k"},)}, "must be https"),
        ({"hooks_clients": ({"name": "a", "issuer": "x", "jku": JKU},) * 2}, "name of its own"),
        ({"hooks_fhir_servers": ("http://ehr.example/fhir",)}, "must be https"),
        ({"hooks_fhir_servers": ("https://u:p@ehr.example/fhir",)}, "without credentials"),
        ({"hooks_fhir_servers": ("https://ehr.example:x/fhir",)}, "must be https"),
        ({"hooks_service_ids": {"a": "x", "b": "x"}}, "one id"),
    ],
)
def test_what_would_let_in_too_much_does_not_start(wrong, says):
    with pytest.raises(ValueError, match=says):
        Settings(**wrong)
