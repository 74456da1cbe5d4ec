"""The options ``width`` and ``depth``: smaller and larger networks of one design."""

from __future__ import annotations

from models.training.configuration import Architecture, ConfigurationInvalid


def scaled(channels: int, factor: float, divisor: int = 8) -> int:
    """``channels`` times ``factor``, to the nearest multiple of ``divisor`` that takes no more than a tenth away."""
    wanted = channels * factor
    rounded = max(divisor, divisor * int(wanted / divisor + 0.5))
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def repeated(blocks: int, factor: float) -> int:
    """``blocks`` of a stage times ``factor``, at least one."""
    return max(1, round(blocks * factor))


def refuse_scaling(options: Architecture, *fields: str) -> None:
    """Refuse ``width`` or ``depth`` where the network has one size only: an option without effect is a mistake.

    Raises:
        ConfigurationInvalid: a field differs from 1.
    """
    for field in fields:
        if getattr(options, field) != 1.0:
            raise ConfigurationInvalid(f"architecture.{field}: {options.name} has a fixed {field}; leave it at 1")
