"""The worker process: runs the durable workflows, orders the audit log, and says that it is alive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy.exc
import structlog
from dbos import DBOS, DBOSConfig

from audit.sequencer import sequence
from cds_service.bootstrap import WITNESS, audit_folder, open_audit_signer, open_pipeline
from cds_service.node import Node
from cds_service.outcome_polls import OutcomePolls
from dermoscopy.errors import IntegrityViolation
from dermoscopy.workqueue import (
    AMENDMENT_QUEUE,
    ANALYSIS_QUEUE,
    APPLICATION,
    APPLICATION_VERSION,
    DELIVERY_QUEUE,
    PULL_QUEUE,
)
from monitoring.heartbeat import beat

log = structlog.get_logger(__name__)

SEQUENCER_SECONDS = 0.5
HEARTBEAT_SECONDS = 2.0
DELIVERY_CONCURRENCY = 8
PULL_POLLING_SECONDS = 1.0
AMENDMENT_CONCURRENCY = 2
AMENDMENT_POLLING_SECONDS = 0.5


def worker_name(node: Node, number: int) -> str:
    """Stable per node: what was in flight when a worker died goes on when one of the same name starts."""
    return f"{node.settings.executor_id}-worker-{number}"


@contextmanager
def running_worker(node: Node, number: int = 0) -> Iterator[None]:
    """Run the workflows in this process until the block ends; steps in hand are finished first."""
    settings = node.settings
    pipeline = open_pipeline(node)
    config: DBOSConfig = {
        "name": APPLICATION,
        "system_database_engine": node.engine,
        "system_database_url": node.engine.url.render_as_string(hide_password=False),
        "executor_id": worker_name(node, number),
        "application_version": APPLICATION_VERSION,
        "run_migrations": False,
        "log_level": "WARNING",
        "notification_listener_polling_interval_sec": 1.0,
    }
    DBOS(config=config)
    pipeline.register()
    DBOS.launch()
    polling = settings.queue_polling_seconds
    DBOS.register_queue(ANALYSIS_QUEUE, worker_concurrency=settings.worker_concurrency, polling_interval_sec=polling)
    DBOS.register_queue(DELIVERY_QUEUE, worker_concurrency=DELIVERY_CONCURRENCY, polling_interval_sec=polling)
    DBOS.register_queue(PULL_QUEUE, worker_concurrency=1, polling_interval_sec=max(polling, PULL_POLLING_SECONDS))
    slowly = max(polling, AMENDMENT_POLLING_SECONDS)
    DBOS.register_queue(AMENDMENT_QUEUE, worker_concurrency=AMENDMENT_CONCURRENCY, polling_interval_sec=slowly)
    stopping = threading.Event()
    chores = [
        threading.Thread(target=_repeat, args=(stopping, seconds, chore), name=name, daemon=True)
        for name, seconds, chore in (
            ("audit-sequencer", SEQUENCER_SECONDS, _sequencing(node)),
            ("heartbeat", HEARTBEAT_SECONDS, lambda: beat(node.engine, "worker", worker_name(node, number))),
        )
    ]
    if settings.outcome_servers:
        polls = OutcomePolls(node)
        chores.append(threading.Thread(target=polls.run, args=(stopping,), name="outcome-polls", daemon=True))
    for chore in chores:
        chore.start()
    log.info(
        "worker.started", worker=worker_name(node, number), model=node.champion.name, version=node.champion.version
    )
    try:
        yield
    finally:
        DBOS.destroy(workflow_completion_timeout_sec=30, destroy_registry=True)
        stopping.set()
        for chore in chores:
            chore.join(10)
        log.info("worker.stopped", worker=worker_name(node, number))


def _sequencing(node: Node) -> Callable[[], None]:
    signer = open_audit_signer(node.settings)
    witness = audit_folder(node.settings) / WITNESS

    def place_waiting_leaves() -> None:
        while sequence(node.engine, signer, witness=witness).count:
            pass

    return place_waiting_leaves


def _repeat(stopping: threading.Event, seconds: float, chore: Callable[[], None]) -> None:
    """Do ``chore`` every ``seconds``; a database that is away for a moment, or a tampered log, does not end it."""
    name = threading.current_thread().name
    while True:
        last = stopping.is_set()
        try:
            chore()
        except sqlalchemy.exc.OperationalError as error:
            log.warning("chore.postponed", chore=name, error=type(error).__name__)
        except IntegrityViolation as error:
            log.critical("chore.integrity", chore=name, error=type(error).__name__, reason=str(error))
        if last:
            return
        stopping.wait(seconds)
