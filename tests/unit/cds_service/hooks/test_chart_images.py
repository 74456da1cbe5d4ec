"""Images in the chart that were never analysed: taken in for the chart's patient, refused by name, or tried again."""

from __future__ import annotations

import base64
import json
import threading
import time

import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from cds_service.hooks import images
from dermoscopy.domain import PatientIdentity, TriageTier
from dermoscopy.overlay import encode_png
from dermoscopy.settings import ApiToken, ImageServer, Role
from dermoscopy.tables import AnalysisRow, ChartImageRow, InstanceRow
from fhir_adapters.fetch import EhrReader
from tests.findings import drawn_lesion, finish, make_finding, take_in
from tests.unit.cds_service.hooks.calling import TOKEN, VIEW, cards, leaves, request
from tests.unit.dicom_listener.samples import dataset, part10

EHR, PACS = "https://ehr.example/fhir", "https://pacs.example/dicom-web"
ACCESS = {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 60, "scope": "user/*.rs", "subject": "cds"}
PICTURE = encode_png(drawn_lesion().pixels)
CALL = {"fhirServer": EHR, "fhirAuthorization": ACCESS}
OUTCOME = {"resourceType": "OperationOutcome"}
OWN = {"reference": "Patient/p1"}
NOTHING = {"media": None, "documents": None, "studies": None}


def media(**changes):
    found = {
        "resourceType": "Media",
        "id": "m1",
        "status": "completed",
        "subject": {"reference": "Patient/p1"},
        "bodySite": {"coding": [{"system": "http://snomed.info/sct", "code": "36141000"}], "text": "Left cheek"},
        "content": {"contentType": "image/png", "url": "Binary/b1"},
    }
    return found | changes


def searchset(*resources):
    return {"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": one} for one in resources]}


def prefetch(**given):
    return {"prefetch": {**request()["prefetch"], **NOTHING, **given}, **CALL}


def instances(node):
    with node.begin() as session:
        return session.execute(sa.select(InstanceRow)).scalars().all()


class Ehr:
    """A FHIR server and a PACS that answer from a dict of path → response."""

    def __init__(self):
        self.answers = {}
        self.asked = []

    def __call__(self, http):
        path = http.url.path
        self.asked.append((http.headers["Host"], path, http.headers.get("Authorization", "")))
        given = self.answers.get(path)
        if callable(given):
            given = given(http)
        return given or httpx.Response(404)

    def picture(self, path="/fhir/Binary/b1", data=PICTURE, kind="image/png"):
        self.answers[path] = httpx.Response(200, content=data, headers={"Content-Type": kind})

    def resource(self, path, resource):
        self.answers[path] = httpx.Response(200, json=resource, headers={"Content-Type": "application/fhir+json"})


@pytest.fixture
def ehr():
    return Ehr()


@pytest.fixture
def chart_client(open_client, ehr):
    def make(**settings):
        settings = {"hooks_image_seconds": 0.3, "hooks_fhir_servers": (EHR,), **settings}
        client = open_client(**settings)
        made = client.app.state.node.settings
        client.app.state.ehr.close()
        client.app.state.ehr = EhrReader(
            {EHR: False},
            image_servers={s.base_url: (s.inward, s.token) for s in made.hooks_image_servers},
            resolve=lambda _host, _port: ["93.184.216.34"],
            transport=httpx.MockTransport(ehr),
        )
        return client

    return make


@pytest.fixture
def client(chart_client):
    return chart_client()


def test_discovery_asks_for_them_only_where_they_are_wanted(chart_client):
    asked = chart_client().get("/cds-services").json()["services"][0]["prefetch"]
    assert asked["media"] == "Media?patient={{context.patientId}}&_sort=-created&_count=20"
    assert set(asked) == {"patient", "media", "documents", "studies"}
    bare = chart_client(hooks_image_seconds=0)
    assert set(bare.get("/cds-services").json()["services"][0]["prefetch"]) == {"patient"}


def test_a_new_picture_is_taken_in_for_the_patient_of_the_chart(client, node, ehr):
    ehr.picture()
    (card,) = cards(client, **prefetch(media=searchset(media())))
    assert "no result yet" in card["summary"]
    (instance,) = instances(node)
    assert (instance.issuer, instance.patient_id, instance.source) == ("HOSPITAL-A", "TEST-0042", "ehr")
    assert (instance.body_site_code, instance.laterality) == ("36141000", "L")
    assert ehr.asked == [("ehr.example", "/fhir/Binary/b1", f"Bearer {TOKEN}")]
    assert leaves(node)[-1][1]["images"] == {"taken_in": 1}


def test_it_is_fetched_once(client, node, ehr):
    ehr.picture()
    for _ in range(3):
        cards(client, **prefetch(media=searchset(media())))
    assert len(ehr.asked) == 1 and len(instances(node)) == 1


def test_the_result_comes_with_the_same_call_when_it_is_ready_in_time(chart_client, ehr):
    client = chart_client(hooks_image_seconds=20)
    node = client.app.state.node
    ehr.picture()

    def work():
        while True:
            with node.begin() as session:
                queued = session.execute(sa.select(AnalysisRow.id)).scalar()
            if queued:
                finish(node, queued, make_finding(TriageTier.URGENT))
                return
            time.sleep(0.02)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    (card,) = cards(client, **prefetch(media=searchset(media())))
    worker.join(5)
    assert card["summary"].startswith("Urgent review: melanoma") and "skin of cheek" in card["summary"]


def test_inline_data_and_a_binary_as_json_are_read_too(client, node, ehr):
    inline = media(id="m2", content={"contentType": "image/png", "data": base64.b64encode(PICTURE).decode()})
    other = encode_png(drawn_lesion().pixels[:, ::-1].copy())
    ehr.resource("/fhir/Binary/b1", {"resourceType": "Binary", "data": base64.b64encode(other).decode()})
    cards(client, **prefetch(media=searchset(inline, media())))
    assert len(instances(node)) == 2


def test_what_did_not_come_along_is_searched(client, node, ehr):
    ehr.picture()
    ehr.resource("/fhir/Media", searchset(media()))
    ehr.resource("/fhir/DocumentReference", {"resourceType": "OperationOutcome"})
    cards(client, **CALL)
    assert len(instances(node)) == 1
    assert {path for _, path, _ in ehr.asked} == {
        "/fhir/Media", "/fhir/DocumentReference", "/fhir/ImagingStudy", "/fhir/Binary/b1",
    }  # fmt: skip
    details = leaves(node)[-1][1]["images"]
    assert "HTTP 404" in details["not_searched_ImagingStudy"] and details["not_searched_DocumentReference"]


def test_a_key_that_is_null_is_an_answer(client, ehr):
    assert cards(client, **prefetch()) == [] and ehr.asked == []


def test_access_for_another_patient_searches_nothing(client, ehr):
    cards(client, **{**CALL, "fhirAuthorization": {**ACCESS, "patient": "p2"}})
    assert ehr.asked == []


class TestNotTaken:
    @pytest.mark.parametrize(
        ("resource", "reason"),
        [
            (media(subject={"reference": "Patient/p2"}), "of another patient than context.patientId"),
            (media(subject=...), "names no patient"),
            (media(modality={"coding": [{"code": "US"}]}), "another modality than dermoscopy"),
            (media(type={"coding": [{"code": "video"}]}), "another modality than dermoscopy"),
            (media(content={"contentType": "image/tiff", "url": "Binary/b1"}), "of type image/tiff, not JPEG"),
            (media(content={}), "holds no image and no address of one"),
            (media(meta={"security": [{"code": "AIAST"}]}), "a result of this service"),
        ],
    )  # fmt: skip
    def test_it_is_passed_over_by_name(self, client, node, ehr, resource, reason):
        ehr.picture()
        resource = {name: value for name, value in resource.items() if value is not ...}
        assert cards(client, **prefetch(media=searchset(resource))) == []
        assert ehr.asked == [] and instances(node) == []
        assert reason in json.dumps(leaves(node)[-1][1])

    @pytest.mark.parametrize(
        ("data", "kind", "says"),
        [
            (b"\x89PNG\r\n\x1a\nbroken", "image/png", "cannot be analysed"),
            (b"<html>TEST-0042</html>", "text/html", "cannot be analysed"),
            (b"", "image/png", "cannot be analysed"),
            (b"{}", "application/fhir+json", "cannot be analysed"),
            (b"[" * 100_000, "application/fhir+json", "cannot be analysed"),
            (b"--x", 'multipart/related; boundary="x"', "cannot be analysed"),
        ],
    )
    def test_what_is_no_image_is_refused_by_name_once(self, client, node, ehr, data, kind, says):
        ehr.picture(data=data, kind=kind)
        (card,) = cards(client, **prefetch(media=searchset(media())))
        assert says in card["summary"] and card["indicator"] == "warning"
        assert "TEST-0042" not in json.dumps(card)
        assert cards(client, **prefetch(media=searchset(media()))) == []
        assert len(ehr.asked) == 1
        with node.begin() as session:
            assert session.execute(sa.select(ChartImageRow)).scalar_one().reason
        assert [action for action, _ in leaves(node, "instance.%")] == ["instance.rejected"]

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (lambda _: httpx.Response(503), "HTTP 503"),
            (lambda _: httpx.Response(302, headers={"Location": "http://169.254.169.254/"}), "redirects"),
            (lambda _: httpx.Response(401), "HTTP 401"),
            (lambda _: httpx.Response(200, content=b"x" * 2000, headers={"Content-Type": "image/png"}), "more than"),
            (lambda _: time.sleep(1.0) or httpx.Response(200), "in time"),
        ],
    )
    def test_what_could_not_be_fetched_is_said_and_tried_again(self, chart_client, ehr, answer, says):
        client = chart_client(hooks_image_max_bytes=1024, hooks_image_seconds=0.2)
        ehr.answers["/fhir/Binary/b1"] = answer
        (card,) = cards(client, **prefetch(media=searchset(media())))
        assert "not fetched yet" in card["summary"] and says in card["detail"]
        assert cards(client, **prefetch(media=searchset(media()))) == []  # said once
        assert len([path for _, path, _ in ehr.asked if path.endswith("b1")]) == 2
        assert instances(client.app.state.node) == []

    @pytest.mark.parametrize(
        "url",
        [
            "https://evil.example/x.png", "http://127.0.0.1:9/x.png", "https://ehr.example/other", "file:///etc/passwd",
            "https://ehr.example/fhir/../admin", "Binary/../../admin", "Binary/%2e%2e/x", "https://pacs.example/dicom-web/x",
        ],
    )  # fmt: skip
    def test_an_address_that_is_not_listed_is_never_asked(self, client, ehr, url):
        (card,) = cards(client, **prefetch(media=searchset(media(content={"contentType": "image/png", "url": url}))))
        assert "not fetched yet" in card["summary"] and ehr.asked == []

    def test_more_images_than_a_call_takes_in_wait_for_the_next(self, client, node, ehr):
        many = []
        for number in range(images.MAX_IMAGES + 2):
            picture = PICTURE + bytes([number])
            many.append(
                media(id=f"m{number}", content={"contentType": "image/png", "data": base64.b64encode(picture).decode()})
            )
        first = cards(client, **prefetch(media=searchset(*many)))
        assert any(card["summary"].startswith("2 images in this chart were not fetched yet") for card in first)
        cards(client, **prefetch(media=searchset(*many)))
        assert len(instances(node)) == images.MAX_IMAGES + 2

    def test_a_patient_without_identifier_keeps_nothing(self, client, node, ehr):
        ehr.picture()
        given = prefetch(media=searchset(media()), patient={"resourceType": "Patient", "id": "p1"})
        (card,) = cards(client, **given)
        assert "no identifier" in card["detail"]
        assert ehr.asked == [] and instances(node) == []

    def test_a_token_that_may_only_read_brings_nothing_in(self, chart_client, ehr):
        reader = ApiToken(name="reader", token="reader-token-0123456789", role=Role.READ)
        client = chart_client(api_tokens=(reader,))
        answer = client.post(
            f"/cds-services/{VIEW}",
            json=request(**prefetch(media=searchset(media()))),
            headers={"Authorization": "Bearer reader-token-0123456789"},
        )
        assert answer.json() == {"cards": []} and ehr.asked == []


class TestStudies:
    UID = "1.2.840.99.3"

    def study(self, **changes):
        found = {
            "resourceType": "ImagingStudy",
            "id": "s1",
            "status": "available",
            "subject": {"reference": "Patient/p1"},
            "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.840.99.1"}],
            "endpoint": [{"reference": "Endpoint/w1"}],
            "series": [
                {"uid": "1.2.840.99.2", "modality": {"code": "DMS"}, "instance": [{"uid": self.UID}]},
            ],
        }
        return found | changes

    def dicom(self, patient="TEST-0042", issuer="HOSPITAL-A"):
        return part10(dataset(PatientID=patient, IssuerOfPatientID=issuer, SOPInstanceUID=self.UID))

    def wado(self, ehr, data, address=PACS):
        wado = {"code": "dicom-wado-rs"}
        ehr.resource("/fhir/Endpoint/w1", {"resourceType": "Endpoint", "id": "w1", "status": "active",
                                           "connectionType": wado, "address": address})  # fmt: skip
        body = b"--gap\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--gap--\r\n"
        path = f"/dicom-web/studies/1.2.840.99.1/series/1.2.840.99.2/instances/{self.UID}"
        ehr.picture(path, body, 'multipart/related; type="application/dicom"; boundary=gap')

    @pytest.fixture
    def client(self, chart_client):
        pacs = ImageServer(base_url=PACS, token=SecretStr("token-of-the-pacs"))
        return chart_client(hooks_image_servers=(pacs,))

    def test_a_study_is_fetched_from_its_listed_endpoint_with_our_own_token(self, client, node, ehr):
        self.wado(ehr, self.dicom())
        (card,) = cards(client, **prefetch(studies=searchset(self.study())))
        assert "no result yet" in card["summary"]
        (instance,) = instances(node)
        assert (instance.sop_instance_uid, instance.patient_id) == (self.UID, "TEST-0042")
        assert [auth for host, _, auth in ehr.asked if host == "pacs.example"] == ["Bearer token-of-the-pacs"]
        cards(client, **prefetch(studies=searchset(self.study())))
        assert len([path for host, path, _ in ehr.asked if host == "pacs.example"]) == 1

    def test_what_the_pacs_already_sent_is_not_fetched(self, client, node, ehr):
        take_in(node, sop_instance_uid=self.UID)
        cards(client, **prefetch(studies=searchset(self.study())))
        assert ehr.asked == []

    @pytest.mark.parametrize(("stated", "told"), [("TEST-0043", "another patient"), ("TEST-0042", "wait")])
    def test_what_stands_here_as_another_patients_is_not_passed_over_in_silence(self, client, node, ehr, stated, told):
        take_in(node, PatientIdentity("HOSPITAL-A", "TEST-0043"), sop_instance_uid=self.UID)
        self.wado(ehr, self.dicom(patient=stated))
        (card,) = cards(client, **prefetch(studies=searchset(self.study())))
        assert told in card["summary"] + card["detail"] and card["indicator"] == "warning"

    def test_an_object_of_another_patient_is_refused(self, client, node, ehr):
        self.wado(ehr, self.dicom(patient="TEST-0043"))
        (card,) = cards(client, **prefetch(studies=searchset(self.study())))
        assert "another patient" in card["detail"] and "TEST-0043" not in json.dumps(card)
        assert instances(node) == []

    def test_an_object_without_a_patient_gets_the_one_of_the_chart(self, client, node, ehr):
        self.wado(ehr, self.dicom(patient="", issuer=""))
        cards(client, **prefetch(studies=searchset(self.study())))
        assert instances(node)[0].patient_id == "TEST-0042"

    @pytest.mark.parametrize("address", ["https://evil.example/dicom-web", "http://127.0.0.1:1/x"])
    def test_an_endpoint_that_is_not_listed_is_not_asked(self, client, ehr, address):
        self.wado(ehr, self.dicom(), address)
        (card,) = cards(client, **prefetch(studies=searchset(self.study())))
        assert "not fetched yet" in card["summary"]
        assert {host for host, _, _ in ehr.asked} == {"ehr.example"}

    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"endpoint": []}, "without a WADO-RS endpoint"),
            ({"identifier": []}, "without the UIDs"),
            (
                {"series": [{"uid": "1.2", "modality": {"code": "US"}, "instance": [{"uid": "1.3"}]}]},
                "another modality",
            ),
            ({"series": [{"uid": "1.2", "modality": {"code": "DMS"}}]}, "without a list of its instances"),
        ],
    )
    def test_what_cannot_be_fetched_is_passed_over_by_name(self, client, node, ehr, changes, reason):
        assert cards(client, **prefetch(studies=searchset(self.study(**changes)))) == []
        assert ehr.asked == [] and reason in json.dumps(leaves(node)[-1][1])


class TestDocuments:
    def document(self, **changes):
        attachment = {"contentType": "image/png", "url": f"{EHR}/Binary/b1"}
        found = {
            "resourceType": "DocumentReference",
            "id": "d1",
            "status": "current",
            "subject": {"reference": f"{EHR}/Patient/p1"},
            "content": [{"attachment": attachment}],
        }
        return found | changes

    @pytest.mark.parametrize(
        "changes",
        [{}, {"type": {"text": "Dermoscopy image"}}, {"type": {"text": "Photo"}, "description": "dermatoscopic"}],
    )
    def test_one_that_may_be_dermoscopy_is_taken_in(self, client, node, ehr, changes):
        ehr.picture()
        cards(client, **prefetch(documents=searchset(self.document(**changes))))
        assert len(instances(node)) == 1

    def test_a_scanned_letter_is_not(self, client, node, ehr):
        letter = self.document(type={"coding": [{"system": "http://loinc.org", "code": "57133-1"}], "text": "Referral"})
        assert cards(client, **prefetch(documents=searchset(letter))) == []
        assert ehr.asked == [] and "of another kind than dermoscopy" in json.dumps(leaves(node)[-1][1])


@pytest.mark.parametrize(
    "given",
    [
        "x", 7, [], ["x"], {"resourceType": "Bundle", "entry": "x"}, {"resourceType": []}, OUTCOME,
        {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Media", "subject": {"reference": 7}}}]},
        {"resourceType": "Media", "subject": OWN, "content": [7], "type": {}, "status": {}},
        {"resourceType": "ImagingStudy", "subject": OWN, "series": [{"modality": 3, "instance": [7, {}]}]},
        {"resourceType": "Media", "subject": OWN, "content": {"data": "%%%", "contentType": {}}},
    ],
)  # fmt: skip
def test_nonsense_in_the_prefetch_breaks_nothing(client, node, given):
    cards(client, **prefetch(media=given, documents=given, studies=given))
    assert instances(node) == []


def test_the_token_is_nowhere(client, node, ehr, tmp_path, capsys):
    ehr.answers["/fhir/Binary/b1"] = lambda _: httpx.Response(500, text=TOKEN)
    cards(client, **prefetch(media=searchset(media())))
    assert TOKEN not in capsys.readouterr().out
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
