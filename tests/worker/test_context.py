"""What a handler can learn and do through its context."""

from typing import Any

import pytest

from tests.support import UNKNOWN_JOB, Connection, enqueue, eventually, one, value
from tests.worker.conftest import Login, StartWorker, job, wait_for

LEASE = "3"
"""Seconds: a heartbeat every second tells what happened to the claim."""

KINDS = ["", "async_", "process_"]


@pytest.fixture
def written(db: Connection) -> Any:
    """Return the ids of the jobs that wrote to a table of the user's."""
    db.execute("create table public.written (job_id uuid)")
    return lambda: [row.job_id for row in db.execute("table public.written")]


@pytest.mark.parametrize("kind", KINDS)
def test_progress_shows_while_the_job_runs(
    db: Connection, start_worker: StartWorker, kind: str
) -> None:
    start_worker()
    job_id = enqueue(db, job_type=f"{kind}progress")
    eventually(lambda: job(db, job_id).progress == {"done": 1, "of": 2})


@pytest.mark.parametrize("kind", ["", "async_"])
def test_a_handler_enqueues_jobs_with_options_and_the_worker_runs_them(
    db: Connection, start_worker: StartWorker, kind: str
) -> None:
    start_worker()
    parent = enqueue(db, job_type=f"{kind}fan_out", payload='{"width": 3}')
    children = wait_for(db, parent, "succeeded").result
    assert [wait_for(db, child, "succeeded").result for child in children] == [0, 1, 2]
    if not kind:
        assert [job(db, child).message for child in children] == [
            "number 0",
            "number 1",
            "number 2",
        ]


def test_an_option_that_enqueue_job_does_not_have_is_named(
    db: Connection, start_worker: StartWorker
) -> None:
    start_worker()
    payload = '{"options": {"colour": "red"}}'
    job_id = enqueue(db, job_type="enqueue_wrongly", payload=payload)
    assert wait_for(db, job_id, "failed").result == {
        "error": "TypeError: enqueue_job has no parameter p_colour"
    }


def test_an_error_of_enqueue_job_is_the_handlers_and_not_a_lost_claim(
    db: Connection, start_worker: StartWorker
) -> None:
    start_worker()
    payload = f'{{"options": {{"depends_on": ["{UNKNOWN_JOB}"]}}}}'
    job_id = enqueue(db, job_type="enqueue_wrongly", payload=payload)
    assert UNKNOWN_JOB in wait_for(db, job_id, "failed").result["error"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("then", ["complete", "raise outside"])
def test_a_handler_that_completes_in_its_transaction_writes_enqueues_and_ends_at_once(
    db: Connection, start_worker: StartWorker, written: Any, kind: str, then: str
) -> None:
    """All three happen in one transaction; nothing that the handler does later undoes them."""
    worker = start_worker()
    job_id = enqueue(db, job_type=f"{kind}write", payload=f'{{"then": "{then}"}}')
    wait_for(db, job_id, "succeeded")
    worker.wait_until_it_logs(f"job {job_id} completed in its own transaction")
    assert job(db, job_id).result == {"written": True}
    assert written() == [job_id]
    transactions = db.execute(
        "select distinct xmin::text from jobs"
        " union select xmin::text from public.written"
        " union select xmin::text from job_events where verb = 'complete' and job_id = %s",
        [job_id],
    ).fetchall()
    enqueued = one(db, "select id from jobs where job_type = 'echo'").id
    wait_for(db, enqueued, "succeeded")
    assert len(transactions) >= 1
    assert value(
        db,
        "select (select xmin from public.written)"
        " = (select xmin from job_events where verb = 'complete' and job_id = %s)"
        " and (select xmin from job_events where verb = 'enqueue' and job_id = %s)"
        " = (select xmin from public.written)",
        job_id,
        enqueued,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_that_fails_in_its_transaction_has_written_nothing(
    db: Connection, start_worker: StartWorker, written: Any, kind: str
) -> None:
    start_worker()
    job_id = enqueue(db, job_type=f"{kind}write", payload='{"then": "raise inside"}')
    assert wait_for(db, job_id, "failed").result == {"error": "ValueError: undo it all"}
    assert written() == []
    assert value(db, "select count(*) from jobs") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_may_write_in_a_transaction_and_return_its_result(
    db: Connection, start_worker: StartWorker, written: Any, kind: str
) -> None:
    start_worker()
    job_id = enqueue(db, job_type=f"{kind}write", payload='{"then": "return"}')
    assert wait_for(db, job_id, "succeeded").result == "returned"
    assert written() == [job_id]


def test_a_process_that_dies_after_its_handlers_commit_has_completed_the_job(
    db: Connection, start_worker: StartWorker, written: Any
) -> None:
    worker = start_worker()
    job_id = enqueue(db, job_type="process_write", payload='{"then": "die"}')
    wait_for(db, job_id, "succeeded")
    worker.wait_until_it_logs(f"job {job_id} completed in its own transaction")


@pytest.mark.parametrize(
    ("how", "status", "result"),
    [
        ("roll back", "succeeded", "returned"),
        ("roll a savepoint back", "succeeded", "completed"),
        ("swallow an error", "failed", "RuntimeError: a statement failed, so that the transaction"),
        ("complete twice", "failed", "RuntimeError: the handler has called complete already"),
        ("nest", "failed", "RuntimeError: the handler is in a transaction already"),
        ("leave settings behind", "succeeded", "returned"),
    ],
)
def test_a_job_ends_as_its_transaction_did_whatever_the_handler_does_in_it(
    db: Connection, start_worker: StartWorker, written: Any, how: str, status: str, result: str
) -> None:
    start_worker(WORKER_CONCURRENCY="1")
    job_id = enqueue(db, job_type="transact", payload=f'{{"how": "{how}"}}')
    ended = wait_for(db, job_id, status).result
    assert (ended["error"] if status == "failed" else ended).startswith(result)
    assert written() == []
    following = enqueue(db, job_type="fan_out", payload='{"width": 1}')
    wait_for(db, following, "succeeded")


def test_a_coroutine_has_one_transaction_at_a_time(
    db: Connection, start_worker: StartWorker
) -> None:
    start_worker()
    job_id = enqueue(db, job_type="async_transact_at_once")
    assert wait_for(db, job_id, "failed").result == {
        "error": "RuntimeError: the handler is in a transaction already"
    }


def test_a_claim_that_is_lost_meanwhile_rolls_the_handlers_transaction_back(
    db: Connection, start_worker: StartWorker, written: Any
) -> None:
    """The writes of the late one are gone, those of the newer claim are made once."""
    worker = start_worker()
    db.execute("select pg_advisory_lock(42)")
    job_id = enqueue(db, job_type="write_late", payload='{"gate": 42}')
    wait_for(db, job_id, "running")
    eventually(lambda: value(db, "select count(*) from pg_locks where not granted"))
    held = one(db, "table claims")
    with db.transaction():
        db.execute("select release_job(%s, %s)", [held.job_id, held.claim_id])
        newer = one(db, "select * from claim_next_job('somebody else')")
    db.execute("select pg_advisory_unlock(42)")
    worker.wait_until_it_logs(f"job {job_id} discarded")
    assert written() == []
    db.execute("select complete_job(%s, %s, '42')", [job_id, newer.claim_id])
    assert job(db, job_id).result == 42


def test_the_next_call_of_a_handler_whose_claim_was_lost_raises(
    db: Connection, start_worker: StartWorker
) -> None:
    worker = start_worker(WORKER_LEASE="60")
    job_id = enqueue(db, job_type="progress_until_told")
    eventually(lambda: (job(db, job_id).progress or 0) > 1)
    held = one(db, "table claims")
    with db.transaction():
        db.execute("select release_job(%s, %s)", [held.job_id, held.claim_id])
        db.execute("select claim_next_job('somebody else')")
    worker.wait_until_it_logs("progress_until_told was told: ClaimLost")
    worker.wait_until_it_logs(f"job {job_id} discarded")
    assert job(db, job_id).status == "running"


def test_a_coroutine_that_is_told_by_a_call_may_clean_up(
    db: Connection, start_worker: StartWorker
) -> None:
    worker = start_worker(WORKER_LEASE="60")
    job_id = enqueue(db, job_type="async_progress_until_told")
    eventually(lambda: (job(db, job_id).progress or 0) > 1)
    held = one(db, "table claims")
    with db.transaction():
        db.execute("select release_job(%s, %s)", [held.job_id, held.claim_id])
        db.execute("select claim_next_job('somebody else')")
    worker.wait_until_it_logs("async_progress_until_told has cleaned up")
    worker.wait_until_it_logs(f"job {job_id} discarded")


@pytest.mark.parametrize("job_type", ["wait", "async_wait", "process_wait"])
def test_a_handler_is_told_that_its_job_was_cancelled(
    db: Connection, start_worker: StartWorker, job_type: str
) -> None:
    """As an event, by the cancellation of its task, or by the end of its process."""
    worker = start_worker(WORKER_LEASE=LEASE)
    job_id = enqueue(db, job_type=job_type)
    wait_for(db, job_id, "running")
    assert value(db, "select cancel_job(%s)", job_id) == "requested"
    wait_for(db, job_id, "cancelled")
    if job_type == "async_wait":
        worker.wait_until_it_logs(f"async_wait of {job_id} ends, stopping: True")


@pytest.mark.parametrize("job_type", ["wait", "async_wait", "process_wait"])
def test_a_handler_is_told_that_its_claim_was_lost(
    db: Connection, start_worker: StartWorker, job_type: str
) -> None:
    worker = start_worker(WORKER_LEASE=LEASE)
    job_id = enqueue(db, job_type=job_type)
    wait_for(db, job_id, "running")
    held = one(db, "table claims")
    with db.transaction():
        db.execute("select release_job(%s, %s)", [held.job_id, held.claim_id])
        db.execute("select claim_next_job('somebody else', p_lease => '1 hour')")
    worker.wait_until_it_logs(f"job {job_id} discarded, claim {held.claim_id} was lost")
    wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
    assert job(db, job_id).status == "running"


@pytest.mark.parametrize("job_type", ["wait", "async_wait", "process_wait"])
def test_a_job_that_takes_too_long_is_stopped_and_tried_again(
    db: Connection, start_worker: StartWorker, job_type: str
) -> None:
    worker = start_worker()
    job_id = enqueue(db, job_type=job_type, timeout="5 s", max_attempts=2, retry_delay="1 hour")
    worker.wait_until_it_logs(f"job {job_id} failed (timed out after 0:00:05)")
    assert job(db, job_id).status == "queued"


def test_a_thread_that_heeds_nothing_loses_its_timed_out_job_and_nothing_else(
    db: Connection, start_worker: StartWorker
) -> None:
    """Threads cannot be killed. The database ends the run, and what it returns is discarded."""
    worker = start_worker(WORKER_LEASE=LEASE)
    job_id = enqueue(db, job_type="deaf", payload='{"seconds": 6}', timeout="1 s")
    assert wait_for(db, job_id, "failed").result["error"].startswith("timed out")
    wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
    worker.wait_until_it_logs(f"job {job_id} discarded, the job has ended or is queued again")
    assert job(db, job_id).status == "failed"


def test_a_worker_and_its_handlers_need_no_rights_but_those_of_its_role(
    db: Connection, start_worker: StartWorker, written: Any, login: Login
) -> None:
    """Save those on tables of the user's own."""
    login.may_insert_into("written")
    worker = start_worker(DATABASE_URL=login.url)
    for kind in KINDS:
        job_id = enqueue(db, job_type=f"{kind}write", payload='{"then": "complete"}')
        assert wait_for(db, job_id, "succeeded").result == {"written": True}
        progress = enqueue(db, job_type=f"{kind}progress")
        eventually(lambda: job(db, progress).progress)  # noqa: B023
    assert worker.stop() == 0
    assert "permission" not in worker.log
    assert len(written()) == len(KINDS)
