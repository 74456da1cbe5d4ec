"""The `Destination` port over STOW-RS: a server that answers as scripted, and what each answer means."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import SecretStr

from dermoscopy.domain import Artifact, ArtifactKind
from dermoscopy.errors import DestinationUnavailable, Misconfigured, Rejected
from dicom_listener.deliver import DESTINATIONS, StowDestination
from dicom_listener.deliver.stow import retry_after
from dicom_listener.dicomweb_store import Outcome, response
from dicom_listener.render import RENDERERS
from tests.unit.dicom_listener.samples import render_input

Answer = tuple[int, dict[str, str], str]
GOOD: Answer = (200, {}, "{}")


class Scripted:
    """An HTTP server that gives one answer after the other and remembers what it was sent."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.seen.append((self.path, dict(self.headers), body))
                status, headers, text = outer.answers.pop(0) if outer.answers else GOOD
                self.send_response(status)
                for name, value in {"Content-Type": "application/dicom+json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/dicom-web"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.server.shutdown()
    made.server.server_close()


def captured() -> Artifact:
    return RENDERERS[ArtifactKind.SECONDARY_CAPTURE](render_input())


def answered(status: int, *outcomes: Outcome) -> tuple[int, dict[str, str], str]:
    return (status, {}, json.dumps(response(outcomes, "http://pacs")))


def test_every_dicom_kind_arrives_whole_and_the_receipt_names_it(server: Scripted) -> None:
    destination: StowDestination = StowDestination("web", server.url + "/", token=SecretStr("secret"))
    what = render_input()
    for kind in (ArtifactKind.SEG, ArtifactKind.SR, ArtifactKind.SECONDARY_CAPTURE):
        assert kind in destination.accepts
        artifact = RENDERERS[kind](what)
        assert destination.deliver(artifact, what.analysis).reference == artifact.uid
        path, headers, body = server.seen[-1]
        assert path == "/dicom-web/studies" and headers["Authorization"] == "Bearer secret"
        assert headers["Content-Type"].startswith("multipart/related") and artifact.uid.encode() in body
    assert DESTINATIONS["stow"] is StowDestination


@pytest.mark.parametrize(
    ("status", "headers", "pause"),
    [
        (503, {"Retry-After": "7"}, 7.0),
        (503, {"Retry-After": "soon"}, None),
        (429, {"Retry-After": "2"}, 2.0),
        (500, {}, None),
        (504, {}, None),
        (507, {}, None),
        (408, {}, None),
    ],
)
def test_what_may_pass_is_tried_again(server: Scripted, status: int, headers: dict[str, str], pause: float) -> None:
    server.answers = [(status, headers, "{}")]
    with pytest.raises(DestinationUnavailable) as caught:
        StowDestination("web", server.url).deliver(captured(), render_input().analysis)
    assert caught.value.retry_after == pause
    assert len(server.seen) == 1, "the delivery retries, not the client inside it"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406, 413, 415, 501])
def test_what_will_not_pass_is_left_to_a_person(server: Scripted, status: int) -> None:
    server.answers = [(status, {"Content-Type": "text/plain"}, "patient 4711 is not welcome")]
    with pytest.raises(Rejected) as caught:
        StowDestination("web", server.url).deliver(captured(), render_input().analysis)
    assert str(status) in str(caught.value) and "4711" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "failure", "error"),
    [
        (409, 0xA700, DestinationUnavailable),
        (202, 0xA701, DestinationUnavailable),
        (409, 0xA900, Rejected),
        (202, 0x0122, Rejected),
        (409, 0x0111, None),
        (200, 0, None),
    ],
)
def test_a_conflict_is_judged_by_its_reason(
    server: Scripted, status: int, failure: int, error: type[Exception] | None
) -> None:
    artifact = captured()
    server.answers = [answered(status, Outcome("1.2.3", artifact.uid, "1.2", "1.3", failure))]
    destination = StowDestination("web", server.url)
    if error is None:
        assert destination.deliver(artifact, render_input().analysis).reference == artifact.uid
        return
    with pytest.raises(error):
        destination.deliver(artifact, render_input().analysis)


def test_nobody_there_and_no_answer_in_time_are_tried_again(server: Scripted) -> None:
    server.server.shutdown()
    with pytest.raises(DestinationUnavailable, match="in time"):  # the port still listens, nobody answers
        StowDestination("web", server.url, timeout=0.3).deliver(captured(), render_input().analysis)
    server.server.server_close()
    with pytest.raises(DestinationUnavailable, match="reached"):
        StowDestination("web", server.url).deliver(captured(), render_input().analysis)


def test_a_redirect_is_not_followed_with_patients_images(server: Scripted) -> None:
    server.answers = [(302, {"Location": f"{server.url}/elsewhere"}, "")]
    with pytest.raises(Rejected, match="redirects"):
        StowDestination("web", server.url).deliver(captured(), render_input().analysis)
    assert len(server.seen) == 1


def test_an_answer_that_is_no_dicom_json_proves_nothing(server: Scripted) -> None:
    server.answers = [(200, {}, "<html>welcome</html>")]
    with pytest.raises(DestinationUnavailable):
        StowDestination("web", server.url).deliver(captured(), render_input().analysis)


def test_what_is_no_dicom_object_is_refused_here(server: Scripted) -> None:
    destination = StowDestination("web", server.url)
    with pytest.raises(Rejected):
        destination.deliver(Artifact(ArtifactKind.SEG, "application/dicom", b"x", "1.2"), render_input().analysis)
    with pytest.raises(Rejected):
        destination.deliver(Artifact(ArtifactKind.MASK, "image/png", b"x", ""), render_input().analysis)
    assert server.seen == []


@pytest.mark.parametrize("url", ["ftp://x/y", "http://user:pw@host/x", "http://host/x?y=1", "nowhere"])
def test_addresses_that_cannot_be_meant(url: str) -> None:
    with pytest.raises(Misconfigured):
        StowDestination("web", url)


def test_a_date_as_retry_after() -> None:
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert retry_after("") is None
