"""Comparisons in the database: any order of arrival, other patients, reviews, repeats, and what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from sqlmodel import select

from audit.tables import AuditLeaf
from cds_service.lesions import Comparisons, change_of, summaries_of
from cds_service.node import Node
from dermoscopy.analyses import load_source
from dermoscopy.domain import (
    Analysis,
    DermoscopicImage,
    PatientIdentity,
    ReportStatus,
    SourceObject,
    Verdict,
)
from dermoscopy.errors import AnalysisFailed, UnreadableObject
from dermoscopy.lesions import Candidates, Change, MatchState, Sighting, Stated
from dermoscopy.phantoms import Phantom, lesion_of
from dermoscopy.ports import CompareLesions, Pictured, RenderInput
from dermoscopy.tables import AnalysisRow, LesionChangeRow, LesionImageRow, ReviewRow
from dermoscopy.workqueue import COMPARE
from models.compare import LesionComparison
from models.measure import largest_region, measure
from tests.findings import NOON, PATIENT, RecordedQueue, finish, make_finding, make_node, take_in


@cache
def drawn(radius: float, seed: int = 5) -> Phantom:
    turn = np.linspace(0.0, 2.0 * np.pi, 300, endpoint=False)
    away = radius * (1.0 + 0.1 * np.cos(3 * turn))
    outline = np.stack([96 + away * np.sin(turn), 96 + away * np.cos(turn)], axis=1)
    return lesion_of(outline, seed, rows=192, columns=192)


@dataclass
class Clinic:
    """A node, the pictures that were sent to it, and the comparisons under test."""

    node: Node
    pictures: dict[str, Phantom] = field(default_factory=dict)
    taken: dict[str, datetime | None] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    compare: CompareLesions = field(default_factory=lambda: LesionComparison(None))

    @property
    def comparisons(self) -> Comparisons:
        return Comparisons(self.node, self.decode, self.compare, self.stated)

    def decode(self, source: SourceObject) -> DermoscopicImage:
        if source.instance_id in self.unreadable:
            raise UnreadableObject("the picture is damaged")
        return DermoscopicImage(self.pictures[source.instance_id].pixels, "p" * 64)

    def stated(self, source: SourceObject) -> Stated:
        return Stated(self.taken[source.instance_id])

    def send(
        self,
        name: str,
        days_ago: float | None,
        picture: Phantom | None = None,
        patient: PatientIdentity = PATIENT,
        **header: object,
    ) -> Analysis:
        """Taken in, analysed, and compared for the first time; ``days_ago`` `None`: the source states no date."""
        picture = picture or drawn(35)
        receipt = take_in(self.node, patient, name, **header)
        self.pictures[receipt.instance_id] = picture
        self.taken[receipt.instance_id] = None if days_ago is None else NOON - timedelta(days=days_ago)
        region = largest_region(picture.mask)
        assert region is not None
        measured = measure(DermoscopicImage(picture.pixels, ""), region)
        analysis = finish(
            self.node, receipt.analysis_id, replace(make_finding(), mask=picture.mask, measurements=measured)
        )
        self.first(analysis)
        return analysis

    def first(self, analysis: Analysis) -> Change | None:
        with self.node.begin() as session:
            source = load_source(session, self.node.blobs, analysis.instance_id)
        return self.comparisons.first(RenderInput(analysis, self.decode(source), source))

    def work(self) -> list[str]:
        """Run what was started, once each, as the durable engine would."""
        queue = self.node.queue
        assert isinstance(queue, RecordedQueue)
        started = {workflow_id: analysis_id for name, workflow_id, analysis_id in queue.started if name == COMPARE}
        queue.started.clear()
        for analysis_id in started.values():
            self.comparisons.again(analysis_id)
        return list(started.values())

    def change(self, analysis: Analysis) -> Change | None:
        with self.node.begin() as session:
            return change_of(session, analysis.id)

    def prior(self, analysis: Analysis) -> str:
        change = self.change(analysis)
        return "" if change is None else change.prior_id

    def leaves(self) -> int:
        with self.node.begin() as session:
            query = select(AuditLeaf.id).where(AuditLeaf.action == "comparison.made")
            return len(session.execute(query).all())


@pytest.fixture
def clinic(engine: sa.Engine, tmp_path: Path) -> Clinic:
    return Clinic(make_node(engine, tmp_path))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (2, 1, 0), (1, 2, 0)])
def test_three_images_are_compared_by_when_they_were_taken_in_any_order_of_arrival(
    clinic: Clinic, order: tuple[int, ...]
) -> None:
    """Oldest 0, newest 2; what is compared anew is started and done by the queue."""
    sent: dict[int, Analysis] = {}
    for one in order:
        sent[one] = clinic.send(f"image {one}", 200 - 90 * one, drawn(32 + 3 * one))
    clinic.work()
    assert clinic.prior(sent[2]) == sent[1].id
    assert clinic.prior(sent[1]) == sent[0].id
    assert clinic.change(sent[0]) is None
    change = clinic.change(sent[2])
    assert change is not None
    assert change.match.state is MatchState.LIKELY
    assert change.days == 90
    assert clinic.work() == []


def test_images_in_order_start_nothing_anew(clinic: Clinic) -> None:
    for n in range(3):
        clinic.send(f"image {n}", 200 - 90 * n)
    assert clinic.work() == []


@pytest.mark.parametrize(
    "other",
    [PatientIdentity(PATIENT.issuer, "TEST-0043"), PatientIdentity("HOSPITAL-B", PATIENT.patient_id)],
    ids=["other id", "other issuer"],
)
def test_another_patient_is_never_compared(clinic: Clinic, other: PatientIdentity) -> None:
    """The very same picture, site and side."""
    clinic.send("earlier", 90, patient=other)
    mine = clinic.send("mine", 0)
    assert clinic.change(mine) is None
    assert clinic.leaves() == 0


def test_a_repeat_changes_nothing_and_leaves_one_entry(clinic: Clinic) -> None:
    clinic.send("earlier", 90)
    now = clinic.send("now", 0)
    before = clinic.change(now)
    assert clinic.first(now) == before
    clinic.comparisons.again(now.id)
    assert clinic.change(now) == before
    assert clinic.leaves() == 1


def test_images_without_a_date_are_compared_by_receipt_and_say_so(clinic: Clinic) -> None:
    clinic.send("earlier", 90)
    now = clinic.send("now", None)
    change = clinic.change(now)
    assert change is not None
    assert not change.dated
    assert "state no date" in change.summary


def test_images_of_one_visit_are_not_compared(clinic: Clinic) -> None:
    clinic.send("first", 0.1)
    assert clinic.change(clinic.send("second", 0)) is None


def test_a_second_lesion_of_the_same_visit_takes_back_an_uncertain_comparison(clinic: Clinic) -> None:
    """One earlier image fits neither of two pictures of a visit: the first was compared before the second came."""
    clinic.send("earlier", 90, drawn(35, 6))
    first = clinic.send("first", 0.1, drawn(35, 7))
    before = clinic.change(first)
    assert before is not None
    assert before.match.state is MatchState.UNCERTAIN
    second = clinic.send("second", 0, drawn(35, 8))
    clinic.work()
    for one in (first, second):
        change = clinic.change(one)
        assert change is not None
        assert change.match.state is MatchState.NOT_COMPARED


def withdraw(clinic: Clinic, analysis: Analysis) -> None:
    with clinic.node.begin() as session:
        row = session.get_one(AnalysisRow, analysis.id)
        row.report_status, row.reviews = ReportStatus.ENTERED_IN_ERROR.value, 1
        session.add(
            ReviewRow(
                id="review", analysis_id=analysis.id, revision=1, at=NOON, reviewer="x", verdict=Verdict.UNUSABLE.value
            )
        )
        session.flush()
        clinic.comparisons.reviewed(session, analysis.id, 1)


def test_a_withdrawn_image_is_compared_with_no_more(clinic: Clinic) -> None:
    oldest = clinic.send("oldest", 180)
    wrong = clinic.send("wrong", 90)
    now = clinic.send("now", 0)
    assert clinic.prior(now) == wrong.id
    withdraw(clinic, wrong)
    clinic.work()
    assert clinic.prior(now) == oldest.id
    withdraw_only = clinic.change(now)
    assert withdraw_only is not None
    assert withdraw_only.days == 180


def test_when_the_only_earlier_image_is_withdrawn_the_comparison_is_said_to_hold_no_longer(clinic: Clinic) -> None:
    wrong = clinic.send("wrong", 90)
    now = clinic.send("now", 0)
    withdraw(clinic, wrong)
    clinic.work()
    change = clinic.change(now)
    assert change is not None
    assert change.match.state is MatchState.NOT_COMPARED
    assert "no longer holds" in change.summary


def test_a_corrected_site_counts(clinic: Clinic) -> None:
    """The earlier image was labelled with the wrong side until a clinician corrected it."""
    wrong = clinic.send("wrong side", 90, laterality="R")
    now = clinic.send("now", 0)
    assert clinic.change(now) is None
    with clinic.node.begin() as session:
        session.get_one(AnalysisRow, wrong.id).reviews = 1
        session.add(
            ReviewRow(
                id="review",
                analysis_id=wrong.id,
                revision=1,
                at=NOON,
                reviewer="x",
                verdict=Verdict.CORRECTED.value,
                laterality="L",
            )
        )
        session.flush()
        clinic.comparisons.reviewed(session, wrong.id, 1)
    clinic.work()
    assert clinic.prior(now) == wrong.id


def test_images_of_earlier_versions_are_earlier_images_too(clinic: Clinic) -> None:
    """They have no row of when they were taken: it is read from their bytes."""
    old = clinic.send("old", 90)
    with clinic.node.begin() as session:
        session.delete(session.get_one(LesionImageRow, old.id))
    assert clinic.prior(clinic.send("now", 0)) == old.id


def test_an_earlier_image_that_cannot_be_read_is_told_and_fails_nothing(clinic: Clinic) -> None:
    old = clinic.send("old", 90)
    clinic.unreadable.add(old.instance_id)
    change = clinic.change(clinic.send("now", 0))
    assert change is not None
    assert "cannot be read" in change.summary


def test_a_comparison_that_breaks_does_not_break_the_image(clinic: Clinic) -> None:
    def broken(
        now: Pictured, sighting: Sighting, found: Candidates, load: Callable[[Sighting], Pictured | None]
    ) -> Change | None:
        raise AnalysisFailed("no")

    clinic.send("old", 90)
    clinic.compare = broken
    change = clinic.change(clinic.send("now", 0))
    assert change is not None
    assert "the comparison failed" in change.summary


def test_summaries_come_by_analysis(clinic: Clinic) -> None:
    old = clinic.send("old", 90)
    now = clinic.send("now", 0)
    with clinic.node.begin() as session:
        assert summaries_of(session, []) == {}
        found = summaries_of(session, [old.id, now.id])
        assert list(found) == [now.id]
        assert found[now.id].startswith("Compared with the image of")
        assert session.get_one(LesionChangeRow, now.id).state == "likely"
