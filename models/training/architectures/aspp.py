"""Atrous spatial pyramid pooling with separable convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PyramidPooling(nn.Module):
    """One place seen at several scales: a 1x1, three atrous 3x3 and the whole image, joined by a 1x1.

    Chen et al., "Encoder-Decoder with Atrous Separable Convolution", arXiv:1802.02611. The whole image's mean has no
    batch norm: in training it would see one value per image.

    Args:
        channels: of the feature map.
        width: of every branch and of the result.
        rates: dilations of the atrous branches, in places of the map.
    """

    def __init__(self, channels: int, width: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.point = _normed(nn.Conv2d(channels, width, 1, bias=False), width)
        self.atrous = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, groups=channels, bias=False),
                _normed(nn.Conv2d(channels, width, 1, bias=False), width),
            )
            for rate in rates
        )
        self.whole = nn.Sequential(nn.Conv2d(channels, width, 1), nn.ReLU(inplace=True))
        self.joined = _normed(nn.Conv2d(width * (len(rates) + 2), width, 1, bias=False), width)

    def forward(self, features: Tensor) -> Tensor:
        """[N, C, h, w] to [N, width, h, w]."""
        point = self.point(features)
        whole = self.whole(features.mean(dim=(2, 3), keepdim=True)).expand_as(point)
        return self.joined(torch.cat([point, *(branch(features) for branch in self.atrous), whole], dim=1))


def _normed(convolution: nn.Conv2d, width: int) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
