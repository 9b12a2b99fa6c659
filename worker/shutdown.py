"""A request to stop, and how long what is under way may still take."""

import threading
import time


class Shutdown:
    """Told by a signal handler; asked by everything that waits."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._requested = threading.Event()
        self._deadline = float("inf")

    def request(self) -> None:
        """Ask for a stop; the grace period starts now."""
        self._deadline = time.monotonic() + self._grace_seconds
        self._requested.set()

    @property
    def requested(self) -> bool:
        """Whether a stop has been asked for."""
        return self._requested.is_set()

    def seconds_left(self) -> float:
        """Return seconds until the grace period ends: infinite before a stop is asked for."""
        return self._deadline - time.monotonic()

    def wait(self, seconds: float) -> None:
        """Wait until a stop is asked for, which may have happened, or for so many seconds."""
        self._requested.wait(seconds)
