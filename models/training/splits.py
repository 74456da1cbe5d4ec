"""The split by lesion: made once, committed, and used ever after.

HAM10000 shows many lesions more than once, so a split by image leaks: the same lesion is learned and tested. Here a
lesion belongs to exactly one of four folds; each class is divided in the same proportions; and every lesion that has an
image at its published size lies in the test fold, so that full-frame figures come from lesions that nothing saw.
"""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dermoscopy.errors import Misconfigured
from models.training.configuration import file_digest
from models.training.datasets import DataMissing, Label, Listing, read_table

FOLDS: tuple[str, ...] = ("train", "validation", "calibration", "test")
#: Shares of the lesions of each class.
SHARES: dict[str, float] = {"train": 0.68, "validation": 0.12, "calibration": 0.07, "test": 0.13}
SEED = 20180803
FOLDER = Path(__file__).parent / "splits"


class LesionLeak(Misconfigured):
    """A lesion lies in more than one fold, or the split does not fit the labels."""


@dataclass(frozen=True)
class Split:
    """The fold of every image, checked: no lesion lies in two folds."""

    path: Path
    sha256: str
    fold_by_image: Mapping[str, str]
    lesion_by_image: Mapping[str, str]

    def images(self, fold: str) -> list[str]:
        """Image ids of a fold, in order."""
        return sorted(image for image, where in self.fold_by_image.items() if where == fold)

    def lesions(self, fold: str) -> set[str]:
        """Lesion ids of a fold."""
        return {self.lesion_by_image[image] for image in self.images(fold)}


def make_split(
    labels: Iterable[Label],
    test_images: Iterable[str],
    seed: int = SEED,
    shares: Mapping[str, float] = SHARES,
) -> dict[str, str]:
    """Divide lesions into folds, class by class; the lesions of ``test_images`` go to the test fold first.

    Returns the fold by lesion id. The same labels, images and seed always give the same split.
    """
    by_class: dict[str, set[str]] = defaultdict(set)
    lesion_of: dict[str, str] = {}
    for label in labels:
        by_class[label.diagnosis].add(label.lesion_id)
        lesion_of[label.image_id] = label.lesion_id
    forced = {lesion_of[image] for image in test_images}
    folds: dict[str, str] = {}
    generator = random.Random(seed)
    for diagnosis in sorted(by_class):
        lesions = sorted(by_class[diagnosis])
        generator.shuffle(lesions)
        first = [lesion for lesion in lesions if lesion in forced]
        rest = [lesion for lesion in lesions if lesion not in forced]
        queue = first + rest
        start = 0
        for fold in ("test", "validation", "calibration"):
            size = max(1, round(shares[fold] * len(lesions)))
            if fold == "test":
                size = max(size, len(first))
            for lesion in queue[start : start + size]:
                folds[lesion] = fold
            start += size
        for lesion in queue[start:]:
            folds[lesion] = "train"
    return folds


def write_split(path: Path, labels: Iterable[Label], folds: Mapping[str, str]) -> None:
    """Write ``image_id,lesion_id,fold``, sorted by image id."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("image_id", "lesion_id", "fold"))
        for label in sorted(labels, key=lambda label: label.image_id):
            writer.writerow((label.image_id, label.lesion_id, folds[label.lesion_id]))


def read_split(name: str) -> Split:
    """Read a split by its file name in ``models/training/splits`` or by its path, and refuse it if a lesion leaks.

    Raises:
        DataMissing: there is no such file.
        LesionLeak: a lesion lies in two folds, an image is listed twice, or a fold has no such name.
    """
    path = FOLDER / name if (FOLDER / name).is_file() else Path(name)
    if not path.is_file():
        raise DataMissing(
            f"there is no split {name!r}, neither in models/training/splits nor as a path: make it with "
            "`python -m models.training.make_split`, or leave `split` out and it is made when the run begins"
        )
    fold_by_image: dict[str, str] = {}
    lesion_by_image: dict[str, str] = {}
    fold_by_lesion: dict[str, str] = {}
    for row in read_table(path, ("image_id", "lesion_id", "fold")):
        image, lesion, fold = row["image_id"], row["lesion_id"], row["fold"]
        if fold not in FOLDS:
            raise LesionLeak(f"{path.name}: {image} is in fold {fold!r}; there is: {', '.join(FOLDS)}")
        if image in fold_by_image:
            raise LesionLeak(f"{path.name}: {image} is listed twice")
        if fold_by_lesion.setdefault(lesion, fold) != fold:
            raise LesionLeak(f"{path.name}: lesion {lesion} is in {fold_by_lesion[lesion]} and in {fold} ({image})")
        fold_by_image[image], lesion_by_image[image] = fold, lesion
    return Split(path, file_digest(path), fold_by_image, lesion_by_image)


def check_against_labels(split: Split, labels: Iterable[Label]) -> None:
    """Refuse a split whose images or lesions are not those of the label file."""
    expected = {label.image_id: label.lesion_id for label in labels}
    if expected != dict(split.lesion_by_image):
        differing = sorted(set(expected.items()) ^ set(split.lesion_by_image.items()))
        raise LesionLeak(
            f"{split.path.name} does not fit the labels: {len(differing)} differences, first {differing[0]}"
        )


def fit_to_split(listing: Listing, split: Split) -> Listing:
    """The collection with a lesion id for every image: its own, or where the table lacks some the split's.

    Raises:
        LesionLeak: the split has other images or lesions, or a lesion of the table lies in two of its folds.
    """
    if all(label.lesion_id for label in listing.labels):
        check_against_labels(split, listing.labels)
        return listing
    differing = sorted({label.image_id for label in listing.labels} ^ set(split.fold_by_image))
    if differing:
        raise LesionLeak(
            f"{split.path.name} does not fit the labels: {len(differing)} images are in one only, first {differing[0]}"
        )
    fold_of: dict[str, str] = {}
    for label in listing.labels:
        fold = split.fold_by_image[label.image_id]
        if label.lesion_id and fold_of.setdefault(label.lesion_id, fold) != fold:
            raise LesionLeak(
                f"{split.path.name}: lesion {label.lesion_id} is in {fold_of[label.lesion_id]} and in {fold} "
                f"({label.image_id})"
            )
    return listing.with_lesions(split.lesion_by_image)
