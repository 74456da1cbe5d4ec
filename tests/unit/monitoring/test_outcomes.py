"""Live sensitivity: who is counted as what, by whom, and how sure it is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cds_service.authorization import LOCAL
from cds_service.reviews import ReviewDraft, record_review
from dermoscopy.domain import LesionClass, TriageTier, Verdict
from dermoscopy.tables import AnalysisRow, OutcomeRow
from monitoring import outcomes
from monitoring.outcomes import Judged, Result, Source, Truth, figures, judged, wilson
from tests.findings import make_node, stored_analysis


@pytest.mark.parametrize(
    ("hits", "number", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)  # the last: Newcombe 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8%3C857::AID-SIM777%3E3.0.CO;2-E
def test_wilson_intervals(hits, number, low, high):
    assert wilson(hits, number) == pytest.approx((low, high), abs=5e-4)


def test_shares_leave_abstentions_apart():
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    lesions = [
        Judged(Source.HISTOPATHOLOGY, "m==1", moment, truth, result)
        for truth, result, times in (
            (Truth.MELANOMA, Result.FLAGGED, 8),
            (Truth.MELANOMA, Result.REASSURED, 2),
            (Truth.MELANOMA, Result.ABSTAINED, 5),
            (Truth.MALIGNANT, Result.FLAGGED, 3),
            (Truth.BENIGN, Result.REASSURED, 9),
            (Truth.BENIGN, Result.FLAGGED, 1),
        )
        for _ in range(times)
    ]
    whole, month = figures(lesions)
    assert (whole.period, month.period) == ("", "2026-11")
    assert (whole.sensitivity.hits, whole.sensitivity.number) == (8, 10)
    assert (whole.specificity.hits, whole.specificity.number) == (9, 10)
    assert whole.count(Truth.MELANOMA) == 15
    assert figures([]) == []


def outcome(name: str, analysis_id: str, label: str, malignant: bool, **changes: object) -> OutcomeRow:
    made: dict[str, object] = {
        "id": name,
        "source_key": name,
        "part": "",
        "origin": "lab",
        "resource_type": "DiagnosticReport",
        "version": "1",
        "status": "final",
        "state": "matched",
        "analysis_id": analysis_id,
        "certainty": "histopathology",
        "lesion_class": label,
        "malignant": malignant,
        "received_at": datetime(2026, 11, 1, tzinfo=UTC),
    }
    return OutcomeRow(**(made | changes))


def test_what_is_counted(engine, tmp_path):
    node = make_node(engine, tmp_path)
    flagged = stored_analysis(node, TriageTier.URGENT, name="1").id
    missed = stored_analysis(node, TriageTier.MONITOR, name="2").id
    reviewed = stored_analysis(node, TriageTier.EXPEDITED, name="3").id
    unusable = stored_analysis(node, TriageTier.URGENT, name="4").id
    with node.begin() as session:
        session.add(outcome("a", flagged, "nv", False))
        session.add(outcome("b", flagged, "mel", True))
        session.add(outcome("c", missed, "mel", True))
        session.add(outcome("d", missed, "nv", False, state="held"))
        session.add(outcome("e", reviewed, "nv", False, certainty="clinical-follow-up"))
        session.add(outcome("f", unusable, "mel", True))
        session.get_one(AnalysisRow, unusable).report_status = "entered-in-error"
    record_review(node, reviewed, ReviewDraft(Verdict.CORRECTED, LesionClass.NV), caller=LOCAL, seen=0)
    with node.begin() as session:
        found = sorted((one.source, one.truth, one.result) for one in judged(session))
    assert found == [
        (Source.HISTOPATHOLOGY, Truth.MELANOMA, Result.FLAGGED),
        (Source.HISTOPATHOLOGY, Truth.MELANOMA, Result.REASSURED),
        (Source.REVIEWS, Truth.BENIGN, Result.FLAGGED),
    ]
    assert outcomes.counts(engine)["histopathology", "lesionnet-lite0==1.0.0", "melanoma", "reassured"] == 1
    with node.begin() as session:
        assert list(judged(session, since=datetime(2100, 1, 1, tzinfo=UTC))) == []
