"""A decision is kept as text with the object, and says what goes where."""

from __future__ import annotations

import pytest

from dermoscopy.domain import ArtifactKind
from dermoscopy.routing import EVERYTHING, Action, Route


@pytest.mark.parametrize(
    "route",
    [
        EVERYTHING,
        Route(Action.STORE, "r"),
        Route(Action.ANALYSE, "r", (), None),
        Route(Action.ANALYSE, "r", ("seg", "sr"), ("pacs",)),
    ],
)
def test_kept_and_read_again(route):
    assert Route.from_text(route.to_text()) == route


def test_what_goes_where():
    route = Route(Action.ANALYSE, "r", ("seg", "fhir_bundle"), ("pacs", "ehr"))
    assert route.sends(ArtifactKind.SEG, "pacs")
    assert not route.sends(ArtifactKind.SR, "pacs")
    assert not route.sends(ArtifactKind.SEG, "archive")
    assert EVERYTHING.sends(ArtifactKind.SR, "anywhere")
    assert not Route(outputs=()).sends(ArtifactKind.SR, "pacs")
