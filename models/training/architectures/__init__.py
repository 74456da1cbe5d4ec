"""The architecture zoo: one entry per network, named by a configuration's ``architecture.name``.

To add one: write ``architectures/<name>.py`` with a builder that returns a module answering
:class:`~models.training.architectures.contract.LesionNetwork`, and put one line into :data:`ARCHITECTURES`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from models.training.architectures.efficientnet_lite import build_efficientnet_lite0
from models.training.configuration import Architecture, ConfigurationInvalid

__all__ = ["ARCHITECTURES", "build_network"]

ARCHITECTURES: dict[str, Callable[[Architecture], nn.Module]] = {
    "efficientnet-lite0": build_efficientnet_lite0,
}


def build_network(options: Architecture) -> nn.Module:
    """Build the network that a configuration names.

    Raises:
        ConfigurationInvalid: the zoo has no such architecture; the message lists those that it has.
    """
    if options.name not in ARCHITECTURES:
        raise ConfigurationInvalid(
            f"architecture.name: no architecture {options.name!r}; there is: {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[options.name](options)
