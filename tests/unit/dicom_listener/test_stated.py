"""When an object says that it was taken: every place it may stand in, zones, and what cannot be true."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicom_listener.stated import stated_of
from tests.unit.dicom_listener.samples import RECEIVED, dataset, picture_source, source

BLANK: dict[str, Any] = {"StudyDate": None, "StudyTime": None}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"AcquisitionDateTime": "20250102030405.5"}, datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ({"AcquisitionDateTime": "20250102030405+0200"}, datetime(2025, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ({"AcquisitionDateTime": "20250102"}, datetime(2025, 1, 2, tzinfo=UTC)),
        ({"AcquisitionDate": "20250102", "AcquisitionTime": "0304"}, datetime(2025, 1, 2, 3, 4, tzinfo=UTC)),
        (
            {"ContentDate": "20250102", "ContentTime": "030405", "TimezoneOffsetFromUTC": "-0500"},
            datetime(2025, 1, 2, 8, 4, 5, tzinfo=UTC),
        ),
        ({"SeriesDate": "20250102"}, datetime(2025, 1, 2, tzinfo=UTC)),
        ({}, datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)),
        (BLANK, None),
    ],
    ids=["to the second", "with its zone", "a day", "apart", "zone of the object", "series", "study", "nowhere"],
)
def test_the_moment_nearest_to_the_picture_is_taken(changes: dict[str, Any], expected: datetime | None) -> None:
    assert stated_of(source(dataset(**changes))).taken_at == expected


@pytest.mark.parametrize("wrong", ["18000101", "20251399", "yesterday", "99990101"])
def test_what_cannot_be_true_gives_way_to_the_next(wrong: str) -> None:
    made = dataset(ContentDate=wrong, ContentTime="030405")
    assert stated_of(source(made)).taken_at == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def test_a_moment_after_receipt_is_not_believed_but_for_the_zone() -> None:
    late = f"{RECEIVED + timedelta(days=2):%Y%m%d}"
    assert stated_of(source(dataset(ContentDate=late, **BLANK))).taken_at is None
    local = f"{RECEIVED + timedelta(hours=10):%Y%m%d}"
    assert stated_of(source(dataset(ContentDate=local, **BLANK))).taken_at is not None


def test_the_tracked_lesion_is_stated_by_its_uid() -> None:
    assert stated_of(source(dataset(TrackingID="mole 7", TrackingUID="1.2.3.4"))).tracking_uid == "1.2.3.4"
    assert stated_of(source(dataset(TrackingID="mole 7"))).tracking_uid == ""


def test_pictures_and_broken_objects_state_nothing() -> None:
    assert stated_of(picture_source()).taken_at is None
    whole = source()
    assert stated_of(replace(whole, data=whole.data[:20] + b"\xff" * 40)).taken_at is None
