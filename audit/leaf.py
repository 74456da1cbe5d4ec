"""What one leaf says, as the bytes that are hashed: canonical JSON of all content columns, the id included.

Canonical means: ASCII, keys sorted, no spaces, floats as Python's shortest repr. Whoever holds a row can make the same
bytes with ``json.dumps(row, sort_keys=True, separators=(",", ":"))`` and check the hash without this program.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from audit import merkle

CONTENT = (
    "id",
    "at",
    "action",
    "actor",
    "outcome",
    "subject_type",
    "subject_id",
    "patient_issuer",
    "patient_id",
    "details",
    "trace_id",
)
"""Columns of ``audit_leaf`` that are under the hash."""


def canonical(value: object) -> str:
    """Canonical JSON text; raises `ValueError` on NaN and infinities, which JSON lacks (see `finite`)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def finite(value: Any) -> Any:
    """``value`` with every float that JSON cannot say replaced by its name, mappings as dicts, sequences as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def storable(text: str) -> str:
    """``text`` as every database can hold it: NUL and lone surrogates (broken senders) become U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def leaf_bytes(row: Mapping[str, Any]) -> bytes:
    """The bytes under the leaf hash, from a row as the database gives it."""
    return canonical({name: row[name] for name in CONTENT}).encode("ascii")


def leaf_hash(row: Mapping[str, Any]) -> str:
    """RFC 6962 leaf hash of a row, hexadecimal."""
    return merkle.leaf_hash(leaf_bytes(row)).hex()


def from_hex(text: str) -> bytes:
    """Bytes of a stored hash or signature. Raises `ValueError` for any other spelling of them (capitals, blanks)."""
    value = bytes.fromhex(text)
    if value.hex() != text:
        raise ValueError("hexadecimal that is not written as this log writes it")
    return value
