"""A real node for the thrower: SQLite and a folder as in production, no worker behind it, and what must hold in it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import sqlalchemy as sa
from sqlmodel import select

from audit.tables import AuditLeaf
from cds_service.bootstrap import open_node
from cds_service.node import Node
from cds_service.schema import migrate
from dermoscopy.blobs import digest_of
from dermoscopy.database import create_database_engine
from dermoscopy.settings import Settings
from dermoscopy.tables import InstanceRow


def fuzz_settings(folder: Path, **changes: object) -> Settings:
    """Settings of a node that takes everything and analyses nothing: no watermark, no port of its own choice."""
    given: Mapping[str, object] = {
        "data_dir": folder / "data",
        "dicom_promiscuous": True,
        "disk_watermark_bytes": 0,
        "backlog_watermark": 0,
        "default_issuer": "HOSPITAL-A",
        "hooks_open": True,
        **changes,
    }
    return Settings(**given)  # type: ignore[arg-type]


def open_fresh(settings: Settings) -> Node:
    """The node of ``settings`` with its tables made."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = create_database_engine(settings.resolved_database_url)
    migrate(engine)
    engine.dispose()
    return open_node(settings)


def half_stored(node: Node) -> list[str]:
    """Everything that is in the object store or in the database but not in both, and what was left lying about."""
    wrong: list[str] = []
    folder = node.settings.data_dir / "blobs"
    kept = {path.name: path for path in folder.rglob("*") if path.is_file()}
    with node.begin() as session:
        known = dict(session.execute(select(InstanceRow.digest, InstanceRow.size)).tuples().all())
        unfinished = session.execute(
            select(sa.func.count()).select_from(InstanceRow).where(InstanceRow.digest == "")
        ).scalar_one()
    for name, path in kept.items():
        if name.startswith("."):
            wrong.append(f"a temporary file was left: {path.name}")
        elif name not in known:
            wrong.append(f"bytes without a row: {name}")
        elif digest_of(path.read_bytes()) != name or path.stat().st_size != known[name]:
            wrong.append(f"bytes that are not what their row says: {name}")
    wrong += [f"a row without its bytes: {digest}" for digest in known if digest not in kept]
    if unfinished:
        wrong.append(f"{unfinished} rows without a digest")
    return wrong


def counted(node: Node) -> dict[str, int]:
    """How many audit leaves there are of each action."""
    with node.begin() as session:
        rows = session.execute(select(AuditLeaf.action, sa.func.count()).group_by(AuditLeaf.action)).all()
    return {str(action): int(count) for action, count in rows}


def resources(pid: int | None = None) -> dict[str, int]:
    """Open file descriptors, threads and resident bytes of a process (Linux)."""
    process = Path(f"/proc/{pid or os.getpid()}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    return {
        "fds": sum(1 for _ in (process / "fd").iterdir()),
        "threads": int(status["Threads"]),
        "rss": int(status["VmRSS"].split()[0]) * 1024,
    }
