"""``cds outcomes`` as a person sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cds_service.__main__ import app
from cds_service.authorization import LOCAL
from cds_service.reviews import ReviewDraft, record_review
from cds_service.schema import migrate
from dermoscopy.database import create_database_engine
from dermoscopy.domain import LesionClass, TriageTier, Verdict
from dermoscopy.settings import Settings
from tests.findings import make_node, stored_analysis


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CDS_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")
    engine = create_database_engine(Settings(data_dir=tmp_path).resolved_database_url)
    migrate(engine)
    yield make_node(engine, tmp_path)
    engine.dispose()


def run(*options: str) -> str:
    result = CliRunner().invoke(app, ["outcomes", *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_without_outcomes_it_says_so(node):
    assert "Outcomes: none yet" in run()


def test_what_clinicians_said_is_counted_apart_with_its_interval(node):
    right, missed = ReviewDraft(Verdict.CONFIRMED), ReviewDraft(Verdict.CORRECTED, LesionClass.MEL)
    for name, tier, draft in (
        ("1", TriageTier.URGENT, right),
        ("2", TriageTier.URGENT, right),
        ("3", TriageTier.MONITOR, missed),
    ):
        analysis = stored_analysis(node, tier, name=name)
        record_review(node, analysis.id, draft, caller=LOCAL, seen=0)
    said = run()
    (row,) = [line for line in said.splitlines() if "review" in line and "│" in line]
    assert "0.667 (0.208 to 0.939)" in row
    assert "histopathology" in said  # the warning: only what was cut out is known
    assert "│" not in run("--since", "2999-01-01")


def test_months_stand_apart(node):
    analysis = stored_analysis(node)
    record_review(node, analysis.id, ReviewDraft(Verdict.CONFIRMED), caller=LOCAL, seen=0)
    assert analysis.created_at.strftime("%Y-%m") in run("--monthly")
