"""list_dead_jobs and retry_jobs: what has failed for good; and report_progress."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support import (
    UNKNOWN_JOB,
    Connection,
    claim,
    enqueue,
    everything,
    in_another_thread,
    one,
    raises_and_changes_nothing,
    value,
    wait_until_blocked,
)


def fail(db: Connection, error: str | None = "no disk", **arguments: Any) -> Any:
    """Return a new job that has failed for good."""
    job_id = enqueue(db, priority=0, **arguments)
    held = claim(db)
    assert held.id == job_id
    assert value(db, "select fail_job(%s, %s, %s, false)", job_id, held.claim_id, error) == "failed"
    return job_id


def dead(db: Connection, **arguments: Any) -> list[Any]:
    """Return the ids of what list_dead_jobs returns."""
    named = ", ".join(f"p_{name} => %({name})s" for name in arguments)
    return [row.id for row in db.execute(f"select * from list_dead_jobs({named})", arguments)]


def retry(db: Connection, **arguments: Any) -> list[tuple[Any, str]]:
    """Return what retry_jobs returns."""
    named = ", ".join(f"p_{name} => %({name})s" for name in arguments)
    rows = db.execute(f"select * from retry_jobs({named})", arguments).fetchall()
    return [(row.id, row.outcome) for row in rows]


def statuses(db: Connection) -> dict[Any, str]:
    """Return the status of each job."""
    return dict(db.execute("select id, status from jobs").fetchall())


def test_dead_letters_are_the_jobs_that_failed_for_good(db: Connection) -> None:
    job_id = fail(
        db, "no disk", job_type="mail", queue="mails", payload=Jsonb({"to": "x"}), max_attempts=7
    )
    failed_at = value(db, "select failed_at from jobs")
    for ending in ("complete_job(%s, %s)", "fail_job(%s, %s, p_retry_in => '1 hour')"):
        enqueue(db, max_attempts=2)
        held = claim(db)
        db.execute(f"select {ending}", [held.id, held.claim_id])
    db.execute("select cancel_job(%s)", [enqueue(db)])
    enqueue(db), enqueue(db)
    claim(db)
    letter = one(db, "select * from list_dead_jobs()")
    assert letter._asdict() == {
        **{"id": job_id, "failed_at": failed_at, "queue": "mails", "job_type": "mail"},
        **{"payload": {"to": "x"}, "error": "no disk", "attempts": 1, "losses": 0, "retries": 0},
    }


def test_dead_letters_count_attempts_losses_and_retries(db: Connection) -> None:
    job_id = fail(db)
    for retries in (1, 2):
        db.execute("select retry_job(%s)", [job_id])
        assert dead(db) == []
        claim(db)
        db.execute("update claims set lease = '1 ms', expires_at = now() - interval '1 s'")
        value(db, "select reclaim_expired_claims()")
        held = claim(db)
        db.execute("select fail_job(%s, %s, %s)", [job_id, held.claim_id, f"error {retries}"])
        letter = one(db, "select * from list_dead_jobs()")
        assert letter[5:] == (f"error {retries}", 1, 1, retries)


def test_a_job_that_failed_without_an_error_is_a_dead_letter_all_the_same(db: Connection) -> None:
    job_id = fail(db, None)
    assert one(db, "select * from list_dead_jobs()")[:1] == (job_id,)
    assert one(db, "select * from list_dead_jobs()").error is None


def test_dead_letters_are_listed_the_last_to_fail_first_page_by_page(db: Connection) -> None:
    early = [enqueue(db) for _ in range(3)]
    jobs = [fail(db) for _ in range(5)]
    for _ in early:  # enqueued first, but the last to fail
        held = claim(db)
        db.execute("select fail_job(%s, %s)", [held.id, held.claim_id])
    expected = [*reversed(early), *reversed(jobs)]
    assert dead(db) == dead(db, limit=None) == expected
    assert dead(db, limit=3) == expected[:3]
    assert dead(db, limit=3, after=expected[2]) == expected[3:6]
    assert dead(db, limit=3, after=expected[5]) == expected[6:]
    assert dead(db, after=expected[-1]) == []
    assert dead(db, limit=0) == []


def test_a_hundred_dead_letters_are_a_page(db: Connection) -> None:
    db.execute("select enqueue_jobs((select jsonb_agg('{}'::jsonb) from generate_series(1, 101)))")
    db.execute(
        """
        select *
          from fail_jobs((select jsonb_agg(jsonb_build_object('job_id', id, 'claim_id', claim_id))
                            from claim_jobs(101)))
        """
    )
    assert len(dead(db)) == 100
    assert len(dead(db, limit=None)) == 101


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_paging_passes_over_none_of_those_that_failed_at_the_same_time(
    db: Connection, limit: int
) -> None:
    jobs = [fail(db) for _ in range(7)]
    for group in (jobs[:2], jobs[2:5], jobs[5:]):
        db.execute(
            "update jobs set failed_at = (select max(failed_at) from jobs where id = any (%s))"
            " where id = any (%s)",
            [group, group],
        )
    paged: list[Any] = []
    for _ in jobs:
        paged += dead(db, limit=limit, after=paged[-1] if paged else None)
    assert paged == jobs[::-1]


def test_a_page_that_begins_after_a_job_that_has_been_retried_since_repeats_nothing(
    db: Connection,
) -> None:
    jobs = [fail(db) for _ in range(4)]
    [newest, last] = dead(db, limit=2)
    db.execute("select retry_job(%s)", [last])
    assert newest not in dead(db, limit=2, after=last)
    assert dead(db, limit=2, after=last) == [jobs[1], jobs[0]]


def test_dead_letters_of_one_queue_or_type(db: Connection) -> None:
    a_sleep, a_mail = fail(db, queue="a"), fail(db, queue="a", job_type="mail")
    b_mail = fail(db, queue="b", job_type="mail")
    assert dead(db, queue="a") == [a_mail, a_sleep]
    assert dead(db, job_type="mail") == [b_mail, a_mail]
    assert dead(db, queue="a", job_type="mail") == [a_mail]
    assert dead(db, queue="c") == []
    assert dead(db, queue="a", after=b_mail, limit=1) == [a_mail]


def test_dead_letters_with_a_part_of_the_error(db: Connection) -> None:
    disk, _, percent = fail(db, "no disk"), fail(db, None), fail(db, "100 % of the disk is full")
    assert dead(db, error="disk") == [percent, disk]
    assert dead(db, error="%") == [percent]
    assert dead(db, error="network") == []
    assert dead(db, error="disk", after=percent) == [disk]


def test_dead_letters_that_failed_within_a_time(db: Connection) -> None:
    jobs = [fail(db) for _ in range(4)]
    failed_at: list[datetime] = [
        value(db, "select failed_at from jobs where id = %s", job_id) for job_id in jobs
    ]
    between = {"failed_after": failed_at[1], "failed_before": failed_at[3]}
    assert dead(db, **between) == [jobs[2], jobs[1]]
    assert dead(db, limit=1, after=jobs[2], **between) == [jobs[1]]
    assert dead(db, failed_after=failed_at[3] + timedelta(microseconds=1)) == []
    assert dead(db, failed_before=failed_at[0]) == []


def test_dead_letters_within_some_queues(db: Connection) -> None:
    a, b, c = fail(db, queue="a"), fail(db, queue="b"), fail(db, queue="c")
    assert dead(db, within_queues=["a", "c"]) == [c, a]
    assert dead(db, queue="b", within_queues=["a", "c"]) == []
    assert dead(db, queue="b", within_queues=["b"]) == [b]
    assert dead(db, within_queues=[]) == []


def test_retrying_many_needs_a_filter(db: Connection) -> None:
    fail(db)
    with raises_and_changes_nothing(db, "JQ001", "^invalid filter"):
        retry(db, within_queues=["default"])
    with raises_and_changes_nothing(db, "JQ001", "^invalid filter"):
        retry(db)
    with raises_and_changes_nothing(db, "JQ001", "^invalid filter"):
        retry(db, limit=1, dry_run=True)


FILTERS: list[tuple[str, str]] = [
    ("queue", "a"),
    ("job_type", "mail"),
    ("error", "disk"),
    ("error", "%"),
]


@pytest.mark.parametrize(("name", "wanted"), FILTERS)
def test_jobs_that_match_a_filter_are_retried_and_no_others(
    db: Connection, name: str, wanted: str
) -> None:
    matching = {"queue": "a", "job_type": "mail", "error": "100 % of the disk is full"}
    others = {"queue": "b", "job_type": "sleep", "error": "no network"}
    first = fail(db, **{**others, name: matching[name]})
    left = [fail(db, **others), fail(db, **{**others, "error": None})]
    second = fail(db, **matching)
    db.execute("select cancel_job(%s)", [enqueue(db, queue="a", job_type="mail")])
    assert retry(db, **{name: wanted}) == [(first, "retried"), (second, "retried")]
    now = statuses(db)
    assert {now[first], now[second]} == {"queued"}
    assert {now[job_id] for job_id in left} == {"failed"}
    assert sorted(now.values()) == ["cancelled", "failed", "failed", "queued", "queued"]


def test_jobs_that_failed_within_a_time_are_retried(db: Connection) -> None:
    jobs = [fail(db) for _ in range(4)]
    failed_at: list[datetime] = [
        value(db, "select failed_at from jobs where id = %s", job_id) for job_id in jobs
    ]
    assert retry(db, failed_after=failed_at[1], failed_before=failed_at[3]) == [
        (jobs[1], "retried"),
        (jobs[2], "retried"),
    ]
    assert retry(db, failed_before=failed_at[1]) == [(jobs[0], "retried")]
    assert retry(db, failed_after=failed_at[3] + timedelta(microseconds=1)) == []
    assert retry(db, failed_after=failed_at[3]) == [(jobs[3], "retried")]


def test_all_that_is_given_must_match(db: Connection) -> None:
    fail(db, "x", queue="a"), fail(db, "x", job_type="mail")
    fail(db, "y", queue="a", job_type="mail")
    match = fail(db, "x", queue="a", job_type="mail")
    assert retry(db, queue="a", job_type="mail", error="x") == [(match, "retried")]


def test_only_what_is_within_the_queues_is_retried(db: Connection) -> None:
    a, b, c = (fail(db, queue=queue) for queue in "abc")
    assert retry(db, error="no disk", within_queues=["a", "c"]) == [(a, "retried"), (c, "retried")]
    assert retry(db, queue="b", within_queues=["a"]) == []
    assert retry(db, queue="b", within_queues=[]) == []
    assert retry(db, queue="b", within_queues=["b"]) == [(b, "retried")]


def test_a_retried_job_has_all_its_attempts_before_it_and_its_history_behind_it(
    db: Connection,
) -> None:
    job_id = fail(db, max_attempts=2)
    assert retry(db, error="no disk") == [(job_id, "retried")]
    job = one(db, "table jobs")
    assert (job.status, job.attempts, job.losses, job.result, job.failed_at) == (
        *("queued", 0, 0, None, None),
    )
    last = db.execute("select * from job_history(%s)", [job_id]).fetchall()[-1]
    assert (last.verb, last.from_status, last.to_status, last.detail) == (
        *("retry", "failed", "queued", {"result": {"error": "no disk"}}),
    )
    assert claim(db).id == job_id


def test_the_history_keeps_the_result_that_retrying_a_job_takes_away(db: Connection) -> None:
    job_id = fail(db, "no disk")
    db.execute("select retry_job(%s)", [job_id])
    db.execute("select cancel_job(%s)", [job_id])
    db.execute("select retry_job(%s)", [job_id])
    retries = db.execute(
        "select from_status, detail from job_history(%s) where verb = 'retry'", [job_id]
    ).fetchall()
    assert retries == [
        ("failed", {"result": {"error": "no disk"}}),
        ("cancelled", {"result": None}),
    ]


def test_a_dry_run_says_what_would_be_retried_and_changes_nothing(db: Connection) -> None:
    jobs = [fail(db) for _ in range(3)]
    before = everything(db)
    would = [(job_id, "would be retried") for job_id in jobs]
    assert retry(db, queue="default", dry_run=True) == would
    assert retry(db, queue="default", dry_run=True, limit=2) == would[:2]
    assert everything(db) == before


def test_a_unique_key_that_is_held_keeps_its_job_dead_and_no_other(db: Connection) -> None:
    first, held, last = fail(db), fail(db, unique_key="k"), fail(db)
    enqueue(db, unique_key="k")
    assert retry(db, queue="default") == [
        (first, "retried"),
        (held, "unique key held"),
        (last, "retried"),
    ]
    assert statuses(db)[held] == "failed"
    assert value(db, "select count(*) from job_history(%s) where verb = 'retry'", held) == 0
    assert dead(db) == [held]


def test_of_two_dead_jobs_with_one_unique_key_one_is_retried(db: Connection) -> None:
    first, second = fail(db, unique_key="k"), fail(db, unique_key="k")
    assert retry(db, queue="default") == [(first, "retried"), (second, "unique key held")]


def test_the_first_to_fail_are_retried_up_to_the_limit(db: Connection) -> None:
    jobs = [fail(db) for _ in range(4)]
    assert [job_id for job_id, _ in retry(db, queue="default", limit=2)] == jobs[:2]
    assert [job_id for job_id, _ in retry(db, queue="default")] == jobs[2:]
    assert retry(db, queue="default") == []


def test_a_dead_job_that_another_transaction_has_locked_is_passed_over(
    connect: Callable[[], Connection],
) -> None:
    db, other = connect(), connect()
    db.execute("set lock_timeout = '10 s'")  # a wait would have no end
    locked, free = fail(db), fail(db)
    with other.transaction(force_rollback=True):
        other.execute("select retry_job(%s)", [locked])
        assert retry(db, queue="default") == [(free, "retried")]
    assert retry(db, queue="default") == [(locked, "retried")]


def progress(db: Connection, job_id: Any) -> tuple[Any, Any]:
    """Return the worker and the progress that get_job shows."""
    job = one(db, "select * from get_job(%s)", job_id)
    return job.worker, job.progress


REPORT = "select report_progress(p_job_id => %s, p_claim_id => %s, p_progress => %s)"


@pytest.mark.parametrize("end", ["complete_job(%s, %s)", "fail_job(%s, %s)", "release_job(%s, %s)"])
def test_progress_is_shown_while_the_run_lasts(db: Connection, end: str) -> None:
    job_id = enqueue(db)
    assert progress(db, job_id) == (None, None)
    held = one(db, "select * from claim_next_job(p_worker => 'w')")
    assert progress(db, job_id) == ("w", None)
    for reported in ({"done": 1, "of": 3}, 0.5, "half", None, [1]):
        db.execute(REPORT, [job_id, held.claim_id, Jsonb(reported)])
        assert progress(db, job_id) == ("w", reported)
    db.execute(f"select {end}", [job_id, held.claim_id])
    assert progress(db, job_id) == (None, None)


def test_the_progress_of_a_run_is_not_that_of_the_next(db: Connection) -> None:
    job_id = enqueue(db)
    held = claim(db)
    db.execute(REPORT, [job_id, held.claim_id, Jsonb(1)])
    db.execute("select release_job(%s, %s)", [job_id, held.claim_id])
    claim(db)
    assert progress(db, job_id) == (None, None)


def test_reporting_progress_changes_no_job_and_renews_no_lease(db: Connection) -> None:
    job_id = enqueue(db)
    held = claim(db)
    before = everything(db)
    db.execute(REPORT, [job_id, held.claim_id, Jsonb(1)])
    assert one(db, "table claims").progress == 1
    db.execute("update claims set progress = null")
    assert everything(db) == before


def test_progress_under_a_claim_that_does_not_hold_is_refused(db: Connection) -> None:
    job_id, other_id = enqueue(db), enqueue(db)
    with raises_and_changes_nothing(db, "JQ003", "is queued, not running"):
        db.execute(REPORT, [job_id, 1, Jsonb(1)])
    held, other = claim(db), claim(db)
    for claim_id in (other.claim_id, None):
        with raises_and_changes_nothing(db, "JQ004", "does not hold job"):
            db.execute(REPORT, [job_id, claim_id, Jsonb(1)])
    with raises_and_changes_nothing(db, "JQ002", "does not exist"):
        db.execute(REPORT, [UNKNOWN_JOB, held.claim_id, Jsonb(1)])
    db.execute("select complete_job(%s, %s)", [other_id, other.claim_id])
    with raises_and_changes_nothing(db, "JQ003", "is succeeded, not running"):
        db.execute(REPORT, [other_id, other.claim_id, Jsonb(1)])


def test_progress_is_at_most_64_kibibytes(db: Connection) -> None:
    job_id = enqueue(db)
    held = claim(db)
    db.execute(REPORT, [job_id, held.claim_id, Jsonb("x" * 65_000)])
    assert progress(db, job_id)[1] == "x" * 65_000
    with raises_and_changes_nothing(db, "JQ001", "^invalid progress: .* bytes"):
        db.execute(REPORT, [job_id, held.claim_id, Jsonb("x" * 65_536)])


def test_keys_are_taken_in_the_order_in_which_enqueue_jobs_takes_them(
    db: Connection, connect: Callable[[], Connection]
) -> None:
    jobs = fail(db, unique_key="b"), fail(db, unique_key="a")
    client, operator = connect(), connect()
    client.execute("begin")
    enqueue(client, unique_key="a")
    with in_another_thread(lambda: retry(operator, queue="default")) as call:
        wait_until_blocked(db, operator, by=client)
        enqueue(client, unique_key="b")  # or each would wait for the other
        client.execute("commit")
        assert call.result() == [(job, "unique key held") for job in jobs]
