"""Collections as arrays: images decoded once into memory maps, and looked up by image id.

A collection is first listed (:class:`Listing`: what its table says, and where its files are) and then decoded
(:func:`decoded`). The layouts on disk are in :mod:`models.training.layouts`; that of the project's own data folder is
here: ``ham10000.csv``, ``ham10000-images-256-*.tar``, ``ham10000-masks-256-*.tar`` and, for the full-frame figures,
``ham10000-native-600x450-*.tar``; for ISIC 2018 Task 1 ``isic2018-task1.csv``, ``isic2018-task1-images-512-*.tar`` and
``isic2018-task1-masks-512-*.tar``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from dermoscopy.errors import Misconfigured

CROP = 256
Pixels = NDArray[np.uint8]
Decoded = TypeVar("Decoded", bound=NDArray[Any])
#: How many unreadable images a refusal names.
NAMED = 5
JPEG_BEGINS, JPEG_ENDS = b"\xff\xd8\xff", b"\xff\xd9"


class DataMissing(Misconfigured):
    """A file that training needs is not in the data folder."""


class DataUnusable(Misconfigured):
    """What is in the data folder cannot be used as it is; the message names images or rows, and how many."""


@dataclass(frozen=True)
class Label:
    """One row of a collection's table, as far as training reads it.

    ``lesion_id`` is empty where the publisher gives none, ``diagnosis`` where none is known; ``outlined`` says whether
    there is a mask; ``attributes`` holds ``age``, ``sex``, ``localization``, ``dx_type`` and ``fitzpatrick`` as far as
    the table has them.
    """

    image_id: str
    lesion_id: str
    diagnosis: str
    outlined: bool = True
    attributes: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)


class Source(Protocol):
    """Encoded files, each under an image id."""

    def members(self) -> Iterator[tuple[str, bytes]]:
        """Image id and encoded bytes of every file, in an order that stays the same."""
        ...

    def files(self) -> Iterator[tuple[str, int]]:
        """Name and size in bytes of what is on disk: when these change, the images are decoded anew."""
        ...

    def read(self, image_id: str) -> bytes:
        """The encoded bytes of one file; ``KeyError`` where there is none."""
        ...


@dataclass(frozen=True)
class Archives:
    """Files in tar archives, read one after the other; a member's stem is its image id."""

    paths: tuple[Path, ...]
    places: dict[str, tuple[Path, int, int]] = field(default_factory=dict, compare=False, repr=False)

    def members(self) -> Iterator[tuple[str, bytes]]:
        """See :class:`Source`."""
        return members(list(self.paths))

    def files(self) -> Iterator[tuple[str, int]]:
        """See :class:`Source`."""
        return ((path.name, path.stat().st_size) for path in self.paths)

    def read(self, image_id: str) -> bytes:
        """See :class:`Source`; the archives are searched once."""
        if not self.places:
            for path in self.paths:
                with tarfile.open(path) as archive:
                    self.places.update({Path(item.name).stem: (path, item.offset_data, item.size) for item in archive})
        path, offset, size = self.places[image_id]
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


@dataclass(frozen=True)
class Files:
    """Single files by image id."""

    paths: Mapping[str, Path]

    def members(self) -> Iterator[tuple[str, bytes]]:
        """See :class:`Source`."""
        return ((image_id, self.paths[image_id].read_bytes()) for image_id in sorted(self.paths))

    def files(self) -> Iterator[tuple[str, int]]:
        """See :class:`Source`."""
        return ((self.paths[image_id].name, self.paths[image_id].stat().st_size) for image_id in sorted(self.paths))

    def read(self, image_id: str) -> bytes:
        """See :class:`Source`."""
        return self.paths[image_id].read_bytes()


@dataclass(frozen=True)
class Listing:
    """What a collection holds, before any image is read: labels sorted by image id, and where their files are."""

    labels: tuple[Label, ...]
    images: Source
    masks: Source
    #: Images whose lesions belong into the test fold of a new split, whatever the draw says.
    reserved: tuple[str, ...] = ()

    def with_lesions(self, lesions: Mapping[str, str]) -> Listing:
        """The same collection with a lesion id for every image, from ``lesions`` by image id."""
        return replace(self, labels=tuple(replace(item, lesion_id=lesions[item.image_id]) for item in self.labels))


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
    """All crops, decoded: ``images`` [N, 256, 256, 3] RGB and ``masks`` [N, 256, 256] of 0 and 255, memory-mapped.

    ``unreadable`` names the images that could not be read and are left out on demand; their rows are black.
    """

    labels: tuple[Label, ...]
    images: Pixels | Stacked
    masks: Pixels | Stacked
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def positions(self) -> dict[str, int]:
        """Row number by image id, of the images that could be read."""
        return {label.image_id: row for row, label in enumerate(self.labels) if label.image_id not in self.unreadable}


def read_table(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """The rows of a CSV file (tab-separated where its name ends so), checked to have some columns.

    Raises:
        DataUnusable: a column is missing; the message lists those that are there.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix in (".tab", ".tsv") else ",")
        there = list(reader.fieldnames or ())
        missing = [name for name in columns if name not in there]
        if missing:
            raise DataUnusable(
                f"{path}: no column {', '.join(map(repr, missing))}; there is: {', '.join(there) or 'nothing'}"
            )
        return [{key: (value or "").strip() for key, value in row.items() if key is not None} for row in reader]


def read_labels(data: Path) -> tuple[Label, ...]:
    """Read ``ham10000.csv``, sorted by image id."""
    path = data / "ham10000.csv"
    if not path.is_file():
        raise DataMissing(f"{path} is missing: point --data at the folder that holds the HAM10000 files")
    rows = [
        Label(row["image_id"], row["lesion_id"], row["dx"].lower(), True, known_attributes(row))
        for row in read_table(path, ("image_id", "lesion_id", "dx"))
    ]
    return tuple(sorted(rows, key=lambda label: label.image_id))


def known_attributes(row: Mapping[str, str]) -> dict[str, str]:
    """What a row says of the patient and of how the diagnosis was confirmed."""
    names = ("age", "sex", "localization", "dx_type", "fitzpatrick")
    return {name: row[name] for name in names if row.get(name)}


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
    """An encoded image to RGB [H, W, 3]; ``ValueError`` where it is none, or a JPEG that was cut off."""
    if encoded[:3] == JPEG_BEGINS and JPEG_ENDS not in encoded[-4096:]:
        raise ValueError("a JPEG that was cut off")
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR) if encoded else None
    if image is None:
        raise ValueError("not a decodable image")
    return np.ascontiguousarray(image[..., ::-1])


def decode_mask(encoded: bytes) -> Pixels:
    """An encoded mask to [H, W] of 0 and 255."""
    mask = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE) if encoded else None
    if mask is None:
        raise ValueError("not a decodable mask")
    return np.where(mask > 127, 255, 0).astype(np.uint8)


def native_image_ids(data: Path) -> tuple[str, ...]:
    """Ids of the images that are there at their published 600 by 450 pixels."""
    return tuple(sorted(image_id for image_id, _ in members(archives(data, "ham10000-native-600x450"))))


def read_native_images(data: Path) -> dict[str, Pixels]:
    """The published 600 by 450 images by id, RGB [450, 600, 3]."""
    return {key: decode_colour(encoded) for key, encoded in members(archives(data, "ham10000-native-600x450"))}


def list_ham10000_archives(data: Path) -> Listing:
    """HAM10000 as 256 by 256 centre crops in tar files; images at published size are reserved for the test fold."""
    labels = read_labels(data)
    images, masks = archives(data, "ham10000-images-256"), archives(data, "ham10000-masks-256")
    published = any(data.glob("ham10000-native-600x450-*.tar"))
    return Listing(labels, Archives(tuple(images)), Archives(tuple(masks)), native_image_ids(data) if published else ())


def list_task1_archives(data: Path) -> Listing:
    """ISIC 2018 Task 1 as 512 by 512 centre crops in tar files.

    Its table has no lesion ids, and a diagnosis (melanoma or nevus) for a part of the images only.
    """
    path = data / "isic2018-task1.csv"
    if not path.is_file():
        raise DataMissing(f"{path} is missing: point --data at the folder that holds ISIC 2018 Task 1")
    known = {row["image_id"]: row["isic2019_label"].lower() for row in read_table(path, ("image_id", "isic2019_label"))}
    return Listing(
        tuple(Label(image, "", known[image]) for image in sorted(known)),
        Archives(tuple(archives(data, "isic2018-task1-images-512"))),
        Archives(tuple(archives(data, "isic2018-task1-masks-512"))),
    )


def load_crops(data: Path, cache: Path) -> Crops:
    """HAM10000: decode every crop and mask once into ``cache``, or open what an earlier run decoded there."""
    return decoded(list_ham10000_archives(data), cache)


def load_task1(data: Path, cache: Path, lesions: Mapping[str, str]) -> Crops:
    """ISIC 2018 Task 1, shrunk from 512 to 256 pixels; ``lesions`` gives the lesion (here: near copies) by image id."""
    return decoded(list_task1_archives(data).with_lesions(lesions), cache)


def stack(collections: Sequence[Crops]) -> Crops:
    """Several collections as one, in this order."""
    return Crops(
        tuple(label for crops in collections for label in crops.labels),
        Stacked(tuple(np.asanyarray(crops.images) for crops in collections)),
        Stacked(tuple(np.asanyarray(crops.masks) for crops in collections)),
        {image: reason for crops in collections for image, reason in crops.unreadable.items()},
    )


def decoded(listing: Listing, cache: Path, skip_bad: bool = False) -> Crops:
    """The central squares of a collection's images and masks at 256 by 256, through the cache.

    Raises:
        DataUnusable: images are missing or corrupt, and ``skip_bad`` does not say to leave them out.
    """
    labels = listing.labels
    stamp = _stamp(listing)
    described = cache / "crops.json"
    if not (described.is_file() and json.loads(described.read_text())["stamp"] == stamp):
        cache.mkdir(parents=True, exist_ok=True)
        bad: dict[str, str] = {}
        shapes = _decode_into(cache / "images.npy", listing, listing.images, decode_colour, (CROP, CROP, 3), bad, {})
        _decode_into(cache / "masks.npy", listing, listing.masks, decode_mask, (CROP, CROP), bad, shapes)
        partial = described.with_suffix(".partial")
        partial.write_text(json.dumps({"stamp": stamp, "unreadable": bad}))
        os.replace(partial, described)
    unreadable: dict[str, str] = json.loads(described.read_text()).get("unreadable", {})
    if unreadable and not skip_bad:
        refuse_bad(unreadable, len(labels))
    return Crops(
        labels,
        np.load(cache / "images.npy", mmap_mode="r"),
        np.load(cache / "masks.npy", mmap_mode="r"),
        unreadable,
    )


def refuse_bad(unreadable: Mapping[str, str], of: int) -> None:
    """Raise :class:`DataUnusable` that counts and names images that cannot be used."""
    named = "; ".join(f"{image}: {reason}" for image, reason in sorted(unreadable.items())[:NAMED])
    rest = f" and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else ""
    raise DataUnusable(
        f"{len(unreadable)} of {of} images cannot be used ({named}{rest}): "
        "repair them, or give --skip-bad to leave them out"
    )


def central_square(pixels: Pixels) -> Pixels:
    """The middle of an image [H, W, …] as high as wide."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def decode_each(
    source: Source, wanted: Iterable[str], decode: Callable[[bytes], Decoded], bad: dict[str, str]
) -> Iterator[tuple[str, Decoded]]:
    """Decode the wanted files of a source, a few side by side; ``bad`` gets what cannot be read, with the reason."""
    names = set(wanted)

    def attempt(member: tuple[str, bytes]) -> tuple[str, Decoded | str]:
        try:
            return member[0], decode(member[1])
        except ValueError as error:
            return member[0], str(error)

    encoded = (member for member in source.members() if member[0] in names)
    with ThreadPoolExecutor(os.cpu_count() or 1) as workers:
        while some := list(islice(encoded, 64)):
            for image_id, pixels in workers.map(attempt, some):
                if isinstance(pixels, str):
                    bad.setdefault(image_id, pixels)
                else:
                    yield image_id, pixels


def _decode_into(
    path: Path,
    listing: Listing,
    source: Source,
    decode: Callable[[bytes], Pixels],
    shape: tuple[int, ...],
    bad: dict[str, str],
    expected: Mapping[str, tuple[int, ...]],
) -> dict[str, tuple[int, ...]]:
    """Decode files into one array file, in the order of the labels; returns each one's height and width on disk."""
    masks = len(shape) == 2
    rows = {label.image_id: row for row, label in enumerate(listing.labels) if label.outlined or not masks}
    partial = path.with_suffix(".partial.npy")
    array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(listing.labels), *shape))
    sizes: dict[str, tuple[int, ...]] = {}
    for image_id, pixels in decode_each(source, rows, decode, bad):
        sizes[image_id] = pixels.shape[:2]
        if expected.get(image_id, pixels.shape[:2]) != pixels.shape[:2]:
            height, width = expected[image_id]
            bad.setdefault(
                image_id, f"its mask has {pixels.shape[1]} × {pixels.shape[0]} pixels, the image {width} × {height}"
            )
            continue
        square = central_square(pixels)
        if square.shape[:2] != (CROP, CROP):
            square = np.asarray(cv2.resize(square, (CROP, CROP), interpolation=cv2.INTER_AREA), np.uint8)
        array[rows[image_id]] = square
    for image_id in sorted(set(rows) - set(sizes)):
        bad.setdefault(image_id, f"the table lists it, but there is no {'mask' if masks else 'image'} file")
    array.flush()
    del array
    os.replace(partial, path)
    return sizes


def _stamp(listing: Listing) -> str:
    """A digest of what was decoded: the label rows, and each file's name and size."""
    digest = hashlib.sha256()
    for label in listing.labels:
        without = "" if label.outlined else ",no outline"
        digest.update(f"{label.image_id},{label.lesion_id},{label.diagnosis}{without}\n".encode())
    for kind, source in (("images", listing.images), ("masks", listing.masks)):
        for name, size in source.files():
            digest.update(f"{kind},{name},{size}\n".encode())
    return digest.hexdigest()
