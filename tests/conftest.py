"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

import audit.tables  # noqa: F401 - importing a room's tables registers them
import monitoring.tables  # noqa: F401
from dermoscopy.database import UnitOfWork, create_database_engine, unit_of_work

pytest_plugins = ["tests.peers.fixtures"]

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real dermoscopy images, never part of the project. Skips with the reason where it is absent."""
    folder = Path(os.environ.get("CDS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} is absent (set CDS_SHARED_DATA)")
    return folder


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """SQLite with our tables."""
    engine = create_database_engine(f"sqlite:///{tmp_path / 'cds.sqlite3'}")
    SQLModel.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def begin(engine: sa.Engine) -> UnitOfWork:
    return unit_of_work(engine)
