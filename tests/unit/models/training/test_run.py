"""A miniature run from tar files to a model package: trains, goes on after a kill, exports, and verifies."""

# ruff: noqa: E402 - the skip where torch is absent must come before what imports it
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is not installed: `make test` installs it where it can")
pytest.importorskip("efficientnet_lite_pytorch", reason="what training needs is not installed (requirements/train.txt)")

import models.training
from models.registry import open_package
from models.training import loop
from models.training.__main__ import main
from models.training.architectures import ARCHITECTURES, build_network
from models.training.architectures.contract import NetworkOutputs
from models.training.command import OtherRun, train
from models.training.configuration import Architecture, ConfigurationInvalid, load_configuration
from models.training.datasets import DataMissing
from models.training.export import ParityBroken, export, parity
from models.training.package import REFERENCE

pytestmark = pytest.mark.training


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tests run side by side: threads that wait for each other at every layer would make each of them slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(Architecture(name="efficientnet-lite0", pretrained=False, decoder_width=16)).eval()


@pytest.fixture
def interrupted(monkeypatch):
    """Kill the run while it validates its second epoch."""
    validate = loop.validate
    calls: list[None] = []

    def killing(*arguments):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return validate(*arguments)

    monkeypatch.setattr(loop, "validate", killing)


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(miniature, configuration_file, tmp_path, interrupted):
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    with pytest.raises(KeyboardInterrupt):
        train(configuration_file, miniature, broken)
    package = train(configuration_file, miniature, broken)
    assert "going on after epoch 1 of 2" in (broken / "miniature-0.0.1" / "train.log").read_text()

    train(configuration_file, miniature, whole)
    weights = [
        torch.load(folder / "miniature-0.0.1" / "checkpoints" / "last.pt", weights_only=True)["average"]
        for folder in (broken, whole)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    found = open_package(broken / "store", "miniature", "0.0.1")
    found.verify()
    manifest = yaml.safe_load((package / "manifest.yaml").read_text())
    assert manifest["thresholds"]["embedding"]["file"] == REFERENCE
    assert manifest["data"]["images"] == {"train": 14, "validation": 14, "calibration": 14, "test": 14}
    assert manifest["thresholds"]["melanoma"]["sensitivity"] >= 0.9
    metrics = json.loads((package / "evaluation" / "metrics.json").read_text())
    assert metrics["native"]["images"] == metrics["native_crops"]["images"] == 1
    assert len(json.loads((package / "evaluation" / "history.json").read_text())) == 2
    card = (package / "MODEL_CARD.md").read_text()
    assert manifest["sha256"] in card and f"{metrics['test']['balanced_accuracy']:.3f}" in card

    stamp = (package / "model.onnx").stat().st_size, manifest["sha256"]
    train(configuration_file, miniature, broken)
    again = yaml.safe_load((package / "manifest.yaml").read_text())
    assert ((package / "model.onnx").stat().st_size, again["sha256"]) == stamp


def test_other_settings_do_not_go_on_with_these_checkpoints(miniature, settings, configuration_file, tmp_path):
    run = tmp_path / "out" / "miniature-0.0.1"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"digest": "0" * 64, "code": "unknown", "settings": {"seed": 4}}))
    with pytest.raises(OtherRun, match="seed"):
        train(configuration_file, miniature, tmp_path / "out")


def test_a_version_in_the_store_keeps_its_weights(miniature, configuration_file, tmp_path):
    package = tmp_path / "store" / "miniature" / "0.0.1"
    package.mkdir(parents=True)
    (package / "manifest.yaml").write_text(yaml.safe_dump({"sha256": "0" * 64}))
    with pytest.raises(OtherRun, match="raise the configuration's version"):
        train(configuration_file, miniature, tmp_path / "out", store=tmp_path / "store")
    assert [entry.name for entry in package.iterdir()] == ["manifest.yaml"]


def test_missing_data_is_named(configuration_file, tmp_path):
    with pytest.raises(DataMissing, match=r"ham10000\.csv is missing"):
        train(configuration_file, tmp_path, tmp_path / "out")


def test_the_command_says_what_is_wrong_in_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["models.training", str(tmp_path / "absent.yaml")])
    assert main() == 2
    assert "absent.yaml" in capsys.readouterr().err


def test_the_file_answers_as_torch_does_for_any_batch(network, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    differences = export(network, 64, [0.0] * 7, path)
    assert set(differences) == set(NetworkOutputs._fields)
    assert parity(network, path, 64, images=5) == pytest.approx(differences, abs=1e-4)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    shapes = [answer.shape for answer in session.run(None, {"image": np.zeros((1, 3, 64, 64), np.float32)})]
    assert shapes == [(1, 1, 64, 64), (1, 7), (1, 7, 2, 2), (1, 1280)]
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_the_class_bias_is_baked_in_and_the_network_left_alone(network, tmp_path):
    bias = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    before = network.classifier.bias.detach().clone()
    export(network, 64, bias, tmp_path / "model.onnx")
    assert torch.equal(network.classifier.bias, before)
    assert parity(network, tmp_path / "model.onnx", 64)["class_logits"] == pytest.approx(6.0, abs=1e-3)


def test_a_file_that_answers_otherwise_is_not_kept(network, tmp_path, monkeypatch):
    monkeypatch.setattr("models.training.export.parity", lambda *_: {"class_logits": 0.5})
    with pytest.raises(ParityBroken, match=r"0\.5"):
        export(network, 64, [0.0] * 7, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_shipped_configurations_name_an_architecture_that_there_is():
    for path in (Path(models.training.__file__).parent / "configs").glob("*.yaml"):
        assert load_configuration(path).architecture.name in ARCHITECTURES


def test_an_unknown_architecture_lists_those_there_are():
    with pytest.raises(ConfigurationInvalid, match="no architecture 'lite9'; there is: efficientnet-lite0"):
        build_network(Architecture(name="lite9"))


def test_folding_the_norms_leaves_the_encoder_as_it_was():
    from efficientnet_lite_pytorch import EfficientNet

    from models.training.architectures.efficientnet_lite import LesionNetLite

    torch.manual_seed(0)
    encoder = EfficientNet.from_name("efficientnet-lite0").eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    folded = LesionNetLite(encoder, Architecture(name="efficientnet-lite0", pretrained=False)).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = encoder.extract_features(image).mean(dim=(2, 3))
        assert torch.allclose(folded(image).embedding, expected, atol=1e-4)
