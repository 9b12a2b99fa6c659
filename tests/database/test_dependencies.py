"""p_depends_on: a job is blocked until its parents have succeeded, and shares their failure."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
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

RECOVER = {
    "run_maintenance": "select run_maintenance()",
    "a later claim": "select setval('reclaim_due', 0), count(*)"
    " from claim_next_job(p_queues => '{nowhere}')",
}
UNSETTLED = "select count(*) from job_dependencies"


def status(db: Connection, job_id: Any) -> Any:
    """Return the status of a job."""
    return value(db, "select status from get_job(%s)", job_id)


def statuses(db: Connection, *job_ids: Any) -> list[str]:
    """Return the status of each of these jobs."""
    return [status(db, job_id) for job_id in job_ids]


def child_of(db: Connection, *parents: Any, **arguments: Any) -> Any:
    """Enqueue a job that depends on these, and return its id."""
    return enqueue(db, depends_on=list(parents), **arguments)


def verbs(db: Connection, job_id: Any) -> list[Any]:
    """Return what happened to a job: verb, from_status, to_status."""
    lines = "select verb, from_status, to_status from job_history(%s)"
    return db.execute(lines, [job_id]).fetchall()


def start(db: Connection, job_id: Any) -> Any:
    """Claim until this job runs, and return the row. Those before it run on."""
    while (row := claim(db)).id != job_id:
        pass
    return row


def complete(db: Connection, held: Any) -> None:
    """Complete this job."""
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])


def test_a_job_is_blocked_until_all_its_parents_have_succeeded(db: Connection) -> None:
    parents = [enqueue(db) for _ in range(3)]
    child = child_of(db, *parents)
    held = [claim(db) for _ in range(3)]
    assert [row.id for row in held] == parents
    for row in (held[1], held[0], held[2]):
        assert status(db, child) == "blocked"
        assert db.execute("select * from claim_next_job()").fetchall() == []
        complete(db, row)
    assert claim(db).id == child
    assert verbs(db, child) == [
        ("enqueue", None, "blocked"),
        ("unblock", "blocked", "queued"),
        ("claim", "queued", "running"),
    ]
    assert value(db, UNSETTLED) == 0
    assert one(db, "select depends_on from get_job(%s)", child).depends_on == parents


@pytest.mark.parametrize("verb", ["complete_jobs", "complete_and_claim"])
def test_a_batch_that_completes_parents_unblocks_their_children(db: Connection, verb: str) -> None:
    parents = [enqueue(db, priority=0) for _ in range(3)]
    child, other = child_of(db, *parents), child_of(db, parents[0])
    held = [claim(db) for _ in range(3)]
    runs = [{"job_id": str(row.id), "claim_id": row.claim_id} for row in held]
    db.execute(f"select * from {verb}(%s)", [Jsonb(runs)])
    expected = ["queued", "queued"] if verb == "complete_jobs" else ["running", "queued"]
    assert statuses(db, child, other) == expected


def test_an_unblocked_job_keeps_its_place_and_its_time(db: Connection) -> None:
    parent = enqueue(db, priority=0)
    child = child_of(db, parent)
    younger = enqueue(db)
    later = child_of(db, parent, delay="1 hour")
    complete(db, claim(db))
    assert statuses(db, child, later) == ["queued", "queued"]
    assert [claim(db).id, claim(db).id] == [child, younger]
    assert db.execute("select * from claim_next_job()").fetchall() == []


def test_a_parent_that_is_put_off_or_tried_again_keeps_its_children_waiting(db: Connection) -> None:
    parent = enqueue(db, max_attempts=2, priority=0)
    child = child_of(db, parent)
    for call in (
        "release_job(%s, %s)",
        "snooze_job(%s, %s, '0')",
        "fail_job(%s, %s, 'no', true, '0')",
    ):
        held = claim(db)
        db.execute(f"select {call}", [held.id, held.claim_id])
        assert statuses(db, parent, child) == ["queued", "blocked"]
    held = claim(db)
    db.execute("select cancel_job(%s)", [parent])
    assert status(db, child) == "blocked"
    complete(db, held)
    assert status(db, child) == "queued"


ENDINGS = {
    "failed": ["select fail_job(%s, %s)"],
    "cancelled": ["select release_job(%s, %s)", "select cancel_job(%s)"],
    "cancelled while it ran": ["select cancel_job(%s)", "select fail_job(%s, %s)"],
    "lost": [
        "update claims set lease = '1 ms', expires_at = now() - '1 s'::interval",
        "select reclaim_expired_claims()",
    ],
    "out of time": [
        "update claims set deadline_at = clock_timestamp()",
        "select time_out_jobs()",
    ],
}


def end(db: Connection, ending: str) -> None:
    """Claim the next job and let it end that way."""
    held = claim(db)
    for call in ENDINGS[ending]:
        db.execute(call, [held.id, held.claim_id][: call.count("%s")])


@pytest.mark.parametrize("ending", ENDINGS)
def test_if_a_parent_does_not_succeed_its_children_are_cancelled_or_released(
    db: Connection, ending: str
) -> None:
    parent = enqueue(db, max_losses=0, timeout="1 hour")
    other = enqueue(db)
    cancelled = child_of(db, other, parent)
    released = child_of(db, parent, on_parent_failure="release")
    waiting = child_of(db, other, parent, on_parent_failure="release")
    end(db, ending)
    assert statuses(db, cancelled, released, waiting) == ["cancelled", "queued", "blocked"]
    assert verbs(db, cancelled)[1:] == [("cancel", "blocked", "cancelled")]
    detail = value(db, "select detail from job_history(%s) where verb = 'cancel'", cancelled)
    assert detail == {"reason": "a job that it depends on failed or was cancelled"}
    assert verbs(db, released)[1:] == [("unblock", "blocked", "queued")]
    complete(db, claim(db))
    assert statuses(db, cancelled, waiting) == ["cancelled", "queued"]
    assert value(db, UNSETTLED) == 0


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_fate_of_a_parent_reaches_the_last_generation(db: Connection, ending: str) -> None:
    line = [enqueue(db, max_losses=0, timeout="1 hour")]
    for _ in range(30):
        line.append(child_of(db, line[-1]))
    end(db, ending)
    assert set(statuses(db, *line[1:])) == {"cancelled"}
    assert value(db, UNSETTLED) == 0


def test_a_cascade_stops_at_a_job_that_is_released(db: Connection) -> None:
    root, bystander = enqueue(db), enqueue(db)
    first = child_of(db, root)
    second = child_of(db, first)
    released = child_of(db, second, on_parent_failure="release")
    its_child = child_of(db, released)
    held_back = child_of(db, second, bystander, on_parent_failure="release")
    both = child_of(db, released, second)
    below_both = child_of(db, both, on_parent_failure="release")
    end(db, "failed")
    assert statuses(db, first, second, released, its_child, held_back, both, below_both) == [
        *("cancelled", "cancelled", "queued", "blocked", "blocked", "cancelled", "queued")
    ]


def test_a_diamond_runs_its_last_job_once(db: Connection) -> None:
    top = enqueue(db)
    left, right = child_of(db, top), child_of(db, top)
    bottom = child_of(db, left, right)
    complete(db, claim(db))
    held = [claim(db), claim(db)]
    assert [row.id for row in held] == [left, right]
    complete(db, held[0])
    assert status(db, bottom) == "blocked"
    complete(db, held[1])
    assert claim(db).id == bottom
    assert [line.verb for line in verbs(db, bottom)] == ["enqueue", "unblock", "claim"]


def test_a_diamond_that_fails_cancels_its_last_job_once(db: Connection) -> None:
    top = enqueue(db)
    left, right = child_of(db, top), child_of(db, top)
    bottom = child_of(db, left, right)
    end(db, "failed")
    assert statuses(db, left, right, bottom) == ["cancelled"] * 3
    assert [line.verb for line in verbs(db, bottom)] == ["enqueue", "cancel"]


def test_hundreds_of_parents_have_one_child_that_finishes(db: Connection) -> None:
    rows = db.execute("select id from enqueue_jobs(%s)", [Jsonb([{}] * 400)]).fetchall()
    child = child_of(db, *(row.id for row in rows))
    held = db.execute("select id as job_id, claim_id from claim_jobs(500)").fetchall()
    runs = [{"job_id": str(row.job_id), "claim_id": row.claim_id} for row in held]
    db.execute("select complete_jobs(%s)", [Jsonb(runs[:399])])
    assert status(db, child) == "blocked"
    assert value(db, UNSETTLED) == 1
    db.execute("select complete_jobs(%s)", [Jsonb(runs[399:])])
    assert claim(db).id == child


@pytest.mark.parametrize("ending", ["succeeded", "failed"])
def test_thousands_of_children_are_settled_at_the_latest_by_recovery(
    db: Connection, ending: str
) -> None:
    parent = enqueue(db)
    children = [{"depends_on": [str(parent)], "priority": 3}] * 2500
    db.execute("select enqueue_jobs(%s)", [Jsonb(children)])
    held = claim(db)
    verb = "complete_job" if ending == "succeeded" else "fail_job"
    db.execute(f"select {verb}(%s, %s)", [held.id, held.claim_id])
    for _ in range(3):
        db.execute(RECOVER["run_maintenance"])
    expected = "queued" if ending == "succeeded" else "cancelled"
    counts = db.execute("select status, count(*) from jobs where id <> %s group by 1", [parent])
    assert counts.fetchall() == [(expected, 2500)]
    assert value(db, UNSETTLED) == 0


def test_parents_that_ended_before_count_at_once(db: Connection) -> None:
    succeeded, failed, cancelled, waiting = (enqueue(db) for _ in range(4))
    complete(db, start(db, succeeded))
    end(db, "failed")
    db.execute("select cancel_job(%s)", [cancelled])
    assert statuses(db, succeeded, failed, cancelled) == ["succeeded", "failed", "cancelled"]
    children = [
        child_of(db, succeeded),
        child_of(db, succeeded, waiting),
        child_of(db, failed),
        child_of(db, cancelled, waiting),
        child_of(db, failed, cancelled, on_parent_failure="release"),
        child_of(db, failed, waiting, on_parent_failure="release"),
    ]
    expected = ["queued", "blocked", "cancelled", "cancelled", "queued", "blocked"]
    assert statuses(db, *children) == expected
    batch = [
        {"depends_on": [str(succeeded)]},
        {"depends_on": [str(failed)]},
        {"depends_on": [str(failed)], "on_parent_failure": "release"},
        {"depends_on": [str(succeeded), str(waiting)]},
    ]
    rows = db.execute("select id from enqueue_jobs(%s)", [Jsonb(batch)]).fetchall()
    assert statuses(db, *(row.id for row in rows)) == ["queued", "cancelled", "queued", "blocked"]
    assert verbs(db, children[0]) == [
        ("enqueue", None, "blocked"),
        ("unblock", "blocked", "queued"),
    ]
    assert status(db, child_of(db, children[2])) == "cancelled"


def test_no_parents_are_none(db: Connection) -> None:
    assert status(db, child_of(db)) == "queued"
    assert status(db, enqueue(db, depends_on=None)) == "queued"


def test_a_parent_named_twice_is_one_parent(db: Connection) -> None:
    parent = enqueue(db)
    child = child_of(db, parent, parent)
    assert value(db, UNSETTLED) == 1
    complete(db, claim(db))
    assert status(db, child) == "queued"


def test_a_parent_must_exist_and_nothing_can_wait_for_itself(db: Connection) -> None:
    parent = enqueue(db)
    with raises_and_changes_nothing(db, "JQ002", f"job {UNKNOWN_JOB} does not exist"):
        child_of(db, parent, UUID(UNKNOWN_JOB))
    with raises_and_changes_nothing(db, "JQ002", "job null does not exist"):
        child_of(db, parent, None)
    with raises_and_changes_nothing(db, "JQ001", "^invalid on_parent_failure: explode"):
        child_of(db, parent, on_parent_failure="explode")
    with raises_and_changes_nothing(db, "JQ001", "^invalid on_parent_failure: null"):
        child_of(db, parent, on_parent_failure=None)
    with raises_and_changes_nothing(db, "JQ001", "^invalid on_parent_failure: explode"):
        enqueue(db, on_parent_failure="explode")
    # an id that nobody knows yet could be the job's own, or that of one in the same call
    with raises_and_changes_nothing(db, "JQ001", "^invalid depends_on"):
        db.execute("select add_dependencies(%s, %s, 'cancel')", [parent, [parent]])
    assert value(db, UNSETTLED) == 0


def test_a_blocked_job_is_cancelled_at_once_and_so_are_those_below_it(db: Connection) -> None:
    parent = enqueue(db)
    child = child_of(db, parent)
    grandchild, released = child_of(db, child), child_of(db, child, on_parent_failure="release")
    assert value(db, "select cancel_job(%s)", child) == "cancelled"
    assert statuses(db, parent, child, grandchild, released) == [
        *("queued", "cancelled", "cancelled", "queued")
    ]
    assert verbs(db, child)[-1] == ("cancel", "blocked", "cancelled")
    complete(db, claim(db))
    assert statuses(db, parent, child) == ["succeeded", "cancelled"]
    assert value(db, UNSETTLED) == 0


def test_a_blocked_job_can_be_neither_run_nor_retried(db: Connection) -> None:
    child = child_of(db, enqueue(db))
    held = claim(db)
    with raises_and_changes_nothing(db, "JQ006", "is blocked"):
        db.execute("select retry_job(%s)", [child])
    for call in ("complete_job(%s, %s)", "fail_job(%s, %s)", "snooze_job(%s, %s, '0')"):
        with raises_and_changes_nothing(db, "JQ003", "is blocked, not running"):
            db.execute(f"select {call}", [child, held.claim_id])


def test_a_blocked_job_holds_its_unique_key_until_it_is_cancelled(db: Connection) -> None:
    parent = enqueue(db)
    child = child_of(db, parent, unique_key="a")
    assert enqueue(db, unique_key="a") == child
    rows = db.execute("select * from enqueue_jobs(%s)", [Jsonb([{"unique_key": "a"}])]).fetchall()
    assert rows == [(child, False)]
    end(db, "failed")
    assert status(db, child) == "cancelled"
    other = enqueue(db, unique_key="a")
    assert other != child
    with raises_and_changes_nothing(db, "JQ007", "unique key"):
        db.execute("select retry_job(%s)", [child])


def test_an_enqueue_that_finds_its_key_held_adds_no_dependency(db: Connection) -> None:
    parent = enqueue(db)
    holder = enqueue(db, unique_key="a")
    assert child_of(db, parent, unique_key="a") == holder
    assert value(db, UNSETTLED) == 0
    assert status(db, holder) == "queued"


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_parents_and_children_may_be_enqueued_in_one_transaction(
    connect: Callable[[], Connection], outcome: str
) -> None:
    client, db = connect(), connect()
    client.execute("begin")
    parent = enqueue(client)
    child = child_of(client, parent)
    rows = client.execute(
        "select id from enqueue_jobs(%s)", [Jsonb([{"depends_on": [str(parent), str(child)]}])]
    ).fetchall()
    assert db.execute("select * from claim_next_job()").fetchall() == []
    client.execute(outcome)
    if outcome == "rollback":
        assert value(db, "select count(*) from jobs") == 0
        assert value(db, UNSETTLED) == 0
        return
    for job_id in (parent, child, rows[0].id):
        held = claim(db)
        assert held.id == job_id
        complete(db, held)


def test_a_cancelled_child_that_is_retried_waits_for_nobody(db: Connection) -> None:
    failing, slow = enqueue(db), enqueue(db)
    child = child_of(db, failing, slow)
    grandchild = child_of(db, child)
    end(db, "failed")
    held = claim(db)
    assert statuses(db, child, grandchild) == ["cancelled", "cancelled"]
    db.execute("select retry_job(%s)", [child])
    db.execute(RECOVER["run_maintenance"])
    assert statuses(db, child, grandchild) == ["queued", "cancelled"]
    ours = claim(db)
    assert ours.id == child
    db.execute("select fail_job(%s, %s)", [held.id, held.claim_id])  # what it no longer waits for
    assert status(db, child) == "running"
    complete(db, ours)
    db.execute("select retry_job(%s)", [failing])
    complete(db, claim(db))
    db.execute(RECOVER["run_maintenance"])
    assert statuses(db, failing, child, grandchild) == ["succeeded", "succeeded", "cancelled"]
    assert value(db, UNSETTLED) == 0


def test_a_rolled_back_completion_leaves_the_child_blocked(db: Connection) -> None:
    parent = enqueue(db)
    child = child_of(db, parent)
    held = claim(db)
    before = everything(db)
    with db.transaction(force_rollback=True):
        complete(db, held)
        assert status(db, child) == "queued"
    assert everything(db) == before
    assert value(db, UNSETTLED) == 1
    complete(db, held)
    assert status(db, child) == "queued"


# --- two at once


@pytest.mark.parametrize("recovery", RECOVER)
@pytest.mark.parametrize(
    "endings", [("complete", "complete"), ("complete", "fail"), ("fail", "complete")]
)
def test_of_two_parents_that_end_at_once_neither_waits_and_recovery_settles_the_child(
    connect: Callable[[], Connection], endings: tuple[str, str], recovery: str
) -> None:
    workers, db = [connect(), connect()], connect()
    parents = [enqueue(db), enqueue(db)]
    child = child_of(db, *parents)
    grandchild = child_of(db, child)
    for connection in (*workers, db):  # nobody may wait; this ends a broken test
        connection.execute("set lock_timeout = '20 s'")
    for worker, ending in zip(workers, endings, strict=True):
        held = claim(worker)
        worker.execute("begin")
        worker.execute(f"select {ending}_job(%s, %s)", [held.id, held.claim_id])
    db.execute(RECOVER[recovery])  # nor does recovery wait
    assert status(db, child) == "blocked"
    for worker in workers:
        worker.execute("commit")
    db.execute(RECOVER[recovery])
    expected = ["cancelled"] * 2 if "fail" in endings else ["queued", "blocked"]
    assert statuses(db, child, grandchild) == expected
    assert value(db, UNSETTLED) == ("fail" not in endings)


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_parents_that_end_at_once_one_may_roll_back(
    connect: Callable[[], Connection], first: int
) -> None:
    workers, db = [connect(), connect()], connect()
    parents = [enqueue(db), enqueue(db)]
    child = child_of(db, *parents)
    held = [claim(worker) for worker in workers]
    for worker, row in zip(workers, held, strict=True):
        worker.execute("begin")
        complete(worker, row)
    workers[first].execute("rollback")
    workers[1 - first].execute("commit")
    db.execute(RECOVER["run_maintenance"])
    assert status(db, child) == "blocked"
    complete(workers[first], held[first])
    assert status(db, child) == "queued"


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_parents_that_end_in_transactions_of_a_higher_level_lose_no_child(
    connect: Callable[[], Connection], level: str
) -> None:
    one_worker, other_worker, db = connect(), connect(), connect()
    parents = [enqueue(db), enqueue(db)]
    child = child_of(db, *parents)
    first, second = claim(one_worker), claim(other_worker)
    other_worker.execute(f"begin isolation level {level}")
    other_worker.execute("select count(*) from jobs")  # its snapshot is older than what follows
    complete(one_worker, first)
    try:
        complete(other_worker, second)
        other_worker.execute("commit")
    except psycopg.errors.SerializationFailure:  # which such a transaction must expect
        other_worker.execute("rollback")
        complete(other_worker, second)
    db.execute(RECOVER["run_maintenance"])
    assert status(db, child) == "queued"


@pytest.mark.parametrize("recovery", RECOVER)
@pytest.mark.parametrize("ending", ["complete", "fail", "cancel"])
def test_a_parent_that_ends_while_its_child_is_being_enqueued_is_found_by_recovery(
    connect: Callable[[], Connection], ending: str, recovery: str
) -> None:
    client, db = connect(), connect()
    parent = enqueue(db)
    client.execute("begin")
    child = child_of(client, parent)
    (batch,) = client.execute(
        "select id from enqueue_jobs(%s)", [Jsonb([{"depends_on": [str(parent)]}])]
    ).fetchall()
    if ending == "cancel":
        db.execute("select cancel_job(%s)", [parent])
    else:
        held = claim(db)
        db.execute(f"select {ending}_job(%s, %s)", [held.id, held.claim_id])
    db.execute(RECOVER[recovery])
    client.execute("commit")
    db.execute(RECOVER[recovery])
    expected = "queued" if ending == "complete" else "cancelled"
    assert statuses(db, child, batch.id) == [expected, expected]
    assert value(db, UNSETTLED) == 0


def test_the_end_of_a_parent_does_not_wait_for_a_child_that_is_being_cancelled(
    connect: Callable[[], Connection],
) -> None:
    client, db = connect(), connect()
    db.execute("set lock_timeout = '20 s'")  # it may not wait; this ends a broken test
    parent = enqueue(db)
    child, other = child_of(db, parent), child_of(db, parent)
    held = claim(db)
    client.execute("begin")
    client.execute("select cancel_job(%s)", [child])
    complete(db, held)
    assert statuses(db, child, other) == ["blocked", "queued"]
    client.execute("commit")
    db.execute(RECOVER["run_maintenance"])
    assert statuses(db, child, other) == ["cancelled", "queued"]
    assert value(db, UNSETTLED) == 0


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_a_cancel_that_meets_the_end_of_the_last_parent_waits_and_cancels_the_child(
    connect: Callable[[], Connection], outcome: str
) -> None:
    worker, client, db = connect(), connect(), connect()
    parent = enqueue(db)
    child = child_of(db, parent)
    held = claim(worker)
    worker.execute("begin")
    complete(worker, held)
    with in_another_thread(lambda: value(client, "select cancel_job(%s)", child)) as call:
        wait_until_blocked(db, client, by=worker)
        worker.execute(outcome)
        assert call.result() == "cancelled"
    assert status(db, child) == "cancelled"
    last = verbs(db, child)[-1]
    assert last == ("cancel", "queued" if outcome == "commit" else "blocked", "cancelled")


# --- pruning


def test_pruning_keeps_a_parent_that_is_still_waited_for(connect: Callable[[], Connection]) -> None:
    client, db = connect(), connect()
    parent = enqueue(db)
    client.execute("begin")
    child = child_of(client, parent)
    complete(db, claim(db))
    client.execute("commit")
    assert (status(db, child), value(db, UNSETTLED)) == ("blocked", 1)
    db.execute("update jobs set updated_at = now() - '1 year'::interval where id = %s", [parent])
    assert value(db, "select prune_jobs()") == 0
    db.execute(RECOVER["run_maintenance"])
    assert status(db, child) == "queued"
    db.execute("select setval('prune_cursor', 0), prune_jobs()")
    assert value(db, "select array_agg(id) from jobs") == [child]


def test_pruning_a_cancelled_child_leaves_nothing_of_it(db: Connection) -> None:
    parent = enqueue(db)
    child = child_of(db, parent)
    db.execute("select cancel_job(%s)", [child])
    db.execute("update jobs set updated_at = now() - '1 year'::interval where id = %s", [child])
    assert value(db, "select prune_jobs()") == 1
    assert value(db, UNSETTLED) == 0
    assert value(db, "select count(*) from job_events where job_id = %s", child) == 0
    complete(db, claim(db))
    assert status(db, parent) == "succeeded"
