import dataclasses
import hashlib
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dermoscopy.domain import MALIGNANT, DermoscopicImage, LesionClass, TriageTier
from dermoscopy.errors import AnalysisFailed, Misconfigured, ModelServerBusy, WeightsMismatch
from dermoscopy.ports import Algorithm
from models.analyze import LesionAlgorithm
from models.session import NetworkOutput


@pytest.fixture
def algorithm(build_package, open_session):
    def build(**options):
        package = build_package(**options)
        return LesionAlgorithm(package, open_session(package), code_version="test-1")

    return build


def bias(label, strength=6.0):
    return [strength if each == label else 0.0 for each in LesionClass]


def test_it_is_an_algorithm(algorithm):
    built: Algorithm = algorithm()
    assert built.reference.name == "tiny"


@pytest.mark.parametrize("kind", ["nevus", "melanoma-like", "keratosis", "vascular"])
def test_a_finding_is_whole_and_agrees_with_itself(algorithm, draw, kind):
    image, made = draw(kind, spacing_mm=(0.02, 0.02), vignette=False)
    found = algorithm().analyze(image)
    assert sum(one.probability for one in found.classes) == pytest.approx(1.0)
    assert [one.label for one in found.classes] == list(LesionClass)
    by_class = {one.label: one.probability for one in found.classes}
    assert found.melanoma_risk == by_class[LesionClass.MEL]
    assert found.malignancy_risk == pytest.approx(sum(by_class[label] for label in MALIGNANT))
    assert found.confidence == max(by_class.values())
    assert found.abstention is None
    assert found.primary == max(by_class, key=by_class.get)
    assert found.quality.usable
    assert found.mask.shape == found.heatmap.shape == made.mask.shape
    assert found.mask.dtype == bool
    assert found.heatmap.dtype == np.float32
    assert 0.0 <= found.heatmap.min() <= found.heatmap.max() <= 1.0
    overlap = (found.mask & made.mask).sum() / (found.mask | made.mask).sum()
    assert overlap > 0.75
    assert found.measurements.area_px == found.mask.sum()
    assert found.measurements.area_mm2 == pytest.approx(found.mask.sum() * 0.0004)
    assert found.explanation
    assert found.triage.reason


def test_the_record_can_be_checked(algorithm, draw):
    image, _ = draw()
    found = algorithm().analyze(image)
    record = found.inference
    assert record.mask_digest == hashlib.sha256(np.packbits(found.mask).tobytes()).hexdigest()
    assert record.heatmap_digest == hashlib.sha256(found.heatmap.tobytes()).hexdigest()
    assert record.code_version == "test-1"
    assert record.execution_provider == "CPUExecutionProvider"
    assert record.calibration == {"method": "temperature", "temperature": 1.2, "fold": "calibration"}
    assert record.thresholds["melanoma"] == 0.4
    assert record.thresholds["quality.glare_max"] == 0.3
    steps = "quality hair scale preprocess inference calibrate outline novelty measure explain triage digest"
    assert list(record.milliseconds) == steps.split()
    assert all(value >= 0 for value in record.milliseconds.values())


def same(one, other):
    """Equal but for the time it took, bit for bit."""
    for field in dataclasses.fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype
            assert left.tobytes() == right.tobytes(), field.name
        elif field.name == "inference":
            assert dataclasses.replace(left, milliseconds={}) == dataclasses.replace(right, milliseconds={})
        else:
            assert left == right, field.name


def test_same_image_same_bits_in_any_thread(algorithm, draw):
    images = [draw("melanoma-like", seed)[0] for seed in range(3)]
    first = algorithm()
    expected = [first.analyze(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(first.analyze, images * 4))
    for index, found in enumerate(again):
        same(found, expected[index % 3])
    same(algorithm().analyze(images[0]), expected[0])


def bare_skin(draw):
    """Lesion-free skin, light enough for the tiny network to find nothing."""
    image, _ = draw("empty", seed=2, vignette=False)
    return dataclasses.replace(image, pixels=(image.pixels * 0.7 + 76).astype(np.uint8))


def test_no_lesion_is_an_abstention(algorithm, draw):
    image = bare_skin(draw)
    found = algorithm(bias=bias("nv")).analyze(image)
    assert found.measurements is None
    assert found.primary is None
    assert found.abstention == "no lesion found"
    assert [reason.code for reason in found.abstention_reasons] == ["no_lesion"]
    assert found.triage.tier == TriageTier.UNDETERMINED
    assert not found.mask.any()
    assert not found.quality.usable
    assert len(found.classes) == 7
    assert sum(one.probability for one in found.classes) == pytest.approx(1.0)


def test_a_melanoma_warning_stands_without_a_lesion(algorithm, draw):
    image = bare_skin(draw)
    found = algorithm(bias=bias("mel")).analyze(image)
    assert found.primary is None
    assert found.triage.tier == TriageTier.URGENT


def test_a_black_frame_gets_no_opinion_even_if_the_network_has_one(algorithm):
    image = DermoscopicImage(np.zeros((450, 600, 3), np.uint8), "")
    found = algorithm(bias=bias("mel", 20.0)).analyze(image)
    assert found.melanoma_risk > 0.9
    assert found.triage.tier == TriageTier.UNDETERMINED
    assert found.primary is None
    assert "black" in found.abstention


def test_the_map_shows_melanoma_when_melanoma_is_the_warning(algorithm, draw):
    def low_point(manifest):
        manifest["thresholds"]["melanoma"]["probability"] = 0.02

    image, _ = draw("nevus")
    usual = algorithm(bias=bias("nv", 3.0)).analyze(image)
    warned = algorithm(bias=bias("nv", 3.0), change=low_point).analyze(image)
    assert usual.primary == warned.primary == LesionClass.NV
    assert warned.triage.tier == TriageTier.URGENT
    assert usual.inference.heatmap_digest != warned.inference.heatmap_digest


def test_not_knowing_is_said(algorithm, draw):
    def strict(manifest):
        manifest["thresholds"]["confidence"]["probability"] = 0.99

    image, _ = draw("nevus")
    found = algorithm(change=strict).analyze(image)
    assert found.primary is None
    assert "no class is likely enough" in found.abstention
    assert found.quality.usable


SEVEN = tuple(label.value for label in LesionClass)


def weighted(label, weight):
    def change(manifest):
        manifest["decision"] = {"weights": {**dict.fromkeys(SEVEN, 1.0), label: weight}}

    return change


def test_weights_change_the_called_class_and_every_part_says_so(algorithm, draw):
    image, _ = draw("nevus")
    plain = algorithm(bias=bias("nv", 3.0)).analyze(image)
    found = algorithm(bias=bias("nv", 3.0), change=weighted("mel", 1000.0)).analyze(image)
    assert plain.primary == plain.most_probable == found.most_probable == LesionClass.NV
    assert found.primary == LesionClass.MEL
    assert found.classes == plain.classes
    assert found.confidence == {one.label: one.probability for one in found.classes}[LesionClass.MEL]
    assert plain.decision_note == ""
    assert "Called melanoma" in found.decision_note
    assert "1000.0 times the weight" in found.decision_note
    assert found.inference.thresholds["decision.mel"] == 1000.0
    assert found.melanoma_risk < 0.4
    assert found.triage.tier == TriageTier.EXPEDITED
    assert found.inference.heatmap_digest != plain.inference.heatmap_digest, "the map is of the class that is called"


def with_sets(threshold, largest):
    def change(manifest):
        manifest["prediction_sets"] = {
            "method": "mondrian-lac",
            "alpha": 0.1,
            "thresholds": dict.fromkeys(SEVEN, threshold),
            "largest_set": largest,
        }

    return change


def test_the_set_stands_in_the_finding_and_its_thresholds_in_the_record(algorithm, draw):
    image, _ = draw("nevus")
    found = algorithm(bias=bias("nv", 3.0), change=with_sets(0.02, 7)).analyze(image)
    ordered = sorted(found.classes, key=lambda one: -one.probability)
    assert found.prediction_set == tuple(one.label for one in ordered if one.probability >= 0.02)
    assert found.prediction_set[0] == found.primary == LesionClass.NV
    assert found.inference.thresholds["set.alpha"] == 0.1
    assert found.inference.thresholds["set.mel"] == 0.02


def test_a_set_that_is_too_large_is_an_abstention(algorithm, draw):
    image, _ = draw("nevus")
    found = algorithm(change=with_sets(0.0, 6)).analyze(image)
    assert [reason.code for reason in found.abstention_reasons] == ["ambiguous"]
    assert found.primary is None
    assert found.decision_note == ""
    assert len(found.prediction_set) == 7
    assert "cannot be excluded" in found.abstention == found.abstention_reasons[0].words


def test_a_stranger_is_out_of_distribution(build_package, open_session, draw):
    import io

    buffer = io.BytesIO()
    np.savez(buffer, mean=np.full(8, 50.0), components=np.eye(8)[:3], class_means=np.zeros((7, 3)), precision=np.eye(3))
    data = buffer.getvalue()

    def refer(manifest):
        manifest["thresholds"]["embedding"] = {
            "file": "reference.npz",
            "sha256": hashlib.sha256(data).hexdigest(),
            "distance_p99": 2.0,
        }

    package = build_package(refer)
    with pytest.raises(WeightsMismatch):
        LesionAlgorithm(package, open_session(package), code_version="test")
    (package.folder / "reference.npz").write_bytes(data)
    image, _ = draw("nevus")
    found = LesionAlgorithm(package, open_session(package), code_version="test").analyze(image)
    assert "unlike everything" in found.abstention
    assert found.quality.scores["embedding_distance"] > 3.0
    assert found.inference.thresholds["embedding.distance_p99"] == 2.0


@pytest.mark.parametrize("shape", [(450, 600), (600, 450), (97, 1500), (1200, 1600), (256, 256)])
def test_any_shape_of_frame(algorithm, draw, shape):
    image, _ = draw("nevus", rows=shape[0], columns=shape[1])
    found = algorithm().analyze(image)
    assert found.mask.shape == found.heatmap.shape == shape


class Broken:
    """A session that fails as told."""

    execution_provider = "nowhere"
    precision = "float32"

    def __init__(self, outcome):
        self.outcome = outcome

    def run(self, image):
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def output(**changes):
    parts = {
        "mask_logits": np.zeros((1, 1, 64, 64), np.float32),
        "class_logits": np.zeros((1, 7), np.float32),
        "activation_map": np.zeros((1, 7, 8, 8), np.float32),
        "embedding": np.zeros((1, 8), np.float32),
    }
    return NetworkOutput(**{**parts, **changes})


@pytest.mark.parametrize(
    "outcome",
    [
        RuntimeError("out of memory"),
        OSError("connection reset"),
        output(mask_logits=np.zeros((1, 1, 32, 32), np.float32)),
        output(class_logits=np.zeros((1, 6), np.float32)),
        output(class_logits=np.full((1, 7), math.nan, np.float32)),
        output(mask_logits=np.full((1, 1, 64, 64), math.inf, np.float32)),
        output(activation_map=np.zeros((1, 7, 8), np.float32)),
        output(embedding=np.zeros((8,), np.float32)),
    ],
)
def test_what_breaks_in_the_session_is_analysis_failed(build_package, draw, outcome):
    algorithm = LesionAlgorithm(build_package(), Broken(outcome), code_version="test")
    with pytest.raises(AnalysisFailed) as caught:
        algorithm.analyze(draw()[0])
    if isinstance(outcome, Exception):
        assert caught.value.__cause__ is outcome
        assert "inference" in str(caught.value)


def test_a_busy_server_stays_busy(build_package, draw):
    algorithm = LesionAlgorithm(build_package(), Broken(ModelServerBusy("later", retry_after=2.0)), code_version="test")
    with pytest.raises(ModelServerBusy) as caught:
        algorithm.analyze(draw()[0])
    assert caught.value.retry_after == 2.0


def test_a_wrong_quality_limit_stops_at_the_start(build_package, open_session):
    def typo(manifest):
        manifest["thresholds"]["quality"] = {"glare_maxx": 0.2}

    package = build_package(typo)
    with pytest.raises(Misconfigured, match="glare_maxx"):
        LesionAlgorithm(package, open_session(package), code_version="test")


def test_oblong_pixels_give_a_mask_on_the_source_and_no_ruler(algorithm, draw):
    image, made = draw("nevus", vignette=False)
    squeezed = np.ascontiguousarray(image.pixels[0::2])
    found = algorithm().analyze(DermoscopicImage(squeezed, "x", aspect=2.0))
    truth = made.mask[0::2]
    assert found.mask.shape == truth.shape
    assert (found.mask & truth).sum() / (found.mask | truth).sum() > 0.75
    whole = algorithm().analyze(image)
    assert found.measurements.eccentricity == pytest.approx(whole.measurements.eccentricity, abs=0.15)
    assert found.measurements.area_mm2 is None
