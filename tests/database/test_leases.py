"""heartbeat and reclaim_expired_claims: a silent worker loses its job, a live one does not."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

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

RECLAIM = "select reclaim_expired_claims()"


def expire(db: Connection, claim_id: int) -> None:
    """Let the claim's lease run out."""
    db.execute(
        """
        update claims
           set lease = '1 millisecond',
               expires_at = clock_timestamp() - interval '1 second'
         where claim_id = %s
        """,
        [claim_id],
    )


def heartbeat(db: Connection, *claim_ids: int, lease: str | None = None) -> list[Any]:
    """Return what heartbeat answers."""
    return [
        (row.claim_id, row.held)
        for row in db.execute("select * from heartbeat(%s, %s)", [list(claim_ids), lease])
    ]


def lose(db: Connection) -> None:
    """Claim the next job and die."""
    expire(db, claim(db).claim_id)
    assert value(db, RECLAIM) == 1


def test_a_claim_holds_for_a_minute_unless_told_otherwise(db: Connection) -> None:
    enqueue(db), enqueue(db)
    claim(db)
    db.execute("select claim_next_job(p_lease => '1 hour')")
    leases = db.execute("select (expires_at - claimed_at)::text from claims order by claim_id")
    assert [row[0][:5] for row in leases] == ["00:01", "01:00"]


@pytest.mark.parametrize("lease", ["0", "-1 hour", "1 day 1 second", "infinity", None])
def test_a_lease_out_of_range_is_refused(db: Connection, lease: str | None) -> None:
    if lease == "infinity" and db.info.server_version < 170000:
        pytest.skip("PostgreSQL 17 brought infinite intervals")
    enqueue(db)
    with raises_and_changes_nothing(db, "JQ001", "^invalid lease"):
        db.execute("select claim_next_job(p_lease => %s)", [lease])
    if lease is not None:
        with raises_and_changes_nothing(db, "JQ001", "^invalid lease"):
            heartbeat(db, 1, lease=lease)


def test_a_heartbeat_renews_the_lease_from_now(db: Connection) -> None:
    enqueue(db)
    held = claim(db)
    before = one(db, "table claims")
    assert heartbeat(db, held.claim_id) == [(held.claim_id, True)]
    after = one(db, "table claims")
    assert after.expires_at > before.expires_at
    assert after.lease == before.lease
    assert heartbeat(db, held.claim_id, lease="2 hours") == [(held.claim_id, True)]
    assert value(db, "select lease = '2 hours' and expires_at > now() + '1 hour' from claims")


def test_a_heartbeat_tells_held_claims_from_lost_ones(db: Connection) -> None:
    [enqueue(db) for _ in range(3)]
    kept, done, lost = (claim(db) for _ in range(3))
    db.execute("select complete_job(%s, %s)", [done.id, done.claim_id])
    expire(db, lost.claim_id)
    assert value(db, RECLAIM) == 1
    asked = [kept.claim_id, done.claim_id, lost.claim_id, -1]
    assert heartbeat(db, *asked) == list(zip(asked, [True, False, False, False], strict=True))
    assert heartbeat(db) == []


def test_a_heartbeat_in_time_saves_the_claim(db: Connection) -> None:
    enqueue(db)
    held = claim(db)
    expire(db, held.claim_id)
    assert heartbeat(db, held.claim_id, lease="1 minute") == [(held.claim_id, True)]
    assert value(db, RECLAIM) == 0


def test_heartbeats_leave_the_indexes_alone(db: Connection) -> None:
    enqueue(db)
    held = claim(db)
    hot_updates = "select n_tup_hot_upd from pg_stat_xact_user_tables where relname = 'claims'"
    with db.transaction():
        before = value(db, hot_updates)
        heartbeat(db, held.claim_id)
        assert value(db, hot_updates) == before + 1


def test_reclaim_leaves_live_claims_alone(db: Connection) -> None:
    enqueue(db)
    claim(db)
    before = everything(db)
    assert value(db, RECLAIM) == 0
    assert everything(db) == before


def test_a_lost_job_is_queued_again_in_its_old_place(db: Connection) -> None:
    first, second = enqueue(db), enqueue(db)
    lose(db)
    job = one(db, "select * from jobs where id = %s", first)
    assert (job.status, job.claimable, job.losses, job.result) == ("queued", True, 1, None)
    assert value(db, "select count(*) from claims") == 0
    assert [claim(db).id, claim(db).id] == [first, second]


def test_a_late_worker_whose_job_was_reclaimed_is_refused(db: Connection) -> None:
    job_id = enqueue(db)
    late = claim(db)
    expire(db, late.claim_id)
    value(db, RECLAIM)
    with raises_and_changes_nothing(db, "JQ003", "is queued, not running"):
        db.execute("select complete_job(%s, %s)", [job_id, late.claim_id])
    claim(db)
    with raises_and_changes_nothing(db, "JQ004", "does not hold"):
        db.execute("select complete_job(%s, %s)", [job_id, late.claim_id])


def test_an_expired_claim_that_nobody_reclaimed_still_completes(db: Connection) -> None:
    enqueue(db)
    held = claim(db)
    expire(db, held.claim_id)
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    assert value(db, "select status from jobs") == "succeeded"


@pytest.mark.parametrize(("max_losses", "runs"), [(0, 1), (1, 1), (2, 2), (3, 3), (5, 5)])
def test_a_job_that_kills_its_workers_fails_after_max_losses(
    db: Connection, max_losses: int, runs: int
) -> None:
    enqueue(db, max_losses=max_losses)
    for _ in range(runs):
        assert value(db, "select status from jobs") == "queued"
        lose(db)
    job = one(db, "table jobs")
    assert (job.status, job.losses) == ("failed", runs)
    assert job.result == {"error": f"lost with its worker, {runs} times of {runs}"}
    assert db.execute("select * from claim_next_job()").fetchall() == []


def test_a_wrong_max_losses_is_refused(db: Connection) -> None:
    with raises_and_changes_nothing(db, "JQ001", "^invalid max_losses"):
        enqueue(db, max_losses=-1)


def test_releasing_a_job_is_no_loss(db: Connection) -> None:
    enqueue(db, max_losses=0)
    held = claim(db)
    db.execute("select release_job(%s, %s)", [held.id, held.claim_id])
    assert value(db, "select losses from jobs") == 0


def test_claiming_reclaims_with_no_other_help(db: Connection) -> None:
    job_id = enqueue(db)
    lost = claim(db)
    expire(db, lost.claim_id)
    db.execute("select setval('reclaim_due', 0)")  # as it is a second later
    assert claim(db).id == job_id


def test_claiming_looks_for_expired_claims_once_a_second(db: Connection) -> None:
    enqueue(db)
    lost = claim(db)
    expire(db, lost.claim_id)
    db.execute("select setval('reclaim_due', (extract(epoch from now()) * 1e6)::bigint + 30000000)")
    assert db.execute("select * from claim_next_job()").fetchall() == []


def test_a_clock_that_was_put_back_does_not_stop_the_reclaiming(db: Connection) -> None:
    job_id = enqueue(db)
    lost = claim(db)
    expire(db, lost.claim_id)
    next_year = "extract(epoch from now() + interval '1 year') * 1e6"
    db.execute(f"select setval('reclaim_due', ({next_year})::bigint)")
    assert claim(db).id == job_id


def test_after_a_restart_of_the_server_each_worker_gets_a_whole_lease(db: Connection) -> None:
    uptime = "clock_timestamp() - pg_postmaster_start_time()"
    if value(db, f"select {uptime} > interval '23 hours'"):
        pytest.skip("the server has been up for longer than any lease")
    enqueue(db)
    claim(db)
    yesterday = "clock_timestamp() - interval '1 day'"
    db.execute(f"update claims set lease = {uptime} + interval '1 hour', expires_at = {yesterday}")
    assert value(db, RECLAIM) == 0
    db.execute(f"update claims set lease = greatest({uptime} - interval '1 ms', '1 ms')")
    assert value(db, RECLAIM) == 1


def test_reclaim_takes_no_more_than_its_limit(db: Connection) -> None:
    for _ in range(5):
        enqueue(db)
        expire(db, claim(db).claim_id)
    reclaimed = [value(db, "select reclaim_expired_claims(p_limit => 2)") for _ in range(4)]
    assert reclaimed == [2, 2, 1, 0]


@pytest.mark.parametrize("verb", ["complete_job", "fail_job", "release_job"])
def test_reclaim_does_not_wait_for_a_claim_that_is_being_ended(
    connect: Callable[[], Connection], verb: str
) -> None:
    worker, reclaimer = connect(), connect()
    enqueue(worker)
    held = claim(worker)
    expire(worker, held.claim_id)
    with worker.transaction():
        worker.execute(f"select {verb}(%s, %s)", [held.id, held.claim_id])
        assert value(reclaimer, RECLAIM) == 0
    assert value(reclaimer, "select losses from jobs") == 0


def test_a_heartbeat_does_not_wait_for_a_claim_that_is_being_ended(
    connect: Callable[[], Connection],
) -> None:
    worker, heart = connect(), connect()
    enqueue(worker), enqueue(worker)
    ending, running = claim(worker), claim(worker)
    with worker.transaction():
        worker.execute("select complete_job(%s, %s)", [ending.id, ending.claim_id])
        assert heartbeat(heart, ending.claim_id, running.claim_id) == [
            (ending.claim_id, True),
            (running.claim_id, True),
        ]
    assert heartbeat(heart, ending.claim_id) == [(ending.claim_id, False)]


@pytest.mark.parametrize("verb", ["complete_job", "fail_job", "release_job"])
@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_worker_that_meets_its_reclaimer_is_refused_if_that_commits(
    connect: Callable[[], Connection], verb: str, outcome: str
) -> None:
    worker, reclaimer, observer = connect(), connect(), connect()
    enqueue(worker)
    held = claim(worker)
    expire(worker, held.claim_id)
    reclaimer.execute("begin")
    assert value(reclaimer, RECLAIM) == 1
    with in_another_thread(
        lambda: worker.execute(f"select {verb}(%s, %s)", [held.id, held.claim_id])
    ) as call:
        wait_until_blocked(observer, worker, by=reclaimer)
        reclaimer.execute(outcome)
        if outcome == "rollback":
            call.result()
        else:
            with pytest.raises(psycopg.DatabaseError) as raised:
                call.result()
            assert raised.value.sqlstate == "JQ003"
    assert value(observer, "select losses from jobs") == (1 if outcome == "commit" else 0)


def test_many_reclaimers_lose_each_job_once(connect: Callable[[], Connection]) -> None:
    db = connect()
    for _ in range(60):
        enqueue(db)
        expire(db, claim(db).claim_id)
    reclaim = "select reclaim_expired_claims(p_limit => 7)"

    def reclaim_all(reclaimer: Connection) -> int:
        total = 0
        while count := value(reclaimer, reclaim):
            total += count
        return total

    with ThreadPoolExecutor(max_workers=6) as executor:
        counts = list(executor.map(reclaim_all, [connect() for _ in range(6)]))
    assert sum(counts) + reclaim_all(db) == 60
    assert value(db, "select array_agg(distinct losses) from jobs") == [1]


def test_a_heartbeat_for_an_unknown_claim_changes_nothing(db: Connection) -> None:
    before = everything(db)
    assert heartbeat(db, 1, 2) == [(1, False), (2, False)]
    assert db.execute("select * from get_job(%s)", [UNKNOWN_JOB]).fetchall() == []
    assert everything(db) == before
