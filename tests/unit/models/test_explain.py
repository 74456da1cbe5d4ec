import dataclasses
import hashlib

import numpy as np
import pytest

from dermoscopy.domain import DermoscopicImage, ScaleSource
from dermoscopy.phantoms import phantom
from models.explain import describe, evidence_map
from models.measure import largest_region, measure
from models.preprocess import Placement
from models.scale import Ruler


def test_evidence_is_between_0_and_1_at_source_size_with_its_peak_in_place():
    placement = Placement.fit(450, 600, 224)
    maps = np.zeros((7, 28, 28), np.float32)
    maps[4, 14, 7] = 3.0
    heat = evidence_map(maps, 4, placement)
    assert heat.shape == (450, 600)
    assert heat.dtype == np.float32
    assert heat.min() == 0.0
    assert heat.max() == 1.0
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    # Cell (14, 7) of 28 has its centre at (116, 60) of 224; the content starts at row 28; one pixel is 600 / 224.
    assert row == pytest.approx((116 - 28) * 600 / 224, abs=3)
    assert column == pytest.approx(60 * 600 / 224, abs=3)


def test_what_all_classes_share_is_no_evidence():
    placement = Placement.fit(64, 64, 64)
    random = np.random.default_rng(0)
    maps = random.normal(size=(7, 8, 8)).astype(np.float32)
    shared = random.normal(size=(1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(evidence_map(maps, 2, placement), evidence_map(maps + shared, 2, placement), atol=1e-5)


def test_no_evidence_at_all_is_all_zero():
    maps = np.zeros((7, 8, 8), np.float32)
    maps[3] = -1.0
    assert (evidence_map(maps, 3, Placement.fit(64, 64, 64)) == 0).all()


def measured(kind, spacing=None):
    made = phantom(2, kind=kind)
    digest = hashlib.sha256(made.pixels.tobytes()).hexdigest()
    return measure(DermoscopicImage(made.pixels, digest, spacing), largest_region(made.mask))


def test_abcd_in_plain_words():
    nevus = describe(measured("nevus", (0.02, 0.02)), 0.0)
    assert [sentence.split(":")[0] for sentence in nevus] == ["Asymmetry", "Border", "Colour", "Diameter"]
    assert "nearly symmetric" in nevus[0]
    assert "smooth" in nevus[1]
    assert "light brown" in nevus[2]
    assert "mm" in nevus[3]
    melanoma = describe(measured("melanoma-like"), 0.0)
    assert "somewhat asymmetric" in melanoma[0]
    assert "colours" in melanoma[2]
    assert "millimetres are unknown" in melanoma[3]
    assert all(sentence.endswith(".") for sentence in (*nevus, *melanoma))


def test_the_edge_of_the_frame_is_mentioned():
    assert "lower bound" in describe(measured("nevus"), 0.2)[-1]


def test_without_a_lesion():
    assert describe(None, 0.0) == ("No lesion could be outlined, so shape and colour were not measured.",)


def test_a_ruler_and_hair_are_said():
    lesion = measured("nevus")
    ruler = Ruler(33.1, 0.0004, 3.31, 0.1, 101, ((0.0, 0.0), (0.0, 334.0)))
    from_ruler = dataclasses.replace(lesion, scale_source=ScaleSource.RULER)
    said = describe(from_ruler, 0.0, hair=0.07, ruler=ruler)
    assert any("101 marks of a ruler" in line and "33.1 pixels per millimetre" in line for line in said)
    assert any("cover 7 %" in line for line in said)
    plain = describe(lesion, 0.0, hair=0.01, ruler=ruler)
    assert not any("ruler" in line or "Hair" in line for line in plain)
