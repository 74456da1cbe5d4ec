"""Draft orders: which are recognised by what, and that a priority only rises."""

from __future__ import annotations

import pytest
from fhir.resources.R4B.servicerequest import ServiceRequest

from dermoscopy import codes
from dermoscopy.codes import ORDER_CODES, OrderKind, Verification
from dermoscopy.errors import Rejected
from fhir_adapters.orders import PRIORITIES, Ground, draft_orders, raised, referral

DERMATOLOGY = {"text": "Dermatology"}


def bundle(*resources):
    return {"resourceType": "Bundle", "entry": [{"resource": one} for one in resources]}


def order(**changes):
    return {"resourceType": "ServiceRequest", "id": "o1", "status": "draft", **changes}


@pytest.mark.parametrize("row", ORDER_CODES.values(), ids=lambda row: row.code.code)
def test_every_code_is_recognised_where_skin_is_meant(row):
    coding = {"system": row.code.system, "code": row.code.code}
    resource = order(code={"coding": [coding]}, performerType=DERMATOLOGY)
    (found,) = draft_orders(bundle(resource), "p1")
    assert (found.kind, found.ground, found.reference) == (row.kind, Ground.CODE, "ServiceRequest/o1")
    assert row.code.verified in (Verification.VERIFIED, Verification.HIGH)
    bare = draft_orders(bundle(order(code={"coding": [coding]})), "p1")
    assert bool(bare) is row.skin


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Excisional biopsy of mole", OrderKind.EXCISION),
        ("Shave biopsy, skin", OrderKind.BIOPSY),
        ("Referral to dermatologist", OrderKind.REFERRAL),
        ("Consultation dermatology", OrderKind.REFERRAL),
        ("Biopsy of liver", None),
        ("Referral to cardiology", None),
        ("Skin care advice", None),
    ],
)
def test_words(said, kind):
    found = draft_orders(bundle(order(code={"text": said})), "p1")
    assert [(one.kind, one.ground) for one in found] == ([(kind, Ground.WORDS)] if kind else [])


@pytest.mark.parametrize(
    "subject", ["Patient/p2", "https://ehr.example/fhir/Patient/p2", "Patient/xp1", "Patient/p2/_history/1"]
)
def test_an_order_of_another_patient_is_refused(subject):
    with pytest.raises(Rejected, match="another patient"):
        draft_orders(bundle(order(subject={"reference": subject})), "p1")


@pytest.mark.parametrize(
    "subject", ["Patient/p1", "https://ehr.example/fhir/Patient/p1", "Patient/p1/_history/2", "urn:uuid:x"]
)
def test_an_order_of_this_patient_is_not(subject):
    assert draft_orders(bundle(order(subject={"reference": subject}, code={"text": "skin biopsy"})), "p1")


@pytest.mark.parametrize("stated", [None, *PRIORITIES, "whenever", 7])
@pytest.mark.parametrize("wanted", PRIORITIES)
def test_a_priority_only_rises(stated, wanted):
    resource = order(code={"text": "skin biopsy"}, **({} if stated is None else {"priority": stated}))
    (found,) = draft_orders(bundle(resource), "p1")
    rises = stated in (None, *PRIORITIES) and PRIORITIES.index(stated or "routine") < PRIORITIES.index(wanted)
    assert raised(found, wanted) == ({**resource, "priority": wanted} if rises else None)
    assert resource.get("priority") == stated  # what was sent is not touched


def test_an_order_without_an_id_cannot_be_changed():
    resource = order(code={"text": "skin biopsy"})
    del resource["id"]
    (found,) = draft_orders(bundle(resource), "p1")
    assert raised(found, "urgent") is None


@pytest.mark.parametrize("site", [codes.SITES["66643007"], None])
def test_a_referral_is_valid(site):
    made = referral(
        "p1", encounter_id="e1" if site else "", requester="Practitioner/1" if site else "Patient/p1",
        priority="urgent", site=site, side=codes.LATERALITY["L"], why="because",
    )  # fmt: skip
    ServiceRequest.model_validate(made)
    assert ("bodySite" in made, "requester" in made, "encounter" in made) == (bool(site),) * 3
