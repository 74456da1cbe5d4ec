"""Swin-T (Liu et al., arXiv:2103.14030) from transformers: the classifier, with a small mask decoder."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import SwinConfig, SwinModel

from models.training.architectures.composition import FeatureEncoder, SharedEncoderNetwork
from models.training.architectures.decoders import UpsamplingDecoder
from models.training.architectures.heads import PooledHead
from models.training.architectures.sizes import repeated
from models.training.architectures.weights import start_encoder
from models.training.configuration import Architecture

HEAD_WIDTH = 32
HEADS = 3
DEPTHS = (2, 2, 6, 2)
PATCH = 4


class WindowEncoder(FeatureEncoder):
    """The last stage's normalised output at stride 32.

    Windows keep their size on small maps (these are padded): transformers would shrink them for good in the first
    pass. A map no larger than one window is not shifted, as in the paper's own code.
    """

    def __init__(self, model: SwinModel) -> None:
        super().__init__()
        self.embeddings = model.embeddings
        self.stages = model.encoder.layers
        self.norm = model.layernorm
        self.window = int(model.config.window_size)
        self.channels = (model.num_features,)
        self.strides = (32,)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, S, S] to one map [N, C, S / 32, S / 32]."""
        x, _ = self.embeddings(image)
        side = int(image.shape[-1]) // PATCH
        for stage in self.stages:
            for index, block in enumerate(stage.blocks):
                block.shift_size = self.window // 2 if index % 2 and side > self.window else 0
            x, _, _ = stage(x, (side, side), always_partition=True)
            if stage.downsample is not None:
                side = (side + 1) // 2
        return [self.norm(x).transpose(1, 2).unflatten(2, (side, side))]

    def blocks(self) -> list[nn.Module]:
        """Patch embedding, then every block."""
        return [self.embeddings, *(block for stage in self.stages for block in stage.blocks)]


def build_swin_t(options: Architecture) -> nn.Module:
    """96 channels and 2, 2, 6, 2 blocks, times ``width`` and ``depth``.

    Hub id for ``weights``: ``microsoft/swin-tiny-patch4-window7-224``.
    """
    heads = repeated(HEADS, options.width)
    configuration = SwinConfig(
        embed_dim=HEAD_WIDTH * heads,
        num_heads=[heads * 2**stage for stage in range(len(DEPTHS))],
        depths=[repeated(deep, options.depth) for deep in DEPTHS],
        attn_implementation="eager",
    )
    model = SwinModel(configuration, add_pooling_layer=False)
    started = start_encoder(model, options, add_pooling_layer=False)
    encoder = WindowEncoder(model)
    decoder = UpsamplingDecoder(encoder.channels[-1], 32, options.decoder_width)
    head = PooledHead(encoder.channels[-1], options.classes, options.dropout)
    return SharedEncoderNetwork(encoder, decoder, head, options, started)
