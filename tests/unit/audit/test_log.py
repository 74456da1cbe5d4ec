"""Appending and sequencing: what stands, in which order, and what it costs."""

import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from sqlalchemy.exc import DatabaseError

from audit.leaf import CONTENT, canonical, finite, leaf_bytes, storable
from audit.log import MerkleAuditLog, timestamp
from audit.sequencer import waiting
from dermoscopy.database import unit_of_work
from dermoscopy.errors import AuditLogTampered
from dermoscopy.ports import AuditEntry

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def entry(**changes):
    return AuditEntry(**{"action": "a.b", "actor": "x", "subject_type": "t", "subject_id": "s", **changes})


def append(log, *entries):
    begin = unit_of_work(engine := log.engine())
    with begin() as session:
        for item in entries:
            MerkleAuditLog().append(session, item)
    engine.dispose()


def query(log, text):
    with sqlite3.connect(log.database) as connection:
        return connection.execute(text).fetchall()


def test_an_entry_goes_with_the_transaction_that_it_tells_of(empty_log):
    begin = unit_of_work(engine := empty_log.engine())

    def work():
        with begin() as session:
            MerkleAuditLog().append(session, entry())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        work()
    assert query(empty_log, "SELECT count(*) FROM audit_leaf") == [(0,)]
    assert waiting(engine) == 0
    assert empty_log.sequence().count == 0
    engine.dispose()


def test_leaves_are_placed_once_in_order_of_time(empty_log):
    late, early = datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
    append(empty_log, entry(at=late, subject_id="late"), entry(at=early, subject_id="early"))
    assert empty_log.sequence().count == 2
    assert empty_log.sequence().count == 0
    append(empty_log, entry(at=early - timedelta(days=1), subject_id="committed last"))
    assert empty_log.sequence().count == 1
    joined = "SELECT subject_id FROM audit_tree JOIN audit_leaf ON id = leaf_id ORDER BY position"
    assert [row[0] for row in query(empty_log, joined)] == ["early", "late", "committed last"]
    assert empty_log.verify(outside=True).ok


def test_a_batch_has_a_limit_and_the_rest_comes_next(empty_log):
    empty_log.append(7)
    assert [empty_log.sequence(limit=3).count for _ in range(4)] == [3, 3, 1, 0]
    result = empty_log.verify(outside=True)
    assert (result.ok, result.size, result.checkpoints) == (True, 7, 3)


def test_the_log_with_nothing_in_it_is_whole(empty_log):
    result = empty_log.verify()
    assert (result.ok, result.size, result.pending) == (True, 0, 0)
    empty_log.append(2)
    result = empty_log.verify()
    assert (result.ok, result.size, result.pending) == (True, 0, 2)


@pytest.mark.parametrize(
    "text", ["UPDATE audit_leaf SET actor = 'x'", "DELETE FROM audit_tree", "DELETE FROM audit_checkpoint"]
)
def test_the_database_itself_refuses_to_change_the_log(whole_log, tmp_path, text):
    log = whole_log.copy(tmp_path / "copy")
    with sqlite3.connect(log.database) as connection, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        connection.execute(text)


def test_sequencing_stops_where_the_head_does_not_hold(whole_log, tmp_path):
    log = whole_log.copy(tmp_path / "copy")
    intruder = log.break_in()
    intruder.execute("DELETE FROM audit_checkpoint WHERE number = 3")
    intruder.commit()
    intruder.close()
    with pytest.raises(AuditLogTampered):
        log.sequence()
    log.append(1, start=100)  # the service goes on writing


def test_a_stale_mark_does_not_place_a_leaf_twice(whole_log, tmp_path):
    log = whole_log.copy(tmp_path / "copy")
    intruder = log.break_in()
    intruder.execute("INSERT INTO audit_pending SELECT leaf_id FROM audit_tree WHERE position = 4")
    intruder.commit()
    intruder.close()
    assert log.sequence().count == 2
    assert any("marked as waiting too" in problem.message for problem in log.verify().problems)


def test_what_senders_write_wrong_is_kept_as_far_as_it_can_be(empty_log):
    broken = entry(
        subject_id="UID\0", patient_id="\ud800P", details={"nan": float("nan"), "nul": "\0", "deep": [{"x": 1}]}
    )
    append(empty_log, broken)
    empty_log.sequence()
    assert empty_log.verify(outside=True).ok
    kept = query(empty_log, "SELECT subject_id, details FROM audit_leaf")[0]
    assert kept == ("UID\ufffd", r'{"deep":[{"x":1}],"nan":"NaN","nul":"\u0000"}')


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_canonical_json_is_ascii_and_independent_of_key_order(details):
    text = canonical(finite(details))
    assert text.isascii()
    assert canonical(finite(dict(reversed(details.items())))) == text


@given(st.text(st.characters(codec=None)))
def test_every_text_can_be_stored(text):
    storable(text).encode("utf-8")
    assert "\0" not in storable(text)


@given(st.datetimes(timezones=st.timezones()) | st.datetimes())
def test_timestamps_have_one_form(moment):
    try:
        text = timestamp(moment)
    except OverflowError:  # the first and last day of the calendar have no UTC
        return
    assert len(text) == 27
    assert timestamp(datetime.fromisoformat(text)) == text


def test_leaf_bytes_are_what_the_document_says():
    row = dict.fromkeys(CONTENT, "")
    assert leaf_bytes({**row, "actor": "é", "leaf_hash": "not under the hash"}) == (
        b'{"action":"","actor":"\\u00e9","at":"","details":"","id":"","outcome":"","patient_id":"","patient_issuer":"",'
        b'"subject_id":"","subject_type":"","trace_id":""}'
    )


def test_a_leaf_names_the_trace_it_was_written_in(empty_log):
    with TracerProvider().get_tracer("test").start_as_current_span("work") as span:
        append(empty_log, entry())
    assert query(empty_log, "SELECT trace_id FROM audit_leaf") == [(f"{span.get_span_context().trace_id:032x}",)]


def test_an_action_that_does_not_fit_fails_loudly_or_is_kept(empty_log):
    try:
        append(empty_log, entry(action="x" * 500))
    except DatabaseError:
        return
    assert empty_log.sequence().count == 1
    assert empty_log.verify().ok
