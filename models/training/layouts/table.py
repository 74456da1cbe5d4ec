"""A hospital's own images: a CSV file with paths.

======================  ==========================================================================
column                  what
======================  ==========================================================================
``image``               path of the image, below the folder of the table (needed)
``image_id``            how the image is called; without it the path without its ending
``dx``                  one of the classes; empty where it is not known
``mask``                path of the outline (white on black, as large as the image); may be empty
``lesion_id``           images of one lesion share it; where it is empty, near copies are grouped
``age``, ``sex``, ``localization``, ``dx_type``, ``fitzpatrick``  kept for the figures by group
======================  ==========================================================================

An image needs a diagnosis or an outline to teach anything.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

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

#: Skin type after Fitzpatrick, as tables write it.
FITZPATRICK = {digit: digit for digit in "123456"} | dict(
    zip(("i", "ii", "iii", "iv", "v", "vi"), "123456", strict=True)
)


def list_table(folder: Path, table: str) -> Listing:
    """List what a CSV file names.

    Raises:
        DataMissing: the table is not there.
        DataUnusable: a column or a path is missing, a path leads out of the folder, an image teaches nothing, or a
            Fitzpatrick type is none.
    """
    path = folder / table
    if not path.is_file():
        raise DataMissing(f"{path} is missing: name the CSV file by `table` in the configuration")
    labels, images, masks, idle = list[Label](), dict[str, Path](), dict[str, Path](), list[str]()
    for number, row in enumerate(read_table(path, ("image",)), start=2):
        where = f"{path}, line {number}"
        if not row["image"]:
            raise DataUnusable(f"{where}: the column 'image' is empty")
        image_id = row.get("image_id") or str(PurePosixPath(row["image"]).with_suffix(""))
        images[image_id] = _inside(folder, row["image"], where)
        if row.get("mask"):
            masks[image_id] = _inside(folder, row["mask"], where)
        diagnosis = row.get("dx", "").lower()
        if not diagnosis and not row.get("mask"):
            idle.append(image_id)
        labels.append(
            Label(image_id, row.get("lesion_id", ""), diagnosis, bool(row.get("mask")), _attributes(row, where))
        )
    if idle:
        raise DataUnusable(
            f"{path}: {len(idle)} images have neither a diagnosis (dx) nor an outline (mask): {', '.join(idle[:NAMED])}"
        )
    return Listing(tuple(sorted(labels, key=lambda label: label.image_id)), _existing(images), _existing(masks))


def _existing(paths: dict[str, Path]) -> Files:
    """The files that are there; the others are counted with the unreadable ones when the images are decoded."""
    return Files({image_id: path for image_id, path in paths.items() if path.is_file()})


def _inside(folder: Path, given: str, where: str) -> Path:
    """A path of the table below its folder."""
    path = Path(os.path.normpath(folder / given))
    if not path.is_relative_to(os.path.normpath(folder)):
        raise DataUnusable(f"{where}: {given!r} leads out of {folder}")
    return path


def _attributes(row: dict[str, str], where: str) -> dict[str, str]:
    """The patient's attributes, with the Fitzpatrick type as a digit."""
    found = known_attributes(row)
    if "fitzpatrick" in found:
        skin_type = FITZPATRICK.get(found["fitzpatrick"].lower().removeprefix("type").strip())
        if skin_type is None:
            raise DataUnusable(f"{where}: Fitzpatrick type {found['fitzpatrick']!r}; there is 1 to 6, or I to VI")
        found["fitzpatrick"] = skin_type
    return found
