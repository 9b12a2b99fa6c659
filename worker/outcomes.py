"""What a handler may raise to say how its job goes on, and what stops a handler from outside."""

from datetime import timedelta


def _interval(name: str, value: float | timedelta) -> timedelta:
    try:
        interval = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be a timedelta or seconds, not {value!r}") from None
    if not timedelta(0) <= interval <= timedelta(days=365):
        raise ValueError(f"{name} must be from 0 to 365 days, not {value!r}")
    return interval


class Snooze(Exception):
    """Put the job off for so many seconds, or a timedelta; the attempt does not count."""

    def __init__(self, delay: float | timedelta) -> None:
        self.delay = _interval("delay", delay)
        super().__init__(f"snoozed for {self.delay}")


class Retry(Exception):
    """Fail this attempt. Another follows, if one is left, `after` so many seconds.

    Without `after`, the queue's backoff decides.
    """

    def __init__(
        self, after: float | timedelta | None = None, error: str = "to be tried again"
    ) -> None:
        self.after = None if after is None else _interval("after", after)
        super().__init__(error)


class Fail(Exception):
    """Fail the job for good, whatever attempts are left."""


class JobStopped(Exception):
    """The handler is to end, and what it returns may count for nothing."""


class Cancelled(JobStopped):
    """cancel_job asked for the job to stop."""


class ClaimLost(JobStopped):
    """The claim no longer holds: the job has ended or is another worker's. Discard all results."""


class TimedOut(JobStopped):
    """The attempt has lasted for longer than the job may."""


class HandBack(JobStopped):
    """The worker shuts down, and the job is given back to run elsewhere."""
