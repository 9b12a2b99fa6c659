"""p_timeout and time_out_jobs: an attempt has an end, however alive its worker is."""

from collections.abc import Callable

import pytest

from tests.support import Connection, claim, enqueue, one, raises_and_changes_nothing, value

TIME_OUT = "select time_out_jobs()"


def overrun(db: Connection) -> None:
    """Let the deadline of every running job pass."""
    db.execute("update claims set deadline_at = clock_timestamp() where deadline_at is not null")


def test_the_deadline_is_the_timeout_after_the_claim(db: Connection) -> None:
    enqueue(db), enqueue(db, timeout="5 minutes")
    assert [claim(db).timeout for _ in range(2)] == [None, value(db, "select interval '5 min'")]
    rows = db.execute("select (deadline_at - claimed_at)::text from claims order by claim_id")
    assert [row[0] and row[0][:5] for row in rows] == [None, "00:05"]


def test_a_job_in_time_is_left_alone(db: Connection) -> None:
    enqueue(db), enqueue(db, timeout="5 minutes")
    claim(db), claim(db)
    overrun_none = value(db, TIME_OUT)
    assert overrun_none == 0


def test_a_job_out_of_time_fails_with_its_own_reason_and_its_worker_is_refused(
    db: Connection,
) -> None:
    job_id = enqueue(db, timeout="5 minutes")
    held = claim(db)
    db.execute(
        "update claims set claimed_at = claimed_at - interval '1 s',"
        " deadline_at = claimed_at - interval '999 ms', lease = '1 day'"
    )
    assert value(db, TIME_OUT) == 1
    job = one(db, "table jobs")
    assert (job.status, job.attempts, job.losses) == ("failed", 1, 0)
    assert job.result == {"error": "timed out after 00:00:00.001"}
    with raises_and_changes_nothing(db, "JQ003", "is failed, not running"):
        db.execute("select complete_job(%s, %s)", [job_id, held.claim_id])


def test_a_job_out_of_time_is_tried_again_while_attempts_are_left(db: Connection) -> None:
    enqueue(db, timeout="5 minutes", max_attempts=2, retry_delay="0")
    for status in ("queued", "failed"):
        claim(db)
        overrun(db)
        assert value(db, TIME_OUT) == 1
        assert one(db, "table jobs").status == status


def test_a_run_that_was_lost_does_not_fail_for_being_out_of_time_too(db: Connection) -> None:
    enqueue(db, timeout="5 minutes")
    claim(db)
    overrun(db)
    db.execute("update claims set lease = '1 ms', expires_at = clock_timestamp()")
    done = value(db, "select run_maintenance()")
    assert (done["timed_out"], done["reclaimed"]) == (0, 1)
    job = one(db, "table jobs")
    assert (job.status, job.attempts, job.losses) == ("queued", 0, 1)


def test_a_heartbeat_does_not_move_the_deadline(db: Connection) -> None:
    enqueue(db, timeout="5 minutes")
    held = claim(db)
    before = value(db, "select deadline_at from claims")
    db.execute("select * from heartbeat(%s, '1 day')", [[held.claim_id]])
    assert value(db, "select deadline_at from claims") == before


def test_a_job_that_was_asked_to_stop_and_runs_out_of_time_is_cancelled(db: Connection) -> None:
    job_id = enqueue(db, timeout="5 minutes", max_attempts=9)
    claim(db)
    db.execute("select cancel_job(%s)", [job_id])
    overrun(db)
    value(db, TIME_OUT)
    assert one(db, "table jobs").status == "cancelled"


def test_claiming_times_out_with_no_other_help(db: Connection) -> None:
    job_id = enqueue(db, timeout="5 minutes", max_attempts=2, retry_delay="0")
    claim(db)
    overrun(db)
    db.execute("select setval('reclaim_due', 0)")  # as it is a second later
    assert claim(db).id == job_id


@pytest.mark.parametrize("verb", ["complete_job", "fail_job", "release_job"])
def test_timing_out_does_not_wait_for_a_claim_that_is_being_ended(
    connect: Callable[[], Connection], verb: str
) -> None:
    worker, other = connect(), connect()
    enqueue(worker, timeout="5 minutes")
    held = claim(worker)
    overrun(worker)
    with worker.transaction():
        worker.execute(f"select {verb}(%s, %s)", [held.id, held.claim_id])
        assert value(other, TIME_OUT) == 0
