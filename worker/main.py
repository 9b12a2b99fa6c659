"""The worker process: `python -m worker.main`."""

import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

from worker import handlers
from worker.queue import Queue
from worker.runner import Abandoned, Runner
from worker.settings import Settings
from worker.shutdown import Shutdown

logger = logging.getLogger(__name__)


def main() -> int:
    """Run jobs until SIGTERM or SIGINT; a second one leaves at once.

    Returns 0 after an orderly stop, 1 if a job's end could not be recorded, 2 for a wrong setting.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        logger.error("%s", error)
        return 2

    shutdown = Shutdown(settings.grace_seconds)

    def stop(signal_number: int, _: FrameType | None) -> None:
        if shutdown.requested:
            os._exit(128 + signal_number)
        shutdown.request()
        logger.info("%s received, stopping", signal.Signals(signal_number).name)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)

    queue = Queue(settings.conninfo, settings.name, settings.lease_seconds)
    runner = Runner(settings, queue, handlers.sleep, shutdown)
    # The loop has a thread of its own, so that the signal handler, which runs in this one, cannot
    # interrupt it while it holds the lock that shutdown.request takes.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="runner") as executor:
        try:
            executor.submit(runner.run).result()
        except Abandoned as error:
            logger.error("%s", error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
