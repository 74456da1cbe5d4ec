import stat
from types import SimpleNamespace

import pytest

from dermoscopy.errors import Misconfigured
from models.providers import Place, chain, check_used, check_wish

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
EVERYTHING = [TENSORRT, CUDA, CPU]


class Session:
    """What the runtime says of a session: its providers, and the operators that each was given."""

    def __init__(self, providers, **nodes):
        self._providers, self._nodes = providers, nodes

    def get_providers(self):
        return self._providers

    def get_provider_graph_assignment_info(self):
        names = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}
        return [
            SimpleNamespace(
                ep_name=names[short], get_nodes=lambda kinds=kinds: [SimpleNamespace(op_type=k) for k in kinds]
            )
            for short, kinds in self._nodes.items()
        ]


@pytest.mark.parametrize(
    ("provider", "precision", "available", "words"),
    [
        ("tpu", "fp32", EVERYTHING, "unknown; there is: cpu, cuda, tensorrt"),
        ("cuda", "fp32", [CPU], "install the gpu extra or ask for cpu"),
        ("tensorrt", "fp32", [CUDA, CPU], "TensorrtExecutionProvider"),
        ("cuda", "int8", EVERYTHING, "inference_precision fp16 or fp32"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_to_do(provider, precision, available, words):
    with pytest.raises(Misconfigured, match=words):
        check_wish(Place(provider), precision, available)


@pytest.mark.parametrize(
    ("provider", "precision"), [("cpu", "int8"), ("cpu", "fp16"), ("cuda", "fp16"), ("tensorrt", "fp16")]
)
def test_what_can_be_done_passes(provider, precision):
    check_wish(Place(provider), precision, EVERYTHING)


def test_cuda_is_asked_for_the_same_bits_every_time(build_package):
    (name, options), last = chain(Place("cuda"), build_package())
    assert (name, last) == (CUDA, CPU)
    assert options["cudnn_conv_algo_search"] == "DEFAULT"
    assert options["use_tf32"] == "0"


def test_tensorrt_builds_one_engine_for_every_batch_and_keeps_it_by_the_weights_digest(build_package, tmp_path):
    package = build_package()
    (name, options), *rest = chain(Place("tensorrt", 8, tmp_path / "engines"), package)
    assert name == TENSORRT
    assert [one if isinstance(one, str) else one[0] for one in rest] == [CUDA, CPU]
    assert options["trt_profile_min_shapes"] == "image:1x3x64x64"
    assert options["trt_profile_max_shapes"] == "image:8x3x64x64"
    assert options["trt_fp16_enable"] == "0"
    folder = tmp_path / "engines" / package.reference.digest[:16]
    assert options["trt_engine_cache_path"] == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert "trt_engine_cache_enable" not in chain(Place("tensorrt"), package)[0][1]


def test_an_engine_folder_that_cannot_be_made_is_named(build_package, tmp_path):
    (tmp_path / "engines").write_text("a file")
    with pytest.raises(Misconfigured, match="engines cannot be kept"):
        chain(Place("tensorrt", 1, tmp_path / "engines"), build_package())


def test_a_fall_back_as_a_whole_is_an_error():
    with pytest.raises(Misconfigured, match="fell back to CPUExecutionProvider; check the driver"):
        check_used(Place("cuda"), Session([CPU]))


def test_work_that_is_left_to_the_cpu_is_an_error_that_counts_it():
    with pytest.raises(Misconfigured, match="left 2 Conv, 1 Resize to the CPU"):
        check_used(Place("cuda"), Session([CUDA, CPU], cuda=["Conv"], cpu=["Conv", "Resize", "Conv", "Shape"]))


def test_a_provider_that_got_nothing_is_an_error():
    with pytest.raises(Misconfigured, match="gave it no part"):
        check_used(Place("tensorrt"), Session([TENSORRT, CUDA, CPU], cuda=["Conv", "Gemm"]))


def test_shapes_on_the_cpu_are_no_fall_back():
    check_used(Place("cuda"), Session([CUDA, CPU], cuda=["Conv", "Gemm"], cpu=["Shape", "Gather"]))
    check_used(Place("tensorrt"), Session([TENSORRT, CUDA, CPU], tensorrt=["Conv"], cuda=["Resize"]))


def test_on_the_cpu_nothing_is_recorded_and_nothing_asked():
    class Silent(Session):
        def get_provider_graph_assignment_info(self):
            raise AssertionError

    check_used(Place("cpu"), Silent([CPU]))


def test_the_runtime_tells_where_its_nodes_run(tiny_weights):
    import onnxruntime

    from models.providers import RECORD_PLACEMENT, _placement

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(RECORD_PLACEMENT, "1")
    session = onnxruntime.InferenceSession(tiny_weights, options, providers=[CPU])
    assert _placement(session)[CPU]["Conv"] == 3
