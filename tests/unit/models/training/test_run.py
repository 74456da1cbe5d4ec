"""A miniature run from tar files to a model package: trains, goes on after a kill, exports, and verifies."""

# ruff: noqa: E402 - the skip where torch is absent must come before what imports it
import copy
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch", reason="torch is not installed: `make test` installs it where it can")
pytest.importorskip("efficientnet_lite_pytorch", reason="what training needs is not installed (requirements/train.txt)")

import models.training
import models.training.command
from models.registry import open_package
from models.training import loop
from models.training.__main__ import main
from models.training.architectures import ARCHITECTURES, build_network
from models.training.architectures.contract import NetworkOutputs
from models.training.command import OtherRun, train
from models.training.configuration import Architecture, ConfigurationInvalid, load_configuration
from models.training.datasets import DataMissing
from models.training.export import ParityBroken, export, parity
from models.training.material import gather
from models.training.package import REFERENCE
from models.training.sanity import NotSane
from models.training.splits import read_split

pytestmark = [
    pytest.mark.training,
    # A resample of so few lesions can hold none with a diagnosis: its figure is not a number, as it should be.
    pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tests run side by side: threads that wait for each other at every layer would make each of them slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(Architecture(name="efficientnet-lite0", pretrained=False, decoder_width=16)).eval()


@pytest.fixture(scope="module")
def run(miniature, plain_settings, tmp_path_factory):
    """The whole pipeline over two collections, killed while it validates its second epoch and while it packages."""
    folder = tmp_path_factory.mktemp("run")
    further = {"collection": "hospital", "layout": "table", "folder": "hospital"}
    settings = copy.deepcopy(plain_settings)
    settings["data"] |= {"further": [further], "undiagnosed_per_epoch": 2}
    settings["export"] = {"views": ["identity", "mirror"]}
    configuration = folder / "miniature.yaml"
    configuration.write_text(yaml.safe_dump(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "validate", _killed_at(2, loop.validate))
        with pytest.raises(KeyboardInterrupt):
            train(configuration, miniature, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.training.command, "write_package", _killed_at(1, None))
        with pytest.raises(KeyboardInterrupt):
            train(configuration, miniature, folder)
    package = train(configuration, miniature, folder)
    log = (folder / "miniature-0.0.1" / "train.log").read_text()
    return SimpleNamespace(folder=folder, configuration=configuration, package=package, log=log)


def _killed_at(call, work):
    """``work`` until its ``call``-th call, which is killed."""
    calls: list[None] = []

    def killing(*arguments):
        calls.append(None)
        if len(calls) == call:
            raise KeyboardInterrupt
        return work(*arguments)

    return killing


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(run, miniature, tmp_path):
    assert "going on after epoch 1 of 2" in run.log
    assert run.log.count("going on after epoch 2 of 2") == 1, "the second kill came after training"
    assert run.log.count("exported;") == 1
    assert "skipping export: model.onnx, export.json stands" in run.log
    assert "skipping test: its predictions stand" in run.log
    assert "skipping the split of hospital" in run.log
    configuration = load_configuration(run.configuration)
    material = gather(configuration.data, miniature, run.folder / "cache", run.folder / "miniature-0.0.1" / "splits")
    rows = [material.all_rows(fold) for fold in ("train", "validation")]
    loop.fit(configuration, material.crops, *rows, tmp_path)
    weights = [
        torch.load(folder / "last.pt", weights_only=True)["average"]
        for folder in (run.folder / "miniature-0.0.1" / "checkpoints", tmp_path)
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_package_says_what_it_is_and_what_it_reaches(run):
    found = open_package(run.folder / "store", "miniature", "0.0.1")
    found.verify()
    manifest = yaml.safe_load((run.package / "manifest.yaml").read_text())
    assert manifest["thresholds"]["embedding"]["file"] == REFERENCE
    assert manifest["data"]["images"] == {"train": 14, "validation": 14, "calibration": 14, "test": 14}
    assert manifest["thresholds"]["melanoma"]["sensitivity"] >= 0.9
    metrics = json.loads((run.package / "evaluation" / "metrics.json").read_text())
    assert metrics["native"]["images"] == metrics["native_crops"]["images"] == 1
    assert len(json.loads((run.package / "evaluation" / "history.json").read_text())) == 2
    card = (run.package / "MODEL_CARD.md").read_text()
    assert manifest["sha256"] in card and f"{metrics['test']['balanced_accuracy']:.3f}" in card


def test_a_further_collection_has_a_split_and_figures_of_its_own(run):
    split = read_split(str(run.folder / "miniature-0.0.1" / "splits" / "hospital.csv"))
    assert len(split.fold_by_image) == 12
    assert split.lesion_by_image["images/0"] == split.lesion_by_image["images/1"] == "images/0"
    test = split.images("test")
    metrics = json.loads((run.package / "evaluation" / "metrics.json").read_text())["hospital-test"]
    assert metrics.get("images") == len(test)
    assert 0 <= metrics["mean_jaccard"] <= 1
    assert yaml.safe_load((run.package / "manifest.yaml").read_text())["metrics"]["hospital-test"]["images"] == len(
        test
    )


def test_the_report_is_about_the_test_folds_and_names_the_command(run):
    report = json.loads((run.package / "evaluation" / "report.json").read_text())
    assert report["dataset"]["name"] == "ham10000 test fold"
    assert report["dataset"]["images"] == 14
    assert "cds train" in json.dumps(report["provenance"])
    assert (run.package / "evaluation" / "report.html").is_file()
    (other,) = report["others"]
    assert other["name"] == "hospital test fold"


def test_what_is_done_is_not_done_again(run, miniature):
    log = run.folder / "miniature-0.0.1" / "train.log"
    before = len(log.read_text())
    files = {path: path.stat().st_mtime_ns for path in run.package.rglob("*")}
    assert train(run.configuration, miniature, run.folder) == run.package
    assert {path: path.stat().st_mtime_ns for path in run.package.rglob("*")} == files
    said = log.read_text()[before:]
    for stage in (
        "export: model.onnx",
        "validation: its predictions",
        "package: manifest.yaml",
        "report: MODEL_CARD.md, report.json",
    ):
        assert f"skipping {stage}" in said


def test_a_network_no_better_than_a_constant_is_not_exported(run, miniature):
    settings = yaml.safe_load(run.configuration.read_text())
    settings["sanity"] = {"balanced_accuracy": 0.8, "jaccard": -1}
    strict = run.folder / "strict.yaml"
    strict.write_text(yaml.safe_dump(settings))
    weights = run.folder / "miniature-0.0.1" / "model.onnx"
    kept = weights.rename(weights.with_suffix(".kept"))
    try:
        with pytest.raises(NotSane, match="the balanced accuracy on the validation fold is"):
            train(strict, miniature, run.folder, run.folder / "elsewhere")
        assert not weights.exists()
        assert not (run.folder / "elsewhere").exists()
    finally:
        kept.rename(weights)


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
