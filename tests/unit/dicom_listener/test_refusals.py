"""Refusals reach the audit log at once, once, and counted."""

from __future__ import annotations

from dicom_listener.refusals import DISTINCT, WINDOW_SECONDS, RefusalReports, Refused

STRANGER = Refused("association", "not on the list", "STRANGER", "DERMCDS", "192.0.2.1", "RJ 1/1/3")


def reports() -> tuple[list[Refused], list[float], RefusalReports]:
    told, now = [], [0.0]
    return told, now, RefusalReports(told.append, clock=lambda: now[0])


def test_the_first_at_once_the_rest_counted():
    told, now, made = reports()
    for _ in range(5):
        made.note(STRANGER)
    assert told == [STRANGER]
    now[0] += WINDOW_SECONDS
    made.note(STRANGER)
    assert [refused.count for refused in told] == [1, 4, 1]


def test_what_was_counted_is_reported_at_the_end():
    told, _, made = reports()
    made.note(STRANGER)
    made.flush()
    made.note(STRANGER)
    made.note(STRANGER)
    made.flush()
    assert [refused.count for refused in told] == [1, 1, 1]


def test_a_flood_of_different_ones_is_a_bounded_number_of_entries():
    told, now, made = reports()
    for number in range(DISTINCT + 500):
        made.note(Refused("association", "not on the list", f"AE{number}"))
    assert len(told) == DISTINCT
    now[0] += WINDOW_SECONDS
    made.note(STRANGER)
    assert sum(refused.count for refused in told) == DISTINCT + 500 + 1
    assert len(told) == DISTINCT + 2


def test_a_report_that_fails_stops_nothing():
    def broken(_refused: Refused) -> None:
        raise OSError("the log is away")

    RefusalReports(broken).note(STRANGER)
