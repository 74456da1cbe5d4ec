"""QIDO-RS (PS3.18 10.6): the query of an address, attribute matching (PS3.4 C.2.2.2), and the rows of an answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from typing import Any, Final

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dermoscopy.errors import Rejected
from dicom_listener.dicomweb_json import JsonDataset, put_values

STUDIES, SERIES, INSTANCES = "studies", "series", "instances"
MAX_RESULTS: Final = 1000
"""Rows of one answer; a Warning says that there are more (PS3.18 8.3.4.4)."""

STUDY_UID, SERIES_UID, SOP_UID = "0020000D", "0020000E", "00080018"
PATIENT_ID, ACCESSION, MODALITIES = "00100020", "00080050", "00080061"
_MODALITY = "00080060"
STUDY_ROWS: Final = (
    "00080005",
    "00080020",
    "00080030",
    "00080050",
    "00080090",
    "00081030",
    "00100010",
    "00100020",
    "00100021",
    "00100030",
    "00100040",
    "0020000D",
    "00200010",
)
SERIES_ROWS: Final = ["00080060", "0008103E", "0020000E", "00200011", "00400244", "00400245"]
INSTANCE_ROWS: Final = ["00080016", "00080018", "00200013", "00280008", "00280010", "00280011", "00280100"]
_RANGES: Final = frozenset({"DA", "TM", "DT"})
_NUMBERS: Final = frozenset({"IS", "DS", "US", "UL", "SS", "SL", "FL", "FD", "UV", "SV"})
_NOT_TEXT: Final = frozenset({"SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "AT"})


class BadQuery(Rejected):
    """The query cannot be understood; the message names the parameter and never its value."""


@dataclass(frozen=True, slots=True)
class Query:
    """A search. ``keys`` are tag → value as given; an empty value matches everything."""

    keys: Mapping[str, str]
    include: tuple[str, ...] = ()
    everything: bool = False
    limit: int = MAX_RESULTS
    offset: int = 0
    fuzzy: bool = False

    def exact(self, tag: str) -> tuple[str, ...]:
        """The values asked for, where they are plain ones that a database can look up; else nothing."""
        value = self.keys.get(tag, "")
        if not value or re.search(r"[*?]", value):
            return ()
        return tuple(_uids(value)) if tag in (STUDY_UID, SERIES_UID, SOP_UID) else (value,)


def parse_query(parameters: Iterable[tuple[str, str]], within: Mapping[str, str]) -> Query:
    """The query in an address (PS3.18 8.3.4); ``within`` are the UIDs of its path. Raises `BadQuery`."""
    keys: dict[str, str] = {}
    include: list[str] = []
    numbers = {"limit": MAX_RESULTS, "offset": 0}
    everything = fuzzy = False
    for name, value in parameters:
        if name in numbers:
            if not re.fullmatch(r"\d{1,9}", value, re.ASCII):
                raise BadQuery(f"{name} must be a whole number, 0 or more")
            numbers[name] = int(value)
        elif name == "fuzzymatching":
            fuzzy = value.lower() == "true"
        elif name == "includefield":
            fields = [one.strip() for one in value.split(",") if one.strip()]
            everything = everything or "all" in fields
            include += [tag_of(one) for one in fields if one != "all"]
        elif name not in ("accept", "charset"):
            tag = tag_of(name)
            if not _NOT_TEXT.isdisjoint(vr_of(tag).split(" or ")):
                raise BadQuery(f"{name[:64]!r} cannot be searched for: only attributes with plain values can")
            if keys.get(tag, value) != value:
                raise BadQuery(f"{name[:64]!r} is given twice with different values")
            keys[tag] = value
    for tag, uid in within.items():
        if keys.get(tag, uid) not in ("", uid):
            raise BadQuery("a UID of the query is not the one of the path")
        keys[tag] = uid
    return Query(keys, tuple(include), everything, min(numbers["limit"], MAX_RESULTS), numbers["offset"], fuzzy)


def tag_of(name: str) -> str:
    """``PatientID`` or ``00100020`` → ``00100020``. Raises `BadQuery`."""
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        return name.upper()
    tag = tag_for_keyword(name)
    if tag is None:
        raise BadQuery(f"{name[:64]!r} is no parameter or attribute that can be searched for: use a keyword or a tag")
    return f"{tag:08X}"


def vr_of(tag: str) -> str:
    """VR by the dictionary; ``LO`` for a tag that is not in it."""
    try:
        return dictionary_VR(int(tag, 16))
    except KeyError:
        return "LO"


def matches(header: JsonDataset, keys: Mapping[str, str]) -> bool:
    """Whether every key matches its attribute; an absent attribute matches only what matches everything."""
    return all(_matches(header.get(tag, {}), wanted, vr_of(tag)) for tag, wanted in keys.items())


def search(level: str, headers: Sequence[JsonDataset], query: Query, base: str) -> list[JsonDataset]:
    """Every row of ``level`` that ``query`` asks for, before offset and limit, in the order of ``headers``.

    ``headers`` must be whole studies at the study level, whole series at the series level: rows count what is in them.
    ``base`` is the address of the service.
    """
    studies = _grouped(headers, STUDY_UID)
    rows: list[JsonDataset] = []
    keys = {tag: value for tag, value in query.keys.items() if tag != MODALITIES}
    for study in studies:
        modalities = sorted({str(value) for header in study for value in _values(header, _MODALITY)})
        if not _matches({"Value": modalities}, query.keys.get(MODALITIES, ""), "CS"):
            continue
        if level == STUDIES:
            if any(matches(header, keys) for header in study):
                rows.append(_study_row(study, modalities, query, base))
        elif level == SERIES:
            for series in _grouped(study, SERIES_UID):
                if any(matches(header, keys) for header in series):
                    rows.append(_series_row(series, query, base))
        else:
            rows += [_instance_row(header, query, base) for header in study if matches(header, keys)]
    return rows


def page(rows: Sequence[JsonDataset], query: Query) -> tuple[list[JsonDataset], int]:
    """(the rows of this answer, how many more there are)."""
    end = query.offset + query.limit
    return list(rows[query.offset : end]), max(0, len(rows) - end)


def uid_of(header: JsonDataset, tag: str) -> str:
    """First value of ``tag``, or empty."""
    return str(next(iter(_values(header, tag)), ""))


def _study_row(study: Sequence[JsonDataset], modalities: Sequence[str], query: Query, base: str) -> JsonDataset:
    row = _chosen(study[0], STUDY_ROWS, query)
    return put_values(
        row,
        {
            "00080056": ("CS", ["ONLINE"]),
            MODALITIES: ("CS", modalities),
            "00081190": ("UR", [f"{base}/studies/{uid_of(row, STUDY_UID)}"]),
            "00201206": ("IS", [len({uid_of(header, SERIES_UID) for header in study})]),
            "00201208": ("IS", [len(study)]),
        },
    )


def _series_row(series: Sequence[JsonDataset], query: Query, base: str) -> JsonDataset:
    upper = [STUDY_UID] if query.keys.get(STUDY_UID) else STUDY_ROWS
    row = _chosen(series[0], [*upper, *SERIES_ROWS], query)
    address = f"{base}/studies/{uid_of(row, STUDY_UID)}/series/{uid_of(row, SERIES_UID)}"
    return put_values(row, {"00081190": ("UR", [address]), "00201209": ("IS", [len(series)])})


def _instance_row(header: JsonDataset, query: Query, base: str) -> JsonDataset:
    study = [STUDY_UID] if query.keys.get(STUDY_UID) else STUDY_ROWS
    series = [SERIES_UID, _MODALITY] if query.keys.get(SERIES_UID) else SERIES_ROWS
    row = _chosen(header, [*study, *series, *INSTANCE_ROWS], query)
    return put_values(row, {"00080056": ("CS", ["ONLINE"]), "00081190": ("UR", [address_of(header, base)])})


def address_of(header: JsonDataset, base: str) -> str:
    """Address of the instance of ``header``: UIDs and nothing else."""
    parts = (uid_of(header, STUDY_UID), uid_of(header, SERIES_UID), uid_of(header, SOP_UID))
    return "{}/studies/{}/series/{}/instances/{}".format(base, *parts)


def _chosen(header: JsonDataset, tags: Iterable[str], query: Query) -> JsonDataset:
    if query.everything:
        return dict(header)
    wanted = dict.fromkeys([*tags, *query.include, *(tag for tag in query.keys if tag != MODALITIES)])
    return {tag: header.get(tag, {"vr": vr_of(tag)}) for tag in sorted(wanted)}


def _grouped(headers: Iterable[JsonDataset], tag: str) -> list[list[JsonDataset]]:
    groups: dict[str, list[JsonDataset]] = {}
    for header in headers:
        groups.setdefault(uid_of(header, tag), []).append(header)
    return list(groups.values())


def _values(header: Mapping[str, Any], tag: str) -> list[Any]:
    return list(header.get(tag, {}).get("Value", []))


def _matches(element: Mapping[str, Any], wanted: str, vr: str) -> bool:
    """PS3.4 C.2.2.2: universal, list of UID, range, wild card and single value matching."""
    if wanted in ("", "*"):
        return True
    values = [value for value in element.get("Value", []) if value is not None]
    if vr == "PN":
        names = [str(group) for value in values if isinstance(value, dict) for group in value.values()]
        return any(_wild(wanted.casefold(), name.casefold()) for name in names)
    if vr == "UI":
        return not set(_uids(wanted)).isdisjoint(str(value) for value in values)
    if vr in _RANGES:
        return any(_in_range(str(value), wanted, vr) for value in values)
    if vr in _NUMBERS:
        try:
            return any(float(value) == float(wanted) for value in values)
        except ValueError:
            return False
    return any(_wild(part, str(value)) for value in values for part in wanted.split("\\"))


def _wild(pattern: str, value: str) -> bool:
    """``*`` and ``?`` as DICOM knows them; a bracket is a bracket."""
    escaped = pattern.replace("[", "[[]")
    return re.match(translate(escaped), value.rstrip(" ")) is not None


def _in_range(value: str, wanted: str, vr: str) -> bool:
    """A single value or ``from-to``, either side open; a coarse value stands for all that begins with it."""
    wanted, value = wanted.replace(":", ""), value.replace(":", "")
    if vr == "DA":
        wanted, value = wanted.replace(".", ""), value.replace(".", "")
    earliest, dash, latest = wanted.partition("-")
    if not dash:
        return value.startswith(wanted)
    return (not earliest or value >= earliest) and (not latest or value <= latest or value.startswith(latest))


def _uids(value: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,\\]", value) if part.strip()]
