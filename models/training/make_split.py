"""Make the split of a collection: ``python -m models.training.make_split LAYOUT DATA OUT.csv``.

Lesions come from the collection's table; where it has none for an image, near copies count as one lesion
(:mod:`models.training.near_copies`). The committed splits were made so, and the same command makes the same bytes:

    python -m models.training.make_split ham10000-archives ../shared/data ham10000-v1.csv
    python -m models.training.make_split isic2018-task1-archives ../shared/data isic2018-task1-v1.csv
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import get_args

from dermoscopy.errors import Misconfigured
from models.training.configuration import Layout
from models.training.datasets import Listing
from models.training.layouts import list_collection
from models.training.near_copies import hash_images, near_copies
from models.training.splits import SEED, make_split, read_split, write_split


def split_collection(listing: Listing, cache: Path, path: Path, seed: int = SEED) -> int:
    """Write the split of a collection to ``path``, whole or not at all; returns how many lesions it has."""
    lesions = {label.image_id: label.lesion_id for label in listing.labels}
    if not all(lesions.values()):
        groups = near_copies(hash_images(listing, cache), lesions=lesions)
        # What could not be read has no hash: it stands alone.
        lesions = {image: groups.get(image, image) for image in lesions}
    labels = listing.with_lesions(lesions).labels
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    write_split(partial, labels, make_split(labels, listing.reserved, seed))
    os.replace(partial, path)
    return len(set(lesions.values()))


def main() -> int:
    """Parse the arguments and write the file; 2 and one line where something that the user gave is wrong."""
    parser = argparse.ArgumentParser(prog="python -m models.training.make_split", description=__doc__.split("\n")[0])
    parser.add_argument("layout", choices=get_args(Layout), help="how the collection lies on disk")
    parser.add_argument("data", type=Path, help="its folder")
    parser.add_argument("out", type=Path, help="CSV file to write; one that is there is not replaced")
    parser.add_argument("--table", default="images.csv", help="layout `table` only: the CSV file in the folder")
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    try:
        if given.out.exists():
            raise Misconfigured(f"{given.out} is there already: a split is made once; name another file")
        listing = list_collection(given.layout, given.data, given.table)
        with tempfile.TemporaryDirectory() as cache:
            lesions = split_collection(listing, Path(cache), given.out, given.seed)
    except Misconfigured as error:
        print(error, file=sys.stderr)  # noqa: T201 - this is the command line
        return 2
    print(f"{given.out}: {len(listing.labels)} images, {lesions} lesions, SHA-256 {read_split(str(given.out)).sha256}")  # noqa: T201 - this is the command line
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
