"""The floors: what they look at, how they are chosen, and what they say."""

import json

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="what training needs is not installed (requirements/train.txt)")

from models.training.classical import (
    FLOORS,
    RESULTS,
    beside_earlier,
    fit_boosting,
    fit_forest,
    fit_logistic,
    fit_majority,
    main,
    measure,
)
from models.training.classical_features import colour_histogram, kept
from models.training.datasets import Crops, Label

pytestmark = pytest.mark.training


def test_the_histogram_counts_colours_and_nothing_else():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:, :2] = (255, 0, 128)
    histogram = colour_histogram(pixels)
    assert histogram.shape == (312,)
    assert histogram[:216].sum() == pytest.approx(1.0)
    assert histogram[0] == histogram[5 * 36 + 3] == 0.5
    red, green, blue = histogram[216:].reshape(3, 32)
    assert (red[0], red[31], green[0], blue[0], blue[16]) == (0.5, 0.5, 1.0, 0.5, 0.5)
    assert np.array_equal(histogram, colour_histogram(pixels[:, ::-1]))


def separable(generator, count=140):
    target = np.arange(count) % 7
    return (np.eye(7)[target] * 3 + generator.normal(size=(count, 7))).astype(np.float32), target


@pytest.mark.parametrize(
    ("fit", "setting"),
    [(fit_forest, {"min_samples_leaf": 1}), (fit_logistic, {"C": 1.0}), (fit_boosting, {"n_estimators": 20})],
)
def test_every_fit_learns_what_can_be_learned(fit, setting):
    generator = np.random.default_rng(0)
    fitted = fit(*separable(generator), setting)
    features, target = separable(generator)
    probability = fitted.probabilities(features)
    assert probability.shape == (140, 7)
    assert np.allclose(probability.sum(axis=1), 1, atol=1e-5)
    assert (probability.argmax(axis=1) == target).mean() > 0.7
    assert fitted.size_bytes > 100


@pytest.mark.parametrize(
    ("fit", "setting"),
    [(fit_forest, {"min_samples_leaf": 1}), (fit_logistic, {"C": 1.0}), (fit_boosting, {"n_estimators": 5})],
)
def test_a_class_that_was_never_seen_has_no_probability(fit, setting):
    features, target = separable(np.random.default_rng(0))
    seen = target != 3
    probability = fit(features[seen], target[seen], setting).probabilities(features)
    assert probability.shape == (140, 7)
    assert (probability[:, 3] == 0).all()
    assert (probability[target == 6].argmax(axis=1) == 6).mean() > 0.7


def test_the_majority_is_the_floor_of_all_floors():
    target = np.array([5] * 6 + [4] * 2)
    probability = fit_majority(np.zeros((8, 1), np.float32), target, {}).probabilities(np.zeros((3, 1), np.float32))
    assert probability.argmax(axis=1).tolist() == [5, 5, 5]
    assert probability[0, 4] == 0.25


def test_the_setting_is_chosen_on_validation_and_the_test_fold_changes_nothing():
    generator = np.random.default_rng(0)
    features, target = separable(generator, 210)
    rows = {"train": list(range(70)), "validation": list(range(70, 140)), "test": list(range(140, 210))}
    lesions = tuple(f"L{row}" for row in range(210))
    floor = FLOORS["package-embedding-logistic"]
    result = measure(floor, features, target, rows, lesions)
    assert result["setting"] in [dict(setting) for setting in floor.settings]
    assert set(result["test"]) >= {"accuracy", "balanced_accuracy", "balanced_accuracy_95", "macro_f1", "melanoma_auc"}
    scrambled = target.copy()
    scrambled[140:] = (scrambled[140:] + 1) % 7
    again = measure(floor, features, scrambled, rows, lesions)
    assert again["setting"] == result["setting"]
    assert again["validation_balanced_accuracy"] == result["validation_balanced_accuracy"]
    assert again["test"]["balanced_accuracy"] < result["test"]["balanced_accuracy"]


def test_features_are_kept_for_the_same_images_and_source_only(tmp_path):
    calls = []

    def compute():
        calls.append(None)
        return np.full((1, 2), len(calls), np.float32)

    crops = Crops((Label("a", "L", "nv"),), np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2, 2), np.uint8))
    other = Crops((Label("b", "L", "nv"),), crops.images, crops.masks)
    path = tmp_path / "kept.npz"
    assert kept(path, crops, "x", compute)[0, 0] == kept(path, crops, "x", compute)[0, 0] == 1
    assert kept(path, crops, "y", compute)[0, 0] == 2
    assert kept(path, other, "y", compute)[0, 0] == 3


def test_entries_stay_beside_new_ones_of_the_same_data_and_package(tmp_path):
    def result(split, package, **floors):
        return {"data": {"split": split}, "package": package, "floors": floors}

    path = tmp_path / "earlier.json"
    new = result("a", {"version": "2"}, **{"package-embedding-logistic": 2})
    assert beside_earlier(new, path) == new
    old = result("a", {"version": "1"}, **{"majority-class": 1, "package-embedding-xgboost": 1})
    path.write_text(json.dumps(old))
    assert beside_earlier(new, path)["floors"] == {"majority-class": 1, "package-embedding-logistic": 2}
    same = result("a", None, **{"colour-random-forest": 3})
    joined = beside_earlier(same, path)
    assert joined["package"] == {"version": "1"}
    assert list(joined["floors"]) == ["majority-class", "colour-random-forest", "package-embedding-xgboost"]
    assert beside_earlier(result("b", None), path) == result("b", None)


def test_the_command_runs_over_a_miniature_and_writes_figures(miniature, tmp_path, capsys):
    output = tmp_path / "classical.json"
    arguments = ["--data", str(miniature), "--cache", str(tmp_path), "--split", str(miniature / "split.csv")]
    assert main([*arguments, "--output", str(output), "--only", "majority-class", "colour-random-forest"]) == 0
    result = json.loads(output.read_text())
    assert list(result["floors"]) == ["majority-class", "colour-random-forest"]
    assert result["package"] is None
    majority, forest = (result["floors"][name]["test"] for name in result["floors"])
    assert majority["images"] == 14
    assert majority["balanced_accuracy"] == pytest.approx(1 / 7)
    assert forest["balanced_accuracy"] > majority["balanced_accuracy"]

    assert main([*arguments[2:], "--data", str(tmp_path / "nowhere"), "--output", str(output)]) == 2
    assert "ham10000.csv" in capsys.readouterr().err


def test_the_table_says_what_was_measured():
    table = (RESULTS.parents[3] / "docs" / "model-zoo.md").read_text(encoding="utf-8")
    for name, floor in json.loads(RESULTS.read_text())["floors"].items():
        test = floor["test"]
        low, high = test["balanced_accuracy_95"]
        figures = f"| {test['balanced_accuracy']:.3f} ({low:.3f} to {high:.3f}) | {test['macro_f1']:.3f} "
        assert f"| `{name}` {figures}| {test['melanoma_auc']:.3f} | {test['accuracy']:.3f} |" in table


def test_the_command_tries_an_embedding(miniature, tmp_path):
    pytest.importorskip("onnxruntime")
    output = tmp_path / "classical.json"
    arguments = ["--data", str(miniature), "--cache", str(tmp_path), "--split", str(miniature / "split.csv")]
    assert main([*arguments, "--output", str(output), "--only", "package-embedding-logistic"]) == 0
    result = json.loads(output.read_text())
    assert result["package"]["name"] == "lesionnet-lite0"
    assert result["floors"]["package-embedding-logistic"]["test"]["images"] == 14
