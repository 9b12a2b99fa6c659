"""A health check: `python -m worker.health` exits 0 if the worker's loops moved lately.

A database that is away does not count against the worker, which goes on trying to reach it.
"""

import os
import sys
import time
from pathlib import Path

from worker.pulse import STALE_SECONDS


def main() -> int:
    """Return 0 if WORKER_HEALTH_FILE was touched lately, 1 if not, 2 if it is not set."""
    path = os.environ.get("WORKER_HEALTH_FILE", "").strip()
    if not path:
        sys.stderr.write("WORKER_HEALTH_FILE is not set\n")
        return 2
    try:
        age = time.time() - Path(path).stat().st_mtime
    except FileNotFoundError:
        return 1
    return 0 if age < STALE_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
