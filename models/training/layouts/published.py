"""HAM10000 and ISIC 2018 as their publishers lay them out, unpacked.

* HAM10000 (Harvard Dataverse, doi:10.7910/DVN/DBW86T): ``HAM10000_images_part_1`` and ``…_part_2`` with
  ``<image_id>.jpg``, ``HAM10000_metadata`` (CSV; also as ``.csv`` or, from Dataverse's converter, ``.tab``) and
  ``HAM10000_segmentations_lesion_tschandl`` with ``<image_id>_segmentation.png``.
* ISIC 2018 Task 1 (challenge.isic-archive.com/data/#2018): ``ISIC2018_Task1-2_Training_Input`` with ``<image_id>.jpg``,
  ``ISIC2018_Task1_Training_GroundTruth`` with ``<image_id>_segmentation.png``. No diagnoses, no lesion ids.
* ISIC 2018 Task 3: ``ISIC2018_Task3_Training_Input``, ``ISIC2018_Task3_Training_GroundTruth.csv`` (one-hot; in a folder
  of that name, or beside it) and ``ISIC2018_Task3_Training_LesionGroupings.csv``. No outlines: those of HAM10000 belong
  to the same image ids and are taken where their folder lies beside.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from models.training.configuration import CLASSES
from models.training.datasets import (
    NAMED,
    DataMissing,
    DataUnusable,
    Files,
    Label,
    Listing,
    known_attributes,
    read_table,
)

HAM_OUTLINES = "HAM10000_segmentations_lesion_tschandl"
TASK3 = "ISIC2018_Task3_Training"
SUFFIX = "_segmentation"


def list_ham10000(folder: Path) -> Listing:
    """HAM10000 as on Harvard Dataverse; an image without an outline lends its diagnosis only.

    Raises:
        DataMissing: the table or the image folders are not there.
    """
    table = _first(folder, ("HAM10000_metadata.csv", "HAM10000_metadata.tab", "HAM10000_metadata"))
    images = _images(folder, ("HAM10000_images_part_1", "HAM10000_images_part_2"))
    outlines = _outlines(folder / HAM_OUTLINES, needed=True)
    labels = [
        Label(row["image_id"], row["lesion_id"], row["dx"].lower(), row["image_id"] in outlines, known_attributes(row))
        for row in read_table(table, ("image_id", "lesion_id", "dx"))
    ]
    _refuse_empty(table, [(label.image_id, label.diagnosis) for label in labels], "dx")
    return Listing(_sorted(labels), Files(images), Files(outlines))


def list_isic2018_task1(folder: Path) -> Listing:
    """ISIC 2018 Task 1: outlines for all, and nothing else.

    Raises:
        DataMissing: a folder is not there.
    """
    images = _images(folder, ("ISIC2018_Task1-2_Training_Input",))
    outlines = _outlines(folder / "ISIC2018_Task1_Training_GroundTruth", needed=True)
    return Listing(_sorted(Label(image, "", "") for image in images), Files(images), Files(outlines))


def list_isic2018_task3(folder: Path) -> Listing:
    """ISIC 2018 Task 3: diagnoses and lesions.

    Raises:
        DataMissing: a table or the image folder is not there.
        DataUnusable: a row of the one-hot table names none or several classes, or an image has no lesion.
    """
    truth = _first(folder, (f"{TASK3}_GroundTruth/{TASK3}_GroundTruth.csv", f"{TASK3}_GroundTruth.csv"))
    groupings = f"{TASK3}_LesionGroupings.csv"
    lesions = {
        row["image"]: row
        for row in read_table(_first(folder, (groupings, f"{TASK3}_GroundTruth/{groupings}")), ("image", "lesion_id"))
    }
    images = _images(folder, (f"{TASK3}_Input",))
    outlines = _outlines(folder / HAM_OUTLINES, needed=False)
    labels, alone = list[Label](), list[str]()
    for row in read_table(truth, ("image", *(name.upper() for name in CLASSES))):
        image = row["image"]
        named = [name for name in CLASSES if float(row[name.upper()] or 0) > 0.5]
        if len(named) != 1:
            raise DataUnusable(
                f"{truth}: {image} has {len(named)} classes ({', '.join(named) or 'none'}); exactly one is expected"
            )
        if image not in lesions:
            alone.append(image)
            continue
        confirmed = lesions[image].get("diagnosis_confirm_type", "")
        labels.append(
            Label(
                image, lesions[image]["lesion_id"], named[0], image in outlines,
                {"dx_type": confirmed} if confirmed else {},
            )
        )  # fmt: skip
    _refuse_empty(truth, [(image, "") for image in alone], f"lesion in {groupings}")
    return Listing(_sorted(labels), Files(images), Files(outlines))


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    """The first file of these names that is there."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataMissing(f"{folder} has no {' or '.join(names)}: unpack the publisher's files there, or set the layout")


def _images(folder: Path, parts: tuple[str, ...]) -> dict[str, Path]:
    """The photographs in some folders by image id; every folder must be there."""
    absent = [part for part in parts if not (folder / part).is_dir()]
    if absent:
        raise DataMissing(f"{folder} has no folder {' and no '.join(absent)}: unpack the publisher's archives there")
    return {
        path.stem: path
        for part in parts
        for path in sorted((folder / part).iterdir())
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    }


def _outlines(folder: Path, needed: bool) -> dict[str, Path]:
    """The masks in a folder by image id."""
    if needed and not folder.is_dir():
        raise DataMissing(f"{folder} is missing: the outlines are a download of their own, to be unpacked there")
    return {path.stem.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}.png"))}


def _refuse_empty(table: Path, values: Iterable[tuple[str, str]], what: str) -> None:
    """Refuse images for which something that every row must have is empty."""
    empty = [image for image, value in values if not value]
    if empty:
        raise DataUnusable(f"{table}: {len(empty)} images have no {what}: {', '.join(empty[:NAMED])}")


def _sorted(labels: Iterable[Label]) -> tuple[Label, ...]:
    """By image id, as the arrays are."""
    return tuple(sorted(labels, key=lambda label: label.image_id))
