"""run_maintenance and prune_jobs: what is overdue is done, and nobody waits for it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest

from tests.support import (
    Connection,
    claim,
    enqueue,
    everything,
    one,
    raises_and_changes_nothing,
    value,
)

MAINTAIN = "select run_maintenance()"
PRUNE = "select prune_jobs()"
BEGIN_ANEW = "select setval('prune_cursor', 0)"
QUIET = {"timed_out": 0, "reclaimed": 0, "settled": 0, "put_back": 0, "fired": 0, "pruned": 0}
MILLISECONDS_A_DAY = 24 * 60 * 60 * 1000
EXPIRE = "update claims set lease = '1 ms', expires_at = clock_timestamp() - interval '1 s'"


def end(db: Connection, status: str, **arguments: Any) -> UUID:
    """Return a new job that has ended so."""
    job_id: UUID = enqueue(db, priority=0, **arguments)
    if status == "cancelled":
        assert value(db, "select cancel_job(%s)", job_id) == "cancelled"
    else:
        held = claim(db)
        assert held.id == job_id
        verb = "complete_job" if status == "succeeded" else "fail_job"
        db.execute(f"select {verb}(%s, %s)", [job_id, held.claim_id])
    return job_id


def age(db: Connection, job_id: UUID, days: float) -> UUID:
    """Make the job that many days older; return its id, which tells its age."""
    older = UUID(int=job_id.int - (int(days * MILLISECONDS_A_DAY) << 80))
    db.execute(
        """
        update jobs
           set id = %(older)s,
               created_at = created_at - %(days)s * interval '1 day',
               updated_at = updated_at - %(days)s * interval '1 day'
         where id = %(id)s
        """,
        {"id": job_id, "older": older, "days": days},
    )
    for table, column in [
        ("job_events", "job_id"),
        ("claims", "job_id"),
        ("job_dependencies", "job_id"),
        ("job_dependencies", "parent_id"),
    ]:
        db.execute(f"update {table} set {column} = %s where {column} = %s", [older, job_id])
    return older


def ended_long_ago(db: Connection, count: int = 1, days: float = 400) -> list[UUID]:
    """Return cancelled jobs of that age, the oldest first."""
    return [age(db, end(db, "cancelled"), days) for _ in range(count)]


def left(db: Connection) -> list[UUID]:
    """Return the jobs that are still there, the oldest first."""
    return [row.id for row in db.execute("select id from jobs order by id")]


def test_maintenance_with_nothing_to_do_says_so_and_when_it_was(db: Connection) -> None:
    enqueue(db), enqueue(db)
    claim(db)
    before = everything(db)
    assert value(db, "select pg_sequence_last_value('maintained_at')") is None
    started = value(db, "select extract(epoch from clock_timestamp()) * 1000000")
    assert value(db, MAINTAIN) == QUIET
    assert everything(db) == before
    assert value(db, "select pg_sequence_last_value('maintained_at')") >= int(started)


MAINTAINED = "select setval('maintained_at', (extract(epoch from now() + %s) * 1000000)::bigint)"


@pytest.mark.parametrize(
    ("last", "is_done"),
    [("-1 min", False), ("-59 min", False), ("-61 min", True), ("1 min", True), ("1 year", True)],
)
def test_maintenance_may_be_left_to_whoever_did_it_lately(
    db: Connection, last: str, is_done: bool
) -> None:
    old = ended_long_ago(db, 2)
    db.execute(MAINTAINED, [last])
    done = value(db, "select run_maintenance('1 hour')")
    assert done == ({**QUIET, "pruned": 2} if is_done else None)
    assert left(db) == ([] if is_done else old)


@pytest.mark.parametrize("unless_within", [None, "0"])
def test_maintenance_is_done_whenever_somebody_insists(
    db: Connection, unless_within: str | None
) -> None:
    for _ in range(3):
        assert value(db, "select run_maintenance(%s)", unless_within) == QUIET


def test_the_first_maintenance_is_always_done_and_the_second_left_alone(db: Connection) -> None:
    assert value(db, "select run_maintenance('1 hour')") == QUIET
    last = value(db, "select pg_sequence_last_value('maintained_at')")
    assert value(db, "select run_maintenance('1 hour')") is None
    assert value(db, "select pg_sequence_last_value('maintained_at')") == last


@pytest.mark.parametrize("unless_within", ["-1 microsecond", "11 years"])
def test_a_wrong_interval_is_refused(db: Connection, unless_within: str) -> None:
    with raises_and_changes_nothing(db, "JQ001", "^invalid unless_within"):
        db.execute("select run_maintenance(%s)", [unless_within])


def test_maintenance_that_is_left_alone_waits_for_nobody(
    connect: Callable[[], Connection],
) -> None:
    db, other = connect(), connect()
    value(db, MAINTAIN)
    with other.transaction():
        other.execute("lock table jobs, claims, job_dependencies, schedules, worker_sightings")
        db.execute("set lock_timeout = '1 ms'")
        assert value(db, "select run_maintenance('1 hour')") is None


def test_maintenance_does_all_that_is_overdue_and_counts_it(db: Connection) -> None:
    db.execute("""select set_queue('narrow', '{"key_concurrency_limit": 1}')""")
    timed_out = enqueue(db, queue="slow", timeout="1 hour")
    lost = enqueue(db, queue="lost")
    enqueue(db, queue="narrow", concurrency_key="k")
    set_aside = enqueue(db, queue="narrow", concurrency_key="k")
    for queue in ("slow", "lost", "narrow"):
        assert one(db, "select * from claim_next_job(p_queues => array[%s])", queue)
    empty = db.execute("select * from claim_next_job(p_queues => '{narrow}')").fetchall()
    assert empty == []
    assert value(db, "select waits_for_key from jobs where id = %s", set_aside)
    parent = enqueue(db)
    child = enqueue(db, depends_on=[parent])
    old = ended_long_ago(db, 2)
    db.execute("select set_schedule('yearly', '@yearly')")
    db.execute(
        "update schedules set next_at = next_tick('@yearly', 'UTC', now() - interval '366 days')"
    )
    db.execute(
        "update claims set deadline_at = now() - interval '1 s' where job_id = %s", [timed_out]
    )
    db.execute(f"{EXPIRE} where job_id = %s", [lost])
    db.execute("update jobs set status = 'cancelled', claimable = false where id = %s", [parent])
    db.execute("""select set_queue('narrow', '{"key_concurrency_limit": 2}')""")

    assert value(db, MAINTAIN) == {
        **{"timed_out": 1, "reclaimed": 1, "settled": 1, "put_back": 1, "fired": 1, "pruned": 2}
    }
    statuses = dict(db.execute("select id, status from jobs").fetchall())
    assert statuses[timed_out] == "failed"
    assert statuses[lost] == "queued"
    assert statuses[child] == "cancelled"
    assert value(db, "select claimable from jobs where id = %s", set_aside)
    assert not set(old) & set(statuses)
    assert value(db, MAINTAIN) == QUIET


def test_a_worker_that_was_not_seen_for_a_day_is_forgotten(db: Connection) -> None:
    for worker in ("gone", "here"):
        db.execute("select * from claim_next_job(p_worker => %s)", [worker])
    db.execute(
        """
        update worker_sightings
           set seen_at = seen_at - case worker when 'gone' then interval '25 hours'
                                               else interval '23 hours' end
        """
    )
    value(db, MAINTAIN)
    assert value(db, "select worker from worker_sightings") == "here"


@pytest.mark.parametrize(("status", "days"), [("succeeded", 7), ("failed", 30), ("cancelled", 7)])
def test_an_ended_job_is_kept_for_a_time_that_depends_on_how_it_ended(
    db: Connection, status: str, days: int
) -> None:
    gone, kept = end(db, status), end(db, status)
    age(db, gone, days + 0.1)
    kept = age(db, kept, days - 0.1)
    assert value(db, PRUNE) == 1
    assert left(db) == [kept]


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_each_queue_keeps_its_ended_jobs_as_long_as_it_says(db: Connection, status: str) -> None:
    for queue, keep in [("brief", "1 hour"), ("long", "1 year")]:
        db.execute(
            "select set_queue(%s, jsonb_build_object(%s::text, %s::text))",
            [queue, f"keep_{status}", keep],
        )
    jobs = {queue: end(db, status, queue=queue) for queue in ("brief", "long", "default")}
    for queue, job_id in jobs.items():
        jobs[queue] = age(db, job_id, 0.1)
    assert value(db, PRUNE) == 1
    assert set(left(db)) == {jobs["long"], jobs["default"]}
    for queue in ("long", "default"):
        jobs[queue] = age(db, jobs[queue], 40)
    db.execute(BEGIN_ANEW)
    assert value(db, PRUNE) == 1
    assert left(db) == [jobs["long"]]
    age(db, jobs["long"], 400)
    db.execute(BEGIN_ANEW)
    assert value(db, PRUNE) == 1
    assert left(db) == []


def test_an_ended_job_is_kept_from_its_end_on_not_from_its_beginning(db: Connection) -> None:
    job_id = age(db, enqueue(db), 400)
    held = claim(db)
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    assert value(db, PRUNE) == 0
    assert left(db) == [job_id]


def test_an_unfinished_job_is_never_pruned_however_old(db: Connection) -> None:
    for keep in ("keep_succeeded", "keep_failed", "keep_cancelled"):
        db.execute("select set_queue('default', jsonb_build_object(%s::text, '0 s'))", [keep])
    running = enqueue(db)
    claim(db)
    queued = enqueue(db)
    blocked = enqueue(db, depends_on=[queued])
    old = sorted(age(db, job_id, 4000) for job_id in (running, queued, blocked))
    assert value(db, PRUNE) == 0
    assert left(db) == old
    assert value(db, "select count(*) from job_dependencies") == 1
    assert value(db, "select count(*) from claims") == 1


def test_pruning_deletes_the_history_and_the_dependencies_of_the_job_and_no_others(
    db: Connection,
) -> None:
    parent = enqueue(db)
    pruned = enqueue(db, depends_on=[parent])
    kept = enqueue(db, depends_on=[parent])
    db.execute("select cancel_job(%s)", [pruned])
    pruned = age(db, pruned, 8)
    assert value(db, "select count(*) from job_history(%s)", pruned) == 2
    assert value(db, PRUNE) == 1
    assert value(db, "select count(*) from job_history(%s)", pruned) == 0
    assert [row.job_id for row in db.execute("table job_dependencies")] == [kept]
    assert {row.job_id for row in db.execute("table job_events")} == {parent, kept}


def test_a_parent_that_a_blocked_job_still_waits_for_stays(db: Connection) -> None:
    parent = age(db, enqueue(db), 400)
    child = enqueue(db, depends_on=[parent])
    # As if the child had been locked when the parent ended.
    db.execute("update jobs set status = 'cancelled', claimable = false where id = %s", [parent])
    assert value(db, PRUNE) == 0
    assert left(db) == [parent, child]
    db.execute(BEGIN_ANEW)
    done = value(db, MAINTAIN)
    assert (done["settled"], done["pruned"]) == (1, 1)
    assert left(db) == [child]
    assert one(db, "select * from get_job(%s)", child).status == "cancelled"


def test_pruning_is_bounded_and_goes_on_at_the_next_call_until_none_is_old_enough(
    db: Connection,
) -> None:
    # One in three is failed, and so kept.
    jobs = [
        age(db, end(db, status), days=20 - number)
        for number, status in enumerate(["cancelled", "failed", "succeeded"] * 3)
    ]
    kept = [*jobs[1::3], end(db, "cancelled")]
    assert value(db, "select prune_jobs(4)") == 3
    assert left(db) == [jobs[1], *jobs[4:], kept[-1]]
    assert sum(value(db, "select prune_jobs(4)") for _ in range(4)) == 3
    assert left(db) == kept


def test_pruning_waits_where_it_has_come_to_and_begins_anew_when_that_is_due(
    db: Connection,
) -> None:
    kept = end(db, "failed")
    kept = age(db, kept, 20)
    passed = age(db, end(db, "failed"), 20)
    # As when one step does not take it all the way.
    db.execute("select setval('prune_cursor', 1)")
    db.execute(
        "select setval('prune_due', (extract(epoch from clock_timestamp()) * 1e6)::bigint"
        " + 500000000)"
    )
    for _ in range(3):
        assert value(db, PRUNE) == 0
    waits_at = value(db, "select last_value from prune_cursor")
    assert waits_at > (kept.int >> 80) * 4096

    # What has just become old enough lies ahead, what is older behind.
    ahead = age(db, end(db, "cancelled"), 7.0001)
    assert (ahead.int >> 80) * 4096 < waits_at
    db.execute("select setval('prune_cursor', %s)", [waits_at - 4096 * 60_000])
    assert value(db, PRUNE) == 1
    db.execute("update jobs set updated_at = now() - interval '1 year' where id = %s", [passed])
    for _ in range(3):
        assert value(db, PRUNE) == 0
    due = value(db, "select last_value from prune_due")
    assert 0 < due - value(db, "select extract(epoch from now()) * 1000000") <= 600_000_000
    db.execute("select setval('prune_due', 1)")
    assert [value(db, PRUNE) for _ in range(3)] == [0, 1, 0]
    assert left(db) == [kept]


def test_maintenance_prunes_for_a_moment_and_says_whether_there_is_more(db: Connection) -> None:
    db.execute(
        """
        insert into jobs (id, status, claimable, updated_at)
        select overlay(first_id_of(now() - interval '9 days' + n * interval '1 ms')::text
                       placing '8' from 20 for 1)::uuid, 'succeeded', false,
               now() - interval '8 days'
          from generate_series(1, 200000) as n
        """
    )
    done: list[dict[str, Any]] = []
    while not done or "more" in done[-1]:
        done.append(value(db, MAINTAIN))
    assert len(done) > 1
    assert all(call["more"] is True and 0 < call["pruned"] < 200_000 for call in done[:-1])
    assert sum(call["pruned"] for call in done) == 200_000
    assert value(db, MAINTAIN) == QUIET


def test_maintenance_says_that_there_are_more_idempotency_keys_to_prune(db: Connection) -> None:
    db.execute(
        """
        insert into idempotency_keys (client, idempotency_key, created_at, fingerprint, outcome)
        select 'c', n::text, now() - interval '25 hours', '', '[]'
          from generate_series(1, 10001) as n
        """
    )
    assert value(db, MAINTAIN) == {**QUIET, "more": True}
    assert value(db, MAINTAIN) == QUIET
    assert value(db, "select count(*) from idempotency_keys") == 0


def test_a_step_of_pruning_reads_no_more_than_it_was_told_to_look_at(db: Connection) -> None:
    ended_long_ago(db, 30)
    parent = age(db, end(db, "failed"), 300)
    db.execute(
        "insert into job_dependencies (job_id, parent_id, on_parent_failure)"
        " select new_job_id(), %s, 'cancel' from generate_series(1, 5000)",
        [parent],
    )
    db.execute("analyze")
    read = (
        "select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int"
        " from pg_stat_xact_user_tables where relname = any ('{jobs,job_events,job_dependencies}')"
    )
    with db.transaction():
        before = value(db, read)
        assert value(db, "select prune_jobs(10)") == 10
        assert value(db, read) - before < 100


def test_jobs_that_are_kept_do_not_hide_those_behind_them(db: Connection) -> None:
    kept = [age(db, end(db, "failed"), 20) for _ in range(7)]
    gone = [age(db, end(db, "cancelled"), 19) for _ in range(3)]
    assert sum(value(db, "select prune_jobs(2)") for _ in range(8)) == len(gone)
    assert left(db) == kept


@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_jobs_created_in_the_same_millisecond_are_all_looked_at(db: Connection, limit: int) -> None:
    jobs = [end(db, status) for status in ["failed"] * 4 + ["cancelled"] * 4 + ["failed"] * 2]
    millisecond = (jobs[0].int >> 80) - 20 * MILLISECONDS_A_DAY
    db.execute("update jobs set updated_at = updated_at - interval '20 days'")
    db.execute("update jobs set created_at = created_at - interval '20 days'")
    kept = []
    for number, job_id in enumerate(jobs):
        # The same millisecond, and as many fractions of it apart as 200 jobs would be.
        same = UUID(int=millisecond << 80 | 0x7000_8 << 60 | (number * 20) << 48 | number)
        db.execute("update jobs set id = %s where id = %s", [same, job_id])
        if number not in range(4, 8):
            kept.append(same)
    assert sum(value(db, "select prune_jobs(%s)", limit) for _ in range(3 * len(jobs))) == 4
    assert left(db) == kept


def test_a_job_that_another_transaction_has_locked_is_passed_over(
    connect: Callable[[], Connection],
) -> None:
    db, other = connect(), connect()
    db.execute("set lock_timeout = '10 s'")  # a wait would have no end
    locked, unlocked = age(db, end(db, "failed"), 40), age(db, end(db, "failed"), 40)
    with other.transaction(force_rollback=True):
        other.execute("select retry_job(%s)", [locked])
        assert value(db, PRUNE) == 1
        assert unlocked not in left(db)
    assert left(db) == [locked]
    assert value(db, "select count(*) from job_history(%s)", locked) > 0
    with other.transaction():
        other.execute("select retry_job(%s)", [locked])
        assert value(db, PRUNE) == 0
    assert value(db, PRUNE) == 0
    assert one(db, "table jobs").status == "queued"


@pytest.fixture
def busy(connect: Callable[[], Connection]) -> Connection:
    """A session in whose database there is something of everything to be done."""
    db = connect()
    db.execute(
        """
        select set_queue('default', '{"concurrency_limit": 9000, "key_concurrency_limit": 9000,
                                      "rate_limit": 9000}')
        """
    )
    for number in range(3):
        db.execute("select * from claim_next_job(p_worker => %s)", [f"worker {number}"])
    db.execute("update worker_sightings set seen_at = seen_at - interval '2 days'")
    for name in ("a", "b"):
        db.execute("select set_schedule(%s, '@yearly')", [name])
    db.execute(
        "update schedules set next_at = next_tick('@yearly', 'UTC', now() - interval '366 days')"
    )
    parent = enqueue(db)
    enqueue(db, depends_on=[parent])
    db.execute("update jobs set status = 'cancelled', claimable = false where id = %s", [parent])
    for timeout in ("1 hour", "1 hour", None, None, None, None):
        enqueue(db, timeout=timeout, concurrency_key="k", max_attempts=2)
    for number in range(6):
        assert claim_one(db, worker=f"worker {number}")
    db.execute(
        "update claims set deadline_at = now() - interval '1 s' where deadline_at is not null"
    )
    db.execute(
        f"{EXPIRE} where claim_id in (select claim_id from claims order by claim_id desc limit 2)"
    )
    enqueue(db), enqueue(db)
    ended_long_ago(db, 2)
    db.execute("select setval('reclaim_due', 0)")
    return db


def claim_one(db: Connection, worker: str | None = None) -> Any:
    """Claim a job without recovering first; it must be there."""
    db.execute(
        "select setval('reclaim_due',"
        " (extract(epoch from clock_timestamp()) * 1000000)::bigint + 50000000)"
    )
    return one(db, "select * from claim_next_job(p_worker => %s)", worker)


@contextmanager
def impatient(db: Connection) -> Iterator[Connection]:
    """Let the session fail where it would wait for a lock, even where an error is caught."""
    db.execute("set lock_timeout = '10 s'")
    before = value(db, "select coalesce(sum(deadlocks), 0) from pg_stat_database")
    yield db
    assert value(db, "select coalesce(sum(deadlocks), 0) from pg_stat_database") == before
    assert value(db, "select count(*) from schedules where last_error is not null") == 0


VERBS = {
    "cancel a waiting job": "select cancel_job(id) from jobs where status = 'queued'",
    "cancel a running job": "select cancel_job(id) from jobs where status = 'running'",
    "claim": "select claim_next_job('worker 0')",
    "claim in vain": "select claim_next_job('worker 1', '{nowhere}')",
    "claim many": "select claim_jobs(10, 'worker 0')",
    "complete": "select complete_job(job_id, claim_id) from claims",
    "fail": "select fail_job(job_id, claim_id) from claims",
    "heartbeat": "select heartbeat(array_agg(claim_id)) from claims",
    "report progress": "select report_progress(job_id, claim_id, '1') from claims",
    "retry": "select retry_job(id) from jobs where status = 'cancelled'",
    "enqueue": "select enqueue_job()",
    "enqueue a child": "select enqueue_job(p_depends_on => array_agg(id)) from jobs",
    "set a queue": """select set_queue('default', '{"concurrency_limit": 8000}')""",
    "set a schedule": "select set_schedule('a', '@daily')",
    "delete a schedule": "select delete_schedule('b')",
    "maintain": "select run_maintenance()",
    "fire": "select fire_schedules()",
    "prune": "select prune_jobs()",
    "recover": "select recover_if_due()",
}


@pytest.mark.parametrize("verb", VERBS)
def test_maintenance_waits_for_no_open_transaction(
    busy: Connection, connect: Callable[[], Connection], verb: str
) -> None:
    maintainer = connect()
    with busy.transaction():
        busy.execute(VERBS[verb])
        with impatient(maintainer):
            value(maintainer, MAINTAIN)
            value(maintainer, MAINTAIN)
    with impatient(maintainer):
        value(maintainer, MAINTAIN)
    assert value(maintainer, MAINTAIN) == QUIET


def test_maintenance_does_what_it_can_beside_open_transactions(
    busy: Connection, connect: Callable[[], Connection]
) -> None:
    assert value(connect(), MAINTAIN) == {
        **{"timed_out": 2, "reclaimed": 2, "settled": 1, "put_back": 0, "fired": 2, "pruned": 2}
    }


@pytest.mark.parametrize("verb", ["claim", "claim in vain", "claim many", "enqueue", "maintain"])
def test_nobody_who_asks_for_work_waits_for_maintenance(
    busy: Connection, connect: Callable[[], Connection], verb: str
) -> None:
    maintainer = connect()
    busy.execute("set lock_timeout = '10 s'")
    with maintainer.transaction():
        done = value(maintainer, MAINTAIN)
        assert all(done[task] for task in ("timed_out", "reclaimed", "settled", "fired", "pruned"))
        busy.execute(VERBS[verb])


def test_a_heartbeat_does_not_wait_for_maintenance(
    busy: Connection, connect: Callable[[], Connection]
) -> None:
    maintainer = connect()
    busy.execute("set lock_timeout = '10 s'")
    claim_ids = [row.claim_id for row in busy.execute("table claims")]
    with maintainer.transaction():
        value(maintainer, MAINTAIN)
        beats = busy.execute("select * from heartbeat(%s)", [claim_ids]).fetchall()
        assert len(beats) == len(claim_ids)


def test_many_maintainers_at_once_do_everything_once(connect: Callable[[], Connection]) -> None:
    db = connect()
    for number in range(40):
        enqueue(
            db, queue="q", max_losses=9, max_attempts=9, timeout="1 hour" if number % 2 else None
        )
    value(db, "select count(*) from claim_jobs(40)")
    db.execute("update claims set deadline_at = now() where deadline_at is not null")
    db.execute(f"{EXPIRE} where deadline_at is null")
    old = ended_long_ago(db, 40)
    for number in range(20):
        db.execute("select set_schedule(%s, '@yearly')", [f"schedule {number}"])
    db.execute(
        "update schedules set next_at = next_tick('@yearly', 'UTC', now() - interval '366 days')"
    )
    maintainers = [connect() for _ in range(4)]

    def maintain(maintainer: Connection) -> list[dict[str, int]]:
        with impatient(maintainer):
            return [value(maintainer, MAINTAIN) for _ in range(5)]

    with ThreadPoolExecutor(len(maintainers)) as executor:
        answers = [done for answered in executor.map(maintain, maintainers) for done in answered]
    answers.append(value(db, MAINTAIN))
    total = {task: sum(done[task] for done in answers) for task in QUIET}
    assert total == {
        **{"timed_out": 20, "reclaimed": 20, "settled": 0, "put_back": 0, "fired": 20, "pruned": 40}
    }
    assert not set(old) & set(left(db))
    counts = dict(db.execute("select verb, count(*) from job_events group by verb").fetchall())
    assert (counts["time_out"], counts["reclaim"]) == (20, 20)
