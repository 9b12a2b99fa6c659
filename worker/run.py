"""A run: one claimed job in this process, from its claim to the report of how it ended."""

import json
import re
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, NamedTuple

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
from worker.queue import Job

ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
LONGEST_ERROR = 10_000
"""What fail_job keeps of an error, in characters."""
LONGEST_RESULT = 4_194_304
"""What a job may return, in bytes of JSON: as much as its payload may have."""
LONGEST_TRACEBACK = 20_000
"""What is logged of a traceback, in characters."""

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False)

Verb = Literal["complete", "fail", "snooze", "release", "nothing"]


class Outcome(NamedTuple):
    """How a run ended: what the queue is to be told."""

    verb: Verb
    text: str = ""
    """The result as JSON, the error of a failure, or why there is nothing to tell."""
    retryable: bool = True
    delay: timedelta | None = None
    traceback: str | None = None
    """Of a failure that nobody foresaw."""


class UnusableResult(Exception):
    """What the handler returned cannot be the result of a job."""


def encode(result: Any) -> str:
    """Return the result as JSON that Postgres takes. Raises UnusableResult."""
    if result is None:
        return "null"
    try:
        text = _encoder.encode(result)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise UnusableResult(f"the result is no JSON: {error}") from None
    if size > LONGEST_RESULT:
        raise UnusableResult(f"the result is too long: {size} bytes of JSON")
    if ESCAPED_NUL.search(text):
        raise UnusableResult("the result holds the character NUL, which Postgres cannot store")
    return text


def failure(error: BaseException) -> Outcome:
    """Return what an exception, not meant for us, makes of a run."""
    lines = "".join(traceback.format_exception(error)).rstrip()
    text = f"{type(error).__name__}: {_text_of(error)}"
    return Outcome("fail", text[:LONGEST_ERROR], traceback=lines[:LONGEST_TRACEBACK])


def outcome_of(error: BaseException) -> Outcome:
    """Return what it means that a handler raised this."""
    text = _text_of(error)[:LONGEST_ERROR]
    match error:
        case Fail() | UnusableResult():
            return Outcome("fail", text, retryable=False)
        case Retry():
            return Outcome("fail", text, delay=error.after)
        case Snooze():
            return Outcome("snooze", delay=error.delay)
        case TimedOut():
            return Outcome("fail", text)
        case Cancelled() | HandBack():
            return Outcome("release", text)
        case ClaimLost():
            return Outcome("nothing", text)
    return failure(error)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # of the exception's own code
        return "an exception that cannot be printed"


class Run:
    """A claimed job in this process. Any thread may stop it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.claimed_at = time.monotonic()
        self.deadline = (
            float("inf") if job.timeout is None else self.claimed_at + job.timeout.total_seconds()
        )
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.is_stopping = False
        """Whether the handler has been told to stop."""
        self.reason: JobStopped | None = None
        self.completed = False
        """Whether the handler has completed the job in a transaction of its own."""
        self.when_completed: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._stopping: threading.Event | None = None
        self._interrupt: Callable[[], None] | None = None

    @property
    def stopping(self) -> threading.Event:
        """Set once is_stopping is. Made when it is asked for: few handlers do, and it is dear."""
        with self._lock:
            if self._stopping is None:
                self._stopping = threading.Event()
                if self.is_stopping:
                    self._stopping.set()
            return self._stopping

    @property
    def seconds(self) -> float | None:
        """How long the handler ran; None if it did not start."""
        if self.started_at is None:
            return None
        return (self.ended_at or time.monotonic()) - self.started_at

    @property
    def ids(self) -> dict[str, Any]:
        """What log records about the run carry."""
        return {
            "job_id": str(self.job.id),
            "claim_id": self.job.claim_id,
            "attempt": self.job.attempt,
            "job_type": self.job.job_type,
            "queue": self.job.queue,
        }

    def mark_completed(self) -> None:
        """Note that the handler has completed the job itself: its claim is gone for good reason."""
        self.completed = True
        if self.when_completed is not None:
            self.when_completed()

    def stop(self, reason: JobStopped) -> None:
        """Tell the handler to stop. Only the first reason counts, but for a lost claim."""
        with self._lock:
            if self.reason is None or isinstance(reason, ClaimLost):
                self.reason = reason
            if self._interrupt is not None and not self.is_stopping:
                self._interrupt()
            self.is_stopping = True
            if self._stopping is not None:
                self._stopping.set()

    def when_stopped(self, interrupt: Callable[[], None] | None) -> None:
        """Have this called, once, when the handler is to stop; at once if that has been said.

        What was given before is not called from now on.
        """
        with self._lock:
            self._interrupt = interrupt
            if interrupt is not None and self.is_stopping:
                interrupt()
