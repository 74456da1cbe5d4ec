"""Every network of the zoo: keeps the contract, learns a few images, and answers in ONNX as in torch."""

# ruff: noqa: E402 - the skips where torch and its companions are absent must come before what imports them
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: `make test` installs it where it can")
absent = [name for name in ("efficientnet_lite_pytorch", "monai", "transformers") if find_spec(name) is None]

import models.training
from models.training.architectures import ARCHITECTURES, build_network
from models.training.architectures.contract import LesionNetwork
from models.training.configuration import CLASSES, Architecture, ConfigurationInvalid, Losses, load_configuration
from models.training.export import export
from models.training.losses import total_loss

# The first test of a process imports transformers and monai: half a minute where the machine is busy.
pytestmark = [
    pytest.mark.training,
    pytest.mark.timeout(400),
    pytest.mark.skipif(bool(absent), reason=f"not installed (requirements/train.txt): {', '.join(absent)}"),
]

QUARTER = {"width": 0.25, "depth": 0.25}
#: Options that make each network small; those with a package of weights start from them.
SMALL = {
    "efficientnet-lite0": {"pretrained": True},
    "dual-branch-efficientnet-lite0": {"pretrained": True},
    "unet": {"width": 0.25},
    "mobilenet-v3-small": {"width": 0.5},
    "mobilenet-v3-large": {"width": 0.25},
}
#: Encoder parameters as published: the count of the ImageNet classifier, less its last linear layers.
PUBLISHED = {
    "dual-branch-efficientnet-b0": 5_288_548 - 1_281_000,
    "deeplabv3-plus": 25_557_032 - 2_049_000,
    "efficientnet-b0": 5_288_548 - 1_281_000,
    "mobilenet-v3-small": 2_542_856 - 1_615_848,
    "mobilenet-v3-large": 5_483_032 - 2_511_080,
    "resnet50": 25_557_032 - 2_049_000,
    "segformer-b0": 3_319_392,
    "swin-t": 28_288_354 - 769_000,
    "vit-b16": 86_567_656 - 769_000,
}
ZOO = Path(models.training.__file__).parents[2] / "docs" / "model-zoo.md"


def small(name, **options):
    """The options of a small network of this name."""
    return Architecture(
        **{
            "name": name, "pretrained": False, "decoder_width": 16, "dropout": 0.0, "frozen_blocks": 0,
            **SMALL.get(name, QUARTER), **options,
        }
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tests run side by side: threads that wait for each other at every layer would make each of them slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def batch():
    """Seven images of 64 pixels, one of each class: a bright square whose colour and place tell the class."""
    generator = torch.Generator().manual_seed(0)
    image = 0.1 * torch.randn(7, 3, 64, 64, generator=generator)
    mask = torch.zeros(7, 1, 64, 64)
    for k in range(7):
        mask[k, :, 6 * k : 6 * k + 24, 16:48] = 1
        image[k] += mask[k] * torch.tensor([k & 1, k >> 1 & 1, k >> 2]).mul(2.0).sub(1.0).reshape(3, 1, 1)
    return image, mask, torch.arange(7)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_learns_and_answers_in_onnx_as_in_torch(name, batch, tmp_path):
    torch.manual_seed(0)
    network = build_network(small(name)).train()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 0.5  # so that a few steps are enough for what it answers with
    image, mask, target = batch
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    losses = []
    for _ in range(9):
        optimiser.zero_grad()
        loss = total_loss(network(image), target, mask, torch.zeros(7), Losses(label_smoothing=0.0))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.93 * losses[0], losses

    differences = export(network, 64, [0.0] * 7, tmp_path / "model.onnx")
    with torch.inference_mode():
        outputs = network.eval()(image)
    for output, difference in zip(outputs, differences.values(), strict=True):
        assert output.std(dim=0).max() > 100 * difference, (
            "the answers vary with the image, so that parity says something"
        )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_keeps_the_contract(name):
    network = build_network(small(name, frozen_blocks=2)).eval()
    contract: LesionNetwork = network
    assert isinstance(contract, LesionNetwork)
    with torch.inference_mode():
        outputs = network(torch.randn(2, 3, 96, 96))
    assert outputs.mask_logits.shape == (2, 1, 96, 96)
    assert outputs.class_logits.shape == (2, 7)
    assert outputs.activation_map.shape[:2] == (2, 7)
    assert outputs.embedding.shape[0] == 2
    offset = outputs.class_logits - outputs.activation_map.mean(dim=(2, 3))
    assert torch.allclose(offset[0], offset[1], atol=1e-5), "the map's mean plus a bias is the class logit"
    groups = [list(contract.pretrained_parameters()), list(contract.fresh_parameters())]
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert sum(map(len, groups)) == len(trainable)
    assert {id(p) for group in groups for p in group} == {id(p) for p in trainable}
    bias = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    contract.shift_class_logits(bias)
    with torch.inference_mode():
        shifted = network(torch.zeros(1, 3, 96, 96)).class_logits
    contract.shift_class_logits([-value for value in bias])
    with torch.inference_mode():
        assert torch.allclose(shifted - network(torch.zeros(1, 3, 96, 96)).class_logits, torch.tensor(bias), atol=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_full_size_is_what_was_published_and_what_the_table_says(name):
    with torch.device("meta"):
        network = build_network(Architecture(name=name, pretrained=False)).eval()
        outputs = network(torch.zeros(2, 3, 224, 224))
    assert outputs.mask_logits.shape == (2, 1, 224, 224)
    assert outputs.class_logits.shape == (2, len(CLASSES))
    if name in PUBLISHED:
        assert sum(parameter.numel() for parameter in network.encoder.parameters()) == PUBLISHED[name]
    row = re.search(rf"^\| `{name}` \|[^|]*\| ([\d.]+) \|", ZOO.read_text(encoding="utf-8"), re.MULTILINE)
    assert row, f"docs/model-zoo.md has no row for {name}"
    assert float(row[1]) == round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 2)


def test_shipped_configurations_build():
    for path in sorted((Path(models.training.__file__).parent / "configs").glob("*.yaml")):
        with torch.device("meta"):
            untrained = load_configuration(path).architecture.model_copy(update={"pretrained": False, "weights": None})
            build_network(untrained)


def test_rollout_is_the_product_of_the_layers_with_half_a_residual_path():
    from models.training.architectures.heads import attention_rollout

    generator = torch.Generator().manual_seed(1)
    layers = [torch.randn(2, 3, 5, 5, generator=generator).softmax(dim=-1) for _ in range(4)]
    product = torch.eye(5).expand(2, 5, 5)
    for layer in layers:
        product = (0.5 * torch.eye(5) + 0.5 * layer.mean(dim=1)) @ product
    assert torch.allclose(attention_rollout(layers), product[:, 0, 1:], atol=1e-6)


def test_the_vit_looks_where_its_attention_goes():
    torch.manual_seed(0)
    network = build_network(small("vit-b16")).eval()
    with torch.inference_mode():
        outputs = network(torch.randn(1, 3, 64, 64))
    logits, maps = outputs.class_logits[0], outputs.activation_map[0]
    relative = maps[int(logits.argmax())] - maps.mean(dim=0)
    assert (relative > 0).all(), "what is shown for the called class is the attention, nowhere negative"
    assert relative.std() > 0


def test_the_swin_answers_alike_whatever_size_it_saw_before():
    torch.manual_seed(0)
    network = build_network(small("swin-t", depth=1.0)).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        before = network(image).class_logits
        network(torch.randn(1, 3, 64, 64))
        assert torch.equal(network(image).class_logits, before)


def test_weights_come_from_a_file_or_a_saved_folder(tmp_path):
    torch.manual_seed(0)
    saved = build_network(small("mobilenet-v3-small"))
    torch.save(saved.encoder.state_dict(), tmp_path / "encoder.pt")
    options = small("mobilenet-v3-small", pretrained=True, weights=str(tmp_path / "encoder.pt"), frozen_blocks=2)
    network = build_network(options)
    assert all(map(torch.equal, network.encoder.state_dict().values(), saved.encoder.state_dict().values()))
    frozen = [not p.requires_grad for p in network.encoder.features[2].parameters()]
    assert frozen and all(frozen), "frozen_blocks counts after the stem"
    assert all(p.requires_grad for p in network.encoder.features[3].parameters())
    assert len(list(network.pretrained_parameters())) < len(list(network.encoder.parameters()))

    from transformers import ResNetConfig, ResNetModel

    sizes = {"embedding_size": 16, "hidden_sizes": [64, 128, 256, 512], "depths": [1, 1, 2, 1]}
    model = ResNetModel(ResNetConfig(**sizes))
    model.save_pretrained(tmp_path / "resnet")
    network = build_network(small("resnet50", pretrained=True, weights=str(tmp_path / "resnet")))
    found, wanted = network.encoder.stages.state_dict(), model.encoder.stages.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    torch.save({"features.0.0.weight": torch.zeros(1)}, tmp_path / "some.pt")
    with pytest.raises(ConfigurationInvalid, match=r"lacks \d+ tensors, first"):
        build_network(small("mobilenet-v3-small", pretrained=True, weights=str(tmp_path / "some.pt")))
    state = build_network(small("mobilenet-v3-small", width=1.0)).encoder.state_dict()
    torch.save(state, tmp_path / "wide.pt")
    with pytest.raises(ConfigurationInvalid, match="does not fit"):
        build_network(small("mobilenet-v3-small", pretrained=True, weights=str(tmp_path / "wide.pt")))
    with pytest.raises(ConfigurationInvalid, match="is no file"):
        build_network(small("mobilenet-v3-small", pretrained=True, weights="some/hub-id"))


def test_random_weights_are_never_passed_off_as_pretrained():
    with pytest.raises(ConfigurationInvalid, match="no package carries weights of resnet50"):
        build_network(small("resnet50", pretrained=True))
    with pytest.raises(ValueError, match="weights are named but pretrained is false"):
        Architecture(name="resnet50", pretrained=False, weights="microsoft/resnet-50")
    assert all(p.requires_grad for p in build_network(small("resnet50", frozen_blocks=4)).parameters())


@pytest.mark.parametrize(("name", "field"), [("efficientnet-lite0", "width"), ("unet", "depth")])
def test_an_option_without_effect_is_refused(name, field):
    with pytest.raises(ConfigurationInvalid, match=rf"architecture\.{field}: {name} has a fixed {field}"):
        build_network(Architecture(name=name, pretrained=False, **{field: 0.5}))


def test_a_wider_network_is_rounded_but_never_made_much_smaller():
    from models.training.architectures.sizes import repeated, scaled

    assert [scaled(18, 1.0), scaled(32, 0.25), scaled(24, 0.75), scaled(1, 0.1)] == [24, 8, 24, 8]
    assert all(scaled(channels, 1.0) >= 0.9 * channels for channels in np.arange(8, 500))
    assert [repeated(6, 0.25), repeated(2, 0.1), repeated(3, 2.0)] == [2, 1, 6]
