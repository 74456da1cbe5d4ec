"""The schema of reviews goes back and forth under a filled database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import alembic.command
import pytest
import sqlalchemy as sa

from cds_service.schema import _configuration, migrate
from dermoscopy.database import create_database_engine
from tests.findings import make_node, stored_analysis

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_results_survive_the_way_back_and_forth(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else f"sqlite:///{tmp_path / 'c.db'}"
    engine = create_database_engine(url)
    migrate(engine)
    analysis_id = stored_analysis(make_node(engine, tmp_path / "data")).id

    def go(change: Callable[..., Any], revision: str) -> None:
        with engine.connect() as connection:
            configuration = _configuration()
            configuration.attributes["connection"] = connection
            change(configuration, revision)
            connection.commit()

    go(alembic.command.downgrade, "0004")
    assert not sa.inspect(engine).has_table("review")
    go(alembic.command.upgrade, "head")
    with engine.connect() as connection:
        said = sa.text("SELECT id, reviews, rendered_revision, report_status FROM analysis")
        assert connection.execute(said).all() == [(analysis_id, 0, 0, "preliminary")]
        current = connection.execute(sa.text('SELECT "current" FROM artifact')).scalars().all()
    assert len(current) == 7
    assert all(current)
    engine.dispose()
