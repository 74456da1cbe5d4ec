"""TLS both ways over real sockets: pynetdicom and dcmtk as peers, good, expired, strange, plain and silent ones."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom import AE, build_context, evt

from dermoscopy.errors import DestinationUnavailable
from dicom_listener.deliver import CStoreDestination
from dicom_listener.refusals import Refused
from dicom_listener.scp import ListenerSettings, StorageListener
from dicom_listener.syntaxes import DERMOSCOPIC_PHOTOGRAPHY, EXPLICIT_LITTLE_ENDIAN, VERIFICATION
from dicom_listener.tls import TlsFiles, client_tls, server_tls
from tests.peers.dcmtk import echoscu, storescp, storescu
from tests.peers.processes import free_port
from tests.unit.dicom_listener.certificates import DAY, Authority, Issued
from tests.unit.dicom_listener.samples import dataset, encoded, part10, picture

HOST = "127.0.0.1"


class Site:
    """An authority with certificates for both ends, and a listener that keeps what it is sent."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.stranger = Authority(folder, "Strange CA")
        self.ours = self.authority.issue("listener", elliptic=False)
        self.theirs = self.authority.issue("sender", elliptic=False)
        self.kept: list[bytes] = []
        self.refused: list[Refused] = []
        self.started: list[StorageListener] = []

    def files(self, issued: Issued | None = None) -> TlsFiles:
        issued = issued or self.ours
        return TlsFiles(issued.certificate, issued.key, self.authority.path)

    def listen(self, *, mutual: bool = True, **settings) -> StorageListener:
        listener = StorageListener(
            ListenerSettings(port=0, tls=server_tls(self.files(), mutual=mutual), **settings),
            lambda data, *_: self.kept.append(data),
            on_refused=self.refused.append,
        )
        listener.start()
        self.started.append(listener)
        return listener

    def client(self, issued: Issued | None) -> ssl.SSLContext:
        """A sender's own context, as pynetdicom's users make it: nothing of ours."""
        context = ssl.create_default_context(cafile=str(self.authority.path))
        if issued is not None:
            context.load_cert_chain(issued.certificate, issued.key)
        return context


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    for listener in made.started:
        listener.shutdown(grace=1)


def associate(listener: StorageListener, context: ssl.SSLContext):
    sender = AE("CAMERA")
    sender.acse_timeout = sender.connection_timeout = sender.network_timeout = 10
    contexts = [build_context(DERMOSCOPIC_PHOTOGRAPHY, [EXPLICIT_LITTLE_ENDIAN])]
    return sender.associate(HOST, listener.port, contexts=contexts, ae_title="DERMCDS", tls_args=(context, HOST))


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert true()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_image_arrives_unchanged(site, version):
    listener = site.listen()
    context = site.client(site.theirs)
    context.minimum_version = context.maximum_version = version
    association = associate(listener, context)
    large = dataset(picture(300, 400))
    assert association.send_c_store(large).Status == 0
    association.release()
    assert site.kept == [encoded(large)]
    assert not site.refused


def refusals_of(site: Site, listener: StorageListener, context: ssl.SSLContext) -> list[Refused]:
    association = associate(listener, context)
    assert not association.is_established
    wait_until(lambda: bool(site.refused))
    wait_until(lambda: not listener.associations)
    return site.refused


def test_a_sender_without_certificate_is_refused(site):
    (refused,) = refusals_of(site, site.listen(), site.client(None))
    assert (refused.kind, refused.address) == ("connection", HOST)
    assert "did not return a certificate" in refused.reason


def test_where_it_is_not_mutual_it_is_taken(site):
    association = associate(site.listen(mutual=False), site.client(None))
    assert association.is_established
    association.release()


@pytest.mark.parametrize(
    ("issue", "reason"),
    [
        (lambda site: site.authority.issue("late", ends=-DAY / 2), "certificate has expired"),
        (lambda site: site.stranger.issue("strange"), "unable to get local issuer certificate"),
    ],
    ids=["expired", "another authority"],
)
def test_a_sender_with_a_bad_certificate_is_refused(site, issue, reason):
    (refused,) = refusals_of(site, site.listen(), site.client(issue(site)))
    assert reason in refused.reason


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_versions_are_refused(site):
    context = site.client(site.theirs)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    (refused,) = refusals_of(site, site.listen(), context)
    assert "protocol" in refused.reason


def test_a_weak_cipher_is_refused(site):
    context = site.client(site.theirs)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES256-SHA256")
    (refused,) = refusals_of(site, site.listen(), context)
    assert "cipher" in refused.reason


def test_a_plain_sender_is_refused_at_once(site):
    listener = site.listen()
    sender = AE("CAMERA")
    sender.acse_timeout = 10
    began = time.monotonic()
    association = sender.associate(HOST, listener.port, contexts=[build_context(VERIFICATION)], ae_title="DERMCDS")
    assert not association.is_established
    assert time.monotonic() - began < 5
    assert "TLS: " in site.refused[0].reason


def test_silent_and_slow_peers_hold_up_nobody_and_are_dropped(site):
    listener = site.listen(negotiation_timeout=1.0, handshake_timeout=1.0)
    silent = [socket.create_connection((HOST, listener.port), timeout=10) for _ in range(20)]
    slow = socket.create_connection((HOST, listener.port), timeout=10)
    slow.sendall(b"\x16\x03\x01\x02\x00")  # the head of a ClientHello, and nothing more
    association = associate(listener, site.client(site.theirs))
    assert association.send_c_store(dataset()).Status == 0
    association.release()
    for peer in (*silent, slow):
        assert peer.recv(100) == b""
        peer.close()
    wait_until(lambda: not listener.associations)
    assert [refused.reason for refused in site.refused] == ["TLS: no answer in time"]


def test_a_peer_that_hangs_up_leaves_no_thread_behind(site):
    listener = site.listen()  # thirty seconds for an association request
    for _ in range(10):
        socket.create_connection((HOST, listener.port), timeout=10).close()
    wait_until(lambda: not listener.associations)


def test_a_renewed_certificate_needs_no_restart(site):
    listener = site.listen()

    def shown() -> int:
        with socket.create_connection((HOST, listener.port), timeout=10) as plain:
            context = site.client(site.theirs)
            with context.wrap_socket(plain, server_hostname=HOST) as secured:
                return int(secured.getpeercert()["serialNumber"], 16)

    first = shown()
    site.authority.issue("listener")
    second = shown()
    assert second != first
    site.ours.certificate.write_text("half a file")
    assert shown() == second


# ------------------------------------------------------------------------------------------------------------- sending


@pytest.fixture
def secure_pacs(site) -> Iterator[Callable[..., int]]:
    """Starts a pynetdicom PACS behind TLS with a certificate; returns its port."""
    started = []

    def start(issued: Issued) -> int:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(site.authority.path))
        context.load_cert_chain(issued.certificate, issued.key)
        context.verify_mode = ssl.CERT_REQUIRED
        entity = AE("PACS")
        entity.add_supported_context(VERIFICATION)
        port = free_port()
        started.append(
            entity.start_server((HOST, port), block=False, ssl_context=context, evt_handlers=[(evt.EVT_C_ECHO, _ok)])
        )
        return port

    yield start
    for server in started:
        server.shutdown()


def _ok(_event) -> int:
    return 0


def destination(port: int, site: Site, issued: Issued | None = None, host: str = HOST, **options) -> CStoreDestination:
    tls = client_tls(site.files(issued or site.theirs), **options)
    return CStoreDestination("pacs", host, port, "PACS", "DERMCDS", timeout=5.0, tls=tls)


def test_a_pacs_behind_tls(site, secure_pacs):
    made = destination(secure_pacs(site.ours), site)
    made.echo()
    made.close()


@pytest.mark.parametrize(
    ("issue", "reason"),
    [
        (lambda site: site.authority.issue("late", ends=-DAY / 2), "certificate has expired"),
        (lambda site: site.stranger.issue("strange"), "unable to get local issuer certificate"),
        (lambda site: site.authority.issue("elsewhere", host="192.0.2.1"), "IP address mismatch"),
    ],
    ids=["expired", "another authority", "another host"],
)
def test_a_pacs_with_a_bad_certificate_gets_nothing_and_the_reason_is_said(site, secure_pacs, issue, reason):
    made = destination(secure_pacs(issue(site)), site)
    with pytest.raises(DestinationUnavailable, match=f"by TLS: certificate not accepted: .*{reason}"):
        made.echo()


def test_the_name_is_not_checked_where_that_is_said(site, secure_pacs):
    made = destination(secure_pacs(site.authority.issue("elsewhere", host="192.0.2.1")), site, check_name=False)
    made.echo()
    made.close()


def test_a_plain_pacs_gets_nothing(site, dcmtk_receiver):
    with pytest.raises(DestinationUnavailable, match="by TLS"):
        destination(dcmtk_receiver.port, site).echo()


# --------------------------------------------------------------------------------------------------------------- dcmtk


def options(site: Site, issued: Issued) -> list[str]:
    return ["+tls", str(issued.key), str(issued.certificate), "+cf", str(site.authority.path)]


@pytest.mark.peers
@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"], ids=["non-downgrading", "BCP 195", "extended"])
@pytest.mark.parametrize("elliptic", [False, True], ids=["RSA", "ECDSA"])
def test_storescu_over_tls(site, tmp_path, profile, elliptic):
    site.ours = site.authority.issue("listener", elliptic=elliptic)
    theirs = site.authority.issue("dcmtk", elliptic=elliptic)
    listener = site.listen()
    file = tmp_path / "a.dcm"
    file.write_bytes(part10(dataset()))
    outcome = storescu(listener.port, [file], called="DERMCDS", options=[*options(site, theirs), profile])
    assert outcome.ok, outcome.output
    assert site.kept == [encoded(dataset())]


@pytest.mark.peers
def test_storescu_with_an_expired_certificate_is_refused(site, tmp_path):
    listener = site.listen()
    late = site.authority.issue("late", ends=-DAY / 2)
    file = tmp_path / "a.dcm"
    file.write_bytes(part10(dataset()))
    assert not storescu(listener.port, [file], called="DERMCDS", options=options(site, late)).ok
    assert not site.kept
    assert "expired" in site.refused[0].reason


@pytest.mark.peers
def test_plain_echoscu_is_refused(site):
    assert not echoscu(site.listen().port, called="DERMCDS").ok


@pytest.mark.peers
def test_delivery_to_storescp_over_tls(site):
    from tests.integration.dicom_listener.test_delivery import ARTIFACTS, WHAT

    with storescp(options=options(site, site.ours)) as receiver:
        made = CStoreDestination(
            "dcmtk", HOST, receiver.port, receiver.aet, "DERMCDS", tls=client_tls(site.files(site.theirs))
        )
        for artifact in ARTIFACTS.values():
            made.deliver(artifact, WHAT.analysis)
        made.close()
        stored = {str(dcmread(file).SOPInstanceUID): dcmread(file) for file in receiver.files()}
    assert stored == {artifact.uid: dcmread(BytesIO(artifact.data)) for artifact in ARTIFACTS.values()}
