"""Search values: dates with the precision they state, tokens with their escapes, what matches."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fhir_adapters.facade_matching import BadValue, Token, allows, matches, read_date, read_tokens

NOON = datetime(2026, 3, 14, 12, 0, tzinfo=UTC)
DAY, AFTER = datetime(2026, 3, 14, tzinfo=UTC), datetime(2026, 3, 15, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        ("2026", True), ("2026-03", True), ("2026-03-14", True), ("2026-04", False), ("2024", False),
        ("2026-03-14T12:00", True), ("2026-03-14T12:00:00Z", True), ("2026-03-14T12:00:01Z", False),
        ("2026-03-14T13:00+01:00", True), ("2026-03-14T13:00Z", False), ("eq2026-03-14T12:00:00.000Z", True),
        ("ne2026-03-14", False), ("ne2026-03-13", True),
        ("gt2026-03-14", False), ("gt2026-03-13", True), ("sa2026-03-14T11:59:59Z", True),
        ("ge2026-03-14", True), ("ge2026-03-14T12:00:00Z", True), ("ge2026-03-15", False),
        ("lt2026-03-14", False), ("lt2026-03-15", True), ("eb2026-03-14T12:00:00Z", False),
        ("le2026-03-14", True), ("le2026-03-13", False), ("le2026-03-14T12:00:00Z", True),
    ],
)  # fmt: skip
def test_a_date_stands_for_all_times_that_it_leaves_open(value, inside):
    assert allows(read_date(value), NOON) is inside


def test_months_and_years_have_their_own_lengths():
    assert not allows(read_date("2024-02"), datetime(2024, 3, 1, tzinfo=UTC))
    assert allows(read_date("2024-02"), datetime(2024, 2, 29, 23, tzinfo=UTC))
    assert allows(read_date("2024"), datetime(2024, 12, 31, 23, tzinfo=UTC))
    assert not allows(read_date("2023"), datetime(2024, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "2026-13",
        "2026-02-30",
        "2026-3-1",
        "ap2026",
        "2026-03-14T25:00Z",
        "0000",
        "9999-12-31",
        "2026 ",
        "２０２６",
    ],
)
def test_what_is_no_date_is_refused_and_not_repeated(value):
    with pytest.raises(BadValue) as caught:
        read_date(value)
    assert not value.strip() or value not in str(caught.value).replace("2026-03-14", "")


def test_tokens_have_systems_codes_and_escapes():
    assert read_tokens("a|b,c") == (Token("a", "b"), Token(None, "c"))
    assert read_tokens("|b") == (Token("", "b"),)
    assert read_tokens("a|") == (Token("a", ""),)
    assert read_tokens(r"a\|b\,c\\") == (Token(None, r"a|b,c" + "\\"),)
    for wrong in ("", "|", "a|b|c", "a,"):
        with pytest.raises(BadValue):
            read_tokens(wrong)


def test_codes_codings_and_identifiers_match():
    resource = {
        "status": "final",
        "code": {"coding": [{"system": "s", "code": "1"}, {"code": "2"}]},
        "identifier": [{"system": "s", "value": "v"}],
        "masterIdentifier": {"system": "s", "value": "m"},
    }
    for element, value, expected in (
        ("status", "final", True),
        ("status", "s|final", False),
        ("code", "s|1", True),
        ("code", "|2", True),
        ("code", "|1", False),
        ("code", "s|", True),
        ("code", "t|1,2", True),
        ("identifier", "m", False),
        ("masterIdentifier", "v", True),
        ("absent", "x", False),
    ):
        assert matches(resource, element, read_tokens(value)) is expected, (element, value)
