"""Squeeze-and-excitation: channels weighed by what the whole map shows.

Not monai's layer: its reshape fixes the batch size in the exported graph.
"""

from __future__ import annotations

from torch import Tensor, nn


class SqueezeExcitation(nn.Module):
    """Means over places, two 1x1 convolutions, a gate per channel (Hu et al., arXiv:1709.01507).

    Args:
        channels: of the map.
        squeezed: of the hidden layer.
        gate: from any number to 0..1; a sigmoid by default.
    """

    def __init__(self, channels: int, squeezed: int, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU(inplace=True)
        self.scale_activation = gate or nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same."""
        weight = self.fc2(self.activation(self.fc1(x.mean(dim=(2, 3), keepdim=True))))
        return x * self.scale_activation(weight)
