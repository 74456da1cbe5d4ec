"""How often writing in pictures is found, and how often there is none: ``python -m models.training.writing DATA``.

Pictures of the project's data folder are taken as they are (nobody wrote into them) and once more with a caption of a
name, a date or a number drawn in a common font, size and colour, half of them compressed as JPEG afterwards.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from dermoscopy.domain import RGBPixels
from models.annotations import find_writing
from models.training.datasets import archives, decode_colour, members

CAPTIONS = ("DOE JANE", "12.03.1962", "Mueller, J.", "ID 4711-22", "2026-03-04 10:15")
COLOURS = ((255, 255, 255), (255, 255, 0), (0, 0, 0), (0, 255, 0), (255, 0, 0), (0, 0, 255))
FONTS = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_PLAIN)
SIZES = (10, 14, 20, 32)
"""Height of capital letters in pixels."""


def pictures(data: Path, most: int) -> Iterator[RGBPixels]:
    """Every so many picture of the two collections that are not cut to squares."""
    for stem in ("ham10000-native-600x450", "isic2018-task1-images-512"):
        found = list(members(archives(data, stem)))
        for _, encoded in found[:: max(1, len(found) // most)]:
            yield decode_colour(encoded)


def captioned(pixels: RGBPixels, number: int) -> tuple[RGBPixels, tuple[int, int]]:
    """``pixels`` with caption ``number``, and the rows between which it stands."""
    random = np.random.default_rng(number)
    font, size = FONTS[number % len(FONTS)], SIZES[number // 4 % len(SIZES)]
    thickness = max(1, size // 10)
    scale = cv2.getFontScaleFromHeight(font, size, thickness)
    text = CAPTIONS[number % len(CAPTIONS)]
    (width, height), _ = cv2.getTextSize(text, font, scale, thickness)
    rows, columns = pixels.shape[:2]
    left = int(random.integers(2, max(3, columns - width - 2)))
    base = int(random.integers(height + 4, rows - 8))
    drawn = np.ascontiguousarray(pixels.copy())
    cv2.putText(drawn, text, (left, base), font, scale, COLOURS[number % len(COLOURS)], thickness, cv2.LINE_AA)
    if number % 2:
        _, encoded = cv2.imencode(".jpg", drawn[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
        drawn = decode_colour(encoded.tobytes())
    return drawn, (base - height, base)


def main(data: Path, most: int = 150) -> str:
    """One sentence with both figures."""
    suspected = found = count = 0
    for number, pixels in enumerate(pictures(data, most)):
        suspected += find_writing(pixels).found
        drawn, (top, bottom) = captioned(pixels, number)
        found += any(box[0] < bottom and box[2] > top for box in find_writing(drawn).boxes)
        count += 1
    return f"{count} pictures: {found} captions found; {suspected} suspected without any"


if __name__ == "__main__":
    sys.stdout.write(main(Path(sys.argv[1])) + "\n")
