"""When a stored object says that its picture was taken, and which lesion it says that it shows."""

from __future__ import annotations

import re
import warnings
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from pydicom.dataset import Dataset

from dermoscopy.domain import SourceObject
from dermoscopy.errors import UnreadableObject
from dermoscopy.lesions import Stated
from dicom_listener.identifiers import trusted_or_empty
from dicom_listener.part10 import PARSE_ERRORS, open_dataset

_MOMENTS: Final = (
    ("AcquisitionDateTime", ""),
    ("AcquisitionDate", "AcquisitionTime"),
    ("ContentDate", "ContentTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)
"""Where the moment may stand, the nearest to the picture first (PS3.3 C.7.6.1, C.7.3.1, C.7.2.1)."""
_DATE: Final = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})")
_TIME: Final = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2})?")
_OFFSET: Final = re.compile(r"([+-])(\d{2})(\d{2})$")
_BROKEN: Final[tuple[type[BaseException], ...]] = (*PARSE_ERRORS, UnreadableObject)
_FIRST_YEAR: Final = 1970
"""Earlier dates are the resets of a device's clock, or blanked by de-identification."""


def stated_of(source: SourceObject) -> Stated:
    """Implements `dermoscopy.ports.StatedOf`; what is no DICOM object, or is broken, states nothing."""
    if source.header.media_type != "application/dicom":
        return Stated()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = open_dataset(source.data, source.header.transfer_syntax_uid, pixels=False)
    except _BROKEN:
        return Stated()
    return Stated(_taken_at(dataset, source.received_at), trusted_or_empty(_text(dataset, "TrackingUID")))


def _taken_at(dataset: Dataset, received: datetime) -> datetime | None:
    """The first moment that is stated and can be true: not after the object was received (a day for time zones)."""
    for date, time in _MOMENTS:
        moment = _moment(_text(dataset, date), _text(dataset, time) if time else "", dataset)
        if moment is not None and moment.year >= _FIRST_YEAR and moment <= received + timedelta(days=1):
            return moment
    return None


def _moment(date: str, time: str, dataset: Dataset) -> datetime | None:
    """Date, or date and time in one (VR DT), with Timezone Offset From UTC; UTC where no zone is stated."""
    day = _DATE.match(date)
    if day is None:
        return None
    clock = _TIME.match(time or date[day.end() :])
    hour, minute, second = (int(part or 0) for part in clock.groups()) if clock else (0, 0, 0)
    zone = _OFFSET.search(date) or _OFFSET.search(_text(dataset, "TimezoneOffsetFromUTC"))
    minutes = (int(zone[2]) * 60 + int(zone[3])) * (1 if zone[1] == "+" else -1) if zone else 0
    try:
        year, month, number = (int(part) for part in day.groups())
        offset = timezone(timedelta(minutes=minutes))
        local = datetime(year, month, number, hour, minute, min(second, 59), tzinfo=offset)  # 60: a leap second
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip()
