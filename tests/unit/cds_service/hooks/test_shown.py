"""The same finding is not shown twice to the same user in one encounter, and nothing that must be seen is silenced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from cds_service.hooks.shown import ShownCards
from dermoscopy.domain import TriageTier
from dermoscopy.tables import AnalysisRow, CardShownRow, ReviewRow, utc_now
from tests.findings import stored_analysis, take_in
from tests.unit.cds_service.hooks.calling import DISCHARGE, SELECT, SIGN, cards, leaves, request, service_request


def review(node, analysis_id, verdict="confirmed", revision=1, **changes):
    """A clinician's word on an analysis, as it is stored."""
    with node.begin() as session:
        row = ReviewRow(
            id=f"{analysis_id}-{revision}", analysis_id=analysis_id, revision=revision, at=utc_now(), reviewer="dr",
            verdict=verdict, **changes,
        )  # fmt: skip
        session.add(row)
        session.get_one(AnalysisRow, analysis_id).reviews = revision


@pytest.mark.parametrize("tier", list(TriageTier))
def test_once_per_user_and_encounter(client, node, tier):
    stored_analysis(node, tier)
    assert len(cards(client)) == 1
    assert cards(client) == []
    assert leaves(node)[-1][0] == "card.none" and leaves(node)[-1][1]["shown_before"] == 1


@pytest.mark.parametrize("context", [{"userId": "Practitioner/2"}, {"encounterId": "e2"}, {"encounterId": ...}])
def test_another_user_or_encounter_sees_it(client, node, context):
    stored_analysis(node)
    cards(client)
    assert len(cards(client, context=context)) == 1
    assert cards(client, context=context) == []


def test_a_repeat_of_the_same_call_gets_the_same_cards(client, node):
    stored_analysis(node)
    instance = "d1577c69-dfbe-44ad-ba6d-3e05e953b2ea"
    first = cards(client, hookInstance=instance)
    assert cards(client) == []
    assert cards(client, hookInstance=instance) == first != []


def test_a_new_result_is_shown_and_the_old_one_is_not(client, node):
    stored_analysis(node)
    cards(client)
    newer = stored_analysis(node, TriageTier.ROUTINE, name="2")
    (card,) = cards(client)
    assert newer.id in card["links"][0]["url"]


def test_what_a_clinician_changed_is_shown_again(client, node):
    analysis = stored_analysis(node)
    (first,) = cards(client)
    review(node, analysis.id)
    (second,) = cards(client)
    assert second["uuid"] != first["uuid"] and "confirmed by a clinician" in second["summary"]
    review(node, analysis.id, "corrected", 2, lesion_class="nv")
    (third,) = cards(client)
    assert third["indicator"] == "info" and "as a clinician corrected it" in third["summary"]
    review(node, analysis.id, "unusable", 3)
    (fourth,) = cards(client)
    assert "withdrawn" in fourth["summary"] and "probability" not in fourth["detail"]
    assert cards(client) == []


@pytest.mark.parametrize("tier", [TriageTier.URGENT, TriageTier.EXPEDITED, TriageTier.UNDETERMINED])
def test_what_is_grave_is_shown_where_it_is_decided_although_it_was_seen(client, node, tier):
    stored_analysis(node, tier)
    cards(client)
    assert len(cards(client, SIGN, service_request())) == 1
    assert cards(client, SIGN, service_request()) == []
    assert len(cards(client, DISCHARGE)) == (tier is not TriageTier.UNDETERMINED)


def test_the_next_order_is_another_decision(client, node):
    stored_analysis(node)
    assert len(cards(client, SIGN, service_request("a"))) == 1
    assert len(cards(client, SIGN, service_request("b"))) == 1


def test_what_is_harmless_and_was_seen_is_not_repeated_at_the_order(client, node):
    stored_analysis(node, TriageTier.MONITOR)
    cards(client)
    assert cards(client, SELECT, service_request()) == []


def test_work_under_way_is_told_at_every_call(client, node):
    take_in(node)
    assert len(cards(client)) == len(cards(client)) == 1


def test_nothing_is_remembered_where_that_is_asked_for(open_client):
    client = open_client(hooks_shown_days=0)
    stored_analysis(client.app.state.node)
    assert len(cards(client)) == len(cards(client)) == 1


def test_it_is_forgotten_in_time_and_cleaned_away(client, node):
    moment = [datetime(2026, 3, 14, tzinfo=UTC)]
    client.app.state.cds_shown = ShownCards(30, lambda: moment[0])
    stored_analysis(node)
    cards(client)
    moment[0] += timedelta(days=29)
    assert cards(client) == []
    moment[0] += timedelta(days=2)
    assert len(cards(client)) == 1
    moment[0] += timedelta(days=40)
    cards(client, context={"userId": "Practitioner/9"})
    with node.begin() as session:
        assert len(session.execute(sa.select(CardShownRow)).all()) == 1


def test_nothing_in_the_table_says_who_it_was(client, node):
    stored_analysis(node)
    answer = client.post(
        "/cds-services/dermoscopy-triage", json=request(hookInstance="d1577c69-dfbe-44ad-ba6d-3e05e953b2ea")
    )
    assert answer.json()["cards"]
    with node.begin() as session:
        row = session.execute(sa.select(CardShownRow)).scalar_one()
    text = " ".join(str(value) for value in row.model_dump().values())
    for secret in ("Practitioner/1", "e1", "p1", "TEST-0042", "d1577c69"):
        assert secret not in text.replace(row.id, "").replace(row.hook_instance, "").replace(
            row.analysis_id, ""
        ).replace(row.card, "")


def test_without_an_encounter_the_day_counts(client, node):
    moment = [datetime(2026, 3, 14, 9, tzinfo=UTC)]
    client.app.state.cds_shown = ShownCards(30, lambda: moment[0])
    stored_analysis(node)
    bare = {"context": {"encounterId": ...}}
    assert [len(cards(client, **bare)), len(cards(client, **bare))] == [1, 0]
    moment[0] += timedelta(days=1)
    assert len(cards(client, **bare)) == 1


def test_cards_that_could_not_be_sent_do_not_count_as_shown(client, node):
    stored_analysis(node)
    deep: dict = {}
    for _ in range(300):  # deeper than an answer can be written
        deep = {"extension": deep}
    answer = client.post(f"/cds-services/{SIGN}", json=request(SIGN, service_request(**deep)))
    assert answer.status_code == 400 and "nested too deeply" in answer.text
    assert len(cards(client, SIGN, service_request())) == 1


def test_a_card_that_another_call_cleans_away_meanwhile_is_shown(client, node, monkeypatch):
    """A row that is over its time stands in the way of ours, and is gone when it is looked for."""
    stored_analysis(node)
    cards(client)
    with node.begin() as session:
        session.execute(sa.text("CREATE TRIGGER gone AFTER INSERT ON card_shown BEGIN DELETE FROM card_shown; END"))
        session.execute(sa.delete(CardShownRow))
    assert len(cards(client)) == 1
