"""start_listening, stop_listening: whatever makes a job claimable wakes the workers that sleep."""

from collections.abc import Callable
from hashlib import md5
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support import (
    Connection,
    claim,
    enqueue,
    eventually,
    everything,
    raises_and_changes_nothing,
    value,
)

Connect = Callable[[], Connection]

LONG = '\u00e9\'; "notify" --' * 6 + "x" * 10
assert len(LONG) == 100


def channel(queue: str) -> str:
    """Return the channel of a queue, as it is documented."""
    return "job_queue_" + md5(queue.encode()).hexdigest()


def start(worker: Connection, *queues: str) -> Any:
    """Ask to be woken when these queues, or any, have work."""
    return value(worker, "select start_listening(%s::text[])", list(queues) or None)


def stop(worker: Connection, *queues: str) -> None:
    """Ask no more."""
    worker.execute("select stop_listening(%s::text[])", [list(queues) or None])


def heard(db: Connection, *workers: Connection) -> list[list[str]]:
    """Return, of each worker, on which channels it was woken by what db has committed."""
    return [_heard(db, worker) for worker in workers]


def _heard(db: Connection, worker: Connection) -> list[str]:
    # Notifications come in the order of the commits: what is not there before this one never comes.
    worker.execute("listen the_end")
    db.execute("notify the_end")
    channels: list[str] = []
    while "the_end" not in channels:
        said = list(worker.notifies(timeout=30, stop_after=1))
        assert {each.payload for each in said} == {""}, "waited in vain"
        channels += [each.channel for each in said]
    worker.execute("unlisten the_end")
    assert channels.pop() == "the_end"
    return channels


def locks(db: Connection, of: Connection) -> Any:
    """Return how many advisory locks a session holds: one a queue, and that of all who sleep."""
    return value(
        db,
        "select count(*) from pg_locks where locktype = 'advisory' and pid = %s",
        of.info.backend_pid,
    )


def claimed(db: Connection, **arguments: Any) -> list[Any]:
    """Enqueue a job into the queue q, claim it, and return what the ends of its run ask for."""
    enqueue(db, queue="q", **arguments)
    held = claim(db)
    db.execute("select setval('reclaim_due', %s)", [2**53])
    return [held.id, held.claim_id]


def runs(held: list[Any], **more: Any) -> Jsonb:
    """Return what the ends of many runs ask for."""
    return Jsonb([{"job_id": str(held[0]), "claim_id": held[1], **more}])


# Each of these prepares what it needs and returns the call that does what its name says to a job
# of the queue q.

Act = Callable[[], Any]
WAKING: dict[str, Callable[[Connection], Act]] = {}
WAKING_NOBODY: dict[str, Callable[[Connection], Act]] = {}


def wakes(prepare: Callable[[Connection], Act]) -> None:
    """Note what is to wake the workers that sleep."""
    WAKING[prepare.__name__.replace("_", " ")] = prepare


def wakes_nobody(prepare: Callable[[Connection], Act]) -> None:
    """Note what is to leave them alone."""
    WAKING_NOBODY[prepare.__name__.replace("_", " ")] = prepare


@wakes
def enqueue_a_job(db: Connection) -> Act:
    return lambda: enqueue(db, queue="q")


@wakes
def enqueue_a_job_that_is_due(db: Connection) -> Act:
    return lambda: enqueue(db, queue="q", run_at="2001-01-01")


@wakes
def enqueue_a_job_without_delay(db: Connection) -> Act:
    return lambda: enqueue(db, queue="q", delay="0")


@wakes
def enqueue_jobs(db: Connection) -> Act:
    jobs = [{"queue": "q"}, {"queue": "q", "run_at": "2001-01-01"}, {"queue": "q", "delay": "1 h"}]
    return lambda: db.execute("select enqueue_jobs(%s)", [Jsonb(jobs)])


@wakes
def enqueue_a_child_of_what_has_succeeded(db: Connection) -> Act:
    held = claimed(db)
    db.execute("select complete_job(%s, %s)", held)
    return lambda: enqueue(db, queue="q", depends_on=[held[0]])


@wakes
def complete_a_parent(db: Connection) -> Act:
    enqueue(db, queue="parents")
    parent = claim(db)
    enqueue(db, queue="q", depends_on=[parent.id])
    return lambda: db.execute("select complete_job(%s, %s)", [parent.id, parent.claim_id])


@wakes
def complete_parents(db: Connection) -> Act:
    enqueue(db, queue="parents")
    parent = claim(db)
    enqueue(db, queue="q", depends_on=[parent.id])
    return lambda: db.execute("select complete_jobs(%s)", [runs([parent.id, parent.claim_id])])


@wakes
def cancel_a_parent_that_releases_its_child(db: Connection) -> Act:
    parent = enqueue(db, queue="parents")
    enqueue(db, queue="q", depends_on=[parent], on_parent_failure="release")
    return lambda: db.execute("select cancel_job(%s)", [parent])


@wakes
def settle_what_was_missed(db: Connection) -> Act:
    parent = enqueue(db, queue="parents")
    enqueue(db, queue="q", depends_on=[parent], on_parent_failure="release")
    db.execute("update jobs set status = 'cancelled', claimable = false where id = %s", [parent])
    return lambda: db.execute("select run_maintenance()")


@wakes
def release_a_job(db: Connection) -> Act:
    held = claimed(db)
    return lambda: db.execute("select release_job(%s, %s)", held)


@wakes
def release_jobs(db: Connection) -> Act:
    held = claimed(db)
    return lambda: db.execute("select release_jobs(%s)", [runs(held)])


@wakes
def snooze_a_job_for_no_time(db: Connection) -> Act:
    held = claimed(db)
    return lambda: db.execute("select snooze_job(%s, %s, '0')", held)


@wakes
def fail_a_job_to_be_retried_at_once(db: Connection) -> Act:
    held = claimed(db, max_attempts=2)
    return lambda: db.execute("select fail_job(%s, %s, p_retry_in => '0')", held)


@wakes
def fail_jobs_to_be_retried_at_once(db: Connection) -> Act:
    held = claimed(db, max_attempts=2)
    return lambda: db.execute("select fail_jobs(%s)", [runs(held, retry_in="0")])


@wakes
def reclaim_a_job(db: Connection) -> Act:
    held = claimed(db)
    expire = "update claims set lease = '1 ms', expires_at = '2001-01-01' where claim_id = %s"
    db.execute(expire, held[1:])
    return lambda: db.execute("select reclaim_expired_claims()")


@wakes
def time_out_a_job_that_is_retried_at_once(db: Connection) -> Act:
    claimed(db, max_attempts=2, timeout="1 hour", retry_delay="0")
    db.execute("update claims set deadline_at = '2001-01-01'")
    return lambda: db.execute("select time_out_jobs()")


@wakes
def retry_a_job(db: Connection) -> Act:
    held = claimed(db)
    db.execute("select fail_job(%s, %s)", held)
    return lambda: db.execute("select retry_job(%s)", held[:1])


@wakes
def retry_jobs(db: Connection) -> Act:
    db.execute("select fail_job(%s, %s)", claimed(db))
    return lambda: db.execute("select retry_jobs('q')")


@wakes
def resume_a_queue(db: Connection) -> Act:
    db.execute("select pause_queue('q')")
    enqueue(db, queue="q")
    return lambda: db.execute("select resume_queue('q')")


@wakes
def raise_a_limit(db: Connection) -> Act:
    db.execute("select set_queue('q', '{\"concurrency_limit\": 1}')")
    claimed(db)
    enqueue(db, queue="q")
    return lambda: db.execute("select set_queue('q', '{\"concurrency_limit\": 2}')")


def set_aside(db: Connection) -> list[Any]:
    """Have a job of q set aside for another that runs with its key, and return the latter."""
    db.execute("select set_queue('q', '{\"key_concurrency_limit\": 1}')")
    held = claimed(db, concurrency_key="k")
    enqueue(db, queue="q", concurrency_key="k")
    assert db.execute("select * from claim_next_job()").fetchall() == []
    assert value(db, "select count(*) from jobs where waits_for_key") == 1
    return held


@wakes
def end_a_run_for_which_a_job_was_set_aside(db: Connection) -> Act:
    held = set_aside(db)
    return lambda: db.execute("select complete_job(%s, %s)", held)


@wakes
def end_runs_for_which_a_job_was_set_aside(db: Connection) -> Act:
    held = set_aside(db)
    return lambda: db.execute("select complete_jobs(%s)", [runs(held)])


@wakes
def put_back_what_was_missed(db: Connection) -> Act:
    held = set_aside(db)
    db.execute("delete from claims where job_id = %s", held[:1])
    return lambda: db.execute("select run_maintenance()")


@wakes
def fire_a_schedule(db: Connection) -> Act:
    db.execute("select set_schedule('s', '* * * * *', '{\"queue\": \"q\"}')")
    db.execute("update schedules set next_at = clock_timestamp() - interval '1 min'")
    return lambda: db.execute("select fire_schedules()")


@pytest.mark.parametrize("name", WAKING)
def test_what_makes_a_job_claimable_wakes_the_sleepers_of_its_queue_and_of_all_once(
    db: Connection, connect: Connect, name: str
) -> None:
    of_queue, of_several, of_all, of_another = (connect() for _ in range(4))
    act = WAKING[name](db)
    assert start(of_queue, "q")
    assert start(of_several, "a", "q", "b")
    assert start(of_all)
    assert start(of_another, "another")
    act()
    assert value(db, "select count(*) from jobs where claimable and queue = 'q'") > 0
    assert heard(db, of_queue, of_several, of_all, of_another) == [
        [channel("q")],
        [channel("q")],
        ["job_queue"],
        [],
    ]


@pytest.mark.parametrize("name", WAKING)
def test_nobody_is_notified_where_nobody_sleeps(
    db: Connection, connect: Connect, name: str
) -> None:
    listener, of_another = connect(), connect()
    act = WAKING[name](db)
    for queues in ([], ["q"]):
        assert start(listener, *queues)
        stop(listener, *queues)
    assert start(of_another, "another")
    act()
    assert heard(db, listener) == [[]]


@wakes_nobody
def enqueue_a_job_for_later(db: Connection) -> Act:
    return lambda: enqueue(db, queue="q", delay="1 hour")


@wakes_nobody
def enqueue_a_job_for_some_day(db: Connection) -> Act:
    return lambda: enqueue(db, queue="q", run_at="2100-01-01")


@wakes_nobody
def enqueue_jobs_for_later(db: Connection) -> Act:
    return lambda: db.execute("select enqueue_jobs(%s)", [Jsonb([{"queue": "q", "delay": "1 h"}])])


@wakes_nobody
def enqueue_no_jobs(db: Connection) -> Act:
    return lambda: db.execute("select enqueue_jobs('[]')")


@wakes_nobody
def enqueue_a_blocked_job(db: Connection) -> Act:
    parent = enqueue(db, queue="parents", delay="1 hour")
    return lambda: enqueue(db, queue="q", depends_on=[parent])


@wakes_nobody
def unblock_a_job_for_later(db: Connection) -> Act:
    parent = enqueue(db, queue="parents", delay="1 hour")
    release = {"depends_on": [parent], "on_parent_failure": "release"}
    enqueue(db, queue="q", delay="1 hour", **release)
    return lambda: db.execute("select cancel_job(%s)", [parent])


@wakes_nobody
def enqueue_a_job_whose_unique_key_is_held(db: Connection) -> Act:
    enqueue(db, queue="q", unique_key="k")
    return lambda: enqueue(db, queue="q", unique_key="k")


@wakes_nobody
def enqueue_jobs_whose_unique_keys_are_held(db: Connection) -> Act:
    enqueue(db, queue="q", unique_key="k")
    jobs = Jsonb([{"queue": "q", "unique_key": "k"}])
    return lambda: db.execute("select enqueue_jobs(%s)", [jobs])


@wakes_nobody
def snooze_a_job(db: Connection) -> Act:
    held = claimed(db)
    return lambda: db.execute("select snooze_job(%s, %s, '1 hour')", held)


@wakes_nobody
def fail_a_job_to_be_retried_later(db: Connection) -> Act:
    held = claimed(db, max_attempts=2)
    return lambda: db.execute("select fail_job(%s, %s, p_retry_in => '1 hour')", held)


@wakes_nobody
def fail_a_job_for_good(db: Connection) -> Act:
    held = claimed(db)
    return lambda: db.execute("select fail_job(%s, %s)", held)


@wakes_nobody
def release_a_job_that_was_to_be_cancelled(db: Connection) -> Act:
    held = claimed(db)
    db.execute("select cancel_job(%s)", held[:1])
    return lambda: db.execute("select release_job(%s, %s)", held)


@wakes_nobody
def complete_a_job(db: Connection) -> Act:
    held = claimed(db)
    return lambda: db.execute("select complete_job(%s, %s)", held)


@wakes_nobody
def enqueue_a_job_into_a_paused_queue(db: Connection) -> Act:
    db.execute("select pause_queue('q')")
    return lambda: enqueue(db, queue="q")


@wakes_nobody
def enqueue_jobs_into_a_paused_queue(db: Connection) -> Act:
    db.execute("select pause_queue('q')")
    return lambda: db.execute("select enqueue_jobs(%s)", [Jsonb([{"queue": "q"}])])


@wakes_nobody
def pause_a_queue(db: Connection) -> Act:
    enqueue(db, queue="q")
    return lambda: db.execute("select pause_queue('q')")


@pytest.mark.parametrize("name", WAKING_NOBODY)
def test_what_makes_no_job_claimable_now_wakes_nobody(
    db: Connection, connect: Connect, name: str
) -> None:
    of_queue, of_all = connect(), connect()
    act = WAKING_NOBODY[name](db)
    assert start(of_queue, "q")
    assert start(of_all)
    act()
    assert heard(db, of_queue, of_all) == [[], []]


def test_an_enqueue_that_rolls_back_wakes_nobody(db: Connection, connect: Connect) -> None:
    worker = connect()
    assert start(worker)
    with db.transaction(force_rollback=True):
        enqueue(db)
    assert heard(db, worker) == [[]]


def test_a_worker_is_woken_when_the_enqueue_commits_and_not_before(
    db: Connection, connect: Connect
) -> None:
    client, worker = connect(), connect()
    assert start(worker)
    with client.transaction():
        enqueue(client)
        assert heard(db, worker) == [[]]
    assert heard(db, worker) == [["job_queue"]]


def test_a_batch_and_a_transaction_wake_once(db: Connection, connect: Connect) -> None:
    of_queue, of_all = connect(), connect()
    assert start(of_queue, "q")
    assert start(of_all)
    jobs = Jsonb([{"queue": queue} for queue in "qrq" * 50])
    db.execute("select enqueue_jobs(%s)", [jobs])
    assert heard(db, of_queue, of_all) == [[channel("q")], ["job_queue"]]
    with db.transaction():
        for _ in range(3):
            enqueue(db, queue="q")
            db.execute("select enqueue_jobs(%s)", [jobs])
    assert heard(db, of_queue, of_all) == [[channel("q")], ["job_queue"]]


def test_a_batch_wakes_the_sleepers_of_each_of_its_queues(db: Connection, connect: Connect) -> None:
    workers = {queue: connect() for queue in "abc"}
    for queue, worker in workers.items():
        assert start(worker, queue)
    db.execute("select enqueue_jobs(%s)", [Jsonb([{"queue": "a"}, {"queue": "c"}])])
    assert heard(db, *workers.values()) == [[channel("a")], [], [channel("c")]]


def test_all_who_sleep_are_woken(db: Connection, connect: Connect) -> None:
    workers = [connect() for _ in range(4)]
    for worker in workers[:2]:
        assert start(worker, "q")
    for worker in workers[2:]:
        assert start(worker)
    enqueue(db, queue="q")
    assert heard(db, *workers) == [[channel("q")]] * 2 + [["job_queue"]] * 2
    stop(workers[0], "q")
    enqueue(db, queue="q")
    assert heard(db, workers[1]) == [[channel("q")]]


@pytest.mark.parametrize("queue", [LONG, "A", "job_queue", "\U0001f600"])
def test_a_queue_of_any_name_has_a_channel(db: Connection, connect: Connect, queue: str) -> None:
    worker, other = connect(), connect()
    assert start(worker, queue)
    assert start(other, queue.lower() if queue == "A" else queue + "x"[: 100 - len(queue)])
    enqueue(db, queue=queue)
    assert heard(db, worker)[0] == [channel(queue)]
    assert heard(db, other)[0] == ([channel(queue)] if len(queue) == 100 else [])


def test_a_job_of_a_worker_that_sleeps_itself_wakes_the_others_only(
    db: Connection, connect: Connect
) -> None:
    worker, other = connect(), connect()
    assert start(worker, "q")
    enqueue(worker, queue="q")
    assert heard(db, worker) == [[]]
    assert start(other, "q")
    enqueue(worker, queue="q")
    assert heard(db, other) == [[channel("q")]]


def test_after_stop_listening_nothing_comes(db: Connection, connect: Connect) -> None:
    worker = connect()
    for queues in ([], ["q"], ["q", "r"]):
        assert start(worker, *queues)
        stop(worker, *queues)
        assert locks(db, worker) == 0
        enqueue(db, queue="q")
        assert heard(db, worker) == [[]]


def test_each_start_needs_a_stop(db: Connection, connect: Connect) -> None:
    worker = connect()
    assert start(worker, "q")
    assert start(worker, "q")
    stop(worker, "q")
    enqueue(db, queue="q")
    assert heard(db, worker) == [[channel("q")]]
    stop(worker, "q")
    enqueue(db, queue="q")
    assert heard(db, worker) == [[]]


def test_stop_listening_stops_for_what_it_names_only(db: Connection, connect: Connect) -> None:
    worker = connect()
    assert start(worker, "a", "b")
    assert start(worker)
    stop(worker)
    stop(worker, "a")
    enqueue(db, queue="a")
    enqueue(db, queue="b")
    assert heard(db, worker) == [[channel("b")]]


def test_a_queue_named_twice_is_one_queue(db: Connection, connect: Connect) -> None:
    worker = connect()
    assert start(worker, "q", "q", "q")
    enqueue(db, queue="q")
    assert heard(db, worker) == [[channel("q")]]
    stop(worker, "q")
    assert locks(db, worker) == 0


def test_stop_listening_without_start_does_nothing_and_says_nothing(
    db: Connection, connect: Connect
) -> None:
    worker, notices = connect(), []
    worker.add_notice_handler(lambda said: notices.append(said.message_primary))
    stop(worker)
    stop(worker, "q", "r")
    assert notices == []
    assert start(worker, "q")
    assert locks(db, worker) == 2
    stop(worker, "r")
    enqueue(db, queue="q")
    assert heard(db, worker) == [[channel("q")]]


def test_a_session_that_ends_sleeps_no_more(db: Connection, connect: Connect) -> None:
    worker = connect()
    assert start(worker, "q")
    assert start(worker)
    asleep = "select has_sleepers(queue) from unnest(array['q', null, '']) as queue"
    assert [row[0] for row in db.execute(asleep)] == [True] * 3
    worker.close()
    eventually(lambda: [row[0] for row in db.execute(asleep)] == [False] * 3)


@pytest.mark.parametrize("asked_for", [["b", "c"], [""]])
def test_a_worker_that_would_have_to_wait_is_told_to_poll_and_holds_nothing(
    db: Connection, connect: Connect, asked_for: list[str]
) -> None:
    worker = connect()
    for queue in asked_for:
        db.execute("select pg_advisory_lock(sleepers_lock(%s))", [queue])
    assert start(worker, "a", "b", "c", "d") is False
    assert locks(db, worker) == 0
    db.execute("select pg_advisory_unlock_all()")
    assert start(worker, "a", "b", "c", "d") is True
    assert locks(db, worker) == 5


def test_those_who_enqueue_hold_up_neither_one_another_nor_a_worker_that_goes_to_sleep(
    db: Connection, connect: Connect
) -> None:
    slow, quick, worker = connect(), connect(), connect()
    for session in (slow, quick, worker):
        session.execute("set lock_timeout = '1 ms'")
    with slow.transaction():
        enqueue(slow, queue="q")
        assert locks(db, slow) == 0
        enqueue(quick, queue="q")
        assert heard(db, worker) == [[]]
        assert start(worker, "q")
        enqueue(slow, queue="q")
        enqueue(quick, queue="q")
        assert heard(db, worker) == [[channel("q")]]
    assert heard(db, worker) == [[channel("q")]]


def test_who_enqueued_before_and_commits_after_a_worker_went_to_sleep_leaves_it_to_the_poll(
    db: Connection, connect: Connect
) -> None:
    client, worker = connect(), connect()
    with client.transaction():
        job_id = enqueue(client)
        assert start(worker)
        assert worker.execute("select * from claim_next_job()").fetchall() == []
    assert heard(db, worker) == [[]]
    assert claim(worker).id == job_id


def test_a_job_that_came_before_a_worker_went_to_sleep_is_there_when_it_looks_again(
    db: Connection, connect: Connect
) -> None:
    client, worker = connect(), connect()
    with client.transaction():
        job_id = enqueue(client)
        assert worker.execute("select * from claim_next_job()").fetchall() == []
    assert start(worker)
    assert heard(db, worker) == [[]]
    assert claim(worker).id == job_id


def test_a_job_that_came_while_a_worker_went_to_sleep_is_there_when_it_looks_again(
    db: Connection, connect: Connect
) -> None:
    client, worker = connect(), connect()
    with worker.transaction():
        assert start(worker)
        job_id = enqueue(client)
    assert claim(worker).id == job_id


NO_QUEUES: list[tuple[list[Any], str]] = [
    ([], "^invalid queues: {}"),
    ([None], "^invalid queue: null"),
    (["a", None], "^invalid queue: null"),
    ([""], "^invalid queue: "),
    (["a", "x" * 101], "^invalid queue: x{100}\\n"),
]


@pytest.mark.parametrize("function", ["start_listening", "stop_listening"])
@pytest.mark.parametrize(("queues", "match"), NO_QUEUES)
def test_what_is_no_queue_is_refused(
    db: Connection, connect: Connect, function: str, queues: list[Any], match: str
) -> None:
    worker = connect()
    assert start(worker, "a")
    with raises_and_changes_nothing(db, "JQ001", match):
        db.execute(f"select {function}(%s::text[])", [queues])
    assert locks(db, db) == 0
    assert locks(db, worker) == 2


def test_listening_changes_no_table(db: Connection) -> None:
    enqueue(db)
    before = everything(db)
    for queues in ([], ["a", "b"]):
        assert start(db, *queues)
        stop(db, *queues)
    assert everything(db) == before


def test_a_claim_that_met_more_jobs_of_a_full_key_than_it_sets_aside_wakes_who_goes_on(
    db: Connection, connect: Connect
) -> None:
    db.execute("select set_queue('q', '{\"key_concurrency_limit\": 1}')")
    claimed(db, concurrency_key="key")
    for _ in range(8):
        db.execute(
            'select from enqueue_jobs((select jsonb_agg(\'{"queue": "q", "concurrency_key":'
            ' "key"}\'::jsonb) from generate_series(1, 7000)))'
        )
    other = enqueue(db, queue="q", concurrency_key="other")
    worker = connect()
    assert start(worker, "q")
    assert db.execute("select * from claim_next_job()").fetchall() == []
    assert value(db, "select count(*) from jobs where waits_for_key") >= 50_000
    assert heard(db, worker) == [[channel("q")]]
    assert claim(db).id == other
    assert heard(db, worker) == [[]]
