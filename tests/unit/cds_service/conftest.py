"""A node with a real database and a client that talks to the real application."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog
from fastapi.testclient import TestClient

from cds_service.app import create_app
from cds_service.node import Node
from dermoscopy.domain import DermoscopicImage, SourceObject
from monitoring.health import Readiness
from tests.findings import drawn_lesion, make_node

URL = "http://127.0.0.1:8600"
Open = Callable[..., TestClient]


def drawn(source: SourceObject) -> DermoscopicImage:
    """The picture that every finding here is about: what `tests.findings.take_in` stores is no image."""
    return DermoscopicImage(drawn_lesion().pixels, "23" * 32, (0.05, 0.05))


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Short tracebacks: the default draws the local variables of every frame, which takes seconds."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])
    yield
    structlog.reset_defaults()


@pytest.fixture
def open_client(engine: sa.Engine, tmp_path: Path) -> Iterator[Open]:
    """Make a client of an application with these settings."""
    made: list[TestClient] = []

    def make(**settings: object) -> TestClient:
        settings.setdefault("hooks_open", not (settings.get("api_tokens") or settings.get("hooks_clients")))
        node = make_node(engine, tmp_path / "data", **settings)
        metrics = (b"up 1\n", "text/plain; version=0.0.4")
        app = create_app(node, lambda: Readiness(True, ()), lambda: metrics, decode=drawn)
        made.append(TestClient(app, base_url=URL, follow_redirects=False))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(open_client: Open) -> TestClient:
    return open_client()


@pytest.fixture
def node(client: TestClient) -> Node:
    return client.app.state.node  # type: ignore[attr-defined]
