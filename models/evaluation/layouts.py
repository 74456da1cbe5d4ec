"""A folder becomes a `Dataset`, whoever laid it out: images, masks and labels are found by name.

Known layouts: images with a table (``image_id, dx``), images with masks, both, one folder per class, ISIC 2018 Task 1
and Task 3 as published (``…_Input``, ``…_GroundTruth``), and tar archives beside a table (``<table>-images-….tar``,
``<table>-masks-….tar``). Sizes do not matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dermoscopy.domain import Mask
from dermoscopy.errors import Misconfigured
from models.evaluation.dataset import Case, Dataset
from models.evaluation.diagnoses import class_of
from models.evaluation.labels import LabelTable, Row, is_label_table, read_labels, read_split
from models.evaluation.sources import Source, collection_of, decode_image, decode_mask, find_sources, image_size

NONE = "none"
"""As a choice of masks: judge no outline, though masks are there."""
_SHOWN = 3


@dataclass(frozen=True)
class Choice:
    """What the caller says beyond the folder; empty: found by itself.

    ``images`` and ``masks`` are a folder, or the first part of the archives' names; ``labels`` and ``split`` are CSV
    files; ``fold`` selects by the split's column (or the table's own); ``limit`` takes so many, evenly spread.
    """

    images: str = ""
    masks: str = ""
    labels: Path | None = None
    split: Path | None = None
    fold: str = ""
    limit: int = 0
    skip_bad: bool = False


def open_dataset(place: Path, classes: Sequence[str], choice: Choice | None = None) -> Dataset:
    """Find images, masks and labels at ``place``, a folder or the CSV in it.

    Raises `Misconfigured`, saying what is missing, doubled or unknown and what to do about it.
    """
    choice = choice or Choice()
    folder = place if place.is_dir() else place.parent
    if not place.exists():
        raise Misconfigured(f"{place}: no such folder; give the folder that holds the images")
    if not place.is_dir() and place.suffix.lower() != ".csv":
        raise Misconfigured(f"{place}: give a folder of images, or the CSV beside them")
    path = _table_path(place, folder, choice, classes)
    table = None if path is None else read_labels(path, classes)
    if table is not None and not choice.skip_bad:
        table.refuse_unknown(classes)
    images, masks = _images_and_masks(folder, table, choice)
    kept, rows, left_out, notes = _selected(folder, images, masks, table, choice, classes)
    cases, digest = _cases(kept, masks, rows)
    name = table.path.stem if table is not None else (place.stem if place.is_file() else place.resolve().name)
    return Dataset(name, _layout(table, masks, choice), cases, digest, left_out, tuple(notes))


def _table_path(place: Path, folder: Path, choice: Choice, classes: Sequence[str]) -> Path | None:
    if choice.labels is not None:
        beside = folder / choice.labels
        return choice.labels if choice.labels.is_file() or not beside.is_file() else beside
    if place.is_file():
        return place
    split = choice.split.resolve() if choice.split is not None else None
    candidates = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".csv" and path.resolve() != split)
    tables = [path for path in candidates if is_label_table(path, classes)]
    if len(tables) > 1:
        named = ", ".join(path.relative_to(folder).as_posix() for path in tables)
        raise Misconfigured(f"{folder} holds {len(tables)} tables of labels ({named}): say which with --labels")
    return tables[0] if tables else None


def _images_and_masks(
    folder: Path, table: LabelTable | None, choice: Choice
) -> tuple[dict[str, list[Source]], dict[str, list[Source]]]:
    """Sources of images and of masks by key; usually one each."""
    own = table.path.stem if table is not None and not (choice.images or choice.masks) else ""
    found = find_sources(folder, own if own and any(folder.glob(f"{own}-images*.tar")) else "")
    images, masks = _named(choice.images, folder, found), _named(choice.masks, folder, found)
    if images is None and table is not None:
        images = _beside(table, "images", found)
    if masks is None and table is not None:
        masks = _beside(table, "masks", found)
    loose = [one for one in found if one.path.suffix != ".tar"] or found
    stems = {one.stem for one in loose}
    if masks is None:
        masks = [one for one in loose if one.in_mask_folder or (one.masked != one.stem and one.masked in stems)]
    if images is None:
        taken = {(one.path, one.offset) for one in masks}
        images = [one for one in loose if (one.path, one.offset) not in taken]
    if not images:
        raise Misconfigured(
            f"no images found in {folder} (JPEG, PNG, TIFF, BMP or WebP, in folders or .tar; unpack a .zip): "
            "check the path, or name their folder with --images"
        )
    by_image: dict[str, list[Source]] = {}
    by_mask: dict[str, list[Source]] = {}
    for one in images:
        by_image.setdefault(one.stem, []).append(one)
    for one in masks:
        by_mask.setdefault(one.stem if one.stem in by_image else one.masked, []).append(one)
    return by_image, by_mask


def _named(name: str, folder: Path, found: list[Source]) -> list[Source] | None:
    """The sources that an option names: a folder anywhere, or a folder or archives below the data set."""
    if not name:
        return None
    if name == NONE:
        return []
    below = [one for one in found if one.name.startswith(f"{name.rstrip('/')}/") or collection_of(one).startswith(name)]
    if below:
        return below
    for place in (folder / name, Path(name)):
        if place.is_dir():
            return find_sources(place)
    collections = ", ".join(sorted({collection_of(one) for one in found if "/" in one.name})) or "nothing"
    raise Misconfigured(f"no folder or archive {name!r}; {folder} holds {collections}")


def _beside(table: LabelTable, kind: str, found: list[Source]) -> list[Source] | None:
    """Archives that are named after the table, such as ``ham10000-images-256-00.tar`` beside ``ham10000.csv``."""
    prefix = f"{table.path.stem}-{kind}"
    return [one for one in found if collection_of(one).startswith(prefix)] or None


def _one(sources: Sequence[Source], row: Row | None, option: str) -> Source:
    """The one source of an image. Of several of one name, the one whose folder the table names."""
    if len(sources) > 1 and row is not None and "/" in row.image:
        sources = [one for one in sources if one.name.lower().startswith(row.image.lower())] or sources
    if len(sources) > 1:
        raise Misconfigured(
            f"{sources[0].stem} is there {len(sources)} times ({', '.join(one.name for one in sources[:_SHOWN])}): "
            f"say which folder or archive counts with {option}"
        )
    return sources[0]


def _selected(
    folder: Path,
    images: dict[str, list[Source]],
    masks: dict[str, list[Source]],
    table: LabelTable | None,
    choice: Choice,
    classes: Sequence[str],
) -> tuple[list[Source], Mapping[str, Row], dict[str, str], list[str]]:
    """The images to evaluate, their rows by key, what was left out and what must be said."""
    notes: list[str] = []
    left_out: dict[str, str] = {}
    rows = dict(table.rows) if table is not None else _rows_of_folders(images, classes)
    wanted = _fold(choice, rows)
    if table is not None:
        absent = sorted((set(rows) if wanted is None else set(rows) & set(wanted)) - set(images))
        if absent:
            notes.append(f"{len(absent)} rows of {table.path.name} have no image here ({_examples(absent)})")
        for name, unknown in table.unknown.items():
            left_out.update(dict.fromkeys(unknown, f"its class {name!r} is none of the model's"))
    keys = sorted(key for key in images if wanted is None or key in wanted)
    if wanted is not None:
        rows = {key: _regrouped(row, wanted.get(key, "")) for key, row in rows.items()}
        notes.append(f"only the fold {choice.fold!r}: {len(keys)} of {len(images)} images")
    usable = [key for key in keys if key in masks or (key in rows and rows[key].diagnosis)]
    if len(usable) < len(keys):
        idle = sorted(set(keys) - set(usable))
        notes.append(f"{len(idle)} images have neither a diagnosis nor a mask and were left out ({_examples(idle)})")
    if not usable:
        raise Misconfigured(_nothing_usable(folder, images, table))
    unlabelled = [key for key in usable if key not in rows or not rows[key].diagnosis]
    if unlabelled and len(unlabelled) < len(usable):
        notes.append(f"{len(unlabelled)} images have no diagnosis: they count for the outline alone")
    bare = [key for key in usable if key not in masks]
    if masks and bare and len(bare) < len(usable):
        if not choice.skip_bad:
            raise Misconfigured(
                f"{len(bare)} of {len(usable)} images have no mask ({_examples(bare)}): add the masks, or give "
                "--skip-bad to judge the outline on the others"
            )
        notes.append(f"{len(bare)} images have no mask ({_examples(bare)}): they count for the diagnosis alone")
    if 0 < choice.limit < len(usable):
        notes.append(f"only {choice.limit} of {len(usable)} images, evenly spread over their names")
        usable = [usable[index * len(usable) // choice.limit] for index in range(choice.limit)]
    return [_one(images[key], rows.get(key), "--images") for key in usable], rows, left_out, notes


def _fold(choice: Choice, rows: Mapping[str, Row]) -> Mapping[str, str] | None:
    """Lesion by key for the images of the wanted fold; ``None`` where all are wanted."""
    if choice.split is not None:
        if not choice.fold:
            raise Misconfigured("--split needs --fold: say which part of it to evaluate, such as --fold test")
        return read_split(choice.split, choice.fold)
    if not choice.fold:
        return None
    folds = {row.fold for row in rows.values() if row.fold}
    if choice.fold.lower() not in folds:
        there = f"the table's own folds are {', '.join(sorted(folds))}" if folds else "the table has no column fold"
        raise Misconfigured(f"no fold {choice.fold!r}: {there}; name a file of folds with --split")
    return {key: "" for key, row in rows.items() if row.fold == choice.fold.lower()}


def _regrouped(row: Row, lesion: str) -> Row:
    return row if row.lesion or not lesion else Row(row.image, row.diagnosis, row.named, lesion, row.attributes, "")


def _rows_of_folders(images: Mapping[str, list[Source]], classes: Sequence[str]) -> dict[str, Row]:
    """Without a table: the folder's name is the diagnosis, if every image lies in a folder named for a class."""
    labels = {
        key: class_of(PurePosixPath(sources[0].name).parent.name, classes) or "" for key, sources in images.items()
    }
    if not all(labels.values()):
        return {}
    return {key: Row(key, label, label, "", {}, "") for key, label in labels.items()}


def _nothing_usable(folder: Path, images: Mapping[str, object], table: LabelTable | None) -> str:
    if table is None:
        return (
            f"{folder} holds {len(images)} images but neither labels nor masks: add a CSV with the columns image_id "
            "and dx, or a folder of masks named as the images are"
        )
    return (
        f"no usable image: none of the {len(images)} images ({_examples(sorted(images))}) has a diagnosis in "
        f"{table.path.name} ({_examples(sorted(table.rows))}) or a mask; the names must agree"
    )


def _cases(
    kept: list[Source], masks: Mapping[str, list[Source]], rows: Mapping[str, Row]
) -> tuple[tuple[Case, ...], str]:
    """The cases, and a digest of everything that they are made of."""
    whole = hashlib.sha256()
    cases: list[Case] = []
    for source in kept:
        key, row = source.stem, rows.get(source.stem)
        mask = _one(masks[key], None, "--masks") if key in masks else None
        name = PurePosixPath(source.name).stem
        diagnosis, lesion = (row.diagnosis, row.lesion) if row is not None else ("", "")
        parts = [name, diagnosis, lesion, *(hashlib.sha256(s.read()).hexdigest() for s in (source, mask) if s)]
        whole.update("\x1f".join(parts).encode() + b"\n")
        cases.append(_case(name, source, mask, diagnosis, lesion or name, row.attributes if row is not None else {}))
    return tuple(cases), whole.hexdigest()


def _case(
    name: str, source: Source, mask: Source | None, diagnosis: str, group: str, attributes: Mapping[str, str]
) -> Case:
    def reference() -> Mask | None:
        return None if mask is None else decode_mask(mask, image_size(source))

    return Case(name, lambda: decode_image(source), reference, diagnosis, group, attributes)


def _layout(table: LabelTable | None, masks: Mapping[str, object], choice: Choice) -> str:
    labels = f"labels from {table.path.name}" if table is not None else "no table of labels"
    return f"images, {'masks, ' if masks else ''}{labels}" + (f", fold {choice.fold}" if choice.fold else "")


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" …" if len(names) > _SHOWN else "")
