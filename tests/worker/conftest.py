"""Real worker processes on a real database."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from psycopg import sql

from tests.support import Connection, eventually, one, value

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


class Login:
    """A login with no other rights than a worker's."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self.role = f"job_queue_test_worker_{os.getpid()}"
        self._execute("create role {} login password 'secret' in role job_queue_worker")
        self.url = (
            f"postgresql://{self.role}:secret@/{db.info.dbname}"
            f"?host={quote(db.info.host, safe='')}&port={db.info.port}"
        )

    def lock_out(self) -> None:
        """End its sessions, and let it begin no other."""
        self._execute("alter role {} nologin")
        self._db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s", [self.role]
        )

    def let_in(self) -> None:
        """Let it log in again."""
        self._execute("alter role {} login")

    def may_insert_into(self, table: str) -> None:
        """Let it insert into a table."""
        self._execute("grant insert on {1} to {0}", sql.Identifier(table))

    def is_listening(self) -> bool:
        """Tell whether one of its sessions waits for notifications."""
        return bool(
            value(
                self._db,
                """
                select count(*)
                  from pg_locks
                  join pg_stat_activity using (pid)
                 where locktype = 'advisory' and mode = 'ShareLock' and usename = %s
                """,
                self.role,
            )
        )

    def drop(self) -> None:
        """Remove it."""
        self._execute("drop owned by {}")
        self._execute("drop role {}")

    def _execute(self, statement: str, *others: sql.Composable) -> None:
        self._db.execute(sql.SQL(statement).format(sql.Identifier(self.role), *others))


@pytest.fixture
def login(db: Connection) -> Iterator[Login]:
    """With what the workers log in."""
    login = Login(db)
    yield login
    login.drop()


StartWorker = Callable[..., WorkerProcess]


@pytest.fixture
def start_worker(tmp_path: Path, conninfo: str) -> Iterator[StartWorker]:
    """Start workers on this test's database, polling often unless told otherwise."""
    workers: list[WorkerProcess] = []

    def start(**environment: str) -> WorkerProcess:
        log = tmp_path / f"worker-{len(workers)}.log"
        defaults = {
            "DATABASE_URL": conninfo,
            "POLL_SECONDS": "0.05",
            "WORKER_HANDLERS": "tests.worker.jobs",
        }
        workers.append(WorkerProcess(log, {**defaults, **environment}))
        return workers[-1]

    yield start
    for worker in workers:
        worker.process.kill()
        worker.process.wait()


def job(db: Connection, job_id: Any) -> Any:
    """Return the job as it is now."""
    return one(db, "select * from job_queue.get_job(%s)", job_id)


def wait_for(db: Connection, job_id: Any, status: str) -> Any:
    """Wait until the job has this status; return it."""
    return eventually(lambda: (found := job(db, job_id)).status == status and found)


def wait_until_all_have_ended(db: Connection) -> None:
    """Wait until no job is left to run."""
    eventually(
        lambda: value(db, "select count(*) = 0 from jobs where status in ('queued', 'running')")
    )
