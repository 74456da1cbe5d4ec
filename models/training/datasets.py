"""Collections as arrays: the tar files decoded once into memory maps, and looked up by image id.

Layout of the data folder (see ``docs/model-training.md``): ``ham10000.csv``, ``ham10000-images-256-*.tar``,
``ham10000-masks-256-*.tar`` and, for the full-frame figures, ``ham10000-native-600x450-*.tar``; for ISIC 2018 Task 1
``isic2018-task1.csv``, ``isic2018-task1-images-512-*.tar`` and ``isic2018-task1-masks-512-*.tar``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dermoscopy.errors import Misconfigured

CROP = 256
Pixels = NDArray[np.uint8]


class DataMissing(Misconfigured):
    """A file that training needs is not in the data folder."""


@dataclass(frozen=True)
class Label:
    """One row of a collection's table, as far as training reads it; ``diagnosis`` is empty where none is known."""

    image_id: str
    lesion_id: str
    diagnosis: str


@dataclass(frozen=True)
class Stacked:
    """Several arrays of images as one, row by row; nothing is copied."""

    parts: tuple[Pixels, ...]

    def __getitem__(self, row: int) -> Pixels:
        """Image ``row``, counted through the parts."""
        for part in self.parts:
            if row < len(part):
                return np.asarray(part[row])
            row -= len(part)
        raise IndexError(row)


@dataclass(frozen=True)
class Crops:
    """All crops, decoded: ``images`` [N, 256, 256, 3] RGB and ``masks`` [N, 256, 256] of 0 and 255, memory-mapped."""

    labels: tuple[Label, ...]
    images: Pixels | Stacked
    masks: Pixels | Stacked

    def positions(self) -> dict[str, int]:
        """Row number by image id."""
        return {label.image_id: row for row, label in enumerate(self.labels)}


def read_labels(data: Path) -> tuple[Label, ...]:
    """Read ``ham10000.csv``, sorted by image id."""
    path = data / "ham10000.csv"
    if not path.is_file():
        raise DataMissing(f"{path} is missing: point --data at the folder that holds the HAM10000 files")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [Label(row["image_id"], row["lesion_id"], row["dx"]) for row in csv.DictReader(file)]
    return tuple(sorted(rows, key=lambda label: label.image_id))


def archives(data: Path, stem: str) -> list[Path]:
    """The tar files of one kind, in order."""
    found = sorted(data.glob(f"{stem}-*.tar"))
    if not found:
        raise DataMissing(f"no {stem}-*.tar in {data}")
    return found


def members(paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    """Image id and encoded bytes of every file in some tar archives."""
    for path in paths:
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None:
                    yield Path(member.name).stem, file.read()


def decode_colour(encoded: bytes) -> Pixels:
    """An encoded image to RGB [H, W, 3]."""
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("not a decodable image")
    return np.ascontiguousarray(image[..., ::-1])


def decode_mask(encoded: bytes) -> Pixels:
    """An encoded mask to [H, W] of 0 and 255."""
    mask = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise ValueError("not a decodable mask")
    return np.where(mask > 127, 255, 0).astype(np.uint8)


def native_image_ids(data: Path) -> tuple[str, ...]:
    """Ids of the images that are there at their published 600 by 450 pixels."""
    return tuple(sorted(image_id for image_id, _ in members(archives(data, "ham10000-native-600x450"))))


def read_native_images(data: Path) -> dict[str, Pixels]:
    """The published 600 by 450 images by id, RGB [450, 600, 3]."""
    return {key: decode_colour(encoded) for key, encoded in members(archives(data, "ham10000-native-600x450"))}


def load_crops(data: Path, cache: Path) -> Crops:
    """HAM10000: decode every crop and mask once into ``cache``, or open what an earlier run decoded there."""
    labels = read_labels(data)
    sources = {
        "images": archives(data, "ham10000-images-256"),
        "masks": archives(data, "ham10000-masks-256"),
    }
    return _decoded(labels, sources, cache)


def load_task1(data: Path, cache: Path, lesions: Mapping[str, str]) -> Crops:
    """ISIC 2018 Task 1, shrunk from 512 to 256 pixels; ``lesions`` gives the lesion (here: near copies) by image id.

    Its table has no lesion ids, and a diagnosis (melanoma or nevus) for a part of the images only.
    """
    path = data / "isic2018-task1.csv"
    if not path.is_file():
        raise DataMissing(f"{path} is missing: point --data at the folder that holds ISIC 2018 Task 1")
    with path.open(newline="", encoding="utf-8") as file:
        known = {row["image_id"]: row["isic2019_label"].lower() for row in csv.DictReader(file)}
    missing = sorted(set(known) - set(lesions))
    if missing:
        raise DataMissing(f"the split of ISIC 2018 Task 1 lacks {len(missing)} images of the table: {missing[:3]} …")
    labels = tuple(Label(image, lesions[image], known[image]) for image in sorted(known))
    sources = {
        "images": archives(data, "isic2018-task1-images-512"),
        "masks": archives(data, "isic2018-task1-masks-512"),
    }
    return _decoded(labels, sources, cache)


def stack(collections: Sequence[Crops]) -> Crops:
    """Several collections as one, in this order."""
    return Crops(
        tuple(label for crops in collections for label in crops.labels),
        Stacked(tuple(np.asanyarray(crops.images) for crops in collections)),
        Stacked(tuple(np.asanyarray(crops.masks) for crops in collections)),
    )


def _decoded(labels: tuple[Label, ...], sources: dict[str, list[Path]], cache: Path) -> Crops:
    """The images and masks of some labels from some archives, through the cache."""
    stamp = _stamp(labels, sources)
    described = cache / "crops.json"
    shapes: dict[str, tuple[int, ...]] = {
        "images": (len(labels), CROP, CROP, 3),
        "masks": (len(labels), CROP, CROP),
    }
    if not (described.is_file() and json.loads(described.read_text())["stamp"] == stamp):
        cache.mkdir(parents=True, exist_ok=True)
        for kind, decode in (("images", decode_colour), ("masks", decode_mask)):
            _decode_into(cache / f"{kind}.npy", labels, sources[kind], decode, shapes[kind])
        partial = described.with_suffix(".partial")
        partial.write_text(json.dumps({"stamp": stamp}))
        os.replace(partial, described)
    return Crops(
        labels,
        np.load(cache / "images.npy", mmap_mode="r"),
        np.load(cache / "masks.npy", mmap_mode="r"),
    )


def _decode_into(
    path: Path, labels: tuple[Label, ...], sources: list[Path], decode: Any, shape: tuple[int, ...]
) -> None:
    """Decode the members of some archives into one array file, in the order of the labels."""
    rows = {label.image_id: row for row, label in enumerate(labels)}
    partial = path.with_suffix(".partial.npy")
    array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
    seen: set[str] = set()
    for image_id, encoded in members(sources):
        if image_id in rows:
            pixels = decode(encoded)
            if pixels.shape[:2] == (2 * CROP, 2 * CROP):
                pixels = np.asarray(cv2.resize(pixels, (CROP, CROP), interpolation=cv2.INTER_AREA), np.uint8)
            if pixels.shape != shape[1:]:
                raise ValueError(f"{image_id}: {pixels.shape} pixels where {shape[1:]} were expected")
            array[rows[image_id]] = pixels
            seen.add(image_id)
    missing = sorted(set(rows) - seen)
    if missing:
        raise DataMissing(f"{len(missing)} images of the table are in no archive for {path.stem}: {missing[:3]} …")
    array.flush()
    del array
    os.replace(partial, path)


def _stamp(labels: tuple[Label, ...], sources: dict[str, list[Path]]) -> str:
    """A digest of what was decoded: the label rows, and each archive's name and size."""
    digest = hashlib.sha256()
    for label in labels:
        digest.update(f"{label.image_id},{label.lesion_id},{label.diagnosis}\n".encode())
    for kind, paths in sorted(sources.items()):
        for path in paths:
            digest.update(f"{kind},{path.name},{path.stat().st_size}\n".encode())
    return digest.hexdigest()
