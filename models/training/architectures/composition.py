"""One encoder, read by a mask decoder and by a classification head: how most networks of the zoo are put together."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from torch import Tensor, nn

from models.training.architectures.contract import NetworkOutputs
from models.training.configuration import Architecture


class FeatureEncoder(nn.Module):
    """Image [N, 3, S, S] to feature maps from fine to coarse.

    ``channels`` and ``strides`` describe the maps: map ``i`` is [N, channels[i], S / strides[i], S / strides[i]].
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def forward(self, image: Tensor) -> list[Tensor]:
        """The feature maps, fine to coarse; the head reads the last one."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """What ``frozen_blocks`` counts, from the image on; the first entry is the stem."""
        raise NotImplementedError


class SharedEncoderNetwork(nn.Module):
    """Answers :class:`~models.training.architectures.contract.LesionNetwork` from three parts.

    Args:
        encoder: see :class:`FeatureEncoder`.
        decoder: takes the list of feature maps, gives mask logits [N, 1, S, S].
        head: takes the last feature map, gives class logits, activation map and embedding; has ``shift``.
        options: ``frozen_blocks`` acts where ``started`` alone: frozen random weights would learn nothing.
        started: whether the encoder holds pretrained weights.
    """

    def __init__(
        self, encoder: FeatureEncoder, decoder: nn.Module, head: nn.Module, options: Architecture, started: bool
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = head
        self.started = started
        if started and options.frozen_blocks:
            for part in encoder.blocks()[: options.frozen_blocks + 1]:
                part.requires_grad_(False)

    def forward(self, image: Tensor) -> NetworkOutputs:
        """Normalised RGB [N, 3, S, S], S a multiple of 32, to the four outputs."""
        features = self.encoder(image)
        class_logits, activation_map, embedding = self.head(features[-1])
        return NetworkOutputs(self.decoder(features), class_logits, activation_map, embedding)

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """The encoder, as far as it trains, where it holds pretrained weights."""
        return (parameter for parameter in self.encoder.parameters() if self.started and parameter.requires_grad)

    def fresh_parameters(self) -> Iterator[nn.Parameter]:
        """Decoder and head, and an encoder that starts from random values."""
        parts = [self.decoder, self.head] if self.started else [self.encoder, self.decoder, self.head]
        return chain.from_iterable(part.parameters() for part in parts)

    def shift_class_logits(self, bias: list[float]) -> None:
        """Add ``bias`` [classes] to the classifier's bias."""
        self.head.shift(bias)


def initialise_convolutions(module: nn.Module) -> None:
    """He initialisation (arXiv:1502.01852) of convolutions and identity norms, for encoders that train from scratch."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
            nn.init.zeros_(part.bias)
