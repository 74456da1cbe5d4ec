"""Patient data and credentials given anywhere in a log call never reach the output."""

import io
import json
import logging
import string
import time

import pytest
import structlog
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from monitoring.logs import configure_logging
from monitoring.redaction import LONGEST, REDACTED, is_sensitive, redact_event, redact_text

quick = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

letters = st.text(string.ascii_letters + "äöüßéèñøåŁž", min_size=3, max_size=12)
identifiers = st.from_regex(r"\A[A-Z]{1,3}[0-9]{4,9}\Z")
person_names = st.builds("^".join, st.lists(letters, min_size=2, max_size=4))
days = st.dates().filter(lambda day: 1850 <= day.year <= 2099)
birth_dates = st.one_of(
    days.map(lambda day: day.strftime("%Y-%m-%d")),
    days.map(lambda day: day.strftime("%Y%m%d")),
    days.map(lambda day: day.strftime("%d.%m.%Y")),
    days.map(lambda day: day.strftime("%m/%d/%Y")),
)
tokens = st.from_regex(r"\AeyJ[A-Za-z0-9_-]{8,20}\.eyJ[A-Za-z0-9_-]{8,20}\.[A-Za-z0-9_-]{8,20}\Z")
mails = st.from_regex(r"\A[a-z]{3,8}\.[a-z]{3,8}@[a-z]{3,8}\.(com|org|de)\Z")
self_evident = st.one_of(person_names, birth_dates, tokens, mails)
"""Texts that patterns recognise wherever they stand."""
sensitive_keys = st.sampled_from(
    [
        "patient_id",
        "PatientID",
        "patient_name",
        "patientName",
        "birth_date",
        "mrn",
        "MRN",
        "accession",
        "accession_number",
        "token",
        "access_token",
        "authorization",
        "Authorization",
        "jwt",
        "password",
        "client_secret",
        "set-cookie",
        "family",
        "given",
        "patient_issuer",
        "subject_name",
        "referringPhysicianName",
        "fhirAuthorization",
        "api_key",
    ]
)
plain_words = st.sampled_from(["cannot read", "refused", "no such object", "time-out from", "wrong"])


@pytest.fixture
def output():
    """Logs as JSON into a buffer; what was configured before comes back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging(level="DEBUG", stream=stream)
    yield stream
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def written(stream):
    text = stream.getvalue()
    stream.seek(0)
    stream.truncate()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines
    return json.dumps(lines, ensure_ascii=False)


def assert_absent(secret, shown):
    for part in {secret, *secret.split("^")}:
        if len(part) >= 5:
            assert part not in shown


@quick
@given(secret=st.one_of(identifiers, self_evident), key=sensitive_keys)
def test_a_value_under_a_sensitive_key_is_hidden_everywhere_in_the_line(output, secret, key):
    log = structlog.get_logger("test")
    log.info(
        "x.happened", **{key: secret}, detail={"deep": [{key: secret}], "text": f"about {secret}"}, note=f"({secret})"
    )
    assert_absent(secret, written(output))


@quick
@given(secret=self_evident, word=plain_words)
def test_what_can_be_recognised_is_hidden_in_messages_fields_and_lists(output, secret, word):
    log = structlog.get_logger("test")
    log.warning(
        f"{word}: {secret}", reason=f"{word} {secret}.", several=[secret, ("a", secret)], deep={"x": {"y": secret}}
    )
    assert_absent(secret, written(output))


@quick
@given(secret=self_evident, word=plain_words)
def test_exceptions_and_their_tracebacks_are_redacted(output, secret, word):
    log = structlog.get_logger("test")
    try:
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise ValueError(f"{word}: {secret}") from error
    except ValueError as error:
        log.exception("work.broke", error=error)
        logging.getLogger("uvicorn.error").exception("broke on %s", secret)
    shown = written(output)
    assert "ValueError" in shown
    assert_absent(secret, shown)


@quick
@given(secret=identifiers, word=plain_words)
def test_an_identifier_of_the_context_is_hidden_in_exceptions_too(output, secret, word):
    with structlog.contextvars.bound_contextvars(patient_id=secret):
        try:
            raise ValueError(f"{word} {secret}")
        except ValueError:
            structlog.get_logger("test").exception("work.broke")
    assert_absent(secret, written(output))


@quick
@given(
    secret=identifiers,
    form=st.sampled_from(
        [
            "patient {}",
            "Patient ID: {}",
            "patient_id={}",
            "patient_id='{}'",
            '"mrn": "{}"',
            "MRN {}",
            "MRN#{}",
            "MRN: {}",
            "accession number {}",
            "AccessionNumber={}",
            "Patient/{}",
            "GET /cds?patient={}&x=1",
            "identifier={}",
            "?patient.identifier={}",
            "token={}",
            "Authorization: Bearer {}",
            "DOB: {}",
            "PatientIdentity(patient_id='{}')",
            "(0010,0020) LO [{}]",
            "(0010, 0020) Patient ID  LO: '{}'",
            "postgresql://cds:{}@host/db",
            "INSERT failed\n[parameters: ('a', '{}')]",
            "DETAIL:  Key (issuer, patient_id)=(ward, {}) already exists.",
        ]
    ),
)
def test_identifiers_are_hidden_by_what_stands_before_them(output, secret, form):
    structlog.get_logger("test").info("x.happened", text=form.format(secret))
    logging.getLogger("pynetdicom").error(form.replace("{}", "%s"), secret)
    assert_absent(secret, written(output))


@pytest.mark.parametrize(
    "name", ["uvicorn.error", "uvicorn.access", "dbos", "pynetdicom.assoc", "alembic", "sqlalchemy.x"]
)
def test_libraries_go_through_the_same_chain(output, name):
    logging.getLogger(name).warning("Doe^Jane from %s", "jane@example.org", extra={"patient_name": "Jane", "kept": 3})
    line = json.loads(output.getvalue())
    assert (line["logger"], line["level"], line["kept"]) == (name, "warning", 3)
    assert "Jane" not in output.getvalue()
    assert "jane" not in output.getvalue()


def test_a_failed_statement_does_not_print_its_parameters(output):
    engine, values = create_engine("sqlite://"), {"a": "XSECRETX", "b": "YSECRETY"}  # a traceback shows source lines
    try:
        with engine.connect() as connection:
            connection.execute(text("INSERT INTO missing VALUES (:a, :b)"), values)
    except DBAPIError:
        structlog.get_logger("test").exception("database.broke")
    assert "SECRET" not in written(output)


def test_warnings_and_console_are_redacted_as_well(output):
    stream = io.StringIO()
    configure_logging(level="INFO", format="console", stream=stream)
    try:
        raise ValueError("Doe^Jane 1970-02-03")
    except ValueError:
        structlog.get_logger("test").exception("work.broke", mrn="A4711")
    assert "work.broke" in stream.getvalue()
    assert not any(secret in stream.getvalue() for secret in ("Doe", "Jane", "1970-02-03", "A4711"))


def test_what_operators_need_stays(output):
    line = {
        "event": "instance.accepted",
        "instance_id": "6f0f3d3e-8c0e-5a43-9d0b-3f6c4c1f2a77",
        "analysis_id": "a-19700101",
        "study": "1.2.840.10008.19700101.5",
        "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "at": "2026-01-02T03:04:05.000006Z",
        "seconds": 1.25,
        "bytes": 786432,
        "held": False,
        "state": None,
        "destination": "pacs-1",
        "reason": "the peer refused: 0xA700 out of resources, again in 4.0 s",
        "error": "DestinationUnavailable",
        "address": "",
    }
    assert redact_event(line) == line
    assert not is_sensitive("instance_id")


def test_numbers_that_are_dates_or_identifiers_are_hidden():
    assert redact_event({"birth_date": 19700203})["birth_date"] == REDACTED
    assert redact_event({"value": 19700203})["value"] == REDACTED
    assert redact_event({"value": 12345})["value"] == 12345


def test_bytes_are_never_shown():
    assert redact_event({"data": b"Doe^Jane"}) == {"data": "<8 bytes>"}


@pytest.mark.parametrize(
    "unit",
    ["a", "a ", "1", "w-w.x ", "^", "a^", "patient ", "(0010,", "eyJ", "eyJa-", "Key (", "://", "x://a", "@a.", "a@a.",
     "-----BEGIN PRIVATE KEY-----", "bearer ", "patient=", "token: ", "2000-01-", "1/1/", "1.1", "[parameters: ", "é"],
)  # fmt: skip
@pytest.mark.parametrize("end", ["", "@", "=", " ^"])
def test_a_sender_cannot_make_redaction_slow(unit, end):
    text = (unit * LONGEST)[:LONGEST] + end
    spent = []
    for _ in range(3):
        began = time.process_time()
        redact_text(text)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.25


def test_a_long_text_loses_its_middle_and_no_half_of_a_secret_stays():
    shown = redact_text("x " * LONGEST + "eyJhbGciOiJSUzM4NCJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl " * 800)
    assert len(shown) < LONGEST + 100
    assert "characters left out" in shown
    assert not {"eyJ", "c2lnbmF0dXJl"} & set(shown.replace(".", " ").split())


@quick
@given(st.text(max_size=200))
def test_redaction_takes_any_text_and_settles(anything):
    once = redact_text(anything)
    assume(REDACTED not in anything)
    assert redact_text(once) == redact_text(redact_text(once))
