"""Pictures that are no skin, drawn: a floor for what the embedding's distance must tell apart."""

from __future__ import annotations

import cv2
import numpy as np

from models.training.datasets import Pixels

SIZE = (450, 600)


def strangers(seed: int) -> dict[str, Pixels]:
    """Noise, a checkerboard, a page of text, drawn shapes and soft blobs, RGB [450, 600, 3]."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    checkerboard = (((rows // 40 + columns // 40) % 2) * 255).astype(np.uint8)
    text = np.full((*SIZE, 3), 250, np.uint8)
    for line in range(12):
        cv2.putText(text, f"A line of a report, number {line}", (20, 35 * line + 30), 0, 1, (0, 0, 0), 2)
    shapes = np.full((*SIZE, 3), 120, np.uint8)
    for _ in range(40):
        first, second = (tuple(int(v) for v in generator.integers(0, SIZE[0], 2)) for _ in range(2))
        cv2.rectangle(shapes, first, second, tuple(int(v) for v in generator.integers(0, 255, 3)), -1)
    noise = generator.integers(0, 256, (*SIZE, 3), np.uint8)
    soft = cv2.GaussianBlur(noise, (0, 0), 25).astype(np.float32)
    blobs = (255 * (soft - soft.min()) / np.ptp(soft)).astype(np.uint8)
    return {
        "noise": noise,
        "checkerboard": np.repeat(checkerboard[..., None], 3, axis=2),
        "text": text,
        "shapes": shapes,
        "blobs": blobs,
    }
