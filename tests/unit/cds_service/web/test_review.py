"""The review page: its layers, the earlier image beside it, and what becomes of a review that is typed into it."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
import sqlalchemy as sa

from audit.tables import AuditLeaf
from cds_service.authorization import Caller
from cds_service.web.layers import contours, editable
from dermoscopy.domain import PatientIdentity, TriageTier
from dermoscopy.outline import outline_fault, outline_mask
from dermoscopy.settings import ApiToken, Role
from dermoscopy.tables import AnalysisRow, InstanceRow
from tests.findings import ISSUER, PATIENT, drawn_lesion, fail, finish, make_finding, stored_analysis, take_in

REVIEW, READ = "review-token-0123456789", "read-token-0123456789"
TOKENS = tuple(
    ApiToken(name=name, token=token, role=role)  # type: ignore[arg-type]
    for name, token, role in (("derma", REVIEW, Role.REVIEW), ("ward", READ, Role.READ))
)
HERE = {"Origin": "http://127.0.0.1:8600"}
TRIANGLE = "[[20, 20], [150, 30], [90, 160]]"


@pytest.fixture
def analysis(node):
    return stored_analysis(node)


@pytest.fixture
def locked(open_client):
    return open_client(api_tokens=TOKENS)


def log_in(client, token=REVIEW):
    answer = client.post("/login/token", data={"token": token, "next": "/worklist"}, headers=HERE)
    assert (answer.status_code, answer.headers["location"]) == (303, "/worklist")


def key_of(client, analysis):
    (found,) = set(re.findall(r'name="key" value="([0-9a-f]{64})"', client.get(f"/analyses/{analysis.id}").text))
    return found


def say(client, analysis, **said):
    form = {"verdict": "confirmed", "seen": 0, **said}
    return client.post(f"/analyses/{analysis.id}/reviews", data=form, headers=HERE)


def picture(answer):
    assert answer.status_code == 200, answer.text
    return cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)


# -------------------------------------------------------------------------------------------------------- layers


def test_every_layer_is_a_picture_of_the_image_and_its_reading_is_in_the_audit_log(client, node, analysis):
    base = picture(client.get(f"/analyses/{analysis.id}/layers/image"))
    assert base.shape == (192, 192, 3)
    assert np.abs(base[..., ::-1].astype(int) - drawn_lesion().pixels).mean() < 4
    mask = picture(client.get(f"/analyses/{analysis.id}/layers/mask"))
    assert np.array_equal(mask[..., 3] > 0, drawn_lesion().mask)
    heat = picture(client.get(f"/analyses/{analysis.id}/layers/heat"))
    assert heat[..., 3][drawn_lesion().mask].min() == 204 and heat[..., 3][~drawn_lesion().mask].max() == 0
    assert picture(client.get(f"/analyses/{analysis.id}/layers/hair")).shape == (192, 192, 4)
    with node.begin() as session:
        told = session.execute(sa.select(AuditLeaf.details).where(AuditLeaf.action == "analysis.read")).scalars()
        assert {json.loads(one)["what"] for one in told} == {f"layer {n}" for n in ("image", "mask", "heat", "hair")}


def test_a_layer_that_the_browser_has_is_not_sent_again(client, analysis):
    first = client.get(f"/analyses/{analysis.id}/layers/image")
    again = client.get(f"/analyses/{analysis.id}/layers/image", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304 and first.headers["cache-control"] == "private, no-cache"


def test_there_are_no_layers_before_the_result_and_none_of_other_names(client, node, analysis):
    waiting = take_in(node, name="2").analysis_id
    assert client.get(f"/analyses/{waiting}/layers/mask").status_code == 409
    assert client.get(f"/analyses/{waiting}/layers/image").status_code == 200
    assert client.get(f"/analyses/{analysis.id}/layers/secret").status_code == 422


def test_the_outline_is_that_of_the_mask_and_fewer_corners_still_fit_it():
    mask = drawn_lesion().mask
    (outline,) = contours(mask)
    drawn = outline_mask(outline, *mask.shape)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.95
    few = editable(outline, *mask.shape)
    assert 3 <= len(few) <= 40 and outline_fault(few, *mask.shape) == ""
    drawn = outline_mask(few, *mask.shape)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.9


# -------------------------------------------------------------------------------------------------- earlier images


def test_the_newest_image_of_the_same_site_stands_beside_it(client, node):
    other = finish(node, take_in(node, name="0", body_site_code="75093004").analysis_id)
    same = stored_analysis(node, TriageTier.MONITOR, name="1")
    stored_analysis(node, TriageTier.MONITOR, PatientIdentity(ISSUER, "SOMEBODY-ELSE"))
    now = stored_analysis(node, name="2")
    page = client.get(f"/analyses/{now.id}").text
    assert f'<option value="{same.id}" selected>' in page and "(same site)" in page
    assert f'src="/analyses/{same.id}/layers/image"' in page
    assert len(re.findall(r'<option value="[0-9a-f-]{36}"', page)) == 2
    chosen = client.get(f"/analyses/{now.id}?prior={other.id}").text
    assert "It is not known to be the same site" in chosen
    assert "prior-stage" not in client.get(f"/analyses/{now.id}?prior=none").text


def test_nobody_elses_image_stands_beside_it(client, node, analysis):
    stranger = stored_analysis(node, patient=PatientIdentity(ISSUER, "SOMEBODY-ELSE"))
    assert client.get(f"/analyses/{analysis.id}?prior={stranger.id}").status_code == 404
    assert client.get(f"/analyses/{analysis.id}?prior={analysis.id}").status_code == 404


def test_the_image_of_a_failed_analysis_is_shown(client, node):
    broken = take_in(node).analysis_id
    fail(node, broken)
    page = client.get(f"/analyses/{broken}").text
    assert f'src="/analyses/{broken}/layers/image"' in page and "look at it yourself" in page
    assert 'name="verdict"' not in page and "layers/mask" not in page
    assert client.get(f"/analyses/{broken}/layers/mask").status_code == 404


def test_an_output_of_another_name_is_not_found(client, analysis):
    assert client.get(f"/analyses/{analysis.id}/files/secret").status_code == 404
    assert client.get(f"/analyses/{analysis.id}?prior=%0d%0aX").status_code == 422


def test_acquisition_is_shown_where_it_is_known(client, node, analysis):
    with node.begin() as session:
        row = session.get_one(AnalysisRow, analysis.id)
        document = json.loads(row.document)
        document["acquisition"] = {"contact": True, "polarised": False, "immersion": "oil", "magnification": 10.0}
        row.document = json.dumps(document)
    page = client.get(f"/analyses/{analysis.id}").text
    for words in ("in contact with the skin", "not polarised", "oil", "10 ×", "0.05 × 0.05 mm per pixel", "23" * 32):
        assert words in page


# --------------------------------------------------------------------------------------------------------- reviews


def test_a_correction_is_recorded_and_shown(client, node, analysis):
    answer = say(
        client, analysis, verdict="corrected", lesion_class="bcc", outline=TRIANGLE, laterality="R", comment="Vessels."
    )
    assert answer.status_code == 303, answer.text
    page = client.get(answer.headers["location"]).text
    for words in ("recorded", "amended by a clinician", "Vessels.", "Class: basal cell carcinoma", "3 corners"):
        assert words in page
    assert 'class="clinician" points="20,20 150,30 90,160"' in page
    assert 'name="seen" value="1"' in page


def test_two_at_once_the_second_is_told_and_loses_nothing(client, analysis):
    assert say(client, analysis, verdict="unusable", comment="Blurred <b>badly</b>").status_code == 303
    answer = say(client, analysis, verdict="corrected", outline=TRIANGLE, body_site_code="75093004", comment="Mine")
    assert answer.status_code == 409
    page = answer.text
    for words in (
        "Another review came first", "Blurred &lt;b&gt;badly&lt;/b&gt;", ">Mine</textarea>", 'name="seen" value="1"',
        'value="75093004" selected', 'value="corrected" required checked', 'data-points="20,20 150,30 90,160"',
    ):  # fmt: skip
        assert words in page, words


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"verdict": ""}, "choose one of the four"),
        ({"verdict": "confirmed", "lesion_class": "bcc"}, "use corrected"),
        ({"verdict": "corrected"}, "another class, outline or body site"),
        ({"verdict": "commented", "comment": "  "}, "a comment has words"),
        ({"verdict": "corrected", "lesion_class": "wart"}, "one of the classes"),
        ({"verdict": "corrected", "outline": "[[1,2"}, "draw it again"),
        ({"verdict": "corrected", "outline": '[["a"]]'}, "draw it again"),
        ({"verdict": "corrected", "outline": "[[0,0],[10,10],[999,0]]"}, "outside the image"),
        ({"verdict": "corrected", "outline": "[[0,0],[50,50],[50,0],[0,50]]"}, "crosses"),
        ({"verdict": "corrected", "body_site_code": "123456"}, "not a SNOMED CT code"),
    ],
)
def test_what_cannot_be_recorded_comes_back_with_the_reason(client, node, analysis, said, why):
    answer = say(client, analysis, **said)
    assert answer.status_code == 422
    assert why in answer.text and "This cannot be recorded" in answer.text
    with node.begin() as session:
        assert session.get_one(AnalysisRow, analysis.id).reviews == 0


def test_a_page_of_another_site_says_nothing(client, node, analysis):
    form = {"verdict": "confirmed", "seen": 0}
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = client.post(f"/analyses/{analysis.id}/reviews", data=form, headers=headers)
        assert answer.status_code == 403
    with node.begin() as session:
        assert session.get_one(AnalysisRow, analysis.id).reviews == 0


# ---------------------------------------------------------------------------------------------------------- logins


def test_with_a_login_a_form_needs_the_key_of_that_login(locked):
    analysis = stored_analysis(locked.app.state.node)
    assert say(locked, analysis).status_code == 401
    log_in(locked)
    key = key_of(locked, analysis)
    for wrong in ("", "0" * 64):
        answer = say(locked, analysis, key=wrong, comment="kept")
        assert answer.status_code == 403
        assert "send it again" in answer.text and ">kept</textarea>" in answer.text and key in answer.text
    assert say(locked, analysis, key=key).status_code == 303
    with locked.app.state.node.begin() as session:
        leaves = session.execute(sa.select(AuditLeaf.actor).where(AuditLeaf.action == "review.recorded")).scalars()
        assert list(leaves) == ["derma"]


def test_who_may_only_read_finds_no_form_and_cannot_post(locked):
    analysis = stored_analysis(locked.app.state.node)
    log_in(locked, READ)
    page = locked.get(f"/analyses/{analysis.id}").text
    assert 'name="verdict"' not in page and "may look, and not review" in page
    assert say(locked, analysis).status_code == 403


def test_a_login_opens_the_pages_and_not_the_apis(locked):
    analysis = stored_analysis(locked.app.state.node)
    log_in(locked)
    assert locked.get(f"/analyses/{analysis.id}/files/report").status_code == 200
    for path in (f"/api/v1/analyses/{analysis.id}", "/dicom-web/studies", "/cds-services"):
        assert locked.get(path).status_code == 401, path
    assert locked.post("/api/v1/analyze", json={}).status_code == 401


def test_a_launch_shows_its_own_patient_and_refuses_every_other(locked):
    node = locked.app.state.node
    own, other = stored_analysis(node), stored_analysis(node, patient=PatientIdentity(ISSUER, "SOMEBODY-ELSE"))
    who = Caller("ehr|ada", Role.REVIEW, "Dr. Ada Example", (PATIENT,))
    locked.cookies.set("cds", locked.app.state.sessions.start(who, how="launch"))
    key = key_of(locked, own)
    for part in ("", "/layers/image", "/files/report"):
        assert locked.get(f"/analyses/{own.id}{part}").status_code == 200
        answer = locked.get(f"/analyses/{other.id}{part}")
        assert answer.status_code == 403 and "another patient" in answer.text, part
    assert say(locked, other, key=key).status_code == 403
    assert say(locked, own, key=key).status_code == 303
    with node.begin() as session:
        leaves = session.execute(sa.select(AuditLeaf).where(AuditLeaf.action == "analysis.refused")).scalars().all()
        assert [(leaf.actor, leaf.subject_id) for leaf in leaves] == [("ehr|ada", other.id)] * 4


def test_logging_out_ends_it_and_a_stranger_cannot_log_anybody_in_or_out(locked):
    log_in(locked)
    foreign = {"Origin": "https://evil.example"}
    assert locked.post("/logout", headers=foreign).status_code == 403
    assert locked.post("/login/token", data={"token": REVIEW}, headers=foreign).status_code == 403
    kept = locked.cookies["cds"]
    assert locked.get("/worklist").status_code == 200
    assert locked.post("/logout", headers=HERE).status_code == 200
    locked.cookies.set("cds", kept)
    answer = locked.get("/worklist", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fworklist")


def test_a_wrong_token_is_told_and_counted(locked):
    answer = locked.post("/login/token", data={"token": "wrong"}, headers=HERE)
    assert answer.status_code == 401 and "not known here" in answer.text and "set-cookie" not in answer.headers
    with locked.app.state.node.begin() as session:
        assert session.execute(sa.select(AuditLeaf.action)).scalars().all() == ["login.failed"]


def test_a_second_login_ends_the_first(locked):
    log_in(locked)
    first = locked.cookies["cds"]
    log_in(locked, READ)
    locked.cookies.clear()
    locked.cookies.set("cds", first)
    assert locked.get("/worklist").status_code == 401


def test_over_https_the_cookie_is_bound_to_it(open_client):
    client = open_client(api_tokens=TOKENS, public_url="https://derm.example", host="127.0.0.1")
    answer = client.post("/login/token", data={"token": READ}, headers={"Origin": "https://derm.example"})
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-cds=") and "Secure" in cookie and "HttpOnly" in cookie and "Path=/" in cookie


def test_an_ehr_may_show_the_pages_in_a_frame_when_it_is_named(open_client):
    headers = open_client(frame_ancestors=("https://ehr.example",)).get("/").headers
    assert "frame-ancestors https://ehr.example" in headers["content-security-policy"]
    assert "x-frame-options" not in headers
    assert "frame-ancestors 'none'" in open_client().get("/").headers["content-security-policy"]


def test_pages_with_results_are_kept_nowhere(client, analysis):
    assert client.get(f"/analyses/{analysis.id}").headers["cache-control"] == "no-store"
    assert client.get("/worklist").headers["cache-control"] == "no-store"


def test_a_withdrawn_result_says_so_first(client, node, analysis):
    assert say(client, analysis, verdict="unusable").status_code == 303
    page = client.get(f"/analyses/{analysis.id}").text
    assert "must not be used" in page and "withdrawn" in page


def test_an_image_without_a_lesion_can_still_be_outlined(client, node):
    made = finish(node, take_in(node).analysis_id, make_finding(measurements=None))
    page = client.get(f"/analyses/{made.id}").text
    assert 'data-points=""' in page and "Edit the outline" in page
    assert f'src="/analyses/{made.id}/layers/mask"' not in page


def test_the_site_that_stands_is_the_corrected_one(client, node, analysis):
    assert say(client, analysis, verdict="corrected", body_site_code="75093004").status_code == 303
    page = client.get(f"/analyses/{analysis.id}").text
    assert "corrected; sent as Skin of back" in page
    with node.begin() as session:
        assert session.execute(sa.select(InstanceRow.body_site_code)).scalars().all() == ["66643007"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"verdict": "corrected", "lesion_class": "mel"}, "A clinician says: melanoma."),
        ({"verdict": "unusable"}, "A clinician says that this must not be used."),
    ],
)
def test_a_clinicians_word_stands_before_what_the_algorithm_recommended(client, node, answer, says):
    analysis = stored_analysis(node, TriageTier.MONITOR)
    before = client.get(f"/analyses/{analysis.id}").text
    assert "the algorithm said, urgency" not in before
    assert say(client, analysis, **answer).status_code == 303
    page = client.get(f"/analyses/{analysis.id}").text
    places = [page.index(part) for part in (says, "the algorithm said, urgency", ">monitor</p>", "Recommendation:")]
    assert places == sorted(places)
