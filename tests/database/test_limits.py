"""set_queue: defaults, pauses, and limits, which nothing overruns and which hold nobody up."""

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support import (
    Connection,
    claim,
    enqueue,
    everything,
    one,
    raises_and_changes_nothing,
    value,
)

POLICY = (
    "select paused, concurrency_limit, key_concurrency_limit, rate_limit, rate_period::text,"
    " max_attempts, retry_delay::text, retry_delay_max::text, max_losses, timeout::text,"
    " keep_succeeded::text, keep_failed::text, keep_cancelled::text from job_queue.queues"
    " where queue = 'default'"
)
DEFAULTS = (False, None, None, None, "00:01:00", *[None] * 8)
RECOVER = "select run_maintenance()"


def set_queue(db: Connection, **policy: Any) -> None:
    """Change the policy of the queue that is named default."""
    set_queue_named(db, "default", **policy)


def set_queue_named(db: Connection, name: str, /, **policy: Any) -> None:
    """Change the policy of a queue."""
    db.execute("select set_queue(%s, %s)", [name, Jsonb(policy)])


def enqueue_jobs(db: Connection, *jobs: dict[str, Any]) -> list[Any]:
    """Enqueue these jobs and return their ids."""
    return [row[0] for row in db.execute("select id from enqueue_jobs(%s)", [Jsonb(list(jobs))])]


def keyed(letters: str, **job: Any) -> list[dict[str, Any]]:
    """Return a job for each of these concurrency keys, named by key and number."""
    numbers: Counter[str] = Counter()
    jobs = []
    for letter in letters:
        numbers[letter] += 1
        message = f"{letter}{numbers[letter]}"
        jobs.append({"concurrency_key": letter, "message": message, **job})
    return jobs


def claim_jobs(db: Connection, limit: int = 100) -> list[Any]:
    """Claim jobs and return the rows."""
    return db.execute("select * from claim_jobs(%s)", [limit]).fetchall()


def messages(jobs: list[Any]) -> list[str]:
    """Return what tells these jobs apart."""
    return [job.message for job in jobs]


def complete(db: Connection, *held: Any) -> None:
    """Complete these jobs."""
    for row in held:
        db.execute("select complete_job(%s, %s)", [row.id, row.claim_id])


def aside(db: Connection) -> list[str]:
    """Return the jobs that were set aside."""
    return messages(
        db.execute("select message from jobs where waits_for_key order by seq").fetchall()
    )


def put_recovery_off(db: Connection) -> None:
    """Let no claim recover anything for the next minute, so that nothing else helps."""
    db.execute(
        "select setval('reclaim_due',"
        " (extract(epoch from clock_timestamp()) * 1000000)::bigint + 59000000)"
    )


def never_wait(db: Connection) -> None:
    """Let a broken test that waits for a lock end."""
    db.execute("set lock_timeout = '20 s'")


# --- set_queue


def test_a_policy_is_merged_into_the_one_before(db: Connection) -> None:
    set_queue(db)
    assert one(db, POLICY) == DEFAULTS
    set_queue(
        db,
        paused=True,
        concurrency_limit=1,
        key_concurrency_limit=2,
        rate_limit=3,
        rate_period="4 seconds",
        max_attempts=5,
        retry_delay="6 seconds",
        retry_delay_max="7 seconds",
        max_losses=0,
        timeout="9 seconds",
        keep_succeeded="10 days",
        keep_failed="0",
        keep_cancelled="12 days",
    )
    before = one(db, POLICY)
    assert before == (
        *(True, 1, 2, 3, "00:00:04", 5, "00:00:06", "00:00:07", 0, "00:00:09"),
        *("10 days", "00:00:00", "12 days"),
    )
    set_queue(db)
    assert one(db, POLICY) == before
    set_queue(db, concurrency_limit=10000, retry_delay=None)
    assert one(db, POLICY) == before._replace(concurrency_limit=10000, retry_delay=None)
    set_queue_named(db, "another", paused=True)
    set_queue(db, **dict.fromkeys(before._fields))
    assert one(db, POLICY) == DEFAULTS


WRONG_POLICIES: list[Any] = [
    {"colour": "red"},
    {"queue": "b"},
    {"queue_id": 7},
    {"concurrency_limit": 0},
    {"concurrency_limit": 10001},
    {"concurrency_limit": "many"},
    {"concurrency_limit": 1.5},
    {"concurrency_limit": 99999999999},
    {"concurrency_limit": {}},
    {"key_concurrency_limit": 0},
    {"key_concurrency_limit": 10001},
    {"rate_limit": 0},
    {"rate_limit": 1000001},
    {"rate_period": "0"},
    {"rate_period": "2 years"},
    {"rate_period": "an eon"},
    {"paused": "perhaps"},
    {"max_attempts": 0},
    {"retry_delay": "-1 second"},
    {"retry_delay_max": "2 years"},
    {"max_losses": -1},
    {"timeout": "0"},
    {"keep_succeeded": "-1 day"},
    {"keep_failed": "1001 years"},
    {"keep_cancelled": []},
    [],
    [{"paused": True}],
    "paused",
    1,
    None,
]


@pytest.mark.parametrize("policy", WRONG_POLICIES, ids=str)
def test_a_wrong_policy_is_refused_and_changes_nothing(db: Connection, policy: Any) -> None:
    set_queue(db, concurrency_limit=1, max_attempts=2)
    before = db.execute("table job_queue.queues").fetchall()
    if isinstance(policy, dict):
        policy = {"max_losses": 1, **policy}
    for queue in ("default", "another"):
        with raises_and_changes_nothing(db, "JQ001", "^invalid policy"):
            db.execute("select set_queue(%s, %s)", [queue, Jsonb(policy)])
        assert db.execute("table job_queue.queues").fetchall() == before
    with raises_and_changes_nothing(db, "JQ001", "^invalid policy: null"):
        db.execute("select set_queue('default', null)")


@pytest.mark.parametrize("verb", ["set_queue(%s, '{}')", "pause_queue(%s)", "resume_queue(%s)"])
@pytest.mark.parametrize("queue", ["", "x" * 101, None])
def test_a_wrong_name_of_a_queue_is_refused(db: Connection, queue: str | None, verb: str) -> None:
    with raises_and_changes_nothing(db, "JQ001", "^invalid "):
        db.execute(f"select {verb}", [queue])
    assert value(db, "select count(*) from job_queue.queues") == 0


def test_a_queue_has_defaults_for_the_jobs_enqueued_from_then_on(db: Connection) -> None:
    columns = "max_attempts, retry_delay::text, retry_delay_max::text, max_losses, timeout::text"
    jobs = f"select {columns} from jobs order by seq"
    enqueue(db)
    set_queue(
        db,
        max_attempts=5,
        retry_delay="6 seconds",
        retry_delay_max="7 seconds",
        max_losses=8,
        timeout="9 seconds",
    )
    enqueue(db), enqueue_jobs(db, {})
    own = {
        "max_attempts": 1,
        "retry_delay": "1 second",
        "retry_delay_max": "2 seconds",
        "max_losses": 0,
        "timeout": "4 seconds",
    }
    enqueue(db, **own), enqueue_jobs(db, own)
    enqueue(db, queue="another"), enqueue_jobs(db, {"queue": "another"})
    set_queue(db, max_attempts=None, retry_delay=None, retry_delay_max=None, max_losses=None)
    enqueue(db), enqueue_jobs(db, {})
    plain = (1, "00:00:15", "01:00:00", 3, None)
    theirs = (5, "00:00:06", "00:00:07", 8, "00:00:09")
    given = (1, "00:00:01", "00:00:02", 0, "00:00:04")
    last = (*plain[:4], "00:00:09")
    expected = [plain, theirs, theirs, given, given, plain, plain, last, last]
    assert db.execute(jobs).fetchall() == expected


def test_a_paused_queue_takes_jobs_and_gives_none(db: Connection) -> None:
    enqueue(db, message="1")
    enqueue(db, message="2")
    held = claim(db)
    db.execute("select pause_queue('default')")
    enqueue(db, message="3")
    enqueue(db, message="elsewhere", queue="another")
    assert messages(claim_jobs(db)) == ["elsewhere"]
    assert claim_jobs(db) == []
    assert db.execute("select * from claim_next_job(p_queues => '{default}')").fetchall() == []
    assert value(db, "select held from heartbeat(%s)", [held.claim_id]) is True
    complete(db, held)
    set_queue(db, concurrency_limit=5)
    assert claim_jobs(db) == []
    db.execute("select resume_queue('default')")
    assert messages(claim_jobs(db)) == ["2", "3"]
    assert value(db, "select concurrency_limit from job_queue.queues") == 5


def test_a_queue_that_is_deleted_takes_its_clock_along(db: Connection) -> None:
    clocks = "select count(*) from pg_class where relname like 'rate_clock%%'"
    set_queue(db, rate_limit=1)
    set_queue_named(db, "another", rate_limit=1)
    assert value(db, clocks) == 2
    enqueue(db), enqueue(db), claim_jobs(db)
    db.execute("delete from job_queue.queues where queue = 'default'")
    assert value(db, clocks) == 1
    set_queue(db, rate_limit=1)
    assert value(db, clocks) == 2
    assert len(claim_jobs(db)) == 1


# --- concurrency_limit


def test_no_more_jobs_of_a_queue_run_at_once_than_its_limit(db: Connection) -> None:
    set_queue(db, concurrency_limit=2)
    enqueue_jobs(db, *({"message": str(number)} for number in range(1, 7)))
    enqueue_jobs(db, *({"message": "free", "queue": "unlimited"} for _ in range(3)))
    first, second = db.execute("select * from claim_jobs(9, p_queues => '{default}')").fetchall()
    assert messages([first, second]) == ["1", "2"]
    assert messages(claim_jobs(db)) == ["free"] * 3
    complete(db, second)
    assert claim(db).message == "3"
    assert claim_jobs(db) == []
    db.execute("select fail_job(%s, %s)", [first.id, first.claim_id])
    assert messages(claim_jobs(db)) == ["4"]
    slots = db.execute(
        "select queue, queue_slot from claims where queue_slot is not null"
    ).fetchall()
    assert sorted(slots) == [("default", 1), ("default", 2)]


def test_jobs_within_a_limit_run_in_their_order(db: Connection) -> None:
    set_queue(db, concurrency_limit=1, key_concurrency_limit=1, rate_limit=1000)
    for priority in (3, 1, 2, 0, 1):
        enqueue(db, priority=priority, message=f"{priority}", concurrency_key="k")
    enqueue(db, message="first", priority=0, run_at="2001-01-01")
    enqueue(db, message="not yet", priority=0, delay="1 hour")
    order = []
    while rows := claim_jobs(db):
        order += messages(rows)
        complete(db, *rows)
    assert order == ["first", "0", "1", "1", "2", "3"]


@pytest.mark.parametrize("limit", ["concurrency_limit", "key_concurrency_limit"])
def test_a_limit_counts_what_runs_already_when_it_is_set(db: Connection, limit: str) -> None:
    enqueue_jobs(db, *keyed("k" * 8))
    held = claim_jobs(db, 3)
    set_queue(db, **{limit: 2})
    set_queue(db, **{limit: 2})
    put_recovery_off(db)
    assert claim_jobs(db) == []
    complete(db, held[0])
    assert claim_jobs(db) == []
    complete(db, held[1])
    assert messages(claim_jobs(db)) == ["k4"]
    complete(db, held[2])
    assert messages(claim_jobs(db)) == ["k5"]
    assert claim_jobs(db) == []


@pytest.mark.parametrize("limit", ["concurrency_limit", "key_concurrency_limit"])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_limit_that_is_lowered_is_kept_from_then_on(
    db: Connection, limit: str, order: tuple[int, ...]
) -> None:
    set_queue(db, **{limit: 3})
    enqueue_jobs(db, *keyed("k" * 8))
    held = claim_jobs(db)
    assert messages(held) == ["k1", "k2", "k3"]
    set_queue(db, **{limit: 1})
    put_recovery_off(db)
    for number in order[:2]:
        assert claim_jobs(db) == []
        complete(db, held[number])
    assert claim_jobs(db) == []
    complete(db, held[order[2]])
    assert messages(claim_jobs(db)) == ["k4"]
    assert claim_jobs(db) == []


@pytest.mark.parametrize("limit", ["concurrency_limit", "key_concurrency_limit"])
def test_a_limit_that_is_lowered_is_kept_by_two_who_claim_at_once(
    connect: Callable[[], Connection], limit: str
) -> None:
    one_worker, db = connect(), connect()
    never_wait(db)
    set_queue(db, **{limit: 3})
    enqueue_jobs(db, *keyed("k" * 8))
    complete(db, *claim_jobs(db)[:2])  # the third has the third slot, and runs on
    set_queue(db, **{limit: 2})
    db.execute(RECOVER)
    put_recovery_off(db)
    one_worker.execute("begin")
    assert messages(claim_jobs(one_worker)) == ["k4"]
    assert claim_jobs(db) == []
    one_worker.execute("commit")
    assert claim_jobs(db) == []
    assert value(db, "select count(*) from claims") == 2


@pytest.mark.parametrize("limit", ["concurrency_limit", "key_concurrency_limit"])
def test_a_limit_that_was_removed_and_set_again_counts_all_that_runs(
    db: Connection, limit: str
) -> None:
    enqueue_jobs(db, *keyed("k" * 8))
    set_queue(db, **{limit: 1})
    claim_jobs(db)
    set_queue(db, **{limit: None})
    db.execute(RECOVER)
    held = claim_jobs(db, 2)
    assert messages(held) == ["k2", "k3"]
    set_queue(db, **{limit: 3})
    put_recovery_off(db)
    assert claim_jobs(db) == []
    complete(db, held[0])
    assert messages(claim_jobs(db)) == ["k4"]


@pytest.mark.parametrize("limit", ["concurrency_limit", "key_concurrency_limit"])
def test_a_limit_that_is_raised_or_removed_lets_more_jobs_run(db: Connection, limit: str) -> None:
    set_queue(db, **{limit: 1})
    enqueue_jobs(db, *keyed("k" * 8))
    assert messages(claim_jobs(db)) == ["k1"]
    assert claim_jobs(db) == []
    set_queue(db, **{limit: 3})
    db.execute(RECOVER)
    assert messages(claim_jobs(db)) == ["k2", "k3"]
    assert claim_jobs(db) == []
    set_queue(db, **{limit: None})
    db.execute("select setval('reclaim_due', 0)")  # as it is a second later
    assert messages(claim_jobs(db)) == ["k4", "k5", "k6", "k7", "k8"]


def test_a_claim_that_is_rolled_back_frees_its_slots(db: Connection) -> None:
    set_queue(db, concurrency_limit=1, key_concurrency_limit=1)
    enqueue_jobs(db, *keyed("kk"))
    with db.transaction(force_rollback=True):
        assert messages(claim_jobs(db)) == ["k1"]
        assert claim_jobs(db) == []
    with db.transaction():
        with db.transaction(force_rollback=True):
            assert messages(claim_jobs(db)) == ["k1"]
        assert messages(claim_jobs(db)) == ["k1"]
    assert claim_jobs(db) == []


def test_an_open_claim_keeps_its_slot_and_leaves_the_others(
    connect: Callable[[], Connection],
) -> None:
    one_worker, other_worker, db = connect(), connect(), connect()
    never_wait(db)
    set_queue(db, concurrency_limit=3)
    enqueue_jobs(db, *({"message": str(number)} for number in range(1, 6)))
    one_worker.execute("begin")
    first = claim(one_worker)
    assert first.message == "1"
    other_worker.execute("begin")
    assert messages(claim_jobs(other_worker, 1)) == ["2"]
    assert messages(claim_jobs(db)) == ["3"]
    assert claim_jobs(db) == []
    one_worker.execute("commit")
    assert claim_jobs(db) == []
    other_worker.execute("rollback")
    assert messages(claim_jobs(db)) == ["2"]
    assert claim_jobs(db) == []
    # a run that ends in an open transaction has not ended yet
    one_worker.execute("begin")
    complete(one_worker, first)
    assert claim_jobs(db) == []
    one_worker.execute("commit")
    assert messages(claim_jobs(db)) == ["4"]


def test_a_worker_that_finds_less_than_it_asked_for_leaves_the_other_slots(
    connect: Callable[[], Connection],
) -> None:
    one_worker, db = connect(), connect()
    never_wait(db)
    set_queue(db, concurrency_limit=3)
    enqueue(db, message="1")
    one_worker.execute("begin")
    assert messages(claim_jobs(one_worker)) == ["1"]
    enqueue(db, message="2")
    assert messages(claim_jobs(db)) == ["2"]


# --- key_concurrency_limit


def test_no_more_jobs_of_a_key_run_at_once_than_its_limit(db: Connection) -> None:
    set_queue(db, key_concurrency_limit=2)
    set_queue_named(db, "another", key_concurrency_limit=1)
    enqueue_jobs(db, *keyed("aaabaccb"), {"message": "none"}, {"message": "none"})
    enqueue_jobs(db, *keyed("aa", queue="another"), *keyed("aa", queue="unlimited"))
    rows = db.execute("select * from claim_jobs(99, p_queues => '{default}')").fetchall()
    assert messages(rows) == ["a1", "a2", "b1", "c1", "c2", "b2", "none", "none"]
    rows = db.execute("select * from claim_jobs(99, p_queues => '{another}')").fetchall()
    assert messages(rows) == ["a1"]
    assert messages(claim_jobs(db)) == ["a1", "a2"]
    assert aside(db) == ["a3", "a4", "a2"]
    keys = value(
        db,
        "select array_agg(row(queue, concurrency_key, key_slot)::text order by claim_id)"
        " from claims where key_slot is not null",
    )
    assert keys == [
        *("(default,a,1)", "(default,a,2)", "(default,b,1)", "(default,c,1)", "(default,c,2)"),
        *("(default,b,2)", "(another,a,1)"),
    ]


def test_a_full_key_with_thousands_of_jobs_in_front_keeps_no_other_back(db: Connection) -> None:
    set_queue(db, key_concurrency_limit=1)
    enqueue_jobs(db, *keyed("a" * 3000), *keyed("bcb"), *keyed("d", priority=2))
    held = claim_jobs(db, 3)
    assert messages(held) == ["a1", "b1", "c1"]
    assert claim(db).message == "d1"
    assert claim_jobs(db, 3) == []
    put_recovery_off(db)
    for number in range(2, 6):  # and its own jobs run in their order
        complete(db, held[0])
        held[:1] = claim_jobs(db, 3)
        assert messages(held[:1]) == [f"a{number}"]
    complete(db, held[1])
    assert claim(db).message == "b2"


@pytest.mark.parametrize("in_front", ["of another type", "being claimed"])
def test_a_job_of_a_full_key_far_behind_others_ends_no_search(
    connect: Callable[[], Connection], in_front: str
) -> None:
    db, other = connect(), connect()
    db.execute("set statement_timeout = '60 s'")  # the search must end; this ends a broken test
    set_queue(db, key_concurrency_limit=1)
    enqueue_jobs(db, *keyed("k", job_type="mine", priority=0))
    assert claim(db).message == "k1"
    enqueue_jobs(db, *({"job_type": "other"} for _ in range(1100)))
    enqueue_jobs(db, *keyed("kj", job_type="mine"))
    if in_front == "being claimed":
        other.execute("begin")
        assert len(claim_jobs(other, 1100)) == 1100
    rows = db.execute("select * from claim_jobs(5, p_job_types => '{mine}')").fetchall()
    assert messages(rows) == ["j1"]
    assert aside(db) == ["k1"]


def test_an_open_claim_keeps_its_key_and_leaves_the_others(
    connect: Callable[[], Connection],
) -> None:
    one_worker, db = connect(), connect()
    never_wait(db)
    set_queue(db, key_concurrency_limit=1)
    enqueue_jobs(db, *keyed("aaabb"))
    one_worker.execute("begin")
    assert messages(claim_jobs(one_worker, 1)) == ["a1"]
    assert messages(claim_jobs(db)) == ["b1"]
    assert aside(db) == ["a2", "a3", "b2"]
    assert claim_jobs(db) == []
    one_worker.execute("rollback")
    db.execute(RECOVER)
    assert messages(claim_jobs(db)) == ["a1"]
    assert claim_jobs(db) == []


TIME_OUT = "update claims set deadline_at = clock_timestamp() where job_id = %s"
LOSE = "update claims set lease = '1 ms', expires_at = now() - '1 s'::interval where job_id = %s"
ENDINGS = {
    "complete_job": ["select complete_job(%s, %s)"],
    "complete_jobs": [
        "select complete_jobs(jsonb_build_array(jsonb_build_object("
        "'job_id', %s::uuid, 'claim_id', %s::bigint)))"
    ],
    "fail_job, for good": ["select fail_job(%s, %s, p_retryable => false)"],
    "fail_job, to be retried": ["select fail_job(%s, %s, p_retry_in => '1 hour')"],
    "fail_jobs": [
        "select fail_jobs(jsonb_build_array(jsonb_build_object("
        "'job_id', %s::uuid, 'claim_id', %s::bigint, 'retry_in', '1 hour')))"
    ],
    "snooze_job": ["select snooze_job(%s, %s, '1 hour')"],
    "cancel_job": ["select cancel_job(%s)", "select release_job(%s, %s)"],
    "time_out_jobs": [TIME_OUT, "select time_out_jobs()"],
    "release_job": ["select release_job(%s, %s)"],
    "release_jobs": [
        "select release_jobs(jsonb_build_array(jsonb_build_object("
        "'job_id', %s::uuid, 'claim_id', %s::bigint)))"
    ],
    "reclaim_expired_claims": [LOSE, "select reclaim_expired_claims()"],
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_job_set_aside_comes_back_whatever_ends_the_run(db: Connection, ending: str) -> None:
    set_queue(db, key_concurrency_limit=1)
    enqueue_jobs(db, *keyed("kkk", max_attempts=3, retry_delay="1 hour", timeout="1 hour"))
    held = claim(db)
    assert claim_jobs(db) == []
    assert aside(db) == ["k2", "k3"]
    put_recovery_off(db)
    for query in ENDINGS[ending]:
        db.execute(query, [held.id, held.claim_id][: query.count("%s")])
    assert aside(db) == ["k3"]
    handed_back = ending in ("release_job", "release_jobs", "reclaim_expired_claims")
    expected = ["k1"] if handed_back else ["k2"]
    rows = claim_jobs(db)
    assert messages(rows) == expected
    assert claim_jobs(db) == []


def test_a_slot_that_is_freed_by_complete_and_claim_goes_to_the_next_of_the_key(
    db: Connection,
) -> None:
    set_queue(db, key_concurrency_limit=1)
    enqueue_jobs(db, *keyed("kkk"))
    held = claim(db)
    assert claim_jobs(db) == []
    put_recovery_off(db)
    for expected in ("k2", "k3"):
        run = {"job_id": str(held.id), "claim_id": held.claim_id}
        held = one(db, "select * from complete_and_claim(%s, 9)", Jsonb([run]))
        assert held.message == expected


def test_jobs_that_come_later_do_not_overtake_those_set_aside(db: Connection) -> None:
    set_queue(db, key_concurrency_limit=1)
    enqueue_jobs(db, *keyed("kkk"))
    held = claim(db)
    assert claim_jobs(db) == []
    put_recovery_off(db)
    enqueue_jobs(db, {"concurrency_key": "k", "message": "late"})
    enqueue_jobs(db, {"concurrency_key": "k", "message": "urgent", "priority": 0})
    order = []
    for _ in range(4):
        complete(db, held)
        held = claim(db)
        order.append(held.message)
    assert order == ["urgent", "k2", "k3", "late"]


def test_a_job_set_aside_is_still_a_queued_job(db: Connection) -> None:
    set_queue(db, key_concurrency_limit=1)
    enqueue_jobs(db, *keyed("kkk"))
    held = claim(db)
    assert claim_jobs(db) == []
    put_recovery_off(db)
    second, third = (
        row[0] for row in db.execute("select id from jobs where waits_for_key order by seq")
    )
    assert one(db, "select status from get_job(%s)", second).status == "queued"
    with raises_and_changes_nothing(db, "JQ006", "is queued"):
        db.execute("select retry_job(%s)", [second])
    with raises_and_changes_nothing(db, "JQ003", "is queued"):
        db.execute("select complete_job(%s, %s)", [second, held.claim_id])
    assert value(db, "select cancel_job(%s)", second) == "cancelled"
    assert aside(db) == ["k3"]
    db.execute("select retry_job(%s)", [second])
    assert claim_jobs(db) == []
    assert aside(db) == ["k2", "k3"]
    complete(db, held)
    assert claim(db).message == "k3"  # the retry came later
    verbs = db.execute("select verb from job_history(%s)", [third]).fetchall()
    assert [line[0] for line in verbs] == ["enqueue", "claim"]


def test_recovery_puts_back_as_many_of_each_key_as_may_run(db: Connection) -> None:
    set_queue(db, key_concurrency_limit=2)
    enqueue_jobs(db, *keyed("aaaaabbbb"))
    held = claim_jobs(db)
    assert messages(held) == ["a1", "a2", "b1", "b2"]
    assert claim_jobs(db) == []
    db.execute("delete from claims where job_id = %s", [held[0].id])  # and nobody put a job back
    assert value(db, RECOVER)["put_back"] == 1
    assert aside(db) == ["a4", "a5", "b3", "b4"]
    db.execute("select pause_queue('default')")
    db.execute("delete from claims where job_id = %s", [held[2].id])
    assert value(db, RECOVER)["put_back"] == 0
    db.execute("select resume_queue('default')")
    assert value(db, RECOVER)["put_back"] == 2 - 1 + 1
    assert messages(claim_jobs(db)) == ["a3", "b3"]


def test_recovery_reaches_every_key(db: Connection) -> None:
    set_queue(db, key_concurrency_limit=1)
    enqueue_jobs(db, *({"concurrency_key": f"key {n:05}"} for n in range(1100) for _ in "12"))
    assert len(claim_jobs(db, 10000)) == 1100
    assert claim_jobs(db) == []
    last = one(db, "select * from claims order by concurrency_key desc limit 1")
    db.execute("delete from claims where claim_id = %s", [last.claim_id])
    for _ in range(3):
        db.execute(RECOVER)
    assert value(db, "select concurrency_key from jobs where claimable") == last.concurrency_key


# --- rate_limit


def rewind(db: Connection, by: str) -> None:
    """Let that much time pass for the only rate clock."""
    clock = value(db, "select 'rate_clock_' || queue_id from job_queue.queues")
    db.execute(
        f"select setval('job_queue.{clock}', greatest(0, last_value"
        f" - (extract(epoch from interval '{by}') * 1000000)::bigint)) from job_queue.{clock}"
    )


def test_a_rate_allows_a_burst_and_then_as_many_as_are_refilled(db: Connection) -> None:
    set_queue(db, rate_limit=3, rate_period="3 hours")
    enqueue_jobs(db, *({} for _ in range(30)))
    rows = claim_jobs(db, 2)
    assert len(rows) == 2
    assert len(claim_jobs(db)) == 1
    assert claim_jobs(db) == []
    complete(db, *rows)
    assert claim_jobs(db) == []  # how many run is another matter
    for by, count in (("59 min", 0), ("2 min", 1), ("58 min", 0), ("62 min", 2), ("9 days", 3)):
        rewind(db, by)
        assert len(claim_jobs(db)) == count, by
        assert claim_jobs(db) == []


@pytest.mark.parametrize("limit", [1, 1000])
@pytest.mark.parametrize("period", ["1 day", "1 month", "5 months", "1 year"])
def test_a_full_bucket_holds_as_many_as_the_limit_whatever_the_calendar(
    db: Connection, limit: int, period: str
) -> None:
    db.execute("set time zone 'America/New_York'")
    set_queue(db, rate_limit=limit, rate_period=period)
    enqueue_jobs(db, *({} for _ in range(limit + 50)))
    assert len(claim_jobs(db, 10000)) == limit
    assert claim_jobs(db) == []


@pytest.mark.parametrize("limit", [3, 7, 13])
def test_tokens_taken_one_by_one_are_as_many(db: Connection, limit: int) -> None:
    set_queue(db, rate_limit=limit, rate_period="1 day")
    enqueue_jobs(db, *({} for _ in range(limit + 5)))
    assert sum(len(claim_jobs(db, 1)) for _ in range(limit + 5)) == limit


def test_a_token_is_spent_for_each_job_that_starts_and_for_no_other(db: Connection) -> None:
    set_queue(db, rate_limit=4, rate_period="1 day", key_concurrency_limit=1)
    assert claim_jobs(db) == []
    enqueue_jobs(db, *keyed("kkk"))
    held = claim_jobs(db)
    assert messages(held) == ["k1"]
    assert claim_jobs(db) == []
    db.execute("select release_job(%s, %s)", [held[0].id, held[0].claim_id])
    held = claim_jobs(db)
    assert messages(held) == ["k1"]
    complete(db, *held)
    enqueue_jobs(db, *keyed("abcdef"))
    assert messages(claim_jobs(db)) == ["k2", "a1"]


def test_tokens_stay_spent_if_the_claim_is_rolled_back(db: Connection) -> None:
    set_queue(db, rate_limit=3, rate_period="1 day")
    enqueue_jobs(db, *({"message": str(number)} for number in range(1, 9)))
    with db.transaction(force_rollback=True):
        assert messages(claim_jobs(db, 2)) == ["1", "2"]
    assert messages(claim_jobs(db)) == ["1"]
    assert claim_jobs(db) == []


def test_a_claim_that_spends_tokens_makes_no_other_wait(connect: Callable[[], Connection]) -> None:
    one_worker, db = connect(), connect()
    never_wait(db)
    set_queue(db, rate_limit=3, rate_period="1 day")
    enqueue_jobs(db, *({"message": str(number)} for number in range(1, 9)))
    enqueue(db, queue="another", message="elsewhere")
    one_worker.execute("begin")
    assert messages(claim_jobs(one_worker, 1)) == ["1"]
    assert set(messages(claim_jobs(db))) <= {"elsewhere", "2", "3"}
    one_worker.execute("commit")
    claim_jobs(db)
    assert value(db, "select count(*) from claims where queue = 'default'") == 3


def test_a_rate_may_be_changed_or_removed_at_any_time(db: Connection) -> None:
    set_queue(db, rate_limit=2, rate_period="1 day")
    enqueue_jobs(db, *({} for _ in range(30)))
    assert len(claim_jobs(db)) == 2
    set_queue(db, rate_limit=1000000, rate_period="1 year")
    assert len(claim_jobs(db)) <= 1
    set_queue(db, rate_limit=None)
    assert len(claim_jobs(db, 5)) == 5
    set_queue(db, rate_limit=5, rate_period="1 day")
    assert claim_jobs(db) == []
    rewind(db, "12 hours")
    assert len(claim_jobs(db)) == 2


def test_a_rate_limited_claim_of_no_job_spends_nothing(db: Connection) -> None:
    set_queue(db, rate_limit=1, rate_period="1 day", concurrency_limit=1)
    for _ in range(3):
        assert claim_jobs(db) == []
    enqueue(db), enqueue(db)
    assert len(claim_jobs(db)) == 1


def test_many_workers_start_no_more_jobs_than_the_rate_allows(
    connect: Callable[[], Connection],
) -> None:
    db = connect()
    set_queue(db, rate_limit=40, rate_period="1 day")
    enqueue_jobs(db, *({"message": str(number)} for number in range(200)))
    started = "select count(*) from job_events where verb = 'claim'"

    def work(worker: Connection) -> None:
        tries = 0
        while value(worker, started) < 40 or tries < 20:
            tries += 1
            complete(worker, *claim_jobs(worker, 1 + tries % 3))

    with ThreadPoolExecutor(6) as executor:
        list(executor.map(work, [connect() for _ in range(6)]))
    assert value(db, started) == 40


# --- all at once


class Hammer:
    """A worker that claims and ends jobs in every way until none is left."""

    UNFINISHED = "select exists (select from jobs where status in ('queued', 'running'))"

    def __init__(self, db: Connection, seed: int) -> None:
        self._db = db
        self._random = random.Random(seed)
        self._held: list[Any] = []

    def run(self) -> None:
        while value(self._db, self.UNFINISHED):
            for _ in range(10):
                self._step()
            self._db.execute(RECOVER)

    def _step(self) -> None:
        step = self._random.choice([self._claim, self._claim, self._end, self._end, self._swap])
        if self._random.random() < 0.15:
            before = list(self._held)
            with self._db.transaction(force_rollback=True):
                step()
            self._held = before
        else:
            step()

    def _claim(self) -> None:
        if self._random.random() < 0.5:
            self._held += self._db.execute("select * from claim_next_job()").fetchall()
        else:
            self._held += claim_jobs(self._db, self._random.randint(1, 4))

    def _take_some(self) -> list[Any]:
        self._random.shuffle(self._held)
        count = self._random.randint(0, len(self._held))
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def _end(self) -> None:
        for row in self._take_some():
            verb = self._random.choice(
                [
                    "complete_job(%s, %s)",
                    "complete_job(%s, %s)",
                    "release_job(%s, %s)",
                    "snooze_job(%s, %s, '0')",
                    "fail_job(%s, %s, p_retry_in => '0')",
                ]
            )
            self._db.execute(f"select {verb}", [row.id, row.claim_id])

    def _swap(self) -> None:
        runs = [{"job_id": str(row.id), "claim_id": row.claim_id} for row in self._take_some()]
        self._held += self._db.execute(
            "select * from complete_and_claim(%s, %s)",
            [Jsonb(runs), self._random.randint(1, 4)],
        ).fetchall()


RUNNING_AT_ONCE = """
  select max(running)
    from (
      select sum(case event.verb when 'claim' then 1 else -1 end) over (
               partition by job.queue, {key}
               order by event.at, event.event_id) as running
        from job_events as event
        join jobs as job on job.id = event.job_id
       where event.verb <> 'enqueue'
         and job.queue = %s
         and {key} is not null) as counted
"""


@pytest.mark.parametrize("seed", range(2))
def test_many_workers_never_overrun_a_limit(connect: Callable[[], Connection], seed: int) -> None:
    db = connect()
    set_queue_named(db, "queue", concurrency_limit=3)
    set_queue_named(db, "key", key_concurrency_limit=1)
    set_queue_named(db, "both", concurrency_limit=4, key_concurrency_limit=2)
    enqueue_jobs(
        db,
        *(
            {
                "queue": queue,
                "concurrency_key": "abcde"[number % 5],
                "priority": number % 4,
                "max_attempts": 3,
            }
            for number in range(40)
            for queue in ("queue", "key", "both")
        ),
    )
    hammers = [Hammer(connect(), 10 * seed + number) for number in range(6)]
    with ThreadPoolExecutor(6) as executor:
        list(executor.map(Hammer.run, hammers))
    whole, by_key = (RUNNING_AT_ONCE.format(key=k) for k in ("0", "job.concurrency_key"))
    assert value(db, whole, "queue") == 3
    assert value(db, by_key, "key") == 1
    assert 1 < value(db, whole, "key") <= 5
    assert value(db, whole, "both") <= 4
    assert value(db, by_key, "both") == 2
    assert value(db, "select count(*) from claims") == 0
    assert aside(db) == []


def test_a_limit_that_is_lowered_while_many_workers_claim_is_kept_from_then_on(
    connect: Callable[[], Connection],
) -> None:
    db = connect()
    set_queue(db, concurrency_limit=6, key_concurrency_limit=3)
    enqueue_jobs(db, *keyed("abcd" * 60, max_attempts=2))
    hammers = [Hammer(connect(), number) for number in range(5)]
    with ThreadPoolExecutor(5) as executor:
        ends = [executor.submit(hammer.run) for hammer in hammers]
        for limits in ((2, 1), (5, 3), (3, 2), (1, 1), (4, 2)):
            for _ in range(15):
                value(db, Hammer.UNFINISHED)
            set_queue(db, concurrency_limit=limits[0], key_concurrency_limit=limits[1])
        for end in ends:
            end.result()
    whole, by_key = (RUNNING_AT_ONCE.format(key=k) for k in ("0", "job.concurrency_key"))
    assert value(db, whole, "default") <= 6
    assert value(db, by_key, "default") <= 3
    assert value(db, "select count(*) from claims") == 0


def test_the_index_refuses_a_slot_that_is_taken(db: Connection) -> None:
    set_queue(db, concurrency_limit=2, key_concurrency_limit=2)
    enqueue_jobs(db, *keyed("kk"))
    claim_jobs(db)
    before = everything(db)
    for column in ("queue_slot", "key_slot"):
        with pytest.raises(psycopg.errors.UniqueViolation):
            db.execute(f"update claims set {column} = 1")
    assert everything(db) == before
