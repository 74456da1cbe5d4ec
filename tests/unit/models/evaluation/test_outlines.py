import numpy as np
import pytest

from models.evaluation.outlines import by_class, by_size, histogram, main_figures, worst

OVERLAP = np.array([0.9, 0.8, 0.6, 0.64, 1.0])


def test_an_outline_below_the_limit_counts_as_zero():
    found = main_figures(OVERLAP, np.ones((1, 5)))
    assert found["mean_jaccard"]["value"] == pytest.approx(3.94 / 5, abs=1e-4)
    assert found["thresholded_jaccard"]["value"] == pytest.approx(2.7 / 5, abs=1e-4)
    assert found["failed_outlines"]["value"] == pytest.approx(0.4)
    assert found["mean_dice"]["value"] == pytest.approx(np.mean(2 * OVERLAP / (1 + OVERLAP)), abs=1e-4)


def test_the_histogram_holds_every_image():
    found = histogram(OVERLAP)
    assert sum(found["counts"]) == 5
    assert found["counts"][-1] == 1 and found["counts"][18] == 1
    assert found["quantiles"]["p50"] == pytest.approx(0.8)


def test_the_worst_come_first_and_are_twenty():
    overlap = np.linspace(1.0, 0.0, 30)
    names = tuple(f"i{n}" for n in range(30))
    found = worst(names, overlap, np.full(30, 0.5), np.full(30, 0.25), ("nv",) * 30)
    assert len(found) == 20
    assert found[0] == {
        "id": "i29", "jaccard": 0.0, "reference_share": 0.5, "drawn_share": 0.25, "diagnosis": "nv",
    }  # fmt: skip


def test_error_by_size_counts_wrong_answers_among_labelled_images_only():
    share = np.array([0.02, 0.10, 0.10, 0.10, 0.9])
    right = np.array([1.0, 0.0, 1.0, np.nan, 0.0])
    small, medium, *_, large = by_size(share, OVERLAP, right)
    assert (small["images"], small["error"]) == (1, 0.0)
    assert (medium["images"], medium["labelled"], medium["error"]) == (3, 2, 0.5)
    assert medium["failed_outlines"] == pytest.approx(2 / 3, abs=1e-4)
    assert (large["images"], large["error"], large["mean_jaccard"]) == (1, 1.0, 1.0)


def test_outlines_by_diagnosis():
    assert by_class(("nv", "nv", "mel", "", "mel"), OVERLAP) == {"mel": 0.8, "nv": 0.85}
