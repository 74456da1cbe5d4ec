"""Which analysis of an image speaks for it, when it was analysed more than once."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from cds_service.authorization import LOCAL
from cds_service.hooks.standing import records_of
from cds_service.reviews import ReviewDraft, record_review
from dermoscopy.analyses import summaries_of_patients
from dermoscopy.domain import LesionClass, TriageTier, Verdict
from dermoscopy.tables import AnalysisRow
from tests.findings import PATIENT, stored_analysis
from tests.unit.cds_service.hooks.calling import cards


def analysed_again(node, analysis_id: str, tier: str) -> str:
    """The same image by a newer model, a year later; nobody has reviewed that."""
    with node.begin() as session:
        old = session.get_one(AnalysisRow, analysis_id)
        again = AnalysisRow(
            **(
                old.model_dump()
                | {"id": str(uuid.uuid4()), "model_version": "2.0.0", "tier": tier, "reviews": 0}
                | {"report_status": "preliminary", "created_at": old.created_at + timedelta(days=365)}
            )
        )
        session.add(again)
        return again.id


def said(node, tier: TriageTier, draft: ReviewDraft, name: str = "1") -> str:
    """An analysis of which a clinician said something."""
    analysis = stored_analysis(node, tier, name=name)
    record_review(node, analysis.id, draft, caller=LOCAL, seen=0)
    return analysis.id


def test_a_melanoma_by_a_clinician_is_not_undone_by_a_newer_model(client, node):
    first = said(node, TriageTier.MONITOR, ReviewDraft(Verdict.CORRECTED, LesionClass.MEL))
    analysed_again(node, first, "monitor")
    (card,) = cards(client)
    assert card["indicator"] == "critical" and "as a clinician corrected it" in card["summary"]


def test_a_withdrawn_image_does_not_come_back_as_harmless(client, node):
    analysed_again(node, said(node, TriageTier.MONITOR, ReviewDraft(Verdict.UNUSABLE)), "monitor")
    (card,) = cards(client)
    assert "withdrawn by a clinician" in card["summary"]


@pytest.mark.parametrize(
    "draft",
    [ReviewDraft(Verdict.UNUSABLE), ReviewDraft(Verdict.CORRECTED, LesionClass.NV), ReviewDraft(Verdict.CONFIRMED)],
)
def test_a_high_risk_that_a_newer_model_raises_is_shown(client, node, draft):
    newer = analysed_again(node, said(node, TriageTier.ROUTINE, draft), "urgent")
    (card,) = cards(client)
    assert card["indicator"] == "critical" and newer in card["links"][0]["url"]


def test_a_comment_alone_keeps_nothing_from_the_newest(client, node):
    newer = analysed_again(
        node, said(node, TriageTier.ROUTINE, ReviewDraft(Verdict.COMMENTED, comment="seen")), "monitor"
    )
    (card,) = cards(client)
    assert newer in card["links"][0]["url"]


def test_an_old_high_risk_is_not_lost_behind_many_harmless_images(client, node):
    grave = stored_analysis(node, TriageTier.EXPEDITED)
    reviewed = said(node, TriageTier.MONITOR, ReviewDraft(Verdict.CORRECTED, LesionClass.MEL), "2")
    for number in range(4):
        stored_analysis(node, TriageTier.MONITOR, name=f"m{number}")
    with node.begin() as session:
        few = summaries_of_patients(session, [PATIENT], limit=3)
        assert [one.created_at for one in few] == sorted((one.created_at for one in few), reverse=True)
        assert {grave.id, reviewed} <= {one.id for one in few} and len(few) == 5
        assert len(records_of(session, [PATIENT]).findings) == 6
