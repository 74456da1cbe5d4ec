"""One table: every error of the project has an HTTP answer, and nothing internal gets out."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from cds_service.api import refusals
from cds_service.api.refusals import FieldError, InvalidRequest, NotFound, ProblemDetails, Refusal
from cds_service.error_handlers import ANSWERS, answer_for, operation_outcome, problem_of, respond, slug_of
from dermoscopy import errors


def subclasses(kind: Any) -> set[Any]:
    return {kind} | {deeper for child in kind.__subclasses__() for deeper in subclasses(child)}


@pytest.mark.parametrize("kind", sorted(subclasses(Refusal) - {Refusal}, key=str))
def test_every_refusal_of_the_edge_stands_in_the_table(kind):
    assert kind in ANSWERS


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.UnreadableObject("x"), 422),
        (errors.UnsupportedTransferSyntax("x"), 415),
        (errors.UnsupportedSopClass("x"), 415),
        (errors.UnsupportedImage("x"), 422),
        (errors.NotDermoscopic("x"), 422),
        (errors.Rejected("x"), 422),
        (errors.StorageFull("x"), 507),
        (errors.ModelServerBusy("x"), 503),
        (errors.AnalysisFailed("x"), 422),
        (errors.BlobCorrupted("x"), 500),
        (errors.Misconfigured("x"), 500),
        (OperationalError("select", {}, Exception()), 503),
        (ZeroDivisionError("x"), 500),
    ],
)
def test_the_nearest_entry_of_the_class_hierarchy_answers(error, status):
    assert answer_for(error)[1] == status


def test_transient_errors_say_when_to_come_back():
    _, headers = problem_of(errors.StorageFull("full", retry_after=12.2))
    assert headers["Retry-After"] == "13"
    _, headers = problem_of(OperationalError("select", {}, Exception()))
    assert int(headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    "error",
    [
        ValueError("patient TEST-0042 secret"),
        OperationalError("select", {"patient_id": "TEST-0042 secret"}, Exception("secret")),
        errors.BlobCorrupted("blob secret"),
    ],
)
def test_the_text_of_what_must_not_get_out_does_not(error):
    problem, _ = problem_of(error)
    assert "secret" not in problem.model_dump_json()
    assert problem.detail


def test_a_rejection_says_its_reason_and_a_type_that_resolves():
    problem, _ = problem_of(errors.UnsupportedSopClass("SOP class 1.2.3 is not taken"))
    assert problem.detail == "SOP class 1.2.3 is not taken"
    assert problem.type == "/docs#unsupported-sop-class"
    assert slug_of(refusals.NotFound) == "not-found"


def test_cds_services_answer_with_an_operation_outcome():
    problem, headers = problem_of(NotFound("no such service"))
    answer = respond("/cds-services/x", "text/html", problem, headers)
    assert answer.media_type == "application/fhir+json"
    assert b'"resourceType":"OperationOutcome"' in answer.body
    assert b"no such service" in answer.body


def test_an_outcome_has_one_issue_per_wrong_field():
    problem, _ = problem_of(
        InvalidRequest([FieldError(pointer="#/a", detail="x"), FieldError(pointer="#/b", detail="y")])
    )
    assert [issue["diagnostics"] for issue in operation_outcome(problem)["issue"]] == ["#/a: x", "#/b: y"]


def test_a_browser_gets_a_page_and_an_api_client_a_problem():
    problem = ProblemDetails(type="/docs#not-found", title="Not found", status=404, detail="<script>")
    page = respond("/analyses/x", "text/html,*/*", problem, {})
    assert page.media_type == "text/html"
    assert b"&lt;script&gt;" in page.body and b"<script>" not in page.body
    assert respond("/api/v1/x", "text/html", problem, {}).media_type == "application/problem+json"
