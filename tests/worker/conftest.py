"""Real worker processes on a real database."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support import eventually

ROOT = Path(__file__).resolve().parent.parent.parent


class WorkerProcess:
    """`python -m worker.main`, with its log in a file."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "worker.main"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
            )

    @property
    def log(self) -> str:
        """What the worker has logged so far."""
        return self._log.read_text()

    def wait_until_it_logs(self, text: str) -> None:
        """Wait until the log holds the text."""
        eventually(lambda: text in self.log)

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Send the signal and return the exit status."""
        self.process.send_signal(signal_number)
        return self.process.wait(timeout=60)


@pytest.fixture
def start_worker(tmp_path: Path, conninfo: str) -> Iterator[Callable[..., WorkerProcess]]:
    """Start workers on this test's database, polling often unless told otherwise."""
    workers: list[WorkerProcess] = []

    def start(**environment: str) -> WorkerProcess:
        log = tmp_path / f"worker-{len(workers)}.log"
        defaults = {"DATABASE_URL": conninfo, "POLL_SECONDS": "0.05"}
        workers.append(WorkerProcess(log, {**defaults, **environment}))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


@pytest.fixture
def status_of(db: psycopg.Connection[object]) -> Callable[[object], str]:
    """Tell a job's status."""

    def status(job_id: object) -> str:
        row = db.execute("select status from get_job(%s)", [job_id]).fetchone()
        assert row is not None
        return str(row[0])  # type: ignore[index]

    return status
