"""TLS files: what is wrong with them is said before anything is started, and a change is taken without a restart."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from dermoscopy.errors import Misconfigured
from dicom_listener import tls
from dicom_listener.tls import CIPHERS, TlsFiles, client_tls, server_tls
from tests.unit.dicom_listener.certificates import DAY, Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def files(authority: Authority, **issue) -> TlsFiles:
    ours = authority.issue("ours", **issue)
    return TlsFiles(ours.certificate, ours.key, authority.path, password=issue.get("password", b"").decode())


def test_the_profile(authority):
    context = server_tls(files(authority)).current()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    offered = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
    assert sorted(offered) == sorted(CIPHERS.split(":"))
    assert all("ECDHE" in name and "GCM" in name for name in offered)


def test_without_mutual_nobody_needs_a_certificate(authority):
    ours = files(authority)
    alone = TlsFiles(ours.certificate, ours.key)
    assert server_tls(alone, mutual=False).current().verify_mode == ssl.CERT_NONE
    with pytest.raises(Misconfigured, match="dicom_tls_ca is not set"):
        server_tls(alone)


def test_a_key_without_certificate(authority):
    with pytest.raises(Misconfigured, match="dicom_tls_certificate is not"):
        server_tls(TlsFiles(key=files(authority).key))


def test_key_and_certificate_in_one_file(authority):
    ours = files(authority)
    ours.certificate.write_bytes(ours.certificate.read_bytes() + ours.key.read_bytes())
    server_tls(TlsFiles(ours.certificate, None, authority.path))


def test_an_encrypted_key(authority):
    ours = files(authority, password=b"swordfish-swordfish")
    server_tls(ours)
    with pytest.raises(Misconfigured, match="is encrypted: set dicom_tls_key_password"):
        server_tls(TlsFiles(ours.certificate, ours.key, authority.path))
    with pytest.raises(Misconfigured, match="dicom_tls_key_password is wrong") as caught:
        server_tls(TlsFiles(ours.certificate, ours.key, authority.path, password="another-password"))
    assert "another-password" not in str(caught.value)


@pytest.mark.parametrize(
    ("issue", "said"),
    [({"ends": -DAY / 2}, "expired on"), ({"begins": DAY}, "valid only from")],
)
def test_a_certificate_at_the_wrong_time(authority, issue, said):
    with pytest.raises(Misconfigured, match=said) as caught:
        server_tls(files(authority, **issue))
    assert "ours.pem" in str(caught.value)


def test_a_key_of_another_certificate(authority):
    ours, other = files(authority), authority.issue("other")
    with pytest.raises(Misconfigured, match="does not belong to the certificate"):
        server_tls(TlsFiles(ours.certificate, other.key, authority.path))


def test_files_that_are_absent_or_something_else(authority, tmp_path):
    ours = files(authority)
    with pytest.raises(Misconfigured, match=r"dicom_tls_certificate: .*absent\.pem cannot be read"):
        server_tls(TlsFiles(tmp_path / "absent.pem", ours.key, authority.path))
    noise = tmp_path / "noise.pem"
    noise.write_text("hello")
    with pytest.raises(Misconfigured, match="holds no certificate"):
        server_tls(TlsFiles(noise, ours.key, authority.path))
    with pytest.raises(Misconfigured, match="holds no readable private key"):
        server_tls(TlsFiles(ours.certificate, noise, authority.path))
    with pytest.raises(Misconfigured, match=r"dicom_tls_ca: .*holds no certificate"):
        server_tls(TlsFiles(ours.certificate, ours.key, noise))


def test_authorities_that_have_all_expired(authority, tmp_path):
    ours, old = files(authority), authority.issue("old", ends=-DAY / 2)
    with pytest.raises(Misconfigured, match="dicom_tls_ca: every certificate"):
        server_tls(TlsFiles(ours.certificate, ours.key, old.certificate))


def test_a_certificate_that_ends_soon_is_announced(authority, monkeypatch):
    said = []
    monkeypatch.setattr(tls.log, "warning", lambda event, **values: said.append((event, values["days"])))
    server_tls(files(authority, ends=9.5 * DAY))
    assert said == [("tls.certificate_expires_soon", 9)]


def test_changed_files_are_taken_and_broken_ones_are_not(authority):
    reloaded = server_tls(files(authority))
    first = reloaded.current()
    assert reloaded.current() is first
    renewed = authority.issue("ours")
    second = reloaded.current()
    assert second is not first
    renewed.certificate.write_text("half a file")
    assert reloaded.current() is second
    renewed.certificate.unlink()
    assert reloaded.current() is second
    authority.issue("ours")
    assert reloaded.current() is not second


def test_a_sender_checks_the_name_unless_told_not_to(authority):
    assert client_tls(TlsFiles(authorities=authority.path)).current().check_hostname
    lax = client_tls(TlsFiles(authorities=authority.path), check_name=False).current()
    assert not lax.check_hostname
    assert lax.verify_mode == ssl.CERT_REQUIRED
