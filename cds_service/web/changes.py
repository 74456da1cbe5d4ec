"""What changed since an earlier image of the lesion: the facts that ``changes.html`` shows beside the two pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from cds_service.node import Node
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
    return ()
