"""U-Net (Ronneberger et al., arXiv:1505.04597) from monai, with batch norm; the deepest map is also classified."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.nets import BasicUNet
from torch import Tensor, nn

from models.training.architectures.composition import FeatureEncoder, SharedEncoderNetwork
from models.training.architectures.heads import PooledHead
from models.training.architectures.sizes import refuse_scaling, scaled
from models.training.architectures.weights import start_encoder
from models.training.configuration import Architecture

CHANNELS = (64, 128, 256, 512, 1024)


class ContractingPath(FeatureEncoder):
    """The downward half, at strides 1 to 16."""

    def __init__(self, network: BasicUNet, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.steps = nn.ModuleList([network.conv_0, network.down_1, network.down_2, network.down_3, network.down_4])
        self.channels = channels
        self.strides = (1, 2, 4, 8, 16)

    def forward(self, image: Tensor) -> list[Tensor]:
        """[N, 3, S, S] to the maps of :class:`FeatureEncoder`."""
        features = [image]
        for step in self.steps:
            features.append(step(features[-1]))
        return features[1:]

    def blocks(self) -> list[nn.Module]:
        """The five steps."""
        return list(self.steps)


class ExpandingPath(nn.Module):
    """The upward half, over every skip."""

    def __init__(self, network: BasicUNet) -> None:
        super().__init__()
        self.steps = nn.ModuleList([network.upcat_4, network.upcat_3, network.upcat_2, network.upcat_1])
        self.logit = network.final_conv

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Feature maps to [N, 1, S, S]."""
        x = features[-1]
        for step, skip in zip(self.steps, reversed(features[:-1]), strict=True):
            x = step(x, skip)
        return self.logit(x)


def build_unet(options: Architecture) -> nn.Module:
    """U-Net of 64 to 1024 channels, times ``width``."""
    refuse_scaling(options, "depth")
    channels = tuple(scaled(wide, options.width) for wide in CHANNELS)
    network = BasicUNet(
        spatial_dims=2, in_channels=3, out_channels=1, features=(*channels, channels[0]), act="relu", norm="batch"
    )
    started = start_encoder(network, options)
    head = PooledHead(channels[-1], options.classes, options.dropout)
    return SharedEncoderNetwork(ContractingPath(network, channels), ExpandingPath(network), head, options, started)
