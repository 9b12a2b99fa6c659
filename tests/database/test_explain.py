"""explain_job: why a job is not running."""

from typing import Any

import pytest

from tests.support import (
    UNKNOWN_JOB,
    Connection,
    enqueue,
    everything,
    one,
    raises_and_changes_nothing,
    value,
)

FIRST = {"next": "it is the first of its queue"}


def explain(db: Connection, job_id: Any) -> dict[str, str]:
    """Return the explanation for each reason, having seen that asking changes nothing."""
    before = everything(db)
    rows = db.execute("select * from explain_job(p_job_id => %s)", [job_id]).fetchall()
    assert everything(db) == before
    assert len({row.reason for row in rows}) == len(rows)
    return {row.reason: row.explanation for row in rows}


def see(
    db: Connection,
    worker: str = "w",
    queues: list[str] | None = None,
    job_types: list[str] | None = None,
) -> None:
    """Let a worker ask for work while there is none."""
    asked = db.execute(
        "select * from claim_next_job(p_worker => %s, p_queues => %s, p_job_types => %s)",
        [worker, queues, job_types],
    )
    assert asked.fetchall() == []


def claim_from(db: Connection, queue: str = "default", worker: str | None = "w") -> Any:
    """Claim a job of that queue, which must be there."""
    return one(
        db,
        "select * from claim_next_job(p_worker => %s, p_queues => array[%s])",
        *[worker, queue],
    )


def test_an_unknown_job_is_refused(db: Connection) -> None:
    for unknown in (UNKNOWN_JOB, None):
        with raises_and_changes_nothing(db, "JQ002", "^job .* does not exist"):
            db.execute("select * from explain_job(%s)", [unknown])


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ("select complete_job(%s, %s, '{\"seen\": 1}')", "it has succeeded at "),
        ("select complete_job(%s, %s, '[1]')", "it has succeeded at "),
        ("select fail_job(%s, %s, 'no disk')", "it has failed at "),
    ],
)
def test_a_job_whose_run_is_over_has_ended(db: Connection, end: str, words: str) -> None:
    job_id = enqueue(db)
    held = claim_from(db)
    db.execute(end, [job_id, held.claim_id])
    explained = explain(db, job_id)
    ended_at = str(value(db, "select updated_at::text from jobs"))
    error = ": no disk" if "fail" in end else ""
    assert explained == {"ended": words + ended_at + error}


def test_a_cancelled_job_has_ended(db: Connection) -> None:
    job_id = enqueue(db)
    db.execute("select cancel_job(%s)", [job_id])
    ended_at = value(db, "select updated_at::text from jobs")
    assert explain(db, job_id) == {"ended": f"it has been cancelled at {ended_at}"}


def test_a_running_job_has_a_worker_a_claim_and_a_lease(db: Connection) -> None:
    job_id = enqueue(db)
    held = claim_from(db, worker="anna")
    claimed_at, expires_at = one(
        db, "select claimed_at::text, expires_at::text from claims where job_id = %s", job_id
    )
    running = f"worker anna runs it under claim {held.claim_id} since {claimed_at}; its lease "
    assert explain(db, job_id) == {"running": f"{running}ends at {expires_at}"}

    db.execute("select cancel_job(%s)", [job_id])
    db.execute("update claims set lease = '1 s', expires_at = claimed_at - interval '1 hour'")
    expired_at = value(db, "select expires_at::text from claims")
    assert explain(db, job_id) == {
        "running": f"{running}ended at {expired_at}; it was asked to stop"
    }


def test_a_running_job_may_have_a_worker_without_a_name(db: Connection) -> None:
    job_id = enqueue(db)
    claim_from(db, worker=None)
    assert explain(db, job_id)["running"].startswith("worker (unnamed) runs it under claim ")


def test_a_blocked_job_waits_for_those_of_its_parents_that_have_not_ended(db: Connection) -> None:
    first, second, third = enqueue(db, priority=0), enqueue(db, priority=0), enqueue(db)
    job_id = enqueue(db, depends_on=[first, second, third])
    held = claim_from(db)
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    claim_from(db)
    rows = db.execute("select * from explain_job(%s)", [job_id]).fetchall()
    assert sorted(rows) == sorted(
        [
            ("blocked", f"it waits for job {second}, which is running"),
            ("blocked", f"it waits for job {third}, which is queued"),
        ]
    )


def test_a_blocked_job_with_many_parents_is_explained_by_some_of_them(db: Connection) -> None:
    parents = [enqueue(db) for _ in range(30)]
    job_id = enqueue(db, depends_on=parents)
    rows = db.execute("select * from explain_job(%s)", [job_id]).fetchall()
    assert {row.reason for row in rows} == {"blocked"}
    assert len(rows) == 10


def test_a_job_whose_time_has_not_come_is_scheduled(db: Connection) -> None:
    job_id = enqueue(db, delay="1 hour")
    see(db)
    run_at = value(db, "select run_at::text from jobs")
    assert explain(db, job_id) == {"scheduled": f"it must not run before {run_at}"}


def test_a_job_that_has_failed_waits_for_its_next_attempt(db: Connection) -> None:
    job_id = enqueue(db, max_attempts=3)
    held = claim_from(db)
    db.execute("select fail_job(%s, %s, p_retry_in => '1 hour')", [job_id, held.claim_id])
    see(db)
    run_at = value(db, "select run_at::text from jobs")
    [(reason, explanation)] = explain(db, job_id).items()
    assert reason == "scheduled"
    assert explanation.startswith(f"its next attempt is at {run_at}, after 1 of 3")


def test_a_job_in_a_paused_queue_waits_for_it(db: Connection) -> None:
    see(db)
    job_id = enqueue(db)
    db.execute("select pause_queue('default')")
    assert explain(db, job_id) == {"paused": "queue default is paused", **FIRST}
    db.execute("select resume_queue('default')")
    assert explain(db, job_id).keys() == {"next"}


def test_a_job_waits_while_its_queue_is_at_its_limit(db: Connection) -> None:
    db.execute("""select set_queue('default', '{"concurrency_limit": 2}')""")
    see(db)
    enqueue(db), enqueue(db)
    job_id = enqueue(db)
    held = claim_from(db)
    assert "queue limit" not in explain(db, job_id)
    claim_from(db)
    assert explain(db, job_id) == {
        "queue limit": "queue default runs 2 jobs of at most 2 at once",
        **FIRST,
    }
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    assert explain(db, job_id).keys() == {"next"}


def test_a_job_waits_while_its_key_is_at_its_limit(db: Connection) -> None:
    db.execute("""select set_queue('default', '{"key_concurrency_limit": 1}')""")
    see(db)
    enqueue(db, concurrency_key="a")
    same, other = enqueue(db, concurrency_key="a"), enqueue(db, concurrency_key="b")
    keyless = enqueue(db)
    held = claim_from(db)
    limited = {
        "key limit": "queue default runs 1 jobs with the key a of at most 1 at once",
        **FIRST,
    }
    assert explain(db, same) == limited
    assert "key limit" not in explain(db, other)
    assert "key limit" not in explain(db, keyless)
    # Set aside, it still says the same, and so until its turn comes.
    claim_from(db)
    assert value(db, "select waits_for_key from jobs where id = %s", same)
    assert explain(db, same) == limited
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    assert explain(db, same).keys() == {"next"}


def test_a_job_waits_while_its_queue_has_started_as_many_as_it_may(db: Connection) -> None:
    db.execute("""select set_queue('default', '{"rate_limit": 2, "rate_period": "1 hour"}')""")
    see(db)
    enqueue(db), enqueue(db)
    job_id = enqueue(db)
    claim_from(db)
    assert "rate limit" not in explain(db, job_id)
    claim_from(db)
    explained = explain(db, job_id)
    assert explained.keys() == {"rate limit", "next"}
    words = "queue default starts at most 2 jobs within 01:00:00; the next at "
    assert explained["rate limit"].startswith(words)
    next_at = explained["rate limit"].removeprefix(words)
    assert value(
        db,
        "select %s::timestamptz - clock_timestamp() between '29 minutes' and '31 minutes'",
        next_at,
    )


NO_WORKER = "no worker that has been seen within a minute takes jobs of type mail in queue mails"


@pytest.mark.parametrize(
    ("seen", "takes_it"),
    [
        ({}, True),
        ({"queues": ["mails"]}, True),
        ({"queues": ["default", "mails"], "job_types": ["sleep", "mail"]}, True),
        ({"job_types": ["mail"]}, True),
        ({"queues": ["default"]}, False),
        ({"job_types": ["sleep"]}, False),
        ({"queues": ["mails"], "job_types": ["sleep"]}, False),
    ],
)
def test_a_job_waits_for_a_worker_that_takes_its_queue_and_its_type(
    db: Connection, seen: dict[str, Any], takes_it: bool
) -> None:
    see(db, **seen)
    job_id = enqueue(db, queue="mails", job_type="mail")
    assert explain(db, job_id) == (FIRST if takes_it else {"no worker": NO_WORKER, **FIRST})


def test_a_worker_that_was_not_seen_for_a_minute_does_not_count_unless_it_runs_a_job(
    db: Connection,
) -> None:
    see(db, queues=["mails"])
    enqueue(db, queue="mails", job_type="mail", priority=0)
    job_id = enqueue(db, queue="mails", job_type="mail")
    db.execute("update worker_sightings set seen_at = seen_at - interval '61 seconds'")
    assert explain(db, job_id).keys() == {"no worker", "behind"}
    claim_from(db, "mails")
    db.execute("update worker_sightings set seen_at = now() - interval '61 seconds'")
    assert explain(db, job_id).keys() == {"next"}
    db.execute("update claims set lease = '1 ms', expires_at = now() - interval '1 s'")
    assert explain(db, job_id).keys() == {"no worker", "next"}


@pytest.mark.parametrize("worker", ["w", None])
def test_a_worker_that_has_never_asked_in_vain_counts_while_it_runs_such_a_job(
    db: Connection, worker: str | None
) -> None:
    enqueue(db, queue="mails", job_type="mail", priority=0)
    job_id = enqueue(db, queue="mails", job_type="mail")
    other_type = enqueue(db, queue="mails", job_type="letter", priority=2)
    claim_from(db, "mails", worker)
    db.execute("delete from worker_sightings")  # as ninety-nine claims in a hundred leave it
    assert explain(db, job_id).keys() == {"next"}
    assert "no worker" in explain(db, other_type)


def test_a_job_that_is_not_the_first_of_its_queue_is_behind_the_others(db: Connection) -> None:
    see(db)
    first = enqueue(db, priority=0)
    enqueue(db, priority=1), enqueue(db, priority=2), enqueue(db, queue="other", priority=0)
    enqueue(db, priority=0, delay="1 hour")
    enqueue(db, priority=0, depends_on=[first])
    job_id = enqueue(db, priority=1)
    assert explain(db, first) == FIRST
    assert explain(db, job_id) == {"behind": "2 jobs of its queue come first"}


def test_the_jobs_ahead_are_counted_up_to_a_thousand(db: Connection) -> None:
    see(db)
    db.execute("select enqueue_jobs((select jsonb_agg('{}'::jsonb) from generate_series(1, 1100)))")
    job_id = enqueue(db)
    assert explain(db, job_id) == {"behind": "at least 1000 jobs of its queue come first"}


def test_all_the_reasons_that_hold_are_given(db: Connection) -> None:
    db.execute(
        """
        select set_queue('default', '{"concurrency_limit": 1, "key_concurrency_limit": 1,
                                      "rate_limit": 1, "rate_period": "1 hour", "paused": false}')
        """
    )
    enqueue(db, priority=0, concurrency_key="a")
    enqueue(db, priority=0)
    job_id = enqueue(db, concurrency_key="a", delay="1 hour", job_type="mail")
    claim_from(db, worker=None)  # nobody to be seen
    db.execute("select pause_queue('default')")
    assert explain(db, job_id).keys() == {
        *("scheduled", "paused", "queue limit", "key limit", "rate limit", "no worker"),
    }
