"""cancel_jobs: many that have not ended, at once."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.support import (
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


def cancel(db: Connection, **arguments: Any) -> dict[Any, str]:
    """Return what cancel_jobs returns: each job but once, with its outcome."""
    named = ", ".join(f"p_{name} => %({name})s" for name in arguments)
    rows = db.execute(f"select * from cancel_jobs({named})", arguments).fetchall()
    assert len({row.id for row in rows}) == len(rows)
    return {row.id: row.outcome for row in rows}


def statuses(db: Connection) -> dict[Any, str]:
    """Return the status of each job."""
    return dict(db.execute("select id, status from jobs").fetchall())


def one_of_each(db: Connection, **arguments: Any) -> dict[str, Any]:
    """Return a job in each place where one that has not ended can be, and one that has."""
    db.execute("select set_queue('default', '{\"key_concurrency_limit\": 1}')")
    jobs = {"running": enqueue(db, priority=0, concurrency_key="key", **arguments)}
    claim(db)
    jobs["aside"] = enqueue(db, priority=0, concurrency_key="key", **arguments)
    assert db.execute("select from claim_next_job()").fetchall() == []
    assert value(db, "select waits_for_key from jobs where id = %s", jobs["aside"])
    jobs["over"] = enqueue(db, priority=0, **arguments)
    held = claim(db)
    assert held.id == jobs["over"]
    db.execute("select fail_job(%s, %s)", [held.id, held.claim_id])
    jobs["queued"] = enqueue(db, **arguments)
    jobs["later"] = enqueue(db, delay="1 hour", **arguments)
    jobs["blocked"] = enqueue(db, depends_on=[jobs["running"]], **arguments)
    return jobs


def test_cancelling_many_needs_a_filter(db: Connection) -> None:
    enqueue(db)
    for arguments in ({}, {"within_queues": ["default"]}, {"limit": 1, "dry_run": True}):
        with raises_and_changes_nothing(db, "JQ001", "^invalid filter"):
            cancel(db, **arguments)


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled", "done", ""])
def test_what_has_ended_cannot_be_asked_for(db: Connection, status: str) -> None:
    enqueue(db)
    with raises_and_changes_nothing(db, "JQ001", "^invalid status"):
        cancel(db, status=status)


def test_whatever_has_not_ended_is_cancelled_or_asked_to_stop(db: Connection) -> None:
    jobs = one_of_each(db)
    assert cancel(db, queue="default") == {
        jobs["aside"]: "cancelled",
        jobs["queued"]: "cancelled",
        jobs["later"]: "cancelled",
        jobs["blocked"]: "cancelled",
        jobs["running"]: "requested",
    }
    now = statuses(db)
    assert now[jobs["running"]] == "running"
    assert now[jobs["over"]] == "failed"
    assert sorted(now.values()) == ["cancelled"] * 4 + ["failed", "running"]
    assert cancel(db, queue="default") == {}
    held = one(db, "select * from heartbeat(array(select claim_id from claims))")
    assert held.cancel_requested


def test_each_cancelled_job_has_one_line_of_history(db: Connection) -> None:
    one_of_each(db)
    cancelled = cancel(db, created_before="infinity")
    lines = db.execute("select job_id from job_events where verb = 'cancel'").fetchall()
    assert sorted(row.job_id for row in lines) == sorted(cancelled)


@pytest.mark.parametrize(
    ("status", "expected"),
    [("blocked", ["blocked"]), ("queued", ["aside", "later", "queued"]), ("running", ["running"])],
)
def test_jobs_of_one_status_are_cancelled(db: Connection, status: str, expected: list[str]) -> None:
    jobs = one_of_each(db)
    assert cancel(db, status=status).keys() == {jobs[name] for name in expected}


@pytest.mark.parametrize("wanted", [{"queue": "a"}, {"job_type": "mail"}, {"unique_key": "key"}])
def test_jobs_that_match_a_filter_are_cancelled_and_no_others(
    db: Connection, wanted: dict[str, str]
) -> None:
    matching = {"queue": "a", "job_type": "mail", "unique_key": "key"}
    others = {"queue": "b", "job_type": "sleep", "unique_key": "other"}
    first = enqueue(db, **{**others, **wanted})
    left = [enqueue(db, **{**others, "unique_key": "another"}), enqueue(db, queue="0")]
    left.append(enqueue(db, queue="z"))
    expected = {first}
    if "queue" not in wanted:
        expected.add(enqueue(db, **{**matching, "queue": "c"}))
    assert cancel(db, **wanted).keys() == expected
    now = statuses(db)
    assert {now[job_id] for job_id in left} == {"queued"}


def test_all_that_is_given_must_match(db: Connection) -> None:
    enqueue(db, queue="a"), enqueue(db, job_type="mail")
    match = enqueue(db, queue="a", job_type="mail")
    assert cancel(db, queue="a", job_type="mail") == {match: "cancelled"}
    held = enqueue(db, queue="a", unique_key="key")
    assert cancel(db, unique_key="key", status="running") == {}
    assert cancel(db, unique_key="key", queue="b") == {}
    assert cancel(db, unique_key="key", queue="a", status="queued") == {held: "cancelled"}


@pytest.mark.parametrize("status", ["queued", "running", "blocked"])
def test_a_unique_key_finds_its_job_in_whatever_status(db: Connection, status: str) -> None:
    depends_on = [enqueue(db, delay="1 hour")] if status == "blocked" else None
    job_id = enqueue(db, unique_key="key", depends_on=depends_on)
    if status == "running":
        claim(db)
    assert cancel(db, unique_key="key").keys() == {job_id}


def test_jobs_that_were_created_within_a_time_are_cancelled(db: Connection) -> None:
    jobs = [enqueue(db) for _ in range(4)]
    times: list[datetime] = [
        value(db, "select created_at from jobs where id = %s", job_id) for job_id in jobs
    ]
    between = {"created_after": times[1], "created_before": times[3]}
    assert cancel(db, **between).keys() == {jobs[1], jobs[2]}
    assert cancel(db, created_before=times[1]).keys() == {jobs[0]}
    assert cancel(db, created_after=times[3] + timedelta(microseconds=1)) == {}
    assert cancel(db, created_after=times[3]).keys() == {jobs[3]}


def test_only_what_is_within_the_queues_is_touched(db: Connection) -> None:
    a, b, c = (enqueue(db, queue=queue, job_type="mail") for queue in "abc")
    assert cancel(db, job_type="mail", within_queues=["a", "c"]).keys() == {a, c}
    assert cancel(db, queue="b", within_queues=["a"]) == {}
    assert cancel(db, queue="b", within_queues=[]) == {}
    assert cancel(db, queue="b", within_queues=["b"]).keys() == {b}


def test_at_most_so_many_are_cancelled_those_that_wait_first(db: Connection) -> None:
    running = enqueue(db)
    claim(db)
    waiting = {enqueue(db) for _ in range(3)}
    first = cancel(db, queue="default", limit=2).keys()
    assert len(first) == 2
    assert first < waiting
    assert cancel(db, queue="default", limit=2).keys() == {running, *waiting} - first
    assert cancel(db, queue="default", limit=0) == {}


def test_a_thousand_are_cancelled_at_a_time_unless_asked_otherwise(db: Connection) -> None:
    db.execute("insert into jobs (sleep_seconds) select 0 from generate_series(1, 1005)")
    assert len(cancel(db, queue="default", dry_run=True)) == 1000
    assert len(cancel(db, queue="default", dry_run=True, limit=None)) == 1005


def test_a_dry_run_says_what_would_be_cancelled_and_changes_nothing(db: Connection) -> None:
    jobs = one_of_each(db)
    before = everything(db)
    would = cancel(db, queue="default", dry_run=True)
    assert set(would.values()) == {"would be cancelled"}
    assert would.keys() == set(jobs.values()) - {jobs["over"]}
    assert everything(db) == before


def test_a_child_that_its_parent_takes_along_is_among_them_if_it_matches(db: Connection) -> None:
    parent = enqueue(db)
    child = enqueue(db, depends_on=[parent])
    other = enqueue(db, queue="other", depends_on=[parent])
    assert cancel(db, queue="default") == {parent: "cancelled", child: "cancelled"}
    assert statuses(db)[other] == "cancelled"


def test_a_job_that_was_cancelled_while_it_was_blocked_and_retried_is_found_once(
    db: Connection,
) -> None:
    parent = enqueue(db, delay="1 hour")
    child = enqueue(db, depends_on=[parent])
    db.execute("select cancel_job(%s)", [child])
    db.execute("select retry_job(%s)", [child])
    assert value(db, "select count(*) from job_dependencies where job_id = %s", child) == 1
    assert cancel(db, queue="default", status="blocked") == {}
    assert cancel(db, queue="default") == {child: "cancelled", parent: "cancelled"}


@pytest.mark.parametrize(
    "verb", ["select cancel_job(%s)", "select from jobs where id = %s for update"]
)
def test_a_job_that_another_transaction_has_locked_is_passed_over(
    connect: Callable[[], Connection], verb: str
) -> None:
    db, other = connect(), connect()
    db.execute("set lock_timeout = '10 s'")  # a wait would have no end
    locked, free = enqueue(db), enqueue(db)
    with other.transaction(force_rollback=True):
        other.execute(verb, [locked])
        assert cancel(db, queue="default", limit=1) == {free: "cancelled"}
    assert cancel(db, queue="default") == {locked: "cancelled"}


def test_two_that_cancel_the_same_jobs_share_them_and_do_not_wait(
    connect: Callable[[], Connection],
) -> None:
    db, other = connect(), connect()
    db.execute("set lock_timeout = '10 s'")
    jobs = {enqueue(db) for _ in range(4)}
    with other.transaction():
        first = cancel(other, queue="default", limit=2).keys()
        second = cancel(db, queue="default").keys()
    assert first | second == jobs
    assert not first & second


def test_a_run_that_ends_waits_for_it_and_is_cancelled(connect: Callable[[], Connection]) -> None:
    db, worker, observer = connect(), connect(), connect()
    job_id = enqueue(db, max_attempts=2)
    held = claim(worker)
    fail = "select fail_job(%s, %s)"
    with db.transaction():
        assert cancel(db, queue="default") == {job_id: "requested"}
        with in_another_thread(lambda: value(worker, fail, job_id, held.claim_id)) as failing:
            wait_until_blocked(observer, worker, db)
            db.execute("commit; begin")
        assert failing.result() == "cancelled"


def test_ended_jobs_cost_it_nothing(db: Connection) -> None:
    db.execute(
        "insert into jobs (status, claimable) select 'succeeded', false"
        " from generate_series(1, 3000)"
    )
    jobs = one_of_each(db)
    read = "select sum(idx_tup_fetch)::int from pg_stat_xact_user_tables where relname = 'jobs'"
    with db.transaction():
        before = value(db, read)
        assert len(cancel(db, created_before="infinity")) == len(jobs) - 1
        assert value(db, read) - before < 200
