"""The worker's loop: claim a job, run it, report how it ended, and again."""

import logging
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.handlers import HandBack
from worker.queue import ClaimLost, InvalidResult, Job, Queue, QueueUnavailable
from worker.settings import Settings
from worker.shutdown import Shutdown

logger = logging.getLogger(__name__)

Handler = Callable[[Job, Shutdown, Callable[[], None]], Any]

FIRST_RETRY_DELAY = 0.1
LONGEST_RETRY_DELAY = 5.0
"""Seconds between attempts to reach a database that is away."""

MAINTENANCE_INTERVAL = 2.0
"""Seconds between calls of run_maintenance, give or take a quarter."""


class Abandoned(Exception):
    """The worker had to stop before it could tell the queue how a job ended."""


class Runner:
    """Runs jobs, one at a time, until a stop is asked for."""

    def __init__(
        self, settings: Settings, queue: Queue, handler: Handler, shutdown: Shutdown
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._handler = handler
        self._shutdown = shutdown
        self._away_because: str | None = None
        self._retry_delay = FIRST_RETRY_DELAY
        self._maintenance_due_at = 0.0
        self._not_maintained_because: str | None = None

    def run(self) -> None:
        """Claim and run jobs until a stop is asked for; poll only while the queue is empty.

        Raises Abandoned if the database stayed away when the last job's end had to be reported.
        """
        logger.info(
            "worker %s started, polling every %g s",
            self._settings.name,
            self._settings.poll_seconds,
        )
        while not self._shutdown.requested:
            self._still_alive()
            self._maintain_if_due()
            try:
                job = self._queue.claim_next_job()
            except QueueUnavailable as error:
                self._queue_is_away(error)
                self._shutdown.wait(self._next_delay())
                continue
            self._queue_answers()
            if job is None:
                self._shutdown.wait(self._settings.poll_seconds)
            else:
                self._run_job(job)
        self._queue.close()
        logger.info("worker %s stopped", self._settings.name)

    def _run_job(self, job: Job) -> None:
        ids = {"job_id": job.id, "claim_id": job.claim_id}
        logger.info("job %s claimed (claim %d)", job.id, job.claim_id, extra=ids)
        started_at = time.monotonic()
        try:
            outcome = self._outcome(job)
        except ClaimLost as lost:
            outcome = f"discarded, {lost},"
        seconds = time.monotonic() - started_at
        logger.info("job %s %s after %.1f s", job.id, outcome, seconds, extra=ids)

    def _outcome(self, job: Job) -> str:
        """Run the job, report how it ended, and return that for the log."""
        try:
            result = self._handler(job, self._shutdown, self._heart(job))
            self._report(lambda: self._queue.complete_job(job, result))
            return "succeeded"
        except (ClaimLost, Abandoned):
            raise
        except HandBack as reason:
            self._report(lambda: self._queue.release_job(job))
            return str(reason)
        except Exception as error:
            logger.debug("job %s raised", job.id, exc_info=True)
            text = f"{type(error).__name__}: {error}"
            self._report(lambda: self._queue.fail_job(job, text))
            return f"failed ({text})"

    def _heart(self, job: Job) -> Callable[[], None]:
        """Return what the handler calls to say that it is alive: often, but it seldom costs a call.

        It raises ClaimLost once the job is no longer this worker's, HandBack once it is cancelled.
        """
        interval = self._settings.lease_seconds / 3
        next_beat = time.monotonic() + interval

        def beat() -> None:
            nonlocal next_beat
            self._still_alive()
            if time.monotonic() < next_beat:
                self._maintain_if_due()
                return
            try:
                cancel_requested = self._queue.heartbeat(job)
            except QueueUnavailable as error:
                self._queue_is_away(error)
            else:
                self._queue_answers()
                next_beat = time.monotonic() + interval
                if cancel_requested:
                    raise HandBack("stopped, as it was asked to,")

        return beat

    def _maintain_if_due(self) -> None:
        """Tick the queue's maintenance. Jobs do not depend on its success, so it stops nothing.

        A heartbeat that is due comes first: after an outage maintenance would take the job away.
        """
        if time.monotonic() < self._maintenance_due_at:
            return
        jitter = random.uniform(0.75, 1.25)
        self._maintenance_due_at = time.monotonic() + MAINTENANCE_INTERVAL * jitter
        try:
            self._queue.run_maintenance()
        except (QueueUnavailable, InvalidResult) as error:
            if str(error) not in (self._away_because, self._not_maintained_because):
                logger.warning("maintenance failed: %s", error)
            self._not_maintained_because = str(error)
        else:
            self._not_maintained_because = None

    def _report(self, call: Callable[[], None]) -> None:
        """Tell the queue how a job ended, however long that takes, but no longer than the grace."""
        while True:
            try:
                call()
            except QueueUnavailable as error:
                if self._shutdown.seconds_left <= 0:
                    raise Abandoned(f"the end of a job could not be recorded: {error}") from None
                self._queue_is_away(error)
                self._shutdown.pause(self._next_delay())
            else:
                self._queue_answers()
                return

    def _queue_is_away(self, error: QueueUnavailable) -> None:
        """Say why, but say it once."""
        self._still_alive()
        if str(error) != self._away_because:
            self._away_because = str(error)
            logger.warning("waiting for the queue: %s", error)

    def _next_delay(self) -> float:
        """Return seconds to wait for a queue that is away: more each time, never quite the same."""
        delay = self._retry_delay
        self._retry_delay = min(delay * 2, LONGEST_RETRY_DELAY)
        return delay * random.uniform(0.5, 1.0)

    def _queue_answers(self) -> None:
        if self._away_because is not None:
            self._away_because = None
            self._retry_delay = FIRST_RETRY_DELAY
            logger.info("the queue answers")

    def _still_alive(self) -> None:
        if self._settings.health_file is not None:
            Path(self._settings.health_file).touch()
