"""The durable workflows on both databases: retries, holds, failures, repeats. The algorithm and the destinations are
programmed by the test; the engine, the database, the object store and the audit log are real.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from dbos import DBOS
from sqlmodel import select

from audit.log import MerkleAuditLog
from audit.tables import AuditLeaf
from cds_service.bootstrap import _overlay
from cds_service.deliveries import Deliveries
from cds_service.lesions import Comparisons
from cds_service.node import Node
from cds_service.pipeline import Pipeline
from cds_service.schema import check_schema, migrate
from dermoscopy.analyses import load_analysis
from dermoscopy.blobs import FolderBlobStore
from dermoscopy.database import create_database_engine, unit_of_work
from dermoscopy.domain import (
    Analysis,
    Artifact,
    ArtifactKind,
    DeliveryReceipt,
    DermoscopicImage,
    Finding,
    PatientIdentity,
    SourceObject,
)
from dermoscopy.errors import (
    AnalysisFailed,
    DestinationUnavailable,
    ModelServerBusy,
    Rejected,
    UnreadableObject,
    WeightsMismatch,
)
from dermoscopy.intake import Intake, Receipt
from dermoscopy.patients import IssuerMap
from dermoscopy.settings import Settings
from dermoscopy.tables import AnalysisRow, ArtifactRow, DeliveryRow, HoldRow
from dermoscopy.workqueue import ANALYSIS_QUEUE, APPLICATION, APPLICATION_VERSION, DELIVERY_QUEUE, DurableWorkQueue
from models.measure import measure_outline
from tests.findings import drawn_lesion, make_finding, make_header
from tests.peers.processes import wait_until

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

PIXELS = drawn_lesion().pixels


def plain(finding: Finding) -> dict[str, object]:
    """What can be compared with ==: everything but the arrays."""
    return {f.name: getattr(finding, f.name) for f in fields(finding) if f.name not in ("mask", "heatmap", "embedding")}


class ProgrammedAlgorithm:
    """Raises what it was told to, in order, then answers."""

    def __init__(self, finding: Finding) -> None:
        self.reference = finding.model
        self.finding = finding
        self.errors: list[Exception] = []
        self.calls = 0

    def analyze(self, image: DermoscopicImage) -> Finding:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.finding


class ProgrammedDestination:
    """Takes overlays; raises what it was told to, in order."""

    name = "archive"
    accepts = frozenset({ArtifactKind.OVERLAY})

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.received: list[str] = []

    def deliver(self, artifact: Artifact, analysis: Analysis) -> DeliveryReceipt:
        if self.errors:
            raise self.errors.pop(0)
        self.received.append(analysis.id)
        return DeliveryReceipt("archive/1")


class Bench:
    """A node with a running engine, and what the test programs."""

    def __init__(self, node: Node, algorithm: ProgrammedAlgorithm, destination: ProgrammedDestination) -> None:
        self.node, self.algorithm, self.destination = node, algorithm, destination
        self.decode_error: Exception | None = None

    def decode(self, source: SourceObject) -> DermoscopicImage:
        if self.decode_error is not None:
            raise self.decode_error
        return DermoscopicImage(PIXELS, "p" * 64)

    def send(self, uid: str = "1.2.3") -> Receipt:
        header = make_header(PatientIdentity("A", "1"), sop_instance_uid=uid)
        return self.node.intake.accept(uid.encode(), header, source="test", caller="TEST")

    def analysis(self, receipt: Receipt) -> AnalysisRow:
        with self.node.begin() as session:
            return session.get_one(AnalysisRow, receipt.analysis_id)

    def delivery(self) -> DeliveryRow | None:
        with self.node.begin() as session:
            return session.execute(select(DeliveryRow)).scalars().one_or_none()

    def reached(self, receipt: Receipt, state: str) -> AnalysisRow:
        wait_until(lambda: self.analysis(receipt).state == state, f"analysis {state}", seconds=60)
        return self.analysis(receipt)

    def actions(self) -> list[str]:
        with self.node.begin() as session:
            return list(session.execute(select(AuditLeaf.action).order_by(AuditLeaf.at)).scalars())

    def holds(self) -> list[str]:
        with self.node.begin() as session:
            return list(session.execute(select(HoldRow.kind)).scalars())


@contextmanager
def running(node: Node, bench: Bench, comparisons: Comparisons | None = None) -> Iterator[Pipeline]:
    renderers = {ArtifactKind.OVERLAY: _overlay}
    pipeline = Pipeline(
        node,
        bench.algorithm,
        bench.decode,
        renderers,
        [bench.destination],
        measure=measure_outline,
        comparisons=comparisons,
    )
    DBOS(
        config={
            "name": APPLICATION,
            "system_database_engine": node.engine,
            "system_database_url": node.engine.url.render_as_string(hide_password=False),
            "executor_id": "test",
            "application_version": APPLICATION_VERSION,
            "run_migrations": False,
            "log_level": "ERROR",
        }
    )
    pipeline.register()
    DBOS.launch()
    for queue in (ANALYSIS_QUEUE, DELIVERY_QUEUE):
        DBOS.register_queue(queue, worker_concurrency=2, polling_interval_sec=0.02)
    try:
        yield pipeline
    finally:
        DBOS.destroy(workflow_completion_timeout_sec=5, destroy_registry=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else f"sqlite:///{tmp_path / 'c.db'}"
    settings = Settings(
        data_dir=tmp_path, database_url=url, delivery_backoff_seconds=0.05, delivery_backoff_limit_seconds=0.2
    )
    engine = create_database_engine(url)
    migrate(engine)
    check_schema(engine)
    begin, blobs, audit, queue = (
        unit_of_work(engine),
        FolderBlobStore(tmp_path / "b"),
        MerkleAuditLog(),
        DurableWorkQueue(engine),
    )
    finding = make_finding()
    intake = Intake(begin, blobs, audit, queue, finding.model)
    node = Node(settings, engine, begin, blobs, audit, queue, intake, IssuerMap(), finding.model)
    made = Bench(node, ProgrammedAlgorithm(finding), ProgrammedDestination())
    with running(node, made):
        yield made
    queue.close()
    engine.dispose()


def test_image_is_analysed_rendered_delivered(bench: Bench) -> None:
    receipt = bench.send()
    row = bench.reached(receipt, "complete")
    assert row.tier == bench.algorithm.finding.triage.tier
    with bench.node.begin() as session:
        kinds = set(session.execute(select(ArtifactRow.kind)).scalars())
        stored = load_analysis(session, bench.node.blobs, receipt.analysis_id)
    assert kinds == {"mask", "heatmap", "overlay"}
    assert np.array_equal(stored.finding.mask, bench.algorithm.finding.mask)
    assert plain(stored.finding) == plain(bench.algorithm.finding)
    assert bench.actions() == ["instance.accepted", "analysis.completed", "results.rendered", "delivery.delivered"]
    assert bench.holds() == []


def test_the_same_image_again_changes_nothing(bench: Bench) -> None:
    bench.reached(bench.send(), "complete")
    again = bench.send()
    assert again.duplicate
    bench.reached(again, "complete")
    assert bench.algorithm.calls == 1
    assert len(bench.destination.received) == 1


def test_destination_that_is_away_is_tried_again(bench: Bench) -> None:
    bench.destination.errors = [DestinationUnavailable("away"), DestinationUnavailable("busy", retry_after=0.1)]
    bench.reached(bench.send(), "complete")
    delivery = bench.delivery()
    assert delivery is not None
    assert (delivery.state, delivery.attempts, delivery.reference) == ("delivered", 3, "archive/1")
    assert bench.actions()[-3:] == ["delivery.retrying", "delivery.retrying", "delivery.delivered"]


@pytest.mark.parametrize("error", [Rejected("no such patient"), ValueError("surprise: Jane Doe")])
def test_refused_delivery_is_held_and_the_analysis_stands(bench: Bench, error: Exception) -> None:
    bench.destination.errors = [error]
    receipt = bench.send()
    wait_until(lambda: bench.holds() == ["delivery"], "hold", seconds=60)
    delivery = bench.delivery()
    assert delivery is not None
    assert delivery.state == "held"
    assert "Jane" not in delivery.last_error
    assert bench.analysis(receipt).state == "rendered"


@pytest.mark.parametrize(
    "error",
    [AnalysisFailed("broke"), WeightsMismatch("other weights"), UnreadableObject("truncated"), KeyError("Jane Doe")],
)
def test_failed_analysis_is_visible_and_held(bench: Bench, error: Exception) -> None:
    bench.algorithm.errors = [error]
    row = bench.reached(bench.send(), "failed")
    assert row.error.startswith(type(error).__name__)
    assert "Jane" not in row.error
    assert bench.holds() == ["analysis_failed"]
    assert bench.actions() == ["instance.accepted", "analysis.failed"]


def test_one_bad_image_stops_nobody_else(bench: Bench) -> None:
    bench.algorithm.errors = [AnalysisFailed("broke")]
    bad = bench.send("1.1")
    bench.reached(bad, "failed")
    bench.reached(bench.send("1.2"), "complete")


def test_busy_model_is_tried_again(bench: Bench) -> None:
    bench.algorithm.errors = [ModelServerBusy("busy")]
    bench.reached(bench.send(), "complete")
    assert bench.algorithm.calls == 2


def test_steps_that_run_twice_change_nothing(bench: Bench) -> None:
    """After a crash a step may run again although it had finished."""
    receipt = bench.send()
    bench.reached(receipt, "complete")
    before = bench.actions()
    pipeline = Pipeline(
        bench.node,
        bench.algorithm,
        bench.decode,
        {ArtifactKind.OVERLAY: _overlay},
        [bench.destination],
        measure=measure_outline,
    )
    assert pipeline.analyse(receipt.analysis_id)
    pipeline.render(receipt.analysis_id)
    pipeline.fail(receipt.analysis_id, RuntimeError("after the results stood"))
    assert bench.analysis(receipt).state == "complete"
    delivery = bench.delivery()
    assert delivery is not None
    Deliveries(bench.node, [bench.destination]).deliver(delivery.id, 1)
    assert bench.actions() == before
    assert len(bench.destination.received) == 1


def test_images_of_a_model_that_is_gone_are_not_answered_by_another(bench: Bench) -> None:
    bench.algorithm.reference = replace(bench.algorithm.reference, digest="0" * 64)
    row = bench.reached(bench.send(), "failed")
    assert "no longer runs" in row.error


def test_many_senders_at_once(bench: Bench) -> None:
    receipts: list[Receipt] = []

    def send(first: int) -> None:
        receipts.extend(bench.send(f"1.{n}") for n in range(first, first + 5))

    threads = [threading.Thread(target=send, args=(n * 5,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for receipt in receipts:
        bench.reached(receipt, "complete")
    assert sorted(bench.destination.received) == sorted(r.analysis_id for r in receipts)
