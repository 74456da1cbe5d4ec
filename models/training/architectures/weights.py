"""Encoder weights that a user names: a file on disk, a folder that transformers saved, or a hub id.

Nothing here is needed offline: without ``architecture.weights`` no network of the zoo but the EfficientNet-Lite0 ones
(their weights come in a package) starts from anything but random values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.training.configuration import Architecture, ConfigurationInvalid


def start_encoder(encoder: nn.Module, options: Architecture, **construction: Any) -> bool:
    """Load the encoder's weights as the options say; whether it now starts from pretrained ones.

    Args:
        encoder: a model of transformers, or any module whose state a file can hold.
        options: ``pretrained`` and ``weights`` decide.
        construction: further arguments of the encoder's class, for transformers to build it alike.

    Raises:
        ConfigurationInvalid: weights are wanted and there are none, or they do not fit.
    """
    if not options.pretrained:
        return False
    if options.weights is None:
        raise ConfigurationInvalid(
            f"architecture.pretrained: no package carries weights of {options.name}; set it to false, or name a file, "
            "a folder or a hub id in architecture.weights"
        )
    if Path(options.weights).is_file():
        _load_file(encoder, Path(options.weights))
    elif hasattr(encoder, "from_pretrained"):
        _load_hub(encoder, options.weights, construction)
    else:
        raise ConfigurationInvalid(f"architecture.weights: {options.weights} is no file; {options.name} takes a file")
    return True


def _load_file(encoder: nn.Module, path: Path) -> None:
    """A state dict saved by torch or as safetensors; keys may carry the prefix of a whole model."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    wanted = encoder.state_dict()
    prefixes = ("", "module.", f"{getattr(encoder, 'base_model_prefix', 'encoder')}.")
    prefix = max(prefixes, key=lambda some: sum(some + key in state for key in wanted))
    missing = [key for key in wanted if prefix + key not in state]
    if missing:
        raise ConfigurationInvalid(f"architecture.weights: {path} lacks {len(missing)} tensors, first {missing[0]}")
    try:
        encoder.load_state_dict({key: state[prefix + key] for key in wanted})
    except RuntimeError as error:
        raise ConfigurationInvalid(f"architecture.weights: {path} does not fit: {error}") from error


def _load_hub(encoder: nn.Module, source: str, construction: dict[str, Any]) -> None:
    """A folder or hub id, through transformers; every tensor of the encoder must be in it."""
    try:
        model, report = type(encoder).from_pretrained(
            source, config=encoder.config, output_loading_info=True, **construction
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigurationInvalid(f"architecture.weights: cannot load {source}: {error}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ConfigurationInvalid(f"architecture.weights: {source} lacks {len(missing)} tensors, first {missing[0]}")
    encoder.load_state_dict(model.state_dict())
