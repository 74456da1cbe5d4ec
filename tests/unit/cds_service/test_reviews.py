"""Reviews: what may be said, what is kept of it, and two persons at once."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from sqlmodel import select

from audit.tables import AuditLeaf
from cds_service.api.refusals import AlreadyDecided, InvalidRequest, NotFound, NotReady, ReviewConflict
from cds_service.authorization import Caller
from cds_service.reviews import ReviewDraft, record_review
from dermoscopy.domain import LesionClass, PatientIdentity, ReportStatus, Verdict
from dermoscopy.reviews import reviews_of, standing
from dermoscopy.settings import Role
from dermoscopy.tables import AnalysisRow, ReviewRow
from dermoscopy.workqueue import AMEND
from tests.findings import ISSUER, PATIENT, fail, finish, make_node, stored_analysis, take_in

DOCTOR = Caller("https://login|doctor-1", Role.REVIEW, "Dr Ada Example")
OTHER = Caller("https://login|doctor-2", Role.REVIEW, "Dr Bea Example")
CONFIRM = ReviewDraft(Verdict.CONFIRMED)
SQUARE = ((40.0, 40.0), (120.0, 40.0), (120.0, 130.0), (40.0, 130.0))
CORRECT = ReviewDraft(Verdict.CORRECTED, LesionClass.NV, SQUARE, "75093004", "R", "a nevus, seen since childhood")


@pytest.fixture
def node(engine, tmp_path):
    return make_node(engine, tmp_path / "data")


@pytest.fixture
def analysis_id(node):
    return stored_analysis(node).id


def status_of(node, analysis_id):
    with node.begin() as session:
        row = session.get_one(AnalysisRow, analysis_id)
        return row.reviews, row.report_status


def leaves(node):
    with node.begin() as session:
        rows = session.execute(select(AuditLeaf)).scalars().all()
        return [row.model_dump() for row in rows if row.action == "review.recorded"]


def test_all_that_was_said_is_kept(node, analysis_id):
    review = record_review(node, analysis_id, CORRECT, caller=DOCTOR, seen=0)
    with node.begin() as session:
        assert reviews_of(session, analysis_id) == (review,)
    assert (review.revision, review.reviewer, review.reviewer_name) == (1, DOCTOR.name, "Dr Ada Example")
    assert (review.outline, review.lesion_class, review.body_site_code) == (SQUARE, LesionClass.NV, "75093004")
    assert status_of(node, analysis_id) == (1, "amended")


def test_the_amended_results_are_started_in_the_same_transaction(node, analysis_id):
    review = record_review(node, analysis_id, CORRECT, caller=DOCTOR, seen=0)
    assert node.queue.started[-1] == (AMEND, f"amend:{review.id}", analysis_id, review.id)


def test_a_comment_changes_no_result(node, analysis_id):
    record_review(node, analysis_id, ReviewDraft(Verdict.COMMENTED, comment="hm"), caller=DOCTOR, seen=0)
    assert all(started[0] != AMEND for started in node.queue.started)
    assert status_of(node, analysis_id) == (1, "preliminary")


def test_the_audit_leaf_says_everything_but_the_comment(node, analysis_id):
    record_review(node, analysis_id, CORRECT, caller=DOCTOR, seen=0)
    (leaf,) = leaves(node)
    assert "childhood" not in json.dumps(leaf)
    details = json.loads(leaf["details"])
    assert (details["verdict"], details["report_status"], details["lesion_class"]) == ("corrected", "amended", "nv")
    assert (details["comment_characters"], len(details["comment_sha256"])) == (29, 64)
    assert (details["outline_corners"], leaf["actor"]) == (4, DOCTOR.name)


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([Verdict.CONFIRMED], "final"),
        ([Verdict.CONFIRMED, Verdict.CONFIRMED], "final"),
        ([Verdict.UNUSABLE], "entered-in-error"),
        ([Verdict.UNUSABLE, Verdict.CONFIRMED], "amended"),
    ],
)
def test_the_status_follows_what_was_said(node, analysis_id, verdicts, status):
    for seen, verdict in enumerate(verdicts):
        record_review(node, analysis_id, ReviewDraft(verdict), caller=DOCTOR, seen=seen)
    assert status_of(node, analysis_id) == (len(verdicts), status)


def test_the_second_of_two_persons_is_told_to_look_again(node, analysis_id):
    record_review(node, analysis_id, CORRECT, caller=DOCTOR, seen=0)
    with pytest.raises(ReviewConflict, match=r"somebody else.*Open the result again"):
        record_review(node, analysis_id, CONFIRM, caller=OTHER, seen=0)
    assert status_of(node, analysis_id) == (1, "amended")
    assert len(leaves(node)) == 1
    record_review(node, analysis_id, CONFIRM, caller=OTHER, seen=1)
    assert status_of(node, analysis_id) == (2, "amended")


def test_the_same_words_of_another_person_are_a_conflict_too(node, analysis_id):
    record_review(node, analysis_id, CONFIRM, caller=DOCTOR, seen=0)
    with pytest.raises(ReviewConflict):
        record_review(node, analysis_id, CONFIRM, caller=OTHER, seen=0)


def test_a_repeat_after_a_lost_answer_adds_nothing(node, analysis_id):
    first = record_review(node, analysis_id, CORRECT, caller=DOCTOR, seen=0)
    assert record_review(node, analysis_id, CORRECT, caller=DOCTOR, seen=0) == first
    assert status_of(node, analysis_id) == (1, "amended")
    assert len(leaves(node)) == 1


def test_nobody_can_have_seen_more_than_there_is(node, analysis_id):
    with pytest.raises(ReviewConflict):
        record_review(node, analysis_id, CONFIRM, caller=DOCTOR, seen=1)


@pytest.mark.parametrize(
    ("draft", "pointer", "words"),
    [
        (ReviewDraft(Verdict.CORRECTED), "#/verdict", "use confirmed"),
        (ReviewDraft(Verdict.CONFIRMED, LesionClass.NV), "#/verdict", "use corrected"),
        (ReviewDraft(Verdict.UNUSABLE, body_site_code="75093004"), "#/verdict", "use corrected"),
        (ReviewDraft(Verdict.COMMENTED, comment=" \n"), "#/comment", "words"),
        (ReviewDraft(Verdict.CONFIRMED, comment="x" * 2001), "#/comment", "2000"),
        (ReviewDraft(Verdict.CONFIRMED, comment="a\x00b"), "#/comment", "control"),
        (ReviewDraft(Verdict.CONFIRMED, comment="\ud800"), "#/comment", "control"),
        (ReviewDraft(Verdict.CORRECTED, body_site_code="80891009"), "#/body_site_code", "skin site"),
        (ReviewDraft(Verdict.CORRECTED, laterality="X"), "#/laterality", "L, R"),
        (ReviewDraft(Verdict.CORRECTED, outline=((0.0, 0.0), (193.0, 0.0), (5.0, 5.0))), "#/outline", "outside"),
        (ReviewDraft(Verdict.CORRECTED, LesionClass.MEL), "#/verdict", "stands already"),
        (ReviewDraft(Verdict.CORRECTED, body_site_code="66643007", laterality="L"), "#/verdict", "stands already"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(node, analysis_id, draft, pointer, words):
    with pytest.raises(InvalidRequest) as refused:
        record_review(node, analysis_id, draft, caller=DOCTOR, seen=0)
    (error,) = refused.value.members["errors"]
    assert error.pointer == pointer
    assert words in error.detail
    assert status_of(node, analysis_id) == (0, "preliminary")
    assert leaves(node) == []
    with node.begin() as session:
        assert session.execute(select(ReviewRow)).first() is None


def test_only_a_finished_result_can_be_reviewed(node):
    queued = take_in(node, name="queued").analysis_id
    with pytest.raises(NotReady):
        record_review(node, queued, CONFIRM, caller=DOCTOR, seen=0)
    finish(node, queued, state="rendered")
    record_review(node, queued, CONFIRM, caller=DOCTOR, seen=0)
    failed = take_in(node, name="failed").analysis_id
    fail(node, failed)
    with pytest.raises(AlreadyDecided):
        record_review(node, failed, CONFIRM, caller=DOCTOR, seen=0)
    with pytest.raises(NotFound):
        record_review(node, "no-such-id", CONFIRM, caller=DOCTOR, seen=0)


def test_who_sees_one_patient_only_reviews_no_other(node, analysis_id):
    elsewhere = replace(DOCTOR, patients=(PatientIdentity(ISSUER, "SOMEBODY-ELSE"),))
    with pytest.raises(NotFound):
        record_review(node, analysis_id, CONFIRM, caller=elsewhere, seen=0)
    assert status_of(node, analysis_id) == (0, "preliminary")
    record_review(node, analysis_id, CONFIRM, caller=replace(DOCTOR, patients=(PATIENT,)), seen=0)


def test_what_stands_is_the_last_that_was_given_of_each_thing(node, analysis_id):
    record_review(node, analysis_id, CORRECT, caller=DOCTOR, seen=0)
    record_review(node, analysis_id, ReviewDraft(Verdict.CORRECTED, LesionClass.BKL), caller=OTHER, seen=1)
    record_review(node, analysis_id, ReviewDraft(Verdict.COMMENTED, comment="why?"), caller=DOCTOR, seen=2)
    with node.begin() as session:
        now = standing(reviews_of(session, analysis_id))
    assert (now.lesion_class, now.outline, now.body_site_code) == (LesionClass.BKL, SQUARE, "75093004")
    assert now.status is ReportStatus.AMENDED
    assert now.last is not None and now.last.reviewer == OTHER.name
    assert not now.withdrawn
