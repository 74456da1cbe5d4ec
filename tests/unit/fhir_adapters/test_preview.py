"""Pictures in reports: as drawn while they are small, scaled down when they are not."""

from __future__ import annotations

import cv2
import numpy as np

from dermoscopy.overlay import encode_png
from fhir_adapters.render.preview import LARGEST_BYTES, LONGEST_SIDE, preview


def decoded(data):
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    return shown


def noise(rows, columns):
    return encode_png(np.random.default_rng(1).integers(0, 255, (rows, columns, 3), dtype=np.uint8))


def test_small_pictures_stay_as_they_are():
    data = noise(40, 60)
    assert preview(data, "image/png") == (data, "image/png")


def test_large_pictures_become_small_jpegs():
    data = noise(1500, 2400)
    assert len(data) > LARGEST_BYTES
    smaller, media_type = preview(data, "image/png")
    assert media_type == "image/jpeg"
    assert len(smaller) < len(data) / 2
    assert decoded(smaller).shape == (1000, LONGEST_SIDE, 3)
    assert preview(data, "image/png") == (smaller, media_type)


def test_heavy_pictures_of_few_pixels_keep_their_size():
    data = noise(900, 900)
    assert len(data) > LARGEST_BYTES
    assert decoded(preview(data, "image/png")[0]).shape == (900, 900, 3)


def test_what_is_no_picture_stays_as_it_is():
    data = b"?" * (LARGEST_BYTES + 1)
    assert preview(data, "image/png") == (data, "image/png")
