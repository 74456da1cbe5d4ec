"""Writing in pictures is found wherever it stands, and what a dermoscope shows of itself is none."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from dermoscopy.phantoms import Kind, phantom
from models.annotations import field, find_writing

FONT = cv2.FONT_HERSHEY_SIMPLEX


def skin(rows: int = 300, columns: int = 400) -> np.ndarray:
    """A lesion on skin with some noise."""
    return phantom(7, kind="melanoma-like", rows=rows, columns=columns).pixels.copy()


def round_field(pixels: np.ndarray, *, surround: int = 0) -> np.ndarray:
    rows, columns = pixels.shape[:2]
    y, x = np.mgrid[0:rows, 0:columns]
    outside = (y - rows / 2) ** 2 + (x - columns / 2) ** 2 > (0.48 * min(rows, columns)) ** 2
    made = pixels.copy()
    made[outside] = surround
    return made


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (255, 255, 0), (0, 255, 0), (0, 0, 255)])
@pytest.mark.parametrize(("size", "thickness"), [(0.4, 1), (0.8, 2), (1.6, 3)])
def test_words_on_skin_are_found(colour: tuple[int, int, int], size: float, thickness: int) -> None:
    pixels = skin()
    assert not find_writing(pixels).found
    cv2.putText(pixels, "DOE JANE 12.03.1962", (6, 292), FONT, size, colour, thickness, cv2.LINE_AA)
    found = find_writing(pixels).boxes
    assert any(bottom > 240 for _, _, bottom, _ in found)


def test_words_turned_by_a_quarter_are_found() -> None:
    pixels = skin()
    cv2.putText(pixels, "ID 4711-22", (150, 40), FONT, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    assert find_writing(np.ascontiguousarray(np.rot90(pixels))).found


def test_words_in_a_large_picture_are_found() -> None:
    pixels = skin(1200, 1600)
    cv2.putText(pixels, "2026-03-04 10:15", (900, 1150), FONT, 1.4, (255, 255, 255), 3, cv2.LINE_AA)
    assert any(top > 1000 for top, _, _, _ in find_writing(pixels).boxes)


@pytest.mark.parametrize("kind", ["nevus", "melanoma-like", "keratosis", "vascular"])
def test_lesions_with_some_hair_are_no_writing(kind: Kind) -> None:
    assert not find_writing(phantom(7, kind=kind, rows=300, columns=400, hairs=5).pixels).found


@pytest.mark.parametrize(("step", "thickness"), [(8, 1), (9, 2), (10, 1)])
@pytest.mark.parametrize("baseline", [True, False])
def test_rulers_are_no_writing(step: int, thickness: int, baseline: bool) -> None:
    pixels = phantom(3, kind="nevus", rows=300, columns=400).pixels.copy()
    for number, column in enumerate(range(10, 390, step)):
        length = 14 if number % 5 == 0 else 8
        cv2.line(pixels, (column, 270), (column, 270 + length), (20, 20, 20), thickness)
    if baseline:
        cv2.line(pixels, (10, 270), (389, 270), (20, 20, 20), thickness)
    assert not find_writing(pixels).found


@pytest.mark.parametrize("surround", [0, 255])
def test_the_field_leaves_out_the_surround_and_words_in_it(surround: int) -> None:
    pixels = round_field(skin(), surround=surround)
    ink = (255 - surround,) * 3
    cv2.putText(pixels, "DOE", (4, 20), FONT, 0.6, ink, 1, cv2.LINE_AA)
    inside = field(pixels)
    assert not inside[:24, :60].any()
    assert inside[150, 200]
    assert inside[60:240, 120:280].all()
    assert not find_writing(np.where(inside[..., np.newaxis], pixels, np.uint8(0))).found


def test_a_picture_without_surround_is_all_field() -> None:
    assert field(skin()).all()


def test_a_lesion_on_white_skin_is_not_cut_out() -> None:
    pixels = np.full((300, 400, 3), 253, np.uint8)
    cv2.ellipse(pixels, (200, 150), (80, 40), 20, 0, 360, (90, 60, 50), cv2.FILLED)
    cv2.line(pixels, (150, 150), (399, 20), (60, 40, 30), 9)
    assert field(pixels).all()
