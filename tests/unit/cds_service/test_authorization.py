"""Tokens, roles, and who may ask an open service."""

from __future__ import annotations

import base64

import pytest

from cds_service.api.refusals import CrossSiteRequest, Misdirected
from cds_service.authorization import Gate, OpenService
from dermoscopy.settings import ApiToken, Role, Settings
from tests.findings import stored_analysis, take_in

READ, SUBMIT, ADMIN = "read-token-0123456789", "submit-token-0123456789", "admin-token-0123456789"
TOKENS = tuple(
    ApiToken(name=name, token=token, role=role)  # type: ignore[arg-type]
    for name, token, role in (("ward", READ, Role.READ), ("camera", SUBMIT, Role.SUBMIT), ("it", ADMIN, Role.ADMIN))
)


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def basic(token):
    return {"Authorization": "Basic " + base64.b64encode(f"anyone:{token}".encode()).decode()}


@pytest.fixture
def locked(open_client):
    return open_client(api_tokens=TOKENS)


def test_the_gate_knows_each_token_and_no_other():
    gate = Gate(TOKENS)
    found = [gate.identify(token) for token in (READ, SUBMIT, ADMIN)]
    assert [caller.name for caller in found if caller] == ["ward", "camera", "it"]
    assert gate.identify(READ[:-1]) is None
    assert gate.identify(READ + "x") is None
    assert gate.identify("") is None
    assert not gate.open and Gate(()).open


@pytest.mark.parametrize("headers", [{}, bearer("wrong-token-0123456789"), {"Authorization": f"Token {READ}"}])
@pytest.mark.parametrize(
    "path", ["/api/v1/analyses", "/api/v1/holds", "/api/v1/models", "/cds-services", "/metrics", "/"]
)
def test_without_a_known_token_nothing_is_shown(locked, path, headers):
    answer = locked.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic" if path in ("/", "/metrics") else "Bearer")


def test_probes_need_no_token(locked):
    assert locked.get("/health/live").status_code == 200
    assert locked.get("/health/ready").status_code == 200


@pytest.mark.parametrize(("token", "submit", "decide"), [(READ, 403, 403), (SUBMIT, 422, 403), (ADMIN, 422, 404)])
def test_each_role_includes_the_ones_before_it(locked, token, submit, decide):
    assert locked.get("/api/v1/analyses", headers=bearer(token)).status_code == 200
    image = {"image": base64.b64encode(b"no image").decode()}
    assert locked.post("/api/v1/analyze", json=image, headers=bearer(token)).status_code == submit
    path = "/api/v1/holds/6f0f3d3e-8c0e-5a43-9d0b-3f6c4c1f2a77/resolve"
    answer = locked.post(path, json={"decision": "dismiss"}, headers=bearer(token))
    assert answer.status_code == decide
    if decide == 403:
        assert "admin" in answer.json()["detail"]


def test_a_body_is_not_read_before_the_token_is_known(locked):
    answer = locked.post("/api/v1/analyze", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 401


def test_a_browser_reads_with_a_token_as_password_but_changes_nothing_with_it(locked):
    analysis = stored_analysis(locked.app.state.node)
    assert locked.get(f"/analyses/{analysis.id}", headers=basic(READ)).status_code == 200
    assert locked.get(f"/api/v1/analyses/{analysis.id}/overlay", headers=basic(READ)).status_code == 200
    image = {"image": base64.b64encode(b"no image").decode()}
    assert locked.post("/api/v1/analyze", json=image, headers=basic(ADMIN)).status_code == 401
    assert locked.get("/", headers={"Authorization": "Basic ????"}).status_code == 401


def test_the_caller_stands_in_the_database(locked):
    from dermoscopy.overlay import encode_png
    from dermoscopy.tables import InstanceRow
    from tests.findings import drawn_lesion

    files = {"image": encode_png(drawn_lesion().pixels)}
    assert locked.post("/api/v1/analyze", files=files, headers=bearer(SUBMIT)).status_code == 202
    with locked.app.state.node.begin() as session:
        assert [row.caller for row in session.query(InstanceRow)] == ["camera"]


RULES = OpenService(Settings(public_url="https://derm.example", cors_origins=("https://ehr.example",)))


@pytest.mark.parametrize("host", ["127.0.0.1:8600", "localhost:8600", "[::1]:8600", "derm.example", "DERM.example:443"])
def test_own_names_are_answered(host):
    RULES.check("POST", "http", host, "", "")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "0.0.0.0:8600", "192.168.1.7"])
def test_foreign_names_are_not(host):
    with pytest.raises(Misdirected):
        RULES.check("GET", "http", host, "", "")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9999", "http://derm.example"])
def test_a_page_of_another_site_changes_nothing(origin):
    with pytest.raises(CrossSiteRequest):
        RULES.check("POST", "http", "127.0.0.1:8600", origin, "cross-site")
    RULES.check("GET", "http", "127.0.0.1:8600", origin, "cross-site")


def test_a_browser_that_hides_the_origin_is_told_by_the_fetch_site():
    with pytest.raises(CrossSiteRequest):
        RULES.check("POST", "http", "127.0.0.1:8600", "", "cross-site")


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8600", "https://derm.example", "https://ehr.example"])
def test_own_pages_and_named_origins_may(origin):
    RULES.check("POST", "http", "127.0.0.1:8600", origin, "same-origin")


def test_an_open_service_refuses_over_http_too(client):
    answer = client.post("/api/v1/analyze", json={}, headers={"Host": "evil.example"})
    assert answer.status_code == 421
    assert answer.headers["content-type"] == "application/problem+json"
    answer = client.post("/cds-services/dermoscopy-triage", json={}, headers={"Origin": "https://evil.example"})
    assert answer.status_code == 403
    assert answer.json()["resourceType"] == "OperationOutcome"


def test_with_tokens_the_host_is_free(locked):
    take_in(locked.app.state.node)
    answer = locked.get("/api/v1/analyses", headers={"Host": "derm.hospital.example", **bearer(READ)})
    assert answer.status_code == 200
