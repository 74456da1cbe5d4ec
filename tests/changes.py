"""A change of a lesion, invented, as the comparison would say it."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session

from cds_service.lesions import to_document
from dermoscopy.lesions import Change, Fact, Match, MatchState
from dermoscopy.tables import LesionChangeRow
from tests.findings import NOON

GREW = "Area grew from 12.0 mm² to 18.0 mm² (+50 %); two pictures of one lesion differ by up to 28 %."


def make_change(prior_id: str = "prior", state: MatchState = MatchState.LIKELY) -> Change:
    """An area that grew, an asymmetry within noise, and a risk of which nothing can be told."""
    return Change(
        Match(state, "Probably the same lesion: site and side agree, and so do 40 structures of the pictures.", 40),
        taken_at=NOON,
        prior_id=prior_id,
        prior_taken_at=NOON - timedelta(days=90),
        facts=(
            Fact("area", "Area", "12.0 mm²", "18.0 mm²", GREW, "mm2", 12.0, 18.0, 6.0, 3.3, True),
            Fact("asymmetry", "Asymmetry", "0.10", "0.11", "As it was.", "1", 0.1, 0.11, 0.01, 0.06, False),
            Fact("melanoma_risk", "Melanoma risk", "1.0 %", "2.0 %", "Then 1.0 %, now 2.0 %.", "%", 1.0, 2.0, 1.0),
            Fact("tier", "Triage", "monitor", "routine", "Triage then monitor, now routine."),
        ),
    )  # fmt: skip


def store_change(session: Session, analysis_id: str, change: Change) -> None:
    """As the comparison keeps it."""
    session.add(
        LesionChangeRow(
            analysis_id=analysis_id,
            prior_id=change.prior_id,
            state=change.match.state.value,
            made_at=NOON,
            document=to_document(change),
        )
    )
