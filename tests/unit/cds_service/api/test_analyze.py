"""POST /api/v1/analyze: every way in, every way out, and what is written down."""

from __future__ import annotations

import base64
import json
import threading
import time
from io import BytesIO
from itertools import pairwise

import anyio
import pytest
import sqlalchemy as sa
from PIL import Image

from audit.tables import AuditLeaf
from cds_service.api import analyze
from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import StorageFull
from dermoscopy.overlay import encode_png
from dermoscopy.tables import AnalysisRow, HoldRow, InstanceRow
from tests.findings import ISSUER, SYSTEM, drawn_lesion, fail, finish, make_header

PNG = encode_png(drawn_lesion().pixels)
PATIENT = {"system": SYSTEM, "id": "TEST-0042"}


def jpeg() -> bytes:
    buffer = BytesIO()
    Image.fromarray(drawn_lesion().pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def as_json(image=PNG, **more):
    return {"image": base64.b64encode(image).decode(), "patient": PATIENT, **more}


def rows(node, kind):
    with node.begin() as session:
        return session.execute(sa.select(kind)).scalars().all()


def leaves(node, action):
    with node.begin() as session:
        return session.execute(sa.select(AuditLeaf).where(AuditLeaf.action == action)).scalars().all()


def finish_soon(node, how=finish):
    """Let the analysis that the request queues end a moment later, as a worker would."""

    def work():
        while not (queued := rows(node, AnalysisRow)):
            time.sleep(0.01)
        how(node, queued[0].id)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("image", [PNG, jpeg()], ids=["png", "jpeg"])
@pytest.mark.parametrize("way", ["json", "multipart"])
def test_an_image_is_kept_and_queued(client, node, image, way):
    if way == "json":
        answer = client.post("/api/v1/analyze", json=as_json(image))
    else:
        fields = {"patient_system": SYSTEM, "patient_id": "TEST-0042"}
        answer = client.post("/api/v1/analyze", files={"image": ("x.bin", image)}, data=fields)
    assert answer.status_code == 202
    report_id = answer.json()["report_id"]
    assert answer.json()["state"] == "queued"
    assert answer.headers["Location"] == f"/api/v1/analyses/{report_id}"
    assert int(answer.headers["Retry-After"]) >= 1
    (instance,) = rows(node, InstanceRow)
    assert (instance.issuer, instance.patient_id, instance.source) == (ISSUER, "TEST-0042", "rest")
    assert node.blobs.get(instance.digest) == image
    assert [started[2] for started in node.queue.started] == [report_id]


def test_both_ways_are_one_image(client, node):
    first = client.post("/api/v1/analyze", json=as_json()).json()
    fields = {"patient_system": ISSUER, "patient_id": "TEST-0042"}
    second = client.post("/api/v1/analyze", files={"image": PNG}, data=fields).json()
    assert first["report_id"] == second["report_id"]
    assert len(rows(node, InstanceRow)) == 1


def test_what_the_request_says_of_the_image_is_kept(client, node):
    client.post("/api/v1/analyze", json=as_json(body_site="66643007", laterality="L", accession="A-1"))
    (instance,) = rows(node, InstanceRow)
    assert (instance.body_site_code, instance.laterality, instance.accession_number) == ("66643007", "L", "A-1")


def test_a_finished_analysis_comes_whole(open_client):
    client = open_client(analyze_wait_seconds=10)
    node = client.app.state.node
    thread = finish_soon(node)
    answer = client.post("/api/v1/analyze", json=as_json())
    thread.join()
    assert answer.status_code == 200
    said = answer.json()
    assert said["state"] == "complete"
    assert said["diagnosis"]["primary"] == "mel"
    assert said["diagnosis"]["confidence"] == 0.87
    assert sum(said["diagnosis"]["all_classes"].values()) == pytest.approx(1)
    assert said["segmentation"]["region_statistics"]["area_mm2"] == 23.4
    assert said["triage"] == {"tier": "urgent", "reason": "Melanoma risk is above the urgent threshold"}
    assert said["recommendation"] == "Refer to dermatology within two weeks"
    assert said["latency_ms"] == 41.5
    assert said["model_version"] == "lesionnet-lite0==1.0.0"
    assert "not a diagnosis" in said["notice"]
    for picture in (said["segmentation"]["mask"], said["attention_map"], said["overlay"]):
        assert Image.open(BytesIO(base64.b64decode(picture))).format == "PNG"
    for name in ("mask", "overlay", "heatmap", "seg", "sr", "secondary-capture", "report"):
        assert client.get(said["links"][name]).status_code == 200
    assert "total;dur=" in answer.headers["Server-Timing"]


def test_a_failed_analysis_says_why_and_where(open_client):
    client = open_client(analyze_wait_seconds=10)
    thread = finish_soon(client.app.state.node, fail)
    answer = client.post("/api/v1/analyze", json=as_json())
    thread.join()
    assert answer.status_code == 422
    assert answer.json()["detail"] == "the network gave no numbers"
    assert answer.headers["Location"].endswith(answer.json()["report_id"])


@pytest.mark.parametrize(("asked", "granted"), [(None, 3), (0, 0), (1.5, 1.5), (100, 3)])
def test_the_caller_may_wait_shorter_but_not_longer_than_the_service(open_client, monkeypatch, asked, granted):
    waited = []

    async def noted(_node, _analysis_id, seconds):
        waited.append(seconds)
        return "queued"

    monkeypatch.setattr(analyze, "wait_for", noted)
    client = open_client(analyze_wait_seconds=3)
    assert client.post("/api/v1/analyze", json=as_json(wait=asked)).status_code == 202
    assert waited == [granted]


def test_waiting_polls_less_and_less_often(node, monkeypatch):
    asked = []

    def look(*_):
        asked.append(time.monotonic())
        return "queued"

    monkeypatch.setattr(analyze, "_state", look)
    anyio.run(analyze.wait_for, node, "x", 1.0)
    pauses = [b - a for a, b in pairwise(asked)]
    assert 5 <= len(asked) <= 15
    assert pauses[0] < 0.1 and max(pauses) > 0.15


@pytest.mark.parametrize("fields", [{}, {"patient": None}])
def test_an_image_without_a_patient_is_held_and_not_refused(client, node, fields):
    answer = client.post("/api/v1/analyze", json={"image": base64.b64encode(PNG).decode(), **fields})
    assert answer.status_code == 202
    said = answer.json()
    assert said["state"] == "held" and "no patient" in said["reason"]
    assert [hold.id for hold in rows(node, HoldRow)] == [said["hold_id"]]
    assert not node.queue.started


def test_the_default_issuer_stands_in_for_a_missing_system(open_client):
    client = open_client(default_issuer=ISSUER)
    client.post("/api/v1/analyze", json={"image": base64.b64encode(PNG).decode(), "patient": {"id": "TEST-0042"}})
    (instance,) = rows(client.app.state.node, InstanceRow)
    assert instance.issuer == ISSUER


@pytest.mark.parametrize(
    ("image", "status", "slug"),
    [(b"hello", 422, "unreadable-object"), (encode_png(drawn_lesion().pixels[:8]), 422, "unsupported-image")],
    ids=["text", "tiny"],
)
def test_what_is_no_image_is_refused_and_leaves_a_leaf(client, node, image, status, slug):
    answer = client.post("/api/v1/analyze", json=as_json(image))
    assert answer.status_code == status
    assert answer.json()["type"] == f"/docs#{slug}"
    (leaf,) = leaves(node, "instance.rejected")
    assert json.loads(leaf.details)["reason"] == answer.json()["detail"]
    assert not rows(node, InstanceRow)


class TestDicom:
    """Objects that name a patient themselves; reading them is the DICOM room's work and stands in for it here."""

    @pytest.fixture
    def client(self, node, monkeypatch):
        from fastapi.testclient import TestClient

        from cds_service.app import create_app

        self.own = PatientIdentity(ISSUER, "TEST-0042")
        app = create_app(node, None, None, lambda data, _patient: (data, make_header(self.own, accession_number="")))
        return TestClient(app, base_url="http://127.0.0.1")

    def test_the_object_alone_is_enough(self, client, node):
        assert client.post("/api/v1/analyze", files={"image": b"dicom"}).status_code == 202
        assert rows(node, InstanceRow)[0].patient_id == "TEST-0042"

    def test_the_request_fills_what_the_object_leaves_open(self, client, node):
        data = {"accession": "A-9", "laterality": "R"}
        client.post("/api/v1/analyze", files={"image": b"dicom"}, data=data)
        (instance,) = rows(node, InstanceRow)
        assert (instance.accession_number, instance.laterality) == ("A-9", "L")

    @pytest.mark.parametrize("system", [SYSTEM, ISSUER])
    def test_the_same_patient_by_either_name_of_the_issuer_is_fine(self, client, node, system):
        data = {"patient_system": system, "patient_id": "TEST-0042"}
        assert client.post("/api/v1/analyze", files={"image": b"dicom"}, data=data).status_code == 202
        assert rows(node, InstanceRow)[0].issuer == ISSUER

    @pytest.mark.parametrize(("system", "value"), [(SYSTEM, "OTHER"), ("urn:other", "TEST-0042")])
    def test_another_patient_than_the_objects_is_refused(self, client, node, system, value):
        data = {"patient_system": system, "patient_id": value}
        answer = client.post("/api/v1/analyze", files={"image": b"dicom"}, data=data)
        assert answer.status_code == 422
        assert "another patient" in answer.json()["detail"]
        assert value not in answer.text
        assert len(leaves(node, "instance.rejected")) == 1
        assert not rows(node, InstanceRow)

    def test_an_object_without_issuer_takes_the_issuer_of_the_request(self, client, node):
        self.own = PatientIdentity("", "TEST-0042")
        data = {"patient_system": SYSTEM, "patient_id": "TEST-0042"}
        client.post("/api/v1/analyze", files={"image": b"dicom"}, data=data)
        assert rows(node, InstanceRow)[0].issuer == ISSUER

    def test_an_object_without_patient_takes_the_patient_of_the_request(self, client, node):
        self.own = PatientIdentity("", "")
        client.post("/api/v1/analyze", files={"image": b"dicom"}, data={"patient_system": SYSTEM, "patient_id": "T-1"})
        assert rows(node, InstanceRow)[0].patient_id == "T-1"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#/image"),
        ({"image": ""}, "#/image"),
        ({"image": "ab$d"}, "#/image"),
        ({"image": "abc"}, "#/image"),
        ({"image": "ä"}, "#/image"),
        ({"image": "data:image/png;base64,AAAA"}, "#/image"),
        ({"image": "AAAA", "patinet": {}}, "#/patinet"),
        ({"image": "AAAA", "patient": {"system": "x"}}, "#/patient/id"),
        ({"image": "AAAA", "patient": {"id": ""}}, "#/patient/id"),
        ({"image": "AAAA", "patient": {"id": "a\\b"}}, "#/patient/id"),
        ({"image": "AAAA", "patient": {"id": "a\u0000"}}, "#/patient/id"),
        ({"image": "AAAA", "patient": {"id": "x" * 65}}, "#/patient/id"),
        ({"image": "AAAA", "laterality": "left"}, "#/laterality"),
        ({"image": "AAAA", "body_site": "back"}, "#/body_site"),
        ({"image": "AAAA", "accession": "x" * 17}, "#/accession"),
        ({"image": "AAAA", "wait": -1}, "#/wait"),
        ({"image": "AAAA", "wait": "1"}, "#/wait"),
    ],
)
def test_each_wrong_field_is_named_and_its_value_is_not_repeated(client, body, pointer):
    answer = client.post("/api/v1/analyze", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("data", "files", "pointer"),
    [
        ({"patient_id": "1"}, {"other": b"x"}, "#/image"),
        ({"patinet_id": "1"}, {"image": b"x"}, "#/patinet_id"),
        ({"patient_system": "1"}, {"image": b"x"}, "#/patient/id"),
        ({"wait": "soon"}, {"image": b"x"}, "#/wait"),
        ({}, {"image": b""}, "#/image"),
        ({"accession": ["1", "2"]}, {"image": b"x"}, "#/accession"),
    ],
)
def test_wrong_form_fields_are_named_too(client, data, files, pointer):
    answer = client.post("/api/v1/analyze", files=files, data=data)
    assert answer.status_code == 422
    assert pointer in [error["pointer"] for error in answer.json()["errors"]]


def test_base64_may_have_line_breaks(client):
    text = base64.encodebytes(PNG).decode()
    assert client.post("/api/v1/analyze", json={"image": text, "patient": PATIENT}).status_code == 202


@pytest.mark.parametrize(("kind", "body", "status"), [
    ("application/json", b"{", 400),
    ("application/json", b"\xff", 400),
    ("application/json", b"[1]", 422),
    ("multipart/form-data; boundary=x", b"nonsense", 400),
    ("multipart/form-data", b"nonsense", 400),
    ("image/png", PNG, 415),
    ("", PNG, 415),
])  # fmt: skip
def test_bodies_that_are_not_what_they_say(client, kind, body, status):
    answer = client.post("/api/v1/analyze", content=body, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_full_store_is_told_with_a_time_to_come_back(client, node, monkeypatch):
    def full(_data):
        raise StorageFull("no room for images: free some space", retry_after=30)

    monkeypatch.setattr(type(node.blobs), "put", lambda _self, data: full(data))
    answer = client.post("/api/v1/analyze", json=as_json())
    assert answer.status_code == 507
    assert answer.headers["Retry-After"] == "30"
    assert "no room" in answer.json()["detail"]
    assert not rows(node, InstanceRow)
