"""Processes for handlers that hold the GIL or must be killable, and for jobs that may kill.

Each is spawned, loads the handlers, and runs one job at a time, which it is sent over a pipe. It is
killed when its job is to stop, and ends when this process does, however that ends, though not while
it holds the GIL. What it has started is killed with it.
"""

import asyncio
import contextlib
import io
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing.connection import Connection, wait
from typing import Any

from worker import logs, registry
from worker.calls import call, call_async
from worker.connection import async_handler_pool, handler_pool
from worker.context import AsyncContext, Context
from worker.registry import Handler
from worker.run import Outcome, Run, outcome_of
from worker.settings import Settings

COMPLETED = "completed"
"""What a child says when a handler has completed its job in a transaction of its own."""

SECONDS_TO_LEAVE = 1.0
"""How long a process without a job may take to end, before it is killed."""

LOOK_SECONDS = 1.0
"""How often to look whether a child that says nothing is alive."""

_spawn = multiprocessing.get_context("spawn")
_stop_signals = {signal.SIGTERM, signal.SIGINT}


class Children:
    """The processes of one worker: as many as there are jobs for them at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[_Child] = []

    def run(self, run: Run) -> Outcome:
        """Run the job in a process, and return how the run ended once it has."""
        child = self._take_idle() or _Child(self._settings)
        outcome = child.run(run)
        if child.is_usable and not run.is_stopping:  # else it may have been killed just now
            self._idle.append(child)
        else:
            child.kill()
        return outcome

    def kill(self) -> None:
        """End the processes that have no job."""
        for child in self._idle:
            child.dismiss()
        while self._idle:
            self._idle.pop().kill()

    def _take_idle(self) -> "_Child | None":
        with contextlib.suppress(IndexError):
            while True:
                child = self._idle.pop()
                if child.is_usable:
                    return child
                child.kill()
        return None


class _Child:
    def __init__(self, settings: Settings) -> None:
        self._jobs_left = settings.process_jobs or float("inf")
        self._is_dead = False
        self._pipe, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_serve, args=(theirs, settings), name="job process")
        # Until it has left this process group, a signal to the group must not reach it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _stop_signals)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    @property
    def is_usable(self) -> bool:
        """Whether another job may be given to it."""
        return self._jobs_left > 0 and self._process.is_alive()

    def run(self, run: Run) -> Outcome:
        self._jobs_left -= 1
        run.when_stopped(self._kill_group)
        try:
            self._pipe.send(run.job)
            while True:
                message = self._receive()
                if isinstance(message, Outcome):
                    return message
                run.mark_completed()
        except (EOFError, OSError):
            run.when_stopped(None)
            self.kill()
            return self._outcome_of_death(run)
        finally:
            run.when_stopped(None)

    def kill(self) -> None:
        """End it, unless that has been done: it may leave in order, but not slowly."""
        if not self._is_dead:
            self._is_dead = True
            self.dismiss()
            self._process.join(SECONDS_TO_LEAVE)
            self._kill_group()
            self._process.join()

    def dismiss(self) -> None:
        """Let it know that there is no job for it any more."""
        self._pipe.close()

    def _receive(self) -> Any:
        """Return what it says. Raises EOFError once it is dead and has said all.

        A process that it started and that lives on may hold its ends of the pipes open, so that
        they do not tell of its death.
        """
        ends: list[Any] = [self._pipe, self._process.sentinel]
        while not wait(ends, timeout=LOOK_SECONDS) and self._process.is_alive():
            pass
        if not self._pipe.poll():
            raise EOFError
        return self._pipe.recv()

    def _kill_group(self) -> None:
        """Kill it and what it has started, save what has left its process group."""
        assert self._process.pid is not None
        self._process.kill()
        with contextlib.suppress(ProcessLookupError):  # it has not begun its group yet
            os.killpg(self._process.pid, signal.SIGKILL)

    def _outcome_of_death(self, run: Run) -> Outcome:
        if run.completed:
            return Outcome("nothing", "completed in its own transaction")
        if run.reason is not None:
            return outcome_of(run.reason)
        return Outcome(
            "fail", f"the process of the job ended by itself: {_how(self._process.exitcode or 0)}"
        )


def _how(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit status {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:  # a real-time signal
        return f"signal {-exit_code}"


def _serve(pipe: "Connection[Any, Any]", settings: Settings) -> None:
    """Be a child: run the jobs that come over the pipe."""
    _leave_the_process_group()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logs.configure(settings)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what is printed outlives a SIGKILL
    handlers = registry.load(settings.handlers)
    with handler_pool(settings.conninfo, size=1) as pool:
        while True:
            try:
                job = pipe.recv()
            except EOFError:
                return
            run = Run(job)
            run.when_completed = lambda: pipe.send(COMPLETED)
            handler = handlers[job.job_type]
            if handler.is_async:
                outcome = asyncio.run(_call_async(handler, run, settings))
            else:
                outcome = call(handler, run, Context(run, lambda: pool, lambda: float("inf")))
            pipe.send(outcome)


async def _call_async(handler: Handler, run: Run, settings: Settings) -> Outcome:
    async with await async_handler_pool(settings.conninfo, size=1) as pool:
        return await call_async(handler, run, AsyncContext(run, pool, lambda: float("inf")))


def _leave_the_process_group() -> None:
    """Let a signal to the worker's group, from a terminal or a process manager, be the worker's."""
    for number in _stop_signals:
        signal.signal(number, signal.SIG_IGN)  # drops one that has come already
    os.setpgid(0, 0)
    for number in _stop_signals:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _stop_signals)


def _end_with_parent() -> None:
    """End when the worker does, with all that has been started here."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(0, signal.SIGKILL)
