"""Every line is one JSON object that says when, where, and in which trace."""

import io
import json
import logging
import sys
import threading

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from monitoring.logs import configure_logging


@pytest.fixture
def stream():
    root = logging.getLogger()
    before = root.handlers[:], root.level, sys.excepthook, threading.excepthook
    stream = io.StringIO()
    configure_logging(stream=stream)
    yield stream
    root.handlers[:], root.level, sys.excepthook, threading.excepthook = before
    structlog.reset_defaults()


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_says_when_where_and_in_which_trace(stream):
    with TracerProvider().get_tracer("test").start_as_current_span("work") as span:
        structlog.get_logger("room.file").info("x.happened", count=3)
        logging.getLogger("uvicorn").warning("library")
    context = span.get_span_context()
    ours, theirs = lines(stream)
    assert ours["timestamp"].endswith("Z")
    assert (ours["event"], ours["logger"], ours["level"], ours["count"]) == ("x.happened", "room.file", "info", 3)
    assert ours["trace_id"] == theirs["trace_id"] == f"{context.trace_id:032x}"
    assert ours["span_id"] == f"{context.span_id:016x}"


def test_levels_are_kept(stream):
    structlog.get_logger("x").debug("hidden")
    logging.getLogger("uvicorn").debug("hidden")
    logging.getLogger("pynetdicom.dsutils").info("(0010,0010) PN [Doe^Jane]")
    logging.getLogger("highdicom.base").info("copy Patient-related attributes from dataset")
    assert lines(stream) == []


def test_what_pydicom_quotes_is_not_said_even_where_it_is_imported_later(stream):
    logging.getLogger("pydicom").setLevel(logging.WARNING)  # as its import does
    logging.getLogger("pydicom").warning("Invalid value for VR PN: 'Doe^Jane'")
    assert lines(stream) == []


def test_a_second_configuration_does_not_double_the_lines(stream):
    configure_logging(stream=stream)
    structlog.get_logger("x").info("once")
    logging.getLogger("dbos").warning("once")
    assert len(lines(stream)) == 2


def test_uncaught_errors_come_out_as_lines_too(stream):
    def work():
        raise ValueError("Doe^Jane")

    thread = threading.Thread(target=work, name="worker-7")
    thread.start()
    thread.join()
    try:
        work()
    except ValueError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    first, second = lines(stream)
    assert (first["event"], first["thread"], first["level"]) == ("thread.broke", "worker-7", "critical")
    assert second["event"] == "process.broke"
    assert "Jane" not in stream.getvalue()
