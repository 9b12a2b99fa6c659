"""Attempts and the waits between them: fail_job, snooze_job, release_job and retry_job."""

from typing import Any

import pytest

from tests.support import Connection, claim, enqueue, one, raises_and_changes_nothing, value


def fail(db: Connection, **arguments: Any) -> str:
    """Let a ready job fail, and return its new status."""
    db.execute("update jobs set run_at = created_at where status = 'queued'")  # it is time
    held = claim(db)
    named = "".join(f", p_{name} => %({name})s" for name in arguments)
    row = db.execute(
        f"select fail_job(p_job_id => %(id)s, p_claim_id => %(claim_id)s{named})",
        {"id": held.id, "claim_id": held.claim_id, **arguments},
    ).fetchone()
    assert row is not None
    return str(row[0])


def test_a_failed_job_stays_failed_unless_asked_otherwise(db: Connection) -> None:
    enqueue(db)
    assert fail(db) == "failed"


@pytest.mark.parametrize("max_attempts", [2, 3, 10])
def test_a_failed_attempt_is_followed_by_another_while_any_are_left(
    db: Connection, max_attempts: int
) -> None:
    enqueue(db, max_attempts=max_attempts)
    statuses = [fail(db, error=f"error {number}") for number in range(1, max_attempts + 1)]
    assert statuses == ["queued"] * (max_attempts - 1) + ["failed"]
    job = one(db, "table jobs")
    assert (job.attempts, job.result) == (max_attempts, {"error": f"error {max_attempts}"})
    errors = db.execute("select detail ->> 'error' from job_events where verb = 'fail'").fetchall()
    assert [row[0] for row in errors] == [f"error {n}" for n in range(1, max_attempts + 1)]


def test_an_error_that_is_not_retryable_fails_the_job_at_once(db: Connection) -> None:
    enqueue(db, max_attempts=5)
    assert fail(db, retryable=False) == "failed"


def test_a_job_that_will_be_retried_has_no_result_yet(db: Connection) -> None:
    enqueue(db, max_attempts=2)
    fail(db, error="no")
    assert one(db, "table jobs").result is None


def test_the_worker_may_say_when_to_retry(db: Connection) -> None:
    enqueue(db, max_attempts=2)
    fail(db, retry_in="2 hours")
    assert value(db, "select run_at - now() between '119 min' and '121 min' from jobs")


@pytest.mark.parametrize("retry_in", ["-1 second", "11 years"])
def test_a_wrong_retry_in_is_refused(db: Connection, retry_in: str) -> None:
    enqueue(db, max_attempts=2)
    held = claim(db)
    with raises_and_changes_nothing(db, "JQ001", "^invalid retry_in"):
        db.execute("select fail_job(%s, %s, p_retry_in => %s)", [held.id, held.claim_id, retry_in])


def test_the_wait_is_random_doubles_and_is_capped(db: Connection) -> None:
    for _ in range(200):
        enqueue(db, max_attempts=8, retry_delay="10 seconds", retry_delay_max="60 seconds")
    for attempt, longest in enumerate([10, 20, 40, 60, 60, 60], start=1):
        db.execute("update jobs set run_at = created_at")  # it is time for all of them
        for _ in range(200):
            held = claim(db)
            db.execute("select fail_job(%s, %s)", [held.id, held.claim_id])
        waits = [
            float(row[0])
            for row in db.execute(
                "select extract(epoch from run_at - updated_at) from jobs where attempts = %s",
                [attempt],
            )
        ]
        assert len(waits) == 200
        assert -1 <= min(waits) < longest * 0.1  # 200 draws that all miss a tenth: 1 in 10^9
        assert longest * 0.9 < max(waits) <= longest


def test_the_longest_waits_cannot_make_the_failure_fail(db: Connection) -> None:
    enqueue(db, max_attempts=2**31 - 1, retry_delay="1 year", retry_delay_max="1 year")
    db.execute("update jobs set attempts = max_attempts - 2")
    assert fail(db) == "queued"


def test_snoozing_spends_no_attempt(db: Connection) -> None:
    job_id = enqueue(db)
    held = claim(db)
    db.execute("select snooze_job(%s, %s, p_delay => '1 hour')", [job_id, held.claim_id])
    job = one(db, "table jobs")
    assert (job.status, job.attempts) == ("queued", 0)
    assert value(db, "select run_at - now() between '59 min' and '61 min' from jobs")
    assert db.execute("select * from claim_next_job()").fetchall() == []
    assert fail(db) == "failed"


@pytest.mark.parametrize("delay", ["-1 second", "11 years", None])
def test_a_wrong_delay_is_refused(db: Connection, delay: str | None) -> None:
    enqueue(db)
    held = claim(db)
    with raises_and_changes_nothing(db, "JQ001", "^invalid delay"):
        db.execute("select snooze_job(%s, %s, %s)", [held.id, held.claim_id, delay])


def test_neither_release_nor_the_loss_of_a_worker_spends_an_attempt(db: Connection) -> None:
    job_id = enqueue(db)
    held = claim(db)
    db.execute("select release_job(%s, %s)", [job_id, held.claim_id])
    claim(db)
    db.execute("update claims set lease = '1 ms', expires_at = now() - interval '1 s'")
    value(db, "select reclaim_expired_claims()")
    assert one(db, "table jobs").attempts == 0
    assert fail(db) == "failed"


def test_retrying_gives_a_failed_job_all_its_attempts_anew(db: Connection) -> None:
    job_id = enqueue(db, max_attempts=2)
    fail(db), fail(db)
    assert one(db, "table jobs").status == "failed"
    db.execute("select retry_job(p_job_id => %s)", [job_id])
    job = one(db, "table jobs")
    assert (job.status, job.attempts, job.losses, job.result) == ("queued", 0, 0, None)
    assert (fail(db), fail(db)) == ("queued", "failed")
    verbs = [row[0] for row in db.execute("select verb from job_history(%s)", [job_id])]
    assert verbs == ["enqueue", *["claim", "fail"] * 2, "retry", *["claim", "fail"] * 2]
