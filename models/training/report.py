"""The evaluation report of a fresh package: the test fold of every collection at full size, by the run-time code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dermoscopy.domain import Mask, RGBPixels
from dermoscopy.errors import UnreadableObject
from models.evaluation.command import Extent, evaluate_package
from models.evaluation.dataset import Case, Dataset
from models.registry import open_package
from models.training.configuration import TrainingConfiguration
from models.training.datasets import Label, Listing, decode_colour, decode_mask
from models.training.material import Material
from models.training.model_card import rewrite_card

#: Files of the first collection's report in the package's ``evaluation`` folder.
REPORT = ("report.json", "report.html")


def write_reports(folder: Path, configuration: TrainingConfiguration, material: Material, command: str) -> None:
    """Write ``evaluation/report.json`` and ``report.html``, and one more pair for each further collection."""
    package = open_package(folder.parent.parent, configuration.name, configuration.version)
    splits = [material.split, *material.further_splits.values()]
    datasets = {}
    for (name, listing), split in zip(material.listings.items(), splits, strict=True):
        images = [image for image in split.images("test") if image not in material.crops.unreadable]
        kept = [image for image in images if image not in material.copies]
        if kept:
            notes = (
                f"The test fold of {split.path.name} (SHA-256 {split.sha256}).",
                *(
                    f"{image} is left out: it copies {material.copies[image]}, which training saw."
                    for image in images
                    if image in material.copies
                ),
            )
            datasets[f"{name} test fold"] = fold_dataset(f"{name} test fold", listing, kept, notes)
    options = configuration.report
    evaluate_package(
        package,
        datasets,
        extent=Extent(
            thorough=options.thorough,
            seed=configuration.seed,
            threads=configuration.optimisation.threads,
            progress=True,
            command=command,
        ),
    )
    rewrite_card(folder)


def fold_dataset(name: str, listing: Listing, images: list[str], notes: tuple[str, ...]) -> Dataset:
    """Some images of a collection as the evaluation reads them, each decoded from its file when it is asked for."""
    wanted = set(images)
    labels = [label for label in listing.labels if label.image_id in wanted]
    digest = hashlib.sha256()
    for label in labels:
        digest.update(f"{label.image_id},{label.lesion_id},{label.diagnosis}\n".encode())
        digest.update(hashlib.sha256(listing.images.read(label.image_id)).digest())
        if label.outlined:
            digest.update(hashlib.sha256(listing.masks.read(label.image_id)).digest())
    cases = tuple(
        Case(
            label.image_id,
            _pixels(listing, label),
            _outline(listing, label),
            label.diagnosis,
            label.lesion_id,
            label.attributes,
        )
        for label in labels
    )
    return Dataset(
        name, "the files that the training command read, at their full size", cases, digest.hexdigest(), {}, notes
    )


def _pixels(listing: Listing, label: Label) -> Callable[[], RGBPixels]:
    """What decodes an image."""

    def read() -> RGBPixels:
        try:
            return decode_colour(listing.images.read(label.image_id))
        except ValueError as error:
            raise UnreadableObject(f"{label.image_id}: {error}") from error

    return read


def _outline(listing: Listing, label: Label) -> Callable[[], Mask | None]:
    """What decodes an outline, where there is one."""

    def read() -> Mask | None:
        if not label.outlined:
            return None
        try:
            return np.asarray(decode_mask(listing.masks.read(label.image_id)) > 0)
        except ValueError as error:
            raise UnreadableObject(f"{label.image_id}: {error}") from error

    return read
