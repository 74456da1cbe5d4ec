"""SegFormer (Xie et al., arXiv:2105.15203) from transformers: mix transformer encoder, all-MLP mask decoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from transformers import SegformerConfig, SegformerModel
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

from models.training.architectures.composition import FeatureEncoder, SharedEncoderNetwork
from models.training.architectures.decoders import enlarged
from models.training.architectures.heads import PooledHead
from models.training.architectures.sizes import repeated
from models.training.architectures.weights import start_encoder
from models.training.configuration import Architecture

#: Heads of each stage; a head is 32 channels wide in B0 and 64 in B2 (table 6 of the paper).
HEADS = (1, 2, 5, 8)


class MixTransformerEncoder(FeatureEncoder):
    """The four stages at strides 4, 8, 16 and 32."""

    def __init__(self, model: SegformerModel, channels: Sequence[int]) -> None:
        super().__init__()
        self.stages = model.stages
        self.channels = tuple(channels)
        self.strides = (4, 8, 16, 32)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, S, S] to the maps of :class:`FeatureEncoder`."""
        features = [image]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]

    def blocks(self) -> list[nn.Module]:
        """The four stages; the first one holds the stem."""
        return list(self.stages)


class AllMLPDecoder(nn.Module):
    """transformers' decode head, brought from stride 4 to input size."""

    def __init__(self, configuration: SegformerConfig) -> None:
        super().__init__()
        self.head = SegformerDecodeHead(configuration)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps to [N, 1, S, S]."""
        return enlarged(self.head(tuple(features)), 4)


def _build(options: Architecture, head_width: int, depths: tuple[int, ...], decoder: int) -> nn.Module:
    """A SegFormer with heads of ``head_width`` channels and ``depths`` blocks per stage."""
    wide = max(8, 8 * round(head_width * options.width / 8))
    channels = [heads * wide for heads in HEADS]
    configuration = SegformerConfig(
        hidden_sizes=channels,
        num_attention_heads=list(HEADS),
        depths=[repeated(deep, options.depth) for deep in depths],
        decoder_hidden_size=max(16, round(decoder * options.width)),
        num_labels=1,
        attn_implementation="eager",
    )
    model = SegformerModel(configuration)
    started = start_encoder(model, options)
    head = PooledHead(channels[-1], options.classes, options.dropout)
    return SharedEncoderNetwork(
        MixTransformerEncoder(model, channels), AllMLPDecoder(configuration), head, options, started
    )


#: Hub id for ``weights``: ``nvidia/mit-b0``.
build_segformer_b0 = partial(_build, head_width=32, depths=(2, 2, 2, 2), decoder=256)
#: Hub id for ``weights``: ``nvidia/mit-b2``.
build_segformer_b2 = partial(_build, head_width=64, depths=(3, 4, 6, 3), decoder=768)
