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
