"""Verifies the audit log again and again while the service runs, so that tampering raises an alert by itself."""

from __future__ import annotations

import threading

import sqlalchemy.exc
import structlog

from audit.checkpoint import public_keys, read_checkpoints
from audit.verify import verify
from cds_service.bootstrap import WITNESS, audit_folder
from cds_service.node import Node
from monitoring.gauges import record_audit_verification

log = structlog.get_logger(__name__)


def watch_audit_log(node: Node, stopping: threading.Event) -> threading.Thread | None:
    """Verify at the start and then every ``audit_verify_seconds``; ``None`` when that is 0."""
    seconds = node.settings.audit_verify_seconds
    if not seconds:
        return None
    thread = threading.Thread(target=_watch, args=(node, stopping, seconds), name="audit-watch", daemon=True)
    thread.start()
    return thread


def verify_once(node: Node) -> int:
    """Number of problems found; recorded for the metrics and, if there are any, logged as critical."""
    folder = audit_folder(node.settings)
    witness = folder / WITNESS
    external = list(read_checkpoints(witness)) if witness.exists() else []
    result = verify(node.engine, public_keys(folder), external=external)
    problems = len(result.problems) + result.more_problems
    record_audit_verification(problems)
    if problems:
        log.critical("audit.tampered", problems=problems, first=str(result.problems[0]))
    else:
        log.info("audit.verified", entries=result.size)
    return problems


def _watch(node: Node, stopping: threading.Event, seconds: float) -> None:
    while not stopping.wait(min(seconds, 30.0)):
        try:
            verify_once(node)
        except sqlalchemy.exc.OperationalError as error:
            log.warning("audit.verification_postponed", error=type(error).__name__)
        if stopping.wait(max(0.0, seconds - 30.0)):
            return
