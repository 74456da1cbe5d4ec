import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermoscopy.phantoms import phantom
from models.manifest import Letterbox, Normalize, Scale
from models.preprocess import Placement, prepare

sides = st.integers(16, 2000)


def steps(size=224):
    return (
        Letterbox(step="letterbox", size=size, fill=(10, 20, 30)),
        Scale(step="scale", factor=1 / 255),
        Normalize(step="normalize", mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5)),
    )


def test_steps_run_as_written():
    pixels = np.full((32, 64, 3), (200, 100, 50), np.uint8)
    tensor = prepare(pixels, steps(64)).tensor
    assert tensor.shape == (1, 3, 64, 64)
    assert tensor.dtype == np.float32

    def expected(*colour):
        return (np.array(colour) / 255 - [0.5, 0.4, 0.3]) / [0.2, 0.25, 0.5]

    np.testing.assert_allclose(tensor[0, :, 32, 32], expected(200, 100, 50), atol=1e-6)
    np.testing.assert_allclose(tensor[0, :, 0, 0], expected(10, 20, 30), atol=1e-6)


def test_an_image_of_the_right_size_passes_untouched():
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    placement = Placement.fit(224, 224, 224)
    assert (placement.apply(pixels, (0, 0, 0)) == pixels).all()
    values = np.random.default_rng(0).normal(size=(224, 224)).astype(np.float32)
    assert (placement.undo(values) == values).all()


@given(sides, sides, st.sampled_from([64, 224, 256]))
def test_the_content_fits_and_is_centred(rows, columns, size):
    placement = Placement.fit(rows, columns, size)
    assert max(placement.rows, placement.columns) == size
    assert 0 <= placement.top <= size - placement.top - placement.rows <= placement.top + 1
    assert 0 <= placement.left <= size - placement.left - placement.columns <= placement.left + 1


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.sampled_from([128, 224]))
def test_there_and_back_again_keeps_places_within_a_pixel(rows, columns, size):
    """A ramp over the source comes back as the same ramp: no shift, no stretch (1 pixel of either grid)."""
    placement = Placement.fit(rows, columns, size)
    across = (np.arange(placement.columns, dtype=np.float32) + 0.5) * columns / placement.columns - 0.5
    down = (np.arange(placement.rows, dtype=np.float32) + 0.5) * rows / placement.rows - 0.5
    pixel = max(1.0, columns / placement.columns, rows / placement.rows)
    for ramp, truth in (
        (np.broadcast_to(across, (placement.rows, placement.columns)), np.arange(columns)[None, :]),
        (np.broadcast_to(down[:, None], (placement.rows, placement.columns)), np.arange(rows)[:, None]),
    ):
        square = np.zeros((size, size), np.float32)
        square[placement.top : placement.top + placement.rows, placement.left : placement.left + placement.columns] = (
            ramp
        )
        back = placement.undo(square)
        assert back.shape == (rows, columns)
        assert np.abs(back - truth).max() <= pixel


@settings(max_examples=40, deadline=None)
@given(st.integers(64, 1200), st.integers(64, 1200))
def test_a_disc_comes_back_where_it_was(rows, columns):
    y, x = np.mgrid[0:rows, 0:columns]
    centre, radius = (rows * 0.45, columns * 0.55), min(rows, columns) * 0.3
    disc = np.hypot(y - centre[0], x - centre[1]) <= radius
    picture = np.repeat(np.where(disc, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    placement = Placement.fit(rows, columns, 224)
    square = placement.apply(picture, (0, 0, 0))[..., 0].astype(np.float32) - 127.5
    back = placement.undo(square) > 0
    found_y, found_x = np.nonzero(back)
    pixel = max(1.0, max(rows, columns) / 224)
    assert abs(found_y.mean() - y[disc].mean()) < 0.5 * pixel
    assert abs(found_x.mean() - x[disc].mean()) < 0.5 * pixel
    assert abs(np.sqrt(back.sum() / np.pi) - np.sqrt(disc.sum() / np.pi)) < pixel


def test_a_coarse_map_is_undone_too():
    placement = Placement.fit(450, 600, 224)
    coarse = np.zeros((7, 7), np.float32)
    coarse[3, 3] = 1.0
    back = placement.undo(coarse)
    assert back.shape == (450, 600)
    peak = np.unravel_index(back.argmax(), back.shape)
    assert peak == pytest.approx((225, 300), abs=24)


def test_extreme_shapes_do_not_break():
    for shape in ((1, 2000), (2000, 1), (1, 1), (16, 2000)):
        prepared = prepare(np.full((*shape, 3), 128, np.uint8), steps())
        assert prepared.placement.undo(prepared.tensor[0, 0]).shape == shape


@given(sides, sides, st.sampled_from([64, 224]))
def test_square_pixels_are_placed_as_ever(rows, columns, size):
    assert Placement.fit(rows, columns, size, 1.0) == Placement.fit(rows, columns, size)


def test_oblong_pixels_reach_the_network_as_squares():
    """Every second row left out: pixels twice as high as wide show the same picture."""
    whole = phantom(4, rows=240, columns=320).pixels
    squeezed = np.ascontiguousarray(whole[0::2] // 2 + whole[1::2] // 2)
    square, oblong = prepare(whole, steps(128)), prepare(squeezed, steps(128), 2.0)
    assert (oblong.placement.rows, oblong.placement.columns) == (96, 128)
    assert np.abs(square.tensor - oblong.tensor).mean() < 0.1
    assert np.abs(square.tensor - prepare(squeezed, steps(128)).tensor).mean() > 0.3


def test_a_map_comes_back_on_the_oblong_pixels_of_the_source():
    placement = Placement.fit(120, 320, 128, 2.0)
    assert placement.undo(np.zeros((128, 128), np.float32)).shape == (120, 320)
