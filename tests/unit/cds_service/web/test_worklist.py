"""The worklist: its order, its narrowing, its pages, and the search that leaves no trace in an address."""

from __future__ import annotations

import html
import re

import pytest
import sqlalchemy as sa

from audit.tables import AuditLeaf
from cds_service.authorization import Caller
from cds_service.web import worklist
from dermoscopy.domain import PatientIdentity, TriageTier
from dermoscopy.settings import Role
from dermoscopy.tables import AnalysisRow
from tests.findings import ISSUER, PATIENT, fail, finish, make_finding, stored_analysis, take_in

HERE = {"Origin": "http://127.0.0.1:8600"}


def opened(page):
    return re.findall(r'href="/analyses/([0-9a-f-]{36})"', page)


def test_pages_follow_each_other_and_miss_nobody(client, node, monkeypatch):
    monkeypatch.setattr(worklist, "WORKLIST_LENGTH", 3)
    tiers = [TriageTier.MONITOR, TriageTier.URGENT, TriageTier.URGENT, TriageTier.UNDETERMINED, TriageTier.URGENT]
    made = [stored_analysis(node, tier, name=str(n)).id for n, tier in enumerate(tiers)]
    fail(node, failed := take_in(node, name="broken").analysis_id)
    queued = take_in(node, name="queued").analysis_id
    address, seen, pages = "/worklist", [], 0
    while address:
        page = client.get(address).text
        seen += opened(page)
        pages += 1
        (address,) = re.findall(r'class="button" href="([^"]*)"', page) or [""]
        address = html.unescape(address)
    assert seen == [made[4], made[2], made[1], failed, made[3], made[0], queued]
    assert pages == 3


def test_it_is_narrowed_by_urgency_status_and_site(client, node):
    urgent = stored_analysis(node, TriageTier.URGENT, name="1").id
    monitor = stored_analysis(node, TriageTier.MONITOR, name="2").id
    belly = finish(node, take_in(node, name="3", body_site_code="75093004").analysis_id).id
    form = {"verdict": "confirmed", "seen": 0}
    assert client.post(f"/analyses/{monitor}/reviews", data=form, headers=HERE).status_code == 303
    assert opened(client.get("/worklist").text) == [belly, urgent]
    assert opened(client.get("/worklist?status=all").text) == [belly, urgent, monitor]
    assert opened(client.get("/worklist?status=final").text) == [monitor]
    assert opened(client.get("/worklist?status=all&urgency=monitor").text) == [monitor]
    assert opened(client.get("/worklist?site=75093004").text) == [belly]
    for wrong in ("urgency=soon", "status=new", "site=1", "before=x"):
        assert client.get(f"/worklist?{wrong}").status_code == 422, wrong


def test_a_patient_is_searched_for_without_a_trace_in_the_address(client, node):
    mine = stored_analysis(node).id
    stored_analysis(node, patient=PatientIdentity(ISSUER, "OTHER"))
    answer = client.post("/worklist", data={"patient": PATIENT.patient_id, "issuer": ISSUER}, headers=HERE)
    assert opened(answer.text) == [mine] and PATIENT.patient_id not in str(answer.url)
    for nobody in (" ", "a\x00b", "a\nb"):
        assert client.post("/worklist", data={"patient": nobody}, headers=HERE).status_code == 422
    foreign = {"Origin": "https://evil.example"}
    assert client.post("/worklist", data={"patient": "x"}, headers=foreign).status_code == 403
    with node.begin() as session:
        leaves = session.execute(sa.select(AuditLeaf).where(AuditLeaf.action == "analysis.searched")).scalars().all()
        assert [(leaf.patient_id, leaf.actor) for leaf in leaves] == [(PATIENT.patient_id, "local")]


def test_a_launch_sees_its_own_patient_only(client, node):
    own = stored_analysis(node).id
    stored_analysis(node, patient=PatientIdentity(ISSUER, "OTHER"))
    with node.begin() as session:
        seen = worklist._items(session, Caller("ehr|ada", Role.REVIEW, "", (PATIENT,)), worklist._Wanted(), 10)
        none = worklist._items(session, Caller("ehr|ada", Role.REVIEW, "", ()), worklist._Wanted(), 10)
    assert [one["id"] for one in seen] == [own] and none == []


@pytest.mark.parametrize("group", ["urgent", "failed", "under way"])
def test_every_group_walks_along_an_index(node, group):
    query = worklist._select().where(*worklist._in_group(group), AnalysisRow.report_status == "preliminary")
    query = query.order_by(sa.desc(AnalysisRow.created_at)).limit(51)
    with node.begin() as session:
        text = str(query.compile(session.get_bind(), compile_kwargs={"literal_binds": True}))
        plan = " ".join(str(row[3]) for row in session.execute(sa.text(f"EXPLAIN QUERY PLAN {text}")))
    assert "ix_analysis_failed" in plan if group == "failed" else "ix_analysis_worklist" in plan, plan
    assert "TEMP B-TREE" not in plan, plan


def test_the_finding_of_a_failed_rendering_is_shown_as_failed(client, node):
    made = finish(node, take_in(node).analysis_id, make_finding(TriageTier.MONITOR)).id
    fail(node, made, "Unavailable: the disk is full")
    assert re.findall(r'class="tier (\w+)"', client.get("/worklist").text) == ["failed"]


def test_a_clinicians_word_stands_before_the_algorithms(client, node):
    """Whoever scans the list must not read "nevus" where a clinician saw a melanoma."""
    corrected = stored_analysis(node, TriageTier.MONITOR, name="1").id
    withdrawn = stored_analysis(node, TriageTier.MONITOR, name="2").id
    for of, form in (
        (corrected, {"verdict": "corrected", "lesion_class": "mel", "body_site_code": "75093004"}),
        (withdrawn, {"verdict": "unusable"}),
    ):
        assert client.post(f"/analyses/{of}/reviews", data=form | {"seen": 0}, headers=HERE).status_code == 303
    page = client.get("/worklist?status=all").text
    shown = re.findall(r"<tr>\s*<td>.*?</td>\s*<td>(.*?)</td>.*?</td>\s*<td>(.*?)</td>", page, re.DOTALL)
    assert [title for title, _ in shown] == ["withdrawn by a clinician", "melanoma, by a clinician"]
    assert "Skin of back" in shown[0][1] and "Skin of back" not in shown[1][1]
    found = client.post("/worklist", data={"patient": PATIENT.patient_id, "issuer": ISSUER}, headers=HERE).text
    assert "melanoma, by a clinician" in found
    listed = client.get("/api/v1/analyses").json()["analyses"]
    assert {one["report_id"]: one["report_status"] for one in listed} == {
        corrected: "amended",
        withdrawn: "entered-in-error",
    }
    newer = stored_analysis(node, TriageTier.MONITOR, name="3").id
    options = client.get(f"/analyses/{newer}").text
    assert "melanoma, by a clinician" in options and "withdrawn by a clinician" in options
