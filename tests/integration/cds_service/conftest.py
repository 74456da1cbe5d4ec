"""The real application on a real socket, with tokens as in a hospital."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
import uvicorn

from cds_service.app import create_app
from cds_service.node import Node
from dermoscopy.settings import ApiToken, Role
from monitoring.health import Readiness
from tests.findings import make_node
from tests.peers.processes import free_port

ADMIN = "admin-token-0123456789"


class LiveApplication:
    """Address, node and folder of a running application."""

    def __init__(self, url: str, node: Node, folder: Path) -> None:
        self.url = url
        self.node = node
        self.folder = folder


@contextmanager
def live_application(engine: sa.Engine, folder: Path, **settings: object) -> Iterator[LiveApplication]:
    """Serve on a free loopback port until the end of the block."""
    port = free_port()
    token = ApiToken(name="tester", token=ADMIN, role=Role.ADMIN)  # type: ignore[arg-type]
    node = make_node(engine, folder, **{"api_tokens": (token,), "port": port, **settings})
    app = create_app(node, lambda: Readiness(True, ()), lambda: (b"up 1\n", "text/plain; version=0.0.4"))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.started
    try:
        yield LiveApplication(f"http://127.0.0.1:{port}", node, folder)
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def live(engine: sa.Engine, tmp_path: Path) -> Iterator[LiveApplication]:
    with live_application(engine, tmp_path / "data") as running:
        yield running
