"""At discharge: high risks that are open, and images without a result."""

from __future__ import annotations

import pytest

from dermoscopy.domain import TriageTier
from tests.findings import fail, stored_analysis, take_in
from tests.unit.cds_service.hooks.calling import DISCHARGE, cards
from tests.unit.cds_service.hooks.test_shown import review


@pytest.mark.parametrize("tier", list(TriageTier))
def test_only_a_high_risk_is_held_up(client, node, tier):
    stored_analysis(node, tier)
    found = cards(client, DISCHARGE)
    assert len(found) == (tier in (TriageTier.URGENT, TriageTier.EXPEDITED))
    assert all("No clinician has reviewed" in card["detail"] and card["overrideReasons"] for card in found)


@pytest.mark.parametrize(
    ("verdict", "changes", "open_"),
    [
        ("commented", {}, True),
        ("confirmed", {}, True),
        ("corrected", {"lesion_class": "bcc"}, True),
        ("corrected", {"lesion_class": "nv"}, False),
        ("corrected", {"body_site_code": "36141000"}, True),
        ("unusable", {}, False),
    ],
)
def test_what_clinicians_said_decides(client, node, verdict, changes, open_):
    analysis = stored_analysis(node, TriageTier.URGENT)
    review(node, analysis.id, verdict, **changes)
    assert len(cards(client, DISCHARGE)) == open_


def test_a_benign_result_that_a_clinician_raised_is_open(client, node):
    analysis = stored_analysis(node, TriageTier.MONITOR)
    review(node, analysis.id, "corrected", lesion_class="mel")
    (card,) = cards(client, DISCHARGE)
    assert card["indicator"] == "critical" and "A clinician agreed" in card["detail"]


def test_images_without_a_result_are_not_forgotten(client, node):
    take_in(node)
    fail(node, take_in(node, name="2").analysis_id)
    summaries = [card["summary"] for card in cards(client, DISCHARGE)]
    assert any("no result yet" in text for text in summaries)
    assert any("could not be analysed" in text for text in summaries)
