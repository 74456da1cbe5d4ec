"""Pairs of one lesion and of different ones, on drawn pictures: what is called, and how far measures scatter."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import cv2
import numpy as np
import pytest

from dermoscopy.domain import DermoscopicImage, Finding, RGBPixels
from dermoscopy.phantoms import phantom
from models.evaluation.dataset import Case, case_of
from models.evaluation.pairs import (
    MEASURES,
    _upper,
    differences,
    differing,
    floor_of,
    look,
    matching,
    measure_pairs,
    several,
)
from models.evaluation.predict import Predictor
from models.measure import largest_region, measure
from tests.findings import make_finding

DRAWN = {seed: phantom(seed, kind="melanoma-like", rows=200, columns=240, vignette=False) for seed in (3, 4, 5)}


def turned(pixels: RGBPixels) -> RGBPixels:
    matrix = cv2.getRotationMatrix2D((120, 100), 20, 1.0)
    return np.asarray(cv2.warpAffine(pixels, matrix, (240, 200), borderMode=cv2.BORDER_REFLECT), np.uint8)


class DrawnPredictor:
    """Outlines what is darker than the skin; says the same of everything else."""

    def analyze(self, pixels: RGBPixels) -> Finding:
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        mask = cv2.GaussianBlur(grey, (0, 0), 3) < 0.5 * (int(grey.min()) + int(np.median(grey[:, :10])))
        region = largest_region(mask)
        assert region is not None
        return replace(make_finding(), mask=mask, measurements=measure(DermoscopicImage(pixels, ""), region))


PREDICTOR = cast(Predictor, DrawnPredictor())


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """Three lesions: each drawn, and turned; of the first a third picture that is an exact copy."""
    made = []
    for seed, drawn in DRAWN.items():
        made.append(case_of(f"{seed}-a", drawn.pixels, group=f"lesion {seed}", attributes={"localization": "back"}))
        made.append(case_of(f"{seed}-b", turned(drawn.pixels), group=f"lesion {seed}"))
    return [case_of("3-copy", DRAWN[3].pixels, group="lesion 3", attributes={"localization": "back"}), *made]


def test_a_pair_of_each_lesion_and_never_an_exact_copy(cases: list[Case]) -> None:
    pairs = [(one.case.id, other.case.id) for one, other in matching(look(PREDICTOR, cases))]
    assert pairs == [("3-copy", "3-b"), ("4-a", "4-b"), ("5-a", "5-b")]


def test_differing_pairs_are_of_other_lesions_of_the_same_site(cases: list[Case]) -> None:
    pairs = differing(look(PREDICTOR, cases), each=2)
    assert len(pairs) == 6
    assert all(one.case.group != other.case.group for one, other in pairs)


def test_turned_lesions_are_called_and_others_not_and_areas_hardly_scatter(cases: list[Case]) -> None:
    found = measure_pairs(PREDICTOR, cases, cases, each=2)
    rates = found["registration"]["test fold"]
    assert (rates["matching_called"], rates["differing_called"]) == (1.0, 0)
    assert found["floor"]["pairs"] == 3
    assert found["floor"]["area_log"] < 0.1
    assert found["floor"]["melanoma_risk"] == 0.0


def test_images_that_are_not_fit_for_analysis_are_no_part_of_the_noise(cases: list[Case]) -> None:
    seen = look(PREDICTOR, cases)
    poor = replace(seen["4-b"].finding, quality=replace(seen["4-b"].finding.quality, usable=False))
    seen["4-b"] = replace(seen["4-b"], finding=poor)
    assert {len(values) for values in differences(seen).values()} == {2}


def test_the_floor_is_what_95_percent_do_not_pass_either_way() -> None:
    floor = floor_of({name: [n / 100 * (-1) ** n for n in range(101)] for name in MEASURES})
    assert floor == dict.fromkeys(MEASURES, pytest.approx(0.95))


def test_no_event_is_not_no_risk() -> None:
    assert _upper(0, 1209) == pytest.approx(0.0025, abs=1e-4)  # the rule of three
    assert _upper(1, 100) == pytest.approx(0.0466, abs=1e-3)


def test_only_lesions_with_several_images_in_the_folds_count(cases: list[Case]) -> None:
    folds = {"3-a": "test", "3-b": "test", "4-a": "test", "4-b": "train", "5-a": "train", "5-b": "train"}
    assert [case.id for case in several(cases, folds, ("test",))] == ["3-a", "3-b"]
