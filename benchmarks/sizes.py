"""How much is measured: ``full``, ``medium`` where there is less time, ``small`` to see that everything runs."""

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
    arrivals: int
    """Signed calls that arrive at a steady rate."""
    arrivals_sqlite: int
    arrivals_postgres: int
    """Stored analyses meanwhile."""
    pages: int
    """Images whose review page is opened and whose bundle is delivered."""
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
        "full": Size(
            repeats=3,
            batch=100,
            batch_postgres_repeats=3,
            objects=100,
            endurance=100_000,
            cards_stored=10_000,
            cards_few=100,
            arrivals=4000,
            arrivals_sqlite=100_000,
            arrivals_postgres=1_000_000,
            pages=30,
            analyses_per_patient=5,
            card_calls=1000,
            starts=3,
            warm_images=50,
            room_rounds=30,
            inferences=400,
            analyses=100,
        ),
        "medium": Size(
            repeats=2,
            batch=40,
            batch_postgres_repeats=2,
            objects=60,
            endurance=10_000,
            cards_stored=10_000,
            cards_few=100,
            arrivals=2000,
            arrivals_sqlite=100_000,
            arrivals_postgres=1_000_000,
            pages=20,
            analyses_per_patient=5,
            card_calls=400,
            starts=2,
            warm_images=20,
            room_rounds=15,
            inferences=160,
            analyses=40,
        ),
        "small": Size(
            repeats=1,
            batch=6,
            batch_postgres_repeats=1,
            objects=20,
            endurance=1000,
            cards_stored=1000,
            cards_few=100,
            arrivals=200,
            arrivals_sqlite=2000,
            arrivals_postgres=2000,
            pages=3,
            analyses_per_patient=5,
            card_calls=100,
            starts=1,
            warm_images=3,
            room_rounds=3,
            inferences=32,
            analyses=5,
        ),
    }
)
