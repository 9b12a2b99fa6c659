"""A health check: `python -m worker.health` exits 0 if the worker's loop moved lately.

A database that is away does not count against the worker, which goes on trying to reach it.
"""

import sys
import time
from pathlib import Path

from worker.settings import Settings

SLACK = 20.0
"""Seconds that one database call may take on top of the polling interval."""


def main() -> int:
    """Return 0 if WORKER_HEALTH_FILE was touched within a polling interval and some slack."""
    settings = Settings.from_environment()
    if settings.health_file is None:
        sys.stderr.write("WORKER_HEALTH_FILE is not set\n")
        return 2
    try:
        age = time.time() - Path(settings.health_file).stat().st_mtime
    except FileNotFoundError:
        age = float("inf")
    return 0 if age <= settings.poll_seconds + SLACK else 1


if __name__ == "__main__":
    sys.exit(main())
