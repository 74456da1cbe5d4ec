"""Signed tree heads: what the log said at a moment, in a form that can be kept outside the database.

The signed text is a C2SP tlog-checkpoint (origin, size, root in base64, then two extension lines: number and time); the
signature is Ed25519 (RFC 8032) as in a C2SP signed note, so that other transparency tools can check it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from audit.leaf import from_hex
from dermoscopy.errors import Misconfigured

ORIGIN = "dermoscopy-cds/audit"
"""Name of the log and of its key in the signed text; holds no space and no plus sign."""
PRIVATE_KEY = "audit-signing.key"
PUBLIC_KEY = "audit-{key_id}.pub"
CHECKPOINTS = "audit-checkpoints.jsonl"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Size and root of the tree at a time, signed. Hashes and signature in hexadecimal."""

    number: int
    tree_size: int
    root_hash: str
    at: str
    key_id: str
    signature: str

    def text(self) -> bytes:
        """The bytes that are signed."""
        return signed_text(self.number, self.tree_size, self.root_hash, self.at)

    def note(self) -> str:
        """The C2SP signed note: text, empty line, signature line."""
        signature = base64.b64encode(bytes.fromhex(self.key_id + self.signature)).decode()
        return f"{self.text().decode()}\n\u2014 {ORIGIN} {signature}\n"

    def signed_by(self, key: Ed25519PublicKey) -> bool:
        try:
            key.verify(from_hex(self.signature), self.text())
        except (InvalidSignature, ValueError):
            return False
        return True


def signed_text(number: int, tree_size: int, root_hash: str, at: str) -> bytes:
    """What a checkpoint's signature covers. Raises `ValueError` if ``root_hash`` is not hexadecimal."""
    root = base64.b64encode(from_hex(root_hash)).decode()
    return f"{ORIGIN}\n{tree_size}\n{root}\nnumber {number}\nat {at}\n".encode()


def key_id(key: Ed25519PublicKey) -> str:
    """C2SP signed-note key id: the first four bytes of SHA-256(name || LF || 0x01 || public key), hexadecimal."""
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(ORIGIN.encode() + b"\n\x01" + raw).hexdigest()[:8]


class Signer:
    """The private key that signs tree heads."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.key_id = key_id(key.public_key())

    @property
    def public_key(self) -> Ed25519PublicKey:
        return self._key.public_key()

    def sign(self, number: int, tree_size: int, root_hash: str, at: str) -> Checkpoint:
        signature = self._key.sign(signed_text(number, tree_size, root_hash, at)).hex()
        return Checkpoint(number, tree_size, root_hash, at, self.key_id, signature)


def open_signer(folder: Path) -> Signer:
    """The signing key in ``folder``, made on first use (mode 0600); its public key lies beside it.

    Safe when several processes start at once: the key is written aside and linked into place, the first one wins.
    """
    path = folder / PRIVATE_KEY
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write_once(path, pem, mode=0o600)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, OSError) as error:
        raise Misconfigured(f"{path} is not a readable private key: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise Misconfigured(f"{path} is not an Ed25519 private key")
    signer = Signer(key)
    public = folder / PUBLIC_KEY.format(key_id=signer.key_id)
    if not public.exists():
        pem = signer.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _write_once(public, pem, mode=0o644)
    return signer


def _write_once(path: Path, data: bytes, *, mode: int) -> None:
    """Make ``path`` whole or not at all; where it exists already, it stays as it is."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()


def public_keys(folder: Path) -> dict[str, Ed25519PublicKey]:
    """Every public key that ever signed this log, by key id (old keys stay there after a change of key)."""
    keys = {}
    for path in sorted(folder.glob(PUBLIC_KEY.format(key_id="*"))):
        key = load_pem_public_key(path.read_bytes())
        if not isinstance(key, Ed25519PublicKey):
            raise Misconfigured(f"{path} is not an Ed25519 public key")
        keys[key_id(key)] = key
    return keys


def write_checkpoints(path: Path, checkpoints: Iterable[Checkpoint]) -> None:
    """Add ``checkpoints`` to a file of JSON lines, durably. Keep that file where the database's owner cannot write."""
    with path.open("a", encoding="utf-8") as file:
        for checkpoint in checkpoints:
            file.write(json.dumps({**asdict(checkpoint), "note": checkpoint.note()}, sort_keys=True) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_checkpoints(path: Path) -> Iterator[Checkpoint]:
    """Checkpoints of a file of JSON lines. A line that a power cut left half written is passed over."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            try:
                yield checkpoint_from(json.loads(line))
            except (ValueError, KeyError, TypeError):
                continue


def checkpoint_from(row: Mapping[str, object]) -> Checkpoint:
    """A checkpoint from its row or its JSON object."""
    return Checkpoint(
        number=int(str(row["number"])),
        tree_size=int(str(row["tree_size"])),
        root_hash=str(row["root_hash"]),
        at=str(row["at"]),
        key_id=str(row["key_id"]),
        signature=str(row["signature"]),
    )
