"""MobileNetV3 small and large (Howard et al., arXiv:1905.02244) in plain torch.

Module names are torchvision's, so that a state dict of its ``mobilenet_v3_small`` or ``_large`` can be named in
``architecture.weights`` (transformers and monai have no MobileNetV3).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from models.training.architectures.attention import SqueezeExcitation
from models.training.architectures.composition import FeatureEncoder, SharedEncoderNetwork, initialise_convolutions
from models.training.architectures.decoders import UpsamplingDecoder
from models.training.architectures.heads import PooledHead
from models.training.architectures.sizes import refuse_scaling, scaled
from models.training.architectures.weights import start_encoder
from models.training.configuration import Architecture


class Row(NamedTuple):
    """A bottleneck of the paper's tables 1 and 2: ``hard`` names hard-swish in place of ReLU."""

    kernel: int
    expanded: int
    out: int
    squeeze: bool
    hard: bool
    stride: int


SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)
LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
STEM = 16


def _unit(
    channels: int, out: int, kernel: int, stride: int, groups: int, activation: nn.Module | None
) -> nn.Sequential:
    parts = [
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out, eps=1e-3, momentum=0.01),
    ]
    return nn.Sequential(*parts) if activation is None else nn.Sequential(*parts, activation)


class Bottleneck(nn.Module):
    """Expand, depthwise, squeeze-and-excitation (hard sigmoid), project; the identity where shapes agree."""

    def __init__(self, channels: int, row: Row) -> None:
        super().__init__()
        kind = nn.Hardswish if row.hard else nn.ReLU
        parts: list[nn.Module] = []
        if row.expanded != channels:
            parts.append(_unit(channels, row.expanded, 1, 1, 1, kind()))
        parts.append(_unit(row.expanded, row.expanded, row.kernel, row.stride, row.expanded, kind()))
        if row.squeeze:
            squeezed = scaled(row.expanded // 4, 1.0)
            parts.append(SqueezeExcitation(row.expanded, squeezed, nn.Hardsigmoid()))
        parts.append(_unit(row.expanded, row.out, 1, 1, 1, None))
        self.block = nn.Sequential(*parts)
        self.identity = row.stride == 1 and channels == row.out

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C', H / stride, W / stride]."""
        y = self.block(x)
        return x + y if self.identity else y


class MobileNetEncoder(FeatureEncoder):
    """The last convolution's output at stride 32."""

    def __init__(self, rows: Sequence[Row], width: float) -> None:
        super().__init__()
        rows = [row._replace(expanded=scaled(row.expanded, width), out=scaled(row.out, width)) for row in rows]
        stem = scaled(STEM, width)
        parts: list[nn.Module] = [_unit(3, stem, 3, 2, 1, nn.Hardswish())]
        for before, row in zip((stem, *(row.out for row in rows[:-1])), rows, strict=True):
            parts.append(Bottleneck(before, row))
        parts.append(_unit(rows[-1].out, 6 * rows[-1].out, 1, 1, 1, nn.Hardswish()))
        self.features = nn.Sequential(*parts)
        self.channels = (6 * rows[-1].out,)
        self.strides = (32,)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, S, S] to one map [N, C, S / 32, S / 32]."""
        return [self.features(image)]

    def blocks(self) -> list[nn.Module]:
        """Stem, bottlenecks, last convolution."""
        return list(self.features)


def _build(options: Architecture, rows: Sequence[Row]) -> nn.Module:
    """A MobileNetV3 of these bottlenecks with a pooled head and a small mask decoder over its last map."""
    refuse_scaling(options, "depth")
    encoder = MobileNetEncoder(rows, options.width)
    initialise_convolutions(encoder)
    started = start_encoder(encoder, options)
    decoder = UpsamplingDecoder(encoder.channels[-1], 32, options.decoder_width)
    head = PooledHead(encoder.channels[-1], options.classes, options.dropout)
    return SharedEncoderNetwork(encoder, decoder, head, options, started)


build_mobilenet_v3_small = partial(_build, rows=SMALL)
build_mobilenet_v3_large = partial(_build, rows=LARGE)
