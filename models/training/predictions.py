"""What the exported network answers for the images of a fold, computed once per model file and kept.

Every figure of the evaluation rests on the ONNX file that is shipped and on the run-time preprocessing
(:mod:`models.preprocess`), not on the torch network that was trained.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from models.manifest import Step
from models.preprocess import Placement, prepare
from models.training.batches import class_index
from models.training.configuration import TrainingConfiguration
from models.training.datasets import CROP, Crops, Pixels

BATCH = 16


@dataclass(frozen=True)
class Predictions:
    """Answers for N images: ``rows`` of the label table [N], ``target`` class index [N], ``logits`` [N, 7],
    ``embedding`` [N, D], ``jaccard`` of the outline at source size [N].

    ``target`` is negative where no diagnosis is known, ``jaccard`` is not a number where there is no outline.
    """

    rows: NDArray[np.int64]
    target: NDArray[np.int64]
    logits: NDArray[np.float32]
    embedding: NDArray[np.float32]
    jaccard: NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """One image to predict: its row, its pixels, and where in it the square crop lies that its mask covers."""

    row: int
    pixels: Pixels
    square: tuple[slice, slice]


def crop_cases(crops: Crops, rows: Iterable[int]) -> Iterator[Case]:
    """The 256 by 256 crops as they are."""
    whole = (slice(None), slice(None))
    return (Case(row, np.asarray(crops.images[row]), whole) for row in rows)


def native_cases(crops: Crops, images: dict[str, Pixels]) -> Iterator[Case]:
    """Full frames at published size; the mask is known for the central square."""
    positions = crops.positions()
    for image_id, pixels in sorted(images.items()):
        height, width = pixels.shape[:2]
        left = (width - height) // 2
        yield Case(positions[image_id], pixels, (slice(None), slice(left, left + height)))


def predict(
    model: Path, cases: Iterator[Case], crops: Crops, configuration: TrainingConfiguration, kept: Path
) -> Predictions:
    """Run the ONNX file over some cases, or read what ``kept`` holds of an earlier run."""
    if kept.is_file():
        with np.load(kept) as arrays:
            return Predictions(**{field.name: arrays[field.name] for field in fields(Predictions)})
    session = _session(model, configuration)
    steps = TypeAdapter(list[Step]).validate_python(configuration.input.preprocessing())
    rows: list[int] = []
    logits: list[NDArray[np.float32]] = []
    embeddings: list[NDArray[np.float32]] = []
    overlaps: list[float] = []
    while batch := list(islice(cases, BATCH)):
        prepared = [prepare(case.pixels, steps) for case in batch]
        tensor = np.concatenate([item.tensor for item in prepared])
        masks, classes, embedding = session.run(["mask_logits", "class_logits", "embedding"], {"image": tensor})
        logits.append(classes)
        embeddings.append(embedding)
        for case, item, mask in zip(batch, prepared, masks, strict=True):
            rows.append(case.row)
            outline = np.asarray(crops.masks[case.row])
            known = crops.labels[case.row].outlined
            overlaps.append(_overlap(mask[0], item.placement, case, outline) if known else float("nan"))
    result = Predictions(
        np.array(rows, np.int64),
        np.array([class_index(crops.labels[row]) for row in rows], np.int64),
        np.concatenate(logits),
        np.concatenate(embeddings),
        np.array(overlaps),
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".partial.npz")
    np.savez(partial, **{field.name: getattr(result, field.name) for field in fields(result)})
    os.replace(partial, kept)
    return result


def embeddings(model: Path, images: list[Pixels], configuration: TrainingConfiguration) -> NDArray[np.float32]:
    """What the ONNX file makes of some pictures that have no label, [N, D]."""
    session = _session(model, configuration)
    steps = TypeAdapter(list[Step]).validate_python(configuration.input.preprocessing())
    return np.concatenate([session.run(["embedding"], {"image": prepare(image, steps).tensor})[0] for image in images])


def _session(model: Path, configuration: TrainingConfiguration) -> Any:
    """The ONNX file on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = configuration.optimisation.threads
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def jaccard(drawn: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks of one shape; 1 when both are empty."""
    union = int((drawn | truth).sum())
    return float((drawn & truth).sum() / union) if union else 1.0


def _overlap(mask_logits: NDArray[np.float32], placement: Placement, case: Case, truth: Pixels) -> float:
    """Jaccard of the outline, brought back to source size and cut to the square that the mask covers."""
    values = placement.undo(mask_logits)[case.square]
    if values.shape != (CROP, CROP):
        values = np.asarray(cv2.resize(values, (CROP, CROP), interpolation=cv2.INTER_LINEAR), np.float32)
    return jaccard(values > 0, truth > 127)
