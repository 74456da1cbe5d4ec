import numpy as np
import pytest

from models.quality import EmbeddingReferenceStatistics
from models.training.embedding import FALSE_ALARMS, fit_reference, scaled, write_reference


def embeddings(count, seed, shift=0.0):
    random = np.random.default_rng(seed)
    basis = np.random.default_rng(0).normal(size=(6, 40))
    values = random.normal(size=(count, 6)) @ basis + 0.1 * random.normal(size=(count, 40))
    return (values + shift * np.random.default_rng(9).normal(size=40)).astype(np.float32)


@pytest.fixture
def reference():
    target = np.arange(400) % 8  # an eighth group: images without a diagnosis
    return fit_reference(embeddings(400, 1), target, skipped=2, dimensions=10)


def test_novelty_is_one_where_few_known_images_lie_beyond(reference):
    known = embeddings(1000, 2)
    found = scaled(reference, known)
    novelty = np.array([found.novelty(row) for row in known])
    assert np.mean(novelty > 1.0) == pytest.approx(FALSE_ALARMS, abs=0.001)
    strange = np.array([found.novelty(row) for row in embeddings(50, 3, shift=3.0)])
    assert np.mean(strange > 1.0) > 0.95


def test_no_collection_has_more_false_alarms_than_another_would(reference):
    known = np.concatenate([embeddings(1000, 2), embeddings(200, 4, shift=0.3)])
    sources = np.array(["one"] * 1000 + ["other"] * 200)
    found = scaled(reference, known, sources)
    novelty = np.array([found.novelty(row) for row in known])
    assert all(np.mean(novelty[sources == name] > 1.0) <= FALSE_ALARMS + 0.001 for name in ("one", "other"))


def test_what_is_written_is_read_again(reference, tmp_path):
    known = embeddings(300, 2)
    write_reference(tmp_path / "reference.npz", reference, known)
    read = EmbeddingReferenceStatistics.load((tmp_path / "reference.npz").read_bytes())
    assert read.novelty(known[0]) == pytest.approx(scaled(reference, known).novelty(known[0]), rel=1e-3, abs=1e-3)
