"""Collections as publishers and hospitals lay them out, and what is said of files and rows that cannot be used."""

import csv
from typing import get_args

import cv2
import numpy as np
import pytest

from models.training.configuration import Layout
from models.training.datasets import CROP, DataMissing, DataUnusable, decode_colour, decoded
from models.training.layouts import LAYOUTS, list_collection
from models.training.layouts.published import HAM_OUTLINES, TASK3


def _photo(number, height=90, width=120):
    """A picture with structure of its own, and the outline of what is darker."""
    generator = np.random.default_rng(number)
    image = cv2.resize(generator.integers(0, 256, (6, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    mask = np.zeros((height, width), np.uint8)
    mask[20:60, 40:80] = 255
    return image, mask


def _write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def _table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def ham(tmp_path):
    """Three images of HAM10000 as on Dataverse, in both parts; the last one has no outline."""
    rows = []
    for number in range(3):
        image, mask = _photo(number)
        _write(tmp_path / f"HAM10000_images_part_{1 + number % 2}" / f"ISIC_{number}.jpg", image)
        if number < 2:
            _write(tmp_path / HAM_OUTLINES / f"ISIC_{number}_segmentation.png", mask)
        rows.append({"lesion_id": f"HAM_{number}", "image_id": f"ISIC_{number}", "dx": "nv", "age": "40.0"})
    _table(tmp_path / "HAM10000_metadata.csv", rows)
    return tmp_path


@pytest.fixture
def hospital(tmp_path):
    """Four images of a hospital named by a table: one without outline, one without diagnosis."""
    rows = []
    for number in range(4):
        image, mask = _photo(number)
        _write(tmp_path / "scans" / f"{number}.png", image)
        _write(tmp_path / "outlines" / f"{number}.png", mask)
        rows.append({
            "image": f"scans/{number}.png", "dx": "" if number == 3 else "MEL",
            "mask": "" if number == 0 else f"outlines/{number}.png", "lesion_id": "", "fitzpatrick": "IV",
        })  # fmt: skip
    _table(tmp_path / "images.csv", rows)
    return tmp_path, rows


def test_every_layout_that_a_configuration_may_name_has_an_adapter():
    assert set(LAYOUTS) == set(get_args(Layout))


def test_ham10000_as_on_dataverse(ham, tmp_path):
    listing = list_collection("ham10000", ham)
    assert [(label.image_id, label.lesion_id, label.diagnosis) for label in listing.labels] == [
        ("ISIC_0", "HAM_0", "nv"), ("ISIC_1", "HAM_1", "nv"), ("ISIC_2", "HAM_2", "nv"),
    ]  # fmt: skip
    assert [label.outlined for label in listing.labels] == [True, True, False]
    assert listing.labels[0].attributes == {"age": "40.0"}
    crops = decoded(listing, tmp_path / "cache")
    image, mask = _photo(1)
    square = cv2.resize(image[:, 15:105, ::-1], (CROP, CROP), interpolation=cv2.INTER_AREA)
    assert np.abs(np.asarray(crops.images[1]).astype(int) - square).mean() < 4
    assert (np.asarray(crops.masks[1]) > 127).mean() == pytest.approx((mask[:, 15:105] > 0).mean(), abs=0.02)
    assert not np.asarray(crops.masks[2]).any()


def test_the_converted_table_of_dataverse_is_read_too(ham):
    text = (ham / "HAM10000_metadata.csv").read_text().replace(",", "\t")
    (ham / "HAM10000_metadata.csv").unlink()
    (ham / "HAM10000_metadata.tab").write_text(text)
    assert len(list_collection("ham10000", ham).labels) == 3


def test_isic2018_task1_has_outlines_only(tmp_path):
    image, mask = _photo(1)
    _write(tmp_path / "ISIC2018_Task1-2_Training_Input" / "ISIC_7.jpg", image)
    (tmp_path / "ISIC2018_Task1-2_Training_Input" / "LICENSE.txt").write_text("CC0")
    _write(tmp_path / "ISIC2018_Task1_Training_GroundTruth" / "ISIC_7_segmentation.png", mask)
    (label,) = list_collection("isic2018-task1", tmp_path).labels
    assert (label.image_id, label.lesion_id, label.diagnosis, label.outlined) == ("ISIC_7", "", "", True)


@pytest.fixture
def task3(tmp_path):
    image, mask = _photo(2)
    for name in ("ISIC_1", "ISIC_2"):
        _write(tmp_path / f"{TASK3}_Input" / f"{name}.jpg", image)
    _write(tmp_path / HAM_OUTLINES / "ISIC_1_segmentation.png", mask)
    one_hot = dict.fromkeys(("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"), "0.0")
    rows = [{"image": "ISIC_1", **one_hot, "BKL": "1.0"}, {"image": "ISIC_2", **one_hot, "MEL": "1.0"}]
    _table(tmp_path / f"{TASK3}_GroundTruth.csv", rows)
    lesions = [{"image": name, "lesion_id": f"HAM_{name}", "diagnosis_confirm_type": "histopathology"} for name in
               ("ISIC_1", "ISIC_2")]  # fmt: skip
    _table(tmp_path / f"{TASK3}_LesionGroupings.csv", lesions)
    return tmp_path, rows


def test_isic2018_task3_is_one_hot_and_takes_the_outlines_of_ham10000(task3):
    folder, _ = task3
    first, second = list_collection("isic2018-task3", folder).labels
    assert (first.diagnosis, first.lesion_id, first.outlined) == ("bkl", "HAM_ISIC_1", True)
    assert (second.diagnosis, second.outlined) == ("mel", False)
    assert second.attributes == {"dx_type": "histopathology"}


def test_a_row_with_two_classes_is_named(task3):
    folder, rows = task3
    rows[1]["NV"] = "1.0"
    _table(folder / f"{TASK3}_GroundTruth.csv", rows)
    with pytest.raises(DataUnusable, match=r"ISIC_2 has 2 classes \(mel, nv\)"):
        list_collection("isic2018-task3", folder)


def test_a_hospital_names_its_images_in_a_table(hospital, tmp_path):
    folder, _ = hospital
    listing = list_collection("table", folder)
    assert [label.diagnosis for label in listing.labels] == ["mel", "mel", "mel", ""]
    assert [label.outlined for label in listing.labels] == [False, True, True, True]
    assert listing.labels[0].attributes == {"fitzpatrick": "4"}
    assert decoded(listing, tmp_path / "cache").images[3].shape == (CROP, CROP, 3)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("dx", "melanom", r"scans/1: 'melanom'\); there is: akiec, bcc"),
        ("fitzpatrick", "7", r"images\.csv, line 3: Fitzpatrick type '7'"),
        ("image", "../../etc/passwd", r"line 3: '\.\./\.\./etc/passwd' leads out of"),
        ("image", "", r"line 3: the column 'image' is empty"),
        ("image", "scans/0.png", r"1 images are listed twice: scans/0"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(hospital, column, value, said):
    folder, rows = hospital
    rows[1][column] = value
    _table(folder / "images.csv", rows)
    with pytest.raises(DataUnusable, match=said):
        list_collection("table", folder)


def test_an_image_that_teaches_nothing_is_named(hospital):
    folder, rows = hospital
    rows[3]["mask"] = ""
    _table(folder / "images.csv", rows)
    with pytest.raises(
        DataUnusable, match=r"1 images have neither a diagnosis \(dx\) nor an outline \(mask\): scans/3"
    ):
        list_collection("table", folder)


def test_a_missing_column_is_named_with_those_there_are(ham):
    text = (ham / "HAM10000_metadata.csv").read_text().replace("dx", "diagnosis")
    (ham / "HAM10000_metadata.csv").write_text(text)
    with pytest.raises(DataUnusable, match=r"no column 'dx'; there is: lesion_id, image_id, diagnosis"):
        list_collection("ham10000", ham)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_empty_folder_is_refused_by_every_layout(layout, tmp_path):
    with pytest.raises(DataMissing, match=str(tmp_path)):
        list_collection(layout, tmp_path)


def _spoil(folder):
    """One image that is none, one that was cut off, one that is not there, and a mask of another size."""
    (folder / "scans/0.png").write_bytes(b"no image")
    whole = cv2.imencode(".jpg", _photo(1)[0])[1].tobytes()
    (folder / "scans/1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "scans/2.png").unlink()
    _write(folder / "outlines/3.png", np.zeros((50, 50), np.uint8))


def test_images_that_cannot_be_read_are_counted_and_named(hospital, tmp_path):
    folder, _ = hospital
    _spoil(folder)
    with pytest.raises(DataUnusable) as error:
        decoded(list_collection("table", folder), tmp_path / "cache")
    for said in (
        "4 of 4 images cannot be used", "scans/0: not a decodable image", "scans/1: a JPEG that was cut off",
        "scans/2: the table lists it, but there is no image file", "scans/3: its mask has 50 × 50 pixels",
        "give --skip-bad",
    ):  # fmt: skip
        assert said in str(error.value)


def test_they_are_left_out_only_when_that_is_asked_for(hospital, tmp_path):
    folder, _ = hospital
    (folder / "scans/0.png").write_bytes(b"no image")
    listing = list_collection("table", folder)
    crops = decoded(listing, tmp_path / "cache", skip_bad=True)
    assert crops.unreadable == {"scans/0": "not a decodable image"}
    assert sorted(crops.positions()) == ["scans/1", "scans/2", "scans/3"]
    with pytest.raises(DataUnusable, match="1 of 4 images"):
        decoded(listing, tmp_path / "cache")


def test_what_changed_on_disk_is_decoded_anew(hospital, tmp_path):
    folder, _ = hospital
    before = np.asarray(decoded(list_collection("table", folder), tmp_path / "cache").images[0]).copy()
    _write(folder / "scans/0.png", np.zeros((90, 120, 3), np.uint8))
    assert before.any()
    assert not np.asarray(decoded(list_collection("table", folder), tmp_path / "cache").images[0]).any()


def test_archives_give_single_files_too(miniature):
    listing = list_collection("ham10000-archives", miniature)
    image_id, encoded = next(iter(listing.images.members()))
    assert listing.images.read(image_id) == encoded
    assert decode_colour(encoded).shape == (256, 256, 3)
