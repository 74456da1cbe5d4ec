from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from dermoscopy.domain import DermoscopicImage, TriageTier
from dermoscopy.errors import UnreadableObject
from dermoscopy.overlay import (
    decode_grey_png,
    draw_contour,
    draw_heatmap,
    draw_overlay,
    encode_heatmap,
    encode_mask,
    encode_png,
)
from tests.findings import drawn_lesion, make_finding

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def an_image(spacing: tuple[float, float] | None = None) -> DermoscopicImage:
    return DermoscopicImage(drawn_lesion().pixels, "d", spacing_mm=spacing)


@given(arrays.arrays(np.bool_, SHAPES))
def test_mask_survives_png(mask: np.ndarray) -> None:
    assert np.array_equal(decode_grey_png(encode_mask(mask)) > 127, mask)


@given(arrays.arrays(np.float32, SHAPES, elements=st.floats(0, 1, width=32)))
def test_heatmap_survives_png_to_one_grey_level(heatmap: np.ndarray) -> None:
    assert np.abs(decode_grey_png(encode_heatmap(heatmap)) / 255 - heatmap).max() <= 0.5 / 255 + 1e-6


def test_text_is_no_png() -> None:
    with pytest.raises(UnreadableObject):
        decode_grey_png(b"not a png")


def test_contour_touches_only_the_border_of_the_mask() -> None:
    pixels = np.full((100, 100, 3), 90, np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[30:70, 30:70] = True
    changed = (draw_contour(pixels, mask) != pixels).any(axis=2)
    assert changed[30, 50]
    assert changed[69, 50]
    assert not changed[40:60, 40:60].any()
    assert not changed[:20].any()


def test_heatmap_leaves_what_is_cold() -> None:
    pixels = np.full((10, 10, 3), 90, np.uint8)
    heatmap = np.zeros((10, 10), np.float32)
    heatmap[5:] = 1
    drawn = draw_heatmap(pixels, heatmap)
    assert np.array_equal(drawn[:5], pixels[:5])
    assert not np.array_equal(drawn[5:], pixels[5:])


@pytest.mark.parametrize("tier", TriageTier)
def test_picture_is_whole_and_legend_stands_below_it(tier: TriageTier) -> None:
    image, finding = an_image(), make_finding(tier)
    drawn = draw_overlay(image, finding)
    assert drawn.shape[0] > image.rows
    assert drawn.shape[1:] == image.pixels.shape[1:]
    assert np.array_equal(drawn[:8, :8], image.pixels[:8, :8])


def test_same_finding_same_bytes_and_other_tier_other_picture() -> None:
    image, finding = an_image(), make_finding()
    assert encode_png(draw_overlay(image, finding)) == encode_png(draw_overlay(image, finding))
    other = replace(finding, triage=replace(finding.triage, tier=TriageTier.MONITOR))
    assert not np.array_equal(draw_overlay(image, finding), draw_overlay(image, other))


def test_scale_bar_is_drawn_only_where_a_scale_is_known() -> None:
    finding = make_finding(measurements=None)
    rows = an_image().rows
    without, with_scale = (draw_overlay(an_image(s), finding)[:rows] for s in (None, (0.1, 0.1)))
    assert np.array_equal(without, an_image().pixels)
    assert not np.array_equal(with_scale, without)


def test_nothing_is_outlined_where_no_lesion_was_found() -> None:
    drawn = draw_overlay(an_image(), make_finding(measurements=None))
    assert np.array_equal(drawn[: an_image().rows], an_image().pixels)
