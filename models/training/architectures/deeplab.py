"""DeepLabV3+ (Chen et al., arXiv:1802.02611) on ResNet-50 at output stride 16."""

from __future__ import annotations

from torch import nn

from models.training.architectures.composition import SharedEncoderNetwork
from models.training.architectures.decoders import DeepLabDecoder
from models.training.architectures.heads import PooledHead
from models.training.architectures.resnet import ResNetEncoder
from models.training.configuration import Architecture


def build_deeplabv3_plus(options: Architecture) -> nn.Module:
    """Dilated ResNet-50, pyramid pooling and the finest map for the mask, a pooled head for the diagnosis."""
    encoder = ResNetEncoder(options, dilated=True)
    decoder = DeepLabDecoder(
        (encoder.channels[0], encoder.channels[-1]), (encoder.strides[0], encoder.strides[-1]), options.decoder_width
    )
    head = PooledHead(encoder.channels[-1], options.classes, options.dropout)
    return SharedEncoderNetwork(encoder, decoder, head, options, encoder.started)
