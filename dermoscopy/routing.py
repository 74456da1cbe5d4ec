"""What is to happen with an object that was taken in: decided once, at the door, and kept with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dermoscopy.domain import ArtifactKind


class Action(StrEnum):
    """What a rule may ask for."""

    ANALYSE = "analyse"
    STORE = "store"
    """Keep it durably, analyse nothing."""
    REFUSE = "refuse"


OUTPUTS: Final = (
    ArtifactKind.SOURCE,
    ArtifactKind.SEG,
    ArtifactKind.SR,
    ArtifactKind.SECONDARY_CAPTURE,
    ArtifactKind.FHIR_BUNDLE,
)
"""What a rule may choose; overlay, heat-map and mask stay here, and a rejection note goes wherever a result went."""


@dataclass(frozen=True, slots=True)
class Route:
    """The decision and the rule that made it (empty: none, so everything is analysed and goes everywhere).

    ``outputs`` and ``destinations`` are names; ``None`` means all of them.
    """

    action: Action = Action.ANALYSE
    rule: str = ""
    outputs: tuple[str, ...] | None = None
    destinations: tuple[str, ...] | None = None

    def sends(self, kind: ArtifactKind, destination: str) -> bool:
        """Whether this output goes to this destination."""
        wanted = self.outputs is None or kind.value in self.outputs or kind is ArtifactKind.REJECTION_NOTE
        return wanted and (self.destinations is None or destination in self.destinations)

    def to_text(self) -> str:
        """JSON for the database; empty for what needs none."""
        if self == EVERYTHING:
            return ""
        return json.dumps(
            {
                "action": self.action.value,
                "rule": self.rule,
                "outputs": self.outputs,
                "destinations": self.destinations,
            }
        )

    @staticmethod
    def from_text(text: str) -> Route:
        """What `to_text` wrote."""
        if not text:
            return EVERYTHING
        said = json.loads(text)
        outputs, destinations = said["outputs"], said["destinations"]
        return Route(
            Action(said["action"]),
            said["rule"],
            None if outputs is None else tuple(outputs),
            None if destinations is None else tuple(destinations),
        )


EVERYTHING: Final = Route()
"""Analyse, and send every output to every destination that takes it."""
