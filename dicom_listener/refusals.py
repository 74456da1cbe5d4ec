"""Refusals as the audit log is told of them: each kind at once, repetitions counted, never a flood.

Whoever can reach the port can cause refusals. The first of a kind is reported immediately; equal ones within a minute
are counted and reported together, and so is what goes beyond `DISTINCT` kinds in that minute.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

log = structlog.get_logger(__name__)

WINDOW_SECONDS: Final = 60.0
DISTINCT: Final = 100


@dataclass(frozen=True, slots=True)
class Refused:
    """Something that was not let in. ``answer`` is what the peer was told, for example ``RJ 1/1/3`` or ``A700``."""

    kind: str
    """``connection`` (TLS), ``association``, ``object``, or ``report`` of a storage commitment."""
    reason: str
    caller: str = ""
    called: str = ""
    address: str = ""
    answer: str = ""
    count: int = 1


class RefusalReports:
    """Passes refusals on to ``tell``; safe to use from many threads."""

    def __init__(self, tell: Callable[[Refused], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._repeated: dict[Refused, int] = {}

    def note(self, refused: Refused) -> None:
        """Report or count ``refused``, and report what was counted in a minute that is over."""
        log.warning(
            f"{refused.kind}.refused",
            reason=refused.reason,
            caller=refused.caller,
            address=refused.address,
            answer=refused.answer,
        )
        due = []
        with self._lock:
            if self._clock() - self._began >= WINDOW_SECONDS:
                due = self._counted()
            if refused not in self._repeated and len(self._repeated) >= DISTINCT:
                refused = Refused(refused.kind, "further refusals of several kinds in the same minute")
                self._repeated[refused] = self._repeated.get(refused, 0) + 1
            elif refused in self._repeated:
                self._repeated[refused] += 1
            else:
                self._repeated[refused] = 0
                due.append(refused)
        self._report(due)

    def flush(self) -> None:
        """Report what was counted so far."""
        with self._lock:
            due = self._counted()
        self._report(due)

    def _counted(self) -> list[Refused]:
        due = [replace(refused, count=count) for refused, count in self._repeated.items() if count]
        self._repeated.clear()
        self._began = self._clock()
        return due

    def _report(self, due: list[Refused]) -> None:
        for refused in due:
            try:
                self._tell(refused)
            except Exception:  # outermost loop: a refusal stands whether or not it can be recorded
                log.exception("refusal.not_recorded", kind=refused.kind)
