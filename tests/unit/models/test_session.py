import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from dermoscopy.errors import AnalysisFailed, Misconfigured
from models.session import OnnxSession


def batch(n=2, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (n, 3, 64, 64)).astype(np.float32)


def test_outputs_have_the_contract_shapes(build_package, open_session):
    session = open_session(build_package())
    output = session.run(batch(3))
    assert output.mask_logits.shape == (3, 1, 64, 64)
    assert output.class_logits.shape == (3, 7)
    assert output.activation_map.shape == (3, 7, 8, 8)
    assert output.embedding.shape == (3, 8)
    assert session.execution_provider == "CPUExecutionProvider"
    assert session.precision == "float32"


def test_the_activation_map_averages_to_the_logits(build_package, open_session):
    output = open_session(build_package()).run(batch())
    np.testing.assert_allclose(output.activation_map.mean(axis=(2, 3)), output.class_logits, atol=1e-5)


def test_same_input_same_bits_whatever_the_company_and_the_threads(build_package):
    package = build_package()
    images = batch(3)
    session = OnnxSession.open(package, threads=2)
    alone = session.run(images[1:2])
    together = session.run(images)
    again = OnnxSession.open(package, threads=2).run(images[1:2])
    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(lambda _: session.run(images[1:2]), range(16)))
    for other in (again, *parallel):
        for name in ("mask_logits", "class_logits", "activation_map", "embedding"):
            assert getattr(other, name).tobytes() == getattr(alone, name).tobytes()
    assert together.mask_logits[1].tobytes() == alone.mask_logits[0].tobytes()


def test_requests_that_meet_share_a_run_and_keep_their_bits(build_package):
    package = build_package()
    images = batch(6)
    alone = OnnxSession.open(package, threads=2)
    together = OnnxSession.open(package, threads=2, batch=4)
    assert together.precision == "float32, up to 4 images at a time"
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda image: together.run(image[None]), images))
    whole = together.run(images)
    for number, output in enumerate(found):
        expected = alone.run(images[number : number + 1])
        for name in ("mask_logits", "class_logits", "activation_map", "embedding"):
            assert getattr(output, name).tobytes() == getattr(expected, name).tobytes()
            assert getattr(whole, name)[number].tobytes() == getattr(expected, name)[0].tobytes()


def test_a_failure_in_a_shared_run_is_translated(build_package):
    session = OnnxSession.open(build_package(), threads=1, batch=4)
    with pytest.raises(AnalysisFailed):
        session.run(np.zeros((2, 3, 10, 10), np.float32))
    assert session.run(batch(2)).class_logits.shape == (2, 7)


def test_a_batch_below_one_is_refused(build_package):
    with pytest.raises(Misconfigured, match="batch must be 1 or more"):
        OnnxSession.open(build_package(), batch=0)


def test_another_form_says_which_it_is(build_package, add_form):
    package = add_form(build_package(), "int8", bias=[1, 0, 0, 0, 0, 0, 0])
    plain, other = OnnxSession.open(package, threads=1), OnnxSession.open(package.in_form("int8"), threads=1)
    assert (plain.precision, other.precision) == ("float32", "int8")
    moved = other.run(batch(1)).class_logits - plain.run(batch(1)).class_logits
    np.testing.assert_allclose(moved, [[1, 0, 0, 0, 0, 0, 0]], atol=1e-5)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_gpu_that_is_not_there_is_an_error(build_package, provider):
    if len(onnxruntime.get_available_providers()) > 2:
        pytest.skip("this build has GPU providers")
    with pytest.raises(Misconfigured, match="was asked for"):
        OnnxSession.open(build_package(), provider=provider)


def test_a_silent_fall_back_is_an_error(build_package, monkeypatch):
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda data, options, providers: real(data, options, ["CPUExecutionProvider"])
    )
    with pytest.raises(Misconfigured, match="fell back to CPUExecutionProvider"):
        OnnxSession.open(build_package(), provider="cuda")


def test_an_unknown_provider_and_negative_threads_are_refused(build_package):
    package = build_package()
    with pytest.raises(Misconfigured, match="unknown"):
        OnnxSession.open(package, provider="tpu")
    with pytest.raises(Misconfigured, match="threads"):
        OnnxSession.open(package, threads=-1)


def test_without_the_runtime_it_says_which_extra(build_package, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(Misconfigured, match="extra cpu or gpu"):
        OnnxSession.open(build_package())


def test_names_that_the_graph_does_not_have_are_named(build_package):
    def rename(manifest):
        manifest["outputs"]["mask"] = "masks"

    with pytest.raises(Misconfigured, match=r"outputs\.mask is masks"):
        OnnxSession.open(build_package(rename))

    def rename_input(manifest):
        manifest["input"]["name"] = "picture"

    with pytest.raises(Misconfigured, match=r"input\.name is picture"):
        OnnxSession.open(build_package(rename_input))


def test_bytes_that_are_no_graph_are_misconfigured(build_package):
    import hashlib

    package = build_package()
    junk = b"not a graph"
    package.weights.write_bytes(junk)
    manifest = package.manifest.model_copy(update={"sha256": hashlib.sha256(junk).hexdigest()})
    with pytest.raises(Misconfigured, match="cannot load"):
        OnnxSession.open(type(package)(package.folder, manifest))


def test_a_failure_in_the_runtime_is_translated_and_chained(build_package, open_session):
    session = open_session(build_package())
    with pytest.raises(AnalysisFailed) as caught:
        session.run(np.zeros((1, 3, 10, 10), np.float32))
    assert caught.value.__cause__ is not None
    with pytest.raises(AnalysisFailed):
        session.run(np.zeros((1, 3, 64, 64), np.float64))
