"""Whether what an object says of itself can be believed as an identifier: UIDs are UIDs, names of patients are text.

Results are filed, compared and addressed by these values. A UID that is a path or three kilobytes of digits would go
on into every result; a Patient ID whose characters were lost in decoding looks like that of any other patient whose
characters were lost.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from dermoscopy.errors import UnreadableObject

MAX_TEXT: Final = 256
"""Characters of an identifier; Patient ID and its issuer may have 64 (PS3.5 6.2, VR LO), a universal entity more."""

_UID: Final = re.compile(r"[0-9.]{1,64}")
"""Characters and length of PS3.5 9.1. Leading zeros are let through: devices write them, and they do no harm."""
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_NOT_TEXT: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
"""Unicode categories of what nobody can read: controls, direction marks, surrogates, private and unassigned ones."""


def plain(text: str) -> str:
    """``text`` without the designator of ISO-IR 58 (PS3.5 K.2): pydicom 3.0 leaves it to Python, which leaves it in."""
    return text.replace("\x1b$)A", "") if "\x1b" in text else text


def check_uids(**uids: str) -> None:
    """Raises `UnreadableObject`, naming the attribute, where a value is no UID (PS3.5 9.1). Never shows the value."""
    for attribute, uid in uids.items():
        if not _UID.fullmatch(uid):
            raise UnreadableObject(
                f"{attribute} is not a UID (digits and dots, at most 64 characters): results could not refer to it."
            )


def trusted(text: str) -> bool:
    """Whether ``text`` is what the sender meant: readable characters, none lost in decoding, of sensible length."""
    if text.isascii() and text.isprintable():
        return len(text) <= MAX_TEXT
    if len(text) > MAX_TEXT or _REPLACEMENT in text:
        return False
    return not any(unicodedata.category(character) in _NOT_TEXT for character in text)


def trusted_or_empty(text: str) -> str:
    """``text``, or nothing where it cannot be trusted: an absent value is said to be absent, a wrong one misleads."""
    return text if trusted(text) else ""
