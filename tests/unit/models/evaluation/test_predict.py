import numpy as np
import pytest

from dermoscopy.errors import UnreadableObject
from dermoscopy.phantoms import phantom
from models.evaluation.dataset import Case, case_of
from models.evaluation.predict import BATCH, Predictor


@pytest.fixture
def predictor(build_package):
    return Predictor(build_package(), threads=1)


@pytest.fixture(scope="module")
def cases():
    return [
        case_of(f"p{seed}", made.pixels, made.mask, "nv") for seed in range(3) for made in [phantom(seed, kind="nevus")]
    ]


def unreadable(identity="broken"):
    def pixels():
        raise UnreadableObject(f"{identity}: truncated")

    return Case(identity, pixels, lambda: None, "nv", identity)


def test_answers_come_in_the_order_given_and_as_the_service_gives_them(predictor, cases):
    many = cases * (BATCH // 3 + 2)

    answers = predictor.answers(many)

    assert answers.ids == tuple(case.id for case in many)
    assert answers.logits.shape == answers.probability.shape == (len(many), 7)
    assert answers.embedding.shape[0] == len(many)
    for row, case in enumerate(cases):
        finding = predictor.analyze(case.pixels())
        assert np.allclose(answers.probability[row], [one.probability for one in finding.classes], atol=1e-9)
        overlap = (finding.mask & case.mask()).sum() / (finding.mask | case.mask()).sum()
        assert answers.jaccard[row] == pytest.approx(overlap)


def test_an_outline_is_judged_only_where_the_mask_reaches(predictor, cases):
    pixels, mask = cases[0].pixels(), cases[0].mask()
    half = pixels.shape[1] // 2
    cut = Case("half", lambda: pixels, lambda: mask[:, :half], "nv", "half", {}, (0, 0, pixels.shape[0], half))
    drawn = predictor.analyze(pixels).mask[:, :half]

    answers = predictor.answers([cut])

    assert answers.jaccard[0] == pytest.approx((drawn & mask[:, :half]).sum() / (drawn | mask[:, :half]).sum())


def test_no_mask_is_no_overlap(predictor, cases):
    assert np.isnan(predictor.answers([case_of("a", cases[0].pixels())]).jaccard).all()


def test_an_unreadable_image_stops_it_unless_someone_takes_it(predictor, cases):
    mixed = [cases[0], unreadable(), cases[1]]

    with pytest.raises(UnreadableObject, match="broken: truncated"):
        predictor.answers(mixed)
    refused = []
    answers = predictor.answers(mixed, bad=lambda case, error: refused.append((case.id, str(error))))

    assert answers.ids == (cases[0].id, cases[1].id)
    assert refused == [("broken", "broken: truncated")]


def test_a_mask_of_another_size_is_named(predictor, cases):
    wrong = case_of("odd", cases[0].pixels(), np.zeros((10, 12), bool))

    with pytest.raises(UnreadableObject, match="odd: its mask has 12 × 10 pixels"):
        predictor.answers([wrong])


def test_nothing_in_nothing_out(predictor):
    answers = predictor.answers([])

    assert answers.ids == () and answers.probability.shape == (0, 7)


def test_probabilities_are_calibrated_as_the_manifest_says(build_package, cases):
    hot = Predictor(build_package(lambda m: m["calibration"].update(temperature=5.0), version="2.0.0"), threads=1)

    answers = hot.answers(cases[:1])

    expected = np.exp(answers.logits[0].astype(float) / 5.0)
    assert np.allclose(answers.probability[0], expected / expected.sum())
