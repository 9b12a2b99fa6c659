"""cancel_job: at once while the job waits, at the end of its run while it runs, never too late."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.support import (
    Connection,
    claim,
    enqueue,
    in_another_thread,
    one,
    value,
    wait_until_blocked,
)

CANCEL = "select cancel_job(p_job_id => %s)"

ENDING_A_RUN = {
    "fail": "select fail_job(%s, %s)",
    "snooze": "select snooze_job(%s, %s, '0')",
    "release": "select release_job(%s, %s)",
}


def heartbeat(db: Connection, claim_id: int) -> Any:
    """Return what heartbeat says of a claim."""
    return one(db, "select * from heartbeat(%s)", [claim_id])


def test_a_waiting_job_is_cancelled_at_once(db: Connection) -> None:
    job_id = enqueue(db)
    assert value(db, CANCEL, job_id) == "cancelled"
    assert one(db, "table jobs").status == "cancelled"
    assert db.execute("select * from claim_next_job()").fetchall() == []


def test_a_running_job_is_asked_to_stop(db: Connection) -> None:
    job_id = enqueue(db)
    held = claim(db)
    assert not heartbeat(db, held.claim_id).cancel_requested
    assert value(db, CANCEL, job_id) == "requested"
    assert one(db, "table jobs").status == "running"
    answer = heartbeat(db, held.claim_id)
    assert (answer.held, answer.cancel_requested) == (True, True)
    assert value(db, CANCEL, job_id) == "requested"


@pytest.mark.parametrize("verb", ENDING_A_RUN)
def test_a_run_that_was_asked_to_stop_ends_cancelled_and_is_never_retried(
    db: Connection, verb: str
) -> None:
    job_id = enqueue(db, max_attempts=10)
    held = claim(db)
    value(db, CANCEL, job_id)
    db.execute(ENDING_A_RUN[verb], [job_id, held.claim_id])
    job = one(db, "table jobs")
    assert (job.status, job.result) == ("cancelled", None)
    assert db.execute("select * from claim_next_job()").fetchall() == []
    last = db.execute("select verb, to_status from job_history(%s)", [job_id]).fetchall()[-1]
    assert tuple(last) == (verb, "cancelled")


def test_a_run_that_was_asked_to_stop_but_succeeds_has_succeeded(db: Connection) -> None:
    job_id = enqueue(db)
    held = claim(db)
    value(db, CANCEL, job_id)
    db.execute("select complete_job(%s, %s, '1')", [job_id, held.claim_id])
    assert one(db, "table jobs").status == "succeeded"
    assert value(db, CANCEL, job_id) == "too late"


def test_a_run_that_was_asked_to_stop_is_cancelled_when_its_lease_ends(db: Connection) -> None:
    job_id = enqueue(db)
    claim(db)
    value(db, CANCEL, job_id)
    db.execute("update claims set lease = '1 ms', expires_at = now() - interval '1 s'")
    value(db, "select reclaim_expired_claims()")
    assert one(db, "table jobs").status == "cancelled"


def test_a_cancelled_job_can_be_retried(db: Connection) -> None:
    job_id = enqueue(db)
    value(db, CANCEL, job_id)
    db.execute("select retry_job(%s)", [job_id])
    assert claim(db).id == job_id
    assert not value(db, "select cancel_requested from jobs")


@pytest.mark.parametrize(
    ("outcome", "answer"), [("commit", "requested"), ("rollback", "cancelled")]
)
def test_a_cancel_that_meets_a_claim_waits_and_tells_what_came_of_it(
    connect: Callable[[], Connection], outcome: str, answer: str
) -> None:
    worker, client, observer = connect(), connect(), connect()
    job_id = enqueue(observer)
    worker.execute("begin")
    claim(worker)
    with in_another_thread(lambda: value(client, CANCEL, job_id)) as call:
        wait_until_blocked(observer, client, by=worker)
        worker.execute(outcome)
        assert call.result() == answer


@pytest.mark.parametrize(
    ("verb", "committed"),
    [
        ("select complete_job(%s, %s)", "too late"),
        ("select fail_job(%s, %s)", "too late"),
        ("select release_job(%s, %s)", "cancelled"),
    ],
)
@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_cancel_that_meets_the_end_of_a_run_waits_and_tells_what_came_of_it(
    connect: Callable[[], Connection], verb: str, committed: str, outcome: str
) -> None:
    worker, client, observer = connect(), connect(), connect()
    job_id = enqueue(observer)
    held = claim(worker)
    worker.execute("begin")
    worker.execute(verb, [job_id, held.claim_id])
    with in_another_thread(lambda: value(client, CANCEL, job_id)) as call:
        wait_until_blocked(observer, client, by=worker)
        worker.execute(outcome)
        assert call.result() == (committed if outcome == "commit" else "requested")


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
@pytest.mark.parametrize(
    ("call", "otherwise"),
    [
        (ENDING_A_RUN["fail"], "failed"),
        (ENDING_A_RUN["snooze"], "queued"),
        (ENDING_A_RUN["release"], "queued"),
    ],
)
def test_the_end_of_a_run_that_meets_a_cancel_waits_and_heeds_it(
    connect: Callable[[], Connection], call: str, otherwise: str, outcome: str
) -> None:
    worker, client, observer = connect(), connect(), connect()
    job_id = enqueue(observer)
    held = claim(worker)
    client.execute("begin")
    value(client, CANCEL, job_id)
    with in_another_thread(lambda: worker.execute(call, [job_id, held.claim_id])) as ending:
        wait_until_blocked(observer, worker, by=client)
        client.execute(outcome)
        ending.result()
    expected = "cancelled" if outcome == "commit" else otherwise
    assert one(observer, "table jobs").status == expected


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
@pytest.mark.parametrize(
    ("call", "lease_ends_in", "otherwise"),
    [
        ("select reclaim_expired_claims()", "-1 s", "queued"),
        ("select time_out_jobs()", "1 hour", "failed"),
    ],
)
def test_recovery_that_meets_a_cancel_passes_the_run_over_and_heeds_it_the_next_time(
    connect: Callable[[], Connection],
    call: str,
    lease_ends_in: str,
    otherwise: str,
    outcome: str,
) -> None:
    worker, client = connect(), connect()
    job_id = enqueue(worker, timeout="1 hour")
    claim(worker)
    worker.execute(
        "update claims set lease = '1 ms', expires_at = clock_timestamp() + %s::interval,"
        " deadline_at = clock_timestamp()",
        [lease_ends_in],
    )
    client.execute("begin")
    value(client, CANCEL, job_id)
    assert value(worker, call) == 0
    assert one(worker, "table jobs").status == "running"
    client.execute(outcome)
    assert value(worker, call) == 1
    expected = "cancelled" if outcome == "commit" else otherwise
    assert one(worker, "table jobs").status == expected


def test_a_claim_skips_a_job_that_is_being_cancelled(connect: Callable[[], Connection]) -> None:
    worker, client = connect(), connect()
    job_id = enqueue(client)
    with client.transaction():
        value(client, CANCEL, job_id)
        assert worker.execute("select * from claim_next_job()").fetchall() == []
    assert one(worker, "table jobs").status == "cancelled"


def test_of_two_retries_the_second_is_refused(connect: Callable[[], Connection]) -> None:
    one_client, other_client, observer = connect(), connect(), connect()
    job_id = enqueue(observer)
    value(observer, CANCEL, job_id)
    retry = "select retry_job(%s)"
    one_client.execute("begin")
    one_client.execute(retry, [job_id])
    with in_another_thread(lambda: other_client.execute(retry, [job_id])) as call:
        wait_until_blocked(observer, other_client, by=one_client)
        one_client.execute("commit")
        with pytest.raises(psycopg.DatabaseError) as raised:
            call.result()
    assert raised.value.sqlstate == "JQ006"
    assert one(observer, "select count(*) from job_events where verb = 'retry'")[0] == 1


def test_a_cancel_that_waited_for_a_claim_cannot_deadlock_with_the_end_of_the_run(
    connect: Callable[[], Connection],
) -> None:
    worker, client, observer = connect(), connect(), connect()
    job_id = enqueue(observer)
    worker.execute("begin")
    held = claim(worker)
    client.execute("begin")
    with in_another_thread(lambda: value(client, CANCEL, job_id)) as call:
        wait_until_blocked(observer, client, by=worker)
        worker.execute("commit")
        assert call.result() == "requested"
    with in_another_thread(
        lambda: worker.execute("select complete_job(%s, %s)", [job_id, held.claim_id])
    ) as completion:
        wait_until_blocked(observer, worker, by=client)
        assert value(client, CANCEL, job_id) == "requested"
        client.execute("commit")
        completion.result()
    assert one(observer, "table jobs").status == "succeeded"
