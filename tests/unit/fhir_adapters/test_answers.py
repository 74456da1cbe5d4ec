"""What an answer means: done, again, or a person."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from dermoscopy.errors import DestinationUnavailable, Rejected
from fhir_adapters.answers import LONGEST_WAIT, json_of, outcome_text, retry_after

OUTCOME = {
    "resourceType": "OperationOutcome",
    "issue": [
        {"severity": "warning", "code": "informational", "diagnostics": "never mind"},
        {
            "severity": "error",
            "code": "invalid",
            "expression": ["Observation.code"],
            "diagnostics": "unknown code for patient TEST-0042",
        },
    ],
}


def answer(status, json=None, **more):
    return httpx.Response(status, json=json, **more) if json is not None else httpx.Response(status, **more)


def test_success_is_the_resource():
    assert json_of(answer(200, {"resourceType": "Bundle"}), "it") == {"resourceType": "Bundle"}


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504])
def test_try_again(status):
    with pytest.raises(DestinationUnavailable, match=str(status)) as caught:
        json_of(answer(status, OUTCOME, headers={"Retry-After": "7"}), "it")
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 412, 413, 422])
def test_a_person_must_look(status):
    with pytest.raises(Rejected, match=r"Observation\.code") as caught:
        json_of(answer(status, OUTCOME), "it", ["TEST-0042"])
    assert "TEST-0042" not in str(caught.value)
    assert "[patient]" in str(caught.value)
    assert "never mind" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 201, 404, 400, 502])
def test_html_is_a_proxy_in_between(status):
    with pytest.raises(DestinationUnavailable):
        json_of(answer(status, html="<html>login</html>"), "it")


@pytest.mark.parametrize("status", [401, 403, 413])
def test_refusals_need_no_fhir_body(status):
    with pytest.raises(Rejected):
        json_of(answer(status, text="no"), "it")


@pytest.mark.parametrize("status", [301, 302, 307])
def test_redirects_are_not_followed(status):
    with pytest.raises(Rejected, match="base_url"):
        json_of(answer(status, headers={"Location": "https://elsewhere.example/"}), "it")


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[]", b'{"resourceType": 7}', b'"text"', b""])
def test_broken_json_is_no_answer(body):
    with pytest.raises(DestinationUnavailable):
        json_of(httpx.Response(200, content=body, headers={"Content-Type": "application/fhir+json"}), "it")


def test_texts_are_short_and_clean():
    issue = {"severity": "error", "code": "processing", "details": {"text": "x" * 1000}}
    assert len(outcome_text({"resourceType": "OperationOutcome", "issue": [issue, None]})) == 300
    assert outcome_text(None) == outcome_text({"resourceType": "Bundle"}) == ""


def test_cleaning_takes_whole_words():
    issue = {"severity": "error", "code": "invalid", "diagnostics": "HTTP 412 for Patient/1: 1 problem in A1"}
    cleaned = outcome_text({"resourceType": "OperationOutcome", "issue": [issue]}, ["1", ""])
    assert cleaned == "invalid: HTTP 412 for Patient/[patient]: [patient] problem in A1"


@pytest.mark.parametrize(
    ("stated", "seconds"),
    [
        (None, None),
        ("", None),
        ("120", 120),
        ("0", 0),
        ("99999999", LONGEST_WAIT),
        ("Sat, 14 Mar 2026 12:01:30 GMT", 90),
        ("Sat, 14 Mar 2026 11:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("²", None),
    ],
)
def test_retry_after(stated, seconds):
    headers = {} if stated is None else {"Retry-After": stated}
    assert retry_after(headers, datetime(2026, 3, 14, 12, tzinfo=UTC)) == seconds
