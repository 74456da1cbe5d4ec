"""The ONNX file of a network whose answers are averaged over views."""

# ruff: noqa: E402 - the skip where torch is absent must come before what imports it
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: `make test` installs it where it can")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: `make setup` installs it")

from torch import nn

from models.training.architectures.contract import NetworkOutputs
from models.training.export import TURNED, AveragedViews, export

pytestmark = pytest.mark.training


class Lopsided(nn.Module):
    """A network that answers otherwise for a mirrored image: its filters have a left and a top."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(3, 5, 3, stride=2, padding=1)
        self.mask = nn.Conv2d(5, 1, 3, padding=1)
        self.classifier = nn.Conv2d(5, 7, 1)

    def forward(self, image):
        x = torch.tanh(self.features(image))
        mask = nn.functional.interpolate(self.mask(x), scale_factor=2.0, mode="nearest")
        pooled = x.mean(dim=(2, 3))
        weight = self.classifier.weight
        logits = nn.functional.linear(pooled, weight.flatten(1), self.classifier.bias)
        return NetworkOutputs(mask, logits, nn.functional.conv2d(x, weight), pooled)

    def shift_class_logits(self, bias):
        with torch.no_grad():
            self.classifier.bias += torch.tensor(bias)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Lopsided().eval()


@pytest.mark.parametrize(("view", "axes"), [("mirror", (3,)), ("flip", (2,)), ("turn", (2, 3))])
def test_averaged_over_a_view_the_answer_turns_with_the_image(network, view, axes):
    averaged = AveragedViews(network, ("identity", view)).eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain, straight, turned = network(image), averaged(image), averaged(torch.flip(image, axes))
    assert not torch.allclose(network(torch.flip(image, axes)).class_logits, plain.class_logits, atol=1e-3)
    assert torch.allclose(turned.class_logits, straight.class_logits, atol=1e-5)
    assert torch.allclose(turned.embedding, straight.embedding, atol=1e-5)
    assert torch.allclose(torch.flip(turned.mask_logits, axes), straight.mask_logits, atol=1e-5)
    assert torch.allclose(torch.flip(turned.activation_map, axes), straight.activation_map, atol=1e-5)


def test_the_averaged_map_still_says_what_the_class_logits_rest_on(network):
    with torch.no_grad():
        outputs = AveragedViews(network, tuple(TURNED))(torch.randn(3, 3, 32, 32))
    rest = outputs.class_logits - outputs.activation_map.mean(dim=(2, 3))
    assert torch.allclose(rest, network.classifier.bias.expand(3, 7), atol=1e-5)


def test_the_file_averages_as_the_network_does_and_holds_the_weights_once(network, tmp_path):
    bias = [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, -0.5]
    export(network, 32, bias, tmp_path / "one.onnx")
    differences = export(network, 32, bias, tmp_path / "four.onnx", tuple(TURNED))
    assert max(differences.values()) < 1e-5
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "four.onnx"), providers=["CPUExecutionProvider"])
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        expected = AveragedViews(network, tuple(TURNED))(image).class_logits + torch.tensor(bias)
    (logits,) = session.run(["class_logits"], {"image": image.numpy()})
    assert torch.allclose(torch.from_numpy(logits), expected, atol=1e-5)
    grown = (tmp_path / "four.onnx").stat().st_size - (tmp_path / "one.onnx").stat().st_size
    assert grown < 20_000
