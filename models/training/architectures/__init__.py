"""The architecture zoo: one entry per network, named by a configuration's ``architecture.name``.

To add one: write ``architectures/<name>.py`` with a builder that returns a module answering
:class:`~models.training.architectures.contract.LesionNetwork`, and put one line into :data:`ARCHITECTURES`.
``docs/model-zoo.md`` says what each network is and what it costs.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from torch import nn

from models.training.configuration import Architecture, ConfigurationInvalid

__all__ = ["ARCHITECTURES", "build_network"]

#: Builder of each network, as ``module:function`` of this package: importing all of transformers and monai takes
#: many seconds, and a run builds one network.
ARCHITECTURES: dict[str, str] = {
    # made for both tasks
    "efficientnet-lite0": "efficientnet_lite:build_efficientnet_lite0",
    "dual-branch-efficientnet-lite0": "dual_branch:build_dual_branch_lite0",
    "dual-branch-efficientnet-b0": "dual_branch:build_dual_branch_b0",
    # made to outline; a pooled head on the deepest map
    "unet": "unet:build_unet",
    "attention-residual-unet": "attention_unet:build_attention_residual_unet",
    "deeplabv3-plus": "deeplab:build_deeplabv3_plus",
    "segformer-b0": "segformer:build_segformer_b0",
    "segformer-b2": "segformer:build_segformer_b2",
    "transunet": "transunet:build_transunet",
    # made to classify; a small mask decoder over the last map
    "mobilenet-v3-small": "mobilenet_v3:build_mobilenet_v3_small",
    "mobilenet-v3-large": "mobilenet_v3:build_mobilenet_v3_large",
    "efficientnet-b0": "efficientnet:build_efficientnet_b0",
    "resnet50": "resnet:build_resnet50",
    "swin-t": "swin:build_swin_t",
    "vit-b16": "vision_transformer:build_vit_b16",
}


def build_network(options: Architecture) -> nn.Module:
    """Build the network that a configuration names.

    Raises:
        ConfigurationInvalid: the zoo has no such architecture (the message lists those that it has), or an option
            does not suit it.
    """
    if options.name not in ARCHITECTURES:
        raise ConfigurationInvalid(
            f"architecture.name: no architecture {options.name!r}; there is: {', '.join(ARCHITECTURES)}"
        )
    module, function = ARCHITECTURES[options.name].split(":")
    build = getattr(import_module(f"{__name__}.{module}"), function)
    return cast(Callable[[Architecture], nn.Module], build)(options)
