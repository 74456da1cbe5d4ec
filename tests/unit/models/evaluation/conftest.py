"""Small data sets of drawn lesions, laid out in the ways that people lay them out."""

import csv
import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from dermoscopy.phantoms import phantom

KINDS = ("nevus", "melanoma-like")
LABELS = {"nevus": "nv", "melanoma-like": "mel"}


def encoded(array, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, kind)
    return stream.getvalue()


def mask_bytes(mask):
    return encoded(mask.astype(np.uint8) * 255)


def write_table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="session")
def drawings():
    """Six phantoms: (id, label, lesion, pixels, mask); two images per lesion."""
    drawn = []
    for number in range(6):
        kind = KINDS[number // 2 % 2]
        made = phantom(number, kind=kind, rows=96, columns=128)
        drawn.append((f"IMG_{number:03d}", LABELS[kind], f"L{number // 2}", made.pixels, made.mask))
    return drawn


@pytest.fixture
def folder(tmp_path, drawings):
    """Images, masks and a table, each in a folder of its own."""
    place = tmp_path / "clinic"
    (place / "images").mkdir(parents=True)
    (place / "masks").mkdir()
    rows = []
    for name, label, lesion, pixels, mask in drawings:
        (place / "images" / f"{name}.png").write_bytes(encoded(pixels))
        (place / "masks" / f"{name}_segmentation.png").write_bytes(mask_bytes(mask))
        rows.append({"image_id": name, "dx": label, "lesion_id": lesion, "age": "50", "sex": "female"})
    write_table(place / "labels.csv", rows)
    return place


def add_member(archive, name, data):
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
