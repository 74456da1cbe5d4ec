import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from dermoscopy.domain import derive_id, derive_uid

PARTS = st.lists(st.text(max_size=20), max_size=4)


@given(PARTS)
def test_same_question_same_identifier(parts: list[str]) -> None:
    assert derive_id("x", *parts) == derive_id("x", *parts)
    assert uuid.UUID(derive_id("x", *parts)).version == 5


@given(PARTS)
def test_uid_is_legal(parts: list[str]) -> None:
    uid = derive_uid("seg", *parts)
    assert len(uid) <= 64
    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", uid)


def test_boundaries_between_parts_count() -> None:
    assert derive_id("x", "ab", "c") != derive_id("x", "a", "bc")
    assert derive_id("x", "a") != derive_id("y", "a")
