"""A miniature HAM10000: synthetic lesions in tar files laid out as the real ones."""

import copy
import csv
import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from models.training.configuration import CLASSES
from models.training.datasets import Label
from models.training.splits import write_split

LESIONS_PER_CLASS = 4
FOLD_OF_LESION = ("train", "validation", "calibration", "test")


def _lesion(generator, colour):
    """A coloured ellipse on skin, and its mask, 256 by 256."""
    image = np.full((256, 256, 3), (200, 150, 150), np.uint8) + generator.integers(0, 12, (256, 256, 3), np.uint8)
    mask = np.zeros((256, 256), np.uint8)
    centre = tuple(int(v) for v in generator.integers(100, 156, 2))
    axes = tuple(int(v) for v in generator.integers(30, 70, 2))
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 255, -1)
    image[mask > 0] = colour
    return image, mask


def _add(archive, name, encoded):
    entry = tarfile.TarInfo(name)
    entry.size = len(encoded)
    archive.addfile(entry, io.BytesIO(encoded))


@pytest.fixture(scope="session")
def miniature(tmp_path_factory) -> Path:
    """A data folder of 28 lesions with two images each, and ``split.csv`` beside it."""
    folder = tmp_path_factory.mktemp("ham10000")
    generator = np.random.default_rng(0)
    rows, labels, folds, native = [], [], {}, None
    with (
        tarfile.open(folder / "ham10000-images-256-00.tar", "w") as images,
        tarfile.open(folder / "ham10000-masks-256-00.tar", "w") as masks,
        tarfile.open(folder / "ham10000-native-600x450-00.tar", "w") as frames,
    ):
        for number in range(2 * LESIONS_PER_CLASS * len(CLASSES)):
            name = CLASSES[number // 2 % len(CLASSES)]
            lesion = f"HAM_{number // 2:07d}"
            image_id = f"ISIC_{number:07d}"
            folds[lesion] = FOLD_OF_LESION[number // 2 // len(CLASSES)]
            colour = tuple(int(v) for v in 20 + 200 * np.array([k in name for k in "aen"]))
            image, mask = _lesion(generator, colour)
            _add(images, f"{image_id}.jpg", cv2.imencode(".jpg", image[..., ::-1])[1].tobytes())
            _add(masks, f"{image_id}.png", cv2.imencode(".png", mask)[1].tobytes())
            if folds[lesion] == "test" and native is None:
                native = image_id
                frame = cv2.copyMakeBorder(cv2.resize(image, (450, 450)), 0, 0, 75, 75, cv2.BORDER_REPLICATE)
                _add(frames, f"{image_id}.jpg", cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes())
            rows.append({"image_id": image_id, "lesion_id": lesion, "dx": name, "dx_type": "histo"})
            labels.append(Label(image_id, lesion, name))
    with (folder / "ham10000.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_split(folder / "split.csv", labels, folds)
    _hospital(folder / "hospital")
    return folder


def _hospital(folder):
    """Twelve images named by a table, without lesion ids: two are copies, some lack a diagnosis or an outline."""
    rows = []
    for number in range(12):
        generator = np.random.default_rng(100 + number // 2 if number < 2 else 100 + number)
        image = cv2.resize(generator.integers(90, 256, (7, 7, 3), np.uint8), (200, 150), interpolation=cv2.INTER_CUBIC)
        mask = np.zeros((150, 200), np.uint8)
        mask[40:110, 60:140] = 255
        image[mask > 0] //= 3
        for kind, pixels in (("images", image), ("masks", mask)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / f"{number}.png"), pixels)
        rows.append({
            "image": f"images/{number}.png", "mask": f"masks/{number}.png" if number % 4 else "",
            "dx": ("mel", "nv")[number // 2 % 2] if number % 3 or not number % 4 else "", "fitzpatrick": "V",
        })  # fmt: skip
    with (folder / "images.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="session")
def plain_settings(miniature) -> dict:
    """A configuration that trains in seconds: random weights, 64 pixels, one thread, two epochs."""
    return {
        "name": "miniature",
        "version": "0.0.1",
        "title": "A network for tests",
        "intended_use": "Tests.",
        "licence": {"weights": "none", "data": "none", "attribution": "none"},
        "seed": 3,
        "architecture": {"name": "efficientnet-lite0", "pretrained": False, "decoder_width": 16, "frozen_blocks": 0},
        "input": {"size": 64, "fill": [200, 150, 150], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
        "data": {"split": str(miniature / "split.csv"), "per_epoch": dict.fromkeys(CLASSES, 2)},
        "optimisation": {"epochs": 2, "batch": 7, "threads": 1},
        # Two epochs from random weights are no better than a guess.
        "sanity": {"balanced_accuracy": -1, "jaccard": -1},
        "report": {"thorough": False},
    }


@pytest.fixture
def settings(plain_settings) -> dict:
    """The configuration, to be changed."""
    return copy.deepcopy(plain_settings)


@pytest.fixture
def configuration_file(settings, tmp_path) -> Path:
    """The settings as a file."""
    path = tmp_path / "miniature.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path
