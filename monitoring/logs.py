"""Logging: structlog and the standard library's loggers through one chain, redacted, one JSON object per line.

Fields of every line: ``timestamp`` (UTC), ``level``, ``logger``, ``event``, ``trace_id`` and ``span_id`` where a trace
is open, and whatever the caller adds. `monitoring.redaction` says what never comes out.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog
from opentelemetry import trace

from monitoring import redaction

_LIBRARIES = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.access",
    "dbos",
    "pynetdicom",
    "alembic",
    "sqlalchemy",
    "py.warnings",
)
_AT_LEAST = {
    "pynetdicom": logging.WARNING,  # below that it dumps datasets
    # A traceback with the peer's bytes for each thing that a peer does wrong: the listener says it in one line.
    **{
        f"pynetdicom.{part}": logging.CRITICAL
        for part in ("acse", "association", "dimse", "dul", "fsm", "pdu", "transport", "utils")
    },
    "sqlalchemy": logging.WARNING,  # below that it prints parameters
    "httpx": logging.WARNING,  # below that it prints URLs
    "httpcore": logging.WARNING,
    "urllib3": logging.WARNING,  # as httpx
    "dicomweb_client": logging.WARNING,
    "highdicom": logging.WARNING,  # below that it tells of every module that it copies
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
}


def configure_logging(
    *, level: str = "INFO", format: Literal["json", "console"] = "json", stream: TextIO | None = None
) -> None:
    """Send all logs of this process through redaction to ``stream`` (default: standard error). May be called again."""
    enrich: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
    ]
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False)
    if format == "console":
        renderer = structlog.dev.ConsoleRenderer(
            colors=(stream or sys.stderr).isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*enrich, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                _drop_noise,
                redaction.processor,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers[:] = [logging.NullHandler()]  # DBOS adds a handler of its own to a logger that has none
        logger.propagate = True
    for name, lowest in _AT_LEAST.items():
        logging.getLogger(name).setLevel(max(lowest, logging.getLevelNamesMapping()[level]))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *enrich,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    # Its warnings quote values of datasets; a level would not do, since importing it sets one of its own.
    logging.getLogger("pydicom").disabled = True
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def _add_trace(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = f"{context.trace_id:032x}"
        event["span_id"] = f"{context.span_id:016x}"
    return event


def _drop_noise(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key in ("color_message", "taskName"):
        event.pop(key, None)
    return event


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    structlog.get_logger("uncaught").critical("process.broke", exc_info=(kind, error, traceback))


def _uncaught_in_thread(what: threading.ExceptHookArgs) -> None:
    if what.exc_value is not None:
        name = what.thread.name if what.thread else ""
        problem = (what.exc_type, what.exc_value, what.exc_traceback)
        structlog.get_logger("uncaught").critical("thread.broke", thread=name, exc_info=problem)
