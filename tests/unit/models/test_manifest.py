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
