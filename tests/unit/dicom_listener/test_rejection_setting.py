"""Who gets rejection notes."""

from __future__ import annotations

import pytest

from dermoscopy.domain import ArtifactKind
from dermoscopy.routing import Route
from dicom_listener.deliver import CStoreDestination, StowDestination

NOTE = ArtifactKind.REJECTION_NOTE
OPEN = {
    "cstore": lambda **chosen: CStoreDestination("pacs", "127.0.0.1", 104, "PACS", "US", **chosen),
    "stow": lambda **chosen: StowDestination("pacs", "http://127.0.0.1:1/dicom-web", **chosen),
}


@pytest.mark.parametrize("transport", list(OPEN))
def test_an_archive_that_does_not_understand_them_gets_none(transport):
    told, untold = OPEN[transport](), OPEN[transport](rejection_notes=False)
    assert NOTE in told.accepts
    assert untold.accepts == told.accepts - {NOTE}


def test_they_go_wherever_a_rule_sends_results():
    route = Route(outputs=("seg",), destinations=("pacs",))
    assert route.sends(NOTE, "pacs")
    assert not route.sends(NOTE, "other")
