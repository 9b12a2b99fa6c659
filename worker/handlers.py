"""What the worker does with a job."""

import time
from collections.abc import Callable
from typing import Any

from worker.queue import Job
from worker.shutdown import Shutdown


class HandBack(Exception):
    """The job is not to finish here and now: the worker must stop, or the job was cancelled."""


def sleep(job: Job, shutdown: Shutdown, still_alive: Callable[[], None]) -> dict[str, Any]:
    """Sleep for job.sleep_seconds and echo its message.

    Call still_alive at least once a second. Raise HandBack as soon as a stop is asked for that
    leaves too little time.
    """
    wakes_at = time.monotonic() + job.sleep_seconds
    while (seconds_left := wakes_at - time.monotonic()) > 0:
        if seconds_left > shutdown.seconds_left:
            raise HandBack("handed back")
        still_alive()
        shutdown.pause(min(seconds_left, 1.0))
    return {"slept_seconds": job.sleep_seconds, "message": job.message}
