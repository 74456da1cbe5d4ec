import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dermoscopy.domain import LesionClass
from models.manifest import DirichletCalibration, TemperatureCalibration, VectorCalibration
from models.uncertainty import LOWEST_CONFIDENCE, Rule, doubts, probabilities

logits = arrays(np.float32, 7, elements=st.floats(-200, 200, width=32))
CLASSES = tuple(LesionClass)
NAMES = tuple(LesionClass)


def of_classes(*values):
    return dict(zip(CLASSES, values, strict=True))


def temperature(value):
    return TemperatureCalibration(method="temperature", temperature=value, fold="calibration")


def vector(scale, bias):
    return VectorCalibration(method="vector", scale=of_classes(*scale), bias=of_classes(*bias), fold="calibration")


def dirichlet(weights, bias):
    rows = of_classes(*(of_classes(*row) for row in weights))
    return DirichletCalibration(method="dirichlet", weights=rows, bias=of_classes(*bias), fold="calibration")


RANDOM = np.random.default_rng(5)
SCALE, BIAS = RANDOM.uniform(0.5, 1.5, 7), RANDOM.normal(size=7)
MATRIX = np.eye(7) + RANDOM.normal(0, 0.2, (7, 7))
METHODS = {"temperature": temperature(1.3), "vector": vector(SCALE, BIAS), "dirichlet": dirichlet(MATRIX, BIAS)}


def predict(values, calibration=METHODS["temperature"], **options):
    return Rule(CLASSES[: len(values)], calibration, **options).predict(np.asarray(values, np.float32))


def first_version(values, temperature):
    """As lesionnet-lite0 1.0.0 was served: what was answered then must be answered again, to the bit."""
    raw = np.asarray(values, dtype=np.float64)
    shifted = np.exp((raw - raw.max()) / temperature)
    return shifted / shifted.sum()


@given(logits, st.floats(0.05, 20))
def test_temperature_answers_as_it_always_did(values, degrees):
    found = predict(values, temperature(degrees))
    assert found.probabilities.tobytes() == first_version(values, degrees).tobytes()
    assert found.best == found.called == values.argmax()
    assert found.kept == ()


@pytest.mark.parametrize("method", METHODS)
@given(values=logits)
def test_a_distribution_whatever_the_logits(method, values):
    found = predict(values, METHODS[method])
    assert found.probabilities.sum() == pytest.approx(1.0)
    assert (found.probabilities >= 0).all()
    assert found.probabilities[found.best] == found.confidence == found.probabilities.max()
    assert 0 <= found.margin <= found.confidence
    assert -1e-12 <= found.entropy <= 1 + 1e-12


@pytest.mark.parametrize("method", METHODS)
@given(values=logits, shift=st.floats(-50, 50))
def test_only_differences_count(method, values, shift):
    before = probabilities(values, METHODS[method], CLASSES)
    after = probabilities(values.astype(np.float64) + shift, METHODS[method], CLASSES)
    np.testing.assert_allclose(before, after, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_an_image_gets_the_same_bits_alone_and_among_others(method):
    many = RANDOM.normal(0, 3, (50, 7)).astype(np.float32)
    together = probabilities(many, METHODS[method], CLASSES)
    for row, found in zip(many, together, strict=True):
        assert predict(row, METHODS[method]).probabilities.tobytes() == found.tobytes()


def test_known_values():
    found = predict([0, 0, 0, 0, 0, 0, 0], temperature(2.0))
    np.testing.assert_allclose(found.probabilities, 1 / 7)
    assert found.entropy == pytest.approx(1.0)
    assert found.margin == 0.0
    two = predict([np.log(3), 0], temperature(1.0))
    np.testing.assert_allclose(two.probabilities, [0.75, 0.25], atol=1e-7)


def test_known_values_of_a_vector_and_of_a_matrix():
    """From p = (1/2, 1/4, …): scale 2 squares, a bias multiplies, a matrix row mixes logarithms."""
    values = np.log([8, 4, 1, 1, 1, 0.5, 0.5]).astype(np.float32)
    p = np.exp(values) / np.exp(values).sum()
    scaled = p**2 * np.array([1, 3, 1, 1, 1, 1, 1])
    bias = np.log([1, 3, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(predict(values, vector([2] * 7, bias)).probabilities, scaled / scaled.sum(), rtol=1e-6)
    weights = np.eye(7)
    weights[0, 1] = 0.5
    mixed = p * np.array([p[1] ** 0.5, 1, 1, 1, 1, 1, 1])
    found = predict(values, dirichlet(weights, [0] * 7)).probabilities
    np.testing.assert_allclose(found, mixed / mixed.sum(), rtol=1e-6)


def test_a_diagonal_matrix_is_a_vector():
    values = RANDOM.normal(0, 3, 7).astype(np.float32)
    one = predict(values, vector(SCALE, BIAS)).probabilities
    np.testing.assert_allclose(one, predict(values, dirichlet(np.diag(SCALE), BIAS)).probabilities, rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_extreme_logits_stay_finite(method):
    found = predict([3e38, -3e38, 0, 0, 0, 0, 0], METHODS[method])
    assert np.isfinite(found.probabilities).all()
    assert np.isfinite(found.entropy)
    plain = predict([3e38, -3e38, 0, 0, 0, 0, 0], temperature(0.5))
    assert plain.probabilities[0] == 1.0
    assert plain.entropy == 0.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(method, bad):
    with pytest.raises(ValueError, match="not finite"):
        predict([bad, 0, 0, 0, 0, 0, 0], METHODS[method])


def test_weights_change_what_is_called_and_nothing_else():
    values = np.log([0.02, 0.02, 0.02, 0.02, 0.30, 0.60, 0.02])
    weights = np.array([1, 1, 1, 1, 2.5, 1, 1])
    plain, weighted = predict(values, temperature(1.0)), predict(values, temperature(1.0), weights=weights)
    assert CLASSES[plain.called] == "nv"
    assert CLASSES[weighted.called] == "mel"
    assert CLASSES[weighted.best] == "nv"
    assert weighted.probabilities.tobytes() == plain.probabilities.tobytes()
    assert weighted.confidence == plain.confidence
    even = predict(values, temperature(1.0), weights=np.full(7, 3.0))
    assert even.called == plain.called


def test_the_set_holds_what_reaches_its_own_threshold_most_probable_first():
    values = np.log([0.02, 0.02, 0.20, 0.02, 0.30, 0.42, 0.02])
    thresholds = np.array([0.01, 0.5, 0.3, 0.5, 0.25, 0.9, 0.5])
    found = predict(values, temperature(1.0), thresholds=thresholds)
    assert [CLASSES[k] for k in found.kept] == ["nv", "mel", "akiec"], "nv because it is called, though 0.42 < 0.9"
    lonely = predict(values, temperature(1.0), thresholds=np.ones(7))
    assert lonely.kept == (lonely.called,), "no class reaches its threshold: the called one stands alone"


@given(logits, arrays(np.float64, 7, elements=st.floats(0, 1)), arrays(np.float64, 7, elements=st.floats(0.1, 20)))
def test_the_called_class_is_never_outside_the_set(values, thresholds, weights):
    found = predict(values, METHODS["vector"], thresholds=thresholds, weights=weights)
    assert found.called in found.kept
    assert len(set(found.kept)) == len(found.kept)


def test_doubt_only_below_the_limit():
    sure, unsure = predict([4, 0, 0, 0, 0, 0, 0]), predict([0.5, 0.4, 0, 0, 0, 0, 0])
    assert doubts(sure, LOWEST_CONFIDENCE, 0, NAMES) == ()
    [reason] = doubts(unsure, LOWEST_CONFIDENCE, 0, NAMES)
    assert reason.code == "low_confidence"
    assert "no class is likely enough" in reason.words
    assert f"{100 * LOWEST_CONFIDENCE:.0f} %" in reason.words
    assert doubts(unsure, unsure.confidence, 0, NAMES) == ()


def test_doubt_when_too_many_classes_are_left():
    found = predict(np.log([0.02, 0.02, 0.20, 0.02, 0.30, 0.42, 0.02]), temperature(1.0), thresholds=np.full(7, 0.1))
    assert doubts(found, 0.35, 3, NAMES) == ()
    [reason] = doubts(found, 0.35, 2, NAMES)
    assert reason.code == "ambiguous"
    assert "nv, mel, bkl" in reason.words


def test_the_record_names_every_parameter():
    assert Rule(CLASSES, temperature(1.2)).record() == {
        "method": "temperature", "temperature": 1.2, "fold": "calibration",
    }  # fmt: skip
    record = Rule(CLASSES, METHODS["vector"]).record()
    assert record["scale.mel"] == SCALE[4]
    assert record["bias.vasc"] == BIAS[6]
    assert len(record) == 2 + 14
    record = Rule(CLASSES, METHODS["dirichlet"]).record()
    assert record["weight.akiec.mel"] == MATRIX[0, 4]
    assert len(record) == 2 + 49 + 7
