"""DICOMweb over HTTP: store, search, retrieve, refuse; who may, and the leaf that every look leaves."""

from __future__ import annotations

import json
from io import BytesIO

import numpy as np
import pytest
import sqlalchemy as sa
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from audit.tables import AuditLeaf
from dermoscopy.analyses import save_artifacts
from dermoscopy.domain import ArtifactKind, PatientIdentity, derive_uid
from dermoscopy.tables import AnalysisRow, InstanceRow
from dicom_listener.part10 import split_part10
from dicom_listener.render import RENDERERS
from dicom_listener.syntaxes import EXPLICIT_LITTLE_ENDIAN, SEGMENTATION
from tests.unit.dicom_listener.samples import as_file, compressed, dataset, part10, picture, render_input

ROOT = "/dicom-web"
JPEG = "1.2.840.10008.1.2.4.50"
RLE = "1.2.840.10008.1.2.5"
MULTIPART = 'multipart/related; type="application/dicom"; boundary=xyz'
STUDY, SERIES, SOP = (derive_uid(f"test-{kind}", "1") for kind in ("study", "series", "instance"))
ONE = f"{ROOT}/studies/{STUDY}/series/{SERIES}/instances/{SOP}"
READER = {"name": "reader", "token": "reader-token-012345", "role": "read"}


def body(*files: bytes, kind: str = "application/dicom") -> bytes:
    parts = b"".join(b"--xyz\r\nContent-Type: " + kind.encode() + b"\r\n\r\n" + file + b"\r\n" for file in files)
    return parts + b"--xyz--\r\n"


def store(client, *files: bytes, study: str = "", **headers: str):
    address = f"{ROOT}/studies/{study}" if study else f"{ROOT}/studies"
    return client.post(address, content=body(*files), headers={"Content-Type": MULTIPART, **headers})


def parts_of(response) -> list[tuple[str, bytes]]:
    """(Content-Type, bytes) of every part of a multipart answer."""
    boundary = response.headers["content-type"].rpartition("boundary=")[2].encode()
    found = []
    for piece in response.content.split(b"--" + boundary)[1:-1]:
        head, _, data = piece.partition(b"\r\n\r\n")
        kind = next(line for line in head.decode().splitlines() if line.startswith("Content-Type"))
        found.append((kind.partition(": ")[2], data[:-2]))
    return found


def leaves(node, action):
    with node.begin() as session:
        return session.execute(sa.select(AuditLeaf).where(AuditLeaf.action == action)).scalars().all()


def numbered(number: int, **changes) -> bytes:
    return part10(dataset(**{"SOPInstanceUID": derive_uid("test-instance", str(number)), **changes}))


@pytest.fixture
def with_results(client, node):
    """A stored image with its three results, as the pipeline renders them."""
    store(client, numbered(1))
    what = render_input()
    with node.begin() as session:
        row = session.execute(sa.select(AnalysisRow)).scalar_one()
        made = [RENDERERS[kind](what) for kind in (ArtifactKind.SEG, ArtifactKind.SR, ArtifactKind.SECONDARY_CAPTURE)]
        save_artifacts(session, row.id, [(one, node.blobs.put(one.data)) for one in made])
        row.state = "complete"
    return client


# ------------------------------------------------------------------------------------------------------------- storing


def test_several_instances_in_one_request_are_taken_in_and_analysed(client, node):
    answer = store(client, numbered(1), numbered(2), part10(dataset(SOPInstanceUID="2.25.3", PatientID="4712")))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom+json"
    said = Dataset.from_json(answer.json())
    assert [str(item.ReferencedSOPInstanceUID) for item in said.ReferencedSOPSequence][2] == "2.25.3"
    assert said.ReferencedSOPSequence[0].RetrieveURL == f"http://127.0.0.1:8600{ONE}"
    assert "FailedSOPSequence" not in said
    with node.begin() as session:
        rows = session.execute(sa.select(InstanceRow)).scalars().all()
        assert {row.source for row in rows} == {"stow"}
        assert len(session.execute(sa.select(AnalysisRow)).scalars().all()) == 3
    assert len(leaves(node, "instance.accepted")) == 3


def test_sending_again_keeps_one(client, node):
    assert [store(client, numbered(1)).status_code for _ in range(2)] == [200, 200]
    with node.begin() as session:
        assert len(session.execute(sa.select(InstanceRow)).scalars().all()) == 1


def test_a_bad_one_among_good_ones_is_named_and_the_good_ones_are_kept(client, node):
    bad = part10(dataset(SOPClassUID="1.2.840.10008.5.1.4.1.1.2", SOPInstanceUID="2.25.9"))
    answer = store(client, numbered(1), bad, b"no DICOM at all")
    assert answer.status_code == 202
    said = answer.json()
    (failed,) = said["00081198"]["Value"]
    assert failed["00081155"]["Value"] == ["2.25.9"] and failed["00081197"]["Value"] == [0x0122]
    assert said["0008119A"]["Value"] == [{"00081197": {"vr": "US", "Value": [0xC000]}}]
    assert len(leaves(node, "instance.rejected")) == 2


def test_nothing_stored_is_409(client):
    assert store(client, b"nothing").status_code == 409


def test_an_object_of_another_study_is_refused_where_the_address_names_one(client):
    answer = store(client, numbered(1), study="2.25.77")
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]
    assert store(client, numbered(1), study=STUDY).status_code == 200


def test_an_object_over_the_limit_is_refused_and_the_next_is_taken(open_client):
    client = open_client(dicom_max_object_bytes=20_000)
    large = part10(dataset(np.zeros((128, 128, 3), np.uint8), SOPInstanceUID="2.25.8"))
    answer = store(client, large, numbered(1))
    assert answer.status_code == 202
    assert len(answer.json()["00081199"]["Value"]) == 1
    assert answer.json()["0008119A"]["Value"][0]["00081197"]["Value"] == [0xC110]


def test_a_request_over_its_limit_is_413(open_client):
    client = open_client(dicomweb_max_request_bytes=1024)
    assert store(client, numbered(1)).status_code == 413


def test_too_little_room_is_507_before_the_body_is_read(open_client):
    client = open_client(disk_watermark_bytes=1 << 60)
    answer = store(client, numbered(1))
    assert answer.status_code == 507 and answer.headers["Retry-After"] == "60"


def test_rules_hold_for_stow_too(open_client, node):
    client = open_client(rules=[{"name": "no Lens", "modality": "DMS", "action": "refuse"}])
    answer = store(client, numbered(1))
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xC130]


def test_our_own_capture_that_comes_back_is_kept_and_not_analysed(with_results, node):
    file = RENDERERS[ArtifactKind.SECONDARY_CAPTURE](render_input()).data
    assert store(with_results, file).status_code == 200
    with node.begin() as session:
        assert len(session.execute(sa.select(AnalysisRow)).scalars().all()) == 1


@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [
        ("application/dicom", b"x", 415),
        ("application/json", b"{}", 415),
        ('multipart/related; type="application/dicom+json"; boundary=xyz', b"x", 415),
        ('multipart/related; type="application/dicom"', b"x", 400),
        (MULTIPART, b"x", 400),
        (MULTIPART, body(b"")[:-9], 400),
        (MULTIPART, b"--xyz--\r\n", 400),
        (MULTIPART, b"", 400),
    ],
)
def test_bodies_that_are_no_multipart_of_dicom(client, kind, content, status):
    answer = client.post(f"{ROOT}/studies", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_only_an_answer_that_exists_can_be_asked_for(client):
    assert store(client, numbered(1), Accept="application/dicom+xml").status_code == 406


# ----------------------------------------------------------------------------------------------------------- searching


def search(client, path: str, **parameters):
    answer = client.get(f"{ROOT}/{path}", params=parameters)
    assert answer.status_code in (200, 204), answer.text
    return answer.json() if answer.status_code == 200 else []


def test_studies_with_what_is_in_them(with_results):
    (study,) = search(with_results, "studies", PatientID="4711")
    assert study["00100010"]["Value"] == [{"Alphabetic": "Müller^Jürg"}]
    assert study["00080061"]["Value"] == ["DMS", "OT", "SEG", "SR"] or "SEG" in study["00080061"]["Value"]
    assert study["00201208"]["Value"] == [4]
    assert study["00081190"]["Value"] == [f"http://127.0.0.1:8600{ROOT}/studies/{STUDY}"]


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"PatientName": "müller*"}, 1),
        ({"00100010": "M?ller^J*"}, 1),
        ({"PatientName": "Meier*"}, 0),
        ({"StudyDate": "20260101-20260331"}, 1),
        ({"StudyDate": "20260305-"}, 0),
        ({"StudyDate": "-20260304"}, 1),
        ({"AccessionNumber": "ACC-1"}, 1),
        ({"AccessionNumber": "ACC-2"}, 0),
        ({"ModalitiesInStudy": "SEG"}, 1),
        ({"ModalitiesInStudy": "CT"}, 0),
        ({"StudyInstanceUID": f"2.25.5,{STUDY}"}, 1),
        ({"PatientID": "47*", "PatientSex": "F"}, 1),
        ({"PatientID": ""}, 1),
        ({"PatientID": "nobody"}, 0),
    ],
)
def test_matching(with_results, parameters, found):
    assert len(search(with_results, "studies", **parameters)) == found


def test_series_and_instances_of_a_study(with_results):
    series = search(with_results, f"studies/{STUDY}/series", Modality="SEG")
    assert [row["00201209"]["Value"] for row in series] == [[1]]
    uid = series[0]["0020000E"]["Value"][0]
    (instance,) = search(with_results, f"studies/{STUDY}/series/{uid}/instances")
    assert instance["00080016"]["Value"] == [SEGMENTATION]
    assert "00100010" not in instance, "what the address says already is not said again, least of all a name"
    assert len(search(with_results, f"studies/{STUDY}/instances")) == 4
    assert len(search(with_results, "instances", SOPClassUID=SEGMENTATION)) == 1


def test_fields_limit_and_offset(client):
    store(client, *(numbered(n) for n in range(1, 6)))
    address = f"studies/{STUDY}/instances"
    everything = [row["00080018"]["Value"][0] for row in search(client, address)]
    pages = [search(client, address, limit=2, offset=at)[0]["00080018"]["Value"][0] for at in (0, 2, 4)]
    assert pages == everything[::2]
    assert client.get(f"{ROOT}/{address}?limit=2").headers["warning"].startswith("299 ")
    assert "warning" not in client.get(f"{ROOT}/{address}?limit=5").headers
    (row,) = search(client, address, limit=1, includefield="Manufacturer,00200011")
    assert row["00080070"]["Value"] == ["Lens"] and row["00200011"] == {"vr": "IS"}
    assert "00181200" not in row


def test_a_search_that_would_look_at_too_much_says_so(open_client):
    client = open_client(dicomweb_search_objects=2)
    store(client, *(numbered(n) for n in range(1, 6)))
    answer = client.get(f"{ROOT}/instances")
    assert len(answer.json()) == 2 and "newest 2" in answer.headers["warning"]


@pytest.mark.parametrize(
    "query",
    ["Patient=4711", "limit=-1", "limit=x", "PixelData=1", "includefield=Nonsense", "PatientID=1&PatientID=2"],
)
def test_queries_that_cannot_be_meant(client, query):
    answer = client.get(f"{ROOT}/studies?{query}")
    assert answer.status_code == 400
    assert "4711" not in answer.text


def test_a_search_is_in_the_audit_log_with_the_patient_it_was_about(with_results, node):
    search(with_results, "studies", PatientID="4711")
    (leaf,) = leaves(node, "dicomweb.searched")
    assert leaf.patient_id == "4711" and leaf.actor == "local"
    assert json.loads(leaf.details) == {"level": "studies", "found": 1, "keys": ["00100020"]}


# ----------------------------------------------------------------------------------------------------------- retrieving


def test_the_file_that_was_stored_comes_back(client):
    sent = numbered(1)
    store(client, sent)
    answer = client.get(ONE, headers={"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'})
    assert answer.status_code == 200
    ((kind, data),) = parts_of(answer)
    assert kind == f"application/dicom; transfer-syntax={EXPLICIT_LITTLE_ENDIAN}"
    assert split_part10(data) == split_part10(sent), "the dataset byte for byte"


def test_a_study_comes_with_everything_in_it(with_results):
    answer = with_results.get(f"{ROOT}/studies/{STUDY}", headers={"Accept": "*/*"})
    classes = {dcmread(BytesIO(data)).Modality for _, data in parts_of(answer)}
    assert {"DMS", "SEG", "SR"} <= classes and len(parts_of(answer)) == 4


@pytest.mark.parametrize(
    ("accept", "syntax"),
    [
        ("", EXPLICIT_LITTLE_ENDIAN),
        ('multipart/related; type="application/dicom"', EXPLICIT_LITTLE_ENDIAN),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', RLE),
        (f'multipart/related; type="application/dicom"; transfer-syntax={RLE}', RLE),
        ("application/dicom; transfer-syntax=*", RLE),
        (f"application/dicom; transfer-syntax={JPEG}, application/dicom; q=0.1", EXPLICIT_LITTLE_ENDIAN),
        (f"application/dicom; transfer-syntax={JPEG}", None),
        ("image/jpeg", None),
        ("application/dicom; q=0", None),
    ],
)
def test_negotiation_of_an_instance(client, accept, syntax):
    made = compressed(RLE)
    store(client, part10(made))
    answer = client.get(ONE, headers={"Accept": accept})
    if syntax is None:
        assert answer.status_code == 406 and answer.headers["content-type"] == "application/problem+json"
        return
    data = parts_of(answer)[0][1] if "multipart" in answer.headers["content-type"] else answer.content
    read = dcmread(BytesIO(data))
    assert read.file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(read.pixel_array, picture())


def test_metadata_refer_to_the_pixels_and_the_address_leads_there(client):
    store(client, numbered(1))
    (found,) = client.get(f"{ONE}/metadata").json()
    assert found["00100020"]["Value"] == ["4711"] and found["00280010"]["Value"] == [48]
    address = found["7FE00010"]["BulkDataURI"]
    assert address == f"http://127.0.0.1:8600{ONE}/bulkdata/7FE00010"
    answer = client.get(address, headers={"Accept": "application/octet-stream"})
    assert answer.content == picture().tobytes()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"),
        (
            'multipart/related; type="application/octet-stream"',
            "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1",
        ),
        ('multipart/related; type="image/dicom-rle"', f"image/dicom-rle; transfer-syntax={RLE}"),
        (
            'multipart/related; type="application/octet-stream"; transfer-syntax=*',
            f"application/octet-stream; transfer-syntax={RLE}",
        ),
        ('multipart/related; type="image/jp2"', None),
    ],
)
def test_frames(client, accept, kind):
    store(client, part10(compressed(RLE)))
    answer = client.get(f"{ONE}/frames/1", headers={"Accept": accept})
    if kind is None:
        assert answer.status_code == 406
        return
    ((said, data),) = parts_of(answer)
    assert said == kind
    assert (data == picture().tobytes()) == kind.endswith("1.2.1")


def test_a_frame_that_is_not_there(client):
    store(client, numbered(1))
    assert client.get(f"{ONE}/frames/2").status_code == 404
    assert client.get(f"{ONE}/frames/x").status_code == 400
    assert client.get(f"{ONE}/bulkdata/00091001").status_code == 404


@pytest.mark.parametrize(("accept", "form"), [("", "JPEG"), ("image/png", "PNG"), ("image/*;q=0.5, image/png", "PNG")])
def test_rendered(client, accept, form):
    store(client, numbered(1))
    picture_of = Image.open(BytesIO(client.get(f"{ONE}/rendered", headers={"Accept": accept}).content))
    assert picture_of.format == form and picture_of.size == (64, 48)
    if form == "PNG":
        assert np.array_equal(np.asarray(picture_of), picture())


def test_rendered_in_a_viewport_and_by_query(client):
    store(client, numbered(1))
    drawn = Image.open(BytesIO(client.get(f"{ONE}/rendered?accept=image/png&viewport=32,32").content))
    assert drawn.format == "PNG" and drawn.size == (32, 24)
    assert client.get(f"{ONE}/rendered?viewport=0,5").status_code == 400
    assert client.get(f"{ONE}/rendered?quality=101").status_code == 400


def test_a_segmentation_is_drawn_and_a_report_is_not(with_results):
    rows = search(with_results, f"studies/{STUDY}/instances")
    by_modality = {row["00080060"]["Value"][0]: row["00081190"]["Value"][0] for row in rows}
    mask = Image.open(BytesIO(with_results.get(by_modality["SEG"] + "/rendered?accept=image/png").content))
    assert np.array_equal(np.asarray(mask)[..., 0] > 127, render_input().analysis.finding.mask)
    assert with_results.get(by_modality["SR"] + "/rendered").status_code == 406


@pytest.mark.parametrize("state", ["held", "dismissed", "reassigned"])
def test_what_waits_for_a_person_is_not_shown(client, node, state):
    store(client, numbered(1))
    with node.begin() as session:
        session.execute(sa.select(InstanceRow)).scalar_one().state = state
    assert client.get(ONE).status_code == 404
    assert search(client, "instances") == []


def test_an_image_that_a_person_gave_to_a_patient_says_so(client, node):
    store(client, numbered(1))
    with node.begin() as session:
        session.execute(sa.select(InstanceRow)).scalar_one().patient_id = "4712"
    read = dcmread(BytesIO(client.get(ONE, headers={"Accept": "application/dicom"}).content))
    assert read.PatientID == "4712" and not read.PatientName and not read.PatientBirthDate
    (found,) = search(client, "instances", PatientID="4712")
    assert found["00100010"] == {"vr": "PN"}
    assert np.array_equal(read.pixel_array, picture())


def test_two_patients_with_one_uid_give_the_first_that_came(client, node):
    store(client, numbered(1))
    store(client, part10(dataset(PatientID="4713", PatientName="Other")))
    with node.begin() as session:
        for row in session.execute(sa.select(InstanceRow)).scalars():
            row.state = "accepted"
    read = dcmread(BytesIO(client.get(ONE, headers={"Accept": "application/dicom"}).content))
    assert read.PatientID == "4711"


def test_addresses_hold_uids_only(client):
    assert client.get(f"{ROOT}/studies/4711%20Smith").status_code == 400
    assert client.get(f"{ROOT}/studies/1.2.3").status_code == 404


@pytest.mark.parametrize("path", ["", "/metadata", "/rendered", "/frames/1"])
def test_every_look_leaves_a_leaf(client, node, path):
    store(client, numbered(1))
    assert client.get(ONE + path).status_code == 200
    (leaf,) = leaves(node, "dicomweb.read")
    assert (leaf.patient_id, leaf.subject_id, leaf.actor) == ("4711", STUDY, "local")


def test_readers_may_look_and_not_store(open_client):
    client = open_client(api_tokens=[READER])
    known = {"Authorization": f"Bearer {READER['token']}"}
    refused = client.get(f"{ROOT}/studies")
    assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Bearer")
    assert client.get(f"{ROOT}/studies", headers=known).status_code == 204
    assert store(client, numbered(1)).status_code == 401
    assert store(client, numbered(1), **known).status_code == 403


def test_a_picture_that_was_uploaded_is_found_by_its_derived_uids(client, node):
    from dicom_listener.render.source import render_source
    from tests.findings import make_header
    from tests.unit.dicom_listener.samples import picture_source

    data = as_file(picture(49, 65))
    header = make_header(PatientIdentity("HOSPITAL-A", "4711"), media_type="image/png", sop_instance_uid="",
                         study_instance_uid="", series_instance_uid="", transfer_syntax_uid="")  # fmt: skip
    receipt = node.intake.accept(data, header, source="rest", caller="test")
    from dataclasses import replace

    stored = replace(picture_source(), instance_id=receipt.instance_id)
    made = render_source(render_input(stored))
    with node.begin() as session:
        save_artifacts(session, receipt.analysis_id, [(made, node.blobs.put(made.data))])
        session.get_one(AnalysisRow, receipt.analysis_id).state = "complete"
    (row,) = search(client, "instances")
    assert client.get(row["00081190"]["Value"][0] + "/rendered").status_code == 200


def test_a_stow_destination_that_cannot_be_meant_stops_the_service_at_the_start():
    from cds_service.listening import check
    from dermoscopy.errors import Misconfigured
    from dermoscopy.settings import Settings

    with pytest.raises(Misconfigured, match="'web'"):
        check(Settings(stow=[{"name": "web", "base_url": "ftp://nowhere"}]))
    check(Settings(stow=[{"name": "web", "base_url": "https://pacs.example/dicom-web"}]))


def test_two_studies_and_a_search_that_stops_early(client):
    store(client, numbered(1), numbered(2, StudyInstanceUID="2.25.20"), numbered(3, StudyInstanceUID="2.25.21"))
    answer = client.get(f"{ROOT}/studies?limit=1&PatientID=4711")
    assert len(answer.json()) == 1 and "additional results" in answer.headers["warning"]
    uids = {client.get(f"{ROOT}/studies?limit=1&offset={at}").json()[0]["0020000D"]["Value"][0] for at in (0, 1, 2)}
    assert uids == {STUDY, "2.25.20", "2.25.21"}
