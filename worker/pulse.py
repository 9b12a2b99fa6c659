"""Whether the worker's loops move: what liveness is judged by, and nothing else is.

A database that is slow or away stops no loop, since every call of it gives up in time.
"""

import logging
import time
from pathlib import Path

logger = logging.getLogger(__name__)

STALE_SECONDS = 45.0
"""Seconds without a sign of life after which a loop counts as hung: more than a connection attempt
and a call of the database may take together."""

TOUCH_INTERVAL = 1.0


class Pulse:
    """The last signs of life of each loop, and the file that shows the oldest of them."""

    def __init__(self, health_file: str | None) -> None:
        self._path = None if health_file is None else Path(health_file)
        self._beaten_at: dict[str, float] = {}
        self._touched_at = 0.0
        self._has_complained = False

    def beat(self, loop: str) -> None:
        """Note that this loop moves."""
        now = time.monotonic()
        self._beaten_at[loop] = now
        if self._path is not None and now - self._touched_at >= TOUCH_INTERVAL and self.is_alive:
            self._touched_at = now
            self._touch(self._path)

    def _touch(self, path: Path) -> None:
        try:
            path.touch()
        except OSError as error:
            if not self._has_complained:
                self._has_complained = True
                logger.error("WORKER_HEALTH_FILE: %s", error)

    @property
    def is_alive(self) -> bool:
        """Whether every loop that ever moved has moved lately."""
        oldest = min(list(self._beaten_at.values()), default=0.0)
        return time.monotonic() - oldest < STALE_SECONDS
