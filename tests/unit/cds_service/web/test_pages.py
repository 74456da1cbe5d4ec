"""Pages: what stands on them, that nothing foreign is loaded, and that no identity gets into addresses or titles."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

from cds_service.error_handlers import ANSWERS, slug_of
from dermoscopy.domain import PatientIdentity, TriageTier
from dermoscopy.tables import InstanceRow
from tests.findings import (
    NOTE,
    PATIENT,
    called_otherwise,
    fail,
    finish,
    make_finding,
    not_answered,
    stored_analysis,
    take_in,
)

NOTICE = "not cleared as a medical device"
NOBODY = "6f0f3d3e-8c0e-5a43-9d0b-3f6c4c1f2a77"


@pytest.fixture
def analysis(node):
    return stored_analysis(node)


def test_the_review_page_says_it_all(client, analysis):
    page = client.get(f"/analyses/{analysis.id}").text
    for part in (
        NOTICE, "urgent", "Melanoma, 87.0 %", "Refer to dermatology", "23.4 mm²", "9274 pixels", "melanocytic nevus",
        "lesionnet-lite0 1.0.0", "ab" * 32, "Skin of back", PATIENT.patient_id, "DICOM Segmentation", "No destination",
        'type="checkbox"',
    ):  # fmt: skip
        assert part in page, part


def test_the_page_says_why_the_class_called_is_not_the_most_probable(client, node):
    page = client.get(f"/analyses/{finish(node, take_in(node).analysis_id, called_otherwise()).id}").text
    assert "<h2>Basal cell carcinoma, 21.0 %</h2>" in page
    assert NOTE in page
    assert page.count("(called)") == 1
    assert re.search(r"basal cell carcinoma <strong>\(called\)", page)
    assert "Cannot be excluded at an error rate of 10 %" in page


def test_the_page_lists_the_reasons_of_an_abstention(client, node):
    page = client.get(f"/analyses/{finish(node, take_in(node).analysis_id, not_answered()).id}").text
    assert "<li>the image is blurred</li>" in page
    assert "<li>too many classes cannot be excluded</li>" in page


@pytest.mark.parametrize("tier", TriageTier)
def test_every_tier_has_a_page(client, node, tier):
    made = stored_analysis(node, tier)
    page = client.get(f"/analyses/{made.id}").text
    assert f'class="verdict {tier.value}"' in page
    assert ("The algorithm abstains" in page) == (tier is TriageTier.UNDETERMINED)


def test_a_page_of_work_under_way_looks_again_by_itself(client, node):
    receipt = take_in(node)
    page = client.get(f"/analyses/{receipt.analysis_id}").text
    assert '<meta http-equiv="refresh"' in page and "Under way" in page and NOTICE in page
    finish(node, receipt.analysis_id)
    assert "refresh" not in client.get(f"/analyses/{receipt.analysis_id}").text


def test_a_page_of_a_failure_says_what_to_do(client, node):
    receipt = take_in(node)
    fail(node, receipt.analysis_id)
    page = client.get(f"/analyses/{receipt.analysis_id}").text
    assert "the network gave no numbers" in page and "look at it yourself" in page


def test_what_comes_from_outside_is_escaped(client, node):
    receipt = take_in(node, PatientIdentity("HOSPITAL-A", "<script>alert(1)</script>"))
    finish(node, receipt.analysis_id, make_finding(explanation=("<img src=x onerror=alert(2)>",)))
    page = client.get(f"/analyses/{receipt.analysis_id}").text
    assert "<script>" not in page and "<img src=x" not in page
    assert "&lt;script&gt;" in page


def test_an_image_without_a_lesion_has_no_measurements(client, node):
    receipt = take_in(node)
    finish(node, receipt.analysis_id, make_finding(measurements=None))
    page = client.get(f"/analyses/{receipt.analysis_id}").text
    assert "No lesion was outlined" in page and "DICOM Segmentation" not in page


@pytest.mark.parametrize(
    "path", ["/", "/worklist", "/docs", "/analyses/{id}", "/analyses/6f0f3d3e-8c0e-5a43-9d0b-3f6c4c1f2a77"]
)
def test_no_page_loads_anything_foreign_or_names_a_patient_where_it_must_not(client, analysis, path):
    page = client.get(path.format(id=analysis.id), headers={"Accept": "text/html"}).text
    assert NOTICE in page
    for address in re.findall(r'(?:src|href|action)="([^"]*)"', page):
        assert address.startswith(("/", "#")) and not address.startswith("//"), address
        assert PATIENT.patient_id not in address
    (title,) = re.findall(r"<title>(.*)</title>", page)
    assert PATIENT.patient_id not in title
    assert re.findall(r"<script(?! src=\"/static/[a-z]+\.js\"( defer)?></script>)", page) == []
    assert " style=" not in page and "onclick" not in page


def test_every_link_on_the_pages_leads_somewhere(client, analysis):
    seen = set()
    for path in ("/", "/worklist", f"/analyses/{analysis.id}"):
        seen |= set(re.findall(r'(?:src|href)="(/[^"#]*)"', client.get(path).text))
    assert len(seen) > 10
    assert {path: client.get(path).status_code for path in seen if client.get(path).status_code != 200} == {}


def test_the_worklist_puts_the_most_urgent_first(client, node):
    for tier in reversed(TriageTier):
        stored_analysis(node, tier, name=tier.value)
    fail(node, take_in(node, name="broken").analysis_id)
    take_in(node, name="queued")
    take_in(node, PatientIdentity("", ""))
    page = client.get("/worklist").text
    order = re.findall(r'class="tier (\w+)"', page)
    assert order == ["urgent", "expedited", "failed", "undetermined", "routine", "monitor", "waiting"]
    assert "Waiting for a decision: 1" in page and "no patient id" in page
    assert PATIENT.patient_id not in page


def test_the_reference_explains_every_problem_type(client):
    page = client.get("/docs").text
    for kind in ANSWERS:
        if kind.__module__.startswith(("dermoscopy", "cds_service")):
            assert f'id="{slug_of(kind)}"' in page
    assert "/api/v1/analyze" in page


def test_a_browser_gets_a_page_for_what_is_not_there(client):
    answer = client.get("/analyses/6f0f3d3e-8c0e-5a43-9d0b-3f6c4c1f2a77", headers={"Accept": "text/html"})
    assert answer.status_code == 404
    assert "There is no analysis" in answer.text and answer.headers["content-type"].startswith("text/html")


def test_the_page_reads_the_instance_it_shows(client, node, analysis):
    with node.begin() as session:
        session.execute(sa.update(InstanceRow).values(accession_number="ACC-99"))
    assert "ACC-99" in client.get(f"/analyses/{analysis.id}").text
