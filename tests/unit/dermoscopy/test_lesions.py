"""Which earlier images are candidates, and what is said of a change."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dermoscopy.codes import SITE_SKIN
from dermoscopy.lesions import (
    MOST_CANDIDATES,
    Change,
    Fact,
    Match,
    MatchState,
    Sighting,
    candidates,
    concerned,
)

BACK, CALF = "123961009", "53840002"
DAY = timedelta(days=1)
NOW = datetime(2026, 6, 1, 9, 0, tzinfo=UTC)


def seen(name: str, days: float, **changes: object) -> Sighting:
    """An image of the back, so many days before `NOW`."""
    one = Sighting(name, f"image-{name}", NOW - days * DAY, dated=True, body_site_code=BACK, laterality="L")
    return replace(one, **changes)  # type: ignore[arg-type]


def names(sightings: object) -> list[str]:
    return [one.analysis_id for one in sightings]  # type: ignore[attr-defined]


def test_earlier_images_of_the_same_site_and_side_are_candidates_newest_first() -> None:
    now = seen("now", 0)
    others = [
        seen("old", 300), seen("older", 600), seen("later", -30), seen("calf", 90, body_site_code=CALF),
        seen("right", 90, laterality="R"), seen("unsited", 90, body_site_code=""),
    ]  # fmt: skip
    found = candidates(now, others)
    assert names(found.earlier) == ["old", "older"]
    assert not found.stated


def test_images_of_the_same_visit_are_rivals_and_no_earlier_images() -> None:
    found = candidates(seen("now", 0), [seen("same visit", 0.1), seen("old", 30)])
    assert names(found.earlier) == ["old"]
    assert found.rivals == 1


@pytest.mark.parametrize("site", ["", SITE_SKIN.code])
def test_images_without_a_site_are_compared_only_when_the_source_tracks_them(site: str) -> None:
    now, old = seen("now", 0, body_site_code=site), seen("old", 30, body_site_code=site)
    assert candidates(now, [old]).earlier == ()
    found = candidates(replace(now, tracking_uid="1.2.3"), [replace(old, tracking_uid="1.2.3")])
    assert names(found.earlier) == ["old"]
    assert found.stated


def test_a_tracked_lesion_is_never_compared_with_one_that_is_tracked_as_another() -> None:
    now = seen("now", 0, tracking_uid="1.2.3")
    assert candidates(now, [seen("other", 30, tracking_uid="1.2.4")]).earlier == ()
    assert names(candidates(now, [seen("untracked", 30)]).earlier) == ["untracked"]
    tracked = candidates(now, [seen("untracked", 30), seen("tracked", 60, tracking_uid="1.2.3", body_site_code=CALF)])
    assert names(tracked.earlier) == ["tracked"]
    assert tracked.stated


def test_an_image_is_no_earlier_image_of_itself_when_two_models_analysed_it() -> None:
    now = seen("now", 0)
    assert candidates(now, [replace(seen("by another model", 30), instance_id=now.instance_id)]).earlier == ()
    old = seen("old", 30)
    assert len(candidates(now, [old, replace(old, analysis_id="old, by another model")]).earlier) == 1


def test_beyond_a_number_candidates_are_counted_and_not_looked_at() -> None:
    found = candidates(seen("now", 0), [seen(f"{n:02}", 10 + n) for n in range(MOST_CANDIDATES + 3)])
    assert len(found.earlier) == MOST_CANDIDATES
    assert found.left_out == 3
    assert names(found.earlier)[0] == "00"


def test_later_images_of_the_site_or_of_the_tracked_lesion_are_concerned() -> None:
    early = seen("early", 100, tracking_uid="1.2.3")
    others = [
        seen("earlier", 200), seen("later", 10), seen("calf", 10, body_site_code=CALF),
        seen("tracked", 10, body_site_code=CALF, tracking_uid="1.2.3"), seen("another", 10, tracking_uid="1.2.9"),
    ]  # fmt: skip
    assert names(concerned(early, others)) == ["later", "tracked"]


def fact(name: str, beyond: bool | None, words: str = "") -> Fact:
    return Fact(name, name.title(), "1", "2", words or f"{name} changed.", "1", 1.0, 2.0, 1.0, 0.5, beyond)


def changed(*facts: Fact, **changes: object) -> Change:
    match = Match(MatchState.LIKELY, "Probably the same lesion.", 40)
    return replace(Change(match, NOW, "prior", NOW - 90 * DAY, facts=facts), **changes)  # type: ignore[arg-type]


def test_a_summary_says_since_when_how_sure_and_what_changed() -> None:
    said = changed(fact("area", True, "Area grew."), fact("asymmetry", False)).summary
    assert said == "Compared with the image of 2026-03-03, 90 days before. Probably the same lesion. Area grew."


def test_nothing_beyond_noise_is_not_said_to_be_no_change() -> None:
    said = changed(fact("area", False)).summary
    assert "excludes no change" in said
    assert "unchanged" not in said


def test_what_cannot_be_told_is_named() -> None:
    assert "It cannot be told whether this changed: area." in changed(fact("area", None)).summary
    unmeasured = replace(fact("area", None), noise=None)
    assert "It cannot be told whether this changed: area." in changed(unmeasured).summary


def test_dates_of_receipt_are_said_to_be_that() -> None:
    assert "when it was received" in changed(dated=False).summary


def test_without_a_comparison_there_is_only_the_reason() -> None:
    assert Change(Match(MatchState.NOT_COMPARED, "Not compared."), NOW).summary == "Not compared."
    assert Change(Match(MatchState.NOT_COMPARED, "Not compared."), NOW).days is None
