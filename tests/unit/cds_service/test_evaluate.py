"""``cds evaluate`` as a third party uses it."""

import json

import pytest
from typer.testing import CliRunner

from cds_service.__main__ import app
from cds_service.commands.evaluate import _command
from dermoscopy.errors import Misconfigured, UnreadableObject
from tests.unit.models.conftest import tiny_graph, tiny_manifest, write_manifest
from tests.unit.models.evaluation.conftest import drawings, folder  # noqa: F401 - fixtures


@pytest.fixture
def call(tmp_path, monkeypatch):
    store = tmp_path / "store"
    weights = tiny_graph()
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        place = store / "tiny" / version
        place.mkdir(parents=True)
        (place / "model.onnx").write_bytes(weights)
        write_manifest(place, {**tiny_manifest(weights), "version": version})
    (store / "champion.yaml").write_text("name: tiny\nversion: '1.0.0'\n", encoding="utf-8")
    monkeypatch.setenv("CDS_MODELS_DIR", str(store))
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        result = CliRunner().invoke(app, ["evaluate", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def test_one_command_writes_page_and_json(call, folder, tmp_path):  # noqa: F811
    result = call("tiny==1.0.0", folder, "--pictures")

    assert result.exit_code == 0
    place = tmp_path / "var" / "evaluation" / "tiny-1.0.0" / "labels"
    report = json.loads((place / "report.json").read_text(encoding="utf-8"))
    assert report["dataset"]["images"] == 6 and report["model"]["version"] == "1.0.0"
    assert (place / "report.html").is_file() and (place / "pictures" / "index.html").is_file()
    assert "Balanced accuracy" in result.stdout


@pytest.mark.parametrize(("named", "version"), [("champion", "1.0.0"), ("tiny", "1.10.0"), ("tiny==1.9.0", "1.9.0")])
def test_a_model_is_named_in_three_ways(call, folder, tmp_path, named, version):  # noqa: F811
    call(named, folder, "--limit", 2, "--output", tmp_path / "out")

    assert json.loads((tmp_path / "out" / "report.json").read_text())["model"]["version"] == version


def test_a_package_that_is_not_installed_can_be_named_by_its_folder(call, folder, tmp_path):  # noqa: F811
    call(tmp_path / "store" / "tiny" / "1.9.0", folder, "--limit", 2, "--output", tmp_path / "out")

    assert json.loads((tmp_path / "out" / "report.json").read_text())["model"]["version"] == "1.9.0"


def test_wrong_input_is_one_sentence(call, folder, tmp_path):  # noqa: F811
    with pytest.raises(Misconfigured, match="no model 'tinny' is installed"):
        call("tinny", folder)
    with pytest.raises(Misconfigured, match="no such folder"):
        call("tiny", tmp_path / "absent")
    (folder / "images" / "IMG_003.png").write_bytes(b"nothing")
    with pytest.raises(UnreadableObject, match=r"1 of 6 images cannot be used: images/IMG_003.png: not an image"):
        call("tiny", folder)
    result = call("tiny", folder, "--skip-bad", "--output", tmp_path / "out")
    assert "left out: IMG_003" in result.stderr


def test_the_recorded_command_tells_nothing_of_the_machine():
    words = ["evaluate", "tiny", "/home/someone/clinic/labels.csv", "--fold", "test"]
    assert _command(words) == "cds evaluate tiny <folder>/labels.csv --fold test"
