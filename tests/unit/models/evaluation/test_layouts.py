import csv
import tarfile

import numpy as np
import pytest
from PIL import Image

from dermoscopy.errors import Misconfigured, UnreadableObject
from models.evaluation.layouts import Choice, open_dataset
from tests.unit.models.evaluation.conftest import add_member, encoded, mask_bytes, write_table

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def rows_of(path):
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def labels(dataset):
    return {case.id: case.diagnosis for case in dataset.cases}


def test_images_masks_and_table_are_found_by_themselves(folder, drawings):
    dataset = open_dataset(folder, CLASSES)

    assert labels(dataset) == {name: label for name, label, *_ in drawings}
    first = dataset.cases[0]
    assert first.group == "L0"
    assert first.attributes == {"age": "50", "sex": "female"}
    assert np.array_equal(first.pixels(), drawings[0][3])
    assert np.array_equal(first.mask(), drawings[0][4])
    assert dataset.labelled == 6


def test_the_table_itself_can_be_named(folder):
    assert len(open_dataset(folder / "labels.csv", CLASSES).cases) == 6


@pytest.mark.parametrize(
    ("written", "meant"),
    [("NV", "nv"), ("Melanoma", "mel"), ("melanoma (in situ)", "mel"), ("Seborrheic keratosis", "bkl"),
     ("Bowen's disease", "akiec"), ("ACK", "akiec"), ("hemangioma", "vasc"), ("Nevus", "nv"), (" bcc ", "bcc")],
)  # fmt: skip
def test_usual_names_of_classes_are_understood(folder, written, meant):
    rows = rows_of(folder / "labels.csv")
    rows[0]["dx"] = written
    write_table(folder / "labels.csv", rows)

    assert open_dataset(folder, CLASSES).cases[0].diagnosis == meant


@pytest.mark.parametrize(
    "written", ["IMG_000.png", "img_000", "images/IMG_000.png", "somewhere\\IMG_000.JPG", "IMG_000"]
)
def test_an_image_may_be_named_with_folder_suffix_or_other_case(folder, written):
    rows = rows_of(folder / "labels.csv")
    rows[0]["image_id"] = written
    write_table(folder / "labels.csv", rows)

    dataset = open_dataset(folder, CLASSES)

    assert len(dataset.cases) == 6 and not dataset.notes


def test_one_column_per_class_as_isic_publishes_it(tmp_path, drawings):
    images = tmp_path / "ISIC2018_Task3_Test_Input"
    truth = tmp_path / "ISIC2018_Task3_Test_GroundTruth"
    images.mkdir()
    truth.mkdir()
    rows = []
    for name, label, *_, pixels, _mask in drawings:
        Image.fromarray(pixels).save(images / f"{name}.jpg")
        rows.append({"image": name, **{c.upper(): "1.0" if c == label else "0.0" for c in CLASSES}})
    write_table(truth / "ISIC2018_Task3_Test_GroundTruth.csv", rows)

    dataset = open_dataset(tmp_path, CLASSES)

    assert labels(dataset) == {name: label for name, label, *_ in drawings}
    assert all(case.mask() is None for case in dataset.cases)


def test_isic_task_1_without_any_table(tmp_path, drawings):
    images, truth = tmp_path / "ISIC2018_Task1-2_Training_Input", tmp_path / "ISIC2018_Task1_Training_GroundTruth"
    images.mkdir()
    truth.mkdir()
    for name, *_, pixels, mask in drawings:
        Image.fromarray(pixels).save(images / f"{name}.jpg")
        (images / f"{name}_superpixels.png").write_bytes(mask_bytes(mask))
        (truth / f"{name}_segmentation.png").write_bytes(mask_bytes(mask))

    dataset = open_dataset(tmp_path, CLASSES)

    assert len(dataset.cases) == 6 and dataset.labelled == 0
    assert np.array_equal(dataset.cases[2].mask(), drawings[2][4])


def test_archives_beside_their_table(tmp_path, drawings):
    with (
        tarfile.open(tmp_path / "set-images-256-00.tar", "w") as images,
        tarfile.open(tmp_path / "set-masks-256-00.tar", "w") as masks,
        tarfile.open(tmp_path / "set-native-00.tar", "w") as natives,
    ):
        for name, *_, pixels, mask in drawings:
            add_member(images, f"{name}.png", encoded(pixels))
            add_member(masks, f"{name}.png", mask_bytes(mask))
            add_member(natives, f"{name}.png", encoded(np.zeros_like(pixels)))
    write_table(tmp_path / "set.csv", [{"image_id": name, "dx": label} for name, label, *_ in drawings])

    dataset = open_dataset(tmp_path, CLASSES)

    assert np.array_equal(dataset.cases[3].pixels(), drawings[3][3])
    assert np.array_equal(dataset.cases[3].mask(), drawings[3][4])
    other = open_dataset(tmp_path, CLASSES, Choice(images="set-native", masks="none"))
    assert not other.cases[0].pixels().any() and other.cases[0].mask() is None


def test_one_folder_per_class(tmp_path, drawings):
    for name, label, *_, pixels, _mask in drawings:
        place = tmp_path / {"nv": "Nevus", "mel": "MEL"}[label]
        place.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(place / f"{name}.tif")

    assert labels(open_dataset(tmp_path, CLASSES)) == {name: label for name, label, *_ in drawings}


def test_a_fold_of_a_split_with_its_lesions(folder, drawings):
    split = folder.parent / "split.csv"
    rows = [{"image_id": name, "lesion_id": "S", "fold": "test" if n < 2 else "train"} for n, (name, *_) in
            enumerate(drawings)]  # fmt: skip
    write_table(split, rows)
    write_table(folder / "labels.csv", [{k: r[k] for k in ("image_id", "dx")} for r in rows_of(folder / "labels.csv")])

    dataset = open_dataset(folder, CLASSES, Choice(split=split, fold="test"))

    assert [case.id for case in dataset.cases] == ["IMG_000", "IMG_001"]
    assert {case.group for case in dataset.cases} == {"S"}
    with pytest.raises(Misconfigured, match="no fold 'tset'; there is: test, train"):
        open_dataset(folder, CLASSES, Choice(split=split, fold="tset"))


def test_a_limit_takes_evenly(folder):
    chosen = open_dataset(folder, CLASSES, Choice(limit=3))

    assert [case.id for case in chosen.cases] == ["IMG_000", "IMG_002", "IMG_004"]
    assert any("only 3 of 6" in note for note in chosen.notes)


def test_the_digest_is_of_pixels_masks_and_labels(folder):
    before = open_dataset(folder, CLASSES).digest
    assert open_dataset(folder, CLASSES).digest == before
    rows = rows_of(folder / "labels.csv")
    rows[0]["dx"] = "bcc"
    write_table(folder / "labels.csv", rows)
    relabelled = open_dataset(folder, CLASSES).digest
    (folder / "masks" / "IMG_000_segmentation.png").write_bytes(mask_bytes(np.ones((96, 128), bool)))

    assert len({before, relabelled, open_dataset(folder, CLASSES).digest}) == 3


def test_a_mask_of_another_size_follows_its_image(folder, drawings):
    small = Image.fromarray(drawings[0][4].astype(np.uint8) * 255).resize((64, 48), Image.Resampling.NEAREST)
    small.save(folder / "masks" / "IMG_000_segmentation.png")

    mask = open_dataset(folder, CLASSES).cases[0].mask()

    assert mask.shape == (96, 128)
    assert np.mean(mask == drawings[0][4]) > 0.95


def test_an_image_that_lies_on_its_side_is_turned_with_its_mask(tmp_path, drawings):
    pixels, mask = drawings[0][3], drawings[0][4]
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright
    (tmp_path / "masks").mkdir()
    Image.fromarray(np.rot90(pixels).copy()).save(tmp_path / "a.png", exif=exif)
    (tmp_path / "masks" / "a.png").write_bytes(mask_bytes(mask))

    case = open_dataset(tmp_path, CLASSES).cases[0]

    assert np.array_equal(case.pixels(), pixels)
    assert np.array_equal(case.mask(), mask)


def test_an_unknown_class_is_named_with_what_is_allowed(folder):
    rows = rows_of(folder / "labels.csv")
    rows[1]["dx"] = "squamous cell carcinoma"
    write_table(folder / "labels.csv", rows)

    with pytest.raises(Misconfigured, match=r"'squamous cell carcinoma' \(1 rows, such as IMG_001\).*akiec, bcc"):
        open_dataset(folder, CLASSES)
    dataset = open_dataset(folder, CLASSES, Choice(skip_bad=True))
    assert "IMG_001" in dataset.left_out


def test_a_missing_mask_is_named(folder):
    (folder / "masks" / "IMG_004_segmentation.png").unlink()

    with pytest.raises(Misconfigured, match=r"1 of 6 images have no mask \(img_004\)"):
        open_dataset(folder, CLASSES)
    dataset = open_dataset(folder, CLASSES, Choice(skip_bad=True))
    assert len(dataset.cases) == 6 and dataset.cases[4].mask() is None


def test_rows_without_image_and_images_without_label_are_counted(folder):
    rows = rows_of(folder / "labels.csv")
    rows[0]["dx"] = ""
    rows.append({**rows[1], "image_id": "IMG_999"})
    write_table(folder / "labels.csv", rows)

    dataset = open_dataset(folder, CLASSES)

    assert dataset.labelled == 5 and len(dataset.cases) == 6
    assert any("1 rows of labels.csv have no image here (img_999)" in note for note in dataset.notes)
    assert any("1 images have no diagnosis" in note for note in dataset.notes)


@pytest.mark.parametrize("broken", [b"", b"not an image", "truncated"])
def test_a_broken_image_says_which(folder, drawings, broken):
    data = encoded(drawings[1][3], "JPEG") if broken == "truncated" else broken
    path = folder / "images" / "IMG_001.png"
    path.write_bytes(data[: len(data) // 2] if broken == "truncated" else data)

    case = open_dataset(folder, CLASSES, Choice(masks="none")).cases[1]

    with pytest.raises(UnreadableObject, match=r"images/IMG_001.png"):
        case.pixels()


def test_what_cannot_be_told_apart_is_asked(folder):
    write_table(folder / "more.csv", [{"image_id": "IMG_000", "dx": "nv"}])
    with pytest.raises(Misconfigured, match=r"2 tables of labels \(labels.csv, more.csv\): say which with --labels"):
        open_dataset(folder, CLASSES)
    (folder / "more.csv").unlink()
    (folder / "again").mkdir()
    (folder / "again" / "IMG_000.png").write_bytes((folder / "images" / "IMG_000.png").read_bytes())
    with pytest.raises(Misconfigured, match="img_000 is there 2 times"):
        open_dataset(folder, CLASSES)
    assert len(open_dataset(folder, CLASSES, Choice(images="images")).cases) == 6


def test_nothing_usable_says_why(tmp_path, drawings):
    with pytest.raises(Misconfigured, match="no images found"):
        open_dataset(tmp_path, CLASSES)
    Image.fromarray(drawings[0][3]).save(tmp_path / "a.jpg")
    with pytest.raises(Misconfigured, match="neither labels nor masks"):
        open_dataset(tmp_path, CLASSES)
    write_table(tmp_path / "labels.csv", [{"image_id": "b", "dx": "nv"}])
    with pytest.raises(Misconfigured, match="names must agree"):
        open_dataset(tmp_path, CLASSES)
    with pytest.raises(Misconfigured, match="no such folder"):
        open_dataset(tmp_path / "absent", CLASSES)


def test_a_row_that_contradicts_another_is_named(folder):
    rows = rows_of(folder / "labels.csv")
    rows.append({**rows[0], "dx": "bcc"})
    write_table(folder / "labels.csv", rows)

    with pytest.raises(Misconfigured, match="line 8: IMG_000 is bcc here and nv further up"):
        open_dataset(folder, CLASSES)


def test_a_table_from_a_spreadsheet(folder):
    """Semicolons, a byte order mark and capitals in the header."""
    rows = rows_of(folder / "labels.csv")
    text = "\ufeffImage_ID;DX\n" + "\n".join(f"{row['image_id']};{row['dx']}" for row in rows)
    (folder / "labels.csv").write_text(text, encoding="utf-8")

    assert open_dataset(folder, CLASSES).labelled == 6


def test_columns_that_are_missing_are_named(folder):
    write_table(folder / "labels.csv", [{"image_id": "IMG_000", "colour": "brown"}])
    with pytest.raises(Misconfigured, match=r"no column of diagnoses.*image_id, colour"):
        open_dataset(folder / "labels.csv", CLASSES)
