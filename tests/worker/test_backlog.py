"""A worker with many jobs that take no time: it claims and reports them by the hundred."""

from psycopg.types.json import Jsonb

from tests.support import Connection, eventually, one, value
from tests.worker.conftest import StartWorker, wait_until_all_have_ended

NO_POLLING = {"POLL_SECONDS": "86400", "WORKER_LISTEN": "off"}


def enqueue_many(db: Connection, count: int) -> None:
    """Enqueue jobs that return their numbers."""
    db.execute(
        "select enqueue_jobs(%s)",
        (Jsonb([{"job_type": "echo", "payload": {"value": i}} for i in range(count)]),),
    )


def test_each_job_of_a_backlog_runs_once_and_has_its_own_result(
    db: Connection, start_worker: StartWorker
) -> None:
    enqueue_many(db, 3000)
    worker = start_worker(**NO_POLLING)
    wait_until_all_have_ended(db)
    assert value(db, "select count(*) from jobs where result = payload -> 'value'") == 3000
    events = db.execute(
        "select verb, count(*), count(distinct job_id) as jobs from job_events group by verb"
        " order by verb"
    ).fetchall()
    assert events == [("claim", 3000, 3000), ("complete", 3000, 3000), ("enqueue", 3000, 3000)]
    assert worker.stop() == 0
    assert "Traceback" not in worker.log


def test_many_completions_that_make_room_in_a_limited_queue_are_followed_by_another_claim(
    db: Connection, start_worker: StartWorker
) -> None:
    db.execute("select set_queue('default', '{\"concurrency_limit\": 100}')")
    enqueue_many(db, 1000)
    start_worker(WORKER_CONCURRENCY="100", **NO_POLLING)
    wait_until_all_have_ended(db)
    assert value(db, "select count(*) from jobs where status = 'succeeded'") == 1000


def test_completions_that_cannot_be_reported_hold_up_no_claim_and_are_reported_later(
    db: Connection, start_worker: StartWorker
) -> None:
    enqueue_many(db, 20_000)
    worker = start_worker(WORKER_LOG_LEVEL="warning", **NO_POLLING)
    reporting = (
        "select pid from pg_stat_activity where query like '%%job_queue.complete_jobs%%'"
        " and application_name = 'job_queue worker' and datname = current_database()"
    )
    pid = eventually(lambda: db.execute(reporting).fetchone())[0]
    assert value(db, "select pg_terminate_backend(%s)", pid)
    wait_until_all_have_ended(db)
    assert "waiting for the queue" in worker.log
    ends = one(
        db,
        "select count(*), count(distinct job_id) as jobs from job_events where verb = 'complete'",
    )
    assert ends == (20_000, 20_000)
