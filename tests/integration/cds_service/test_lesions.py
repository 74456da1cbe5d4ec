"""Images of one lesion through the durable engine, on both databases; the earlier image comes after the newer one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from audit.log import MerkleAuditLog
from cds_service.lesions import Comparisons, change_of
from cds_service.node import Node
from cds_service.schema import migrate
from dermoscopy.blobs import FolderBlobStore
from dermoscopy.database import create_database_engine, unit_of_work
from dermoscopy.domain import SourceObject
from dermoscopy.intake import Intake, Receipt
from dermoscopy.lesions import Change, MatchState, Stated
from dermoscopy.patients import IssuerMap
from dermoscopy.settings import Settings
from dermoscopy.workqueue import DurableWorkQueue
from models.compare import LesionComparison
from tests.findings import NOON, make_finding
from tests.integration.cds_service.test_pipeline import Bench, ProgrammedAlgorithm, ProgrammedDestination, running
from tests.peers.processes import wait_until

pytestmark = [pytest.mark.peers, pytest.mark.timeout(180)]

TAKEN = {"1.1": NOON, "1.2": NOON - timedelta(days=90), "1.3": NOON - timedelta(days=30)}


def stated(source: SourceObject) -> Stated:
    return Stated(TAKEN[source.header.sop_instance_uid])


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_an_earlier_image_that_comes_later_is_compared_with(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue("postgres_url") if database == "postgresql" else f"sqlite:///{tmp_path / 'c.db'}"
    engine = create_database_engine(url)
    migrate(engine)
    begin, blobs = unit_of_work(engine), FolderBlobStore(tmp_path / "b")
    audit, queue = MerkleAuditLog(), DurableWorkQueue(engine)
    finding = make_finding()
    intake = Intake(begin, blobs, audit, queue, finding.model)
    node = Node(Settings(data_dir=tmp_path), engine, begin, blobs, audit, queue, intake, IssuerMap(), finding.model)
    bench = Bench(node, ProgrammedAlgorithm(finding), ProgrammedDestination())

    def change(receipt: Receipt) -> Change | None:
        with node.begin() as session:
            return change_of(session, receipt.analysis_id)

    def prior(receipt: Receipt) -> str:
        found = change(receipt)
        return "" if found is None else found.prior_id

    with running(node, bench, Comparisons(node, bench.decode, LesionComparison(None), stated)):
        newest = bench.send("1.1")
        bench.reached(newest, "complete")
        assert change(newest) is None
        oldest = bench.send("1.2")
        bench.reached(oldest, "complete")
        wait_until(lambda: prior(newest) == oldest.analysis_id, "compared with the oldest", seconds=60)
        middle = bench.send("1.3")
        bench.reached(middle, "complete")
        wait_until(lambda: prior(newest) == middle.analysis_id, "compared with the one between", seconds=60)
    assert prior(middle) == oldest.analysis_id
    assert change(oldest) is None
    found = change(newest)
    assert found is not None
    assert found.match.state is MatchState.LIKELY
    assert bench.actions().count("comparison.made") == 3
    assert bench.holds() == []
    queue.close()
    engine.dispose()
