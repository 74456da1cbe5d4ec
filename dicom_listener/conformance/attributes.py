"""Which attributes objects have: found by walking rendered ones, never written down by hand.

Presence and source are told in the words of PS3.2: ALWAYS, VNAP (the value is not always present), ANAP (the attribute
is not always present), EMPTY; COPY (as in the source object) and AUTO (made by the product).
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from dermoscopy.domain import ArtifactKind
from dicom_listener.conformance.examples import Example

CONTENT: Final = "ContentSequence"
"""The tree of a structured report, which has a table of its own."""
LONGEST_VALUE: Final = 48
_CODE: Final = frozenset({"CodeValue", "LongCodeValue"})
_BINARY: Final = frozenset({"OB", "OW", "UN", "OD", "OF", "OL", "OV"})
_FILE_META: Final = 2
_NEEDED: Final = {"sr-document-content": {"ValueType", "ContinuityOfContent"}}
"""What a root container needs; the table has the attributes of all other value types beside them (PS3.3 C.17.3)."""
_TYPES: Final = ("1", "1C", "2", "2C", "3")

Path = tuple[str, ...]
"""Keywords from the outermost sequence to the attribute."""


@dataclass(slots=True)
class Attribute:
    """One attribute at one place. ``values`` are what the examples hold, as text; empty text where it is empty."""

    path: Path
    tag: str
    vr: str
    name: str
    parents: int
    """How many datasets and items it could have been in."""
    values: list[str] = field(default_factory=list)
    by_source: dict[str, set[str]] = field(default_factory=dict)
    """SOP Instance UID of the source → the values in objects that refer to it."""
    copied: bool = True
    """Whether the source object has the same wherever this has a value."""

    @property
    def presence(self) -> str:
        if not any(self.values):
            return "EMPTY" if len(self.values) == self.parents else "ANAP, EMPTY"
        if len(self.values) < self.parents:
            return "ANAP"
        return "ALWAYS" if all(self.values) else "VNAP"

    @property
    def source(self) -> str:
        """Where the value comes from, and the value where it is the same whatever the source."""
        filled = {value for value in self.values if value}
        if not filled:
            return ""
        fixed = len(filled) == 1 and len(self.by_source) > 1 and self.vr not in _BINARY
        if self.copied and not fixed:
            return "COPY"
        if fixed and len(value := filled.pop()) <= LONGEST_VALUE:
            return f"AUTO: {value}"
        return "AUTO"


@dataclass(frozen=True, slots=True)
class Module:
    """A module of an IOD: information entity and usage (M, C, U), and the type of each of its attributes."""

    key: str
    entity: str
    usage: str
    types: dict[Path, str]

    @property
    def name(self) -> str:
        """``sop-common`` → ``SOP Common``."""
        words = self.key.split("-")
        return " ".join(w.upper() if w in ("sop", "sr", "sc", "vl", "icc", "voi", "lut") else w.title() for w in words)


def attributes(found: Sequence[Example]) -> list[Attribute]:
    """Every attribute of objects of one kind, in the order of their tags; content trees are left out."""
    known: dict[Path, Attribute] = {}
    for example in found:
        copied_from = None if example.kind is ArtifactKind.SOURCE else example.source
        _collect([example.dataset], (), known, str(example.source.SOPInstanceUID), copied_from)
    items = _items_by_path(found)
    for path, attribute in known.items():
        attribute.parents = items.get(path[:-1], len(found)) if len(path) > 1 else len(found)
    return [known[path] for path in sorted(known, key=lambda path: _order(path, known))]


def _order(path: Path, known: dict[Path, Attribute]) -> list[str]:
    return [known[path[: length + 1]].tag for length in range(len(path))]


def _collect(
    items: Iterable[Dataset], path: Path, known: dict[Path, Attribute], source: str, copied_from: Dataset | None
) -> None:
    for item in items:
        for element in item:
            if element.tag.group == _FILE_META or (not path and element.keyword == CONTENT):
                continue
            here = (*path, element.keyword or str(element.tag))
            at = f"({element.tag.group:04X},{element.tag.element:04X})"
            entry = known.setdefault(here, Attribute(here, at, str(element.VR), element.name, 0))
            value = _text(element)
            entry.values.append(value)
            same = copied_from is not None and element.tag in copied_from and copied_from[element.tag] == element
            if value:
                entry.by_source.setdefault(source, set()).add(value)
                entry.copied = entry.copied and same
            if element.VR == "SQ" and not _is_code(element):
                for inner in element.value:
                    _collect([inner], here, known, source, inner if same else None)


def _items_by_path(found: Sequence[Example]) -> dict[Path, int]:
    """How many items each sequence has in all examples together."""
    counts: dict[Path, int] = {}

    def count(item: Dataset, path: Path) -> None:
        for element in item:
            if element.VR == "SQ":
                here = (*path, element.keyword)
                counts[here] = counts.get(here, 0) + len(element.value)
                for inner in element.value:
                    count(inner, here)

    for example in found:
        count(example.dataset, ())
    return counts


def _is_code(element: DataElement) -> bool:
    return bool(element.value) and all(not _CODE.isdisjoint(_keywords(item)) for item in element.value)


def _keywords(item: Dataset) -> set[str]:
    return {element.keyword for element in item}


def _text(element: DataElement) -> str:
    if element.VR == "SQ":
        if _is_code(element):
            return "; ".join(code_text(item) for item in element.value)
        return f"{len(element.value)} item" + ("s" if len(element.value) > 1 else "") if element.value else ""
    if element.VR in _BINARY:
        return "bytes" if element.value else ""
    if element.value is None:
        return ""
    values = element.value if element.VM > 1 else [element.value]
    return "\\".join(str(value) for value in values).strip()


def code_of(item: Dataset) -> tuple[str, str, str]:
    """(value, scheme, meaning) of a code item (PS3.3 8.8)."""
    value = item.get("CodeValue") or item.get("LongCodeValue") or ""
    return str(value), str(item.get("CodingSchemeDesignator") or ""), str(item.get("CodeMeaning") or "")


def code_text(item: Dataset) -> str:
    """``(66643007, SCT, "Skin of back")``."""
    value, scheme, meaning = code_of(item)
    return f'({value}, {scheme}, "{meaning}")'


# ------------------------------------------------------------------------------------------------------------- modules


@lru_cache(1)
def _standard() -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
    """SOP class → IOD, IOD → modules, module → attributes, as highdicom took them from PS3.3 and PS3.4."""
    read = [pkgutil.get_data("highdicom", f"_standard/{name}_map.json") for name in ("sop_class_iod", "iod_module")]
    read.append(pkgutil.get_data("highdicom", "_standard/module_attribute_map.json"))
    classes, modules, attributes_of = (json.loads(data or b"{}") for data in read)
    return classes, modules, attributes_of


def modules_of(sop_class_uid: str) -> list[Module]:
    """The modules of the IOD of ``sop_class_uid``, in the order of PS3.3. Raises `KeyError` for an unknown class."""
    classes, modules, attributes_of = _standard()
    return [
        Module(
            entry["key"],
            entry["ie"],
            entry["usage"],
            {(*one["path"], one["keyword"]): one["type"] for one in attributes_of.get(entry["key"], [])},
        )
        for entry in modules[classes[sop_class_uid]]
    ]


def module_for(path: Path, modules: Iterable[Module]) -> tuple[Module, str] | None:
    """The module that an attribute belongs to and its type there: the strictest where it is in several."""
    found = [(module, module.types[path]) for module in modules if path in module.types]
    return min(found, key=lambda one: _TYPES.index(one[1]), default=None)


def used(modules: Iterable[Module], found: Sequence[Example]) -> Iterator[tuple[Module, str]]:
    """Each module that the objects have, and whether ALWAYS or SOMETIMES.

    An object has a module when it has one of its attributes, and all of those that are never left out (types 1 and 2).
    A mandatory module of optional attributes alone is always there.
    """
    for module in modules:
        outer = {path[0]: kind for path, kind in module.types.items() if len(path) == 1}
        needed = _NEEDED.get(module.key) or {keyword for keyword, kind in outer.items() if kind in ("1", "2")}
        bare = module.usage == "M" and not needed
        having = sum(
            needed <= (there := _keywords(example.dataset)) and (bare or not there.isdisjoint(outer))
            for example in found
        )
        if having:
            yield module, "ALWAYS" if having == len(found) else "SOMETIMES"
