import numpy as np
import pytest

from models.evaluation.strangers import FAMILIES, empty_crops, families, photographs


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_family_is_drawn_anew_and_varies(name):
    first, second = families(2, seed=3)[name]
    again = next(families(1, seed=3)[name])
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape[2] == 3
    assert (again == first).all()
    assert first.shape != second.shape or (first != second).any()


def test_families_are_different_pictures():
    drawn = [next(pictures) for pictures in families(1).values()]
    assert len({picture.tobytes() for picture in drawn}) == len(FAMILIES)


def test_installed_photographs_are_cropped():
    found = list(photographs(4, seed=1))
    assert len(found) in (0, 4)  # none where neither scikit-learn nor matplotlib is installed
    assert all(picture.shape[0] == picture.shape[1] for picture in found)


def test_empty_crops_hold_no_lesion():
    pixels = np.full((300, 400, 3), 180, np.uint8)
    pixels[100:200, 50:150] = (90, 50, 30)
    mask = np.zeros((300, 400), bool)
    mask[100:200, 50:150] = True
    [crop] = empty_crops([(pixels, mask)])
    assert crop.shape == (239, 239, 3) or min(crop.shape[:2]) >= 200
    assert (crop == 180).all()


def test_no_crop_where_the_lesion_leaves_no_room():
    mask = np.zeros((200, 200), bool)
    mask[40:160, 40:160] = True
    assert list(empty_crops([(np.full((200, 200, 3), 180, np.uint8), mask)])) == []


def test_black_corners_are_no_skin():
    pixels = np.zeros((200, 200, 3), np.uint8)
    assert list(empty_crops([(pixels, np.zeros((200, 200), bool))])) == []
