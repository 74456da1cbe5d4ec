import shutil
import subprocess
import sys

import pytest

from dermoscopy.errors import Misconfigured, WeightsMismatch
from models.registry import appoint_champion, champion, installed, open_package
from models.session import OnnxSession


def test_installed_lists_versions_in_numeric_order(build_package, tmp_path):
    for version in ("1.10.0", "1.2.0", "1.2.0-rc1"):
        build_package(version=version)
    versions = [package.manifest.version for package in installed(tmp_path / "store")]
    assert versions == ["1.2.0", "1.2.0-rc1", "1.10.0"]


def test_an_empty_or_absent_store_holds_nothing(tmp_path):
    assert installed(tmp_path) == ()
    assert installed(tmp_path / "absent") == ()


def test_what_is_being_written_is_not_installed(build_package, tmp_path):
    package = build_package()
    shutil.copytree(package.folder, package.folder.with_name("1.1.0.partial"))
    (tmp_path / "store" / "tiny" / "1.2.0").mkdir()
    assert [each.manifest.version for each in installed(tmp_path / "store")] == ["1.0.0"]


def test_the_champion_is_named_and_never_guessed(build_package, tmp_path):
    store = tmp_path / "store"
    first, second = build_package(version="1.0.0"), build_package(version="1.1.0")
    with pytest.raises(Misconfigured, match=r"champion\.yaml"):
        champion(store)
    appoint_champion(store, first)
    assert champion(store).reference == first.reference
    appoint_champion(store, second)
    assert champion(store).reference == second.reference
    assert champion(store, "tiny==1.0.0").reference == first.reference
    assert [path.name for path in store.iterdir() if path.is_file()] == ["champion.yaml"]


@pytest.mark.parametrize("choice", ["tiny", "==1.0.0", "tiny==", "../x==1", "tiny==9.9.9"])
def test_a_wrong_choice_is_refused(build_package, tmp_path, choice):
    build_package()
    with pytest.raises(Misconfigured):
        champion(tmp_path / "store", choice)


@pytest.mark.parametrize(
    "text", ["name: tiny\n", "name: tiny\nversion: 1.0\n", "[]", "name: ../..\nversion: '1'\n", "{"]
)
def test_a_wrong_champion_file_is_named(build_package, tmp_path, text):
    build_package()
    (tmp_path / "store" / "champion.yaml").write_text(text)
    with pytest.raises(Misconfigured, match=r"champion\.yaml"):
        champion(tmp_path / "store")


def test_an_absent_package_says_what_is_installed(build_package, tmp_path):
    build_package()
    with pytest.raises(Misconfigured, match=r"other==2 is not installed.*tiny==1\.0\.0"):
        open_package(tmp_path / "store", "other", "2")


def test_a_package_in_the_wrong_folder_is_refused(build_package, tmp_path):
    build_package()
    store = tmp_path / "store"
    (store / "tiny" / "1.0.0").rename(store / "tiny" / "2.0.0")
    with pytest.raises(Misconfigured, match=r"says tiny==1\.0\.0"):
        installed(store)


def test_tampered_weights_are_refused_with_file_and_both_digests(build_package, tmp_path):
    package = build_package()
    package.verify()
    data = bytearray(package.weights.read_bytes())
    data[-1] ^= 1
    package.weights.write_bytes(bytes(data))
    for read in (package.verify, package.read_weights, lambda: OnnxSession.open(package)):
        with pytest.raises(WeightsMismatch) as caught:
            read()
        message = str(caught.value)
        assert str(package.weights) in message
        assert package.manifest.sha256 in message
        assert message.count("SHA-256") == 1
        assert "refusing" in message
    with pytest.raises(WeightsMismatch):
        appoint_champion(tmp_path / "store", package)
    assert not (tmp_path / "store" / "champion.yaml").exists()


def test_a_form_has_its_own_file_and_digest(build_package, add_form):
    package = add_form(build_package(), "int8", bias=[1] * 7)
    form = package.in_form("int8")
    assert package.precisions == ("fp32", "int8")
    assert form.weights.name == "model.int8.onnx"
    assert form.reference.digest == package.manifest.forms["int8"].sha256 != package.reference.digest
    assert (form.reference.name, form.reference.version) == (package.reference.name, package.reference.version)
    assert form.read_weights() == form.weights.read_bytes() != package.read_weights()
    assert form.in_form("fp32") == package


def test_a_form_that_is_not_there_is_refused_with_what_there_is(build_package, add_form):
    package = build_package()
    with pytest.raises(Misconfigured, match=r"tiny==1\.0\.0 has no int8 form; it has: fp32$"):
        package.in_form("int8")
    with pytest.raises(Misconfigured, match=r"has no fp16 form; it has: fp32, int8$"):
        add_form(package, "int8").in_form("fp16")


def test_a_tampered_form_is_refused(build_package, add_form):
    package = add_form(build_package(), "fp16")
    package.verify()
    path = package.folder / "model.fp16.onnx"
    path.write_bytes(path.read_bytes() + b" ")
    for read in (package.verify, package.in_form("fp16").read_weights):
        with pytest.raises(WeightsMismatch, match=r"model\.fp16\.onnx: SHA-256"):
            read()
    package.read_weights()


def test_absent_weights_are_refused(build_package):
    package = build_package()
    package.weights.unlink()
    with pytest.raises(WeightsMismatch, match="absent"):
        package.verify()


def test_a_tampered_embedding_reference_is_refused(build_package):
    def name_a_reference(manifest):
        manifest["thresholds"]["embedding"] = {"file": "reference.npz", "sha256": "0" * 64, "distance_p99": 3.0}

    package = build_package(name_a_reference)
    (package.folder / "reference.npz").write_bytes(b"other")
    with pytest.raises(WeightsMismatch, match=r"reference\.npz"):
        package.verify()
    with pytest.raises(WeightsMismatch, match=r"reference\.npz"):
        package.read_embedding_reference()


def test_the_reference_costs_no_runtime():
    code = (
        "import sys, models.registry; "
        "sys.exit(any(name in sys.modules for name in ('onnxruntime', 'torch', 'onnx', 'cv2')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
