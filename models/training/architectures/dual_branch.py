"""Dual-branch EfficientNet: one encoder, a branch that outlines and a branch that diagnoses.

The outlining branch pools the deepest map at several scales and goes up over attention-gated skips with
squeeze-and-excitation; the diagnosing branch weighs the deepest channels by squeeze-and-excitation and pools them.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from models.training.architectures.composition import FeatureEncoder, SharedEncoderNetwork
from models.training.architectures.decoders import GatedDecoder
from models.training.architectures.efficientnet import EfficientNetB0Encoder
from models.training.architectures.efficientnet_lite import (
    EMBEDDING,
    SKIPS,
    InvertedResidual,
    NormFoldedConvolution,
    lite0_encoder,
)
from models.training.architectures.heads import PooledHead
from models.training.architectures.sizes import refuse_scaling
from models.training.configuration import Architecture

#: Reduction of the diagnosing branch's squeeze-and-excitation.
SQUEEZE = 16


class Lite0Encoder(FeatureEncoder):
    """EfficientNet-Lite0 with folded norms: skips at strides 4, 8 and 16, the top convolution at stride 32."""

    def __init__(self, options: Architecture) -> None:
        super().__init__()
        encoder = lite0_encoder(options)
        self.stem = NormFoldedConvolution(encoder._conv_stem, encoder._bn0)
        self.body = nn.ModuleList(InvertedResidual(block) for block in encoder._blocks)
        self.top = NormFoldedConvolution(encoder._conv_head, encoder._bn1)
        self.channels = (*(channels for channels, _ in SKIPS.values()), EMBEDDING)
        self.strides = (*(stride for _, stride in SKIPS.values()), 32)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, S, S] to the maps of :class:`FeatureEncoder`."""
        x = F.relu6(self.stem(image), inplace=True)
        features: list[Tensor] = []
        for index, block in enumerate(self.body):
            x = block(x)
            if index in SKIPS:
                features.append(x)
        return [*features, F.relu6(self.top(x))]

    def blocks(self) -> list[nn.Module]:
        """Stem, then every inverted residual."""
        return [self.stem, *self.body]


def build_dual_branch_lite0(options: Architecture) -> nn.Module:
    """On EfficientNet-Lite0, with its ImageNet weights where ``options.pretrained``."""
    refuse_scaling(options, "width", "depth")
    return _with_branches(Lite0Encoder(options), options, options.pretrained)


def build_dual_branch_b0(options: Architecture) -> nn.Module:
    """On EfficientNet-B0, which has squeeze-and-excitation in every block too."""
    encoder = EfficientNetB0Encoder(options)
    return _with_branches(encoder, options, encoder.started)


def _with_branches(encoder: FeatureEncoder, options: Architecture, started: bool) -> nn.Module:
    decoder = GatedDecoder(encoder.channels, encoder.strides, options.decoder_width)
    head = PooledHead(encoder.channels[-1], options.classes, options.dropout, squeeze=SQUEEZE)
    return SharedEncoderNetwork(encoder, decoder, head, options, started)
