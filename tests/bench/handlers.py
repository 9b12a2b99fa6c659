"""What the workers of the benchmark run: WORKER_HANDLERS=tests.bench.handlers."""

import time

from worker import handler


@handler("noop")
def noop(i: int, user: str, pad: str) -> None:
    """Do nothing."""


@handler("stamp")
def stamp() -> int:
    """Return when this ran, in nanoseconds of the clock that all processes of a machine share."""
    return time.monotonic_ns()
