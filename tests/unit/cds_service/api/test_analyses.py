"""Stored analyses: lists, search, single answers and files, and the leaf that every look leaves."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
import sqlalchemy as sa

from audit.tables import AuditLeaf
from dermoscopy.analyses import load_analysis
from dermoscopy.domain import DeliveryState, PatientIdentity, TriageTier, derive_id
from dermoscopy.tables import AnalysisRow, ArtifactRow, DeliveryRow, InstanceRow, utc_now
from tests.findings import (
    ISSUER,
    NOON,
    NOTE,
    PATIENT,
    SYSTEM,
    called_otherwise,
    fail,
    finish,
    make_finding,
    not_answered,
    stored_analysis,
    take_in,
)

NOBODY = "6f0f3d3e-8c0e-5a43-9d0b-3f6c4c1f2a77"
FILES = {
    "mask": "image/png",
    "overlay": "image/png",
    "heatmap": "image/png",
    "seg": "application/dicom",
    "sr": "application/dicom",
    "secondary-capture": "application/dicom",
    "report": "application/fhir+json",
}


def leaves(node, action):
    with node.begin() as session:
        return session.execute(sa.select(AuditLeaf).where(AuditLeaf.action == action)).scalars().all()


def digest_of(node, analysis_id, kind):
    with node.begin() as session:
        return session.get_one(ArtifactRow, derive_id("artifact", analysis_id, kind)).digest


def test_one_analysis_without_its_pictures(client, node):
    analysis = stored_analysis(node)
    said = client.get(f"/api/v1/analyses/{analysis.id}").json()
    assert said["state"] == "complete"
    assert said["diagnosis"]["primary"] == "mel"
    assert said["segmentation"]["mask"] is said["attention_map"] is said["overlay"] is None
    assert {name: said["links"][name] for name in FILES} == {
        name: f"/api/v1/analyses/{analysis.id}/{name}" for name in FILES
    }


def test_the_picture_and_how_it_was_taken_and_decoded(client, node):
    analysis = stored_analysis(node)
    with node.begin() as session:
        row = session.get_one(AnalysisRow, analysis.id)
        document = json.loads(row.document)
        document["remarks"] = [{"code": "grey", "words": "the picture is grey"}]
        document["acquisition"] |= {"contact": True, "polarised": False, "immersion": "alcohol", "magnification": 10.0}
        row.document = json.dumps(document)
    said = client.get(f"/api/v1/analyses/{analysis.id}").json()["image"]
    assert (said["rows"], said["columns"], said["pixel_digest"]) == (
        analysis.rows, analysis.columns, analysis.pixel_digest,
    )  # fmt: skip
    assert said["acquisition"] | {"station": None} == {
        "contact": True, "polarised": False, "immersion": "alcohol", "magnification": 10.0, "station": None,
    }  # fmt: skip
    assert [remark["code"] for remark in said["remarks"]] == ["grey"]


def test_remarks_are_read_back_and_absent_from_rows_of_earlier_versions(client, node):
    analysis = stored_analysis(node)
    with node.begin() as session:
        row = session.get_one(AnalysisRow, analysis.id)
        document = json.loads(row.document)
        del document["remarks"]
        row.document = json.dumps(document)
    with node.begin() as session:
        assert load_analysis(session, node.blobs, analysis.id).remarks == ()
    assert client.get(f"/api/v1/analyses/{analysis.id}").json()["image"]["remarks"] == []


def test_an_abstention_names_no_class(client, node):
    analysis = stored_analysis(node, TriageTier.UNDETERMINED)
    said = client.get(f"/api/v1/analyses/{analysis.id}").json()
    assert said["diagnosis"]["primary"] is None
    assert "do not agree" in said["abstention"]
    assert said["triage"]["tier"] == "undetermined"


def test_what_was_called_and_what_cannot_be_excluded(client, node):
    analysis = finish(node, take_in(node).analysis_id, called_otherwise())
    said = client.get(f"/api/v1/analyses/{analysis.id}").json()["diagnosis"]
    assert (said["primary"], said["most_probable"], said["confidence"]) == ("bcc", "nv", 0.21)
    assert said["prediction_set"] == ["nv", "bkl", "bcc"]
    assert said["decision_note"] == NOTE


def test_reasons_are_coded(client, node):
    analysis = finish(node, take_in(node).analysis_id, not_answered())
    said = client.get(f"/api/v1/analyses/{analysis.id}").json()
    assert [reason["code"] for reason in said["abstention_reasons"]] == ["blur", "ambiguous"]
    assert said["diagnosis"]["primary"] is None


def test_a_finding_comes_back_as_it_was_stored_and_one_of_an_earlier_version_still_reads(client, node):
    for finding in (called_otherwise(), not_answered()):
        analysis = finish(node, take_in(node, name=finding.decision_note or "none").analysis_id, finding)
        with node.begin() as session:
            read = load_analysis(session, node.blobs, analysis.id).finding
            row = session.get_one(AnalysisRow, analysis.id)
            document = json.loads(row.document)
            for field in ("prediction_set", "decision_note", "abstention_reasons"):
                assert getattr(read, field) == getattr(finding, field)
                del document["finding"][field]
            row.document = json.dumps(document)
        with node.begin() as session:
            old = load_analysis(session, node.blobs, analysis.id).finding
        assert (old.prediction_set, old.decision_note, old.abstention_reasons) == ((), "", ())
        said = client.get(f"/api/v1/analyses/{analysis.id}").json()
        assert said["diagnosis"]["prediction_set"] == said["abstention_reasons"] == []
        assert client.get(f"/analyses/{analysis.id}").status_code == 200


@pytest.mark.parametrize("state", ["queued", "analysed"])
def test_results_are_shown_only_when_every_output_is_stored(client, node, state):
    receipt = take_in(node)
    if state == "analysed":
        finish(node, receipt.analysis_id, state="analysed")
    said = client.get(f"/api/v1/analyses/{receipt.analysis_id}").json()
    assert said["state"] == state
    assert said["diagnosis"] is None and said["triage"] is None and said["latency_ms"] is None
    assert set(said["links"]) == {"self", "page"}
    answer = client.get(f"/api/v1/analyses/{receipt.analysis_id}/mask")
    assert answer.status_code == 409
    assert int(answer.headers["Retry-After"]) >= 1
    assert not leaves(node, "analysis.read")


def test_a_failed_analysis_carries_its_problem(client, node):
    receipt = take_in(node)
    fail(node, receipt.analysis_id)
    said = client.get(f"/api/v1/analyses/{receipt.analysis_id}").json()
    assert said["state"] == "failed"
    assert said["problem"]["detail"] == "the network gave no numbers"
    assert client.get(f"/api/v1/analyses/{receipt.analysis_id}/seg").status_code == 404


def test_deliveries_say_how_far_they_are(client, node):
    analysis = stored_analysis(node)
    later = utc_now() + timedelta(minutes=5)
    with node.begin() as session:
        session.add(
            DeliveryRow(
                id="d1",
                analysis_id=analysis.id,
                artifact_id=derive_id("artifact", analysis.id, "seg"),
                destination="PACS",
                kind="seg",
                state=DeliveryState.RETRYING.value,
                attempts=3,
                next_attempt_at=later,
                last_error="no answer",
            )
        )
    (delivery,) = client.get(f"/api/v1/analyses/{analysis.id}").json()["deliveries"]
    assert (delivery["destination"], delivery["state"], delivery["attempts"]) == ("PACS", "retrying", 3)
    assert delivery["last_error"] == "no answer"
    assert delivery["next_attempt_at"].startswith(f"{later:%Y-%m-%dT%H:%M}")


@pytest.mark.parametrize("name", FILES)
def test_each_output_is_a_file_with_an_etag(client, node, name):
    analysis = stored_analysis(node)
    answer = client.get(f"/api/v1/analyses/{analysis.id}/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == FILES[name]
    kind = {"secondary-capture": "secondary_capture", "report": "fhir_bundle"}.get(name, name)
    digest = digest_of(node, analysis.id, kind)
    assert answer.headers["ETag"] == f'"{digest}"'
    assert answer.content == node.blobs.get(digest)
    disposition = answer.headers["Content-Disposition"]
    assert analysis.id in disposition and PATIENT.patient_id not in disposition
    for tag in (f'"{digest}"', f'W/"{digest}"', "*", f'"x", "{digest}"'):
        again = client.get(f"/api/v1/analyses/{analysis.id}/{name}", headers={"If-None-Match": tag})
        assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"/api/v1/analyses/{analysis.id}/{name}", headers={"If-None-Match": '"x"'}).status_code == 200


def test_without_a_lesion_there_is_no_segmentation(client, node):
    receipt = take_in(node)
    finish(node, receipt.analysis_id, make_finding(measurements=None))
    answer = client.get(f"/api/v1/analyses/{receipt.analysis_id}/seg")
    assert answer.status_code == 404
    assert "no lesion" in answer.json()["detail"]
    said = client.get(f"/api/v1/analyses/{receipt.analysis_id}").json()
    assert said["segmentation"]["region_statistics"] is None
    assert "seg" not in said["links"]


def test_lost_bytes_are_an_integrity_violation_and_not_a_missing_page(client, node, monkeypatch):
    analysis = stored_analysis(node)

    def lost(_self, digest):
        raise KeyError(digest)

    monkeypatch.setattr(type(node.blobs), "get", lost)
    answer = client.get(f"/api/v1/analyses/{analysis.id}/mask")
    assert answer.status_code == 500
    assert answer.json()["type"] == "/docs#integrity-violation"


@pytest.mark.parametrize("path", ["", "/mask", "/report"])
def test_unknown_analyses(client, path):
    assert client.get(f"/api/v1/analyses/{NOBODY}{path}").status_code == 404
    assert client.get(f"/api/v1/analyses/not-an-id{path}").status_code == 404


def test_every_look_leaves_a_leaf(client, node):
    analysis = stored_analysis(node)
    client.get(f"/api/v1/analyses/{analysis.id}")
    client.get(f"/api/v1/analyses/{analysis.id}/overlay")
    found = leaves(node, "analysis.read")
    assert [leaf.details for leaf in found] == ['{"what":"analysis"}', '{"what":"overlay"}']
    assert {(leaf.actor, leaf.subject_id, leaf.patient_id) for leaf in found} == {("local", analysis.id, "TEST-0042")}


class TestList:
    @pytest.fixture
    def ids(self, node):
        """Five analyses, one a minute, newest last; the last two at the same time."""
        made = [stored_analysis(node, tier, name=tier.value).id for tier in TriageTier]
        with node.begin() as session:
            for minute, analysis_id in enumerate(made):
                session.get_one(AnalysisRow, analysis_id).created_at = NOON + timedelta(minutes=min(minute, 3))
        return made

    def shown(self, client, **parameters):
        return [a["report_id"] for a in client.get("/api/v1/analyses", params=parameters).json()["analyses"]]

    def test_newest_first(self, client, ids):
        assert self.shown(client)[2:] == ids[2::-1]
        assert set(self.shown(client)[:2]) == set(ids[3:])

    def test_filters(self, client, node, ids):
        assert self.shown(client, tier="urgent") == [ids[0]]
        fail(node, ids[1])
        assert self.shown(client, state="failed") == [ids[1]]
        assert self.shown(client, state="failed", tier="urgent") == []

    def test_of_one_dicom_instance(self, client, node, ids):
        with node.begin() as session:
            uid = session.get_one(InstanceRow, session.get_one(AnalysisRow, ids[0]).instance_id).sop_instance_uid
        found = client.get("/api/v1/analyses", params={"sop_instance_uid": uid}).json()["analyses"]
        assert [item["report_id"] for item in found] == [ids[0]]
        assert client.get("/api/v1/analyses", params={"sop_instance_uid": "1.2.3"}).json()["analyses"] == []
        assert client.get("/api/v1/analyses", params={"sop_instance_uid": "DOE^JANE"}).status_code == 422

    @pytest.mark.parametrize("limit", [1, 2, 3, 5])
    def test_pages_show_everything_once(self, client, ids, limit):
        address, seen = f"/api/v1/analyses?limit={limit}", []
        while address:
            page = client.get(address).json()
            assert len(page["analyses"]) <= limit
            seen += [a["report_id"] for a in page["analyses"]]
            address = page["next"]
        assert seen == self.shown(client)
        assert len(set(seen)) == 5

    def test_the_next_page_keeps_the_filters(self, client, node, ids):
        stored_analysis(node, TriageTier.URGENT, name="another")
        following = client.get("/api/v1/analyses?tier=urgent&limit=1").json()["next"]
        assert [a["tier"] for a in client.get(following).json()["analyses"]] == ["urgent"]

    @pytest.mark.parametrize("query", ["limit=0", "limit=201", "state=done", "tier=red", "before=x", "before=9_9"])
    def test_wrong_parameters_are_named(self, client, query):
        answer = client.get(f"/api/v1/analyses?{query}")
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == f"query:{query.partition('=')[0]}"

    def test_lists_read_no_documents(self, client, node, ids):
        seen = []
        sa.event.listen(node.engine, "before_cursor_execute", lambda *a: seen.append(a[2]))
        client.get("/api/v1/analyses")
        assert len(seen) == 1 and "document" not in seen[0] and "embedding" not in seen[0]


class TestSearch:
    @pytest.mark.parametrize("system", [SYSTEM, ISSUER])
    def test_by_either_name_of_the_issuer(self, client, node, system):
        mine = stored_analysis(node)
        stored_analysis(node, patient=PatientIdentity(ISSUER, "TEST-0043"))
        stored_analysis(node, patient=PatientIdentity("HOSPITAL-B", PATIENT.patient_id))
        answer = client.post("/api/v1/analyses/search", json={"system": system, "id": PATIENT.patient_id})
        assert [a["report_id"] for a in answer.json()["analyses"]] == [mine.id]
        assert PATIENT.patient_id not in answer.text

    @pytest.mark.parametrize(("limit", "status"), [(1, 200), (1.0, 200), ("1", 422), (1.5, 422), (True, 422)])
    def test_the_limit_is_an_integer_as_json_means_it(self, client, limit, status):
        body = {"system": SYSTEM, "id": PATIENT.patient_id, "limit": limit}
        assert client.post("/api/v1/analyses/search", json=body).status_code == status

    def test_the_search_leaves_a_leaf(self, client, node):
        client.post("/api/v1/analyses/search", json={"system": SYSTEM, "id": "X-1"})
        (leaf,) = leaves(node, "analysis.searched")
        assert (leaf.patient_issuer, leaf.patient_id, leaf.details) == (ISSUER, "X-1", '{"found":0}')

    @pytest.mark.parametrize("body", [{}, {"id": ""}, {"id": "1", "limit": "5"}, {"id": "1", "name": "x"}])
    def test_wrong_searches(self, client, body):
        assert client.post("/api/v1/analyses/search", json=body).status_code == 422

    def test_a_search_in_the_address_does_not_exist(self, client):
        assert client.get("/api/v1/analyses/search?id=TEST-0042").status_code == 405


def test_models_are_listed_champion_first(client, node):
    stored_analysis(node)
    receipt = take_in(node, name="old")
    with node.begin() as session:
        session.get_one(AnalysisRow, receipt.analysis_id).model_version = "0.9.0"
    said = client.get("/api/v1/models").json()["models"]
    assert [(m["version"], m["role"], m["analyses"]) for m in said] == [("1.0.0", "champion", 1), ("0.9.0", "past", 1)]
    assert said[0]["digest"] == "ab" * 32
