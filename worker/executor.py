"""Runs jobs, so many at a time: in threads, on an event loop, in processes."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from worker.calls import call, call_async
from worker.children import Children
from worker.connection import HandlerPool, async_handler_pool, handler_pool
from worker.context import AsyncContext, Context
from worker.outcomes import TimedOut
from worker.registry import Handler
from worker.run import Outcome, Run, failure, outcome_of
from worker.settings import Settings

Ended = tuple[Run, Outcome]

LONGEST_WAIT = 3600.0
"""Seconds between two looks at the deadlines, should there be none."""

SMOOTHING = 0.05
"""How much one run counts in the average duration."""


class Executor:
    """The runs of this process: those that wait for a slot, those that have one, those that ended.

    A slot that becomes free takes the next run that waits, without asking anybody.
    """

    def __init__(
        self,
        settings: Settings,
        handlers: Mapping[str, Handler],
        seconds_left: Callable[[], float],
        on_end: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._handlers = handlers
        self._seconds_left = seconds_left
        self._on_end = on_end
        self._lock = threading.Lock()
        self._waiting: deque[Run] = deque()
        self._running: dict[int, Run] = {}
        self._ended: list[Ended] = []
        self._unreported: dict[int, Run] = {}
        self._next_deadline = float("inf")
        self._average_seconds: float | None = None
        self._deadline_moved = threading.Event()
        threading.Thread(target=self._watch_deadlines, name="deadlines", daemon=True).start()
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="job")
        self._children = Children(settings)
        self._pool: HandlerPool | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        if any(handler.is_async for handler in handlers.values()):
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="event loop", daemon=True).start()
            opening = async_handler_pool(settings.conninfo, settings.concurrency)
            self._async_pool = asyncio.run_coroutine_threadsafe(opening, self._loop).result()

    def add(self, runs: Iterable[Run]) -> None:
        """Take over these runs: start them, or let them wait for a slot."""
        with self._lock:
            for run in runs:
                self._unreported[run.job.claim_id] = run
                self._waiting.append(run)
            starting = []
            while self._waiting and len(self._running) < self._settings.concurrency:
                starting.append(self._take_slot())
        for run in starting:
            self._start(run)

    def take_ended(self) -> list[Ended]:
        """Return the runs that have ended since this was last asked."""
        with self._lock:
            ended, self._ended = self._ended, []
            return ended

    def take_waiting(self, longer_than: float = 0.0) -> list[Run]:
        """Return the runs that have waited for a slot for so many seconds, and forget them."""
        earliest = time.monotonic() - longer_than
        with self._lock:
            taken = [run for run in self._waiting if run.claimed_at <= earliest]
            if taken:
                self._waiting = deque(run for run in self._waiting if run.claimed_at > earliest)
                if longer_than:
                    self._average_seconds = None  # of jobs that are no more: nothing ahead for now
        return taken

    def forget(self, run: Run) -> None:
        """Drop a run whose end the queue knows, or will not be told."""
        self._unreported.pop(run.job.claim_id, None)

    def held(self) -> list[Run]:
        """Return the runs whose claims are to be kept alive."""
        return list(self._unreported.values())

    def running(self) -> list[Run]:
        """Return the runs that have a slot."""
        with self._lock:
            return list(self._running.values())

    @property
    def counts(self) -> tuple[int, int]:
        """How many runs have a slot, and how many wait for one."""
        return len(self._running), len(self._waiting)

    @property
    def has_ended_runs(self) -> bool:
        """Whether take_ended would return any."""
        return bool(self._ended)

    def could_start_within(self, seconds: float) -> int:
        """Return how many runs the slots get through in that time, judged by those that ended."""
        if self._average_seconds is None:
            return 0
        return int(self._settings.concurrency * seconds / max(self._average_seconds, 1e-6))

    def close(self) -> bool:
        """End what has no run; return whether nothing is left running."""
        is_idle = not self._running
        self._threads.shutdown(wait=is_idle, cancel_futures=True)
        self._children.kill()
        if self._pool is not None:
            self._pool.close(timeout=1.0)
        if self._loop is not None:
            with contextlib.suppress(TimeoutError):
                closing = asyncio.run_coroutine_threadsafe(self._async_pool.close(), self._loop)
                closing.result(timeout=1.0)
            self._loop.call_soon_threadsafe(self._loop.stop)
        return is_idle

    def _take_slot(self) -> Run:
        run = self._waiting.popleft()
        self._running[run.job.claim_id] = run
        run.started_at = time.monotonic()
        if run.deadline < self._next_deadline:
            self._next_deadline = run.deadline
            self._deadline_moved.set()
        return run

    def _watch_deadlines(self) -> None:
        """Stop the runs that last too long, whatever the worker's loop waits for."""
        while True:
            seconds = self._next_deadline - time.monotonic()
            if self._deadline_moved.wait(min(max(seconds, 0.0), LONGEST_WAIT)):
                self._deadline_moved.clear()
            elif seconds <= 0:
                self._stop_overdue()

    def _stop_overdue(self) -> None:
        with self._lock:
            now = time.monotonic()
            overdue = [run for run in self._running.values() if run.deadline <= now]
            self._next_deadline = min(
                (run.deadline for run in self._running.values() if run.deadline > now),
                default=float("inf"),
            )
        for run in overdue:
            run.stop(TimedOut(f"timed out after {run.job.timeout}"))

    def _start(self, run: Run) -> None:
        if self._is_for_loop(run):
            assert self._loop is not None
            asyncio.run_coroutine_threadsafe(self._run_async(run), self._loop)
        else:
            self._threads.submit(self._work, run)

    def _work(self, run: Run) -> None:
        """Run this, and then whatever waits, in this thread."""
        following: Run | None = run
        while following is not None:
            run = following
            if self._is_for_loop(run):
                self._start(run)
                return
            try:
                outcome = self._outcome(run)
            except BaseException as error:  # not the handler's: no process could be made, say
                outcome = failure(error)
            following = self._end(run, outcome)

    def _outcome(self, run: Run) -> Outcome:
        if run.reason is not None:  # stopped before it had begun
            return outcome_of(run.reason)
        handler = self._handlers[run.job.job_type]
        if handler.in_process or self._is_suspect(run):
            return self._children.run(run)
        return call(handler, run, Context(run, self._plain_pool, self._seconds_left))

    def _is_for_loop(self, run: Run) -> bool:
        return self._handlers[run.job.job_type].is_async and not self._is_suspect(run)

    @staticmethod
    def _is_suspect(run: Run) -> bool:
        """Return whether the job was lost with a worker before, and may have been what killed it.

        It runs in a process of its own, whatever its handler is, so that the next time it kills
        nothing else, and none of the jobs beside it is blamed.
        """
        return run.job.losses > 0

    async def _run_async(self, run: Run) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        context = AsyncContext(run, self._async_pool, self._seconds_left)

        def interrupt() -> None:
            loop.call_soon_threadsafe(context.stopping.set)
            loop.call_soon_threadsafe(task.cancel)

        try:
            if run.reason is not None:
                raise run.reason
            run.when_stopped(interrupt)
            outcome = await call_async(self._handlers[run.job.job_type], run, context)
        except BaseException as error:
            outcome = outcome_of(error)
        run.when_stopped(None)
        following = self._end(run, outcome)
        if following is not None:
            self._start(following)

    def _end(self, run: Run, outcome: Outcome) -> Run | None:
        """Note how the run ended; return the run that takes its slot."""
        run.ended_at = time.monotonic()
        assert run.started_at is not None
        seconds = run.ended_at - run.started_at
        with self._lock:
            average = seconds if self._average_seconds is None else self._average_seconds
            self._average_seconds = average + SMOOTHING * (seconds - average)
            del self._running[run.job.claim_id]
            self._ended.append((run, outcome))
            following = self._take_slot() if self._waiting else None
        self._on_end()
        return following

    def _plain_pool(self) -> HandlerPool:
        with self._lock:
            if self._pool is None:
                self._pool = handler_pool(self._settings.conninfo, self._settings.concurrency)
            return self._pool
