"""A clinician's outline is measured as the algorithm's own is."""

from __future__ import annotations

import numpy as np
import pytest

from dermoscopy.domain import DermoscopicImage, ScaleSource
from dermoscopy.errors import AnalysisFailed
from dermoscopy.outline import outline_mask
from dermoscopy.phantoms import phantom
from models.hair import find_hair
from models.measure import largest_region, measure, measure_outline

SQUARE = ((40.0, 30.0), (120.0, 30.0), (120.0, 90.0), (40.0, 90.0))


@pytest.mark.parametrize("spacing", [None, (0.1, 0.1)])
def test_it_is_the_same_measure(spacing):
    image = DermoscopicImage(phantom(3, rows=192, columns=192, hairs=3).pixels, "0" * 64, spacing)
    mask = outline_mask(SQUARE, 192, 192)
    region = largest_region(mask)
    assert region is not None
    made = measure_outline(image, mask)
    assert made == measure(image, region, find_hair(image.pixels))
    assert made.area_px == 80 * 60
    assert (made.area_mm2, made.scale_source) == (
        (None, ScaleSource.NONE) if spacing is None else (pytest.approx(48.0), ScaleSource.DICOM)
    )


def test_nothing_cannot_be_measured():
    image = DermoscopicImage(phantom(3, rows=64, columns=64).pixels, "0" * 64)
    with pytest.raises(AnalysisFailed, match="no pixel"):
        measure_outline(image, np.zeros((64, 64), bool))
