"""Which lesion an outcome is about: exactly one, or nobody says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dermoscopy.domain import LesionClass
from dermoscopy.identifiers import report_identifier
from dermoscopy.outcomes import Candidate, Certainty, Outcome, OutcomeStatus, gravity, match

BACK, FACE, SKIN = "66643007", "73897004", "39937001"
TAKEN = datetime(2026, 11, 10, 9, 0, tzinfo=UTC)
LATER = TAKEN + timedelta(days=2)
FOUND = Outcome(OutcomeStatus.FINAL, Certainty.HISTOPATHOLOGY, TAKEN + timedelta(days=10), timed=False)
IMAGE = Candidate("a-1", TAKEN, "ACC-7", "1.2.3", "1.2", BACK, "L")
OTHER = replace(IMAGE, analysis_id="a-2", sop_instance_uid="1.2.4")
BY_ORDER = replace(FOUND, references=("ACC-7",))
BY_SITE = replace(FOUND, body_site_code=BACK, laterality="L")


@pytest.mark.parametrize(
    ("outcome", "candidates", "analysis", "by"),
    [
        (BY_ORDER, [IMAGE], "a-1", "accession"),
        (replace(FOUND, references=("urn:oid:1.2",)), [IMAGE], "a-1", "accession"),
        (replace(BY_ORDER, body_site_code=SKIN), [IMAGE], "a-1", "accession"),
        (replace(BY_ORDER, body_site_code="77568009"), [IMAGE], "a-1", "accession"),
        (replace(BY_SITE, references=("ACC-7",)), [IMAGE, replace(OTHER, laterality="R")], "a-1", "accession"),
        (replace(BY_SITE, references=("ACC-7",), alone=False), [IMAGE], "a-1", "accession"),
        (replace(FOUND, references=(report_identifier("a-2"), "ACC-7")), [IMAGE, OTHER], "a-2", "report"),
        (replace(FOUND, references=("urn:oid:1.2.4",)), [IMAGE, OTHER], "a-2", "report"),
        (BY_SITE, [IMAGE], "a-1", "site"),
        (BY_SITE, [IMAGE, replace(OTHER, body_site_code=FACE)], "a-1", "site"),
        (replace(BY_SITE, laterality=""), [replace(IMAGE, laterality="")], "a-1", "site"),
        (replace(BY_SITE, diagnosed_at=TAKEN.replace(hour=0)), [IMAGE], "a-1", "site"),
        (BY_SITE, [replace(IMAGE, tracking_uid="9"), replace(OTHER, tracking_uid="9", taken_at=LATER)], "a-2", "site"),
    ],
)
def test_one_lesion_is_left(outcome, candidates, analysis, by):
    found = match(outcome, candidates, days=180)
    assert (found.analysis_id, found.by, found.reason) == (analysis, by, "")
    assert match(outcome, candidates[::-1], days=180) == found


@pytest.mark.parametrize(
    ("outcome", "candidates", "reason"),
    [
        (BY_ORDER, [], "no image of this patient"),
        (BY_ORDER, [IMAGE, OTHER], "several lesions"),
        (BY_ORDER, [IMAGE, replace(OTHER, ready=False)], "several lesions"),
        (BY_ORDER, [replace(IMAGE, ready=False)], "no finished analysis"),
        (replace(BY_ORDER, laterality="R"), [IMAGE], "another one"),
        (replace(BY_ORDER, body_site_code=FACE), [IMAGE], "another one"),
        (replace(BY_ORDER, alone=False), [IMAGE], "several specimens"),
        (replace(BY_ORDER, diagnosed_at=TAKEN - timedelta(days=1)), [IMAGE], "after the specimen"),
        (replace(BY_ORDER, diagnosed_at=TAKEN - timedelta(hours=1), timed=True), [IMAGE], "after the specimen"),
        (FOUND, [IMAGE], "neither an order"),
        (replace(FOUND, body_site_code=SKIN), [IMAGE], "neither an order"),
        (replace(BY_SITE, diagnosed_at=None), [IMAGE], "says not when"),
        (BY_SITE, [IMAGE, OTHER], "several images"),
        (BY_SITE, [replace(IMAGE, laterality="R")], "in question"),
        (BY_SITE, [replace(IMAGE, laterality="")], "state no body site or side"),
        (BY_SITE, [IMAGE, replace(OTHER, body_site_code="")], "state no body site or side"),
        (replace(BY_SITE, diagnosed_at=TAKEN - timedelta(days=1)), [IMAGE], "180 days before"),
        (replace(BY_SITE, diagnosed_at=TAKEN + timedelta(days=181)), [IMAGE], "180 days before"),
    ],
)
def test_what_is_not_certain_says_why(outcome, candidates, reason):
    found = match(outcome, candidates, days=180)
    assert found.analysis_id == ""
    assert reason in found.reason


def test_histopathology_stands_before_follow_up_and_the_gravest_of_it():
    scar = replace(FOUND, malignant=False)
    melanoma = replace(FOUND, malignant=True, lesion_class=LesionClass.MEL)
    told = replace(melanoma, certainty=Certainty.FOLLOW_UP)
    assert max([scar, melanoma, told], key=gravity) is melanoma
    assert max([scar, told], key=gravity) is scar
