"""ResNet-50 (He et al., arXiv:1512.03385) from transformers: the classifier, and the encoder of other networks."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import ResNetConfig, ResNetModel

from models.training.architectures.composition import FeatureEncoder, SharedEncoderNetwork
from models.training.architectures.decoders import UpsamplingDecoder
from models.training.architectures.heads import PooledHead
from models.training.architectures.sizes import repeated, scaled
from models.training.architectures.weights import start_encoder
from models.training.configuration import Architecture

STAGES = ((256, 3), (512, 4), (1024, 6), (2048, 3))


class ResNetEncoder(FeatureEncoder):
    """The stages' outputs at strides 4, 8, 16 and 32.

    Args:
        options: ``width``, ``depth``, ``pretrained``, ``weights`` (hub id: ``microsoft/resnet-50``).
        stages: how many of the four stages to keep.
        dilated: the last stage keeps stride 16 and dilates its 3x3 convolutions by 2 instead (arXiv:1706.05587).
    """

    def __init__(self, options: Architecture, stages: int = 4, dilated: bool = False) -> None:
        super().__init__()
        # Bottlenecks are a quarter as wide.
        channels = [scaled(wide, options.width, 32) for wide, _ in STAGES]
        model = ResNetModel(
            ResNetConfig(
                embedding_size=scaled(64, options.width),
                hidden_sizes=channels,
                depths=[repeated(deep, options.depth) for _, deep in STAGES],
            )
        )
        self.started = start_encoder(model, options)
        self.stem = model.embedder
        self.stages = model.encoder.stages[:stages]
        self.channels = tuple(channels[:stages])
        self.strides = (4, 8, 16, 32)[:stages]
        if dilated:
            _dilate(self.stages[-1])
            self.strides = (*self.strides[:-1], self.strides[-2])

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, S, S] to the maps of :class:`FeatureEncoder`."""
        x = self.stem(image)
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features

    def blocks(self) -> list[nn.Module]:
        """Stem, then every bottleneck."""
        return [self.stem, *(layer for stage in self.stages for layer in stage.layers)]


def _dilate(stage: nn.Module) -> None:
    """Stride 1 in place of 2, and 3x3 convolutions dilated by 2; the weights stay as they are."""
    for convolution in (part for part in stage.modules() if isinstance(part, nn.Conv2d)):
        convolution.stride = (1, 1)
        if convolution.kernel_size == (3, 3):
            convolution.dilation = (2, 2)
            convolution.padding = (2, 2)


def build_resnet50(options: Architecture) -> nn.Module:
    """ResNet-50 with a pooled head and a small mask decoder over its last map."""
    encoder = ResNetEncoder(options)
    decoder = UpsamplingDecoder(encoder.channels[-1], encoder.strides[-1], options.decoder_width)
    head = PooledHead(encoder.channels[-1], options.classes, options.dropout)
    return SharedEncoderNetwork(encoder, decoder, head, options, encoder.started)
