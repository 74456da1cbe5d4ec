"""Images that show the same thing, where a collection has no lesion ids: perceptual hashes in groups.

A perceptual hash (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010) keeps the coarse
structure of an image in 256 bits; copies, re-encodings and small crops differ in few of them.
"""

from __future__ import annotations

from collections.abc import Mapping

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from models.training.datasets import Pixels

#: Two images with at most this many of 256 bits different count as the same: unrelated ones differ in 60 and more.
NEAR = 40


def perceptual_hash(pixels: Pixels) -> NDArray[np.bool_]:
    """The hash of an RGB image [H, W, 3], 256 bits."""
    return np.asarray(imagehash.phash(Image.fromarray(pixels), hash_size=16).hash, dtype=np.bool_).reshape(-1)


def near_copies(hashes: Mapping[str, NDArray[np.bool_]], near: int = NEAR) -> dict[str, str]:
    """The group of each image id: linked images (directly or through others) share one, named after its first id."""
    ids = sorted(hashes)
    bits = np.stack([hashes[image] for image in ids]).astype(np.float32)
    different = bits @ (1 - bits).T
    pairs = np.argwhere(np.triu(different + different.T <= near, 1))
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(ids), len(ids)))
    _, group = connected_components(links, directed=False)
    first = {number: image for image, number in zip(reversed(ids), reversed(group.tolist()), strict=True)}
    return {image: first[number] for image, number in zip(ids, group.tolist(), strict=True)}
