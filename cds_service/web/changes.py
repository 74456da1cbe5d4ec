"""What changed since an earlier image of the lesion: the facts that ``changes.html`` shows beside the two pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from cds_service.lesions import change_of
from cds_service.node import Node
from dermoscopy.lesions import Fact
from dermoscopy.tables import AnalysisRow


@dataclass(frozen=True, slots=True)
class ChangeFact:
    """One measure then and now, with its unit; ``note`` says how sure that is."""

    title: str
    before: str
    now: str
    note: str = ""


def changes_between(node: Node, session: Session, now: AnalysisRow, before: AnalysisRow) -> Sequence[ChangeFact]:
    """Measured changes from ``before`` to ``now``; empty where none were measured."""
    change = change_of(session, now.id)
    if change is None or change.prior_id != before.id:
        return ()
    return [ChangeFact(fact.title, fact.before, fact.after, _note(fact)) for fact in change.facts]


def compared_with(session: Session, analysis_id: str) -> tuple[str, str]:
    """Which analysis was compared (empty: none), and what the comparison says in words (empty: there is none)."""
    change = change_of(session, analysis_id)
    return (change.prior_id, change.summary) if change is not None else ("", "")


def _note(fact: Fact) -> str:
    if fact.beyond_noise is False:
        return "within what two pictures of one lesion differ by"
    if fact.beyond_noise or fact.before_value is None:
        return fact.words
    return f"It cannot be told whether this changed. {fact.words}"
