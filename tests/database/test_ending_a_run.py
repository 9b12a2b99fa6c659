"""complete_job, fail_job and release_job: running -> succeeded, failed, queued."""

from collections.abc import Callable

import psycopg
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


def test_complete_stores_the_result_and_ends_the_claim(db: Connection) -> None:
    job_id = enqueue(db)
    claimed = claim(db)
    db.execute(
        "select complete_job(p_job_id => %s, p_claim_id => %s, p_result => %s)",
        [job_id, claimed.claim_id, '{"slept_seconds": 3}'],
    )
    job = one(db, "table jobs")
    assert (job.status, job.result) == ("succeeded", {"slept_seconds": 3})
    assert job.updated_at > claimed.updated_at
    assert value(db, "select count(*) from claims") == 0


def test_complete_needs_no_result(db: Connection) -> None:
    enqueue(db)
    claimed = claim(db)
    db.execute("select complete_job(%s, %s)", [claimed.id, claimed.claim_id])
    job = one(db, "table jobs")
    assert (job.status, job.result) == ("succeeded", None)


def test_fail_stores_the_error_as_the_result_and_ends_the_claim(db: Connection) -> None:
    job_id = enqueue(db)
    claimed = claim(db)
    db.execute(
        "select fail_job(p_job_id => %s, p_claim_id => %s, p_error => %s)",
        [job_id, claimed.claim_id, "ValueError: no"],
    )
    job = one(db, "table jobs")
    assert (job.status, job.result) == ("failed", {"error": "ValueError: no"})
    assert value(db, "select count(*) from claims") == 0
    assert db.execute("select * from claim_next_job()").fetchall() == []


@pytest.mark.parametrize("error", [None, "", "x" * 10_000_000, "\x01\x7f\ufffd\uffff"])
def test_fail_accepts_any_error(db: Connection, error: str | None) -> None:
    enqueue(db)
    claimed = claim(db)
    db.execute("select fail_job(%s, %s, %s)", [claimed.id, claimed.claim_id, error])
    job = one(db, "table jobs")
    assert job.status == "failed"
    assert job.result == {"error": error if error is None else error[:10_000]}


def test_release_hands_the_job_back_to_its_place_in_the_queue(db: Connection) -> None:
    first = enqueue(db)
    second = enqueue(db)
    held = claim(db)
    db.execute("select release_job(%s, %s)", [held.id, held.claim_id])
    assert value(db, "select count(*) from claims") == 0
    assert [claim(db).id, claim(db).id] == [first, second]


def test_a_late_worker_cannot_overwrite_the_newer_one(db: Connection) -> None:
    enqueue(db)
    late = claim(db)
    db.execute("select release_job(%s, %s)", [late.id, late.claim_id])
    newer = claim(db)
    for late_call in ("complete_job(%s, %s)", "fail_job(%s, %s)", "release_job(%s, %s)"):
        with raises_and_changes_nothing(db, "JQ004", "does not hold job"):
            db.execute(f"select {late_call}", [late.id, late.claim_id])
    db.execute("select complete_job(%s, %s)", [newer.id, newer.claim_id])
    with raises_and_changes_nothing(db, "JQ003", "is succeeded, not running"):
        db.execute("select complete_job(%s, %s)", [late.id, late.claim_id])


def test_a_claim_holds_only_its_own_job(db: Connection) -> None:
    enqueue(db), enqueue(db)
    one_claim, other_claim = claim(db), claim(db)
    with raises_and_changes_nothing(db, "JQ004", f"claim {other_claim.claim_id} does not hold"):
        db.execute("select complete_job(%s, %s)", [one_claim.id, other_claim.claim_id])


def test_completion_commits_with_the_handlers_own_writes(
    connect: Callable[[], Connection],
) -> None:
    worker, observer = connect(), connect()
    worker.execute("create table effects (job_id uuid)")
    enqueue(worker)
    held = claim(worker)
    with worker.transaction():
        worker.execute("insert into effects values (%s)", [held.id])
        worker.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
        assert value(observer, "select status from jobs") == "running"
    assert value(observer, "select status from jobs") == "succeeded"
    assert value(observer, "select count(*) from effects") == 1


def test_a_lost_claim_aborts_the_handlers_own_writes(db: Connection) -> None:
    db.execute("create table effects (job_id uuid)")
    enqueue(db)
    late = claim(db)
    db.execute("select release_job(%s, %s)", [late.id, late.claim_id])
    claim(db)
    before = everything(db)
    db.execute("begin")
    db.execute("insert into effects values (%s)", [late.id])
    with pytest.raises(psycopg.DatabaseError) as raised:
        db.execute("select complete_job(%s, %s)", [late.id, late.claim_id])
    assert raised.value.sqlstate == "JQ004"
    assert db.execute("commit").statusmessage == "ROLLBACK"
    assert value(db, "select count(*) from effects") == 0
    assert everything(db) == before


def test_completion_leaves_the_indexes_alone(db: Connection) -> None:
    db.execute("insert into jobs (sleep_seconds) select 0 from generate_series(1, 50)")
    held = claim(db)
    hot_updates = "select n_tup_hot_upd from pg_stat_xact_user_tables where relname = 'jobs'"
    with db.transaction():
        before = value(db, hot_updates)
        db.execute("select complete_job(%s, %s, '{}')", [held.id, held.claim_id])
        assert value(db, hot_updates) == before + 1
