"""What the API looks at before it calls the node ready."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cds_service.node import Node
from cds_service.schema import head_revision
from dermoscopy.errors import DermoscopyError
from models.registry import open_package
from monitoring.health import Check, Readiness, database_check, disk_check, folder_check, readiness, worker_check


def readiness_of(node: Node) -> Callable[[], Readiness]:
    """Checks of database, object store, disk, weights and a living worker, bound to ``node``."""
    settings = node.settings
    checks: dict[str, Check] = {
        "database": database_check(node.engine, head_revision()),
        "disk": disk_check(settings.data_dir, settings.disk_watermark_bytes),
        "weights": _weights_check(settings.models_dir, node),
    }
    if not settings.blob_url:
        checks["object store"] = folder_check(settings.data_dir / "blobs")
    if settings.worker_processes:
        checks["worker"] = worker_check(node.engine)
    return lambda: readiness(checks)


def _weights_check(store: Path, node: Node) -> Check:
    """The champion's files are there and have the size that the manifest states; the worker checks the digest."""

    def check() -> str:
        try:
            package = open_package(store, node.champion.name, node.champion.version)
        except DermoscopyError as error:
            return str(error)
        size = package.weights.stat().st_size if package.weights.exists() else 0
        return "" if size == package.manifest.bytes else "the weights are not of the size that the manifest states"

    return check
