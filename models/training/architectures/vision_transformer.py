"""ViT-B/16 (Dosovitskiy et al., arXiv:2010.11929) from transformers, explained by attention roll-out."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from models.training.architectures.composition import FeatureEncoder, SharedEncoderNetwork
from models.training.architectures.contract import NetworkOutputs
from models.training.architectures.decoders import UpsamplingDecoder
from models.training.architectures.heads import RolloutHead, attention_rollout
from models.training.architectures.sizes import repeated
from models.training.architectures.weights import start_encoder
from models.training.configuration import Architecture

PATCH = 16
HEAD_WIDTH = 64
HEADS = 12
LAYERS = 12


class PatchEncoder(FeatureEncoder):
    """Patches of 16 by 16 pixels through the layers, with the attention weights kept.

    Layer by layer, since transformers gives the weights out through hooks only, and the training loop runs one
    network in several threads. Position embeddings are those of 224 pixels, interpolated to other sizes.
    """

    def __init__(self, model: ViTModel) -> None:
        super().__init__()
        self.embeddings = model.embeddings
        self.layers = model.layers
        self.norm = model.layernorm
        self.channels = (model.config.hidden_size,)
        self.strides = (PATCH,)

    def tokens(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """[N, 3, S, S] to tokens [N, 1 + patches, C], class token first, and each layer's weights."""
        x = self.embeddings(image, interpolate_pos_encoding=int(image.shape[-1]) != self.embeddings.image_size[0])
        attentions: list[Tensor] = []
        for layer in self.layers:
            mixed, weights = layer.attention(layer.layernorm_before(x))
            attentions.append(weights)
            x = x + layer.dropout(mixed)
            x = x + layer.dropout(layer.mlp(layer.layernorm_after(x)))
        return self.norm(x), attentions

    def blocks(self) -> list[nn.Module]:
        """Embeddings, then every layer."""
        return [self.embeddings, *self.layers]


class VisionTransformer(SharedEncoderNetwork):
    """Class token to the diagnosis, patch tokens to the mask, attention to the map."""

    def forward(self, image: Tensor) -> NetworkOutputs:
        """Normalised RGB [N, 3, S, S], S a multiple of 32, to the four outputs."""
        tokens, attentions = self.encoder.tokens(image)
        side = int(image.shape[-1]) // PATCH
        patches = tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        places = attention_rollout(attentions).unflatten(1, (side, side))
        class_logits, activation_map, embedding = self.head(tokens[:, 0], places)
        return NetworkOutputs(self.decoder([patches]), class_logits, activation_map, embedding)


def build_vit_b16(options: Architecture) -> nn.Module:
    """Twelve layers of twelve heads, times ``depth`` and ``width`` (hub id: ``google/vit-base-patch16-224-in21k``)."""
    heads = repeated(HEADS, options.width)
    configuration = ViTConfig(
        hidden_size=HEAD_WIDTH * heads,
        num_attention_heads=heads,
        intermediate_size=4 * HEAD_WIDTH * heads,
        num_hidden_layers=repeated(LAYERS, options.depth),
        attn_implementation="eager",
    )
    model = ViTModel(configuration, add_pooling_layer=False)
    started = start_encoder(model, options, add_pooling_layer=False)
    encoder = PatchEncoder(model)
    decoder = UpsamplingDecoder(encoder.channels[-1], PATCH, options.decoder_width)
    head = RolloutHead(encoder.channels[-1], options.classes, options.dropout)
    return VisionTransformer(encoder, decoder, head, options, started)
