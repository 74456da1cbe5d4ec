"""Tables of labels: which image is what, with the lesion and what else is known of it."""

from __future__ import annotations

import csv
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dermoscopy.errors import Misconfigured
from models.evaluation.diagnoses import class_of
from models.evaluation.sources import image_key

#: Column names that mean the same, in order of preference.
IMAGE = ("image_id", "image", "isic_id", "img_id", "image_name", "filename", "file_name", "file", "path", "id")
DIAGNOSIS = (
    "dx", "diagnosis", "diagnostic", "diagnosis_3", "label", "class", "target", "isic2019_label", "category",
)  # fmt: skip
LESION = ("lesion_id", "lesion", "patient_id")
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "age": ("age", "age_approx"),
    "sex": ("sex", "gender"),
    "localization": ("localization", "localisation", "anatom_site_general", "region", "body_site", "site"),
    "dx_type": ("dx_type", "diagnosis_confirm_type", "confirmation"),
    "fitzpatrick": ("fitzpatrick", "fitzpatrick_skin_type", "fitspatrick", "fst", "skin_type"),
}
_UNSAID = frozenset({"", "nan", "na", "none", "null"})


@dataclass(frozen=True)
class Row:
    """One image. ``diagnosis`` is a class, empty where none is known; ``named`` is what the table says."""

    image: str
    diagnosis: str
    named: str
    lesion: str
    attributes: Mapping[str, str]
    fold: str


@dataclass(frozen=True)
class LabelTable:
    """The rows by image key, and the rows whose class the model does not have (``unknown``: image by name)."""

    path: Path
    rows: Mapping[str, Row]
    unknown: Mapping[str, tuple[str, ...]]

    def refuse_unknown(self, classes: Collection[str]) -> None:
        """Raises `Misconfigured` naming every class that is not the model's, and how often it occurs."""
        if self.unknown:
            named = "; ".join(
                f"{name!r} ({len(images)} rows, such as {images[0]})" for name, images in sorted(self.unknown.items())
            )
            raise Misconfigured(
                f"{self.path.name}: unknown class {named}. Allowed are {', '.join(classes)}, and their usual names "
                "(melanoma, nevus …); leave the cell empty where the diagnosis is not known, or give --skip-bad to "
                "leave these rows out"
            )


def is_label_table(path: Path, classes: Collection[str]) -> bool:
    """Whether the first line of a CSV names an image column and a diagnosis, or one column per class."""
    try:
        header, _ = _open(path, rows=False)
    except Misconfigured:
        return False
    return _first(header, IMAGE) is not None and bool(_first(header, DIAGNOSIS) or len(_one_hot(header, classes)) > 1)


def read_labels(path: Path, classes: Collection[str]) -> LabelTable:
    """Read a table with a column of images, and a column of diagnoses or one column of 0 and 1 per class (ISIC).

    Raises `Misconfigured`: no such file, no usable columns, two rows that contradict each other.
    """
    header, lines = _open(path)
    image = _first(header, IMAGE)
    if image is None:
        raise Misconfigured(f"{path.name}: no column of images: call it image_id (there is: {', '.join(header)})")
    diagnosis, one_hot = _first(header, DIAGNOSIS), _one_hot(header, classes)
    if diagnosis is None and len(one_hot) < 2:
        raise Misconfigured(
            f"{path.name}: no column of diagnoses: call it dx, or have one column of 0 and 1 for each class "
            f"(there is: {', '.join(header)})"
        )
    others = {name: column for name, choices in ATTRIBUTES.items() if (column := _first(header, choices))}
    lesion, fold = _first(header, LESION), _first(header, ("fold",))
    indicators = _indicators(header, lines) if diagnosis is None else []
    rows: dict[str, Row] = {}
    unknown: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=2):
        named = line[diagnosis] if diagnosis else _hottest(line, indicators, path, number)
        label = class_of(named, classes)
        key = image_key(line[image])
        if not key:
            raise Misconfigured(f"{path.name}: line {number} names no image")
        if label is None:
            unknown.setdefault(named.strip(), []).append(line[image])
            continue
        attributes = {name: line[column].strip() for name, column in others.items() if _said(line[column])}
        group = line[lesion].strip() if lesion else ""
        row = Row(
            line[image].strip(), label, named.strip(), group, attributes, line[fold].strip().lower() if fold else ""
        )
        if key in rows and rows[key].diagnosis != label:
            raise Misconfigured(
                f"{path.name}: line {number}: {line[image]} is {label or 'unlabelled'} here and "
                f"{rows[key].diagnosis or 'unlabelled'} further up"
            )
        rows.setdefault(key, row)
    if not rows and not unknown:
        raise Misconfigured(f"{path.name}: has a header but no rows")
    return LabelTable(path, rows, {name: tuple(images) for name, images in unknown.items()})


def read_split(path: Path, fold: str) -> Mapping[str, str]:
    """Lesion by image key for the images of one fold. Raises `Misconfigured`, naming the folds that there are."""
    header, lines = _open(path)
    image, column, lesion = _first(header, IMAGE), _first(header, ("fold", "split", "set")), _first(header, LESION)
    if image is None or column is None:
        raise Misconfigured(f"{path.name}: a split needs the columns image_id and fold (there is: {', '.join(header)})")
    folds = {line[column].strip().lower() for line in lines}
    if fold.lower() not in folds:
        raise Misconfigured(f"{path.name}: has no fold {fold!r}; there is: {', '.join(sorted(folds))}")
    return {
        image_key(line[image]): line[lesion].strip() if lesion else ""
        for line in lines
        if line[column].strip().lower() == fold.lower()
    }


def read_folds(path: Path) -> dict[str, str]:
    """Fold by image key, for every image of a split. Raises `Misconfigured` if it has no such columns."""
    header, lines = _open(path)
    image, column = _first(header, IMAGE), _first(header, ("fold", "split", "set"))
    if image is None or column is None:
        raise Misconfigured(f"{path.name}: a split needs the columns image_id and fold (there is: {', '.join(header)})")
    return {image_key(line[image]): line[column].strip().lower() for line in lines}


def _open(path: Path, rows: bool = True) -> tuple[list[str], list[dict[str, str]]]:
    """Header and rows with column names in lower case; comma, semicolon or tab."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            first = stream.readline()
            delimiter = max(",;\t", key=first.count)
            header = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
            reader = csv.reader(stream, delimiter=delimiter)
            lines = [_line(header, cells, path, n) for n, cells in enumerate(reader, 2) if any(cells)] if rows else []
    except FileNotFoundError as error:
        raise Misconfigured(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise Misconfigured(f"{path.name}: cannot be read as a CSV in UTF-8: {error}") from error
    return header, lines


def _line(header: Sequence[str], cells: Sequence[str], path: Path, number: int) -> dict[str, str]:
    if len(cells) != len(header):
        raise Misconfigured(f"{path.name}: line {number} has {len(cells)} cells, the header has {len(header)}")
    return dict(zip(header, cells, strict=True))


def _first(header: Collection[str], choices: Sequence[str]) -> str | None:
    return next((name for name in choices if name in header), None)


def _one_hot(header: Sequence[str], classes: Collection[str]) -> list[str]:
    return [name for name in header if class_of(name, classes)]


def _indicators(header: Sequence[str], lines: Sequence[Mapping[str, str]]) -> list[str]:
    """Columns that hold nothing but 0 and 1: one class each, a class that the model lacks included."""
    known = {*IMAGE, *LESION, "fold", *(name for choices in ATTRIBUTES.values() for name in choices)}
    return [name for name in header if name not in known and all(_number(line[name]) in (0.0, 1.0) for line in lines)]


def _hottest(line: Mapping[str, str], indicators: Sequence[str], path: Path, number: int) -> str:
    hot = [name for name in indicators if _number(line[name]) == 1.0]
    if len(hot) > 1:
        raise Misconfigured(f"{path.name}: line {number} has a 1 in {', '.join(hot)}: an image has one diagnosis")
    return hot[0] if hot else ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0


def _said(text: str) -> bool:
    return text.strip().lower() not in _UNSAID
