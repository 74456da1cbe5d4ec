"""Storage commitment for senders: pynetdicom and Orthanc ask, and get their report on an association of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import pytest
import sqlalchemy as sa
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt
from sqlmodel import select

from audit.tables import AuditLeaf
from cds_service.commitments import Commitments, report_address
from cds_service.listening import listener_settings, open_listener
from cds_service.node import Node
from dermoscopy.errors import Misconfigured
from dermoscopy.settings import Settings
from dermoscopy.tables import AnalysisRow, CommitmentRow, FormerArtifactRow, HoldRow, utc_now
from dicom_listener.commitment import CLASS_CONFLICT, COMMITMENT_CLASS, COMMITMENT_INSTANCE, NO_SUCH_OBJECT
from dicom_listener.scp import StorageListener
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN, VL_PHOTOGRAPHIC
from tests.findings import make_node
from tests.peers.processes import free_port
from tests.unit.dicom_listener.samples import dataset, part10

HOST = "127.0.0.1"
UID = str(dataset().SOPInstanceUID)


class Requester:
    """Sends an image, asks for commitment, and takes the report on a port of its own; ``status`` answers it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.status = 0
        self.reports: Queue[tuple[int, Dataset]] = Queue()
        self.entity = AE("CAMERA")
        self.entity.add_supported_context(COMMITMENT_CLASS, scp_role=True, scu_role=True)
        self._server = None

    def start(self) -> None:
        self._server = self.entity.start_server(
            (HOST, self.port), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._take)]
        )

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()

    def _take(self, event) -> tuple[int, None]:
        self.reports.put((event.event_type, event.event_information))
        return self.status, None

    def associate(self, listener: StorageListener):
        contexts = [build_context(DERMOSCOPIC_PHOTOGRAPHY, [EXPLICIT_LITTLE_ENDIAN]), build_context(COMMITMENT_CLASS)]
        return self.entity.associate(HOST, listener.port, contexts=contexts, ae_title="DERMCDS")

    def ask(self, listener: StorageListener, *pairs: tuple[str, str], store=None, kind=1, **changes) -> Dataset:
        """The answer to an N-ACTION about (SOP class, SOP instance) pairs."""
        association = self.associate(listener)
        if store is not None:
            assert association.send_c_store(store).Status == 0
        asked = Dataset()
        asked.TransactionUID = "2.25.77"
        asked.ReferencedSOPSequence = []
        for sop_class, sop_instance in pairs:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
            asked.ReferencedSOPSequence.append(item)
        for keyword, value in changes.items():
            setattr(asked, keyword, value)
        answer, _ = association.send_n_action(asked, kind, COMMITMENT_CLASS, COMMITMENT_INSTANCE)
        association.release()
        return answer


class Site:
    """A node whose work queue is done by hand, and its listener."""

    def __init__(self, engine: sa.Engine, folder: Path, **settings: object) -> None:
        self.node: Node = make_node(engine, folder, dicom_port=0, **settings)
        self.listener = open_listener(self.node)
        self.listener.start()

    def work(self) -> int:
        """Make the reports that wait in the queue; how many there were."""
        waiting = [job for job in self.node.queue.started if job[0] == "commit"]
        self.node.queue.started.clear()
        for _, _, commitment_id, attempt in waiting:
            Commitments(self.node).report(commitment_id, int(attempt))
        return len(waiting)

    def row(self) -> CommitmentRow:
        with self.node.begin() as session:
            return session.execute(select(CommitmentRow)).scalars().one()

    def told(self) -> list[str]:
        with self.node.begin() as session:
            actions = session.execute(select(AuditLeaf.action)).scalars()
            return [action for action in actions if action.startswith("commitment.")]


@pytest.fixture
def requester() -> Iterator[Requester]:
    made = Requester()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def site(engine, tmp_path, requester) -> Iterator[Site]:
    made = Site(engine, tmp_path, dicom_peers=[{"ae_title": "CAMERA", "report_port": requester.port}])
    yield made
    made.listener.shutdown(1)


def test_what_was_stored_is_committed(site, requester):
    answer = requester.ask(site.listener, (DERMOSCOPIC_PHOTOGRAPHY, UID), store=dataset())
    assert answer.Status == 0
    assert site.work() == 1
    kind, report = requester.reports.get(timeout=10)
    assert (kind, report.TransactionUID) == (1, "2.25.77")
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [UID]
    assert "FailedSOPSequence" not in report
    assert site.row().state == "delivered"
    assert sorted(site.told()) == ["commitment.reported", "commitment.requested"]


def test_what_is_not_here_or_of_another_class_or_lost_is_said(site, requester):
    pairs = [(DERMOSCOPIC_PHOTOGRAPHY, "2.25.1"), (VL_PHOTOGRAPHIC, UID), (DERMOSCOPIC_PHOTOGRAPHY, "2.25.2")]
    association = requester.associate(site.listener)
    assert association.send_c_store(dataset(SOPInstanceUID="2.25.2", PatientID="4712")).Status == 0
    association.release()
    requester.ask(site.listener, *pairs, (DERMOSCOPIC_PHOTOGRAPHY, UID), store=dataset())
    with site.node.engine.connect() as connection:
        query = "SELECT digest FROM instance WHERE sop_instance_uid = '2.25.2'"
        digest = connection.execute(sa.text(query)).scalar_one()
    (site.node.settings.data_dir / "blobs" / digest[:2] / digest).unlink()
    site.work()
    kind, report = requester.reports.get(timeout=10)
    assert kind == 2
    assert [(item.ReferencedSOPInstanceUID, item.FailureReason) for item in report.FailedSOPSequence] == [
        ("2.25.1", NO_SUCH_OBJECT),
        (UID, CLASS_CONFLICT),
        ("2.25.2", NO_SUCH_OBJECT),
    ]
    assert [item.ReferencedSOPInstanceUID for item in report.ReferencedSOPSequence] == [UID]


def test_a_result_that_was_amended_is_still_here(site, requester):
    requester.ask(site.listener, (DERMOSCOPIC_PHOTOGRAPHY, UID), store=dataset())
    site.node.queue.started.clear()
    with site.node.begin() as session:
        former = FormerArtifactRow(
            id="f",
            analysis_id=session.execute(select(AnalysisRow.id)).scalar_one(),
            revision=0,
            kind="seg",
            media_type="application/dicom",
            digest=site.node.blobs.put(b"seg"),
            size=3,
            uid="2.25.5",
            sop_class_uid=VL_PHOTOGRAPHIC,
            replaced_at=utc_now(),
        )
        session.add(former)
    requester.ask(site.listener, (VL_PHOTOGRAPHIC, "2.25.5"), TransactionUID="2.25.78")
    site.work()
    assert requester.reports.get(timeout=10)[0] == 1


def test_a_requester_that_is_away_gets_its_report_when_it_is_back(site, requester):
    requester.stop()
    requester.ask(site.listener, (DERMOSCOPIC_PHOTOGRAPHY, UID), store=dataset())
    site.work()
    assert (site.row().state, site.row().attempts) == ("retrying", 1)
    assert site.row().next_attempt_at is not None
    requester.start()
    site.work()
    assert requester.reports.get(timeout=10)[0] == 1
    assert (site.row().state, site.row().attempts) == ("delivered", 2)


def test_an_attempt_that_was_recorded_is_not_made_twice(site, requester):
    requester.ask(site.listener, (DERMOSCOPIC_PHOTOGRAPHY, UID), store=dataset())
    site.work()
    Commitments(site.node).report(site.row().id, 1)
    requester.reports.get(timeout=10)
    assert requester.reports.empty()


def test_asking_again_is_answered_again(site, requester):
    for attempt in (1, 2):
        assert requester.ask(site.listener, (DERMOSCOPIC_PHOTOGRAPHY, UID), store=dataset()).Status == 0
        assert site.work() == 1
        requester.reports.get(timeout=10)
        assert site.row().attempts == attempt


def test_a_report_that_is_refused_is_left_to_a_person(site, requester):
    requester.status = 0x0115
    requester.ask(site.listener, (DERMOSCOPIC_PHOTOGRAPHY, UID), store=dataset())
    site.work()
    assert site.row().state == "held"
    with site.node.begin() as session:
        assert session.execute(select(HoldRow.kind)).scalars().all() == ["commitment"]


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        ({"kind": 2}, 0x0123),
        ({"TransactionUID": ""}, 0x0115),
        ({"ReferencedSOPSequence": []}, 0x0115),
        ({"ReferencedSOPSequence": [Dataset()]}, 0x0115),
    ],
)
def test_a_request_that_makes_no_sense(site, requester, ask, status):
    answer = requester.ask(site.listener, (DERMOSCOPIC_PHOTOGRAPHY, UID), **ask)
    assert answer.Status == status
    assert site.work() == 0
    assert requester.ask(site.listener, (DERMOSCOPIC_PHOTOGRAPHY, UID), store=dataset()).Status == 0


def test_nothing_is_promised_to_whom_nothing_can_be_reported(engine, tmp_path, requester):
    site = Site(engine, tmp_path)
    try:
        answer = requester.ask(site.listener, (DERMOSCOPIC_PHOTOGRAPHY, UID), store=dataset())
        assert answer.Status == 0x0110
        assert "not known" in answer.ErrorComment
        assert site.work() == 0
    finally:
        site.listener.shutdown(1)


def test_where_reports_go(tmp_path):
    settings = Settings(
        data_dir=tmp_path,
        dicom_peers=[
            {"ae_title": "A", "report_port": 104},
            {"ae_title": "B", "report_port": 105, "report_host": "b", "report_tls": True},
            {"ae_title": "C"},
        ],
        pacs=[{"name": "pacs", "host": "c", "port": 106, "ae_title": "C"}],
    )
    assert report_address(settings, "A", "192.0.2.1") == ("192.0.2.1", 104, False)
    assert report_address(settings, "B", "192.0.2.1") == ("b", 105, True)
    assert report_address(settings, "C", "192.0.2.1") == ("c", 106, False)
    with pytest.raises(Misconfigured, match="report_port is not set for D"):
        report_address(settings, "D", "192.0.2.1")


@pytest.mark.peers
def test_orthanc_shows_our_commitment(engine, tmp_path, start_orthanc, our_ae):
    pacs = start_orthanc(us=our_ae)
    node = make_node(
        engine,
        tmp_path / "data",
        dicom_port=our_ae.port,
        pacs=[{"name": "pacs", "host": HOST, "port": pacs.dicom_port, "ae_title": pacs.aet}],
    )
    assert listener_settings(node.settings).port == our_ae.port
    listener = open_listener(node)
    listener.start()
    stopping = threading.Event()

    def work() -> None:
        while not stopping.wait(0.1):
            for job in [job for job in node.queue.started if job[0] == "commit"]:
                with node.begin() as session:
                    if session.get(CommitmentRow, job[2]) is None:
                        continue  # its transaction is not yet committed; the real queue is part of it
                node.queue.started.remove(job)
                Commitments(node).report(job[2], int(job[3]))

    worker = threading.Thread(target=work)
    worker.start()
    try:
        identifier = pacs.upload(part10(dataset()))
        pacs.send([identifier])
        report = pacs.request_storage_commitment([(DERMOSCOPIC_PHOTOGRAPHY, UID), (DERMOSCOPIC_PHOTOGRAPHY, "2.25.9")])
        assert report["Status"] == "Failure"  # Orthanc's word for: not all of them
        assert [one["SOPInstanceUID"] for one in report["Success"]] == [UID]
        assert [one["SOPInstanceUID"] for one in report["Failures"]] == ["2.25.9"]
        assert pacs.request_storage_commitment([(DERMOSCOPIC_PHOTOGRAPHY, UID)])["Status"] == "Success"
    finally:
        stopping.set()
        worker.join()
        listener.shutdown(1)
