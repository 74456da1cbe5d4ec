"""Amended results on both databases: what is drawn, replaced and sent; kills at any point; two persons at once.

The steps are called as the durable engine calls them, with its queue recorded, so that a test decides what runs when.
Renderers, decoder, database, object store and audit log are real.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from pydicom import dcmread
from sqlmodel import SQLModel, select

from audit.tables import AuditLeaf
from cds_service.api.refusals import ReviewConflict
from cds_service.app import create_app
from cds_service.authorization import Caller
from cds_service.bootstrap import renderers
from cds_service.pipeline import Pipeline
from cds_service.reviews import ReviewDraft, record_review
from dermoscopy.analyses import artifact_rows, former_artifacts, load_analysis
from dermoscopy.database import create_database_engine
from dermoscopy.domain import (
    Analysis,
    Artifact,
    ArtifactKind,
    DeliveryReceipt,
    DermoscopicImage,
    Finding,
    LesionClass,
    Review,
    Verdict,
)
from dermoscopy.errors import AnalysisFailed
from dermoscopy.outline import outline_mask
from dermoscopy.overlay import encode_png
from dermoscopy.settings import Role
from dermoscopy.tables import AnalysisRow, DeliveryRow, HoldRow
from dermoscopy.workqueue import AMEND, DELIVER
from dicom_listener.decode import decode
from dicom_listener.header import read_picture_header
from models.measure import measure_outline
from monitoring.health import Readiness
from tests.findings import MODEL, PATIENT, drawn_lesion, make_finding, make_node

pytestmark = [pytest.mark.peers, pytest.mark.timeout(120)]

DOCTOR = Caller("https://login|doctor-1", Role.REVIEW, "Dr Ada Example")
OTHER = Caller("https://login|doctor-2", Role.REVIEW, "Dr Bea Example")
SQUARE = ((40.0, 40.0), (120.0, 40.0), (120.0, 130.0), (40.0, 130.0))
CORRECT = ReviewDraft(Verdict.CORRECTED, LesionClass.NV, SQUARE, "75093004", "R", "a nevus")
CONFIRM, WITHDRAW = ReviewDraft(Verdict.CONFIRMED), ReviewDraft(Verdict.UNUSABLE)
SEG, SR, SC, NOTE = (
    ArtifactKind.SEG,
    ArtifactKind.SR,
    ArtifactKind.SECONDARY_CAPTURE,
    ArtifactKind.REJECTION_NOTE,
)


class Killed(BaseException):
    """The process dies here."""


class Archive:
    """A PACS that remembers what it was sent."""

    name = "archive"
    accepts = frozenset({SEG, SR, SC, NOTE})

    def __init__(self) -> None:
        self.received: list[tuple[ArtifactKind, str]] = []

    def deliver(self, artifact: Artifact, analysis: Analysis) -> DeliveryReceipt:
        self.received.append((artifact.kind, artifact.uid))
        return DeliveryReceipt(artifact.uid)


class _Algorithm:
    reference = MODEL

    def analyze(self, image: DermoscopicImage) -> Finding:
        return make_finding()


class Clinic:
    """A node with one finished result, and the steps that the engine would run."""

    def __init__(self, engine: sa.Engine, folder: Path) -> None:
        self.node = make_node(engine, folder, hooks_open=True)
        self.archive = Archive()
        self.pipeline = Pipeline(
            self.node, _Algorithm(), decode, renderers(self.node), [self.archive], measure=measure_outline
        )
        data = encode_png(drawn_lesion().pixels)
        header = read_picture_header(data, PATIENT)
        self.id = self.node.intake.accept(data, header, source="test", caller="test").analysis_id
        self.pipeline.analyse(self.id)
        self.pipeline.render(self.id)

    def say(self, draft: ReviewDraft, seen: int = 0, caller: Caller = DOCTOR) -> Review:
        return record_review(self.node, self.id, draft, caller=caller, seen=seen)

    def amend(self, review: Review) -> None:
        self.pipeline._amendments.amend(self.id, review.id)

    def deliver(self) -> None:
        """Run the deliveries that were started."""
        for workflow, _, *arguments in list(self.node.queue.started):  # type: ignore[attr-defined]
            if workflow == DELIVER:
                self.pipeline._deliveries.deliver(arguments[0], int(arguments[1]))

    def current(self) -> dict[ArtifactKind, str]:
        """Digest of each current output."""
        with self.node.begin() as session:
            return {kind: row.digest for kind, row in artifact_rows(session, self.id).items()}

    def uids(self) -> dict[ArtifactKind, str]:
        with self.node.begin() as session:
            return {kind: row.uid for kind, row in artifact_rows(session, self.id).items() if row.uid}

    def former(self) -> list[tuple[int, str]]:
        with self.node.begin() as session:
            return [(row.revision, row.kind) for row in former_artifacts(session, self.id)]

    def row(self) -> AnalysisRow:
        with self.node.begin() as session:
            return session.get_one(AnalysisRow, self.id)

    def actions(self) -> list[str]:
        with self.node.begin() as session:
            return list(session.execute(select(AuditLeaf.action).order_by(AuditLeaf.at)).scalars())


@pytest.fixture(params=["sqlite", "postgresql"])
def clinic(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Clinic]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else f"sqlite:///{tmp_path / 'c.db'}"
    engine = create_database_engine(url)
    SQLModel.metadata.create_all(engine)
    yield Clinic(engine, tmp_path / "data")
    engine.dispose()


def test_a_correction_is_drawn_sent_and_replaces_what_was_there(clinic: Clinic) -> None:
    clinic.deliver()
    before = clinic.uids()
    assert clinic.row().state == "complete"
    clinic.amend(clinic.say(CORRECT))
    assert clinic.row().state == "rendered"
    after = clinic.uids()
    assert all(after[kind] != before[kind] for kind in (SEG, SR, SC))
    clinic.deliver()
    assert clinic.row().state == "complete"
    assert sorted(clinic.archive.received) == sorted(
        [*((kind, before[kind]) for kind in (SEG, SR, SC)), *((kind, after[kind]) for kind in (SEG, SR, SC, NOTE))]
    )
    with clinic.node.begin() as session:
        rows, stored = artifact_rows(session, clinic.id), load_analysis(session, clinic.node.blobs, clinic.id)
    mask = dcmread(BytesIO(clinic.node.blobs.get(rows[SEG].digest))).pixel_array.astype(bool)
    assert np.array_equal(mask, outline_mask(SQUARE, 192, 192))
    assert np.array_equal(stored.finding.mask, make_finding().mask), "the algorithm's own answer stays"
    assert stored.finding.primary is LesionClass.MEL
    assert clinic.actions().count("results.amended") == 1
    assert {kind for _, kind in clinic.former()} >= {"seg", "sr", "secondary_capture", "overlay", "fhir_bundle"}


def test_a_comment_starts_nothing(clinic: Clinic) -> None:
    before = clinic.current()
    clinic.say(ReviewDraft(Verdict.COMMENTED, comment="hm"))
    assert all(started[0] != AMEND for started in clinic.node.queue.started)  # type: ignore[attr-defined]
    assert clinic.current() == before


def test_running_twice_changes_nothing(clinic: Clinic) -> None:
    review = clinic.say(CORRECT)
    clinic.amend(review)
    current, former, actions = clinic.current(), clinic.former(), clinic.actions()
    started = len(clinic.node.queue.started)  # type: ignore[attr-defined]
    clinic.amend(review)
    clinic.pipeline._amendments.fail(clinic.id, review.id, RuntimeError("after the results stood"))
    assert (clinic.current(), clinic.former(), clinic.actions()) == (current, former, actions)
    assert len(clinic.node.queue.started) == started  # type: ignore[attr-defined]


@pytest.mark.parametrize("where", ["draw", "put", "start", "settle"])
def test_killed_at_any_point_the_next_run_gives_the_same(
    clinic: Clinic, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    review = clinic.say(CORRECT)
    before, actions = clinic.current(), clinic.actions()
    amendments = clinic.pipeline._amendments
    places: dict[str, tuple[object, str]] = {
        "put": (type(clinic.node.blobs), "put"),
        "start": (amendments._deliveries, "start"),
    }
    place, name = places.get(where, ("cds_service.amendments", where))

    def die(*arguments: object, **named: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        if isinstance(place, str):
            patch.setattr(f"{place}.{name}", die)
        else:
            patch.setattr(place, name, die)
        with pytest.raises(Killed):
            clinic.amend(review)
    assert (clinic.current(), clinic.actions(), clinic.former()) == (before, actions, [])
    clinic.amend(review)
    clinic.deliver()
    assert clinic.row().state == "complete"
    kinds = [kind for kind, uid in clinic.archive.received if uid in clinic.uids().values()]
    assert sorted(kinds) == sorted([SEG, SR, SC, NOTE])


def test_what_was_not_sent_yet_is_not_sent_any_more(clinic: Clinic) -> None:
    clinic.amend(clinic.say(CORRECT))
    clinic.deliver()
    assert sorted(clinic.archive.received) == sorted((kind, uid) for kind, uid in clinic.uids().items() if kind in
                                                     (SEG, SR, SC, NOTE))  # fmt: skip
    assert clinic.row().state == "complete"


def test_of_two_reviews_in_a_row_the_last_stands_whoever_is_drawn_first(clinic: Clinic) -> None:
    first = clinic.say(CORRECT)
    second = clinic.say(ReviewDraft(Verdict.CORRECTED, LesionClass.BKL), seen=1, caller=OTHER)
    clinic.amend(second)
    current = clinic.current()
    clinic.amend(first)
    assert clinic.current() == current
    assert clinic.row().rendered_revision == 2
    assert {revision for revision, _ in clinic.former()} == {0}, "the first was never drawn"


def test_two_workers_draw_one_amendment(clinic: Clinic) -> None:
    reviews = [clinic.say(CORRECT), clinic.say(CONFIRM, seen=1, caller=OTHER)]
    barrier = threading.Barrier(2)
    broken: list[BaseException] = []

    def work(review: Review) -> None:
        barrier.wait()
        try:
            clinic.amend(review)
        except Exception as error:  # noqa: BLE001 - a transient answer is what the engine repeats on
            broken.append(error)

    threads = [threading.Thread(target=work, args=(review,)) for review in reviews]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for review in reviews:  # as the engine does
        clinic.amend(review)
    assert clinic.row().rendered_revision == 2
    assert clinic.actions().count("results.amended") == 1
    assert {type(error).__name__ for error in broken} <= {"Unavailable"}


def test_two_persons_at_once_one_wins_and_the_other_is_told(clinic: Clinic) -> None:
    barrier = threading.Barrier(2)
    ends: dict[str, object] = {}

    def correct(caller: Caller, lesion_class: LesionClass) -> None:
        draft = ReviewDraft(Verdict.CORRECTED, lesion_class)
        barrier.wait()
        try:
            ends[caller.name] = clinic.say(draft, caller=caller)
        except ReviewConflict as error:
            ends[caller.name] = error

    threads = [
        threading.Thread(target=correct, args=arguments)
        for arguments in ((DOCTOR, LesionClass.NV), (OTHER, LesionClass.BCC))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [end for end in ends.values() if isinstance(end, Review)]
    told = [end for end in ends.values() if isinstance(end, ReviewConflict)]
    assert (len(won), len(told)) == (1, 1)
    assert "Open the result again" in told[0].detail
    assert clinic.row().reviews == 1
    assert clinic.actions().count("review.recorded") == 1


def test_a_withdrawn_result_is_offered_and_sent_no_more(clinic: Clinic) -> None:
    before = clinic.uids()
    clinic.amend(clinic.say(WITHDRAW))
    assert SEG not in clinic.current()
    clinic.deliver()
    assert before[SEG] not in [uid for _, uid in clinic.archive.received]
    assert clinic.row().state == "complete"
    with clinic.node.begin() as session:
        states = dict(
            session.execute(sa.select(DeliveryRow.kind, DeliveryRow.state).where(DeliveryRow.kind == "seg")).all()  # type: ignore[call-overload, arg-type]
        )
    assert states == {"seg": "superseded"}
    clinic.amend(clinic.say(CONFIRM, seen=1))
    assert clinic.uids()[SEG] not in ("", before[SEG]), "it comes back under a new UID"


def test_only_the_newest_is_offered_and_the_old_can_be_had_by_its_uid(clinic: Clinic) -> None:
    before = clinic.uids()
    clinic.amend(clinic.say(WITHDRAW))
    after = clinic.uids()
    app = create_app(clinic.node, lambda: Readiness(True, ()))
    with TestClient(app, base_url="http://127.0.0.1:8600") as client:
        listed = client.get("/dicom-web/instances", headers={"Accept": "application/dicom+json"}).json()
        shown = {one["00080018"]["Value"][0] for one in listed}
        assert shown == {uid for uid in after.values() if uid.startswith("2.25.")}, "the FHIR bundle is no DICOM object"
        study = listed[0]["0020000D"]["Value"][0]
        series = {uid: dcmread(BytesIO(_bytes_of(clinic, uid))).SeriesInstanceUID for uid in (before[SEG], before[SR])}
        for uid in (before[SEG], before[SR]):
            address = f"/dicom-web/studies/{study}/series/{series[uid]}/instances/{uid}"
            assert (
                client.get(address, headers={"Accept": "multipart/related; type=application/dicom"}).status_code == 200
            )
        assert client.get(f"/api/v1/analyses/{clinic.id}/seg").status_code == 404
        assert "seg" not in client.get(f"/api/v1/analyses/{clinic.id}").json()["links"]


def _bytes_of(clinic: Clinic, uid: str) -> bytes:
    with clinic.node.begin() as session:
        row = next(row for row in former_artifacts(session, clinic.id) if row.uid == uid)
        return clinic.node.blobs.get(row.digest)


def test_an_amendment_that_cannot_be_drawn_waits_for_a_person(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    before = clinic.current()

    def broken(image: DermoscopicImage, mask: object) -> None:
        raise AnalysisFailed("no ruler anywhere")

    monkeypatch.setattr(clinic.pipeline._amendments, "_measure", broken)
    review = clinic.say(CORRECT)
    clinic.amend(review)
    clinic.amend(review)
    assert clinic.current() == before
    assert clinic.row().state == "rendered"
    with clinic.node.begin() as session:
        (hold,) = session.execute(select(HoldRow)).scalars()
    assert (hold.kind, hold.subject_id) == ("amendment_failed", review.id)
    assert "no ruler anywhere" in hold.reason
    assert "amendment.failed" in clinic.actions()


def test_what_has_gone_out_under_a_uid_never_changes_under_it(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version of the program may draw the same segmentation a little differently."""
    before = clinic.current()
    drawers = clinic.pipeline._amendments._renderers
    redrawn = {**drawers, SEG: lambda what: dataclasses.replace(drawers[SEG](what), data=b"drawn otherwise")}
    monkeypatch.setattr(clinic.pipeline._amendments, "_renderers", redrawn)
    clinic.amend(clinic.say(CONFIRM))
    assert clinic.current()[SEG] == before[SEG]
    assert clinic.current()[SR] != before[SR]
    assert (0, "seg") not in clinic.former()
