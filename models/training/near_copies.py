"""Images that show the same thing, where a collection has no lesion ids: perceptual hashes in groups.

A perceptual hash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010) keeps the coarse
structure of an image in 256 bits; copies, re-encodings and small crops differ in few of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from models.training.datasets import Listing, Pixels, decode_colour, decode_each

Hash = NDArray[np.bool_]
#: Two images with at most this many of 256 bits different are kept in one fold: unrelated ones differ in 60 and more.
NEAR = 40
#: At most this many bits between two folds are refused as a leak. Of the 12,090 images of HAM10000 and ISIC 2018 Task 1
#: one pair across the committed folds is that near (10 bits, the same photograph under two lesion ids), and the next
#: one (within :data:`NEAR`) shows two lesions: so the grouping is generous and the refusal is not.
LEAK = 30
BLOCK = 1024


def perceptual_hash(pixels: Pixels) -> Hash:
    """The hash of an RGB image [H, W, 3], 256 bits."""
    return np.asarray(imagehash.phash(Image.fromarray(pixels), hash_size=16).hash, dtype=np.bool_).reshape(-1)


def hash_images(listing: Listing, cache: Path) -> dict[str, Hash]:
    """The hash of every readable image of a collection at its size on disk, computed once into ``cache``."""
    ids = [label.image_id for label in listing.labels]
    digest = hashlib.sha256("\n".join(ids).encode())
    for name, size in listing.images.files():
        digest.update(f"{name},{size}\n".encode())
    kept = cache / "hashes.npz"
    if kept.is_file():
        with np.load(kept) as arrays:
            if str(arrays["stamp"]) == digest.hexdigest():
                return dict(zip(arrays["ids"].tolist(), arrays["bits"], strict=True))

    def hashed(encoded: bytes) -> Hash:
        return perceptual_hash(decode_colour(encoded))

    found: dict[str, Hash] = dict(decode_each(listing.images, ids, hashed, {}))
    cache.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial.npz")
    known = sorted(found)
    bits = np.stack([found[image] for image in known]) if known else np.zeros((0, 256), np.bool_)
    np.savez(partial, stamp=np.array(digest.hexdigest()), ids=np.array(known), bits=bits)
    os.replace(partial, kept)
    return found


def near_pairs(hashes: Mapping[str, Hash], near: int = NEAR) -> Iterator[tuple[str, str, int]]:
    """Every two images with at most ``near`` different bits, as ``(first id, second id, bits)``, in order."""
    ids = sorted(hashes)
    if not ids:
        return
    bits = np.stack([hashes[image] for image in ids]).astype(np.float32)
    ones = bits.sum(axis=1)
    for start in range(0, len(ids), BLOCK):
        rows = bits[start : start + BLOCK]
        different = ones[start : start + BLOCK, None] + ones[None] - 2 * (rows @ bits.T)
        for row, column in np.argwhere(different <= near):
            if start + row < column:
                yield ids[start + row], ids[column], round(float(different[row, column]))


def near_copies(
    hashes: Mapping[str, Hash], near: int = NEAR, lesions: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The group of each image id: linked images (directly or through others) share one, named after its first id.

    ``lesions`` gives the lesion of some images: images of one lesion are linked too, and a group that has a lesion is
    named after its first one.
    """
    lesions = {image: lesion for image, lesion in (lesions or {}).items() if lesion}
    ids = sorted({*hashes, *lesions})
    place = {image: row for row, image in enumerate(ids)}
    first_of: dict[str, str] = {}
    links = [(place[first], place[second]) for first, second, _ in near_pairs(hashes, near)]
    links += [(place[first_of.setdefault(lesions[image], image)], place[image]) for image in ids if image in lesions]
    ends = np.array(links, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(ids), len(ids)))
    _, group = connected_components(graph, directed=False)
    names: dict[int, str] = {}
    for image, number in zip(ids, group.tolist(), strict=True):
        names.setdefault(number, image)
    named: dict[int, str] = {}
    for image, number in zip(ids, group.tolist(), strict=True):
        if image in lesions:
            named[number] = min(named.get(number, lesions[image]), lesions[image])
    names |= named
    return {image: names[number] for image, number in zip(ids, group.tolist(), strict=True)}
