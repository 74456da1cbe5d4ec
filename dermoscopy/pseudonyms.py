"""Names and dates that stand in the place of real ones in what leaves the house, derived with a secret key.

HMAC-SHA-256 (RFC 2104): the same key gives the same pseudonym, shift and UID in every export, so that studies, and
later exports of a project, stay together; without the key nothing can be recomputed or compared, not even by somebody
who knows every patient of the hospital. A project has a key of its own, so that two projects cannot be joined.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import stat
import uuid
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from dermoscopy.domain import PatientIdentity
from dermoscopy.errors import Misconfigured

KEY_BYTES = 32
MOST_DAYS = 3650
"""Dates are moved back by one day to ten years; the same for everything of one patient."""
_PROJECT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """What one project calls patients, images, lesions and UIDs."""

    key: bytes = field(repr=False)

    @property
    def key_id(self) -> str:
        """Tells keys apart without giving anything away: 16 hex digits."""
        return self._digest("key").hex()[:16]

    def patient(self, patient: PatientIdentity, *, instance_id: str) -> str:
        """Pseudonym of a patient; an image of nobody known gets one of its own, by ``instance_id``."""
        return "P" + self._word(*self._patient("patient", patient, instance_id))

    def days(self, patient: PatientIdentity, *, instance_id: str) -> int:
        """By how many days every date of this patient is moved back: 1 … `MOST_DAYS`."""
        digest = self._digest(*self._patient("days", patient, instance_id))
        return 1 + int.from_bytes(digest[:8], "big") % MOST_DAYS

    def image(self, instance_id: str) -> str:
        return "I" + self._word("image", instance_id)

    def lesion(self, *parts: str) -> str:
        """Pseudonym of the lesion that ``parts`` stand for."""
        return "L" + self._word("lesion", *parts)

    def uid(self, uid: str) -> str:
        """What takes the place of ``uid``: under the UUID arc ``2.25`` (PS3.5 B.2), UUID version 8 (RFC 9562)."""
        return f"2.25.{_uuid8(self._digest('uid', uid)[:16]).int}"

    def _word(self, *parts: str) -> str:
        return base64.b32encode(self._digest(*parts)[:10]).decode()

    def _digest(self, *parts: str) -> bytes:
        message = b"".join(len(data := part.encode()).to_bytes(4, "big") + data for part in parts)
        return hmac.new(self.key, message, sha256).digest()

    @staticmethod
    def _patient(kind: str, patient: PatientIdentity, instance_id: str) -> tuple[str, ...]:
        if patient.known:
            return (kind, "known", patient.issuer, patient.patient_id)
        return (kind, "unknown", instance_id)


def _uuid8(data: bytes) -> uuid.UUID:
    number = int.from_bytes(data, "big")
    number = number & ~(0xF << 76) | (8 << 76)
    return uuid.UUID(int=number & ~(0x3 << 62) | (0x2 << 62))


def open_pseudonyms(folder: Path, project: str) -> Pseudonyms:
    """Pseudonyms by the key of ``project`` in ``folder``, which is made on first use (mode 0600).

    Raises `Misconfigured`: the name is none, the key is not one, or others may read it.
    """
    if not _PROJECT.fullmatch(project):
        raise Misconfigured(f"{project!r} is no project name: use small letters, digits, - and _ (64 at most)")
    path = folder / f"{project}.key"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(os.urandom(KEY_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)  # of two commands that start at once, the first one's key stands
        except FileExistsError:
            pass
        finally:
            aside.unlink()
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise Misconfigured(f"others may read {path}: take that right away (chmod 600), or use another project")
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{path} cannot be read as a key: restore it, or use another project") from error
    if len(key) != KEY_BYTES:
        raise Misconfigured(f"{path} is no key of {KEY_BYTES} bytes: restore it, or use another project")
    return Pseudonyms(key)
