import copy

import pytest
import yaml

from dermoscopy.errors import Misconfigured
from models.manifest import preprocessing_digest, read_manifest


def test_a_good_manifest_reads(manifest_document, save_manifest):
    manifest = read_manifest(save_manifest(manifest_document))
    assert manifest.letterbox.size == manifest.input.size
    assert manifest.thresholds.melanoma.fold == "validation"


def test_the_digest_is_of_canonical_json_and_survives_yaml(manifest_document):
    steps = manifest_document["preprocessing"]
    again = yaml.safe_load(yaml.safe_dump(steps))
    assert preprocessing_digest(again) == preprocessing_digest(steps)
    shuffled = [dict(reversed(step.items())) for step in steps]
    assert preprocessing_digest(shuffled) == preprocessing_digest(steps)
    assert preprocessing_digest(steps[::-1]) != preprocessing_digest(steps)


def put(path, value):
    def change(document):
        *parents, last = path.split(".")
        for name in parents:
            document = document[int(name)] if isinstance(document, list) else document[name]
        document[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (put("sha265", "0" * 64), ["sha265", "did you mean 'sha256'"]),
        (put("thresholds.melanom", {"probability": 0.3}), ["thresholds.melanom", "did you mean 'melanoma'"]),
        (put("calibration.temperature", 0.0), ["calibration.temperature"]),
        (put("calibration.temperature", float("nan")), ["calibration.temperature"]),
        (put("calibration.temperature", float("inf")), ["calibration.temperature"]),
        (put("thresholds.mask", 50), ["thresholds.mask"]),
        (put("sha256", "abc"), ["sha256"]),
        (put("file", "../../etc/passwd"), ["file", "plain file name"]),
        (put("classes", ["nv", "mel"]), ["classes", "alphabetical"]),
        (put("classes", ["bkl", "nv"]), ["classes", "melanoma"]),
        (put("input.layout", "NHWC"), ["input.layout"]),
        (put("input.size", 96), ["letterbox size 64"]),
        (put("preprocessing.0.size", 32), ["letterbox size 32"]),
        (put("preprocessing.1.factor", 0.5), ["preprocessing_digest", "edited after export"]),
        (put("preprocessing.1.step", "scael"), ["preprocessing.1"]),
        (put("schema", 2), ["schema"]),
    ],
)
def test_what_is_wrong_is_named_with_the_file(manifest_document, save_manifest, change, named):
    document = copy.deepcopy(manifest_document)
    change(document)
    path = save_manifest(document)
    with pytest.raises(Misconfigured) as caught:
        read_manifest(path)
    message = str(caught.value)
    assert str(path) in message
    for words in named:
        assert words in message


def test_every_required_field_is_named_when_absent(manifest_document, save_manifest):
    optional = {"metrics", "data", "training"}
    for field in set(manifest_document) - optional:
        document = {name: value for name, value in manifest_document.items() if name != field}
        with pytest.raises(Misconfigured, match=field):
            read_manifest(save_manifest(document))


SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
ONES = dict.fromkeys(SEVEN, 1.0)
VECTOR = {"method": "vector", "scale": ONES, "bias": dict.fromkeys(SEVEN, 0.0), "fold": "calibration"}
MATRIX = {
    "method": "dirichlet",
    "weights": dict.fromkeys(SEVEN, ONES),
    "bias": dict.fromkeys(SEVEN, 0.0),
    "fold": "calibration",
}
SETS = {"method": "mondrian-lac", "alpha": 0.1, "thresholds": dict.fromkeys(SEVEN, 0.1), "largest_set": 3}
SIX = {name: 1.0 for name in SEVEN if name != "vasc"}


def test_a_manifest_of_the_first_version_calls_the_most_probable_class(manifest_document, save_manifest):
    manifest = read_manifest(save_manifest(manifest_document))
    assert manifest.calibration.method == "temperature"
    assert manifest.decision is manifest.prediction_sets is None


@pytest.mark.parametrize("calibration", [VECTOR, MATRIX])
def test_every_calibration_reads_with_weights_and_sets(manifest_document, save_manifest, calibration):
    document = {**manifest_document, "calibration": {**calibration, "images": 685}, "prediction_sets": SETS}
    document["decision"] = {"weights": {**ONES, "mel": 2.9}, "exponent": 0.6}
    manifest = read_manifest(save_manifest(document))
    assert manifest.calibration.method == calibration["method"]
    assert manifest.decision.weights["mel"] == 2.9
    assert manifest.prediction_sets.largest_set == 3


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("calibration", {**VECTOR, "method": "platt"}, ["calibration", "platt"]),
        ("calibration", {**VECTOR, "scale": {**ONES, "mel": 0.0}}, ["calibration.vector.scale.mel"]),
        ("calibration", {**VECTOR, "scale": SIX}, ["calibration.scale must name every class", "vasc"]),
        ("calibration", {**MATRIX, "weights": {**MATRIX["weights"], "nv": SIX}}, ["calibration.weights.nv", "vasc"]),
        ("calibration", {**VECTOR, "bias": SIX}, ["calibration.bias"]),
        ("calibration", {**VECTOR, "frequencies": {"nv": 1.0}}, ["calibration.frequencies"]),
        ("decision", {"weights": {**ONES, "mel": -1.0}}, ["decision.weights.mel"]),
        ("decision", {"weights": SIX}, ["decision.weights", "vasc"]),
        ("decision", {"weights": {**ONES, "melanoma": 1.0}}, ["decision.weights.melanoma"]),
        ("prediction_sets", {**SETS, "alpha": 0.0}, ["prediction_sets.alpha"]),
        ("prediction_sets", {**SETS, "thresholds": SIX}, ["prediction_sets.thresholds", "vasc"]),
        ("prediction_sets", {**SETS, "largest_set": 0}, ["prediction_sets.largest_set"]),
        ("decisions", {"weights": ONES}, ["decisions", "did you mean 'decision'"]),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(manifest_document, save_manifest, place, value, named):
    with pytest.raises(Misconfigured) as caught:
        read_manifest(save_manifest({**manifest_document, place: value}))
    for words in named:
        assert words in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a list", "a: [", "\x00"])
def test_what_is_not_a_mapping_is_refused(tmp_path, text):
    path = tmp_path / "manifest.yaml"
    path.write_text(text)
    with pytest.raises(Misconfigured, match=r"manifest\.yaml"):
        read_manifest(path)


def test_letterbox_comes_first(manifest_document, save_manifest):
    steps = manifest_document["preprocessing"]
    document = {**manifest_document, "preprocessing": steps[::-1]}
    with pytest.raises(Misconfigured, match="must start with its one letterbox"):
        read_manifest(save_manifest(document))
