"""Attention-residual U-Net: residual units down and up, attention gates on the skips, of monai's blocks.

Residual units: Zhang et al., "Road Extraction by Deep Residual U-Net", arXiv:1711.10684; gates: Oktay et al.,
arXiv:1804.03999.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import ResidualUnit
from monai.networks.nets.attentionunet import AttentionBlock
from torch import Tensor, nn

from models.training.architectures.composition import FeatureEncoder, SharedEncoderNetwork
from models.training.architectures.decoders import enlarged
from models.training.architectures.heads import PooledHead
from models.training.architectures.sizes import repeated, scaled
from models.training.architectures.weights import start_encoder
from models.training.configuration import Architecture

CHANNELS = (32, 64, 128, 256, 512)
SUBUNITS = 2


def _residual(channels: int, out: int, stride: int, subunits: int) -> nn.Module:
    return ResidualUnit(2, channels, out, strides=stride, subunits=subunits, act="relu", norm="batch")


class ResidualPath(FeatureEncoder):
    """Residual units at strides 1 to 16; all but the first halve the map."""

    def __init__(self, channels: Sequence[int], subunits: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            _residual(before, after, 1 if index == 0 else 2, subunits)
            for index, (before, after) in enumerate(zip((3, *channels[:-1]), channels, strict=True))
        )
        self.channels = tuple(channels)
        self.strides = (1, 2, 4, 8, 16)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, S, S] to the maps of :class:`FeatureEncoder`."""
        features = [image]
        for unit in self.units:
            features.append(unit(features[-1]))
        return features[1:]

    def blocks(self) -> list[nn.Module]:
        """The five units."""
        return list(self.units)


class GatedResidualDecoder(nn.Module):
    """Up by doublings; each skip passes a gate that the coarser map opens, then a residual unit joins both."""

    def __init__(self, channels: Sequence[int], subunits: int) -> None:
        super().__init__()
        pairs = list(zip(reversed(channels[:-1]), reversed(channels[1:]), strict=True))
        self.narrow = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairs)
        self.gates = nn.ModuleList(AttentionBlock(2, f_int=max(4, fine // 2), f_g=fine, f_l=fine) for fine, _ in pairs)
        self.units = nn.ModuleList(_residual(2 * fine, fine, 1, subunits) for fine, _ in pairs)
        self.logit = nn.Conv2d(channels[0], 1, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps to [N, 1, S, S]."""
        x = features[-1]
        steps = zip(self.narrow, self.gates, self.units, reversed(features[:-1]), strict=True)
        for narrow, gate, unit, skip in steps:
            x = enlarged(narrow(x), 2)
            x = unit(torch.cat([x, gate(g=x, x=skip)], dim=1))
        return self.logit(x)


def build_attention_residual_unet(options: Architecture) -> nn.Module:
    """32 to 512 channels, times ``width``; two convolutions per unit, times ``depth``."""
    channels = [scaled(wide, options.width) for wide in CHANNELS]
    subunits = repeated(SUBUNITS, options.depth)
    encoder = ResidualPath(channels, subunits)
    started = start_encoder(encoder, options)
    head = PooledHead(channels[-1], options.classes, options.dropout)
    return SharedEncoderNetwork(encoder, GatedResidualDecoder(channels, subunits), head, options, started)
