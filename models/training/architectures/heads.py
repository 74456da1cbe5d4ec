"""Classification heads: pooled features with exact class activation maps, and a class token with attention roll-out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.training.architectures.attention import SqueezeExcitation

HeadOutputs = tuple[Tensor, Tensor, Tensor]


class PooledHead(nn.Module):
    """Mean over places, dropout and one linear layer; its weights at each place are the class activation map.

    Args:
        channels: of the feature map; also the embedding's length.
        classes: number of classes.
        dropout: on the pooled vector.
        squeeze: reduction ratio of a squeeze-and-excitation layer (Hu et al., arXiv:1709.01507) before pooling.
    """

    def __init__(self, channels: int, classes: int, dropout: float, squeeze: int | None = None) -> None:
        super().__init__()
        self.squeeze = SqueezeExcitation(channels, channels // squeeze) if squeeze else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, features: Tensor) -> HeadOutputs:
        """[N, C, h, w] to class logits [N, K], activation map [N, K, h, w] and embedding [N, C]."""
        features = self.squeeze(features)
        embedding = features.mean(dim=(2, 3))
        weight = self.classifier.weight
        class_logits = F.linear(self.dropout(embedding), weight.flatten(1), self.classifier.bias)
        return class_logits, F.conv2d(features, weight), embedding

    def shift(self, bias: list[float]) -> None:
        """Add ``bias`` [K] to the class logits, for good."""
        with torch.no_grad():
            self.classifier.bias += self.classifier.bias.new_tensor(bias)


class RolloutHead(nn.Module):
    """A linear layer on the class token; the map spreads each class's evidence over the places that were attended to.

    The roll-out knows no classes. It is scaled to a mean of 1 and multiplied with each class's evidence (logit without
    bias), so the map's mean plus the bias is the logit here too, and the difference between two classes is hottest
    where the attention is.
    """

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, token: Tensor, attention: Tensor) -> HeadOutputs:
        """Class token [N, C] and roll-out [N, h, w] to class logits, activation map and embedding."""
        class_logits = self.classifier(self.dropout(token))
        evidence = F.linear(token, self.classifier.weight)
        places = attention / attention.mean(dim=(1, 2), keepdim=True)
        return class_logits, evidence[:, :, None, None] * places[:, None], token

    def shift(self, bias: list[float]) -> None:
        """Add ``bias`` [K] to the class logits, for good."""
        with torch.no_grad():
            self.classifier.bias += self.classifier.bias.new_tensor(bias)


def attention_rollout(attentions: Sequence[Tensor]) -> Tensor:
    """How much each patch reached the class token through all layers, [N, tokens - 1], summing to less than 1.

    Heads are averaged, the residual path counts as half, and the layers are multiplied (Abnar & Zuidema,
    arXiv:2005.00928). Only the class token's row is carried back, from the last layer to the first: the same
    product, without the full matrices.

    Args:
        attentions: softmax weights of each layer from first to last, [N, heads, tokens, tokens]; token 0 is the class.
    """
    row: Tensor | None = None
    for attention in reversed(attentions):
        mean = attention.detach().float().mean(dim=1)
        if row is None:
            row = torch.zeros_like(mean[:, :1])
            row[:, :, 0] = 1.0
        row = 0.5 * row + 0.5 * (row @ mean)
    assert row is not None
    return row[:, 0, 1:]
