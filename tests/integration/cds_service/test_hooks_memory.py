"""What was shown and said, on both databases, by many processes' worth of calls at once, after real migrations."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from cds_service import schema
from cds_service.authorization import LOCAL
from cds_service.hooks import feedback
from cds_service.hooks.calls import Told
from cds_service.hooks.messages import Card, CardFeedback, HookRequest, Source
from cds_service.hooks.shown import ShownCards
from cds_service.node import Node
from dermoscopy.database import create_database_engine
from tests.findings import make_node

AT_ONCE = 8


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peers)])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    postgresql = request.param == "postgresql"
    url = request.getfixturevalue("postgres_url") if postgresql else f"sqlite:///{tmp_path / 'cds.sqlite3'}"
    engine = create_database_engine(url)
    schema.migrate(engine)
    yield make_node(engine, tmp_path / "data")
    engine.dispose()


def call(instance: str = "") -> HookRequest:
    context = {"userId": "Practitioner/1", "patientId": "p1", "encounterId": "e1"}
    body = {"hook": "patient-view", "hookInstance": instance or str(uuid.uuid4()), "context": context}
    return HookRequest.model_validate(body)


def told(*names: str) -> list[Told]:
    source = Source(label="test")
    return [
        Told(Card(uuid=str(uuid.uuid5(uuid.NAMESPACE_URL, n)), summary=n, indicator="info", source=source), n, n)
        for n in names
    ]


def test_of_many_calls_at_once_one_gets_each_card(node: Node) -> None:
    shown = ShownCards(30)

    def ask(number: int) -> list[str]:
        names = ["a", "b", "c"] if number % 2 else ["c", "b", "a"]
        with node.begin() as session:
            return [one.key for one in shown.unseen(session, LOCAL, "s", call(), told(*names))]

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = [key for keys in pool.map(ask, range(AT_ONCE)) for key in keys]
    assert sorted(found) == ["a", "b", "c"]


def test_the_same_feedback_at_once_is_one_outcome(node: Node) -> None:
    said = CardFeedback.model_validate(
        {"card": str(uuid.uuid4()), "outcome": "accepted", "outcomeTimestamp": datetime.now(UTC).isoformat()}
    )
    with ThreadPoolExecutor(AT_ONCE) as pool:
        new = list(pool.map(lambda _: feedback.record(node, LOCAL, "s", [said, said]), range(AT_ONCE)))
    assert sum(new) == 1
    with node.begin() as session:
        leaves = session.execute(sa.text("SELECT count(*) FROM audit_leaf WHERE action = 'card.feedback'")).scalar_one()
    assert leaves == 1
