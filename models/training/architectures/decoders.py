"""Mask decoders: from feature maps, fine to coarse, to mask logits at input size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.nets.attentionunet import AttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from models.training.architectures.aspp import PyramidPooling
from models.training.architectures.attention import SqueezeExcitation
from models.training.architectures.efficientnet_lite import SeparableConvolution


def enlarged(features: Tensor, factor: float) -> Tensor:
    """[N, C, h, w] to [N, C, factor h, factor w], bilinear."""
    return F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)


class UpsamplingDecoder(nn.Module):
    """From the last feature map alone, by doublings, to stride 4: for networks that are made to classify.

    The outline is as coarse as the map allows.

    Args:
        channels: of the last map.
        stride: of the last map.
        width: channels while doubling.
    """

    def __init__(self, channels: int, stride: int, width: int) -> None:
        super().__init__()
        self.entry = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        steps = (stride // 4).bit_length() - 1
        self.refine = nn.ModuleList(SeparableConvolution(width, width) for _ in range(steps))
        self.logit = nn.Conv2d(width, 1, 1)
        self.rest = stride / 2**steps

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps to [N, 1, S, S]."""
        x = self.entry(features[-1])
        for refine in self.refine:
            x = refine(enlarged(x, 2))
        return enlarged(self.logit(x), self.rest)


class GatedDecoder(nn.Module):
    """Pyramid pooling on the deepest map, then up over attention-gated skips with squeeze-and-excitation at each step.

    Gates: Oktay et al., "Attention U-Net", arXiv:1804.03999: the coarser map says where a skip is let through.
    Squeeze-and-excitation: Hu et al., arXiv:1709.01507.

    Args:
        channels: of the maps, fine to coarse.
        strides: of the maps; each twice the one before.
        width: after pyramid pooling; it shrinks by a quarter per step.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int) -> None:
        super().__init__()
        self.context = PyramidPooling(channels[-1], width, rates=(1, 2, 4))
        skips = list(reversed(channels[:-1]))
        widths = [width, *(max(16, width - (step + 1) * width // 4) for step in range(len(skips)))]
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(skip, coarse, 1, bias=False), nn.BatchNorm2d(coarse), nn.ReLU(inplace=True))
            for skip, coarse in zip(skips, widths[:-1], strict=True)
        )
        self.gates = nn.ModuleList(
            AttentionBlock(2, f_int=max(8, coarse // 2), f_g=coarse, f_l=coarse) for coarse in widths[:-1]
        )
        self.refine = nn.ModuleList(
            nn.Sequential(SeparableConvolution(2 * coarse, fine), SeparableConvolution(fine, fine))
            for coarse, fine in pairwise(widths)
        )
        self.excite = nn.ModuleList(SqueezeExcitation(fine, max(4, fine // 8)) for fine in widths[1:])
        self.logit = nn.Conv2d(widths[-1], 1, 1)
        self.factors = [coarse / fine for fine, coarse in zip(reversed(strides[:-1]), reversed(strides), strict=False)]
        self.rest = strides[0]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps to [N, 1, S, S]."""
        x = self.context(features[-1])
        steps = zip(self.lateral, self.gates, self.refine, self.excite, self.factors, strict=True)
        for (lateral, gate, refine, excite, factor), skip in zip(steps, reversed(features[:-1]), strict=True):
            x = enlarged(x, factor)
            x = excite(refine(torch.cat([x, gate(g=x, x=lateral(skip))], dim=1)))
        return enlarged(self.logit(x), self.rest)


class DeepLabDecoder(nn.Module):
    """DeepLabV3+: pyramid pooling at stride 16, joined with 48 channels of the finest map (arXiv:1802.02611).

    Args:
        channels: of the finest and of the coarsest map.
        strides: of the finest and of the coarsest map.
        width: of the pooled context.
        low_level: channels kept of the finest map.
    """

    def __init__(self, channels: tuple[int, int], strides: tuple[int, int], width: int, low_level: int = 48) -> None:
        super().__init__()
        self.context = PyramidPooling(channels[1], width, rates=(6, 12, 18))
        self.low_level = nn.Sequential(
            nn.Conv2d(channels[0], low_level, 1, bias=False), nn.BatchNorm2d(low_level), nn.ReLU(inplace=True)
        )
        self.refine = nn.Sequential(SeparableConvolution(width + low_level, width), SeparableConvolution(width, width))
        self.logit = nn.Conv2d(width, 1, 1)
        self.factor = strides[1] / strides[0]
        self.rest = strides[0]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps to [N, 1, S, S]."""
        context = enlarged(self.context(features[-1]), self.factor)
        joined = torch.cat([context, self.low_level(features[0])], dim=1)
        return enlarged(self.logit(self.refine(joined)), self.rest)
