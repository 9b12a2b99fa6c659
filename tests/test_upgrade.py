"""An upgrade holds nobody up and loses nothing: clients and workers of the version before go on."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb
from yoyo import get_backend, read_migrations

from database.local import MIGRATIONS
from tests.conftest import Server
from tests.support import Connection, claim, enqueue, eventually, value

LAST_OF_THE_VERSION_BEFORE = 31
LOCKING = re.compile(r"^(alter table (?!.* validate )|create (unique )?index .*jobs)", re.M)
UPGRADE = [
    path
    for path in sorted(MIGRATIONS.glob("*.sql"))
    if int(path.name[:4]) > LAST_OF_THE_VERSION_BEFORE and not path.name.endswith(".rollback.sql")
]

# What the worker and the API of the version before call, to the letter.
CLAIM = """
select id, claim_id, sleep_seconds, message
  from job_queue.claim_next_job(
         p_worker => %(worker)s, p_job_types => array['sleep'], p_lease => %(lease)s)
"""
HEARTBEAT = """
select held, cancel_requested
  from job_queue.heartbeat(p_claim_ids => %(claim_ids)s)
"""
COMPLETE = """
select job_queue.complete_job(
         p_job_id => %(job_id)s, p_claim_id => %(claim_id)s, p_result => %(result)s)
"""
FAIL = """
select job_queue.fail_job(
         p_job_id => %(job_id)s, p_claim_id => %(claim_id)s, p_error => %(error)s)
"""
RELEASE = """
select job_queue.release_job(p_job_id => %(job_id)s, p_claim_id => %(claim_id)s)
"""
ENQUEUE = """
select job.id
  from job_queue.enqueue_job(
         p_sleep_seconds => %(sleep_seconds)s,
         p_message => %(message)s
       ) as enqueued (id)
 cross join lateral job_queue.get_job(p_job_id => enqueued.id) as job
"""
GONE = {"42883", "XX000"}
"""undefined_function, and the cache's word for one that was dropped between two steps of a call"""


@pytest.fixture
def conninfo(server: Server) -> Iterator[str]:
    """An empty database."""
    name = "job_queue_test_upgrade"
    where: dict[str, Any] = {"host": server.host, "port": server.port, "user": server.user}
    if server.password:
        where["password"] = server.password
    admin_conninfo = make_conninfo(dbname=server.maintenance_dbname, **where)
    with psycopg.connect(admin_conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield make_conninfo(dbname=name, **where)
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def steps(conninfo: str, upwards: bool, beyond: int) -> None:
    """Apply, or roll back, the migrations beyond a number one by one."""
    backend = get_backend(f"postgresql+psycopg:///?{urlencode(conninfo_to_dict(conninfo))}")
    chosen = read_migrations(str(MIGRATIONS)).filter(lambda step: int(step.id[:4]) > beyond)
    with closing(backend.connection), backend.lock():
        if upwards:
            backend.apply_migrations(backend.to_apply(chosen))
        else:
            backend.rollback_migrations(backend.to_rollback(chosen))


def version_before(conninfo: str) -> None:
    """Apply the migrations of the version before."""
    backend = get_backend(f"postgresql+psycopg:///?{urlencode(conninfo_to_dict(conninfo))}")
    chosen = read_migrations(str(MIGRATIONS)).filter(
        lambda step: int(step.id[:4]) <= LAST_OF_THE_VERSION_BEFORE
    )
    with closing(backend.connection), backend.lock():
        backend.apply_migrations(backend.to_apply(chosen))


class Loop(threading.Thread):
    """Something that is done again and again, over a connection of its own, until told to stop."""

    def __init__(self, conninfo: str, step: Callable[[Connection], None]) -> None:
        super().__init__()
        self._conninfo, self._step = conninfo, step
        self.stop = threading.Event()
        self.count = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            with psycopg.connect(
                self._conninfo, autocommit=True, row_factory=namedtuple_row
            ) as connection:
                while not self.stop.is_set():
                    self._step(connection)
                    self.count += 1
        except BaseException as error:
            self.error = error


def test_clients_and_workers_of_the_version_before_run_on_through_the_upgrade(
    conninfo: str,
) -> None:
    version_before(conninfo)
    acknowledged: list[Any] = []
    outcomes: list[str] = []

    def enqueue_one(connection: Connection) -> None:
        try:
            acknowledged.append(
                value(
                    connection,
                    ENQUEUE.replace("%(sleep_seconds)s", "0").replace("%(message)s", "'hello'"),
                )
            )
        except psycopg.Error as error:  # the one function whose arguments have changed
            if error.sqlstate not in GONE:
                raise

    def work(connection: Connection) -> None:
        parameters: dict[str, Any] = {"worker": "before", "lease": "30 seconds"}
        for job in connection.execute(CLAIM, parameters).fetchall():
            ids = {"job_id": job.id, "claim_id": job.claim_id}
            [beat] = connection.execute(HEARTBEAT, {"claim_ids": [job.claim_id]}).fetchall()
            assert beat.held
            turn = len(outcomes) % 10
            if turn == 8:
                connection.execute(RELEASE, ids)
            elif turn == 9:
                connection.execute(FAIL, {**ids, "error": "no"})
            else:
                connection.execute(COMPLETE, {**ids, "result": Jsonb({"ok": True})})
            outcomes.append("released" if turn == 8 else "ended")

    loops = [Loop(conninfo, enqueue_one), Loop(conninfo, work), Loop(conninfo, work)]
    for loop in loops:
        loop.start()
    try:
        eventually(lambda: len(outcomes) > 20 or loops[1].error)
        steps(conninfo, upwards=True, beyond=LAST_OF_THE_VERSION_BEFORE)
        after_the_upgrade = len(outcomes)
        eventually(lambda: len(outcomes) > after_the_upgrade + 20 or loops[1].error)
        loops[0].stop.set()
        with psycopg.connect(conninfo, autocommit=True) as observer:
            unfinished = "select count(*) from job_queue.jobs where status in ('queued', 'running')"
            eventually(lambda: value(observer, unfinished) == 0 or loops[1].error or loops[2].error)
    finally:
        for loop in loops:
            loop.stop.set()
        for loop in loops:
            loop.join()
    assert [loop.error for loop in loops] == [None, None, None]

    with psycopg.connect(conninfo, autocommit=True) as observer:
        ended = observer.execute(
            "select job_id from job_queue.job_events where to_status in ('succeeded', 'failed')"
        ).fetchall()
    assert sorted(row[0] for row in ended) == sorted(acknowledged)


def test_rows_of_every_status_go_up_and_down_and_up_again(conninfo: str) -> None:
    columns = "id, status, queue, attempts, result, unique_key, claimable, created_at"

    def rows_of(connection: Connection) -> list[Any]:
        return connection.execute(f"select {columns} from jobs order by seq").fetchall()

    version_before(conninfo)
    with psycopg.connect(conninfo, autocommit=True, row_factory=namedtuple_row) as db:
        db.execute("set search_path = public, job_queue")
        for status in ("succeeded", "failed", "cancelled", "running", "queued"):
            job_id = enqueue(db, unique_key=status)
            if status == "cancelled":
                db.execute("select cancel_job(%s)", [job_id])
            elif status != "queued":
                held = claim(db)
                if status == "succeeded":
                    db.execute("select complete_job(%s, %s, '1')", [held.id, held.claim_id])
                elif status == "failed":
                    db.execute("select fail_job(%s, %s, 'no')", [held.id, held.claim_id])
        before = rows_of(db)
        assert len({job.status for job in before}) == 5

        steps(conninfo, upwards=True, beyond=LAST_OF_THE_VERSION_BEFORE)
        assert rows_of(db) == before
        assert value(db, "select failed_at = updated_at from jobs where status = 'failed'")
        assert value(db, "select count(*) from list_dead_jobs()") == 1

        db.execute("select set_queue('narrow', '{\"key_concurrency_limit\": 1}')")
        db.execute("select set_schedule('daily', '@daily')")
        for _ in range(3):
            enqueue(db, queue="narrow", concurrency_key="k")
        db.execute("select * from claim_jobs(3, p_queues => '{narrow}')")
        enqueue(db, depends_on=[before[-1].id], unique_key="child")
        assert value(db, "select count(*) from jobs where waits_for_key") == 2

        steps(conninfo, upwards=False, beyond=LAST_OF_THE_VERSION_BEFORE)
        rows = rows_of(db)
        assert rows[:5] == before
        assert [job.status for job in rows[5:]] == ["running", "queued", "queued", "cancelled"]

        steps(conninfo, upwards=True, beyond=LAST_OF_THE_VERSION_BEFORE)
        assert rows_of(db) == rows
        held = claim(db)
        db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])


@pytest.mark.parametrize(
    "path",
    [path for path in UPGRADE if LOCKING.search(path.read_text())],
    ids=lambda path: path.stem,
)
def test_a_migration_that_locks_a_table_gives_up_rather_than_hold_everybody_up(path: Path) -> None:
    assert re.search(r"^set (local )?lock_timeout = ", path.read_text(), re.M)
