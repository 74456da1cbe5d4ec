"""What leaks between folds although every lesion id lies in one: shared images, shared lesions and near copies.

Two collections can hold the same photograph, and publishers give one lesion two ids. Such a pair is refused unless
somebody has looked at it and written down what it shows (``splits/known-copies.csv``, or a file of the same columns
named by ``data.known_copies``): ``different`` lets it pass; ``same`` keeps the split and takes the image that is in the
fold further from training out of every figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.training.datasets import NAMED, DataMissing, DataUnusable, read_table
from models.training.near_copies import LEAK, Hash, near_pairs
from models.training.splits import FOLDER, FOLDS, LesionLeak, Split

SHOWS = ("same", "different")


@dataclass(frozen=True)
class Collected:
    """One collection as far as leaks are concerned."""

    name: str
    split: Split
    hashes: Mapping[str, Hash]


def read_known_copies(name: str) -> dict[frozenset[str], str]:
    """What pairs of images show (``same`` or ``different``), from a file in ``models/training/splits`` or a path."""
    path = FOLDER / name if (FOLDER / name).is_file() else Path(name)
    if not path.is_file():
        raise DataMissing(f"data.known_copies: there is no {name!r}, neither in models/training/splits nor as a path")
    known: dict[frozenset[str], str] = {}
    for row in read_table(path, ("image_id", "other_id", "shows")):
        if row["shows"] not in SHOWS:
            raise DataUnusable(
                f"{path.name}: {row['image_id']} and {row['other_id']} show {row['shows']!r}; "
                f"there is: {', '.join(SHOWS)}"
            )
        known[frozenset((row["image_id"], row["other_id"]))] = row["shows"]
    return known


def refuse_shared(collections: Sequence[Collected]) -> None:
    """Refuse collections that hold one image twice, or one lesion in two folds.

    Raises:
        LesionLeak: names the image or the lesion, and both places.
    """
    holder: dict[str, str] = {}
    place: dict[str, tuple[str, str]] = {}
    for each in collections:
        for image, fold in each.split.fold_by_image.items():
            if image in holder:
                raise LesionLeak(f"image {image} is in {holder[image]} and in {each.name}: take it out of one of them")
            holder[image] = each.name
            lesion = each.split.lesion_by_image[image]
            before, where = place.setdefault(lesion, (fold, each.name))
            if before != fold:
                raise LesionLeak(
                    f"lesion {lesion} is in {before} of {where} and in {fold} of {each.name}: "
                    "give both collections' images of it one fold"
                )


def withheld(collections: Sequence[Collected], known: Mapping[frozenset[str], str]) -> dict[str, str]:
    """Images to leave out of every figure, each with the image of a nearer fold that it copies.

    Raises:
        LesionLeak: two images in different folds are near copies, and nobody has said what they show.
    """
    fold_of = {image: fold for each in collections for image, fold in each.split.fold_by_image.items()}
    hashes = {image: bits for each in collections for image, bits in each.hashes.items()}
    out: dict[str, str] = {}
    leaking: list[str] = []
    for first, second, bits in near_pairs(hashes, LEAK):
        if fold_of[first] == fold_of[second]:
            continue
        shows = known.get(frozenset((first, second)))
        if shows == "same":
            nearer, further = sorted((first, second), key=lambda image: FOLDS.index(fold_of[image]))
            out[further] = nearer
        elif shows is None:
            leaking.append(f"{first} ({fold_of[first]}) and {second} ({fold_of[second]}), {bits} of 256 bits differ")
    if leaking:
        rest = f" and {len(leaking) - NAMED} more" if len(leaking) > NAMED else ""
        raise LesionLeak(
            f"{len(leaking)} pairs of near copies lie in two folds: {'; '.join(leaking[:NAMED])}{rest}. Look at them: "
            "give copies one lesion and one fold, or write what each pair shows into the file that "
            "data.known_copies names"
        )
    return out
