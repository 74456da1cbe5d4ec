"""TLS for listener and sender after the BCP 195 profile (PS3.15 B.12; RFC 8996, RFC 9325), with files that may change.

TLS 1.2 with forward secrecy and authenticated encryption only, TLS 1.3 where the peer has it. Each new connection asks
for the present context; when one of the files has changed meanwhile it is read again, so that a renewed certificate
needs no restart. New files that do not fit together change nothing: the last good ones stay in use, and it is logged.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from dermoscopy.errors import Misconfigured
from dicom_listener.connection import TlsConnection

log = structlog.get_logger(__name__)

CIPHERS: Final = ":".join(
    f"ECDHE-{signature}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384")
    for signature in ("ECDSA", "RSA")
)
"""The TLS 1.2 cipher suites that RFC 9325 4.2 recommends; those of TLS 1.3 are all good and stay OpenSSL's own."""

EXPIRY_WARNING_DAYS: Final = 30

Context = TypeVar("Context", bound=ssl.SSLContext)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. ``key`` may be left out where the certificate's file holds it. ``authorities`` sign our peers."""

    certificate: Path | None = None
    key: Path | None = None
    authorities: Path | None = None
    password: str = ""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files that are named."""
        return tuple(path for path in (self.certificate, self.key, self.authorities) if path is not None)


class OutgoingConnection(ssl.SSLSocket):
    """A connection to a PACS that remembers why its handshake failed: pynetdicom keeps that to itself."""

    def do_handshake(self, block: bool = False) -> None:
        """As `ssl.SSLSocket.do_handshake`."""
        context = self.context
        try:
            super().do_handshake(block)
        except OSError as error:
            if isinstance(context, ClientContext):
                context.failure = reason_of(error)
            raise


class ClientContext(ssl.SSLContext):
    """Context for connections to one PACS; ``failure`` is why the last handshake failed, or empty."""

    failure: str = ""


class ReloadedContext(Generic[Context]):
    """A context made from files, made again when they change; safe to ask from many threads."""

    def __init__(self, files: TlsFiles, build: Callable[[TlsFiles], Context]) -> None:
        """Raises `Misconfigured` when the files are wrong."""
        self._files, self._build = files, build
        self._lock = threading.Lock()
        self._seen = _state(files)
        self._context = build(files)

    def current(self) -> Context:
        """The context of the newest good files; a look at their times costs microseconds."""
        state = _state(self._files)
        with self._lock:
            if state != self._seen:
                self._seen = state
                try:
                    self._context = self._build(self._files)
                    log.info("tls.reloaded", files=[path.name for path in self._files.paths])
                except Misconfigured as error:
                    log.error("tls.not_reloaded", reason=str(error))
            return self._context


def server_tls(files: TlsFiles, *, mutual: bool = True) -> ReloadedContext[ssl.SSLContext]:
    """TLS of the listener. With ``mutual`` each sender must show a certificate that ``files.authorities`` signed.

    Raises `Misconfigured`, naming the setting and the file, when something is absent, expired or does not fit.
    """
    if files.certificate is None:
        raise Misconfigured(
            "dicom_tls_key or dicom_tls_ca is set, but dicom_tls_certificate is not: name our certificate"
        )
    if mutual and files.authorities is None:
        raise Misconfigured(
            "dicom_tls_mutual asks senders for a certificate, but dicom_tls_ca is not set: name the authorities that "
            "sign them, or set dicom_tls_mutual to false"
        )

    def build(present: TlsFiles) -> ssl.SSLContext:
        context = _hardened(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), present)
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
        context.num_tickets = 0  # every connection shows its certificate anew
        context.sslsocket_class = TlsConnection
        context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
        return context

    return ReloadedContext(files, build)


def client_tls(files: TlsFiles, *, check_name: bool = True) -> ReloadedContext[ClientContext]:
    """TLS of a sender. ``files.authorities`` sign the PACS (else the system's list does); our certificate is optional.

    ``check_name``: the certificate must be issued for the host (or address) that we connect to. Raises `Misconfigured`.
    """

    def build(present: TlsFiles) -> ClientContext:
        context = _hardened(ClientContext(ssl.PROTOCOL_TLS_CLIENT), present)
        context.check_hostname = check_name
        context.sslsocket_class = OutgoingConnection
        if present.authorities is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context

    return ReloadedContext(files, build)


def reason_of(error: OSError) -> str:
    """Why a handshake failed, in OpenSSL's words; holds nothing of the peer but what is wrong with its certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or type(error).__name__).replace("_", " ").lower()
    return "no answer in time" if isinstance(error, TimeoutError) else "connection closed"


def _hardened(context: Context, files: TlsFiles) -> Context:
    check_files(files)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    try:
        if files.certificate is not None:
            context.load_cert_chain(files.certificate, files.key, files.password or None)
        if files.authorities is not None:
            context.load_verify_locations(files.authorities)
    except (ssl.SSLError, OSError) as error:  # what OpenSSL finds too weak, or a file that changed just now
        raise Misconfigured(
            f"the TLS files cannot be used: {getattr(error, 'reason', None) or error.strerror}"
        ) from error
    return context


def check_files(files: TlsFiles, now: datetime | None = None) -> None:
    """Raises `Misconfigured` with the setting, the file and what to do, for whatever would fail later."""
    now = now or datetime.now(UTC)
    if files.certificate is not None:
        leaf = _certificates("dicom_tls_certificate", files.certificate)[0]
        _check_validity(leaf, files.certificate, now)
        _check_key(leaf, files)
    if files.authorities is not None:
        authorities = _certificates("dicom_tls_ca", files.authorities)
        if all(authority.not_valid_after_utc < now for authority in authorities):
            raise Misconfigured(f"dicom_tls_ca: every certificate in {files.authorities} has expired: renew them")


def _check_validity(leaf: x509.Certificate, path: Path, now: datetime) -> None:
    if leaf.not_valid_after_utc < now:
        raise Misconfigured(
            f"dicom_tls_certificate: {path} expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew it"
        )
    if leaf.not_valid_before_utc > now:
        raise Misconfigured(
            f"dicom_tls_certificate: {path} is valid only from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: check "
            "the clock of this machine, or wait"
        )
    days = (leaf.not_valid_after_utc - now).days
    if days < EXPIRY_WARNING_DAYS:
        log.warning("tls.certificate_expires_soon", file=path.name, days=days)


def _check_key(leaf: x509.Certificate, files: TlsFiles) -> None:
    path = files.key or files.certificate
    assert path is not None
    try:
        key: Any = serialization.load_pem_private_key(
            _read("dicom_tls_key", path), files.password.encode() if files.password else None
        )
    except TypeError as error:  # how cryptography says that a password is missing, or one too many
        what = (
            "is not encrypted: leave dicom_tls_key_password empty"
            if files.password
            else "is encrypted: set dicom_tls_key_password"
        )
        raise Misconfigured(f"dicom_tls_key: the private key in {path} {what}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        hint = "or dicom_tls_key_password is wrong" if files.password else "or dicom_tls_key is not set"
        raise Misconfigured(f"dicom_tls_key: {path} holds no readable private key in PEM format, {hint}") from error
    if _public_bytes(key.public_key()) != _public_bytes(leaf.public_key()):
        raise Misconfigured(
            f"dicom_tls_key: the private key in {path} does not belong to the certificate in {files.certificate}"
        )


def _certificates(setting: str, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(_read(setting, path))
    except ValueError as error:
        raise Misconfigured(f"{setting}: {path} holds no certificate in PEM format") from error


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"{setting}: {path} cannot be read ({error.strerror})") from error


def _public_bytes(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _state(files: TlsFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """What changes when a file is written, replaced, or its link points elsewhere."""
    found: list[tuple[int, int, int] | None] = []
    for path in files.paths:
        try:
            status = path.stat()
        except OSError:
            found.append(None)
        else:
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
