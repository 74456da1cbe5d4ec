import json

import cv2
import numpy as np
import pytest

from dermoscopy.errors import Misconfigured
from dermoscopy.phantoms import phantom
from models.evaluation.dataset import Case, case_of
from models.evaluation.distortions import DISTORTIONS, distort, distort_mask, distorted, measure_distortions, stratified
from models.evaluation.predict import Predictor

DRAWN = phantom(5, kind="nevus", rows=240, columns=320)
FIGURES = (
    "accuracy", "balanced_accuracy", "melanoma_auc", "melanoma_sensitivity", "melanoma_specificity", "mean_jaccard",
)  # fmt: skip


def detail(pixels):
    return cv2.Laplacian(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var()


def difference(a, b):
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_there_are_twelve():
    assert len(DISTORTIONS) == 12


@pytest.mark.parametrize("name", list(DISTORTIONS))
@pytest.mark.parametrize("shape", [(128, 128), (197, 231), (450, 600)])
def test_same_shape_same_bytes(name, shape):
    pixels = phantom(1, rows=shape[0], columns=shape[1]).pixels
    before = pixels.copy()
    changed = distort(pixels, name, 7)
    assert changed.shape == pixels.shape and changed.dtype == np.uint8
    assert np.array_equal(changed, distort(pixels, name, 7))
    assert np.array_equal(pixels, before)
    assert (name == "clean") == np.array_equal(changed, pixels)


def test_seeds_matter_where_chance_is_in_it():
    for name in ("noise", "realistic_mix"):
        assert not np.array_equal(distort(DRAWN.pixels, name, 1), distort(DRAWN.pixels, name, 2))
    casts = [distort(DRAWN.pixels, "colour_cast", seed).mean(axis=(0, 1)) for seed in range(12)]
    plain = DRAWN.pixels.mean(axis=(0, 1))
    warm = [cast[0] > plain[0] + 3 and cast[2] < plain[2] - 3 for cast in casts]
    cool = [cast[0] < plain[0] - 3 and cast[2] > plain[2] + 3 for cast in casts]
    assert any(warm) and any(cool) and all(a != b for a, b in zip(warm, cool, strict=True))


def test_each_does_what_it_says():
    pixels = DRAWN.pixels
    assert detail(distort(pixels, "blur_heavy")) < detail(distort(pixels, "blur_light")) < 0.5 * detail(pixels)
    noise = distort(pixels, "noise").astype(int) - pixels
    assert noise.std() == pytest.approx(15.0, abs=1.5)
    assert distort(pixels, "dark").mean() < 0.7 * pixels.mean()
    assert distort(pixels, "bright").mean() > 1.15 * pixels.mean()
    assert difference(distort(pixels, "jpeg_heavy"), pixels) > 1.5 * difference(distort(pixels, "jpeg_light"), pixels)


def test_exposure_is_in_stops_of_linear_light():
    grey = np.full((40, 40, 3), 188, np.uint8)  # 0.503 in linear light; 1.5 stops less is 0.178, sRGB 117
    assert distort(grey, "dark")[0, 0].tolist() == [117, 117, 117]
    assert distort(grey, "bright")[0, 0].tolist() == [237, 237, 237]  # 0.846


def test_lengths_are_shares_of_the_side():
    """Twice the pixels, twice the blur: shrunk again, both are the same picture."""
    large = phantom(5, kind="nevus", rows=800, columns=800).pixels
    small = cv2.resize(large, (400, 400), interpolation=cv2.INTER_AREA)
    for name in ("blur_heavy", "dark", "rotation_15"):
        shrunk = cv2.resize(distort(large, name), (400, 400), interpolation=cv2.INTER_AREA)
        assert difference(shrunk, distort(small, name)) < 1.0
    grains = distort(np.full((1024, 1024, 3), 128, np.uint8), "noise").astype(int) - 128
    assert cv2.resize(grains.astype(np.float32), (256, 256), interpolation=cv2.INTER_AREA).std() == pytest.approx(
        15, abs=1
    )


@pytest.mark.parametrize("name", ["rotation_15", "rotation_45", "realistic_mix"])
def test_the_mask_turns_with_its_image(name):
    painted = np.where(DRAWN.mask[..., None], np.uint8(40), np.uint8(200)).repeat(3, axis=2)
    for seed in range(3):
        seen = cv2.GaussianBlur(distort(painted, name, seed), (0, 0), 2.0).mean(axis=2) < 110
        turned = distort_mask(DRAWN.mask, name, seed)
        assert (seen & turned).sum() / (seen | turned).sum() > 0.95
    assert (turned & DRAWN.mask).sum() < 0.99 * (turned | DRAWN.mask).sum()


def test_turning_is_counter_clockwise_about_the_centre():
    pixels = np.zeros((101, 101, 3), np.uint8)
    pixels[48:53, 63:68] = 255  # 15 pixels right of the centre
    rows, columns = np.nonzero(distort(pixels, "rotation_45")[..., 0] > 128)
    assert (rows.mean(), columns.mean()) == pytest.approx((50 - 15 * 0.7071, 50 + 15 * 0.7071), abs=0.6)


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(Misconfigured, match=r"'sepia' is unknown; there is: clean, blur_light"):
        distort(DRAWN.pixels, "sepia")
    with pytest.raises(Misconfigured, match="sepia"):
        measure_distortions(None, [], names=["sepia"])


def test_a_case_is_changed_lazily_and_by_its_own_seed():
    case = case_of("a", DRAWN.pixels, DRAWN.mask, "nv", "lesion")
    changed = distorted(case, "realistic_mix", 3)
    assert np.array_equal(changed.pixels(), changed.pixels())
    other = distorted(case_of("b", DRAWN.pixels, DRAWN.mask), "realistic_mix", 3)
    assert not np.array_equal(changed.pixels(), other.pixels())
    assert (changed.id, changed.diagnosis, changed.group) == ("a", "nv", "lesion")
    assert distorted(case_of("c", DRAWN.pixels), "rotation_15").mask() is None


def test_a_turned_window_has_no_mask():
    window = (20, 40, 220, 240)
    part = DRAWN.mask[20:220, 40:240]
    case = Case("a", lambda: DRAWN.pixels, lambda: part, "nv", "a", {}, window)
    turned, dark = distorted(case, "rotation_45"), distorted(case, "dark")
    assert turned.mask() is None and turned.window is None
    assert np.array_equal(dark.mask(), part) and dark.window == window


def test_an_even_choice_stands_for_all():
    diagnoses = ["nv"] * 900 + ["mel"] * 80 + ["df"] * 5
    positions, weights = stratified(diagnoses, 105, 1)
    taken = [diagnoses[position] for position in positions]
    assert (taken.count("df"), taken.count("mel"), taken.count("nv")) == (5, 50, 50)
    assert weights.sum() == pytest.approx(985)
    assert sum(w for w, name in zip(weights, taken, strict=True) if name == "nv") == pytest.approx(900)
    assert len(set(positions.tolist())) == 105 and list(positions) == sorted(positions)
    assert np.array_equal(positions, stratified(diagnoses, 105, 1)[0])
    assert len(stratified([], 10)[0]) == 0


def cases(number=14):
    kinds = {"nv": "nevus", "mel": "melanoma-like", "vasc": "vascular"}
    made = []
    for n in range(number):
        diagnosis = list(kinds)[n % 3]
        drawn = phantom(n, kind=kinds[diagnosis], rows=64, columns=80)
        made.append(case_of(f"i{n}", drawn.pixels, drawn.mask if n % 2 else None, diagnosis, f"l{n // 2}"))
    return made


def test_figures_of_every_distortion(build_package):
    predictor = Predictor(build_package(), threads=1)
    images = [*cases(), case_of("unlabelled", DRAWN.pixels, DRAWN.mask)]
    found = measure_distortions(predictor, images, draws=40)
    assert list(found["distortions"]) == list(DISTORTIONS)
    clean = found["distortions"]["clean"]
    answers = predictor.answers(images[:-1])
    classes = [label.value for label in predictor.manifest.classes]
    right = [classes[k] == case.diagnosis for k, case in zip(answers.called, images[:-1], strict=True)]
    assert clean["accuracy"]["value"] == pytest.approx(np.mean(right), abs=1e-4)
    warned = answers.probability[:, classes.index("mel")] >= predictor.manifest.thresholds.melanoma.probability
    melanoma = np.array([case.diagnosis == "mel" for case in images[:-1]])
    assert clean["melanoma_sensitivity"]["value"] == pytest.approx(warned[melanoma].mean(), abs=1e-4)
    assert clean["melanoma_specificity"]["value"] == pytest.approx((~warned[~melanoma]).mean(), abs=1e-4)
    overlaps = predictor.answers(images).jaccard
    assert clean["mean_jaccard"]["value"] == pytest.approx(np.nanmean(overlaps), abs=1e-4)
    for figure in FIGURES:
        assert clean[figure]["change"] == 0.0 and clean[figure]["change_interval"] == [0.0, 0.0]
    dark = found["distortions"]["dark"]
    assert dark["mean_jaccard"]["change"] == pytest.approx(
        dark["mean_jaccard"]["value"] - clean["mean_jaccard"]["value"], abs=2e-4
    )
    assert any(row[figure]["change"] != 0.0 for row in found["distortions"].values() for figure in FIGURES)
    json.dumps(found, allow_nan=False)


def test_a_part_of_the_images_and_of_the_distortions(build_package):
    predictor = Predictor(build_package(), threads=1)
    found = measure_distortions(predictor, cases(), names=["dark"], images=6, draws=10)
    assert list(found["distortions"]) == ["clean", "dark"]
    assert (found["images"], found["of"]) == (6, 14)


def test_masks_alone_give_the_outline_alone(build_package):
    predictor = Predictor(build_package(), threads=1)
    found = measure_distortions(predictor, [case_of("a", DRAWN.pixels, DRAWN.mask)], names=["blur_light"], draws=10)
    row = found["distortions"]["blur_light"]
    assert row["mean_jaccard"]["value"] is not None
    assert (
        row["accuracy"]["value"] is None
        and row["accuracy"]["interval"] is None
        and row["melanoma_auc"]["change"] is None
    )
