"""list_events and settled_events: following what happens without missing any of it."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import (
    UNKNOWN_JOB,
    Connection,
    claim,
    enqueue,
    in_another_thread,
    one,
    value,
    wait_until_blocked,
)


def events(db: Connection, **arguments: Any) -> list[Any]:
    """Return what list_events returns."""
    named = ", ".join(f"p_{name} => %({name})s" for name in arguments)
    return db.execute(f"select * from list_events({named})", arguments).fetchall()


def ids(db: Connection, **arguments: Any) -> list[int]:
    """Return the event_ids of what list_events returns."""
    return [event.event_id for event in events(db, **arguments)]


class Reader:
    """Whoever reads on as the events come in."""

    def __init__(self, db: Connection, after: int | None, limit: int = 1000) -> None:
        self._db, self._limit = db, limit
        self._position: tuple[Any, ...] = (after, None, None)

    def read(self) -> list[int]:
        """Return the next events that have settled, asking once."""
        after = self._position[0]
        self._position = one(
            self._db,
            "select * from settled_events(%s, %s, %s::bigint, %s::bigint)",
            *(after, self._limit, *self._position[1:]),
        )
        if after is None:
            return []
        page = ids(self._db, after=after, until=self.until, limit=None)
        assert len(page) <= self._limit
        return page

    @property
    def until(self) -> int:
        """How far it has read."""
        return int(self._position[0])

    @property
    def waits(self) -> bool:
        """Whether it waits for a gap to close."""
        return self._position[1] is not None


def last(db: Connection) -> int:
    """Return the highest event_id that is visible."""
    return int(value(db, "select max(event_id) from job_events"))


def test_events_are_listed_in_order_with_the_queues_of_their_jobs(db: Connection) -> None:
    job_id, other = enqueue(db, queue="a"), enqueue(db, queue="b")
    held = one(db, "select * from claim_next_job('w', '{a}')")
    db.execute("select fail_job(%s, %s, 'no', false)", [job_id, held.claim_id])
    listed = events(db)
    assert [(event.job_id, event.queue, event.verb) for event in listed] == [
        (job_id, "a", "enqueue"),
        (other, "b", "enqueue"),
        (job_id, "a", "claim"),
        (job_id, "a", "fail"),
    ]
    table = db.execute("select * from job_events order by event_id").fetchall()
    columns = [name for name in listed[0]._fields if name != "queue"]
    assert columns == list(table[0]._fields)
    for event, row in zip(listed, table, strict=True):
        assert [getattr(event, name) for name in columns] == list(row)


def test_pages_of_events_join_without_gap_or_overlap(db: Connection) -> None:
    for _ in range(7):
        enqueue(db)
    after, seen = None, []
    while page := ids(db, after=after, limit=3):
        assert len(page) <= 3
        seen += page
        after = page[-1]
    assert seen == ids(db) == sorted(seen)
    assert len(seen) == 7
    assert ids(db, until=seen[4]) == seen[:5]
    assert ids(db, after=seen[1], until=seen[4]) == seen[2:5]
    assert ids(db, after=seen[4], until=seen[1]) == []


def test_a_thousand_events_are_a_page(db: Connection) -> None:
    db.execute("select enqueue_jobs((select jsonb_agg('{}'::jsonb) from generate_series(1, 1001)))")
    assert len(ids(db)) == 1000
    assert len(ids(db, limit=None)) == 1001


def test_events_of_one_job_or_of_some_queues_are_listed(db: Connection) -> None:
    jobs = {queue: enqueue(db, queue=queue) for queue in "abc"}
    for _ in jobs:
        claim(db)
    all_ids = ids(db)
    assert ids(db, job_id=jobs["b"]) == [all_ids[1], all_ids[4]]
    assert ids(db, job_id=jobs["b"], after=all_ids[1]) == [all_ids[4]]
    assert ids(db, job_id=jobs["b"], until=all_ids[3], limit=5) == [all_ids[1]]
    assert ids(db, job_id=jobs["b"], limit=1) == [all_ids[1]]
    assert ids(db, job_id=jobs["b"], queues=["a"]) == []
    assert ids(db, job_id=UNKNOWN_JOB) == []
    assert ids(db, queues=["a", "c"]) == [all_ids[place] for place in (0, 2, 3, 5)]
    assert ids(db, queues=[]) == []


def test_events_are_listed_up_to_where_the_same_statement_asked(
    connect: Callable[[], Connection],
) -> None:
    db, other, observer = connect(), connect(), connect()
    enqueue(db)
    other.execute("select pg_advisory_lock(1)")
    # Between the statement's start and its first function another transaction commits.
    listing = (
        "with blocked as materialized (select pg_advisory_lock(1))"
        " select event_id from blocked cross join lateral settled_events(0) as settled"
        " cross join lateral list_events(0, p_until => settled.until)"
    )
    with in_another_thread(lambda: db.execute(listing).fetchall()) as rows:
        wait_until_blocked(observer, blocked=db, by=other)
        enqueue(other)
        other.execute("select pg_advisory_unlock(1)")
    assert len(rows.result()) == value(other, "select count(*) from job_events") == 2


def test_all_that_is_committed_is_settled_where_nothing_is_under_way(db: Connection) -> None:
    reader = Reader(db, 0)
    assert reader.read() == []
    for _ in range(3):
        enqueue(db)
    assert reader.read() == ids(db)
    assert reader.read() == []
    claim(db)
    assert reader.read() == [last(db)]


def test_whoever_begins_now_hears_what_comes_and_not_what_was(db: Connection) -> None:
    assert one(db, "select * from settled_events(null)") == (0, None, None)
    enqueue(db)
    reader = Reader(db, None)
    assert reader.read() == []
    assert reader.until == last(db)
    enqueue(db)
    assert reader.read() == [last(db)]


def test_an_event_that_is_committed_after_later_ones_is_not_skipped(
    connect: Callable[[], Connection],
) -> None:
    db, slow = connect(), connect()
    reader = Reader(db, 0)
    enqueue(db)
    with slow.transaction():
        enqueue(slow)
        for _ in range(3):
            enqueue(db)
        assert reader.read() == ids(db)[:1]
        assert reader.waits
        enqueue(db)
        assert reader.read() == []
    assert reader.read() == ids(db)[1:]
    assert len(ids(db)) == 6


def test_a_gap_that_was_rolled_back_is_passed_at_once_where_nothing_else_is_under_way(
    db: Connection,
) -> None:
    reader = Reader(db, 0)
    for _ in range(3):
        enqueue(db)
        with db.transaction(force_rollback=True):
            enqueue(db)
    enqueue(db)
    assert reader.read() == ids(db)
    assert last(db) > len(ids(db))


def test_a_gap_that_is_rolled_back_stalls_nobody(connect: Callable[[], Connection]) -> None:
    db, slow, other = connect(), connect(), connect()
    reader = Reader(db, 0)
    with slow.transaction(force_rollback=True):
        enqueue(slow)
        enqueue(db)
        assert reader.read() == []
        # What begins after the reader has seen the gap cannot fill it, and holds nothing up.
        other.execute("begin")
        enqueue(other)
        assert reader.read() == []
    assert reader.read() == ids(db)
    other.execute("rollback")


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_what_begins_later_has_to_be_waited_for_only_by_whoever_sees_beyond_it(
    connect: Callable[[], Connection], end: str
) -> None:
    db, first, second = connect(), connect(), connect()
    reader = Reader(db, 0)
    first.execute("begin")
    enqueue(first)
    enqueue(db)
    assert reader.read() == []
    second.execute("begin")
    enqueue(second)
    enqueue(db)
    first.execute(end)
    before_second = ids(db)[:-1]
    assert reader.read() == before_second
    assert reader.waits
    assert reader.read() == []
    second.execute(end)
    assert reader.read() == ids(db)[len(before_second) :]
    assert not reader.waits


def test_a_gap_is_filled_in_part_by_one_and_left_by_another(
    connect: Callable[[], Connection],
) -> None:
    db, commits, rolls_back = connect(), connect(), connect()
    reader = Reader(db, 0)
    for session in (commits, rolls_back):
        session.execute("begin")
    enqueue(commits), enqueue(rolls_back), enqueue(commits)
    enqueue(db)
    assert reader.read() == []
    commits.execute("commit")
    assert reader.read() == [1]  # nobody can be between it and the first
    rolls_back.execute("rollback")
    assert reader.read() == [3, 4]


def test_a_transaction_that_had_begun_but_not_written_is_waited_for(
    connect: Callable[[], Connection],
) -> None:
    """It has its transaction number before the number of its event, as every verb."""
    db, slow = connect(), connect()
    with slow.transaction():
        slow.execute("select pg_current_xact_id()")
        value(db, "select nextval('job_queue.job_events_event_id_seq')")
        enqueue(db)
        reader = Reader(db, 0)
        assert reader.read() == []
        slow.execute(
            "insert into job_events (event_id, job_id, verb, to_status) overriding system value"
            " values (1, %s, 'enqueue', 'queued')",
            [enqueue(slow)],
        )
    db.execute("update job_events set job_id = (select max(id::text)::uuid from jobs)")
    assert reader.read() == ids(db)
    assert ids(db)[0] == 1


def test_no_page_is_longer_than_the_limit_and_none_is_missed(
    connect: Callable[[], Connection],
) -> None:
    db, slow = connect(), connect()
    reader = Reader(db, 0, limit=3)
    with slow.transaction():
        for turn in range(12):
            enqueue(slow if turn % 3 == 1 else db)
            if turn % 4 == 1:
                with db.transaction(force_rollback=True):
                    enqueue(db)
        assert reader.read() == [1]
        assert reader.read() == []
    seen = [1]
    while page := reader.read():
        seen += page
    assert seen == ids(db)
    assert len(seen) == 12


def test_events_that_were_pruned_hold_nobody_up(connect: Callable[[], Connection]) -> None:
    db, other = connect(), connect()
    jobs = [enqueue(db) for _ in range(5)]
    db.execute("delete from job_events where job_id = any (%s)", [jobs[:2]])
    db.execute("delete from job_events where job_id = %s", [jobs[3]])
    reader = Reader(db, 0)
    with other.transaction(force_rollback=True):
        enqueue(other)
        assert reader.read() == []
    assert reader.read() == [3, 5]


def test_whoever_has_written_in_the_same_transaction_does_not_begin_to_wait(
    connect: Callable[[], Connection],
) -> None:
    """Its own transaction number could be lower than that of one who fills the gap."""
    db, slow = connect(), connect()
    reader = Reader(db, 0)
    db.execute("begin")
    enqueue(db)
    slow.execute("begin")
    enqueue(slow)
    enqueue(db)
    assert reader.read() == [1]
    assert not reader.waits
    db.execute("commit")
    assert reader.read() == []
    assert reader.waits
    slow.execute("commit")
    assert reader.read() == [2, 3]


def test_half_of_what_is_being_waited_for_is_nothing(db: Connection) -> None:
    enqueue(db), enqueue(db)
    assert one(db, "select * from settled_events(0, 1000, 5)") == (2, None, None)
    assert one(db, "select * from settled_events(0, 1000, null, 5)") == (2, None, None)


def test_asking_takes_a_transaction_number_only_at_a_gap(db: Connection) -> None:
    enqueue(db)
    taken = "select pg_current_xact_id_if_assigned() is not null"
    with db.transaction():
        assert Reader(db, 0).read() == [1]
        assert not value(db, taken)
    with db.transaction(force_rollback=True):
        enqueue(db)
    enqueue(db)
    with db.transaction():
        assert Reader(db, 0).read() == [1, 3]
        assert value(db, taken)
