import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from models.uncertainty import LOWEST_CONFIDENCE, doubt, predict

logits = arrays(np.float32, 7, elements=st.floats(-200, 200, width=32))


@given(logits, st.floats(0.05, 20))
def test_a_distribution_whatever_the_logits(values, temperature):
    found = predict(values, temperature)
    assert found.probabilities.sum() == pytest.approx(1.0)
    assert (found.probabilities >= 0).all()
    assert values[found.best] == values.max()
    assert found.confidence == found.probabilities.max()
    assert 0 <= found.margin <= found.confidence
    assert -1e-12 <= found.entropy <= 1 + 1e-12


@given(logits, st.floats(-50, 50))
def test_only_differences_count(values, shift):
    before = predict(values, 1.3).probabilities
    after = predict((values.astype(np.float64) + shift), 1.3).probabilities
    np.testing.assert_allclose(before, after, atol=1e-9)


def test_known_values():
    found = predict(np.array([0, 0, 0, 0, 0, 0, 0], np.float32), 2.0)
    np.testing.assert_allclose(found.probabilities, 1 / 7)
    assert found.entropy == pytest.approx(1.0)
    assert found.margin == 0.0
    two = predict(np.array([np.log(3), 0], np.float32), 1.0)
    np.testing.assert_allclose(two.probabilities, [0.75, 0.25], atol=1e-7)


def test_extreme_logits_stay_finite():
    found = predict(np.array([3e38, -3e38, 0, 0, 0, 0, 0], np.float32), 0.5)
    assert found.probabilities[0] == 1.0
    assert found.entropy == 0.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="not finite"):
        predict(np.array([bad, 0, 0], np.float32), 1.0)


def test_doubt_only_below_the_limit():
    sure = predict(np.array([4, 0, 0, 0, 0, 0, 0], np.float32), 1.0)
    unsure = predict(np.array([0.5, 0.4, 0, 0, 0, 0, 0], np.float32), 1.0)
    assert doubt(sure) is None
    assert "no class is likely enough" in doubt(unsure)
    assert f"{100 * LOWEST_CONFIDENCE:.0f} %" in doubt(unsure)
    assert doubt(unsure, unsure.confidence) is None
