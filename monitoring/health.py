"""Liveness and readiness. Live: the process answers. Ready: it could do its work right now."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
import structlog

from monitoring import heartbeat

log = structlog.get_logger(__name__)

Check = Callable[[], str]
"""Returns what is wrong, or an empty string. What it raises is a failure as well."""

SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: its name, whether it passed, what is wrong, and how long it took."""

    name: str
    ok: bool
    problem: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Readiness:
    """All checks; ready when each passed."""

    ok: bool
    checks: tuple[CheckResult, ...]


def readiness(checks: Mapping[str, Check], *, seconds: float = SECONDS) -> Readiness:
    """Run all checks at the same time; one that does not end within ``seconds`` has failed."""
    if not checks:
        return Readiness(True, ())
    pool = ThreadPoolExecutor(max_workers=len(checks), thread_name_prefix="readiness")
    try:
        began = time.monotonic()
        running = {name: pool.submit(_run, name, check) for name, check in checks.items()}
        results = []
        for name, future in running.items():
            try:
                results.append(future.result(timeout=max(0.0, began + seconds - time.monotonic())))
            except TookTooLong:
                results.append(CheckResult(name, False, f"no answer within {seconds:g} s", seconds * 1000))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return Readiness(all(result.ok for result in results), tuple(results))


def _run(name: str, check: Check) -> CheckResult:
    began = time.perf_counter()
    try:
        problem = check()
    except Exception as error:
        log.warning("readiness.check_failed", check=name, exc_info=True)
        problem = type(error).__name__
    return CheckResult(name, not problem, problem, round((time.perf_counter() - began) * 1000, 1))


def database_check(engine: sa.Engine, revision: str | None = None) -> Check:
    """The database answers; with ``revision`` (Alembic), it is migrated to it."""

    def check() -> str:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
            if revision is None:
                return ""
            if not sa.inspect(connection).has_table("alembic_version"):
                return "the database was never migrated: run `cds migrate`"
            found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        return "" if found == revision else f"the database is at revision {found}, not {revision}: run `cds migrate`"

    return check


def folder_check(folder: Path) -> Check:
    """A file can be written in ``folder`` and read back."""

    def check() -> str:
        probe = folder / f".ready-{uuid.uuid4().hex}"
        try:
            probe.write_bytes(b"ready")
            return "" if probe.read_bytes() == b"ready" else "what was written could not be read back"
        except OSError as error:
            return f"not writable: {error.strerror or type(error).__name__}"
        finally:
            probe.unlink(missing_ok=True)

    return check


def disk_check(folder: Path, watermark_bytes: int) -> Check:
    """At least ``watermark_bytes`` are free where ``folder`` lies."""

    def check() -> str:
        free = shutil.disk_usage(folder).free
        return "" if free >= watermark_bytes else f"{free // 2**20} MiB free, {watermark_bytes // 2**20} MiB needed"

    return check


def worker_check(engine: sa.Engine, kind: str = "worker") -> Check:
    """At least one process of ``kind`` has beaten lately."""

    def check() -> str:
        ages = heartbeat.ages(engine, kind)
        if not ages:
            return f"no {kind} has ever started"
        youngest = min(ages.values())
        limit = heartbeat.STALE_AFTER.total_seconds()
        return "" if youngest <= limit else f"no {kind} has been alive for {youngest:.0f} s"

    return check
