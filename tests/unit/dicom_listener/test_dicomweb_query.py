"""QIDO-RS and WADO-RS as client: requests built, answers taken apart, errors that name no patient."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import DestinationUnavailable, Misconfigured, Rejected, UnreadableObject
from dicom_listener.dicomweb_query import DicomwebArchive, only_part, study_search
from dicom_listener.query import Match, Wanted
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY

PATIENT = PatientIdentity("HOSPITAL-A", "4711")
KIND = 'multipart/related; type="application/dicom"; boundary="b1"'
Answer = tuple[int, dict[str, str], bytes]


class Server(HTTPServer):
    """Answers by ``script`` and remembers the addresses."""

    script: Callable[[str, dict[str, list[str]]], Answer]
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        server: Any = self.server
        server.asked.append(self.path)
        status, headers, body = server.script(parts.path, parse_qs(parts.query))
        self.send_response(status)
        for name, value in {"Content-Type": "application/dicom+json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.asked = []
    thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def archive(server: Server, **options: Any) -> DicomwebArchive:
    return DicomwebArchive("web", f"http://127.0.0.1:{server.server_port}/dicom-web", timeout=5, **options)


def item(**values: str) -> dict[str, Any]:
    tags = {
        "StudyInstanceUID": ("0020000D", "UI"),
        "SeriesInstanceUID": ("0020000E", "UI"),
        "SOPInstanceUID": ("00080018", "UI"),
        "SOPClassUID": ("00080016", "UI"),
        "Modality": ("00080060", "CS"),
        "PatientID": ("00100020", "LO"),
        "IssuerOfPatientID": ("00100021", "LO"),
    }
    return {tags[name][0]: {"vr": tags[name][1], "Value": [value]} for name, value in values.items()}


def same(answered: PatientIdentity) -> bool:
    return answered == PATIENT


def test_the_search_for_studies() -> None:
    assert study_search(Wanted(PATIENT, since="20240102")) == {
        "search_filters": {"PatientID": "4711", "StudyDate": "20240102-"},
        "fields": ["IssuerOfPatientID"],
    }


def test_pages_are_read_to_the_end_and_others_are_left_out(server: Server) -> None:
    """The server gives two matches at a time, whatever it is asked for."""
    images = [item(SOPInstanceUID=f"2.25.{n}", SOPClassUID=DERMOSCOPIC_PHOTOGRAPHY) for n in range(5)]
    images.append(item(SOPInstanceUID="2.25.66", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4"))
    answers = {
        "/dicom-web/studies": [
            item(StudyInstanceUID="1.1", PatientID="4711", IssuerOfPatientID="HOSPITAL-A"),
            item(StudyInstanceUID="1.2", PatientID="4712"),
            item(StudyInstanceUID="1.3", PatientID="4711", IssuerOfPatientID="HOSPITAL-B"),
        ],
        "/dicom-web/studies/1.1/series": [
            item(SeriesInstanceUID="1.1.1", Modality="DMS"),
            item(SeriesInstanceUID="1.1.2", Modality="CT"),
        ],
        "/dicom-web/studies/1.1/series/1.1.1/instances": images,
    }

    def script(path: str, query: dict[str, list[str]]) -> Answer:
        start = int(query["offset"][0])
        return 200, {}, json.dumps(answers[path][start : start + 2]).encode()

    server.script = script  # type: ignore[method-assign, assignment]
    found = archive(server).find(Wanted(PATIENT, ("DMS",)), same)
    assert [one.sop_instance_uid for one in found.matches] == [f"2.25.{n}" for n in range(5)]
    assert found.of_others == ("1.2", "1.3")


def test_a_server_that_knows_no_offset_ends_too(server: Server) -> None:
    server.script = lambda path, _: (  # type: ignore[method-assign, assignment]
        200,
        {},
        json.dumps([item(StudyInstanceUID="1.2", PatientID="4712")]).encode(),
    )
    assert archive(server).find(Wanted(PATIENT), same).of_others == ("1.2",)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((503, {"Retry-After": "7"}, b""), DestinationUnavailable),
        ((500, {}, b""), DestinationUnavailable),
        ((429, {}, b""), DestinationUnavailable),
        ((401, {}, b""), Rejected),
        ((404, {}, b""), Rejected),
        ((501, {}, b""), Rejected),
        ((302, {"Location": "/elsewhere"}, b""), Rejected),
        ((200, {}, b"<html>"), DestinationUnavailable),
        ((200, {}, b'[{"0020000D": 5}]'), DestinationUnavailable),
    ],
)
def test_errors_are_ours_and_name_no_patient(server: Server, answer: Answer, error: type[Exception]) -> None:
    server.script = lambda path, query: answer  # type: ignore[method-assign, assignment]
    with pytest.raises(error) as caught:
        archive(server).find(Wanted(PATIENT), same)
    shown: BaseException | None = caught.value
    assert "4711" not in str(shown) and shown.__cause__ is None and shown.__suppress_context__
    if answer[0] == 503:
        assert getattr(shown, "retry_after", None) == 7


def test_one_object_that_is_gone_does_not_stop_the_rest(server: Server) -> None:
    server.script = lambda path, query: (404, {}, b"")  # type: ignore[method-assign, assignment]
    wanted = [Match("1.1", "1.1.1", f"2.25.{n}", DERMOSCOPIC_PHOTOGRAPHY) for n in (1, 2)]
    assert archive(server).fetch(wanted, door=lambda _: pytest.fail("nothing came")).failed == 2  # type: ignore[arg-type]
    assert len(server.asked) == 2


def test_an_object_beyond_the_limit_is_not_read_to_its_end(server: Server) -> None:
    server.script = lambda path, query: (200, {"Content-Type": KIND}, b"x" * 5_000_000)  # type: ignore[method-assign, assignment]
    small = archive(server, max_object_bytes=1000)
    wanted = [Match("1.1", "1.1.1", "2.25.1", DERMOSCOPIC_PHOTOGRAPHY)]
    assert small.fetch(wanted, door=lambda _: pytest.fail("too large")).failed == 1  # type: ignore[arg-type]


def test_a_part_is_taken_out_byte_for_byte() -> None:
    data = b"\r\n\r\n--b1 no boundary\r\n\0\xff--b1"
    body = b"preamble\r\n--b1\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b1--\r\n"
    assert only_part(body, KIND) == data
    assert only_part(data, "application/dicom; transfer-syntax=1.2.840.10008.1.2.1") == data


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", KIND),
        (b"--b1\r\n\r\nxx", KIND),
        (b"--b1\r\n\r\nxx\r\n--b1--", "multipart/related"),
        (b"<html>", "text/html"),
    ],
)
def test_anything_else_is_no_object(body: bytes, kind: str) -> None:
    with pytest.raises(UnreadableObject):
        only_part(body, kind)


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "ftp://h/x"},
        {"base_url": "http://u:p@h/x"},
        {"base_url": "http://h/x", "username": "u", "token": "t"},
    ],
)
def test_wrong_settings(options: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="'web'"):
        DicomwebArchive("web", **options)
