"""What a run learns from and is measured on: collections listed, split by lesion, checked for leaks and decoded."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.training.configuration import CLASSES, Data, FurtherCollection
from models.training.datasets import Crops, DataUnusable, Listing, decoded, stack
from models.training.layouts import list_collection
from models.training.leaks import Collected, read_known_copies, refuse_shared, withheld
from models.training.make_split import split_collection
from models.training.near_copies import hash_images
from models.training.splits import FOLDS, Split, fit_to_split, read_split

logger = logging.getLogger("models.training")


@dataclass(frozen=True)
class Material:
    """All images of a run as one stack of crops, and which rows of it each fold has.

    ``listings`` hold the files at their full size, by the collection's name (the first one's first). ``rows`` are those
    of the first collection, by fold; ``further`` those of each other collection, by its name and by fold. Images that
    cannot be read are in none of them (``crops.unreadable``), and images that copy one of a fold nearer to training are
    not either (``copies``, with what they copy).
    """

    crops: Crops
    split: Split
    further_splits: Mapping[str, Split]
    rows: Mapping[str, list[int]]
    further: Mapping[str, Mapping[str, list[int]]]
    copies: Mapping[str, str]
    listings: Mapping[str, Listing]

    def all_rows(self, fold: str) -> list[int]:
        """Rows of a fold over all collections, the first one first."""
        return [*self.rows[fold], *(row for rows in self.further.values() for row in rows[fold])]


def gather(options: Data, data: Path, cache: Path, splits: Path, skip_bad: bool = False) -> Material:
    """List, split, check and decode the collections of a configuration.

    Args:
        options: the configuration's ``data``.
        data: the folder that ``folder`` of each collection is below.
        cache: decoded images and hashes, one folder for each collection.
        splits: where the splits go that the configuration does not name.
        skip_bad: leave out images that cannot be read, instead of refusing.

    Raises:
        DataMissing: a file is not there.
        DataUnusable: images cannot be read, a diagnosis is no class, or a class does not occur.
        LesionLeak: a lesion, an image or a near copy lies in two folds.
    """
    named: list[tuple[str, Data | FurtherCollection]] = [(options.dataset.lower(), options)]
    named += [(further.collection, further) for further in options.further]
    listings, collected = list[Listing](), list[Collected]()
    for name, where in named:
        listing = list_collection(where.layout, data / where.folder, where.table)
        split = _split_of(name, where, listing, cache / name, splits)
        listings.append(fit_to_split(listing, split))
        collected.append(Collected(name, split, {}))
    refuse_shared(collected)
    logger.info("decoding %s (once)", data)
    parts = [decoded(listing, cache / each.name, skip_bad) for listing, each in zip(listings, collected, strict=True)]
    hashed = [
        Collected(each.name, each.split, hash_images(listing, cache / each.name))
        for listing, each in zip(listings, collected, strict=True)
    ]
    copies = withheld(hashed, read_known_copies(options.known_copies))
    for image, copied in copies.items():
        logger.info("%s copies %s of a fold nearer to training: left out of every figure", image, copied)
    crops = stack(parts)
    if crops.unreadable:
        logger.warning("left out %d unreadable images: %s", len(crops.unreadable), ", ".join(sorted(crops.unreadable)))
    positions = {image: row for image, row in crops.positions().items() if image not in copies}
    rows = [
        {fold: [positions[image] for image in each.split.images(fold) if image in positions] for fold in FOLDS}
        for each in collected
    ]
    material = Material(
        crops,
        collected[0].split,
        {each.name: each.split for each in collected[1:]},
        rows[0],
        {each.name: its for each, its in zip(collected[1:], rows[1:], strict=True)},
        copies,
        {each.name: listing for each, listing in zip(collected, listings, strict=True)},
    )
    _refuse_absent_classes(material)
    return material


def _split_of(name: str, where: Data | FurtherCollection, listing: Listing, cache: Path, splits: Path) -> Split:
    """The split that a configuration names, or the one that is made once for a run."""
    if where.split is not None:
        return read_split(where.split)
    path = splits / f"{name}.csv"
    if path.is_file():
        logger.info("skipping the split of %s: %s stands", name, path)
    else:
        lesions = split_collection(listing, cache, path)
        logger.info("split %s: %d images of %d lesions; wrote %s", name, len(listing.labels), lesions, path)
    return read_split(str(path))


def _refuse_absent_classes(material: Material) -> None:
    """Every class must be shown while training, and the first collection must have melanomas wherever it is judged.

    Raises:
        DataUnusable: names the class and the fold.
    """
    labels = material.crops.labels
    shown = {labels[row].diagnosis for row in material.all_rows("train")}
    absent = [name for name in CLASSES if name not in shown]
    if absent:
        raise DataUnusable(
            f"no image of the training fold shows {', '.join(absent)}: the network answers for "
            f"{', '.join(CLASSES)}, so add a collection that has them (data.further)"
        )
    for fold in FOLDS[1:]:
        if not any(labels[row].diagnosis == "mel" for row in material.rows[fold]):
            raise DataUnusable(
                f"{material.split.path.name}: the {fold} fold shows no melanoma, so nothing about melanoma can be "
                "fitted or measured there: use a larger collection first, and this one under data.further"
            )
