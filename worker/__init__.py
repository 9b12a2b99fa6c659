"""The worker: claims jobs from the queue in Postgres and runs them.

A module that WORKER_HANDLERS names registers handlers, and needs nothing but what is named here.
"""

from worker.context import AsyncContext, Context
from worker.outcomes import (
    Cancelled,
    ClaimLost,
    Fail,
    HandBack,
    JobStopped,
    Retry,
    Snooze,
    TimedOut,
)
from worker.registry import handler

__all__ = [
    "AsyncContext",
    "Cancelled",
    "ClaimLost",
    "Context",
    "Fail",
    "HandBack",
    "JobStopped",
    "Retry",
    "Snooze",
    "TimedOut",
    "handler",
]
