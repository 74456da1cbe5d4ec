"""Key sets: cached, read anew for an unknown key and after an hour, and never more often than every half minute."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from cds_service.hooks import key_sets
from cds_service.hooks.key_sets import KeySets, parse_key_set, read_key_set
from dermoscopy.errors import Unavailable


class Bench:
    def __init__(self):
        self.now, self.reads, self.kids = 0.0, 0, ["a"]
        self.keys = KeySets(self.read, lambda: self.now)

    def read(self, _source):
        self.reads += 1
        if not self.kids:
            raise Unavailable("away")
        return json.dumps({"keys": [{"kid": kid, "kty": "EC"} for kid in self.kids]}).encode()

    def has(self, kid):
        return self.keys.key("https://ehr.example/jwks.json", kid) is not None


@pytest.fixture
def bench():
    return Bench()


def test_a_set_is_read_once_for_many_calls(bench):
    assert all(bench.has("a") for _ in range(5))
    assert bench.reads == 1


def test_an_unknown_key_is_looked_for_but_not_again_and_again(bench):
    assert bench.has("a")
    bench.kids = ["b"]
    assert not bench.has("b")  # within the pause
    bench.now = 30.0
    assert bench.has("b") and bench.reads == 2
    assert not any(bench.has("c") for _ in range(5))
    assert bench.reads == 2


def test_a_key_that_was_withdrawn_is_gone_after_an_hour(bench):
    assert bench.has("a")
    bench.kids = ["b"]
    bench.now = 3599.0
    assert bench.has("a")
    bench.now = 3600.0
    assert not bench.has("a")


def test_known_keys_outlive_an_outage_by_an_hour(bench):
    assert bench.has("a")
    bench.kids, bench.now = [], 7199.0
    assert bench.has("a")
    bench.now = 7200.0
    assert not bench.has("a")


@pytest.mark.parametrize(
    "data", [b"<html>", b"[]", b"{}", b'{"keys": {}}', b"[" * 100_000, json.dumps({"keys": [{}] * 101}).encode()]
)
def test_what_is_no_key_set_is_said(data):
    with pytest.raises(Unavailable):
        parse_key_set(data)


def test_keys_that_cannot_be_used_are_left_out():
    keys = [{"kid": "a"}, {"kid": "b", "use": "enc"}, {"kid": 1}, {}, "x", {"kid": "c", "use": "sig"}]
    assert sorted(parse_key_set(json.dumps({"keys": keys}).encode())) == ["a", "c"]


def test_a_file(tmp_path):
    (tmp_path / "keys.json").write_bytes(b'{"keys": []}')
    assert read_key_set(str(tmp_path / "keys.json")) == b'{"keys": []}'
    with pytest.raises(Unavailable, match="file"):
        read_key_set(str(tmp_path / "none.json"))


@pytest.fixture
def address():
    """A server that answers /keys, redirects /moved there, and sends too much at /huge."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response({"/moved": 302, "/none": 404}.get(self.path, 200))
            self.send_header("Location", "/keys")
            self.end_headers()
            self.wfile.write(b'{"keys": []}' if self.path != "/huge" else b" " * (key_sets.MAX_BYTES + 1))

        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_an_address(address):
    assert read_key_set(f"{address}/keys") == b'{"keys": []}'
    for path, reason in (("moved", "HTTP 302"), ("none", "HTTP 404"), ("huge", "too large")):
        with pytest.raises(Unavailable, match=reason):
            read_key_set(f"{address}/{path}")
    with pytest.raises(Unavailable, match="cannot be read"):
        read_key_set("http://127.0.0.1:1/keys")
