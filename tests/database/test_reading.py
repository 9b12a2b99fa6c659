"""get_job, list_jobs, ended_jobs, list_queues and list_schedules."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support import (
    UNKNOWN_JOB,
    Connection,
    claim,
    enqueue,
    one,
    raises_and_changes_nothing,
    value,
)


def listed(db: Connection, **arguments: Any) -> list[Any]:
    """Return the ids of what list_jobs returns."""
    named = ", ".join(f"p_{name} => %({name})s" for name in arguments)
    return [row.id for row in db.execute(f"select id from list_jobs({named})", arguments)]


def one_in_each_status(db: Connection) -> dict[str, Any]:
    """Return a job in each status, oldest first."""
    jobs = {}
    for status, end in {
        "succeeded": 'complete_job(%s, %s, \'{"error": "none"}\')',
        "failed": "fail_job(%s, %s, '100 % of the disk is full', false)",
    }.items():
        jobs[status] = enqueue(db)
        held = claim(db)
        db.execute(f"select {end.replace('100 %', '100 %%')}", [held.id, held.claim_id])
    jobs["cancelled"] = enqueue(db)
    db.execute("select cancel_job(%s)", [jobs["cancelled"]])
    jobs["running"] = enqueue(db)
    claim(db)
    jobs["queued"] = enqueue(db)
    jobs["blocked"] = enqueue(db, depends_on=[jobs["queued"], jobs["running"]])
    return jobs


def test_get_returns_the_job(db: Connection) -> None:
    job_id = enqueue(db, sleep_seconds=2, message="hello")
    found = one(db, "select * from get_job(p_job_id => %s)", job_id)
    columns = (
        "id, status, sleep_seconds, message, result, created_at, updated_at, job_type, payload,"
        " queue, priority, run_at, attempts, max_attempts, losses, max_losses, timeout, unique_key,"
        " concurrency_key, depends_on, cancel_requested, failed_at"
    )
    later = "retry_delay, retry_delay_max, trace_context"
    assert found[:-5] == one(db, f"select {columns} from jobs")
    assert found[-3:] == one(db, f"select {later} from jobs")
    assert found._fields == (*columns.split(", "), "worker", "progress", *later.split(", "))


def test_get_returns_no_row_for_an_unknown_job(db: Connection) -> None:
    enqueue(db)
    assert db.execute("select * from get_job(%s)", [UNKNOWN_JOB]).fetchall() == []


def test_get_sees_a_job_that_the_same_statement_enqueued(db: Connection) -> None:
    row = one(
        db,
        "select job.status from enqueue_job() as id cross join lateral get_job(id) as job",
    )
    assert row.status == "queued"


def test_list_returns_jobs_of_every_status_newest_first(db: Connection) -> None:
    job_ids = [enqueue(db) for _ in range(4)]
    for verb in ("complete_job(%s, %s)", "fail_job(%s, %s)"):
        held = claim(db)
        db.execute(f"select {verb}", [held.id, held.claim_id])
    claim(db)
    jobs = db.execute("select * from list_jobs()").fetchall()
    assert [job.id for job in jobs] == job_ids[::-1]
    assert [job.status for job in jobs] == ["queued", "running", "failed", "succeeded"]
    shown = one(db, "select * from get_job(%s)", job_ids[0])._fields
    assert jobs[0]._fields == shown[: len(jobs[0])]


def test_pages_of_a_list_join_without_gap_or_overlap(db: Connection) -> None:
    job_ids = [enqueue(db) for _ in range(7)]
    after, seen = None, []
    while page := db.execute("select id from list_jobs(3, %s)", [after]).fetchall():
        assert len(page) <= 3
        seen += [row.id for row in page]
        after = seen[-1]
        enqueue(db)  # arrives while the list is being read: before the first page
    assert seen == job_ids[::-1]


def test_list_returns_100_jobs_unless_asked_otherwise(db: Connection) -> None:
    db.execute("insert into jobs (sleep_seconds) select 0 from generate_series(1, 105)")
    assert len(db.execute("select from list_jobs()").fetchall()) == 100
    assert len(db.execute("select from list_jobs(p_limit => null)").fetchall()) == 105


STATUSES = ["blocked", "queued", "running", "succeeded", "failed", "cancelled"]


@pytest.mark.parametrize(
    "statuses",
    [
        *([status] for status in STATUSES),
        ["running", "failed"],
        ["failed", "succeeded"],
        ["blocked", "queued", "running"],
        STATUSES,
        [],
    ],
)
def test_list_returns_the_jobs_in_one_of_these_statuses(
    db: Connection, statuses: list[str]
) -> None:
    jobs = one_in_each_status(db)
    expected = [job_id for status, job_id in reversed(jobs.items()) if status in statuses]
    assert listed(db, statuses=statuses) == expected
    assert listed(db, statuses=statuses, limit=1) == expected[:1]
    if expected:
        assert listed(db, statuses=statuses, after=expected[0]) == expected[1:]


def test_a_queued_job_is_listed_also_while_it_is_set_aside(db: Connection) -> None:
    db.execute("select set_queue('default', '{\"key_concurrency_limit\": 1}')")
    enqueue(db, concurrency_key="key")
    aside = enqueue(db, concurrency_key="key")
    claim(db)
    assert db.execute("select from claim_next_job()").fetchall() == []
    assert value(db, "select waits_for_key from jobs where id = %s", aside)
    assert listed(db, statuses=["queued"]) == [aside]


@pytest.mark.parametrize("statuses", [["queued"], ["queued", "succeeded"]])
def test_pages_join_where_more_jobs_have_the_status_than_are_looked_at_one_by_one(
    db: Connection, statuses: list[str]
) -> None:
    db.execute("insert into jobs (priority) select n % 4 from generate_series(1, 10003) as n")
    newest = [row.id for row in db.execute("select id from jobs order by id desc limit 7")]
    assert listed(db, statuses=statuses, limit=4) == newest[:4]
    assert listed(db, statuses=statuses, limit=3, after=newest[3]) == newest[4:]
    assert len(listed(db, statuses=statuses, limit=None)) == 10003


def test_a_status_that_there_is_not_cannot_be_listed(db: Connection) -> None:
    for statuses in (["done"], ["queued", None], ["queued", ""]):
        with raises_and_changes_nothing(db, "JQ001", "^invalid status"):
            listed(db, statuses=statuses)


@pytest.mark.parametrize("statuses", [None, ["queued"], ["queued", "succeeded"]])
def test_list_returns_the_jobs_of_some_queues_and_types(
    db: Connection, statuses: list[str] | None
) -> None:
    a_sleep, a_mail = enqueue(db, queue="a"), enqueue(db, queue="a", job_type="mail")
    b_mail, c_pdf = enqueue(db, queue="b", job_type="mail"), enqueue(db, queue="c", job_type="pdf")
    assert listed(db, statuses=statuses, queues=["a"]) == [a_mail, a_sleep]
    assert listed(db, statuses=statuses, queues=["a", "c"]) == [c_pdf, a_mail, a_sleep]
    assert listed(db, statuses=statuses, job_types=["mail"]) == [b_mail, a_mail]
    assert listed(db, statuses=statuses, job_types=["mail", "pdf"], queues=["a", "c"]) == [
        *(c_pdf, a_mail)
    ]
    assert listed(db, statuses=statuses, queues=[]) == []
    assert listed(db, statuses=statuses, job_types=[]) == []


@pytest.mark.parametrize("statuses", [None, ["queued"]])
def test_list_returns_the_jobs_with_a_unique_key(
    db: Connection, statuses: list[str] | None
) -> None:
    a, b = enqueue(db, queue="a", unique_key="key"), enqueue(db, queue="b", unique_key="key")
    enqueue(db, unique_key="other"), enqueue(db)
    assert listed(db, statuses=statuses, unique_key="key") == [b, a]
    db.execute("select cancel_job(%s)", [a])
    assert listed(db, statuses=statuses, unique_key="key") == ([b] if statuses else [b, a])


def test_a_part_of_the_error_finds_jobs_that_have_failed(db: Connection) -> None:
    jobs = one_in_each_status(db)
    for part in ("disk", "100 %", "100 % of the disk is full"):
        assert listed(db, error=part) == [jobs["failed"]]
        assert listed(db, error=part, statuses=["failed", "succeeded"]) == [jobs["failed"]]
        assert listed(db, error=part, statuses=["succeeded", "queued"]) == []
    assert listed(db, error="none") == listed(db, error="%disk") == []


@pytest.mark.parametrize("statuses", [None, ["queued"]])
def test_times_are_bounds_the_later_of_which_is_left_out(
    db: Connection, statuses: list[str] | None
) -> None:
    jobs = [enqueue(db) for _ in range(4)]
    times: list[datetime] = [
        value(db, "select created_at from jobs where id = %s", job_id) for job_id in jobs
    ]
    db.execute("update jobs set updated_at = created_at")
    between = [jobs[2], jobs[1]]
    for what in ("created", "updated"):
        bounds = {f"{what}_after": times[1], f"{what}_before": times[3]}
        assert listed(db, statuses=statuses, **bounds) == between
        assert listed(db, statuses=statuses, limit=1, after=jobs[2], **bounds) == [jobs[1]]
        assert listed(db, statuses=statuses, **{f"{what}_after": times[3]}) == [jobs[3]]
        assert listed(db, statuses=statuses, **{f"{what}_before": times[1]}) == [jobs[0]]
        later = times[3] + timedelta(microseconds=1)
        assert listed(db, statuses=statuses, **{f"{what}_after": later}) == []


def test_a_job_that_was_updated_long_after_it_was_created_is_found_by_either_time(
    db: Connection,
) -> None:
    job_id = enqueue(db)
    created_at, updated_at = one(
        db,
        "update jobs set updated_at = created_at + interval '1 day' returning created_at,"
        " updated_at",
    )
    assert listed(db, updated_after=updated_at) == [job_id]
    assert listed(db, created_before=updated_at) == [job_id]
    assert listed(db, updated_before=updated_at) == []
    assert listed(db, created_after=updated_at) == []
    assert listed(db, created_after=created_at, updated_after=updated_at) == [job_id]


def test_a_batch_that_had_to_wait_is_found_by_the_time_it_was_created(db: Connection) -> None:
    job_id = enqueue(db)
    # Its id was made before it waited for a unique key, created_at afterwards.
    late = value(
        db, "update jobs set created_at = created_at + interval '4 minutes' returning created_at"
    )
    assert listed(db, created_after=late) == [job_id]


@pytest.mark.parametrize("bound", ["-infinity", "infinity", "0044-03-15 BC", "20000-01-01"])
def test_times_may_be_as_far_off_as_they_like(db: Connection, bound: str) -> None:
    job_id = enqueue(db)
    is_past = bound in ("-infinity", "0044-03-15 BC")
    assert listed(db, created_after=bound) == ([job_id] if is_past else [])
    assert listed(db, created_before=bound) == ([] if is_past else [job_id])


def test_ids_below_a_time_are_those_made_before_it(db: Connection) -> None:
    for at in ("2026-01-01 00:00:00.0009995 UTC", "2026-01-01 00:00:00.001 UTC"):
        first = value(db, "select first_id_of(%s)", at)
        assert value(db, "select %s < new_job_id()", first)
        assert str(first)[14:] == "7000-0000-000000000000"
    before, after = one(
        db,
        "select first_id_of(c) as one, first_id_of(c + interval '1 ms') as next"
        " from clock_timestamp() as c",
    )
    assert int(before.hex[:12], 16) + 1 == int(after.hex[:12], 16)


FEW = ["blocked", "queued", "running", "failed"]


def test_a_page_reads_no_ended_job_where_it_is_asked_for_others(db: Connection) -> None:
    db.execute(
        "insert into jobs (status, claimable) select 'succeeded', false"
        " from generate_series(1, 3000)"
    )
    jobs = one_in_each_status(db)
    db.execute(
        "insert into jobs (status, claimable) select 'succeeded', false"
        " from generate_series(1, 3000)"
    )
    read = "select sum(idx_tup_fetch)::int from pg_stat_xact_user_tables where relname = 'jobs'"
    hour = timedelta(hours=1)
    pages: list[tuple[dict[str, Any], list[Any]]] = [
        *(({"statuses": [status]}, [jobs[status]]) for status in FEW),
        ({"created_after": datetime.now().astimezone() + hour}, []),
        ({"created_before": datetime.now().astimezone() - hour}, []),
    ]
    for asked, expected in pages:
        with db.transaction():
            before = value(db, read)
            assert listed(db, **asked) == expected
            assert value(db, read) - before < 20


def test_those_jobs_have_ended_that_have_an_outcome_or_are_gone(db: Connection) -> None:
    jobs = one_in_each_status(db)
    asked = [*map(str, jobs.values()), UNKNOWN_JOB]
    ended = db.execute("select * from ended_jobs(%s::uuid[])", [asked]).fetchall()
    assert {str(row[0]) for row in ended} == {
        *(str(jobs[status]) for status in ("succeeded", "failed", "cancelled")),
        UNKNOWN_JOB,
    }
    assert db.execute("select * from ended_jobs('{}')").fetchall() == []


def queues(db: Connection, *arguments: Any) -> list[str]:
    """Return the names of what list_queues returns."""
    holes = ", ".join(["%s"] * len(arguments))
    return [row.queue for row in db.execute(f"select * from list_queues({holes})", arguments)]


def test_queues_are_listed_that_have_a_policy_or_a_job_that_has_not_ended(db: Connection) -> None:
    assert queues(db) == []
    for queue, verb in {"over": "complete_job", "failed": "fail_job"}.items():
        enqueue(db, queue=queue)
        held = claim(db)
        db.execute(f"select {verb}(%s, %s)", [held.id, held.claim_id])
    parent = enqueue(db, queue="running")
    claim(db)
    db.execute("select set_queue('aside', '{\"key_concurrency_limit\": 1}')")
    (
        enqueue(db, queue="aside", concurrency_key="key"),
        enqueue(db, queue="aside", concurrency_key="key"),
    )
    claim(db), db.execute("select * from claim_next_job()")
    db.execute("delete from queues")
    enqueue(db, queue="later", delay="1 hour")
    enqueue(db, queue="blocked", depends_on=[parent])
    db.execute("select pause_queue('policy')")
    assert queues(db) == ["aside", "blocked", "later", "policy", "running"]
    assert queues(db, None, ["policy", "later", "over"]) == ["later", "policy"]


def test_a_queue_is_listed_with_the_policy_that_it_has_or_else_the_defaults(
    db: Connection,
) -> None:
    [default] = db.execute("select * from list_queues('none')").fetchall()
    minute, day = timedelta(minutes=1), timedelta(days=1)
    assert default._asdict() == {
        **{"queue": "none", "paused": False, "concurrency_limit": None},
        **{"key_concurrency_limit": None, "rate_limit": None, "rate_period": minute},
        **{"max_attempts": 1, "retry_delay": minute / 4, "retry_delay_max": 60 * minute},
        **{"max_losses": 3, "timeout": None, "keep_succeeded": 7 * day},
        **{"keep_failed": 30 * day, "keep_cancelled": 7 * day},
    }
    job = one(
        db, "select * from enqueue_job(p_queue => 'none') cross join lateral get_job(enqueue_job)"
    )
    for column in ("max_attempts", "retry_delay", "retry_delay_max", "max_losses", "timeout"):
        assert getattr(job, column) == getattr(default, column)
    policy: dict[str, Any] = {
        **{"paused": True, "concurrency_limit": 2, "key_concurrency_limit": 3, "rate_limit": 4},
        **{"rate_period": "5 s", "max_attempts": 6, "retry_delay": "7 s", "max_losses": 9},
        **{"retry_delay_max": "8 s", "timeout": "10 s", "keep_succeeded": "11 s"},
        **{"keep_failed": "12 s", "keep_cancelled": "13 s"},
    }
    row = one(
        db,
        "select own.* from set_queue('own', %s) cross join lateral list_queues('own') as own",
        Jsonb(policy),
    )
    assert row.queue == "own"
    for column, wanted in policy.items():
        is_time = isinstance(wanted, str)
        shown = getattr(row, column)
        assert shown == (timedelta(seconds=int(wanted.split()[0])) if is_time else wanted)


def test_one_queue_is_listed_whatever_it_has_save_where_it_may_not_be_seen(db: Connection) -> None:
    db.execute("select pause_queue('a')")
    assert queues(db, "a") == ["a"]
    assert queues(db, "b") == ["b"]
    assert queues(db, "b", ["b", "c"]) == ["b"]
    assert queues(db, "b", ["a"]) == []


def test_the_default_period_that_is_shown_is_that_of_the_table(db: Connection) -> None:
    db.execute("select set_queue('a', '{\"rate_limit\": 1}')")
    assert value(db, "select rate_period from list_queues('none')") == value(
        db, "select rate_period from queues"
    )


def test_schedules_are_listed_by_name_with_all_that_they_have(db: Connection) -> None:
    assert db.execute("select * from list_schedules()").fetchall() == []
    db.execute("select set_schedule('b', '@daily', '{\"queue\": \"x\"}')")
    row = one(
        db,
        "select shown.* from set_schedule('a', '0 6 * * *') cross join lateral"
        " list_schedules('a') as shown",
    )
    assert row == one(db, "select * from schedules where schedule = 'a'")
    assert row._fields == one(db, "select * from schedules where schedule = 'a'")._fields
    assert db.execute("select * from list_schedules()").fetchall() == (
        db.execute("select * from schedules order by schedule").fetchall()
    )
    assert db.execute("select * from list_schedules('c')").fetchall() == []


def test_the_queued_jobs_of_a_queue_are_found_without_a_look_at_those_of_others(
    db: Connection,
) -> None:
    db.execute(
        "insert into jobs (queue, claimable, waits_for_key) select 'a', n %% 2 = 0, n %% 2 = 1"
        " from generate_series(1, %s) as n",
        [12_000],
    )
    mine = [enqueue(db, queue="b", delay=delay) for delay in ("0", "1 hour", "0")]
    db.execute("update jobs set claimable = false, waits_for_key = true where id = %s", [mine[0]])
    read = (
        "select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int"
        " from pg_stat_xact_user_tables where relname = 'jobs'"
    )
    with db.transaction():
        before = value(db, read)
        assert listed(db, statuses=["queued"], queues=["b"]) == mine[::-1]
        assert listed(db, statuses=["queued"], queues=["b", "b", "none"]) == mine[::-1]
        assert value(db, read) - before < 100
    assert len(listed(db, limit=None, statuses=["queued"], queues=["a", "b"])) == 12_003
