"""How collections lie on disk: one adapter per layout, named by a configuration's ``layout``.

To add one: write a function from the collection's folder (and its ``table`` setting) to a
:class:`~models.training.datasets.Listing`, put one line into :data:`LAYOUTS`, and its name into
:data:`~models.training.configuration.Layout`. Nothing is read here but tables and file names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from models.training.configuration import CLASSES
from models.training.datasets import NAMED, DataUnusable, Listing, list_ham10000_archives, list_task1_archives
from models.training.layouts.published import list_ham10000, list_isic2018_task1, list_isic2018_task3
from models.training.layouts.table import list_table

__all__ = ["LAYOUTS", "list_collection"]

LAYOUTS: dict[str, Callable[[Path, str], Listing]] = {
    "ham10000-archives": lambda folder, table: list_ham10000_archives(folder),
    "isic2018-task1-archives": lambda folder, table: list_task1_archives(folder),
    "ham10000": lambda folder, table: list_ham10000(folder),
    "isic2018-task1": lambda folder, table: list_isic2018_task1(folder),
    "isic2018-task3": lambda folder, table: list_isic2018_task3(folder),
    "table": list_table,
}


def list_collection(layout: str, folder: Path, table: str = "images.csv") -> Listing:
    """List a collection and check what its table says.

    Raises:
        DataMissing: a table or folder of the layout is not there.
        DataUnusable: an image is listed twice, or has a diagnosis that is none of the classes.
    """
    listing = LAYOUTS[layout](folder, table)
    if not listing.labels:
        raise DataUnusable(f"{folder} ({layout}): the table lists no image")
    times = Counter(label.image_id for label in listing.labels)
    twice = sorted(image for image, count in times.items() if count > 1)
    if twice:
        raise DataUnusable(f"{folder} ({layout}): {len(twice)} images are listed twice: {', '.join(twice[:NAMED])}")
    strange = [label for label in listing.labels if label.diagnosis and label.diagnosis not in CLASSES]
    if strange:
        named = ", ".join(f"{label.image_id}: {label.diagnosis!r}" for label in strange[:NAMED])
        raise DataUnusable(
            f"{folder} ({layout}): {len(strange)} images have a diagnosis that is no class ({named}); "
            f"there is: {', '.join(CLASSES)}, or nothing where it is not known"
        )
    return listing
