"""How full is too full: below the disk watermark or above the backlog's, senders are told to come again later.

Asked before each object, so the answer is kept for a moment; a promise that cannot be kept is never given.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable

import sqlalchemy as sa
import structlog
from sqlmodel import col

from dermoscopy.errors import StorageFull, Unavailable
from dermoscopy.settings import Settings
from dermoscopy.tables import AnalysisRow

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""At a hundred objects a second the backlog may pass its watermark by a hundred before anybody is refused."""


class Watermarks:
    """Room on the disk of ``data_dir`` and length of the queue; safe to ask from many threads."""

    def __init__(self, settings: Settings, engine: sa.Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._free = 0
        self._waiting = 0

    def check(self) -> None:
        """Raises `StorageFull` (too little room) or `Unavailable` (too much waits for its analysis)."""
        with self._lock:
            now = self._clock()
            if self._looked_at is None or now - self._looked_at >= LOOK_SECONDS:
                self._look()
                self._looked_at = now
            free, waiting = self._free, self._waiting
        settings = self._settings
        if free < settings.disk_watermark_bytes:
            raise StorageFull("free space is below the watermark: free space, then send again", retry_after=60)
        if settings.backlog_watermark and waiting > settings.backlog_watermark:
            raise Unavailable("too many images wait for their analysis: send again later", retry_after=60)

    def _look(self) -> None:
        self._free = shutil.disk_usage(self._settings.data_dir).free
        limit = self._settings.backlog_watermark
        if limit:
            waiting = sa.select(sa.literal(1)).where(col(AnalysisRow.state) == "queued").limit(limit + 1).subquery()
            try:
                with self._engine.connect() as connection:
                    self._waiting = connection.execute(sa.select(sa.func.count()).select_from(waiting)).scalar_one()
            except sa.exc.OperationalError as error:
                raise Unavailable("the database is away: send again later", retry_after=5) from error
