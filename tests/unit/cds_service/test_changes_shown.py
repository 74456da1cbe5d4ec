"""What changed reaches the API, the card and the page; where there is no earlier image, none of them says a word."""

from __future__ import annotations

from tests.changes import GREW, make_change, store_change
from tests.findings import stored_analysis
from tests.unit.cds_service.hooks.calling import cards


def changed(node):
    prior, now = stored_analysis(node, name="1"), stored_analysis(node, name="2")
    with node.begin() as session:
        store_change(session, now.id, make_change(prior.id))
    return prior, now


def test_the_api_tells_every_fact_with_match_and_noise(client, node):
    prior, now = changed(node)
    change = client.get(f"/api/v1/analyses/{now.id}").json()["change"]
    assert change["prior_report_id"] == prior.id
    assert (change["match"]["state"], change["match"]["points"]) == ("likely", 40)
    assert change["days"] == 90
    assert GREW in change["summary"]
    beyond = {fact["name"]: fact["beyond_noise"] for fact in change["facts"]}
    assert beyond == {"area": True, "asymmetry": False, "melanoma_risk": None, "tier": None}
    assert client.get(f"/api/v1/analyses/{prior.id}").json()["change"] is None


def test_the_card_says_it_in_its_detail(client, node):
    _, now = changed(node)
    detail = {one["links"][0]["url"].rpartition("/")[2]: one["detail"] for one in cards(client)}[now.id]
    assert "**Change:** Compared with the image of 2025-12-14, 90 days before" in detail
    assert "Area grew from 12.0 mm² to 18.0 mm²" in detail


def test_a_comparison_that_is_made_later_is_told_to_who_saw_the_card(client, node):
    prior, now = stored_analysis(node, name="1"), stored_analysis(node, name="2")
    before = {one["uuid"] for one in cards(client)}
    assert cards(client) == []
    with node.begin() as session:
        store_change(session, now.id, make_change(prior.id))
    (card,) = cards(client)
    assert now.id in card["links"][0]["url"]
    assert card["uuid"] not in before


def test_the_page_shows_then_and_now_beside_the_image_that_was_compared(client, node):
    prior, now = changed(node)
    stored_analysis(node, name="3")
    page = client.get(f"/analyses/{now.id}").text
    assert "What changed" in page
    assert f'<option value="{prior.id}" selected>' in page
    assert '<td class="number">12.0 mm²</td><td class="number">18.0 mm²</td>' in page
    assert "within what two pictures of one lesion differ by" in page
    assert "It cannot be told whether this changed." in page
    assert "What changed" not in client.get(f"/analyses/{prior.id}").text


def test_an_earlier_image_that_was_received_later_stands_beside_it(client, node):
    """A pulled image: it was taken before the other, and came after it."""
    now, prior = stored_analysis(node, name="1"), stored_analysis(node, name="2")
    assert f'<option value="{prior.id}"' not in client.get(f"/analyses/{now.id}").text
    with node.begin() as session:
        store_change(session, now.id, make_change(prior.id))
    assert f'<option value="{prior.id}" selected>' in client.get(f"/analyses/{now.id}").text
