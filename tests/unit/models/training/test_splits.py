"""The split by lesion: a leak is refused, and the committed one is what it was made to be."""

from collections import Counter

import pytest

from models.training.configuration import file_digest
from models.training.datasets import DataMissing, Files, Label, Listing
from models.training.make_split import main, split_collection
from models.training.splits import (
    FOLDER,
    FOLDS,
    SHARES,
    LesionLeak,
    check_against_labels,
    fit_to_split,
    make_split,
    read_split,
    write_split,
)

COMMITTED = "ham10000-v1.csv"
COMMITTED_SHA256 = "6c5ee293a1f21ad432bb3969410f7c4c069b32fe1fb3c03af8e5804f64a51468"
#: The images that are there at their published size: no weight and no threshold may have seen their lesions.
NATIVE_NUMBERS = """
0024309 0024315 0024318 0024323 0024329 0024330 0024331 0024332 0024334 0024337 0024338 0024345
0024358 0024360 0024369 0024370 0024371 0024372 0024374 0024375 0024381 0024382 0024386 0024396
0024402 0024403 0024408 0024409 0024411 0024412 0024431 0024432 0024436 0026034 0026545 0026755
0027663 0029238 0029363 0030679 0031070 0032017 0033286 0033931 0034215
"""
NATIVE = tuple(f"ISIC_{number}" for number in NATIVE_NUMBERS.split())

LABELS = [Label(f"I{k}", f"L{k // 2}", "nv" if k % 4 < 2 else "mel") for k in range(200)]


def _split_file(path, rows):
    path.write_text("image_id,lesion_id,fold\n" + "".join(f"{','.join(row)}\n" for row in rows))
    return str(path)


def test_a_lesion_in_two_folds_is_refused_by_name(tmp_path):
    name = _split_file(tmp_path / "s.csv", [("I1", "L1", "train"), ("I2", "L2", "test"), ("I3", "L1", "test")])
    with pytest.raises(LesionLeak, match=r"lesion L1 is in train and in test \(I3\)"):
        read_split(name)


def test_an_image_listed_twice_is_refused(tmp_path):
    name = _split_file(tmp_path / "s.csv", [("I1", "L1", "train"), ("I1", "L1", "train")])
    with pytest.raises(LesionLeak, match="I1 is listed twice"):
        read_split(name)


def test_an_unknown_fold_is_refused(tmp_path):
    with pytest.raises(LesionLeak, match="'trian'"):
        read_split(_split_file(tmp_path / "s.csv", [("I1", "L1", "trian")]))


def test_a_split_of_other_labels_is_refused(tmp_path):
    path = tmp_path / "s.csv"
    write_split(path, LABELS, make_split(LABELS, []))
    split = read_split(str(path))
    check_against_labels(split, LABELS)
    moved = [Label("I0", "L99", "nv"), *LABELS[1:]]
    with pytest.raises(LesionLeak, match="does not fit the labels"):
        check_against_labels(split, moved)


def test_a_split_is_the_same_for_the_same_seed_and_forces_lesions_into_test():
    folds = make_split(LABELS, ["I7", "I50"], seed=1)
    assert folds == make_split(reversed(LABELS), ["I50", "I7"], seed=1)
    assert folds != make_split(LABELS, ["I7", "I50"], seed=2)
    assert folds["L3"] == folds["L25"] == "test"


def test_every_class_is_divided_in_the_same_proportions():
    folds = make_split(LABELS, [])
    for diagnosis in ("nv", "mel"):
        lesions = {label.lesion_id for label in LABELS if label.diagnosis == diagnosis}
        counts = Counter(folds[lesion] for lesion in lesions)
        for fold in FOLDS:
            assert counts[fold] == pytest.approx(SHARES[fold] * len(lesions), abs=1.5)


def test_the_committed_split_is_the_one_that_was_made():
    assert file_digest(FOLDER / COMMITTED) == COMMITTED_SHA256


def test_the_committed_split_covers_the_collection_and_shares_no_lesion():
    split = read_split(COMMITTED)
    assert len(split.fold_by_image) == 10015
    assert sum(len(split.lesions(fold)) for fold in FOLDS) == 7470
    assert len(set().union(*(split.lesions(fold) for fold in FOLDS))) == 7470


def test_the_published_frames_are_in_the_test_fold():
    split = read_split(COMMITTED)
    assert len(NATIVE) == 45
    assert {split.fold_by_image[image] for image in NATIVE} == {"test"}


@pytest.mark.parametrize("pair", [("ISIC_0024366", "ISIC_0029861"), ("ISIC_0024777", "ISIC_0029938")])
def test_exact_copies_lie_in_one_fold(pair):
    split = read_split(COMMITTED)
    assert len({split.fold_by_image[image] for image in pair}) == 1


def test_a_split_that_is_not_there_is_named():
    with pytest.raises(DataMissing, match=r"there is no split 'ham10000-v9\.csv'"):
        read_split("ham10000-v9.csv")


def _listing(lesions):
    """Labels with these lesions by image; no image can be read."""
    labels = tuple(Label(image, lesion, "nv") for image, lesion in sorted(lesions.items()))
    return Listing(labels, Files({}), Files({}))


def test_images_without_a_lesion_take_that_of_the_split(tmp_path):
    split = read_split(_split_file(tmp_path / "s.csv", [("I1", "L1", "train"), ("I2", "I2", "test")]))
    fitted = fit_to_split(_listing({"I1": "L1", "I2": ""}), split)
    assert [label.lesion_id for label in fitted.labels] == ["L1", "I2"]


def test_a_lesion_of_the_table_in_two_folds_of_the_split_is_refused(tmp_path):
    rows = [("I1", "A", "train"), ("I2", "B", "test"), ("I3", "C", "test")]
    split = read_split(_split_file(tmp_path / "s.csv", rows))
    with pytest.raises(LesionLeak, match=r"lesion L1 is in train and in test \(I2\)"):
        fit_to_split(_listing({"I1": "L1", "I2": "L1", "I3": ""}), split)


def test_a_split_of_other_images_is_refused(tmp_path):
    split = read_split(_split_file(tmp_path / "s.csv", [("I1", "A", "train")]))
    with pytest.raises(LesionLeak, match="1 images are in one only, first I2"):
        fit_to_split(_listing({"I1": "", "I2": ""}), split)


def test_near_copies_without_a_lesion_come_into_one_fold(tmp_path, monkeypatch):
    import numpy as np

    bits = {f"I{k}": np.random.default_rng(k // 2).random(256) < 0.5 for k in range(40)}
    monkeypatch.setattr("models.training.make_split.hash_images", lambda listing, cache: bits)
    listing = _listing({f"I{k}": "" for k in range(41)})
    assert split_collection(listing, tmp_path, tmp_path / "s.csv") == 21
    split = read_split(str(tmp_path / "s.csv"))
    assert all(split.fold_by_image[f"I{k}"] == split.fold_by_image[f"I{k + 1}"] for k in range(0, 40, 2))
    assert split.lesion_by_image["I40"] == "I40"


def test_the_command_makes_the_same_split_again_and_replaces_none(miniature, tmp_path, monkeypatch, capsys):
    for name in ("a.csv", "b.csv"):
        arguments = ["make_split", "ham10000-archives", str(miniature), str(tmp_path / name)]
        monkeypatch.setattr("sys.argv", arguments)
        assert main() == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert "56 images, 28 lesions" in capsys.readouterr().out
    assert main() == 2
    assert "is there already" in capsys.readouterr().err
