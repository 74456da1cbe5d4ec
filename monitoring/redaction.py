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
from functools import lru_cache
from typing import Any

REDACTED = "[redacted]"

SENSITIVE = (
    "patient", "birth", "dob", "mrn", "accession", "ssn", "socialsecurity", "address", "phone", "telecom", "email",
    "familyname", "givenname", "middlename", "fullname", "personname", "physician", "operatorsname", "token",
    "authorization", "jwt", "password", "passphrase", "secret", "credential", "cookie", "apikey", "privatekey",
    "assertion", "identifier",
)  # fmt: skip
"""A key is sensitive when it, in lower case and without punctuation, contains one of these."""
SENSITIVE_EXACT = frozenset({"name", "family", "given", "sex", "gender", "mothersmaidenname", "subjectname"})
PLAIN = frozenset({"timestamp", "level", "logger", "trace_id", "span_id", "instance_id", "analysis_id", "delivery_id"})
"""Keys whose values this service makes itself."""

_KEYWORD = (
    r"patient(?:['’]?s)?[ _-]?(?:identifier|id|name|birth[ _-]?date|sex|address|age)?|birth[ _-]?date|"
    r"date[ _-]of[ _-]birth|dob|born|mrn|accession(?:[ _-]?(?:number|no))?|ssn|family|given|surname|"
    r"phone|identifier|issuer|"
    r"(?:access|refresh|id|api|bearer)?[ _-]?token|authorization|api[ _-]?key|jwt|password|passwd|"
    r"secret|client_assertion"
)
_KEYWORD_NEEDLES = (
    "patient", "birth", "dob", "born", "mrn", "accession", "ssn", "family", "given", "surname", "phone", "identifier",
    "issuer", "token", "authorization", "key", "jwt", "passw", "secret", "assertion",
)  # fmt: skip
_DICOM_ELEMENTS = (
    r"0010,\s?[0-9a-f]{4}|0038,\s?[0-9a-f]{4}|0032,\s?[0-9a-f]{4}|"
    r"0008,\s?(?:0050|0080|0081|009[0-9a-f]|10[4-7][0-9a-f])"
)


def _pattern(text: str, replacement: str, *needles: str) -> tuple[tuple[str, ...], re.Pattern[str], str]:
    return needles, re.compile(text, re.IGNORECASE), replacement


_PATTERNS = (
    # SQLAlchemy and PostgreSQL print the values of a failed statement
    _pattern(r"\[parameters: [^\n]*", f"[parameters: {REDACTED}]", "[parameters"),
    _pattern(r"(DETAIL:|Failing row contains|CONTEXT:)[^\n]*", rf"\1 {REDACTED}", "detail:", "failing row", "context:"),
    _pattern(r"(Key \([^)\n]{0,200}\)=)\([^)\n]{0,2000}\)?", rf"\1({REDACTED})", "key ("),
    # lines of a DICOM dump: patient group, accession, people, institution, visit
    _pattern(rf"\((?:{_DICOM_ELEMENTS})\)[^\n]*", f"(patient data) {REDACTED}", "(0010,", "(0038,", "(0032,", "(0008,"),
    # credentials
    _pattern(r"(?:(?<![\w-])|(?<=%3D)|(?<=%20))eyJ[\w-]{4,}\.[\w-]+(?:\.[\w-]*)?", REDACTED, "eyj"),
    _pattern(r"\b(Bearer|Basic|Digest)\s+[\w.~+/=-]+", rf"\1 {REDACTED}", "bearer", "basic", "digest"),
    _pattern(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-----END [A-Z ]*-----)?", REDACTED, "private key"),
    _pattern(r"(?<=://)([^/\s:@]{0,256}):[^/\s@]{1,256}@", rf"\1:{REDACTED}@", "://"),
    # people
    _pattern(r"\bPatient/[\w.-]+", f"Patient/{REDACTED}", "patient/"),
    _pattern(r"(?<![\w.+-])[\w.+-]{1,128}@[\w-]{1,64}(?:\.[\w-]{1,64})+", REDACTED, "@"),
    # key = value, "key": "value", key: value, query strings
    _pattern(
        rf"(?<![A-Za-z])((?:{_KEYWORD})['\"]?\s{{0,8}}(?:=|:|%3D|\bis\b)\s{{0,8}})"
        r"(\[redacted\]|'[^'\n]*'|\"[^\"\n]*\"|[^\s,;&)}\]'\"]+)",
        rf"\1{REDACTED}",
        *_KEYWORD_NEEDLES,
    ),
    # "patient 4711", "MRN 00-17", "accession A123": a word, then something with a digit
    _pattern(
        rf"(?<![A-Za-z])((?:{_KEYWORD})[\s#:]{{1,8}})(?=[\w/.-]{{0,64}}\d)[\w/.-]+", rf"\1{REDACTED}", *_KEYWORD_NEEDLES
    ),
    # dates of a day (moments, which have a time, stay): ISO, DICOM DA, slashes, dots; US social security numbers
    _pattern(r"(?<![\d.-])(?:18|19|20)\d\d-[01]\d-[0-3]\d(?![\d-]|[T ]\d\d:)", REDACTED, "-"),
    _pattern(
        r"(?<![\d.\w-])(?:18|19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d|\.\d|\w|-)",
        REDACTED,
        "0",
        "1",
        "2",
    ),
    _pattern(r"(?<![\d./])[0-3]?\d([./])[0-3]?\d\1(?:18|19|20)?\d\d(?![\d/]|\.\d)", REDACTED, "/", "."),
    _pattern(r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])", REDACTED, "-"),
)
"""What must occur in the text (lower case) for the pattern to be tried; the pattern; what takes its place.

Every pattern is about linear in the length of the text: a sender chooses what an error message says."""
_NAME_RUN = re.compile(r"[\w.'’\-^= ]+")
_CARET_AT_WORD = re.compile(r"[\w.]\^|\^[\w.]")
_SHORTEST_KNOWN = 3
"""Shorter identifiers of a line are not looked for elsewhere: they would blot out ordinary words."""
LONGEST = 16_000
"""Longer texts lose their middle: a log is no place for documents."""


@lru_cache(maxsize=4096)
def is_sensitive(key: str) -> bool:
    """Whether a value under ``key`` is patient data or a credential."""
    if key in PLAIN:
        return False
    plain = re.sub(r"[^a-z0-9]", "", key.lower())
    return plain in SENSITIVE_EXACT or any(word in plain for word in SENSITIVE)


def redact_text(text: str, known: frozenset[str] = frozenset()) -> str:
    """``text`` without anything that a pattern or a ``known`` identifier gives away."""
    if len(text) > LONGEST:
        text = _shortened(text)
    for identifier in sorted(known, key=len, reverse=True):
        if identifier in text:
            text = re.sub(rf"(?<!\w){re.escape(identifier)}(?!\w)", REDACTED, text)
    lower = text.lower()
    for needles, pattern, replacement in _PATTERNS:
        if any(needle in lower for needle in needles):
            text = pattern.sub(replacement, text)
    return _NAME_RUN.sub(_person, text) if "^" in text else text


def _person(run: re.Match[str]) -> str:
    """A DICOM person name (PS3.5 §6.2, VR PN) with the words beside it: where a name begins cannot be known."""
    text = run.group()
    if not _CARET_AT_WORD.search(text):
        return text
    begin, end = len(text) - len(text.lstrip()), len(text.rstrip())
    return f"{text[:begin]}{REDACTED}{text[end:]}"


def _shortened(text: str) -> str:
    """Beginning and end of a long text, cut between words so that no half of a secret escapes its pattern."""
    half = LONGEST // 2
    head, _, _ = text[:half].rpartition(" ")
    _, _, tail = text[-half:].partition(" ")
    return f"{head} … {len(text) - len(head) - len(tail)} characters left out … {tail}"


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
        return REDACTED if isinstance(value, int) and redact_text(str(value), known) != str(value) else value
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
