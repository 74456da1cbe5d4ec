"""Images of a chart: addresses, multiparts and what is behind them. The whole way stands in the tests of the hooks."""

from __future__ import annotations

import base64

import pytest

from dermoscopy.errors import Rejected
from fhir_adapters.fetch import Content, EhrReader
from fhir_adapters.images import chart_images, image_bytes, resources_of, wado_base

DATA = bytes(range(256)) * 3 + b"\r\n--gap not a boundary\r\n\r\n"


def multipart(*parts, boundary="gap", ending=b"--"):
    body = b"".join(b"--gap\r\nContent-Type: application/dicom\r\n\r\n" + part + b"\r\n" for part in parts)
    return Content(f'multipart/related; type="application/dicom"; boundary={boundary}', body + b"--gap" + ending)


@pytest.mark.parametrize(
    "content",
    [
        Content("image/png", DATA),
        Content("", DATA),
        Content("application/fhir+json", b'{"resourceType": "Binary", "data": "%s"}' % base64.b64encode(DATA)),
        multipart(DATA.replace(b"\r\n--gap not", b"\r\n-gap not")),
    ],
    ids=["bare", "untyped", "Binary", "multipart"],
)
def test_bytes_come_out_as_they_are(content):
    assert image_bytes(content) in (DATA, DATA.replace(b"\r\n--gap not", b"\r\n-gap not"))


@pytest.mark.parametrize(
    "content",
    [
        Content("text/html", b"<html>"),
        Content("application/json", b'{"resourceType": "Patient"}'),
        Content("application/json", b'{"resourceType": "Binary", "data": "%%"}'),
        Content("multipart/related", b""),
        multipart(ending=b"--"),
        Content('multipart/related; boundary="gap"', b"--gap\r\nContent-Type: application/dicom\r\n\r\nhalf"),
    ],
)
def test_anything_else_is_refused(content):
    with pytest.raises(Rejected):
        image_bytes(content)


@pytest.mark.parametrize(
    ("found", "resources"),
    [(None, []), ({"resourceType": "OperationOutcome"}, None), ("x", None), ({"resourceType": "Bundle"}, [])],
)
def test_null_is_an_answer_and_an_outcome_is_none(found, resources):
    assert resources_of(found) == resources


@pytest.mark.parametrize(
    ("changes", "address"),
    [
        ({}, "https://pacs.example/wado"),
        ({"status": "off"}, None),
        ({"connectionType": {"code": "hl7-fhir-rest"}}, None),
        ({"address": 7}, None),
    ],
)
def test_endpoints(changes, address):
    wado = {"code": "dicom-wado-rs"}
    endpoint = {"status": "active", "connectionType": wado, "address": "https://pacs.example/wado/", **changes}
    if address:
        assert wado_base(endpoint) == address
    else:
        with pytest.raises(Rejected):
            wado_base(endpoint)


def test_the_newest_stands_first_and_a_key_tells_nothing_of_the_patient():
    def media(own_id, made):
        return {
            "resourceType": "Media", "id": own_id, "createdDateTime": made, "subject": {"reference": "Patient/p1"},
            "content": {"contentType": "image/png", "url": f"Binary/{own_id}"},
        }  # fmt: skip

    found = chart_images([media("a", "2026-01-01"), media("b", "2026-02-01")], "p1").images
    assert [image.reference for image in found] == ["Media/b", "Media/a"]
    keys = {image.key(server) for image in found for server in ("https://a.example", "https://b.example")}
    assert len(keys) == 4 and all(len(key) == 64 for key in keys)


def test_places_are_below_listed_servers():
    reader = EhrReader({"https://ehr.example/fhir": False}, image_servers={"https://pacs.example/wado": (False, None)})
    try:
        assert reader.place("Binary/1", "https://ehr.example/fhir", "*/*").path == "Binary/1"
        assert reader.place("https://pacs.example/wado/studies/1?x=1", "", "*/*").path == "studies/1?x=1"
        for wrong in ("https://ehr.example/fhirx/1", "//evil.example/x", "https://ehr.example/fhir/a/../b", "..", ""):
            with pytest.raises(Rejected):
                reader.place(wrong, "https://ehr.example/fhir", "*/*")
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("subject", "is_theirs"),
    [
        ("Patient/p1", True),
        ("https://ehr.example/fhir/Patient/p1", True),
        ("Patient/p1/_history/3", True),
        ("Patient/xp1", False),
        ("Patient/p2/_history/3", False),
        ("Group/p1", False),
        ("", False),
    ],
)
def test_only_images_of_the_patient_are_looked_at(subject, is_theirs):
    media = {"resourceType": "Media", "id": "1", "subject": {"reference": subject}, "content": {"url": "Binary/1"}}
    found = chart_images([media], "p1")
    assert (len(found.images), sum(found.passed_over.values())) == ((1, 0) if is_theirs else (0, 1))
