"""The older answer for apps of clinics: every field they know, and nothing confident where the algorithm is not."""

from __future__ import annotations

import base64

import pytest

from cds_service.api.telemedicine import PREFIX, SEVERITY, UNDETERMINED
from cds_service.authorization import LOCAL
from cds_service.reviews import ReviewDraft, record_review
from dermoscopy.domain import LesionClass, TriageTier, Verdict
from dermoscopy.overlay import encode_png
from dermoscopy.tables import InstanceRow
from dermoscopy.wording import PATIENT_WORDS
from tests.findings import SYSTEM, drawn_lesion, fail, finish, not_answered, stored_analysis, take_in

OLDER = {
    "report_id", "image_id", "condition", "confidence", "severity", "characteristics", "recommendation",
    "analysis_type", "segmentation", "conditions_detected", "mask_visualization_url",
}  # fmt: skip
BODY = {
    "image": base64.b64encode(encode_png(drawn_lesion().pixels)).decode(),
    "patient": {"system": SYSTEM, "id": "TEST-0042"},
    "wait": 0,
}


def read(client, analysis, audience=""):
    answer = client.get(f"{PREFIX}/reports/{analysis.id}", params={"audience": audience} if audience else {})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_app_of_before_finds_its_fields(client, node):
    said = read(client, stored_analysis(node))
    assert set(said) >= OLDER
    assert said["analysis_type"] == "dermoscopy"
    assert (said["condition"], said["confidence"], said["severity"]) == ("melanoma", 87.0, "critical")
    assert said["conditions_detected"][0] == {"condition": "melanoma", "confidence": 87.0}
    assert sum(one["confidence"] for one in said["conditions_detected"]) == pytest.approx(100, abs=0.5)
    assert said["segmentation"]["area_mm2"] == 23.4
    assert client.get(said["mask_visualization_url"]).headers["content-type"] == "image/png"
    assert client.get(said["segmentation"]["mask_url"]).headers["content-type"] == "image/png"
    with node.begin() as session:
        assert session.get(InstanceRow, said["image_id"]) is not None


def test_an_image_is_taken_in_and_asked_for_later(client, node):
    answer = client.post(f"{PREFIX}/analyze", json=BODY)
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"{PREFIX}/reports/{answer.json()['report_id']}"
    assert [started[2] for started in node.queue.started] == [answer.json()["report_id"]]
    assert client.get(answer.headers["Location"]).status_code == 202


def test_abstention_is_never_a_condition(client, node):
    said = read(client, finish(node, take_in(node).analysis_id, not_answered()))
    assert (said["condition"], said["confidence"]) == (UNDETERMINED, None)
    assert said["abstention"]


def test_a_failed_analysis_is_a_problem(client, node):
    report_id = client.post(f"{PREFIX}/analyze", json=BODY).json()["report_id"]
    fail(node, report_id)
    answer = client.get(f"{PREFIX}/reports/{report_id}")
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize("tier", list(TriageTier))
def test_a_patient_is_told_what_to_do_and_no_number(client, node, tier):
    said = read(client, stored_analysis(node, tier), "patient")
    assert said["patient"]["heading"] == PATIENT_WORDS[tier].heading
    assert said["severity"] == SEVERITY[tier]
    assert (said["confidence"], said["conditions_detected"], said["cannot_be_excluded"]) == (None, [], [])
    assert said["condition"] == UNDETERMINED
    assert said["mask_visualization_url"] == said["segmentation"]["mask_url"]  # the overlay's legend has a number
    assert "%" not in " ".join([*said["patient"].values(), said["recommendation"], *said["characteristics"]])


def test_what_a_clinician_said_raises_urgency_and_never_lowers_it(client, node):
    mild = stored_analysis(node, TriageTier.MONITOR)
    record_review(node, mild.id, ReviewDraft(Verdict.CORRECTED, LesionClass.MEL), caller=LOCAL, seen=0)
    assert read(client, mild, "patient")["patient"]["urgency"] == "urgent"
    assert read(client, mild)["condition"] == "melanoma"
    said = read(client, mild)
    assert (said["confidence"], said["conditions_detected"], said["cannot_be_excluded"]) == (None, [], [])
    assert said["recommendation"] == "A clinician corrected this result to melanoma: follow the clinician's advice."
    grave = stored_analysis(node, TriageTier.URGENT, name="2")
    record_review(node, grave.id, ReviewDraft(Verdict.CORRECTED, LesionClass.NV), caller=LOCAL, seen=0)
    assert read(client, grave)["urgency"] == "urgent"


def test_a_withdrawn_result_shows_nothing_to_act_on(client, node):
    analysis = stored_analysis(node)
    record_review(node, analysis.id, ReviewDraft(Verdict.UNUSABLE), caller=LOCAL, seen=0)
    said = read(client, analysis)
    assert (said["condition"], said["confidence"], said["severity"]) == ("withdrawn", None, UNDETERMINED)
    assert (said["conditions_detected"], said["characteristics"], said["segmentation"]) == ([], [], None)
    assert said["mask_visualization_url"] is None
