"""Varied images keep their shape, their mask and the letterbox that the network meets at run time."""

import numpy as np
import pytest

from models.training.augmentation import augment
from models.training.configuration import Augmentation

FILL = (195, 138, 144)
PLAIN = {
    "brightness": 0, "contrast": 0, "saturation": 0, "tint": 0, "blur_probability": 0, "jpeg_probability": 0,
    "vignette_probability": 0, "hair_probability": 0, "ruler_probability": 0,
}  # fmt: skip


@pytest.fixture
def crop():
    image = np.full((256, 256, 3), 180, np.uint8)
    mask = np.zeros((256, 256), np.uint8)
    image[80:170, 90:160], mask[80:170, 90:160] = 40, 255
    return image, mask


def _view(crop, size, options, seed):
    image, mask = crop
    return augment(image, mask, size, FILL, Augmentation.model_validate(options), np.random.default_rng(seed))


def test_the_same_seed_gives_the_same_view_and_another_seed_another(crop):
    views = [_view(crop, 96, {}, seed)[0] for seed in (1, 1, 2)]
    assert np.array_equal(views[0], views[1])
    assert not np.array_equal(views[0], views[2])


def test_everything_at_once_stays_an_image(crop):
    names = [name for name in Augmentation.model_fields if name.endswith("_probability")]
    options = dict.fromkeys(names, 1.0)
    for seed in range(10):
        image, mask = _view(crop, 96, options, seed)
        assert image.shape == (96, 96, 3) and image.dtype == np.uint8
        assert mask.shape == (96, 96) and set(np.unique(mask)) <= {0, 255}


def test_the_mask_moves_with_the_image(crop):
    for seed in range(20):
        image, mask = _view(crop, 128, PLAIN, seed)
        assert ((image[..., 0] < 110) == (mask > 0)).mean() > 0.98


def test_a_frame_has_bars_of_the_fill_without_lesion(crop):
    options = {**PLAIN, "frame_probability": 1.0}
    for seed in range(10):
        image, mask = _view(crop, 128, options, seed)
        bars = (image == FILL).all(axis=2)
        assert 0.2 < bars.mean() < 0.5
        assert not mask[bars].any()


def test_without_frames_there_are_no_bars(crop):
    options = {**PLAIN, "frame_probability": 0.0}
    image, _ = _view(crop, 128, options, 0)
    assert not (image == FILL).all(axis=2).any()
