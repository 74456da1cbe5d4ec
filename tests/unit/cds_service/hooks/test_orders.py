"""Orders in draft: the result of the image that they are about, and what is suggested for them."""

from __future__ import annotations

import pytest

from dermoscopy import codes
from dermoscopy.domain import TriageTier
from tests.findings import finish, make_finding, stored_analysis, take_in
from tests.unit.cds_service.hooks.calling import (
    LEFT,
    SELECT,
    SIGN,
    SKIN_OF_BACK,
    body_site,
    bundle,
    cards,
    request,
    service_request,
)

CHEEK, RIGHT = "36141000", "24028007"
DERMATOLOGY = {"coding": [{"system": codes.SNOMED, "code": "394582007"}]}


def stored_at(node, site, side="L", tier=TriageTier.URGENT, name="1"):
    receipt = take_in(node, name=name, body_site_code=site, laterality=side)
    return finish(node, receipt.analysis_id, make_finding(tier))


@pytest.mark.parametrize("service", [SELECT, SIGN])
@pytest.mark.parametrize("tier", [TriageTier.URGENT, TriageTier.EXPEDITED])
def test_a_high_risk_suggests_urgency_and_changes_nothing_else_of_the_order(client, node, service, tier):
    stored_analysis(node, tier)
    order = service_request(bodySite=body_site(SKIN_OF_BACK, LEFT), priority="routine", note=[{"text": "own words"}])
    (card,) = cards(client, service, order)
    (suggestion,) = card["suggestions"]
    assert card["selectionBehavior"] == "at-most-one"
    assert suggestion["isRecommended"] is True and suggestion["uuid"] and suggestion["label"]
    (action,) = suggestion["actions"]
    assert action["type"] == "update" and action["description"]
    assert action["resource"] == {**order, "priority": "urgent"}
    assert "names the site of this image" in card["detail"]


@pytest.mark.parametrize("priority", ["urgent", "asap", "stat"])
def test_a_priority_is_never_lowered(client, node, priority):
    stored_analysis(node, TriageTier.URGENT)
    (card,) = cards(client, SIGN, service_request(priority=priority))
    assert "suggestions" not in card and "selectionBehavior" not in card


@pytest.mark.parametrize("tier", [TriageTier.ROUTINE, TriageTier.MONITOR, TriageTier.UNDETERMINED])
def test_no_other_result_suggests_anything(client, node, tier):
    stored_analysis(node, tier)
    (card,) = cards(client, SIGN, service_request())
    assert "suggestions" not in card


@pytest.mark.parametrize(
    "order",
    [
        service_request(code=("sct", "240977001")),
        service_request(code=("sct", "440258006")),
        service_request(code=("cpt", "11104")),
        service_request(code=("cpt", "11602")),
        service_request(code=("sct", "86273004"), bodySite=body_site()),
        service_request(code=("sct", "3457005"), performerType=DERMATOLOGY),
        service_request(code=("urn:own", "R-1"), performerType=DERMATOLOGY, category=[{"text": "Referral"}]),
    ],
)  # fmt: skip
def test_orders_are_recognised(client, node, order):
    stored_analysis(node, TriageTier.URGENT)
    (card,) = cards(client, SIGN, order)
    assert card["suggestions"]


def test_recognised_by_words_alone_is_said(client, node):
    stored_analysis(node, TriageTier.URGENT)
    order = service_request(code=("urn:own", "B-1"))
    order["code"]["text"] = "Punch biopsy, skin lesion"
    (card,) = cards(client, SIGN, order)
    assert "recognised by its words, not by a code" in card["detail"]


@pytest.mark.parametrize(
    "order",
    [
        service_request(code=("sct", "86273004"), bodySite=[{"text": "liver"}]),
        service_request(code=("sct", "3457005"), performerType={"text": "Cardiology"}),
        service_request(code=("sct", "240977001"), status="active"),
        {"resourceType": "MedicationRequest", "id": "m1", "status": "draft", "subject": {"reference": "Patient/p1"}},
    ],
)
def test_other_orders_are_none_of_ours_when_they_are_signed(client, node, order):
    stored_analysis(node, TriageTier.URGENT)
    assert cards(client, SIGN, order) == []


def test_without_such_an_order_a_referral_is_suggested_while_choosing(client, node):
    stored_at(node, SKIN_OF_BACK, "L", TriageTier.URGENT)
    stored_at(node, CHEEK, "R", TriageTier.EXPEDITED, name="2")
    stored_at(node, CHEEK, "R", TriageTier.ROUTINE, name="3")
    first, second = cards(client, SELECT)
    (action,) = first["suggestions"][0]["actions"]
    resource = action["resource"]
    assert action["type"] == "create" and "id" not in resource
    assert (resource["resourceType"], resource["status"], resource["intent"]) == ("ServiceRequest", "draft", "order")
    assert resource["priority"] == "urgent" and resource["subject"] == {"reference": "Patient/p1"}
    assert resource["encounter"] == {"reference": "Encounter/e1"}
    assert resource["requester"] == {"reference": "Practitioner/1"}
    assert {c["code"] for c in resource["bodySite"][0]["coding"]} == {SKIN_OF_BACK, LEFT}
    assert "suggestions" not in second  # one referral is enough


def test_the_created_order_is_valid_fhir(client, node):
    from fhir.resources.R4B.servicerequest import ServiceRequest

    stored_analysis(node, TriageTier.URGENT)
    (card,) = cards(client, SELECT)
    ServiceRequest.model_validate(card["suggestions"][0]["actions"][0]["resource"])


class TestWhichImage:
    def test_the_site_decides_and_the_other_risk_is_not_hidden(self, client, node):
        here = stored_at(node, SKIN_OF_BACK, "L", TriageTier.EXPEDITED)
        other = stored_at(node, CHEEK, "L", TriageTier.URGENT, name="2")
        stored_at(node, CHEEK, "R", TriageTier.MONITOR, name="3")
        mine, elsewhere = cards(client, SIGN, service_request(bodySite=body_site(SKIN_OF_BACK, LEFT)))
        assert here.id in mine["links"][0]["url"] and mine["suggestions"]
        assert other.id in elsewhere["links"][0]["url"] and "suggestions" not in elsewhere
        assert "another lesion" in elsewhere["detail"]

    def test_the_side_decides_as_well(self, client, node):
        stored_at(node, CHEEK, "L", TriageTier.URGENT)
        right = stored_at(node, CHEEK, "R", TriageTier.EXPEDITED, name="2")
        mine, _ = cards(client, SIGN, service_request(bodySite=body_site(CHEEK, RIGHT)))
        assert right.id in mine["links"][0]["url"] and mine["suggestions"]

    def test_words_are_a_weaker_ground_and_said(self, client, node):
        here = stored_at(node, CHEEK, "L", TriageTier.URGENT)
        stored_at(node, SKIN_OF_BACK, "L", TriageTier.ROUTINE, name="2")
        (card,) = cards(client, SIGN, service_request(bodySite=[{"text": "Left cheek"}]))
        assert here.id in card["links"][0]["url"]
        assert "in words, not by a code" in card["detail"]

    def test_several_images_and_no_site_is_unclear_and_said(self, client, node):
        stored_at(node, CHEEK, "L", TriageTier.URGENT)
        stored_at(node, SKIN_OF_BACK, "L", TriageTier.MONITOR, name="2")
        first, second = cards(client, SIGN, service_request())
        assert "several images" in first["detail"] and "several images" in second["detail"]
        assert "isRecommended" not in first["suggestions"][0]

    def test_a_referral_without_a_site_is_about_all(self, client, node):
        stored_at(node, CHEEK, "L", TriageTier.URGENT)
        stored_at(node, SKIN_OF_BACK, "L", TriageTier.EXPEDITED, name="2")
        order = service_request(code=("sct", "3457005"), performerType={"text": "Dermatology"})
        first, second = cards(client, SIGN, order)
        assert first["suggestions"][0]["isRecommended"] is True
        assert "suggestions" not in second  # the same order is raised once

    def test_only_what_was_just_chosen_counts(self, client, node):
        stored_analysis(node, TriageTier.URGENT)
        biopsy, other = service_request("b"), service_request("m", code=("sct", "73761001"))
        both = {"context": {"draftOrders": bundle(biopsy, other)}}
        assert cards(client, SELECT, other, **both) == []
        assert len(cards(client, SELECT, biopsy, **both)) == 1

    def test_a_selection_that_names_nothing_silences_nothing(self, client, node):
        stored_analysis(node, TriageTier.URGENT)
        assert cards(client, SELECT, service_request(), context={"selections": ["ServiceRequest/elsewhere"]})


def test_an_order_for_another_patient_is_refused(client, node):
    stored_analysis(node)
    order = service_request(subject={"reference": "Patient/p2"})
    answer = client.post(f"/cds-services/{SIGN}", json=request(SIGN, order))
    assert answer.status_code == 400
    assert "another patient" in answer.json()["issue"][0]["diagnostics"]


@pytest.mark.parametrize(
    ("service", "context", "says"),
    [
        (SIGN, {"draftOrders": ...}, "draftOrders"),
        (SELECT, {"selections": ...}, "selections"),
        (SELECT, {"selections": "ServiceRequest/1"}, "selections"),
        (SIGN, {"draftOrders": []}, "draftOrders"),
        (SIGN, {"draftOrders": {"resourceType": "Patient"}}, "not a Bundle"),
        ("dermoscopy-discharge", {"encounterId": ...}, "encounterId"),
        ("dermoscopy-discharge", {"encounterId": "../x"}, "encounterId"),
    ],
)
def test_a_context_that_is_not_whole_is_told(client, service, context, says):
    answer = client.post(f"/cds-services/{service}", json=request(service, context=context))
    assert answer.status_code == 400
    assert says in answer.json()["issue"][0]["diagnostics"]


@pytest.mark.parametrize(
    "entries",
    [
        None, "x", [None, 1, "x"], [{"resource": None}], [{"resource": {"resourceType": "ServiceRequest"}}],
        [{"resource": {"resourceType": "ServiceRequest", "code": [], "bodySite": {"coding": "x"}, "subject": "x"}}],
        [{"resource": {"resourceType": ["x"], "id": {}, "code": {"coding": [{"code": 7}], "text": 3}}}],
    ],
)  # fmt: skip
def test_nonsense_among_the_orders_breaks_nothing(client, node, entries):
    stored_analysis(node, TriageTier.URGENT)
    assert cards(client, SIGN, context={"draftOrders": {"resourceType": "Bundle", "entry": entries}}) == []
