"""Which JSON is text that can be kept."""

from __future__ import annotations

import pytest

from fhir_adapters.text import text_fault


@pytest.mark.parametrize(
    ("resource", "says"),
    [
        ({"id": "\ud800"}, "surrogate"),
        ({"\udfff": 1}, "surrogate"),
        ({"id": ["a\x00b"]}, "U+0000"),
        ({"id": "a\\\x00"}, "U+0000"),
    ],
)
def test_what_no_database_can_hold(resource, says):
    assert says in text_fault(resource)


@pytest.mark.parametrize("resource", [None, {}, {"id": "\U0001f642 ä"}, {"id": "\\u0000"}, {"id": "a\\\\u0000\n"}])
def test_what_can_be_kept(resource):
    assert text_fault(resource) == ""


def test_what_is_nested_without_end():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert "deeply" in text_fault(deep)
