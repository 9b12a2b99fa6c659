"""count_events: counters that grow by each event once, whoever asks and whenever."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import Connection, claim, enqueue, in_another_thread, value

COUNT = "select * from count_events()"


def counts(db: Connection) -> dict[tuple[str, str, str], int]:
    """Ask, and return how many events of each kind there have been."""
    rows = db.execute(COUNT).fetchall()
    return {(row.queue, row.verb, row.to_status): row.events for row in rows}


def run_seconds(db: Connection) -> dict[str, float]:
    """Ask, and return how long the runs took that ended with each verb."""
    return {row.verb: row.run_seconds for row in db.execute(COUNT)}


@pytest.fixture
def db(db: Connection) -> Connection:
    """A database in which the counters have begun."""
    assert db.execute(COUNT).fetchall() == []
    return db


ENQUEUED = ("default", "enqueue", "queued")


def test_what_was_before_the_first_call_is_not_counted(
    connect: Callable[[], Connection],
) -> None:
    connection = connect()
    enqueue(connection)
    assert counts(connection) == {}
    assert counts(connection) == {}
    enqueue(connection)
    assert counts(connection) == {ENQUEUED: 1}


def test_each_event_is_counted_once(db: Connection) -> None:
    enqueue(db), enqueue(db)
    assert counts(db) == {ENQUEUED: 2}
    assert counts(db) == {ENQUEUED: 2}
    enqueue(db)
    assert counts(db) == {ENQUEUED: 3}


def test_events_are_counted_by_queue_verb_and_status(db: Connection) -> None:
    for queue in ("a", "a", "b"):
        enqueue(db, queue=queue)
    held = claim(db)
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    held = claim(db)
    db.execute("select fail_job(%s, %s)", [held.id, held.claim_id])
    db.execute("select retry_job(%s)", [held.id])
    db.execute("select cancel_job(id) from jobs where queue = 'b'")
    assert counts(db) == {
        ("a", "enqueue", "queued"): 2,
        ("b", "enqueue", "queued"): 1,
        ("a", "claim", "running"): 2,
        ("a", "complete", "succeeded"): 1,
        ("a", "fail", "failed"): 1,
        ("a", "retry", "queued"): 1,
        ("b", "cancel", "cancelled"): 1,
    }


def test_the_time_of_a_run_is_counted_with_the_event_that_ends_it(db: Connection) -> None:
    job_id = enqueue(db, max_attempts=5, retry_delay="0")
    for seconds, verb in [(10, "fail_job(%s, %s)"), (100, "complete_job(%s, %s)")]:
        held = claim(db)
        db.execute(
            "update job_events set at = at - %s * interval '1 s'"
            " where job_id = %s and claim_id = %s and verb = 'claim'",
            [seconds, job_id, held.claim_id],
        )
        db.execute(f"select {verb}", [job_id, held.claim_id])
    taken = run_seconds(db)
    assert taken["enqueue"] == taken["claim"] == 0
    assert 10 <= taken["fail"] < 70
    assert 100 <= taken["complete"] < 160


def test_a_run_that_is_asked_to_stop_is_counted_when_it_does(db: Connection) -> None:
    enqueue(db)
    held = claim(db)
    db.execute("update job_events set at = at - interval '10 s' where verb = 'claim'")
    assert value(db, "select cancel_job(%s)", held.id)
    assert run_seconds(db)["cancel"] == 0
    db.execute("select release_job(%s, %s)", [held.id, held.claim_id])
    assert counts(db)[("default", "release", "cancelled")] == 1
    taken = run_seconds(db)
    assert taken["cancel"] == 0
    assert 10 <= taken["release"] < 70


def test_what_is_counted_stays_counted_when_its_jobs_are_pruned(db: Connection) -> None:
    for _ in range(3):
        enqueue(db)
    before = counts(db)
    db.execute("delete from jobs")
    db.execute("delete from job_events")
    assert counts(db) == before
    enqueue(db)
    counts(db)  # numbers are missing: whether they are to come is known one call later
    assert counts(db) == {ENQUEUED: 4}


def test_more_events_than_a_page_holds_are_counted_at_once_up_to_100000(db: Connection) -> None:
    enqueue(db)
    db.execute(
        "insert into job_events (job_id, verb, to_status)"
        " select id, 'enqueue', 'queued' from jobs cross join generate_series(1, 120000)"
    )
    assert counts(db) == {ENQUEUED: 100_000}
    assert counts(db) == {ENQUEUED: 120_001}


# Several at once


def test_an_event_that_commits_later_than_the_next_is_not_missed(
    db: Connection, connect: Callable[[], Connection]
) -> None:
    slow, fast = connect(), connect()
    slow.execute("begin")
    enqueue(slow, queue="slow")
    enqueue(fast, queue="fast")
    for _ in range(3):
        assert counts(db) == {}
    slow.execute("commit")
    assert counts(db) == {("slow", "enqueue", "queued"): 1, ("fast", "enqueue", "queued"): 1}
    assert counts(db) == {("slow", "enqueue", "queued"): 1, ("fast", "enqueue", "queued"): 1}


def test_an_event_that_is_rolled_back_holds_the_others_up_only_until_then(
    db: Connection, connect: Callable[[], Connection]
) -> None:
    slow, fast = connect(), connect()
    slow.execute("begin")
    enqueue(slow, queue="slow")
    enqueue(fast, queue="fast")
    assert counts(db) == {}
    slow.execute("rollback")
    assert counts(db) == {("fast", "enqueue", "queued"): 1}


def test_of_two_that_ask_at_once_one_counts_and_the_other_does_not_wait(
    db: Connection, connect: Callable[[], Connection]
) -> None:
    other = connect()
    enqueue(db)
    assert counts(db) == {ENQUEUED: 1}
    enqueue(db)
    other.execute("set lock_timeout = '1 ms'")
    db.execute("begin")
    assert counts(db) == {ENQUEUED: 2}
    assert counts(other) == {ENQUEUED: 1}
    db.execute("commit")
    assert counts(other) == {ENQUEUED: 2}


def test_what_was_counted_in_a_transaction_that_rolls_back_is_counted_again(
    db: Connection,
) -> None:
    enqueue(db)
    with db.transaction(force_rollback=True):
        assert counts(db) == {ENQUEUED: 1}
    assert counts(db) == {ENQUEUED: 1}


def test_many_that_ask_while_events_come_count_each_event_once(
    db: Connection, connect: Callable[[], Connection]
) -> None:
    askers, workers = [connect(), connect()], [connect(), connect()]

    def work(connection: Connection) -> None:
        for number in range(50):
            connection.execute("begin")
            enqueue(connection)
            enqueue(connection)
            connection.execute("rollback" if number % 5 == 0 else "commit")

    def ask(connection: Connection) -> list[Any]:
        return [counts(connection).get(ENQUEUED, 0) for _ in range(50)]

    with (
        in_another_thread(lambda: work(workers[0])),
        in_another_thread(lambda: work(workers[1])),
        in_another_thread(lambda: ask(askers[0])) as one_asker,
        in_another_thread(lambda: ask(askers[1])) as other_asker,
    ):
        pass
    for seen in (one_asker.result(), other_asker.result()):
        assert seen == sorted(seen)
    counts(db)
    assert counts(db) == {ENQUEUED: 160}
