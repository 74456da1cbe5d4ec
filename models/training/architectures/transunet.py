"""A CNN-transformer hybrid after TransUNet (Chen et al., arXiv:2102.04306).

Three stages of ResNet-50 find local structure, transformer layers relate all places of the map at stride 16, and a
gated decoder goes up over the skips. Places know where they are through a depthwise convolution (Chu et al.,
arXiv:2102.10882), so any input size works. Eight layers of 384 channels: half as wide as the paper's, which was
trained from ImageNet-21k weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from transformers import ViTConfig
from transformers.models.vit.modeling_vit import ViTLayer

from models.training.architectures.composition import FeatureEncoder, SharedEncoderNetwork
from models.training.architectures.decoders import GatedDecoder
from models.training.architectures.heads import PooledHead
from models.training.architectures.resnet import ResNetEncoder
from models.training.architectures.sizes import repeated
from models.training.configuration import Architecture

HEAD_WIDTH = 64
HEADS = 6
LAYERS = 8


class HybridEncoder(FeatureEncoder):
    """Convolutions to strides 4, 8 and 16; the map at stride 16 then passes the transformer."""

    def __init__(self, options: Architecture) -> None:
        super().__init__()
        self.convolutional = ResNetEncoder(options, stages=3)
        self.started = self.convolutional.started
        heads = repeated(HEADS, options.width)
        channels = HEAD_WIDTH * heads
        configuration = ViTConfig(
            hidden_size=channels,
            num_attention_heads=heads,
            intermediate_size=4 * channels,
            attn_implementation="eager",
        )
        self.entry = nn.Conv2d(self.convolutional.channels[-1], channels, 1)
        self.place = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.layers = nn.ModuleList(ViTLayer(configuration) for _ in range(repeated(LAYERS, options.depth)))
        self.norm = nn.LayerNorm(channels)
        self.channels = (*self.convolutional.channels[:-1], channels)
        self.strides = self.convolutional.strides

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, S, S] to the maps of :class:`FeatureEncoder`."""
        *skips, deepest = self.convolutional(image)
        x = self.entry(deepest)
        x = x + self.place(x)
        side = int(image.shape[-1]) // self.strides[-1]
        tokens = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens)
        return [*skips, self.norm(tokens).transpose(1, 2).unflatten(2, (side, side))]

    def blocks(self) -> list[nn.Module]:
        """The convolutional part's blocks: the only ones that can start from weights."""
        return self.convolutional.blocks()


class HybridNetwork(SharedEncoderNetwork):
    """The transformer is always fresh; the convolutional part may start from ResNet-50 weights."""

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """The convolutional part, as far as it trains, where it holds pretrained weights."""
        parameters = self.encoder.convolutional.parameters()
        return (parameter for parameter in parameters if self.started and parameter.requires_grad)

    def fresh_parameters(self) -> Iterator[nn.Parameter]:
        """Everything else."""
        pretrained = {id(parameter) for parameter in self.encoder.convolutional.parameters()} if self.started else set()
        return (parameter for parameter in self.parameters() if id(parameter) not in pretrained)


def build_transunet(options: Architecture) -> nn.Module:
    """The hybrid encoder, a gated decoder and a pooled head."""
    encoder = HybridEncoder(options)
    decoder = GatedDecoder(encoder.channels, encoder.strides, options.decoder_width)
    head = PooledHead(encoder.channels[-1], options.classes, options.dropout)
    return HybridNetwork(encoder, decoder, head, options, encoder.started)
