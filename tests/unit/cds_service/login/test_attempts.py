"""What a browser keeps of a login under way, and where it may lead."""

from __future__ import annotations

import pytest

from cds_service.login.app_context import analysis_of, app_context
from cds_service.login.attempts import Attempt, from_cookie, is_state, local_path

REPORT = "6f0f3d3e-8c0e-5a43-9d0b-3f6c4c1f2a77"


def test_an_attempt_survives_its_cookie_and_no_two_are_alike():
    first, second = Attempt(ehr="https://ehr.example/fhir"), Attempt()
    assert from_cookie(first.to_cookie()) == first
    assert len({first.state, first.nonce, first.verifier, second.state, second.nonce, second.verifier}) == 6
    assert is_state(first.state) and not is_state("x; Domain=evil") and not is_state("")
    assert first.verifier not in repr(first)


@pytest.mark.parametrize("value", ["", "%%%", "bm90IGpzb24", "W10", "eyJlaHIiOiAxfQ", "eyJhIjogImIifQ"])
def test_anything_else_is_no_attempt(value):
    assert from_cookie(value) is None


@pytest.mark.parametrize(
    "wanted", ["https://evil.example", "//evil.example", "/\\evil.example", "", "/a\nb", "/" + "x" * 600]
)
def test_a_login_leads_to_our_own_pages_only(wanted):
    assert local_path(wanted) == "/worklist"


def test_a_path_of_ours_is_kept():
    assert local_path(f"/analyses/{REPORT}?prior=none") == f"/analyses/{REPORT}?prior=none"


def test_the_context_of_a_card_names_the_analysis_alone():
    assert app_context(REPORT) == f'{{"analysis": "{REPORT}"}}'
    assert analysis_of(app_context(REPORT)) == REPORT


@pytest.mark.parametrize(
    "context", [None, 7, "", "[]", "{}", '{"analysis": 1}', '{"analysis": "../../etc"}', "[" * 999, "x" * 2000]
)
def test_any_other_context_names_nothing(context):
    assert analysis_of(context) is None
