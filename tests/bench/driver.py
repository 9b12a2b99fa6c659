"""Runs this queue beside others, under a harness that brings a module `common` and calls drivers.

Nothing is switched off for it: the real worker (`python -m worker.main`, put together here because
the harness says when to begin), every job kept, with a lease, a fence, and a line of history for
each change of its status; commits as the server is set, synchronous_commit = on by default. Of the
worker's settings it changes how many jobs run at a time, how many are claimed ahead, and that not
every job is logged.

What the harness has to know of it, with ROOT this checkout and HERE the harness:

    "async-job-orchestrator": dict(
        driver=f"{ROOT}/tests/bench/driver.py", venv="async-job-orchestrator",
        pip=["-r", f"{ROOT}/worker/requirements.txt"],
        unfinished='''
          select exists (select from job_queue.claims)
              or (select seq from job_queue.jobs where claimable
                   order by queue, job_type, priority, run_at, seq limit 1) is not null''',
        env={"PYTHONPATH": f"{HERE}/drivers:{ROOT}"}, n_single=3000, n_drain=60000)

A job that is claimed has a row in claims until the transaction that completes it commits; one that
is not has an entry in the index jobs_lanes_idx, which the order by makes sure is what is read.

BENCH_CONC is WORKER_CONCURRENCY, BENCH_BATCH of the worker WORKER_PREFETCH, and of bulk the number
of jobs in a call. Any other variable of the worker's may be set as well.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from common import BATCH, CONC, DSN, chunks, cli, gate, payload, ran, timed

from worker import handler, logs, registry
from worker.main import Worker
from worker.settings import Settings

SCHEMA = Path(__file__).resolve().parents[2] / "database" / "schema"

ENQUEUE_JOB = "select job_queue.enqueue_job(p_job_type => 'noop', p_payload => %s::jsonb)"
ENQUEUE_JOBS = "select from job_queue.enqueue_jobs(%s::jsonb)"


@handler("noop")
def noop(i: int, user: str, pad: str) -> None:
    """Do nothing but say so."""
    ran(i)


def setup() -> None:
    """Create the schema."""
    with psycopg.connect(DSN, autocommit=True) as connection:
        for path in sorted(SCHEMA.glob("*.sql")):
            connection.execute(path.read_bytes())


def _enqueuer() -> tuple[Callable[[Any], object], Callable[[], None]]:
    """Connect; return a function that enqueues one job, in a prepared statement, and one to end."""
    connection = psycopg.connect(DSN, autocommit=True)
    cursor = connection.cursor(binary=True)

    def submit(one: Any) -> object:
        return cursor.execute(ENQUEUE_JOB, (json.dumps(one),), prepare=True).fetchone()

    return submit, connection.close


def enqueue(n: int) -> Any:
    """Enqueue jobs one by one, each in a call and a transaction of its own."""
    submit, _ = _enqueuer()
    submit(payload(0))

    def submit_all() -> None:
        for i in range(n):
            submit(payload(i))

    return timed(submit_all)


def bulk(n: int) -> Any:
    """Enqueue jobs by the thousand."""
    with psycopg.connect(DSN, autocommit=True) as connection:

        def submit_all() -> None:
            for payloads in chunks(n, BATCH or 1000):
                jobs = [{"job_type": "noop", "payload": one} for one in payloads]
                connection.execute(ENQUEUE_JOBS, (json.dumps(jobs),))

        return timed(submit_all)


def worker() -> None:
    """Work until killed."""
    environment = {
        "DATABASE_URL": DSN,
        # A handler that waits for nothing gains nothing from a second thread.
        "WORKER_CONCURRENCY": str(CONC or 1),
        "WORKER_PREFETCH": str(BATCH or 1000),
        "WORKER_LOG_LEVEL": "warning",
    }
    settings = Settings.from_environment({**environment, **os.environ, "DATABASE_URL": DSN})
    logs.configure(settings)
    this_worker = Worker(settings, registry.load(settings.handlers))
    gate()
    this_worker.run()


def client() -> tuple[Callable[[Any], object], Callable[[], None]]:
    """Return a function that enqueues one job over an open connection, and one to close it."""
    return _enqueuer()


if __name__ == "__main__":
    cli()
