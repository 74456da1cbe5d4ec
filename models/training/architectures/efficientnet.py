"""EfficientNet-B0 (Tan & Le, arXiv:1905.11946) from transformers: the classifier, and an encoder with skips."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import EfficientNetConfig, EfficientNetModel

from models.training.architectures.composition import FeatureEncoder, SharedEncoderNetwork, initialise_convolutions
from models.training.architectures.decoders import UpsamplingDecoder
from models.training.architectures.heads import PooledHead
from models.training.architectures.sizes import scaled
from models.training.architectures.weights import start_encoder
from models.training.configuration import Architecture


class EfficientNetB0Encoder(FeatureEncoder):
    """Maps before each halving at strides 4, 8 and 16, and the top convolution's output at stride 32.

    Args:
        options: ``width``, ``depth``, ``pretrained``, ``weights`` (hub id: ``google/efficientnet-b0``).
    """

    def __init__(self, options: Architecture) -> None:
        super().__init__()
        top = scaled(1280, options.width)
        configuration = EfficientNetConfig(
            width_coefficient=options.width, depth_coefficient=options.depth, hidden_dim=top, dropout_rate=0.2
        )
        model = EfficientNetModel(configuration)
        initialise_convolutions(model)
        self.started = start_encoder(model, options)
        self.stem = model.embeddings
        self.body = model.encoder.blocks
        self.top = nn.Sequential(model.encoder.top_conv, model.encoder.top_bn, model.encoder.top_activation)
        halving = [index for index, block in enumerate(self.body) if block.depthwise_conv.stride == 2]
        #: The blocks whose outputs are halved next, but for the finest (stride 2).
        self.skips = [index - 1 for index in halving[1:]]
        widths = [int(self.body[index].projection.project_bn.num_features) for index in self.skips]
        self.channels = (*widths, top)
        self.strides = (4, 8, 16, 32)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, S, S] to the maps of :class:`FeatureEncoder`."""
        x = self.stem(image)
        features: list[Tensor] = []
        for index, block in enumerate(self.body):
            x = block(x)
            if index in self.skips:
                features.append(x)
        return [*features, self.top(x)]

    def blocks(self) -> list[nn.Module]:
        """Stem, then every inverted residual."""
        return [self.stem, *self.body]


def build_efficientnet_b0(options: Architecture) -> nn.Module:
    """EfficientNet-B0 with a pooled head and a small mask decoder over its last map."""
    encoder = EfficientNetB0Encoder(options)
    decoder = UpsamplingDecoder(encoder.channels[-1], 32, options.decoder_width)
    head = PooledHead(encoder.channels[-1], options.classes, options.dropout)
    return SharedEncoderNetwork(encoder, decoder, head, options, encoder.started)
