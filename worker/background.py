"""What goes on beside the jobs, each in a thread and over a connection of its own."""

import logging
import random
import threading
import time
from collections.abc import Callable

from worker import metrics
from worker.connection import Backoff, QueueUnavailable
from worker.outcomes import Cancelled, ClaimLost
from worker.pulse import Pulse
from worker.queue import Queue
from worker.run import Run

logger = logging.getLogger(__name__)

MAINTENANCE_INTERVAL = 2.0
"""Seconds between calls of run_maintenance, give or take a quarter."""

REST = 4.0
"""How many times as long as a call took is waited for the next, while there is more to do: whatever
there is to prune, it takes a fifth of one of the database's cores at most."""

FIRST_DELAY = 0.2
"""Seconds until the first call."""

LONGEST_WAIT = 1.0
"""Seconds between signs of life of the heartbeat's thread."""


class _Beside:
    """A thread with a queue, and so a connection, of its own."""

    def __init__(self, name: str, queue: Queue) -> None:
        self._queue = queue
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run_and_close, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, and close the connection."""
        self._ending.set()
        self._thread.join(timeout=1.0)

    def _run_and_close(self) -> None:
        self._run()
        self._queue.link.close()

    def _run(self) -> None:
        raise NotImplementedError


class Heart(_Beside):
    """Keeps claims alive by a heartbeat every third of the lease, whatever the handlers do.

    The answers tell which claims were lost and which jobs are to stop; their handlers are told.
    """

    def __init__(
        self,
        queue: Queue,
        lease_seconds: float,
        held: Callable[[], list[Run]],
        pulse: Pulse,
    ) -> None:
        super().__init__("heart", queue)
        self._lease = lease_seconds
        self._period = lease_seconds / 3
        self._held = held
        self._pulse = pulse
        self.beaten_at = time.monotonic()
        """When the last heartbeat that succeeded began."""
        self._failed_because: str | None = None

    @property
    def unwell_because(self) -> str | None:
        """Why claims of ours may run out before they are renewed; None if they will not."""
        if time.monotonic() - self.beaten_at >= self._lease:
            return self._failed_because or "the worker stood still for longer than its lease"
        return self._failed_because

    def _run(self) -> None:
        backoff = Backoff()
        due_at = time.monotonic()
        while not self._ending.is_set():
            self._pulse.beat("heartbeat")
            if (seconds := due_at - time.monotonic()) > 0:
                self._ending.wait(min(seconds, LONGEST_WAIT))
                continue
            started_at = time.monotonic()
            try:
                self._beat()
            except Exception as error:
                metrics.UNAVAILABLE.labels("heartbeat").inc()
                if not isinstance(error, QueueUnavailable):
                    logger.exception("no heartbeat")
                self._failed_because = str(error) or type(error).__name__
                due_at = time.monotonic() + min(backoff.next_delay(), self._period / 2)
            else:
                self.beaten_at = started_at
                self._failed_because = None
                backoff.reset()
                due_at = started_at + self._period

    def _beat(self) -> None:
        runs = {run.job.claim_id: run for run in self._held()}
        answers = self._queue.heartbeat(list(runs))
        metrics.HEARTBEATS.inc()
        for claim_id, (is_held, cancel_requested) in answers.items():
            run = runs[claim_id]
            if run.completed or run.ended_at is not None:
                continue
            if not is_held:
                run.stop(ClaimLost(f"claim {claim_id} was lost"))
            elif cancel_requested:
                run.stop(Cancelled("stopped, as it was asked to,"))


class Caretaker(_Beside):
    """Ticks the queue's maintenance. Jobs do not depend on its success, so it stops nothing."""

    def __init__(self, queue: Queue, heart: Heart) -> None:
        super().__init__("maintenance", queue)
        self._heart = heart

    def _run(self) -> None:
        backoff = Backoff()
        failed_because = None
        pause = MAINTENANCE_INTERVAL
        delay = FIRST_DELAY
        while not self._ending.wait(delay):
            unless_within = pause / 2
            pause = MAINTENANCE_INTERVAL
            delay = pause * random.uniform(0.75, 1.25)
            if self._heart.unwell_because is not None:
                continue  # after an outage maintenance would take our own jobs away
            started_at = time.monotonic()
            try:
                has_more = self._queue.run_maintenance(unless_within)
            except Exception as error:
                metrics.UNAVAILABLE.labels("run_maintenance").inc()
                if str(error) != failed_because:
                    logger.warning("maintenance failed: %s", error)
                failed_because = str(error)
                delay += backoff.next_delay()
            else:
                failed_because = None
                backoff.reset()
                if has_more:
                    pause = min(REST * (time.monotonic() - started_at), MAINTENANCE_INTERVAL)
                    delay = pause
