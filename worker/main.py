"""The worker process: `python -m worker.main`."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType

from worker import logs, metrics, registry
from worker.background import Caretaker, Heart
from worker.connection import Link
from worker.executor import Executor
from worker.monitoring import Monitoring
from worker.pulse import Pulse
from worker.queue import Queue
from worker.registry import Handler
from worker.runner import Abandoned, Runner
from worker.settings import Settings
from worker.shutdown import Shutdown
from worker.waker import Waker

logger = logging.getLogger(__name__)

STOPPED = 0
UNRECORDED = 1
WRONG_SETTING = 2
CRASHED = 70
"""EX_SOFTWARE of sysexits.h"""

LONGEST_SLEEP = 0.5
"""Seconds after which a signal that woke nobody is handled."""


class Worker:
    """All that makes up one worker, put together."""

    def __init__(self, settings: Settings, handlers: Mapping[str, Handler]) -> None:
        self._settings = settings
        self._handlers = handlers
        self._waker = Waker()
        self._pulse = Pulse(settings.health_file)
        self.shutdown = Shutdown(settings.grace_seconds)
        self._executor = Executor(
            settings, handlers, self.shutdown.seconds_left, on_end=self._waker.wake
        )
        self._heart = Heart(
            self._queue(min(settings.call_seconds, settings.lease_seconds / 3)),
            settings.lease_seconds,
            self._executor.held,
            self._pulse,
        )
        # One that waits for long, for a lock, must not end when leases have just run out.
        self._caretaker = Caretaker(self._queue(settings.lease_seconds / 3), self._heart)
        self._runner = Runner(
            settings,
            handlers,
            self._queue(settings.call_seconds, before_call=lambda: self._pulse.beat("loop")),
            self._queue(settings.call_seconds),
            self._heart,
            self._executor,
            self._waker,
            self.shutdown,
            self._pulse,
        )
        if settings.http_port is not None:
            Monitoring(
                settings.http_host,
                settings.http_port,
                lambda: self._pulse.is_alive,
                self._unready_because,
                self._refresh_metrics,
            )

    def run(self) -> int:
        """Run jobs until a stop is asked for, and return the exit status."""
        logger.info(
            "worker %s started: %d jobs at a time of the types %s, from %s",
            self._settings.name,
            self._settings.concurrency,
            ", ".join(sorted(self._handlers)),
            self._settings.queues,
        )
        self._heart.start()
        self._caretaker.start()
        status = STOPPED
        try:
            self._runner.run()
        except Abandoned as error:
            logger.error("%s", error)
            status = UNRECORDED
        except Exception:
            logger.exception("the worker's loop ended by a fault of its own")
            status = CRASHED
        self._caretaker.stop()
        self._heart.stop()
        logger.info("worker %s stopped", self._settings.name)
        if not self._executor.close():
            # Threads cannot be killed. Their jobs have been handed back.
            logging.shutdown()
            os._exit(status)
        return status

    def stop(self, signal_number: int, _: FrameType | None) -> None:
        """Handle a signal: stop in order or, the second time, at once."""
        if self.shutdown.requested:
            os._exit(128 + signal_number)
        self.shutdown.request()
        self._waker.wake()
        logger.info("%s received, stopping", signal.Signals(signal_number).name)

    def _queue(self, call_seconds: float, before_call: Callable[[], None] = lambda: None) -> Queue:
        settings = self._settings
        return Queue(
            Link(settings.conninfo, call_seconds, before_call),
            settings.name,
            settings.lease_seconds,
            sorted(self._handlers),
            settings.queues.in_order,
        )

    def _unready_because(self) -> str | None:
        if self.shutdown.requested:
            return "stopping"
        return self._runner.unready_because or self._heart.unwell_because

    def _refresh_metrics(self) -> None:
        running, waiting = self._executor.counts
        metrics.RUNNING.set(running)
        metrics.WAITING.set(waiting)
        metrics.CAPACITY.set(self._settings.concurrency)


def main() -> int:
    """Run jobs until SIGTERM or SIGINT; a second one leaves at once, with 128 + its number.

    Returns 0 after an orderly stop, 1 if a job's end could not be recorded, 2 for a wrong setting
    or a module of handlers that cannot be loaded, 70 after a fault of the worker's own.
    """
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
        logger.error("%s", error)
        return WRONG_SETTING
    logs.configure(settings)
    try:
        handlers = registry.load(settings.handlers)
    except (Exception, SystemExit):
        logger.exception("WORKER_HANDLERS: %s cannot be loaded", ", ".join(settings.handlers))
        return WRONG_SETTING
    try:
        worker = Worker(settings, handlers)
    except OSError as error:
        logger.error("WORKER_HTTP_HOST and WORKER_HTTP_PORT: %s", error)
        return WRONG_SETTING

    signal.signal(signal.SIGTERM, worker.stop)
    signal.signal(signal.SIGINT, worker.stop)
    # The loop has a thread of its own, so that the signal handler, which runs in this one, cannot
    # interrupt it while it holds a lock that the handler takes.
    statuses: list[int] = []
    loop = threading.Thread(target=lambda: statuses.append(worker.run()), name="loop")
    loop.start()
    # Not for as long as it takes: Python handles a signal only once this thread wakes, and one that
    # comes just before it falls asleep, or to another thread, does not wake it.
    while loop.is_alive():
        loop.join(LONGEST_SLEEP)
    return statuses[0] if statuses else CRASHED


if __name__ == "__main__":
    sys.exit(main())
