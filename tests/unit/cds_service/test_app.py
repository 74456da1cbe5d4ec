"""What holds for every answer: request ids, security headers, limits, the last resort, a complete OpenAPI document."""

from __future__ import annotations

import logging

import pytest
import structlog
from fastapi.testclient import TestClient

from cds_service.api import analyses
from cds_service.app import MAX_BODY_BYTES, create_app
from monitoring.health import CheckResult, Readiness
from tests.findings import SYSTEM, fhir_patient, stored_analysis


def test_a_request_id_is_returned_or_made(client):
    assert client.get("/health/live", headers={"X-Request-Id": "abc-123"}).headers["X-Request-Id"] == "abc-123"
    made = {client.get("/health/live").headers["X-Request-Id"] for _ in range(2)}
    assert len(made) == 2


@pytest.mark.parametrize("given", ["a b", "x" * 65, "ä", "id\r\nX-Evil: 1".replace("\r\n", " ")])
def test_a_request_id_that_could_forge_a_log_line_is_replaced(client, given):
    answer = client.get("/health/live", headers={"X-Request-Id": given.encode("utf-8")})
    assert answer.headers["X-Request-Id"] != given


@pytest.mark.parametrize("path", ["/", "/api/v1/analyses", "/nowhere", "/cds-services"])
def test_every_answer_forbids_sniffing_framing_and_foreign_content(client, path):
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store"


def test_unknown_addresses_and_methods_are_problems(client):
    answer = client.get("/nowhere")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    answer = client.delete("/api/v1/analyses")
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    assert client.get("/cds-services/a/b/c").json()["resourceType"] == "OperationOutcome"


def test_a_method_that_an_address_does_not_know_is_told_all_that_it_knows(client):
    """Reading and writing reviews are two routes of one address."""
    answer = client.delete("/api/v1/analyses/00000000-0000-0000-0000-000000000000/reviews")
    assert answer.status_code == 405
    assert sorted(answer.headers["Allow"].split(", ")) == ["GET", "POST"]


def test_an_unexpected_error_is_a_500_without_its_text(client, monkeypatch):
    def broken(*_args, **_more):
        raise RuntimeError("secret of TEST-0042")

    monkeypatch.setattr(analyses, "find_analysis", broken)
    with structlog.testing.capture_logs() as logged:
        answer = client.get("/api/v1/analyses/6f0f3d3e-8c0e-5a43-9d0b-3f6c4c1f2a77", headers={"X-Request-Id": "r-1"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["trace_id"] == "r-1"
    assert answer.headers["X-Request-Id"] == "r-1"
    assert [line["error"] for line in logged if line["event"] == "http.broke"] == ["RuntimeError"]


def test_the_request_log_names_routes_and_nothing_of_the_request(client):
    body = {"system": SYSTEM, "id": "TEST-0042"}
    with structlog.testing.capture_logs() as logged:
        client.post("/api/v1/analyses/search?x=TEST-0042", json=body)
        client.get("/TEST-0042")
    requests = [line for line in logged if line["event"] == "http.request"]
    assert [line["route"] for line in requests] == ["/api/v1/analyses/search", "unmatched"]
    assert "TEST-0042" not in str(requests)


def test_probes_stay_out_of_the_request_log_at_info(client):
    with structlog.testing.capture_logs() as logged:
        client.get("/health/live")
    assert [line["log_level"] for line in logged] == ["debug"]
    assert logging.DEBUG < logging.INFO


def test_only_the_image_endpoint_takes_large_bodies(open_client):
    client = open_client(max_upload_bytes=2 * MAX_BODY_BYTES)
    large = b'{"id": "' + b"x" * MAX_BODY_BYTES + b'"}'
    headers = {"Content-Type": "application/json"}
    answer = client.post("/api/v1/analyses/search", content=large, headers=headers)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["Connection"] == "close"
    assert client.post("/api/v1/analyze", content=large, headers=headers).status_code == 422
    answer = client.post("/api/v1/analyze", content=b"x" * (4 * MAX_BODY_BYTES), headers=headers)
    assert answer.status_code == 413
    answer = client.post("/api/v1/analyze", files={"image": b"x" * (4 * MAX_BODY_BYTES)})
    assert answer.status_code == 413


def test_a_streamed_body_without_a_length_is_stopped_at_the_limit(open_client):
    client = open_client(max_upload_bytes=1024 * 1024)
    sent = 0

    def endless():
        nonlocal sent
        for _ in range(64):
            sent += 1
            yield b"x" * (1024 * 1024)

    answer = client.post("/api/v1/analyze", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_readiness_is_503_with_the_check_that_failed(node):
    checks = (CheckResult("database", True, "", 1.0), CheckResult("disk", False, "no room left", 1.0))
    client = TestClient(create_app(node, lambda: Readiness(False, checks)), base_url="http://127.0.0.1")
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["checks"][1]["problem"] == "no room left"
    assert client.get("/metrics").status_code == 404


def test_metrics_are_passed_through(client):
    answer = client.get("/metrics")
    assert answer.text == "up 1\n"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4"


def test_a_browser_client_of_a_named_origin_may_call_hooks(open_client):
    client = open_client(cors_origins=("https://ehr.example",))
    asked = {"Origin": "https://ehr.example", "Access-Control-Request-Method": "POST"}
    answer = client.options("/cds-services/dermoscopy-triage", headers=asked)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://ehr.example"
    asked["Origin"] = "https://evil.example"
    assert "Access-Control-Allow-Origin" not in client.options("/cds-services/dermoscopy-triage", headers=asked).headers


def test_every_operation_documents_its_answers_and_its_problems(client):
    document = client.get("/openapi.json").json()
    names = set(document["components"]["schemas"])
    assert {"AnalyzeJson", "PatientReference", "ProblemDetails", "OperationOutcome"} <= names
    assert not {"HTTPValidationError", "ValidationError"} & names
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["tags"] and operation["summary"], where
            assert any(status.startswith("2") for status in operation["responses"]), where
            for status, answer in operation["responses"].items():
                if int(status) < 400 or (path == "/health/ready" and status == "503"):
                    continue
                kinds = set(answer["content"])
                expected = {"application/fhir+json" if path.startswith("/cds-services") else "application/problem+json"}
                assert kinds == expected, f"{where} {status}"
            if path not in ("/health/live", "/health/ready", "/.well-known/jwks.json"):
                assert operation["security"] == [{"token": []}], where
    used = {ref.split('"')[0].rsplit("/", 1)[-1] for ref in client.get("/openapi.json").text.split('"$ref":"')[1:]}
    assert used <= names


def test_no_address_of_an_analysis_names_the_patient(client, node):
    analysis = stored_analysis(node)
    for path in ("/api/v1/analyses", f"/api/v1/analyses/{analysis.id}"):
        assert "TEST-0042" not in client.get(path).text
    assert fhir_patient()["id"] not in client.get("/worklist").text
