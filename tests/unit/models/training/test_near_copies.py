"""Near copies are found, grouped, and refused where they lie in two folds."""

import cv2
import numpy as np
import pytest

from models.training.datasets import DataUnusable, Files, Label, Listing
from models.training.leaks import Collected, read_known_copies, refuse_shared, withheld
from models.training.near_copies import BLOCK, hash_images, near_copies, near_pairs, perceptual_hash
from models.training.splits import LesionLeak, read_split


def _picture(seed):
    generator = np.random.default_rng(seed)
    return cv2.resize(generator.integers(0, 256, (8, 8, 3), np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)


def _bits(seed, changed=0):
    bits = np.random.default_rng(seed).random(256) < 0.5
    bits[:changed] ^= True
    return bits


def _split(path, rows):
    path.write_text("image_id,lesion_id,fold\n" + "".join(f"{','.join(row)}\n" for row in rows))
    return read_split(str(path))


def test_a_copy_in_another_light_is_near_and_another_picture_is_not():
    image = _picture(1)
    copy = np.clip(cv2.resize(image, (200, 200)).astype(float) * 0.8 + 20, 0, 255).astype(np.uint8)
    assert (perceptual_hash(image) != perceptual_hash(copy)).sum() <= 20
    assert (perceptual_hash(image) != perceptual_hash(_picture(2))).sum() > 60


def test_pairs_are_found_across_blocks():
    hashes = {f"I{k:05d}": _bits(k) for k in range(BLOCK + 3)}
    hashes[f"I{BLOCK + 1:05d}"] = _bits(0, changed=7)
    assert list(near_pairs(hashes)) == [("I00000", f"I{BLOCK + 1:05d}", 7)]


def test_copies_of_copies_share_a_group_named_after_the_first():
    hashes = {"c": _bits(1), "a": _bits(1, 30), "b": _bits(1, 60), "d": _bits(2)}
    assert near_copies(hashes) == {"a": "a", "b": "a", "c": "a", "d": "d"}


def test_known_lesions_link_images_and_name_the_group():
    hashes = {"a": _bits(1), "b": _bits(1, 5), "c": _bits(2), "d": _bits(3)}
    assert near_copies(hashes, lesions={"b": "L7", "c": "L7", "d": ""}) == {"a": "L7", "b": "L7", "c": "L7", "d": "d"}


def test_hashes_are_kept_until_a_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), _picture(1))
    listing = Listing((Label("a", "", "nv"),), Files({"a": path}), Files({}))
    first = hash_images(listing, tmp_path / "cache")
    monkeypatch.setattr("models.training.near_copies.perceptual_hash", lambda pixels: _bits(9))
    assert np.array_equal(hash_images(listing, tmp_path / "cache")["a"], first["a"])
    path.write_bytes(path.read_bytes() + b"\0")
    assert np.array_equal(hash_images(listing, tmp_path / "cache")["a"], _bits(9))


@pytest.fixture
def leaking(tmp_path):
    """Two collections with one photograph in the test fold of one and the training fold of the other."""
    first = _split(tmp_path / "1.csv", [("I1", "L1", "test"), ("I2", "L2", "train")])
    second = _split(tmp_path / "2.csv", [("J1", "M1", "train"), ("J2", "M2", "test")])
    return [
        Collected("first", first, {"I1": _bits(1), "I2": _bits(2)}),
        Collected("second", second, {"J1": _bits(1, 3), "J2": _bits(4)}),
    ]


def test_a_near_copy_in_two_folds_is_refused_by_name(leaking):
    with pytest.raises(LesionLeak, match=r"1 pairs .* I1 \(test\) and J1 \(train\), 3 of 256 bits differ"):
        withheld(leaking, {})


def test_a_copy_that_somebody_looked_at_leaves_the_figures_and_not_the_training(leaking):
    pair = frozenset(("J1", "I1"))
    assert withheld(leaking, {pair: "same"}) == {"I1": "J1"}
    assert withheld(leaking, {pair: "different"}) == {}


def test_a_lesion_in_two_folds_of_two_collections_is_refused(tmp_path, leaking):
    other = Collected("other", _split(tmp_path / "3.csv", [("K1", "L1", "train")]), {})
    with pytest.raises(LesionLeak, match="lesion L1 is in test of first and in train of other"):
        refuse_shared([*leaking, other])


def test_an_image_in_two_collections_is_refused(tmp_path, leaking):
    other = Collected("other", _split(tmp_path / "3.csv", [("I2", "L9", "train")]), {})
    with pytest.raises(LesionLeak, match="image I2 is in first and in other"):
        refuse_shared([*leaking, other])


def test_the_committed_list_names_images_of_the_committed_splits():
    known = read_known_copies("known-copies.csv")
    images = read_split("ham10000-v1.csv").fold_by_image.keys() | read_split("isic2018-task1-v1.csv").fold_by_image
    assert known[frozenset(("ISIC_0025226", "ISIC_0030074"))] == "same"
    assert all(pair <= images for pair in known)


def test_a_verdict_that_is_none_is_refused(tmp_path):
    path = tmp_path / "known.csv"
    path.write_text("image_id,other_id,shows\nI1,J1,perhaps\n")
    with pytest.raises(DataUnusable, match="I1 and J1 show 'perhaps'; there is: same, different"):
        read_known_copies(str(path))
