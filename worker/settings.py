"""The settings of one worker process."""

import os
import socket
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What the worker reads from its environment, once, at start."""

    conninfo: str
    """Where the database is, as libpq reads it. What it leaves out, libpq's PG* variables say."""
    name: str
    """Who this worker is, for people who read the claims."""
    poll_seconds: float
    """Seconds between two looks at an empty queue."""
    lease_seconds: float
    """Seconds after which the queue gives the job of a silent worker to another."""
    grace_seconds: float
    """Seconds a running job is given to finish once the worker has been told to stop."""
    health_file: str | None
    """A file to touch as long as the loop moves, for a health check to look at."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read DATABASE_URL, POLL_SECONDS, WORKER_LEASE, WORKER_GRACE and WORKER_HEALTH_FILE.

        Raises ValueError for a number that is none or is out of range.
        """
        url = os.environ.get("DATABASE_URL", "")
        return cls(
            conninfo=url.replace("postgresql+psycopg://", "postgresql://", 1),
            name=f"{socket.gethostname()}:{os.getpid()}",
            poll_seconds=_seconds("POLL_SECONDS", default=2.0, minimum=0.01),
            lease_seconds=_seconds("WORKER_LEASE", default=30.0, minimum=3.0),
            grace_seconds=_seconds("WORKER_GRACE", default=8.0, minimum=0.0),
            health_file=os.environ.get("WORKER_HEALTH_FILE"),
        )


def _seconds(variable: str, default: float, minimum: float) -> float:
    text = os.environ.get(variable, "")
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = float("nan")
    if not minimum <= seconds <= 86_400:
        raise ValueError(f"{variable} must be a number from {minimum:g} to 86400, not {text!r}")
    return seconds
