"""Storage commitment of our results: pynetdicom and Orthanc report well, badly, late, wrongly or never."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel, select

from audit.tables import AuditLeaf
from cds_service.bootstrap import destinations
from cds_service.deliveries import Deliveries, send_again
from cds_service.listening import check, open_listener
from cds_service.node import Node
from cds_service.result_commitments import ResultCommitments
from dermoscopy.analyses import save_artifacts
from dermoscopy.database import create_database_engine
from dermoscopy.domain import Artifact, ArtifactKind, derive_id
from dermoscopy.errors import DestinationUnavailable, Misconfigured
from dermoscopy.settings import Settings
from dermoscopy.tables import AnalysisRow, ArtifactRow, DeliveryRow, HoldRow, ResultCommitmentRow
from dicom_listener.render import RENDERERS
from dicom_listener.syntaxes import COMPREHENSIVE_SR, SECONDARY_CAPTURE, SEGMENTATION
from tests.findings import make_node, stored_analysis
from tests.peers.committing_pacs import CommittingPacs
from tests.peers.processes import wait_until
from tests.unit.dicom_listener.certificates import Authority
from tests.unit.dicom_listener.samples import picture_source, render_input

HOST = "127.0.0.1"
KINDS = (ArtifactKind.SEG, ArtifactKind.SR, ArtifactKind.SECONDARY_CAPTURE)
CLASSES = (SEGMENTATION, COMPREHENSIVE_SR, SECONDARY_CAPTURE)
_WHAT = render_input(picture_source())
DRAWN = [RENDERERS[kind](_WHAT) for kind in KINDS]
UIDS = {artifact.uid for artifact in DRAWN}
INVALID_ARGUMENT = 0x0115


class Site:
    """A node whose work is done by hand, its listener, and one analysis with real result objects."""

    def __init__(self, engine: sa.Engine, folder: Path, pacs: dict[str, object], **settings: object) -> None:
        values = {"name": "pacs", "host": HOST, "ae_title": "PACS", "commitment": True, **pacs}
        self.node: Node = make_node(engine, folder, **{"dicom_port": 0, "pacs": [values], **settings})
        self.destinations = destinations(self.node)
        self.deliveries = Deliveries(self.node, self.destinations)
        self.commitments = ResultCommitments(self.node)
        self.listener = open_listener(self.node)
        self.listener.start()
        self.analysis_id = stored_analysis(self.node).id
        self.node.queue.started.clear()
        self.start(DRAWN)

    def start(self, artifacts: list[Artifact]) -> None:
        """Store (or replace) results and start their deliveries."""
        stored = [(artifact, self.node.blobs.put(artifact.data)) for artifact in artifacts]
        with self.node.begin() as session:
            rows = save_artifacts(session, self.analysis_id, stored)
            session.flush()
            self.deliveries.start(session, rows)

    def work(self, *kinds: str) -> list[str]:
        """Do what is in the queue now, without its pauses (of these workflows only, if named); what was done."""
        jobs = [job for job in self.node.queue.started if not kinds or job[0] in kinds]
        for job in jobs:
            self.node.queue.started.remove(job)
            name, _, subject, *rest = job
            if name == "deliver":
                self.deliveries.deliver(subject, int(rest[0]))
            elif name == "ask_commitment":
                self.commitments.ask(subject, int(rest[0]))
            elif name == "end_commitment":
                self.commitments.end(subject)
        return [job[0] for job in jobs]

    def delivery(self, kind: ArtifactKind) -> DeliveryRow:
        return next(row for row in self.all_deliveries() if row.kind == kind)

    def all_deliveries(self) -> list[DeliveryRow]:
        with self.node.begin() as session:
            return list(session.execute(select(DeliveryRow).order_by(DeliveryRow.kind)).scalars())

    def states(self) -> set[tuple[str, str]]:
        """(delivery, commitment) of every delivery."""
        return {(row.state, row.commitment) for row in self.all_deliveries()}

    def transactions(self) -> list[ResultCommitmentRow]:
        with self.node.begin() as session:
            query = select(ResultCommitmentRow).order_by(ResultCommitmentRow.created_at)
            return list(session.execute(query).scalars())

    def analysis_state(self) -> str:
        with self.node.begin() as session:
            return session.get_one(AnalysisRow, self.analysis_id).state

    def leaves(self, prefix: str) -> list[tuple[str, dict]]:
        with self.node.begin() as session:
            rows = session.execute(select(AuditLeaf.action, AuditLeaf.details).order_by(AuditLeaf.at)).all()
        return [(action, json.loads(details)) for action, details in rows if action.startswith(prefix)]

    def open_holds(self) -> list[str]:
        with self.node.begin() as session:
            return [row.subject_id for row in session.execute(select(HoldRow)).scalars() if row.resolved_at is None]

    def close(self) -> None:
        self.listener.shutdown(1)
        for one in self.destinations:
            one.close()


@pytest.fixture
def pacs() -> Iterator[CommittingPacs]:
    made = CommittingPacs(CLASSES)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def site(engine, tmp_path, pacs) -> Iterator[Site]:
    made = Site(engine, tmp_path, {"port": pacs.port, "commitment_attempts": 3, "commitment_backoff_seconds": 0.001})
    yield made
    made.close()


def asked(site: Site, pacs: CommittingPacs):
    """Deliver everything and ask; what the PACS was asked."""
    before = len(pacs.asked)
    site.work("deliver")
    assert site.work("ask_commitment") == ["ask_commitment"]
    assert len(pacs.asked) == before + 1
    return pacs.asked[-1]


def test_what_the_pacs_keeps_is_committed(site, pacs):
    request = asked(site, pacs)
    assert {uid for _, uid in request.pairs} == UIDS == set(pacs.uids())
    assert site.states() == {("delivered", "asked")}
    assert pacs.report(site.listener.port, request) == 0
    assert site.states() == {("delivered", "committed")}
    assert all(row.asked_at <= row.committed_at for row in site.all_deliveries())
    assert [action for action, _ in site.leaves("result_commitment")] == [
        "result_commitment.asked",
        "result_commitment.committed",
    ]
    assert site.work("end_commitment") == ["end_commitment"]
    assert site.states() == {("delivered", "committed")}  # and no longer waited for
    assert site.node.queue.started == []
    assert site.analysis_state() == "complete"


def test_a_report_on_the_association_of_the_request(site, pacs):
    request = asked(site, pacs)
    assert pacs.report_on_same(request) == 0
    assert site.states() == {("delivered", "committed")}


def test_the_next_request_ends_the_association_that_was_kept_open(site, pacs):
    first = asked(site, pacs)
    pacs.report(site.listener.port, first, failed=[(*first.pairs[0], 0x0110)])
    second = asked(site, pacs)
    wait_until(lambda: not first.association.is_established, "the first to end")
    assert pacs.report_on_same(second) == 0
    assert site.states() == {("delivered", "committed")}


def test_what_is_not_kept_is_sent_and_asked_about_again(site, pacs):
    request = asked(site, pacs)
    bad = next(pair for pair in request.pairs if pair[0] == COMPREHENSIVE_SR)
    assert pacs.report(site.listener.port, request, failed=[(*bad, 0x0213)]) == 0
    sr = site.delivery(ArtifactKind.SR)
    assert (sr.state, sr.commitment, sr.unconfirmed) == ("retrying", "unconfirmed", 1)
    assert "0213" in sr.last_error
    assert sr.next_attempt_at is not None
    assert site.delivery(ArtifactKind.SEG).commitment == "committed"
    assert site.analysis_state() == "rendered"
    again = asked(site, pacs)
    assert again.pairs == [bad]
    assert again.transaction_uid != request.transaction_uid
    assert pacs.uids().count(bad[1]) == 2
    assert pacs.report(site.listener.port, again) == 0
    assert site.states() == {("delivered", "committed")}
    assert site.analysis_state() == "complete"


def test_an_object_that_the_report_leaves_out_is_not_taken_for_kept(site, pacs):
    request = asked(site, pacs)
    assert pacs.report(site.listener.port, request, committed=request.pairs[:2]) == 0
    assert sorted(row.commitment for row in site.all_deliveries()) == ["committed", "committed", "unconfirmed"]


def test_after_some_attempts_a_person_decides_and_may_have_it_sent_again(site, pacs):
    for _ in range(3):
        request = asked(site, pacs)
        pacs.report(site.listener.port, request, failed=[(*pair, 0x0110) for pair in request.pairs])
    assert site.states() == {("held", "unconfirmed")}
    held = site.open_holds()
    assert sorted(held) == sorted(row.id for row in site.all_deliveries())
    assert site.work("deliver") == []
    for delivery_id in held:
        send_again(site.node, derive_id("hold", "delivery", delivery_id), by="me", resolution="disk mended")
    assert site.open_holds() == []
    assert pacs.report(site.listener.port, asked(site, pacs)) == 0
    assert site.states() == {("delivered", "committed")}


def test_silence_is_no_commitment_and_a_late_report_is(site, pacs):
    late = asked(site, pacs)
    assert site.work("end_commitment") == ["end_commitment"]
    assert site.states() == {("retrying", "unconfirmed")}
    assert "in time" in site.delivery(ArtifactKind.SEG).last_error
    assert pacs.report(site.listener.port, late) == 0
    assert site.states() == {("delivered", "committed")}
    site.work("deliver")  # was set before the report came
    assert len(pacs.stored) == 3
    assert site.transactions()[0].state == "reported"


def test_a_late_failure_says_nothing_of_what_was_sent_since(site, pacs):
    late = asked(site, pacs)
    site.work("end_commitment")
    again = asked(site, pacs)
    assert pacs.report(site.listener.port, late, failed=[(*pair, 0x0112) for pair in late.pairs]) == 0
    assert site.states() == {("delivered", "asked")}
    assert pacs.report(site.listener.port, again) == 0
    assert site.states() == {("delivered", "committed")}


def test_the_same_report_again_changes_nothing(site, pacs):
    request = asked(site, pacs)
    pacs.report(site.listener.port, request)
    before = site.leaves("")
    assert pacs.report(site.listener.port, request, failed=[(*pair, 0x0110) for pair in request.pairs]) == 0
    assert site.states() == {("delivered", "committed")}
    assert site.leaves("") == before


@pytest.mark.parametrize(
    "lie",
    [
        {"transaction_uid": "2.25.4711"},
        {"aet": "STRANGER"},
        {"committed": [(SEGMENTATION, "2.25.1")]},
        {"committed": [(SECONDARY_CAPTURE, DRAWN[0].uid)]},
        {"failed": [(SEGMENTATION, "2.25.1", 0x0112)]},
        {"committed": []},
    ],
    ids=["transaction", "peer", "object", "class", "failed object", "nothing"],
)
def test_a_report_that_is_not_believed(site, pacs, lie):
    request = asked(site, pacs)
    assert pacs.report(site.listener.port, request, **lie) == INVALID_ARGUMENT
    assert site.states() == {("delivered", "asked")}
    ((_, told),) = site.leaves("report.refused")
    assert told["reason"]
    assert pacs.report(site.listener.port, request) == 0  # the true one still counts
    assert site.states() == {("delivered", "committed")}


def test_an_event_that_does_not_exist(site, pacs):
    request = asked(site, pacs)
    assert pacs.report(site.listener.port, request, event=3) == 0x0113
    assert site.states() == {("delivered", "asked")}


def test_a_request_that_is_not_taken_is_made_again_as_another_one(site, pacs):
    pacs.action_status = 0x0213
    first = asked(site, pacs)
    assert site.states() == {("retrying", "unconfirmed")}
    pacs.action_status = 0
    second = asked(site, pacs)
    assert second.transaction_uid != first.transaction_uid
    assert pacs.report(site.listener.port, second) == 0
    assert site.states() == {("delivered", "committed")}


def test_a_pacs_that_refuses_to_be_asked(site, pacs):
    pacs.action_status = 0x0124
    asked(site, pacs)
    assert site.states() == {("held", "unconfirmed")}
    assert "0124" in site.delivery(ArtifactKind.SEG).last_error


def test_a_pacs_without_storage_commitment(engine, tmp_path):
    pacs = CommittingPacs(CLASSES, commits=False)
    pacs.start()
    site = Site(engine, tmp_path, {"port": pacs.port})
    try:
        site.work("deliver")
        site.work("ask_commitment")
        assert site.states() == {("held", "unconfirmed")}
        assert "set commitment = false" in site.delivery(ArtifactKind.SEG).last_error
    finally:
        site.close()
        pacs.stop()


def test_a_pacs_that_is_away_is_asked_when_it_is_back(site, pacs):
    site.work("deliver")
    pacs.stop()
    for _ in range(2):
        assert site.work("ask_commitment") == ["ask_commitment"]
    assert site.states() == {("delivered", "waiting")}
    (transaction,) = site.transactions()
    assert (transaction.state, transaction.attempts) == ("pending", 2)
    pacs.start()
    site.work("ask_commitment")
    assert pacs.asked[0].transaction_uid == transaction.transaction_uid
    assert pacs.report(site.listener.port, pacs.asked[0]) == 0
    assert site.states() == {("delivered", "committed")}


def test_one_object_that_is_refused_and_one_that_waits_keep_nobody_waiting(site, pacs):
    pacs.statuses = {SEGMENTATION: [0xA900], COMPREHENSIVE_SR: [0xA700]}
    request = asked(site, pacs)
    assert [sop_class for sop_class, _ in request.pairs] == [SECONDARY_CAPTURE]
    assert pacs.report(site.listener.port, request) == 0
    assert {row.kind: (row.state, row.commitment) for row in site.all_deliveries()} == {
        "seg": ("held", ""),
        "sr": ("retrying", ""),
        "secondary_capture": ("delivered", "committed"),
    }
    assert [sop_class for sop_class, _ in asked(site, pacs).pairs] == [COMPREHENSIVE_SR]


def test_an_attempt_that_was_recorded_is_not_made_twice(site, pacs):
    asked(site, pacs)
    site.commitments.ask(site.transactions()[0].id, 1)
    assert len(pacs.asked) == 1


def test_a_pacs_that_is_not_to_be_asked_is_not(engine, tmp_path, pacs):
    site = Site(engine, tmp_path, {"port": pacs.port, "commitment": False})
    try:
        site.work("deliver")
        assert site.states() == {("delivered", "")}
        assert site.node.queue.started == []
    finally:
        site.close()


@pytest.mark.peers
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_what_happens_at_once_happens_once(request, tmp_path, pacs, database):
    """Deliveries that end together are asked about once; a report that comes as time is over still counts."""
    folder = f"sqlite:///{tmp_path / 'once.sqlite3'}"
    engine = create_database_engine(request.getfixturevalue("postgres_url") if database == "postgresql" else folder)
    SQLModel.metadata.create_all(engine)
    site = Site(engine, tmp_path, {"port": pacs.port})
    try:
        waiting = [job for job in site.node.queue.started if job[0] == "deliver"]
        together([lambda job=job: site.deliveries.deliver(job[2], 1) for job in waiting])
        assert site.work("ask_commitment") == ["ask_commitment"]
        (request,) = pacs.asked
        assert {uid for _, uid in request.pairs} == UIDS
        answers: list[int | None] = []
        together(
            [
                lambda: answers.append(pacs.report(site.listener.port, request)),
                lambda: site.commitments.end(site.transactions()[0].id),
            ]
        )
        assert answers == [0]
        assert site.states() == {("delivered", "committed")}
        assert site.analysis_state() == "complete"
    finally:
        site.close()
        engine.dispose()


def together(calls: list[Callable[[], object]]) -> None:
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> None:
        start.wait()
        call()

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def amended(artifact: Artifact, uid: str) -> Artifact:
    """The artifact under another UID, as a later revision has."""
    old, new = artifact.uid.encode(), uid.encode().ljust(len(artifact.uid), b"0")
    return Artifact(
        artifact.kind, artifact.media_type, artifact.data.replace(old, new), new.decode(), artifact.sop_class_uid
    )


def test_an_amended_result_has_a_delivery_of_its_own(site, pacs):
    first = asked(site, pacs)
    pacs.report(site.listener.port, first)
    later = amended(DRAWN[0], "2.25.7")
    site.start([later, *DRAWN[1:]])
    assert site.analysis_state() == "rendered"
    request = asked(site, pacs)
    assert request.pairs == [(SEGMENTATION, later.uid)]
    assert pacs.report(site.listener.port, request) == 0
    assert site.states() == {("delivered", "committed")}
    assert sorted(row.uid for row in site.all_deliveries()) == sorted([*UIDS, later.uid])
    assert len(pacs.stored) == 4
    assert site.analysis_state() == "complete"
    site.start([later])  # once more changes nothing
    assert site.work("deliver") == []


def test_an_amended_result_supersedes_what_is_under_way_or_held(site, pacs):
    pacs.statuses = {SEGMENTATION: [0xA900], COMPREHENSIVE_SR: [0xA700]}
    site.work("deliver")
    site.start([amended(DRAWN[0], "2.25.7"), amended(DRAWN[1], "2.25.8")])
    by_uid = {row.uid: row.state for row in site.all_deliveries()}
    assert [by_uid[artifact.uid] for artifact in DRAWN] == ["superseded", "superseded", "delivered"]
    assert site.open_holds() == []
    assert len(site.leaves("delivery.superseded")) == 2
    site.work("deliver")
    assert set(pacs.uids()) == {DRAWN[2].uid, *(uid for uid in by_uid if uid not in UIDS)}
    assert site.analysis_state() == "complete"


def test_a_revision_that_was_called_off_and_comes_back_is_sent_in_an_attempt_of_its_own(site, pacs):
    """The engine runs a workflow of one name once: that of the attempt that was called off has run."""
    once = amended(DRAWN[0], "2.25.7")
    site.start([once])
    site.start([amended(DRAWN[0], "2.25.8")])
    names = {job[1] for job in site.node.queue.started}
    site.work("deliver")
    assert once.uid not in pacs.uids()
    site.start([once])
    again = {job[1] for job in site.node.queue.started if job[0] == "deliver"}
    assert len(again) == 1 and not again & names
    site.work("deliver")
    assert once.uid in pacs.uids()
    assert site.analysis_state() == "complete"


@pytest.mark.parametrize("status", [0xA700, 0xA900])
def test_an_attempt_that_fails_after_the_pacs_has_committed_is_no_news(site, pacs, status):
    late = asked(site, pacs)
    site.work("end_commitment")
    one = site.delivery(ArtifactKind.SEG)
    assert pacs.report(site.listener.port, late) == 0
    site.node.queue.started.clear()
    if status == 0xA700:
        site.deliveries._retry(one.id, 2, DestinationUnavailable("pacs is out of resources"))
    else:
        site.deliveries.hold(one.id, 2, "pacs refused the seg object")
    assert site.states() == {("delivered", "committed")}
    assert site.open_holds() == [] and site.node.queue.started == []


def test_what_arrives_although_it_was_superseded_is_put_right(engine, tmp_path, pacs):
    """An EHR has one place for a report: whatever comes last stands there."""
    site = Site(engine, tmp_path, {"port": pacs.port, "commitment": False})
    try:
        site.work("deliver")
        old = site.delivery(ArtifactKind.SEG)
        with site.node.begin() as session:
            session.get_one(ArtifactRow, old.artifact_id).digest = site.node.blobs.put(b"later")
            session.flush()
            row = session.get_one(ArtifactRow, old.artifact_id)
            site.deliveries.start(session, [row])
            new = session.execute(select(DeliveryRow).where(DeliveryRow.digest == row.digest)).scalar_one()
            new.state, new.attempts = "delivered", 1
            session.get_one(DeliveryRow, old.id).state = "superseded"
        site.node.queue.started.clear()
        site.deliveries._finish(old.id, 2, "late")
        assert site.node.queue.started == [("deliver", f"{new.id}:2", new.id, "2")]
    finally:
        site.close()


def test_reports_that_would_be_refused_at_the_door_stop_the_start(tmp_path):
    pacs = [{"name": "pacs", "host": "h", "port": 104, "ae_title": "STORE", "commitment": True}]
    check(Settings(data_dir=tmp_path, pacs=pacs))
    check(Settings(data_dir=tmp_path, pacs=pacs, dicom_calling_ae_titles=("CAMERA", "STORE")))
    with pytest.raises(Misconfigured, match="STORE is not let in"):
        check(Settings(data_dir=tmp_path, pacs=pacs, dicom_calling_ae_titles=("CAMERA",)))
    pacs[0]["commitment_ae_title"] = "CAMERA"
    check(Settings(data_dir=tmp_path, pacs=pacs, dicom_calling_ae_titles=("CAMERA",)))


def test_another_application_entity_of_the_pacs_is_asked_and_reports(engine, tmp_path, pacs):
    archive = CommittingPacs((), aet="ARCHIVE")
    archive.start()
    settings = {"port": pacs.port, "commitment_port": archive.port, "commitment_ae_title": "ARCHIVE"}
    site = Site(engine, tmp_path, settings)
    try:
        request = asked(site, archive)
        assert pacs.report(site.listener.port, request) == INVALID_ARGUMENT
        assert archive.report(site.listener.port, request) == 0
        assert site.states() == {("delivered", "committed")}
    finally:
        site.close()
        archive.stop()


def test_by_tls(engine, tmp_path):
    authority = Authority(tmp_path)
    ours, theirs = authority.issue("ours"), authority.issue("theirs")
    accepting = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.path))
    asking = ssl.create_default_context(cafile=str(authority.path))
    for context in (accepting, asking):
        context.load_cert_chain(theirs.certificate, theirs.key)
    accepting.verify_mode = ssl.CERT_REQUIRED
    pacs = CommittingPacs(CLASSES, server_tls=accepting, client_tls=asking)
    pacs.start()
    site = Site(
        engine,
        tmp_path,
        {"port": pacs.port, "tls": True},
        dicom_tls_certificate=ours.certificate,
        dicom_tls_key=ours.key,
        dicom_tls_ca=authority.path,
    )
    try:
        assert pacs.report(site.listener.port, asked(site, pacs)) == 0
        assert site.states() == {("delivered", "committed")}
    finally:
        site.close()
        pacs.stop()


@pytest.mark.peers
def test_orthanc_commits_to_our_results_and_misses_what_was_deleted(engine, tmp_path, start_orthanc, our_ae):
    orthanc = start_orthanc(us=our_ae)
    site = Site(
        engine,
        tmp_path / "data",
        {"port": orthanc.dicom_port, "ae_title": orthanc.aet},
        dicom_port=our_ae.port,
    )
    try:
        site.work("deliver")
        gone = next(one for one in orthanc.instances(COMPREHENSIVE_SR))
        orthanc.delete(gone.id)
        site.work("ask_commitment")
        wait_until(lambda: site.delivery(ArtifactKind.SR).commitment == "unconfirmed", "the report", seconds=30)
        assert "0112" in site.delivery(ArtifactKind.SR).last_error
        assert site.delivery(ArtifactKind.SEG).commitment == "committed"
        site.work("deliver")
        site.work("ask_commitment")
        wait_until(lambda: site.states() == {("delivered", "committed")}, "all to be committed", seconds=30)
        assert {one.sop_instance_uid for one in orthanc.instances()} == UIDS
    finally:
        site.close()
