"""How much is measured: ``full`` for figures to report, ``small`` to see in two minutes that everything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Size:
    """Counts of one run. Every figure is the median of ``repeats`` measurements, taken in turns with its peers."""

    repeats: int
    batch: int
    """Images of one end-to-end run."""
    batch_postgres_repeats: int
    objects: int
    """Objects of one ingest run; of large ones a fifth."""
    endurance: int
    """Objects that one listener takes while its memory is watched."""
    cards_stored: int
    cards_few: int
    """Stored analyses of the flatness check."""
    analyses_per_patient: int
    card_calls: int
    starts: int
    warm_images: int
    """Images that the service works off before its memory is read a second time."""
    room_rounds: int
    inferences: int
    """Images that go through the network in each case, whatever the batch."""
    analyses: int


SIZES: Mapping[str, Size] = MappingProxyType(
    {
        "full": Size(3, 100, 3, 100, 100_000, 10_000, 100, 5, 1000, 3, 50, 30, 400, 100),
        "small": Size(1, 6, 1, 20, 1_000, 1_000, 100, 5, 100, 1, 3, 3, 32, 5),
    }
)
