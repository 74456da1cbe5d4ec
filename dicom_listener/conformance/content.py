"""What stands in the content trees of rendered reports and key objects, and which codes all objects use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pydicom.dataset import Dataset

from dicom_listener.conformance.attributes import CONTENT, code_of, code_text
from dicom_listener.conformance.examples import Example

_VALUES: Final = 6
"""Codes of one item that are named; the rest stand in the list of codes."""

Place = tuple[tuple[str, str, str], ...]
"""(relationship, value type, concept) of each level."""


@dataclass(slots=True)
class Item:
    """One content item at one place of the tree."""

    place: Place
    parents: int = 0
    trees: int = 0
    """In how many of its parents it is there."""
    count: int = 0
    values: dict[str, None] = field(default_factory=dict)

    @property
    def presence(self) -> str:
        many = ", 1-n" if self.count > self.trees else ""
        return ("ALWAYS" if self.trees == self.parents else "ANAP") + many


def tree(found: Sequence[Example]) -> list[Item]:
    """Every place in the content trees of objects of one kind, in their order."""
    known: dict[Place, Item] = {}
    for example in found:
        _descend(example.dataset, (("", *_kind(example.dataset)),), known)
    for example in found:
        _count_parents(example.dataset, (("", *_kind(example.dataset)),), known)
    roots = [place for place in known if len(place) == 1]
    return [known[place] for root in roots for place in _below(root, known)]


def _below(root: Place, known: dict[Place, Item]) -> list[Place]:
    below = [place for place in known if len(place) == len(root) + 1 and place[: len(root)] == root]
    return [root, *(deeper for place in below for deeper in _below(place, known))]


def _kind(item: Dataset) -> tuple[str, str]:
    """Value type and concept; groups of different templates share a concept and are told apart by their template."""
    names = item.get("ConceptNameCodeSequence") or []
    templates = "".join(f" TID {one.TemplateIdentifier}" for one in item.get("ContentTemplateSequence") or [])
    return str(item.get("ValueType") or "reference"), (code_text(names[0]) if names else "") + templates


def _descend(item: Dataset, place: Place, known: dict[Place, Item]) -> None:
    entry = known.setdefault(place, Item(place))
    entry.count += 1
    entry.values[_value(item)] = None
    for child in item.get(CONTENT) or []:
        _descend(child, (*place, (str(child.RelationshipType), *_kind(child))), known)


def _count_parents(item: Dataset, place: Place, known: dict[Place, Item]) -> None:
    if len(place) == 1:
        known[place].parents += 1
        known[place].trees += 1
    children = item.get(CONTENT) or []
    there = {(*place, (str(child.RelationshipType), *_kind(child))) for child in children}
    for other, entry in known.items():
        if other[:-1] == place:
            entry.parents += 1
            entry.trees += other in there
    for child in children:
        _count_parents(child, (*place, (str(child.RelationshipType), *_kind(child))), known)


def _value(item: Dataset) -> str:
    """What an item says where that is not free text: a code, a unit."""
    if item.get("ConceptCodeSequence"):
        return code_text(item.ConceptCodeSequence[0])
    if item.get("MeasuredValueSequence"):
        return f"unit {code_text(item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0])}"
    return ""


def values_of(item: Item) -> str:
    """The codes and units of an item, as far as there is room."""
    listed = [value for value in item.values if value]
    more = f" and {len(listed) - _VALUES} more" if len(listed) > _VALUES else ""
    return "; ".join(listed[:_VALUES]) + more


def codes(found: Sequence[Example]) -> dict[tuple[str, str], tuple[str, set[str]]]:
    """(scheme, value) → (meaning, kinds of objects that use it), of every code in every object, sorted."""
    known: dict[tuple[str, str], tuple[str, set[str]]] = {}

    def visit(item: Dataset, kind: str) -> None:
        value, scheme, meaning = code_of(item)
        if value and scheme:
            known.setdefault((scheme, value), (meaning, set()))[1].add(kind)
        for element in item:
            if element.VR == "SQ":
                for inner in element.value:
                    visit(inner, kind)

    for example in found:
        visit(example.dataset, example.kind.value)
    return dict(sorted(known.items()))
