"""The views for people: queue_statistics, workers and health."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from tests.support import Connection, claim, enqueue, eventually, one, value

HOUR = timedelta(hours=1)


def statistics(db: Connection, queue: str = "default") -> Any:
    """Return the row of a queue."""
    return one(db, "select * from queue_statistics where queue = %s", queue)


def health(db: Connection, aspect: str) -> tuple[str, str]:
    """Return the severity and the detail of an aspect."""
    row = one(db, "select severity, detail from health where aspect = %s", aspect)
    return row.severity, row.detail


def end(db: Connection, verb: str, *arguments: Any) -> Any:
    """Claim a job, end its run so, and return its id."""
    held = claim(db)
    places = "".join(", %s" for _ in arguments)
    db.execute(f"select {verb}(%s, %s{places})", [held.id, held.claim_id, *arguments])
    return held.id


def test_a_queue_without_jobs_has_no_statistics(db: Connection) -> None:
    db.execute("select pause_queue('default')")
    assert db.execute("table queue_statistics").fetchall() == []


def test_the_statistics_count_the_jobs_of_each_queue_by_status(db: Connection) -> None:
    for verb, count in [("complete_job", 3), ("fail_job", 2)]:
        for _ in range(count):
            enqueue(db)
            end(db, verb)
    db.execute("select cancel_job(%s)", [enqueue(db)])
    running = enqueue(db)
    claim(db)
    [enqueue(db) for _ in range(4)]
    enqueue(db, delay="1 hour")
    [enqueue(db, depends_on=[running]) for _ in range(2)]
    enqueue(db, queue="other")
    counted = statistics(db)
    assert counted[1:9] == (False, 2, 5, 1, 3, 2, 1, 4)
    assert counted._fields[1:9] == (
        *("paused", "blocked", "queued", "running", "succeeded", "failed", "cancelled", "ready"),
    )
    assert (statistics(db, "other").queued, statistics(db, "other").ready) == (1, 1)
    assert value(db, "select count(*) from queue_statistics") == 2


def test_the_statistics_tell_how_long_the_first_ready_job_has_waited(db: Connection) -> None:
    enqueue(db, delay="1 hour")
    assert statistics(db).oldest_ready_age is None
    for hours in (2, 3, 1):
        db.execute("select enqueue_job(p_run_at => clock_timestamp() - %s)", [HOUR * hours])
    assert 3 * HOUR <= statistics(db).oldest_ready_age < 4 * HOUR
    claim(db)
    assert 2 * HOUR <= statistics(db).oldest_ready_age < 3 * HOUR


def test_a_job_that_only_a_limit_keeps_from_running_is_ready(db: Connection) -> None:
    db.execute("""select set_queue('default', '{"key_concurrency_limit": 1}')""")
    for _ in range(3):
        enqueue(db, concurrency_key="k")
    db.execute("select pause_queue('other')")
    enqueue(db, queue="other")
    claim(db)
    assert db.execute("select * from claim_next_job()").fetchall() == []
    assert value(db, "select count(*) from jobs where waits_for_key") == 2
    assert statistics(db).ready == 2
    assert statistics(db).oldest_ready_age is not None
    assert statistics(db, "other").ready == 1


def test_the_statistics_count_what_has_ended_lately(db: Connection) -> None:
    for verb in ("complete_job", "fail_job"):
        enqueue(db)
        end(db, verb)
    db.execute("select cancel_job(%s)", [enqueue(db)])
    enqueue(db, max_attempts=2)
    end(db, "release_job")
    assert (statistics(db).ended_last_minute, statistics(db).ended_last_hour) == (3, 3)
    db.execute("update jobs set updated_at = updated_at - '2 minutes'::interval")
    assert (statistics(db).ended_last_minute, statistics(db).ended_last_hour) == (0, 3)
    db.execute("update jobs set updated_at = updated_at - '1 hour'::interval")
    assert (statistics(db).ended_last_minute, statistics(db).ended_last_hour) == (0, 0)


def test_the_statistics_show_the_policy_of_the_queue(db: Connection) -> None:
    enqueue(db)
    assert statistics(db)[12:16] == (None, None, None, None)
    db.execute(
        """
        select set_queue('default', '{"concurrency_limit": 2, "key_concurrency_limit": 1,
                                      "rate_limit": 9, "rate_period": "1 hour", "paused": true}')
        """
    )
    assert statistics(db).paused
    assert statistics(db)[12:16] == (2, 1, 9, HOUR)
    assert statistics(db)._fields[12:16] == (
        *("concurrency_limit", "key_concurrency_limit", "rate_limit", "rate_period"),
    )


MANY = 100_000
ADD = (
    "insert into jobs (status, claimable, failed_at, queue)"
    " select %(status)s, %(status)s = 'queued', case %(status)s when 'failed' then now() end,"
    "  %(queue)s from generate_series(1, %(count)s)"
)
COLUMNS = (
    *("queue", "blocked", "queued", "running", "succeeded", "failed", "cancelled", "ready"),
    *("ready_since", "ended_last_minute", "ended_last_hour"),
)
ESTIMATED = f"select {', '.join(COLUMNS)} from estimated_jobs() order by queue"
COUNTED = f"select {', '.join(COLUMNS)} from sampled_jobs(null) order by queue"
READ = (
    "select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int"
    " from pg_stat_xact_user_tables"
    " where relname = any ('{jobs,claims,job_events,job_dependencies}')"
)


def add(db: Connection, status: str, count: int, queue: str = "default") -> None:
    """Add jobs in this status, and nothing beside them."""
    db.execute(ADD, {"status": status, "count": count, "queue": queue})


def some_of_everything(db: Connection) -> None:
    """Add jobs of all statuses to two queues."""
    db.execute("""select set_queue('narrow', '{"key_concurrency_limit": 1}')""")
    for verb, count in [("complete_job", 3), ("fail_job", 2)]:
        for _ in range(count):
            enqueue(db)
            end(db, verb)
    db.execute("select cancel_job(%s)", [enqueue(db)])
    for _ in range(3):
        enqueue(db, queue="narrow", concurrency_key="k")
    running = claim(db)
    assert db.execute("select * from claim_next_job(p_queues => '{narrow}')").fetchall() == []
    assert value(db, "select count(*) from jobs where waits_for_key") == 2
    for priority in range(4):
        enqueue(db, priority=priority)
        enqueue(db, priority=priority, delay="1 hour")
    enqueue(db, depends_on=[running.id])


def let_the_sample_miss_everything(db: Connection) -> None:
    """Stand for a sample of a table so long that it meets none of the jobs of the test."""
    definition = value(db, "select pg_get_functiondef('sampled_jobs(integer)'::regprocedure)")
    assert definition.count("group by read.queue;") == 1
    db.execute(definition.replace("group by read.queue;", "group by read.queue limit 0;"))


def test_what_is_estimated_of_few_jobs_is_what_is_counted_of_them(db: Connection) -> None:
    some_of_everything(db)
    counted = db.execute(COUNTED).fetchall()
    assert [row.queue for row in counted] == ["default", "narrow"]
    assert all(any(numbers) for numbers in list(zip(*counted, strict=True))[1:])
    assert db.execute(ESTIMATED).fetchall() == counted


def test_beyond_a_hundred_thousand_jobs_the_statistics_say_that_they_are_estimated(
    db: Connection,
) -> None:
    some_of_everything(db)
    narrow = statistics(db, "narrow")
    add(db, "succeeded", MANY - value(db, "select count(*) from jobs"), "old")
    assert value(db, "select bool_or(estimated) from queue_statistics") is False
    assert statistics(db, "old").succeeded > 99_000
    add(db, "succeeded", 1, "old")
    assert value(db, "select bool_and(estimated) from queue_statistics") is True
    assert statistics(db, "narrow")[1:9] == narrow[1:9]
    assert abs(statistics(db, "old").succeeded - MANY) < 2_000


def test_what_the_sample_misses_is_counted_all_the_same_where_an_index_leads_to_it(
    db: Connection,
) -> None:
    some_of_everything(db)
    enqueue(db, queue="only blocked", depends_on=[enqueue(db, queue="only waits")])
    for queue in ("only runs", "only fails"):
        enqueue(db, queue=queue)
        held = one(db, "select * from claim_next_job(p_queues => array[%s])", queue)
    db.execute("select fail_job(%s, %s)", [held.id, held.claim_id])
    counted = {row.queue: row._asdict() for row in db.execute(COUNTED).fetchall()}
    let_the_sample_miss_everything(db)
    estimated = {row.queue: row._asdict() for row in db.execute(ESTIMATED).fetchall()}
    assert counted["default"]["succeeded"] == 3
    for row in counted.values():
        row.update(succeeded=0, cancelled=0)
    assert estimated == counted
    assert len(estimated) == 6


def test_a_queue_with_nothing_but_what_the_sample_misses_is_shown_if_it_is_known_otherwise(
    db: Connection,
) -> None:
    db.execute("select count_events()")
    for queue in ("counted", "not counted"):
        db.execute("select cancel_job(%s)", [enqueue(db, queue=queue)])
        db.execute("update job_events set at = at - interval '2 hours'")
        if queue == "counted":
            db.execute("select count_events()")
    db.execute("select pause_queue('paused')")
    let_the_sample_miss_everything(db)
    nothing = (0, 0, 0, 0, 0, 0, 0, None, 0, 0)
    assert db.execute(ESTIMATED).fetchall() == [("counted", *nothing), ("paused", *nothing)]


def test_what_an_index_leads_to_too_many_of_is_taken_from_the_sample(db: Connection) -> None:
    for status in ("blocked", "queued", "running", "failed", "cancelled"):
        add(db, status, 12_000)
        add(db, status, 3, "other")
    db.execute(
        "insert into claims (job_id, lease, expires_at) select id, '1 hour', now() + '1 hour'"
        " from jobs where status = 'running'"
    )
    db.execute(
        "insert into job_dependencies (job_id, parent_id, on_parent_failure)"
        " select id, id, 'cancel' from jobs where status = 'blocked'"
    )
    db.execute(
        "insert into job_events (job_id, verb, to_status) select id, 'cancel', 'cancelled'"
        " from jobs where status in ('cancelled', 'failed')"
    )
    counted = db.execute(COUNTED).fetchall()
    assert counted[0][9:] == (24_000, 24_000)
    assert db.execute(ESTIMATED).fetchall() == counted
    let_the_sample_miss_everything(db)
    with db.transaction():
        before = value(db, READ)
        [row, _] = db.execute(ESTIMATED).fetchall()
        assert value(db, READ) - before < 60_000
    assert (row.queued, row.ready) == (5_000, 5_000)
    assert 4_990 < row.blocked <= 5_001
    assert 4_990 < row.running <= 5_001
    assert 4_990 < row.failed <= 5_001
    assert 9_990 < row.ended_last_minute <= 10_000


@pytest.mark.parametrize("count", [20_000, 60_000])
def test_a_sample_reads_so_many_pages_however_many_there_are(db: Connection, count: int) -> None:
    add(db, "cancelled", count * 9 // 10)
    add(db, "queued", count // 10)
    with db.transaction():
        before = value(db, READ)
        row = one(db, "select * from sampled_jobs(100)")
        assert value(db, READ) - before <= 100 * 60
    assert abs(row.queued - count * 0.1) < count * 0.02
    assert abs(row.cancelled - count * 0.9) < count * 0.05


def test_what_waits_is_counted_up_to_a_bound_in_each_lane(db: Connection) -> None:
    for priority, count in [(0, 3), (1, 8), (2, 5)]:
        db.execute(
            "select enqueue_job(p_priority => %s, p_run_at => now() - interval '1 hour')"
            " from generate_series(1, %s)",
            [priority, count],
        )
    enqueue(db, priority=3, queue="other")
    enqueue(db, priority=3, queue="other", delay="1 hour")
    ask = "select queue, queued, ready from waiting_jobs(%s) order by queue"
    assert db.execute(ask, [9]).fetchall() == [("default", 16, 16), ("other", 2, 1)]
    assert db.execute(ask, [5]).fetchall() == [("default", 13, 13), ("other", 2, 1)]
    assert db.execute(ask, [1]).fetchall() == [("default", 3, 3), ("other", 1, 1)]


ASK = "select * from claim_next_job(p_worker => %s, p_queues => %s, p_job_types => %s)"


def test_a_worker_that_asks_in_vain_is_shown_with_what_it_asked_for(db: Connection) -> None:
    before = value(db, "select clock_timestamp()")
    db.execute(ASK, ["anna", ["a", "b"], ["mail"]])
    db.execute(ASK, ["bert", None, None])
    db.execute(ASK, [None, None, None])
    anna, bert = db.execute("select * from workers order by worker").fetchall()
    assert anna[:3] == ("anna", ["a", "b"], ["mail"])
    assert before <= anna.seen_at <= value(db, "select clock_timestamp()")
    assert bert[:3] == ("bert", None, None)
    assert (anna.claims, anna.expired_claims, anna.last_beat_at) == (0, 0, None)
    assert (anna.oldest_claim_at, anna.job_ids) == (None, None)


def test_a_worker_that_asks_for_something_else_is_noted_at_once(db: Connection) -> None:
    db.execute(ASK, ["anna", ["a"], None])
    db.execute(ASK, ["anna", ["b"], None])
    assert one(db, "table workers").queues == ["b"]
    db.execute(ASK, ["anna", ["b"], ["mail"]])
    assert one(db, "table workers").job_types == ["mail"]


def test_a_worker_that_asks_for_the_same_queues_in_another_order_is_not_noted_again(
    db: Connection,
) -> None:
    db.execute(ASK, ["anna", ["a", "b"], None])
    first = one(db, "table workers")
    db.execute(ASK, ["anna", ["b", "a"], None])
    assert one(db, "table workers") == first
    db.execute(ASK, ["anna", ["b"], None])
    assert one(db, "table workers").queues == ["b"]


def test_a_worker_is_noted_every_five_seconds(db: Connection) -> None:
    db.execute(ASK, ["anna", None, None])
    first = one(db, "table workers").seen_at
    db.execute(ASK, ["anna", None, None])
    assert one(db, "table workers").seen_at == first
    db.execute("update worker_sightings set seen_at = seen_at - interval '6 seconds'")
    db.execute(ASK, ["anna", None, None])
    assert one(db, "table workers").seen_at > first


def test_a_worker_is_shown_with_the_jobs_that_it_runs(db: Connection) -> None:
    db.execute(ASK, ["anna", None, None])
    jobs = [enqueue(db) for _ in range(3)]
    held = [one(db, ASK, "anna", None, None) for _ in range(2)]
    unnamed = one(db, ASK, None, None, None)
    db.execute("update worker_sightings set seen_at = seen_at - interval '1 hour'")
    db.execute(
        "update claims set expires_at = clock_timestamp() - interval '1 s' where claim_id = %s",
        [held[1].claim_id],
    )
    claims = {row.claim_id: row for row in db.execute("table claims")}
    anna = one(db, "select * from workers where worker = 'anna'")
    assert (anna.claims, anna.expired_claims, anna.job_ids) == (2, 1, jobs[:2])
    assert anna.oldest_claim_at == claims[held[0].claim_id].claimed_at
    assert anna.last_beat_at == claims[held[0].claim_id].claimed_at
    nobody = one(db, "select * from workers where worker is null")
    assert (nobody.claims, nobody.job_ids, nobody.seen_at) == (1, [unnamed.id], None)

    db.execute("select * from heartbeat(%s)", [[held[0].claim_id]])
    beaten = one(db, "select * from workers where worker = 'anna'")
    assert beaten.last_beat_at > anna.last_beat_at
    assert beaten.oldest_claim_at == anna.oldest_claim_at


def test_a_worker_that_has_never_asked_in_vain_is_shown_while_it_runs_a_job(db: Connection) -> None:
    job_id = enqueue(db)
    held = one(db, ASK, "anna", None, None)
    db.execute("delete from worker_sightings")
    anna = one(db, "table workers")
    assert (anna.worker, anna.seen_at, anna.job_ids) == ("anna", None, [job_id])
    db.execute("select complete_job(%s, %s)", [job_id, held.claim_id])
    assert db.execute("table workers").fetchall() == []


def test_health_looks_at_each_aspect_once_and_finds_nothing_in_an_idle_queue(
    db: Connection,
) -> None:
    value(db, "select run_maintenance()")
    rows = db.execute("select * from health").fetchall()
    assert {row.aspect: row.severity for row in rows} == dict.fromkeys(
        [
            *("xmin horizon", "sessions", "dead rows", "maintenance", "expired claims"),
            *("workers", "schedules", "notification queue"),
        ],
        "ok",
    )
    assert len(rows) == 8
    assert all(row.detail for row in rows)


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_health_names_an_idle_session_that_holds_the_xmin_horizon_back(
    connect: Callable[[], Connection], isolation: str
) -> None:
    db, idle = connect(), connect()
    idle.execute("set application_name = 'report builder'")
    idle.execute(f"begin isolation level {isolation}")
    idle.execute("select count(*) from jobs")
    value(connect(), "select pg_current_xact_id()")
    pid = idle.info.backend_pid
    eventually(
        lambda: value(
            db, "select state = 'idle in transaction' from pg_stat_activity where pid = %s", pid
        )
    )
    began = value(db, "select xact_start::text from pg_stat_activity where pid = %s", pid)
    severity, detail = health(db, "xmin horizon")
    assert severity == "ok"
    assert detail.startswith(
        f"session {pid} of {idle.info.user} (report builder, idle in transaction): "
        f"select count(*) from jobs holds it back since {began}"
    )
    idle.execute("rollback")
    eventually(lambda: f"session {pid} " not in health(db, "xmin horizon")[1])


def test_health_names_a_session_that_has_written_and_not_committed(
    connect: Callable[[], Connection],
) -> None:
    db, idle = connect(), connect()
    idle.execute("begin")
    enqueue(idle)
    for _ in range(3):
        enqueue(db)
    assert f"session {idle.info.backend_pid} " in health(db, "xmin horizon")[1]
    idle.execute("rollback")


def test_health_tells_how_long_ago_maintenance_came_to_its_end(db: Connection) -> None:
    severity, detail = health(db, "maintenance")
    assert (severity, "never" in detail) == ("warning", True)
    value(db, "select run_maintenance()")
    severity, detail = health(db, "maintenance")
    assert severity == "ok"
    since = (
        "select setval('maintained_at', (extract(epoch from %s::timestamptz) * 1000000)::bigint)"
    )
    for ago, expected in [("4 minutes", "ok"), ("6 minutes", "warning")]:
        at = value(db, "select clock_timestamp() - %s::interval", ago)
        db.execute(since, [at])
        severity, detail = health(db, "maintenance")
        assert severity == expected
        told = detail.removeprefix("run_maintenance last came to its end at ")
        assert value(db, "select %s::timestamptz", told) == at


def test_health_counts_the_claims_that_ran_out_and_were_not_reclaimed(db: Connection) -> None:
    for _ in range(3):
        enqueue(db)
        claim(db)
    first, second, _ = [row.claim_id for row in db.execute("table claims")]
    for claim_id, seconds in [(first, 31), (second, 20)]:
        db.execute(
            "update claims set expires_at = now() - %s * interval '1 s' where claim_id = %s",
            [seconds, claim_id],
        )
    severity, detail = health(db, "expired claims")
    assert (severity, detail[:2]) == ("warning", "1 ")
    db.execute("update claims set expires_at = now() - interval '29 s'")
    assert health(db, "expired claims")[0] == "ok"


def test_health_warns_if_jobs_wait_and_no_worker_has_been_seen(db: Connection) -> None:
    nobody = "and no worker has been seen within a minute"
    workers = "and workers have been seen within a minute"
    assert health(db, "workers") == ("ok", f"no job waits, {nobody}")
    enqueue(db, delay="1 hour")
    assert health(db, "workers")[0] == "ok"
    db.execute(ASK, ["anna", None, None])
    enqueue(db)
    assert health(db, "workers") == ("ok", f"jobs wait, {workers}")
    db.execute("update worker_sightings set seen_at = seen_at - interval '61 seconds'")
    assert health(db, "workers") == ("warning", f"jobs wait, {nobody}")
    claim(db)
    enqueue(db)
    assert health(db, "workers") == ("ok", f"jobs wait, {workers}")
    db.execute("update claims set expires_at = now()")
    assert health(db, "workers")[0] == "warning"


def test_health_names_the_schedules_whose_last_tick_failed(db: Connection) -> None:
    assert health(db, "schedules") == ("ok", "none has failed")
    for name in ("a", "b", "c"):
        db.execute("select set_schedule(%s, '@daily')", [name])
    db.execute("update schedules set last_error = 'no ' || schedule where schedule <> 'b'")
    severity, detail = health(db, "schedules")
    assert severity == "warning"
    assert sorted(detail.split("; ")) == ["a: no a", "c: no c"]


def test_health_counts_dead_rows(db: Connection) -> None:
    for table in ("jobs", "claims", "job_events"):
        db.execute(f"alter table {table} set (autovacuum_enabled = false)")
    db.execute(
        "insert into job_events (job_id, verb, to_status)"
        " select gen_random_uuid(), 'enqueue', 'queued' from generate_series(1, 50001)"
    )
    db.execute("delete from job_events")
    db.execute("select pg_stat_force_next_flush()")
    severity, detail = eventually(lambda: (answer := health(db, "dead rows"))[0] != "ok" and answer)
    assert severity == "warning"
    assert re.fullmatch(
        r"claims: 0 dead, 0 live; job_events: 50001 dead, 0 live; jobs: 0 dead, 0 live", detail
    )


def test_health_tells_how_full_the_notification_queue_is(db: Connection) -> None:
    severity, detail = health(db, "notification queue")
    assert severity == "ok"
    assert re.fullmatch(r"\d+(\.\d+)? % full", detail)


OWNER = "job_queue_test_views_owner"


@pytest.fixture
def owner(db: Connection) -> Iterator[str]:
    """A role that is no superuser and owns the view health."""
    db.execute(f"drop role if exists {OWNER}")
    db.execute(
        f"""
        create role {OWNER};
        grant usage, create on schema job_queue to {OWNER};
        grant all on all tables in schema job_queue to {OWNER};
        grant all on all sequences in schema job_queue to {OWNER};
        grant all on all functions in schema job_queue to {OWNER};
        alter function oldest_snapshot() owner to {OWNER};
        alter function check_health() owner to {OWNER};
        alter view health owner to {OWNER};
        """
    )
    yield OWNER
    db.execute(f"drop owned by {OWNER} cascade; drop role {OWNER}")


def test_health_says_what_an_owner_that_is_no_superuser_cannot_see(
    connect: Callable[[], Connection], owner: str
) -> None:
    db, idle = connect(), connect()
    idle.execute("begin isolation level repeatable read")
    idle.execute("select count(*) from jobs")
    severity, detail = health(db, "sessions")
    assert severity == "warning"
    assert detail == f"those of other roles cannot be seen: grant pg_read_all_stats to {owner}"
    assert health(db, "xmin horizon") == ("ok", "held back by nobody that can be seen")
    assert value(db, "select count(*) from health") == 8

    db.execute(f"grant pg_read_all_stats to {owner}")
    assert health(db, "sessions") == ("ok", "all can be seen")
    assert f"session {idle.info.backend_pid} " in health(db, "xmin horizon")[1]
    idle.execute("rollback")
