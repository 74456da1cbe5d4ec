import io

import cv2
import numpy as np
import pytest

from dermoscopy.domain import Reason
from dermoscopy.errors import Misconfigured
from dermoscopy.phantoms import KINDS, phantom
from models.measure import largest_region
from models.quality import (
    DEFAULTS,
    EmbeddingReferenceStatistics,
    assess_hair,
    assess_image,
    assess_lesion,
    assess_novelty,
    assess_outline,
    limits,
)

LIMITS = limits({})
RANDOM = np.random.default_rng(0)


def document():
    page = np.full((800, 600, 3), 255, np.uint8)
    for y in range(30, 780, 24):
        cv2.putText(
            page, "Histopathology report: compound naevus", (20, y), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (20, 20, 20), 1
        )
    return page


def monochrome():
    grey = phantom(1).pixels.mean(axis=2).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


NOT_DERMOSCOPY = {
    "black": np.zeros((450, 600, 3), np.uint8),
    "nearly black": RANDOM.integers(0, 12, (450, 600, 3), dtype=np.uint8),
    "white": np.full((450, 600, 3), 255, np.uint8),
    "one colour": np.full((450, 600, 3), (200, 150, 130), np.uint8),
    "colour noise": RANDOM.integers(0, 256, (450, 600, 3), dtype=np.uint8),
    "fine noise": RANDOM.integers(0, 256, (2400, 3000, 3), dtype=np.uint8),
    "grey noise": np.repeat(RANDOM.integers(0, 256, (450, 600, 1), dtype=np.uint8), 3, axis=2),
    "document": document(),
    "monochrome": monochrome(),
    "thumbnail": phantom(1, rows=64, columns=80).pixels,
}


@pytest.mark.parametrize("name", list(NOT_DERMOSCOPY))
def test_what_is_no_dermoscopic_photograph_is_a_fault(name):
    found = assess_image(NOT_DERMOSCOPY[name], LIMITS)
    assert found.faults
    assert not found.quality.usable
    assert found.quality.reasons[: len(found.faults)] == tuple(fault.words for fault in found.faults)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(450, 600), (900, 1200), (224, 224)])
def test_ordinary_images_pass(kind, size):
    for seed, hairs in ((1, 0), (7, 12)):
        made = phantom(seed, kind=kind, rows=size[0], columns=size[1], hairs=hairs)
        assert assess_image(made.pixels, LIMITS).quality.usable


def test_poor_photographs_are_doubted_not_faulted():
    skin = phantom(3, kind="nevus").pixels
    poor = {
        "the image is blurred": cv2.GaussianBlur(skin, (0, 0), 40),
        "the image is underexposed": (skin * 0.2).astype(np.uint8),
        "glare covers much of the image": np.where(np.arange(600)[None, :, None] < 240, 255, skin).astype(np.uint8),
        "the image is overexposed": np.clip(skin * 0.2 + 218, 0, 255).astype(np.uint8),
    }
    poor["the image is underexposed"][:, :40] = 90  # a lit edge: not a black frame
    for reason, pixels in poor.items():
        found = assess_image(pixels, LIMITS)
        assert found.faults == (), reason
        assert reason in [doubt.words for doubt in found.doubts]


def test_a_dark_vignette_is_no_fault():
    skin = phantom(3, kind="nevus").pixels.copy()
    y, x = np.mgrid[0:450, 0:600]
    skin[np.hypot(y - 225, x - 300) > 200] = 0
    assert assess_image(skin, LIMITS).quality.usable


def region_of(mask):
    return largest_region(mask)


def test_how_the_lesion_sits_in_the_frame():
    y, x = np.mgrid[0:200, 0:300]
    centred = np.hypot(y - 100, x - 150) < 60
    corner = np.hypot(y, x) < 80
    touching = np.hypot(y - 100, x - 40) < 60
    assert assess_lesion(region_of(centred), 200, 300, LIMITS).doubts == ()
    assert assess_lesion(region_of(touching), 200, 300, LIMITS).doubts == ()
    assert assess_lesion(None, 200, 300, LIMITS).doubts == (Reason("no_lesion", "no lesion found"),)
    strip = np.zeros((200, 300), dtype=bool)
    strip[:60] = True
    assert "cut off" in assess_lesion(region_of(strip), 200, 300, LIMITS).doubts[0].words
    whole = np.ones((200, 300), dtype=bool)
    assert "fills the frame" in assess_lesion(region_of(whole), 200, 300, LIMITS).doubts[0].words
    assert assess_lesion(region_of(corner), 200, 300, LIMITS).scores["frame_contact"] > 0.4


def test_limits_can_be_set_by_name_only():
    assert limits({"glare_max": 0.1})["glare_max"] == 0.1
    assert set(limits({})) == set(DEFAULTS)
    with pytest.raises(Misconfigured, match="glare_maks"):
        limits({"glare_maks": 0.1})


def statistics(d=5, k=3):
    random = np.random.default_rng(1)
    return {
        "mean": random.normal(size=d),
        "components": np.linalg.qr(random.normal(size=(d, k)))[0].T,
        "class_means": random.normal(size=(4, k)),
        "precision": np.eye(k) * 2.0,
    }


def packed(arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_distance_is_mahalanobis_to_the_nearest_class():
    arrays = statistics()
    reference = EmbeddingReferenceStatistics.load(packed(arrays))
    here = arrays["mean"] + arrays["components"].T @ arrays["class_means"][2]
    assert reference.distance(here.astype(np.float32)) == pytest.approx(0.0, abs=1e-5)
    step = arrays["components"].T @ np.array([0.01, 0.0, 0.0])
    assert reference.distance((here + step).astype(np.float64)) == pytest.approx(0.01 * np.sqrt(2.0), rel=1e-6)


def test_more_arrays_may_stand_beside():
    EmbeddingReferenceStatistics.load(packed({**statistics(), "quantiles": np.zeros(3)}))


@pytest.mark.parametrize(
    "change",
    [lambda a: a.pop("precision"), lambda a: a.update(mean=np.zeros(4)), lambda a: a.update(mean=np.array([None]))],
)
def test_a_wrong_reference_is_misconfigured(change):
    arrays = statistics()
    change(arrays)
    with pytest.raises(Misconfigured, match="embedding reference"):
        EmbeddingReferenceStatistics.load(packed(arrays))
    with pytest.raises(Misconfigured, match="embedding reference"):
        EmbeddingReferenceStatistics.load(b"junk")


def test_novelty_has_a_wide_margin():
    assert assess_novelty(9.0, 10.0, LIMITS).doubts == ()
    assert assess_novelty(14.9, 10.0, LIMITS).doubts == ()
    [doubt] = assess_novelty(15.1, 10.0, LIMITS).doubts
    assert doubt == Reason("unlike_training", "the image is unlike everything the model was trained on")


def with_novelty():
    random = np.random.default_rng(2)
    leading = np.linalg.qr(random.normal(size=(5, 2)))[0].T
    return {**statistics(), "leading": leading, "scaling": np.array([[0.0, 2.0], [-1.0, 4.0]])}


def test_residual_is_what_lies_outside_the_leading_directions():
    arrays = with_novelty()
    reference = EmbeddingReferenceStatistics.load(packed({**arrays, "mean": np.zeros(5)}))
    assert reference.residual(arrays["leading"][0]) == pytest.approx(0.0, abs=1e-9)
    across = np.linalg.svd(arrays["leading"])[2][-1]
    assert reference.residual(across) == pytest.approx(1.0)


def test_novelty_joins_distance_and_residual_on_one_scale():
    reference = EmbeddingReferenceStatistics.load(packed(with_novelty()))
    embedding = np.array([3.0, -1.0, 2.0, 0.5, 1.0])
    expected = (np.log(reference.distance(embedding)) - 0.0) / 2.0 + (np.log(reference.residual(embedding)) + 1.0) / 4.0
    assert reference.novelty(embedding) == pytest.approx(expected)


def test_an_older_reference_has_no_novelty_but_its_distance():
    reference = EmbeddingReferenceStatistics.load(packed(statistics()))
    assert reference.novelty(np.zeros(5)) is None
    with pytest.raises(Misconfigured, match="leading"):
        reference.residual(np.zeros(5))
    with pytest.raises(Misconfigured, match="embedding reference"):
        EmbeddingReferenceStatistics.load(packed({**statistics(), "leading": np.zeros((2, 4))}))


def test_novelty_decides_where_there_is_one():
    assert assess_novelty(30.0, 10.0, LIMITS, 0.9).doubts == ()
    found = assess_novelty(1.0, 10.0, LIMITS, 1.1)
    assert [doubt.code for doubt in found.doubts] == ["unlike_training"]
    assert found.scores["novelty"] == 1.1


def test_an_outline_without_a_sure_middle_is_doubted():
    logits = np.full((64, 64), -6.0, np.float32)
    logits[20:40, 20:40] = 0.4
    assert [doubt.code for doubt in assess_outline(logits, LIMITS).doubts] == ["no_lesion"]
    logits[25:35, 25:35] = 8.0
    found = assess_outline(logits, LIMITS)
    assert found.doubts == ()
    assert found.scores["outline_certainty"] > 0.99


def test_hair_is_recorded_and_no_reason():
    hair = np.zeros((100, 100), bool)
    hair[:40] = True
    found = assess_hair(hair)
    assert found.scores["hair"] == 0.4
    assert found.quality.usable
