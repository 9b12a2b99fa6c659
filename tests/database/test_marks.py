"""Marks: where a lane is searched from while what was claimed before cannot be vacuumed."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support import Connection, claim, enqueue, value

ENOUGH = 3_000  # so many jobs claimed, a hundred at a time, make a lane slow to search


@pytest.fixture
def db(connect: Callable[[], Connection]) -> Connection:
    """Return a connection to a database that nobody vacuums."""
    db = connect()
    db.execute("set synchronous_commit = off")
    for table in ("jobs", "claims", "job_events"):
        db.execute(f"alter table {table} set (autovacuum_enabled = off)")
    return db


@pytest.fixture
def pin(connect: Callable[[], Connection]) -> Iterator[Connection]:
    """Hold a snapshot, so that nothing that dies can be removed."""
    pin = connect()
    pin.execute("begin isolation level repeatable read")
    pin.execute("select from jobs")
    yield pin
    pin.close()


def add(db: Connection, jobs: int, **job: Any) -> None:
    """Enqueue so many jobs that are alike."""
    db.execute("select enqueue_jobs(%s)", [Jsonb([job] * jobs)])


def drain(db: Connection, jobs: int, queues: str | None = None) -> None:
    """Claim and complete so many jobs."""
    for _ in range(jobs // 100):
        [runs] = db.execute(
            "select jsonb_agg(jsonb_build_object('job_id', id, 'claim_id', claim_id)) as runs"
            " from claim_jobs(100, p_queues => %s::text[])",
            [queues],
        ).fetchall()
        db.execute("select complete_jobs(%s)", [Jsonb(runs.runs)])


def pass_jobs(db: Connection, jobs: int = ENOUGH, **job: Any) -> None:
    """Have so many jobs pass through the queue."""
    for _ in range(jobs // 100):
        add(db, 100, **job)
        drain(db, 100)


def marks(db: Connection) -> dict[str, int]:
    """Return the marks that there are: the run_at by job type, in microseconds."""
    rows = db.execute("select job_type, mark_id from marks").fetchall()
    found = {
        row.job_type: value(
            db, "select pg_sequence_last_value(%s::regclass)", f"mark_run_at_{row.mark_id}"
        )
        for row in rows
    }
    return {job_type: mark for job_type, mark in found.items() if mark}


def put_sweep_off(db: Connection) -> None:
    """Have nobody look for what lies before the marks in the next seconds."""
    db.execute(
        "select setval('sweep_due', (extract(epoch from clock_timestamp()) * 1e6)::bigint"
        " + 50000000)"
    )


def sweep(db: Connection) -> None:
    """Have the next claim look, which the passing of time does otherwise."""
    db.execute("select setval(due, 0) from unnest('{sweep_due,reclaim_due}'::regclass[]) as due")


def pages(db: Connection, claim: str = "claim_next_job()") -> int:
    """Return how many pages a claim reads that has nothing else to do; of ten the fewest."""
    costs = []
    for _ in range(10):
        db.execute(
            "select setval('reclaim_due', (extract(epoch from clock_timestamp()) * 1e6)::bigint"
            " + 50000000)"
        )
        [[plan]] = db.execute(
            f"explain (analyze, buffers, timing off, format json) select * from {claim}"
        ).fetchall()
        costs.append(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])
    return int(min(costs))


CLAIMS = [
    "claim_next_job()",
    "claim_next_job(p_queues => '{default}', p_job_types => '{other,sleep}')",
    "claim_jobs(20)",
]


@pytest.mark.parametrize("ask", CLAIMS)
def test_a_claim_reads_hardly_more_pages_while_nothing_can_be_vacuumed(
    db: Connection, pin: Connection, ask: str
) -> None:
    add(db, 400)
    before = pages(db, ask)
    assert marks(db) == {}
    add(db, 8_000)
    drain(db, 8_000)
    assert list(marks(db)) == ["sleep"]
    add(db, 400)
    assert pages(db, ask) <= before + 60  # unmarked it walks 8,000 entries


def test_a_poll_of_a_drained_queue_reads_few_pages(db: Connection, pin: Connection) -> None:
    pass_jobs(db, 8_000)
    assert db.execute("select * from claim_next_job()").fetchall() == []
    assert pages(db) <= 200  # unmarked it walks 8,000 entries


def test_a_queue_behind_one_that_was_drained_is_found_by_who_names_none(
    db: Connection, pin: Connection
) -> None:
    pass_jobs(db, queue="a")
    pass_jobs(db, queue="c")
    expected = {enqueue(db, queue=queue) for queue in "abcd"}
    put_sweep_off(db)
    assert {row.id for row in db.execute("select * from claim_jobs(9)").fetchall()} == expected


def test_types_before_between_and_behind_marked_ones_are_found_by_who_names_none(
    db: Connection, pin: Connection
) -> None:
    pass_jobs(db, job_type="b")
    pass_jobs(db, job_type="d")
    expected = {enqueue(db, job_type=job_type) for job_type in "abcde"}
    assert set(marks(db)) == {"b", "d"}
    put_sweep_off(db)
    claimed = db.execute("select * from claim_jobs(9, p_queues => '{default}')").fetchall()
    assert {row.id for row in claimed} == expected


def test_a_lane_is_marked_alone(db: Connection, pin: Connection) -> None:
    other = enqueue(db, job_type="other")
    urgent = enqueue(db, priority=0, delay="1 hour")
    add(db, ENOUGH)
    for _ in range(ENOUGH // 100):
        runs = db.execute("select id from claim_jobs(100, p_job_types => '{sleep}')").fetchall()
        assert len(runs) == 100
    assert value(db, "select count(*) from marks") == 1
    assert value(db, "select priority from marks where job_type = 'sleep'") == 1
    assert claim(db).id == other
    db.execute("update jobs set run_at = clock_timestamp() where id = %s", [urgent])
    assert claim(db).id == urgent


def test_a_job_whose_transaction_commits_late_runs_after_the_next_sweep(
    db: Connection, pin: Connection, connect: Callable[[], Connection]
) -> None:
    slow = connect()
    with slow.transaction():
        late = enqueue(slow)
        slow.execute("update jobs set run_at = run_at - interval '1 s' where id = %s", [late])
        add(db, ENOUGH + 500)
        put_sweep_off(db)
        drain(db, ENOUGH)
        assert marks(db)
    drain(db, 500)
    assert db.execute("select * from claim_next_job()").fetchall() == []  # the mark is beyond
    sweep(db)
    assert claim(db).id == late


def test_jobs_whose_claim_is_rolled_back_run_after_the_next_sweep(
    db: Connection, pin: Connection, connect: Callable[[], Connection]
) -> None:
    other = connect()
    add(db, ENOUGH + 1000)
    with other.transaction(force_rollback=True):
        first = {row.id for row in other.execute("select id from claim_jobs(10)").fetchall()}
        put_sweep_off(db)
        drain(db, ENOUGH)
        assert marks(db)
    sweep(db)
    assert {claim(db).id for _ in range(10)} == first


def test_a_run_that_is_handed_back_runs_again_after_the_next_sweep(
    db: Connection, pin: Connection
) -> None:
    add(db, ENOUGH + 1000)
    held = claim(db)
    put_sweep_off(db)
    drain(db, ENOUGH)
    assert marks(db)
    db.execute("select release_job(%s, %s)", [held.id, held.claim_id])
    assert claim(db).id != held.id
    sweep(db)
    assert claim(db).id == held.id


@pytest.mark.parametrize("far", [1, 2**62])
def test_a_mark_that_was_set_by_hand_hides_no_job_for_longer_than_until_the_next_sweep(
    db: Connection, pin: Connection, far: int
) -> None:
    pass_jobs(db)
    mark_id = value(db, "select mark_id from marks")
    add(db, 3)
    db.execute(
        "select setval(s::regclass, %s) from unnest(%s::text[]) as s",
        [far, [f"mark_run_at_{mark_id}", f"mark_seq_{mark_id}"]],
    )
    claimed = len(db.execute("select * from claim_jobs(1)").fetchall())
    sweep(db)
    claimed += len(db.execute("select * from claim_jobs(1)").fetchall())
    claimed += len(db.execute("select * from claim_jobs(5)").fetchall())
    assert claimed == 3


def test_a_sweep_that_was_put_off_for_ever_by_hand_takes_place(
    db: Connection, pin: Connection
) -> None:
    pass_jobs(db)
    mark_id = value(db, "select mark_id from marks")
    job_id = enqueue(db)
    db.execute("select setval(%s::regclass, %s)", [f"mark_run_at_{mark_id}", 2**62])
    db.execute("select setval('sweep_due', %s)", [2**62])
    db.execute("select setval('reclaim_due', 0)")
    assert claim(db).id == job_id


def test_the_mark_goes_when_what_has_died_is_vacuumed(db: Connection, pin: Connection) -> None:
    pass_jobs(db)
    assert marks(db)
    pin.rollback()
    db.execute("vacuum jobs")
    sweep(db)
    assert db.execute("select * from claim_next_job()").fetchall() == []
    assert marks(db) == {}
    assert not value(db, "select is_set from marks")
    db.execute("vacuum marks")
    pin.execute("begin isolation level repeatable read")
    pin.execute("select from jobs")
    pass_jobs(db)
    assert list(marks(db)) == ["sleep"]
    assert value(db, "select is_set from marks")


def test_whoever_marks_a_lane_waits_for_nobody_else_who_does(
    db: Connection, pin: Connection, connect: Callable[[], Connection]
) -> None:
    other = connect()
    add(db, 2 * ENOUGH)
    with other.transaction(force_rollback=True):
        other.execute(
            "select pg_advisory_xact_lock(hashtextextended('job_queue mark 1 sleep default', 0))"
        )
        drain(db, ENOUGH)
        assert marks(db) == {}
    drain(db, 500)
    assert marks(db)


def test_a_claim_takes_what_others_have_not_locked_and_no_more_than_it_is_to(
    db: Connection, connect: Callable[[], Connection]
) -> None:
    other, third = connect(), connect()
    add(db, 300)
    with other.transaction(force_rollback=True), db.transaction(force_rollback=True):
        first = other.execute("select id from claim_jobs(200)").fetchall()
        mine = db.execute("select id from claim_jobs(3)").fetchall()
        rest = third.execute("select id from jobs for update skip locked").fetchall()
        assert (len(first), len(mine), len(rest)) == (200, 3, 97)
        in_order = db.execute("select id from jobs order by run_at, seq limit 203").fetchall()
        assert {row.id for row in (*first, *mine)} == {row.id for row in in_order}
