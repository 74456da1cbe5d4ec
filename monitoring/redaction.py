"""Keeps patient data and credentials out of logs: by key, by pattern, and by what the same line gives away.

Three passes over every line, the traceback included. A value under a sensitive key is replaced. Its text is then
looked for in all other values of the line (an exception often repeats the identifier). Patterns catch the rest: DICOM
person names, dates of birth, medical record and accession numbers, e-mail, FHIR references to patients, JWTs, bearer
tokens, database errors that print their parameters, and lines of a DICOM dump.

Redaction is the last net, not the first: what is not logged cannot leak.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

REDACTED = "[redacted]"

SENSITIVE = (
    "patient", "birth", "dob", "mrn", "accession", "ssn", "socialsecurity", "address", "phone", "telecom", "email",
    "familyname", "givenname", "middlename", "fullname", "personname", "physician", "operatorsname", "token",
    "authorization", "jwt", "password", "passphrase", "secret", "credential", "cookie", "apikey", "privatekey",
    "assertion", "identifier",
)  # fmt: skip
"""A key is sensitive when it, in lower case and without punctuation, contains one of these."""
SENSITIVE_EXACT = frozenset({"name", "family", "given", "sex", "gender", "mothersmaidenname", "subject_name"})
PLAIN = frozenset({"timestamp", "level", "logger", "trace_id", "span_id", "instance_id", "analysis_id", "delivery_id"})
"""Keys whose values this service makes itself."""

_KEYWORD = (
    r"patient(?:['’]?s)?[ _-]?(?:identifier|id|name|birth[ _-]?date|sex|address|age)?|birth[ _-]?date|"
    r"date[ _-]of[ _-]birth|dob|"
    r"born|mrn|accession(?:[ _-]?(?:number|no))?|ssn|family|given|surname|phone|identifier|issuer|"
    r"(?:access|refresh|id|api|bearer)?[ _-]?token|authorization|api[ _-]?key|jwt|password|passwd|secret|"
    r"client_assertion"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # SQLAlchemy and PostgreSQL print the values of a failed statement
    (re.compile(r"\[parameters: .*", re.IGNORECASE), f"[parameters: {REDACTED}]"),
    (re.compile(r"(DETAIL:|Failing row contains|CONTEXT:)[^\n]*"), rf"\1 {REDACTED}"),
    (re.compile(r"(Key \([^)]*\)=)\(.*?\)"), rf"\1({REDACTED})"),
    # lines of a DICOM dump: patient group, accession, people, institution, visit
    (
        re.compile(
            r"\((?:0010,\s?[0-9a-f]{4}|0038,\s?[0-9a-f]{4}|0032,\s?[0-9a-f]{4}|0008,\s?(?:0050|0080|0081|009[0-9a-f]|10[4-7][0-9a-f]))\)"
            r"[^\n]*",
            re.IGNORECASE,
        ),
        f"(patient data) {REDACTED}",
    ),
    # credentials
    (re.compile(r"eyJ[\w-]{4,}\.[\w-]+(?:\.[\w-]*)?"), REDACTED),
    (re.compile(r"\b(Bearer|Basic|Digest)\s+[\w.~+/=-]+", re.IGNORECASE), rf"\1 {REDACTED}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*-----|\Z)", re.DOTALL), REDACTED),
    (re.compile(r"(\w+://[^/\s:@]*):[^/\s@]+@"), rf"\1:{REDACTED}@"),
    # people
    (re.compile(r"\bPatient/[\w.-]+"), f"Patient/{REDACTED}"),
    (re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), REDACTED),
    (re.compile(r"[\w.'’\- ]*[\w.]\^[\w.'’\-^= ]*|\^+[\w.'’\-]+[\w.'’\-^= ]*"), REDACTED),
    # key = value, "key": "value", key: value, query strings
    (
        re.compile(
            rf"(?<![A-Za-z])((?:{_KEYWORD})['\"]?\s*(?:=|:|%3D|\bis\b)\s*)"
            r"(\[redacted\]|'[^'\n]*'|\"[^\"\n]*\"|[^\s,;&)}\]'\"]+)",
            re.IGNORECASE,
        ),
        rf"\1{REDACTED}",
    ),
    # "patient 4711", "MRN 00-17", "accession A123": a word, then something with a digit
    (
        re.compile(rf"(?<![A-Za-z])((?:{_KEYWORD})[\s#:]+)(?=[\w/.-]*\d)[\w/.-]+", re.IGNORECASE),
        rf"\1{REDACTED}",
    ),
    # dates of a day (moments, which have a time, stay): ISO, DICOM DA, slashes, dots; US social security numbers
    (re.compile(r"(?<![\d.-])(?:18|19|20)\d\d-[01]\d-[0-3]\d(?![\d-]|[T ]\d\d:)"), REDACTED),
    (re.compile(r"(?<![\d.\w-])(?:18|19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d|\.\d|\w|-)"), REDACTED),
    (re.compile(r"(?<![\d./])[0-3]?\d([./])[0-3]?\d\1(?:18|19|20)?\d\d(?![\d/]|\.\d)"), REDACTED),
    (re.compile(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"), REDACTED),
)
_SHORTEST_KNOWN = 3
"""Shorter identifiers of a line are not looked for elsewhere: they would blot out ordinary words."""


def is_sensitive(key: str) -> bool:
    """Whether a value under ``key`` is patient data or a credential."""
    if key in PLAIN:
        return False
    plain = re.sub(r"[^a-z0-9]", "", key.lower())
    return plain in SENSITIVE_EXACT or any(word in plain for word in SENSITIVE)


def redact_text(text: str, known: frozenset[str] = frozenset()) -> str:
    """``text`` without anything that a pattern or a ``known`` identifier gives away."""
    for identifier in sorted(known, key=len, reverse=True):
        if identifier in text:
            text = re.sub(rf"(?<!\w){re.escape(identifier)}(?!\w)", REDACTED, text)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_event(event: MutableMapping[str, Any]) -> dict[str, Any]:
    """One log line without patient data; every value becomes plain JSON."""
    known = frozenset(_identifiers(event, sensitive=False))
    return {_key(key, known): _redact(key, value, known) for key, value in event.items()}


def processor(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> dict[str, Any]:
    """`redact_event` as a structlog processor; stands right before the renderer."""
    return redact_event(event)


def _key(key: object, known: frozenset[str]) -> str:
    text = str(key)
    return text if text in PLAIN or (text.isidentifier() and text not in known) else redact_text(text, known)


def _redact(key: str, value: Any, known: frozenset[str]) -> Any:
    if key in PLAIN and isinstance(value, str):
        return value
    if is_sensitive(str(key)) and value not in (None, "", b""):
        return REDACTED
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        text = repr(value)
        return REDACTED if isinstance(value, int) and redact_text(text, known) != text else value
    if isinstance(value, Mapping):
        return {_key(name, known): _redact(str(name), item, known) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_redact("", item, known) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    return redact_text(value if isinstance(value, str) else repr(value), known)


def _identifiers(value: Any, *, sensitive: bool) -> Iterator[str]:
    """Texts under sensitive keys, however deep."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _identifiers(item, sensitive=sensitive or is_sensitive(str(key)))
    elif isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _identifiers(item, sensitive=sensitive)
    elif sensitive and isinstance(value, (str, int)) and not isinstance(value, bool):
        text = str(value).strip()
        if len(text) >= _SHORTEST_KNOWN and text != REDACTED:
            yield text
            if "^" in text:
                yield from (part for part in re.split(r"[\^= ]+", text) if len(part) >= _SHORTEST_KNOWN)
