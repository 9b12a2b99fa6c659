"""enqueue_jobs, claim_jobs, complete_jobs and the like: many jobs in one call."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support import (
    NOTHING,
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

CLAIMABLE = "select count(*) from jobs where claimable"


def enqueue_jobs(db: Connection, *jobs: Any) -> list[Any]:
    """Enqueue these jobs and return the rows (id, created)."""
    return db.execute("select * from enqueue_jobs(%s)", [Jsonb(list(jobs))]).fetchall()


def numbered(first: int, last: int, **job: Any) -> list[dict[str, Any]]:
    """Return jobs whose messages are these numbers."""
    return [{"message": str(number), **job} for number in range(first, last + 1)]


def claim_jobs(db: Connection, limit: int | None, **arguments: Any) -> list[Any]:
    """Claim jobs and return the rows."""
    named = "".join(f", p_{name} => %({name})s" for name in arguments)
    query = f"select * from claim_jobs(%(limit)s::integer{named})"
    return db.execute(query, {"limit": limit, **arguments}).fetchall()


def end_jobs(db: Connection, verb: str, *runs: Any) -> list[Any]:
    """Complete, fail or release these runs and return the rows."""
    return db.execute(f"select * from {verb}(%s)", [Jsonb(list(runs))]).fetchall()


def run_of(claimed: Any, **more: Any) -> dict[str, Any]:
    """Return what the verbs that end many runs want to know of a claim."""
    return {"job_id": str(claimed.id), "claim_id": claimed.claim_id, **more}


def messages(jobs: list[Any]) -> list[str]:
    """Return what tells these jobs apart."""
    return [job.message for job in jobs]


# --- enqueue_jobs


def test_enqueue_returns_a_row_for_each_job_in_the_order_given(db: Connection) -> None:
    rows = enqueue_jobs(db, *numbered(1, 50))
    assert all(row.created for row in rows)
    assert len({row.id for row in rows}) == 50
    assert all(row.id.version == 7 for row in rows)
    jobs = db.execute("select id, message from jobs order by seq").fetchall()
    assert [job.id for job in jobs] == [row.id for row in rows]
    assert messages(jobs) == [str(number) for number in range(1, 51)]
    history = db.execute("select job_id, verb, from_status, to_status from job_events").fetchall()
    assert {line.job_id for line in history} == {row.id for row in rows}
    assert {line[1:] for line in history} == {("enqueue", None, "queued")}
    assert messages(claim_jobs(db, 3)) == ["1", "2", "3"]


def test_what_is_left_out_is_as_enqueue_job_has_it(db: Connection) -> None:
    enqueue(db)
    (row,) = enqueue_jobs(db, {})
    columns = value(
        db,
        "select string_agg(format('%%I', column_name), ', ') from information_schema.columns"
        " where table_schema = 'job_queue' and table_name = 'jobs'"
        " and column_name not in ('id', 'seq', 'created_at', 'updated_at', 'run_at')",
    )
    assert row.created
    jobs = db.execute(f"select {columns} from jobs order by seq").fetchall()
    assert jobs[0] == jobs[1]
    assert value(
        db, "select bool_and(run_at between now() - '1 min'::interval and now()) from jobs"
    )


def test_every_parameter_of_enqueue_job_is_a_key(db: Connection) -> None:
    parent = enqueue(db)
    (row,) = enqueue_jobs(
        db,
        {
            "job_type": "mail",
            "payload": {"to": ["a", None]},
            "sleep_seconds": 7,
            "message": "hello",
            "queue": "other",
            "priority": 3,
            "run_at": "2001-02-03T04:05:06Z",
            "max_attempts": 4,
            "retry_delay": "5 seconds",
            "retry_delay_max": "6 seconds",
            "max_losses": 0,
            "timeout": "8 seconds",
            "unique_key": "u",
            "concurrency_key": "c",
            "depends_on": [str(parent)],
            "on_parent_failure": "release",
            "trace_context": {"traceparent": "00-1-2-01"},
        },
    )
    job = one(
        db,
        "select job_type, payload, sleep_seconds, message, queue, priority,"
        " extract(epoch from run_at)::integer, max_attempts, retry_delay::text,"
        " retry_delay_max::text, max_losses, timeout::text, unique_key, concurrency_key,"
        " depends_on, status, trace_context from jobs where id = %s",
        row.id,
    )
    assert job == (
        *("mail", {"to": ["a", None]}, 7, "hello", "other", 3, 981173106, 4, "00:00:05"),
        *("00:00:06", 0, "00:00:08", "u", "c", [parent], "blocked"),
        {"traceparent": "00-1-2-01"},
    )
    assert value(db, "select on_parent_failure from job_dependencies") == "release"
    parameters = set(
        value(
            db,
            "select proargnames from pg_proc"
            " where oid = (select min(oid) from pg_proc where proname = 'enqueue_job')",
        )
    )
    known = "job_type payload sleep_seconds message queue priority run_at delay max_attempts"
    known += " retry_delay retry_delay_max max_losses timeout unique_key concurrency_key"
    known += " depends_on on_parent_failure trace_context"
    assert parameters == {f"p_{name}" for name in known.split()}


def test_a_delay_puts_a_job_off(db: Connection) -> None:
    enqueue_jobs(db, {"message": "later", "delay": "1 hour"}, {"message": "now"})
    assert messages(claim_jobs(db, 9)) == ["now"]


def test_no_job_is_none(db: Connection) -> None:
    assert enqueue_jobs(db) == []
    assert everything(db) == NOTHING


def test_thousands_are_added_at_once(db: Connection) -> None:
    jobs = numbered(1, 5000)
    for number, job in enumerate(jobs):
        if number % 5 == 0:
            job["unique_key"] = str(number % 2000)
    rows = enqueue_jobs(db, *jobs)
    assert [row.created for row in rows] == [n % 5 != 0 or n < 2000 for n in range(5000)]
    assert [rows[n].id for n in (2000, 4000, 3995)] == [rows[n].id for n in (0, 0, 1995)]
    assert value(db, "select count(*) from jobs") == 5000 - 600
    assert value(
        db,
        "select array_agg(message::integer order by seq)"
        " = array_agg(message::integer order by message::integer) from jobs",
    )


def test_a_key_that_is_held_adds_nothing_and_yields_the_holder(db: Connection) -> None:
    holder = enqueue(db, unique_key="a")
    rows = enqueue_jobs(
        db,
        {"unique_key": "b", "message": "first"},
        {"unique_key": "a"},
        {"unique_key": "b", "message": "second", "depends_on": [UNKNOWN_JOB]},
        {"unique_key": "a", "queue": "other"},
        {},
    )
    assert [row.created for row in rows] == [True, False, False, True, True]
    assert rows[1].id == holder
    assert rows[2].id == rows[0].id
    jobs = db.execute("select id, message from jobs order by seq").fetchall()
    assert [job.id for job in jobs] == [holder, rows[0].id, rows[3].id, rows[4].id]
    assert jobs[1].message == "first"
    assert value(db, "select count(*) from job_events") == 4
    assert value(db, "select count(*) from job_dependencies") == 0
    again = enqueue_jobs(db, {"unique_key": "b"}, {"unique_key": "a", "queue": "other"})
    assert again == [(rows[0].id, False), (rows[3].id, False)]


WRONG: dict[str, Any] = {
    "job_type": "",
    "payload": None,
    "sleep_seconds": -1,
    "message": "x" * 10001,
    "queue": "x" * 101,
    "priority": 4,
    "run_at": "infinity",
    "delay": "-1 second",
    "max_attempts": 0,
    "retry_delay": "-1 second",
    "retry_delay_max": "2 years",
    "max_losses": -1,
    "timeout": "0",
    "unique_key": "",
    "concurrency_key": "",
    "on_parent_failure": "explode",
}


@pytest.mark.parametrize("argument", WRONG)
def test_all_are_refused_for_one_argument_out_of_range(db: Connection, argument: str) -> None:
    wrong = {argument: WRONG[argument]}
    if argument == "on_parent_failure":
        wrong["depends_on"] = [str(enqueue(db))]
    with raises_and_changes_nothing(db, "JQ001", f"^invalid {argument}: "):
        enqueue_jobs(db, {}, {"unique_key": "a"}, wrong, {})


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"run_at": "2001-01-01", "delay": "1 s"}, "^invalid run_at and delay"),
        ({"trace_context": "00-1-2-01"}, '^invalid trace_context: "00-1-2-01"'),
        ({"colour": "red"}, r'^invalid job: 1: {"colour": "red"}'),
        ({"p_queue": "a"}, "^invalid job: 1: "),
        ({"id": UNKNOWN_JOB}, "^invalid job: 1: "),
        (["queue"], "^invalid job: 1: "),
        ("queue", "^invalid job: 1: "),
        (None, "^invalid job: 1: null"),
        (1, "^invalid job: 1: 1"),
    ],
)
def test_all_are_refused_for_one_that_is_no_job(db: Connection, wrong: Any, match: str) -> None:
    with raises_and_changes_nothing(db, "JQ001", match):
        enqueue_jobs(db, {}, wrong)


@pytest.mark.parametrize("jobs", [{}, {"queue": "a"}, "jobs", 1, None])
def test_only_an_array_is_accepted(db: Connection, jobs: Any) -> None:
    with raises_and_changes_nothing(db, "JQ001", "^invalid jobs: "):
        db.execute("select * from enqueue_jobs(%s)", [Jsonb(jobs)])
    with raises_and_changes_nothing(db, "JQ001", "^invalid jobs: null"):
        db.execute("select * from enqueue_jobs(null)")


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": "high"},
        {"priority": 1.5},
        {"priority": 99999999999},
        {"delay": "a while"},
        {"run_at": "soon"},
        {"max_attempts": []},
        {"depends_on": ["nobody"]},
        {"depends_on": {"a": 1}},
    ],
)
def test_all_are_refused_for_a_value_of_a_wrong_type(db: Connection, wrong: Any) -> None:
    enqueue(db)
    before = everything(db)
    with pytest.raises(psycopg.DatabaseError) as raised:
        enqueue_jobs(db, {}, wrong, {})
    assert raised.value.sqlstate is not None
    assert raised.value.sqlstate == "JQ001" or raised.value.sqlstate.startswith("22")
    assert everything(db) == before


def test_all_are_refused_for_a_parent_that_does_not_exist(db: Connection) -> None:
    parent = str(enqueue(db))
    with raises_and_changes_nothing(db, "JQ002", f"job {UNKNOWN_JOB} does not exist"):
        enqueue_jobs(db, {"depends_on": [parent]}, {"depends_on": [parent, UNKNOWN_JOB]}, {})
    assert value(db, "select count(*) from job_dependencies") == 0


def test_the_history_says_where_the_jobs_came_from(db: Connection) -> None:
    enqueue(db, unique_key="held")
    rows = db.execute(
        "select * from enqueue_jobs(%s, p_detail => %s)",
        [Jsonb([{}, {"unique_key": "held"}, {}]), Jsonb({"schedule": "daily"})],
    ).fetchall()
    details = [value(db, "select detail from job_history(%s)", row.id) for row in rows]
    assert details == [{"schedule": "daily"}, None, {"schedule": "daily"}]


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_an_enqueue_that_meets_the_end_of_a_holder_waits_for_it(
    connect: Callable[[], Connection], outcome: str
) -> None:
    worker, client, observer = connect(), connect(), connect()
    first = enqueue(observer, unique_key="a")
    held = claim(worker)
    worker.execute("begin")
    worker.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    jobs = [{}, {"unique_key": "a"}, {"unique_key": "a"}]
    with in_another_thread(lambda: enqueue_jobs(client, *jobs)) as call:
        wait_until_blocked(observer, client, by=worker)
        worker.execute(outcome)
        rows = call.result()
    assert [row.created for row in rows] == [True, outcome == "commit", False]
    assert rows[1].id == rows[2].id
    assert (rows[1].id == first) == (outcome == "rollback")


def test_a_key_whose_holder_ends_after_it_was_met_is_taken(
    connect: Callable[[], Connection],
) -> None:
    worker, client, observer = connect(), connect(), connect()
    holder = enqueue(observer, unique_key="a")
    held = claim(worker)
    # The line of the second job in the history lets the client wait, when the first has met the
    # holder already, and before it is asked who that is.
    observer.execute(
        "create function public.wait() returns trigger language plpgsql as $$ begin"
        " if new.verb = 'enqueue' then perform pg_advisory_xact_lock_shared(1); end if;"
        " return new; end $$"
    )
    observer.execute(
        "create trigger wait before insert on job_queue.job_events"
        " for each row execute function public.wait()"
    )
    observer.execute("select pg_advisory_lock(1)")
    jobs = [{"unique_key": "a", "message": "mine"}, {}]
    with in_another_thread(lambda: enqueue_jobs(client, *jobs)) as call:
        wait_until_blocked(observer, client, by=observer)
        worker.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
        observer.execute("select pg_advisory_unlock(1)")
        rows = call.result()
    assert [row.created for row in rows] == [True, True]
    assert holder not in {row.id for row in rows}
    assert value(observer, "select id from jobs where held_key = 'a'") == rows[0].id
    assert value(observer, "select count(*) from jobs") == 3
    assert value(observer, "select count(*) from job_events where verb = 'enqueue'") == 3


# --- claim_jobs


def test_jobs_are_claimed_in_their_order_each_under_a_claim_of_its_own(db: Connection) -> None:
    enqueue_jobs(
        db,
        {"message": "5", "priority": 2, "run_at": "2001-01-01"},
        {"message": "3", "run_at": "2001-01-02"},
        {"message": "4", "run_at": "2001-01-02"},
        {"message": "2", "run_at": "2001-01-01"},
        {"message": "1", "priority": 0},
        {"message": "6", "priority": 3},
        {"message": "not yet", "priority": 0, "delay": "1 hour"},
    )
    rows = [*claim_jobs(db, 3), *claim_jobs(db, 9, worker="w", lease="2 minutes")]
    assert messages(rows) == ["1", "2", "3", "4", "5", "6"]
    assert [row.claim_id for row in rows] == sorted({row.claim_id for row in rows})
    assert {(row.status, row.attempt) for row in rows} == {("running", 1)}
    claims = db.execute(
        "select claim_id, job_id, worker, lease::text from claims order by claim_id"
    ).fetchall()
    assert [line[:2] for line in claims] == [(row.claim_id, row.id) for row in rows]
    assert [line[2:] for line in claims] == [(None, "00:01:00")] * 3 + [("w", "00:02:00")] * 3
    for row in rows:
        line = one(db, "select * from job_history(%s) where verb = 'claim'", row.id)
        assert (line.claim_id, line.attempt, line.to_status) == (row.claim_id, 1, "running")
    assert claim_jobs(db, 9) == []


def test_claim_jobs_returns_what_claim_next_job_returns(db: Connection) -> None:
    enqueue_jobs(db, {"timeout": "1 minute"}, {"timeout": "1 minute"})
    ours, theirs = claim_jobs(db, 1)[0], claim(db)
    assert ours._fields == theirs._fields
    varying = {"id", "claim_id", "created_at", "updated_at", "run_at"}
    assert {k: v for k, v in ours._asdict().items() if k not in varying} == {
        k: v for k, v in theirs._asdict().items() if k not in varying
    }
    deadlines = db.execute("select deadline_at - claimed_at from claims").fetchall()
    assert {str(line[0]) for line in deadlines} == {"0:01:00"}


@pytest.mark.parametrize("limit", [0, -1, 10001, None])
def test_a_wrong_limit_is_refused(db: Connection, limit: int | None) -> None:
    enqueue(db)
    with raises_and_changes_nothing(db, "JQ001", "^invalid limit"):
        claim_jobs(db, limit)


@pytest.mark.parametrize("lease", ["0", "2 days", None])
def test_a_wrong_lease_is_refused(db: Connection, lease: str | None) -> None:
    enqueue(db)
    with raises_and_changes_nothing(db, "JQ001", "^invalid lease"):
        claim_jobs(db, 1, lease=lease)


def test_the_largest_limit_takes_all_there_are(db: Connection) -> None:
    enqueue_jobs(db, *numbered(1, 2500))
    assert messages(claim_jobs(db, 10000)) == [str(number) for number in range(1, 2501)]


def several_queues(db: Connection) -> None:
    """Enqueue 40 jobs for each of four priorities in each of three queues."""
    enqueue_jobs(
        db,
        *(
            {"queue": queue, "priority": priority, "message": f"{queue}{priority}"}
            for _ in range(40)
            for priority in range(4)
            for queue in "abc"
        ),
    )


MISLEADING = {
    "none": "update pg_class set reltuples = -1, relpages = 0",
    "of an empty table": "update pg_class set reltuples = 0, relpages = 0",
    "of a huge table": "update pg_class set reltuples = 1e9, relpages = 10000000",
    "of huge rows": "update pg_class set reltuples = 1, relpages = 10000000",
    "of tiny pages": "update pg_class set reltuples = 1e9, relpages = 1",
}


@pytest.mark.parametrize("queues", [None, ["c", "a", "b"]])
@pytest.mark.parametrize("misleading", MISLEADING)
def test_no_statistics_make_a_claim_take_more_than_its_limit(
    db: Connection, misleading: str, queues: list[str] | None
) -> None:
    db.execute("alter table job_queue.jobs set (autovacuum_enabled = off)")
    several_queues(db)
    db.execute(
        MISLEADING[misleading] + " where oid in (select indexrelid from pg_index"
        " where indrelid = 'job_queue.jobs'::regclass union select 'job_queue.jobs'::regclass)"
    )
    left = 480
    for limit in (1, 7, 39, 100, 1, 2):
        rows = claim_jobs(db, limit, queues=queues)
        assert len({row.id for row in rows}) == len(rows) == limit
        left -= limit
        assert value(db, CLAIMABLE) == left
        assert value(db, "select count(*) from claims") == 480 - left
    rows = claim_jobs(db, 10000, queues=queues)
    assert len(rows) == left
    assert value(db, "select count(distinct job_id) from claims") == 480


def test_statistics_of_another_time_do_not_make_a_claim_take_more_or_out_of_order(
    db: Connection,
) -> None:
    db.execute("alter table job_queue.jobs set (autovacuum_enabled = off)")
    db.execute("analyze job_queue.jobs")
    several_queues(db)
    order = []
    for number in range(6):  # the plans of a session are cached after the fifth call
        order += messages(claim_jobs(db, 10, queues=["b", "a"]))
        if number == 2:
            db.execute("analyze job_queue.jobs")
    assert order == ["b0"] * 40 + ["b1"] * 20
    for row in claim_jobs(db, 10000):
        db.execute("select complete_job(%s, %s)", [row.id, row.claim_id])
    db.execute("analyze job_queue.jobs")
    several_queues(db)  # now the statistics say that no job is claimable, and the table is bloated
    rows = claim_jobs(db, 50, queues=["c"])
    assert messages(rows) == ["c0"] * 40 + ["c1"] * 10
    assert value(db, "select count(*) from claims") == 60 + 50


def test_a_claim_takes_no_more_than_its_limit_beside_the_claims_of_others(
    connect: Callable[[], Connection],
) -> None:
    db, others = connect(), [connect(), connect()]
    several_queues(db)
    for number, other in enumerate(others):
        other.execute("begin")
        assert len(claim_jobs(other, 30 + number)) == 30 + number
    rows = claim_jobs(db, 20)
    assert messages(rows) == ["a1"] * 19 + ["a2"]
    for other in others:
        other.execute("commit")
    assert value(db, "select count(distinct job_id) from claims") == 30 + 31 + 20


def test_jobs_come_from_the_first_queue_named_that_has_any_then_the_second(db: Connection) -> None:
    enqueue_jobs(
        db,
        {"queue": "a", "message": "a", "priority": 0},
        {"queue": "b", "message": "b1", "priority": 3},
        {"queue": "b", "message": "b2", "priority": 3},
        {"queue": "c", "message": "c"},
    )
    assert messages(claim_jobs(db, 3, queues=["none", "b", "a", "b"])) == ["b1", "b2", "a"]
    assert claim_jobs(db, 3, queues=["a", "b"]) == []
    assert messages(claim_jobs(db, 3)) == ["c"]


def test_a_queue_named_twice_is_one_queue(db: Connection) -> None:
    enqueue_jobs(db, *numbered(1, 3, queue="a"), {"queue": "b", "message": "b"})
    db.execute("""select set_queue('a', '{"concurrency_limit": 2}')""")
    rows = claim_jobs(db, 10, queues=["a", "a", "b", "a"])
    assert messages(rows) == ["1", "2", "b"]


def test_no_queues_are_refused_and_unknown_or_null_ones_are_empty(db: Connection) -> None:
    enqueue(db)
    with raises_and_changes_nothing(db, "JQ001", "^invalid queues"):
        claim_jobs(db, 1, queues=[])
    assert claim_jobs(db, 1, queues=["nowhere"]) == []
    assert claim_jobs(db, 1, queues=[None]) == []
    assert len(claim_jobs(db, 1, queues=[None, "default"])) == 1


def test_of_all_queues_the_one_with_the_first_job_comes_before_the_others(db: Connection) -> None:
    enqueue_jobs(
        db,
        {"queue": "a", "message": "a", "priority": 1, "run_at": "2001-01-01"},
        {"queue": "b", "message": "b later", "priority": 2},
        {"queue": "c", "message": "c", "priority": 1, "run_at": "2000-01-01"},
        {"queue": "d", "message": "not yet", "priority": 0, "delay": "1 hour"},
        {"queue": "d", "message": "d", "priority": 3},
        {"queue": "b", "message": "b", "priority": 0},
    )
    assert messages(claim_jobs(db, 4)) == ["b", "b later", "c", "a"]
    assert messages(claim_jobs(db, 4)) == ["d"]


def test_only_jobs_of_the_types_named_are_claimed(db: Connection) -> None:
    for queue in ("a", "b"):
        for job_type in ("x", "y", "z"):
            enqueue(db, queue=queue, job_type=job_type, message=f"{queue}{job_type}")
    assert messages(claim_jobs(db, 9, job_types=["y", "x"])) == ["ax", "ay", "bx", "by"]
    assert claim_jobs(db, 9, job_types=[]) == []
    assert messages(claim_jobs(db, 9)) == ["az", "bz"]


def test_claimed_jobs_are_queued_again_if_the_caller_rolls_back(db: Connection) -> None:
    enqueue_jobs(db, *numbered(1, 5))
    before = everything(db)
    with db.transaction(force_rollback=True):
        assert len(claim_jobs(db, 3)) == 3
    assert everything(db) == before


# --- complete_jobs, fail_jobs and release_jobs


@pytest.mark.parametrize(
    ("verb", "status"),
    [("complete_jobs", "succeeded"), ("fail_jobs", "failed"), ("release_jobs", "queued")],
)
def test_each_run_has_an_outcome_of_its_own(db: Connection, verb: str, status: str) -> None:
    enqueue_jobs(db, *numbered(1, 5))
    first, second, other, released, ended = claim_jobs(db, 5)
    waiting = enqueue(db)
    db.execute("select release_job(%s, %s)", [released.id, released.claim_id])
    db.execute("select complete_job(%s, %s)", [ended.id, ended.claim_id])
    runs = [
        run_of(second),
        run_of(released),
        run_of(ended),
        {"job_id": UNKNOWN_JOB, "claim_id": first.claim_id},
        {"job_id": str(other.id), "claim_id": first.claim_id},
        {"job_id": str(other.id)},
        {},
        {"job_id": str(waiting), "claim_id": 999999},
        run_of(first),
    ]
    rows = end_jobs(db, verb, *runs)
    assert [str(row.job_id) for row in rows] == [str(run.get("job_id")) for run in runs]
    assert [row.claim_id for row in rows] == [run.get("claim_id") for run in runs]
    assert [row.status for row in rows] == [status, *[None] * 7, status]
    refusals = [None, "JQ003", "JQ003", "JQ002", "JQ004", "JQ004", "JQ002", "JQ003", None]
    assert [row.refusal for row in rows] == refusals
    assert value(db, "select array_agg(claim_id) from claims") == [other.claim_id]
    statuses = db.execute("select status from jobs order by seq").fetchall()
    expected = [status, status, "running", "queued", "succeeded", "queued"]
    assert [line[0] for line in statuses] == expected


def test_complete_stores_the_result_of_each(db: Connection) -> None:
    enqueue_jobs(db, *numbered(1, 3))
    first, second, third = claim_jobs(db, 3)
    end_jobs(
        db,
        "complete_jobs",
        run_of(third, result=[3]),
        run_of(first, result={"a": 1}),
        run_of(second),
    )
    results = db.execute("select status, result from jobs order by seq").fetchall()
    assert results == [("succeeded", {"a": 1}), ("succeeded", None), ("succeeded", [3])]
    lines = db.execute(
        "select job_id, claim_id, from_status, to_status from job_events where verb = 'complete'"
        " order by claim_id"
    ).fetchall()
    assert lines == [
        (row.id, row.claim_id, "running", "succeeded") for row in (first, second, third)
    ]


def test_of_one_claim_named_twice_the_first_counts(db: Connection) -> None:
    enqueue_jobs(db, *numbered(1, 30))
    held = claim_jobs(db, 30)
    runs = [run_of(row, error=f"{number}") for number in "12" for row in reversed(held)]
    rows = end_jobs(db, "fail_jobs", *runs)
    assert [row.status for row in rows] == ["failed"] * 30 + [None] * 30
    assert [row.refusal for row in rows] == [None] * 30 + ["JQ003"] * 30
    assert value(db, "select array_agg(distinct result) from jobs") == [{"error": "1"}]
    assert value(db, "select count(*) from job_events where verb = 'fail'") == 30


def test_each_failure_says_whether_and_when_to_retry(db: Connection) -> None:
    enqueue_jobs(db, *numbered(1, 5, max_attempts=2, retry_delay="1 hour"), {"message": "6"})
    held = claim_jobs(db, 6)
    db.execute("select cancel_job(%s)", [held[4].id])
    rows = end_jobs(
        db,
        "fail_jobs",
        run_of(held[0], error="a", retry_in="0"),
        run_of(held[1], error="b", retry_in="10 hours"),
        run_of(held[2], error="c", retryable=False),
        run_of(held[3], error="d", retryable=None, retry_in=None),
        run_of(held[4], error="e"),
        run_of(held[5], error="f"),
    )
    statuses = ["queued", "queued", "failed", "queued", "cancelled", "failed"]
    assert [row.status for row in rows] == statuses
    jobs = db.execute(
        "select status, result ->> 'error' as error, run_at - updated_at as wait, attempts"
        " from jobs order by seq"
    ).fetchall()
    assert [job.status for job in jobs] == statuses
    assert [job.error for job in jobs] == [None, None, "c", None, None, "f"]
    assert abs(jobs[1].wait.total_seconds() - 36000) < 60
    assert -60 < jobs[3].wait.total_seconds() < 3660
    details = db.execute(
        "select detail ->> 'error' from job_events where verb = 'fail' order by claim_id"
    ).fetchall()
    assert [line[0] for line in details] == list("abcdef")
    assert messages(claim_jobs(db, 1)) == ["1"]


def test_release_hands_each_back_to_its_place_unless_it_is_to_be_cancelled(db: Connection) -> None:
    enqueue_jobs(db, *numbered(1, 4))
    first, second, third, fourth = claim_jobs(db, 4)
    db.execute("select cancel_job(%s)", [second.id])
    rows = end_jobs(db, "release_jobs", run_of(third), run_of(second), run_of(first))
    assert [row.status for row in rows] == ["queued", "cancelled", "queued"]
    attempts = db.execute("select attempts, losses from jobs order by seq").fetchall()
    assert attempts == [(0, 0), (0, 0), (0, 0), (1, 0)]
    assert value(db, "select array_agg(claim_id) from claims") == [fourth.claim_id]
    assert messages(claim_jobs(db, 9)) == ["1", "3"]


@pytest.mark.parametrize("retry_in", ["-1 second", "11 years"])
def test_all_failures_are_refused_for_one_wrong_retry_in(db: Connection, retry_in: str) -> None:
    enqueue_jobs(db, {}, {})
    held = claim_jobs(db, 2)
    with raises_and_changes_nothing(db, "JQ001", "^invalid retry_in"):
        end_jobs(db, "fail_jobs", run_of(held[0]), run_of(held[1], retry_in=retry_in))


@pytest.mark.parametrize(
    "verb", ["complete_jobs", "fail_jobs", "release_jobs", "complete_and_claim"]
)
def test_only_an_array_of_runs_is_accepted(db: Connection, verb: str) -> None:
    enqueue(db)
    held = claim(db)
    for runs in ({}, run_of(held), "runs", 1, None):
        with raises_and_changes_nothing(db, "JQ001", "^invalid runs"):
            db.execute(f"select * from {verb}(%s)", [Jsonb(runs)])
    with raises_and_changes_nothing(db, "JQ001", "^invalid runs: null"):
        db.execute(f"select * from {verb}(null)")
    foreign = {"retry_in": "0"} if verb != "fail_jobs" else {"result": 1}
    for wrong in (run_of(held, **foreign), run_of(held, colour="red"), [1], "run", None):
        with raises_and_changes_nothing(db, "JQ001", "^invalid run: 1: "):
            end_jobs(db, verb, run_of(held), wrong)
    before = everything(db)
    for wrong in ({"job_id": "nobody"}, run_of(held) | {"claim_id": "none"}):
        with pytest.raises(psycopg.DatabaseError):
            end_jobs(db, verb, run_of(held), wrong)
    assert everything(db) == before


@pytest.mark.parametrize("verb", ["complete_jobs", "fail_jobs", "release_jobs"])
def test_no_runs_are_none(db: Connection, verb: str) -> None:
    enqueue(db)
    claim(db)
    before = everything(db)
    assert end_jobs(db, verb) == []
    assert everything(db) == before


@pytest.mark.parametrize(
    "verbs",
    [["complete_jobs"] * 2, ["complete_jobs", "fail_jobs"], ["complete_jobs", "release_jobs"]],
)
def test_two_calls_over_the_same_claims_in_opposite_orders_cannot_deadlock(
    connect: Callable[[], Connection], verbs: list[str]
) -> None:
    one_worker, other_worker, observer = connect(), connect(), connect()
    enqueue_jobs(observer, *numbered(1, 20))
    runs = [run_of(row) for row in claim_jobs(observer, 20)]
    # Somebody holds the middle one, so that both get as far as that in whatever order they lock.
    observer.execute("begin")
    observer.execute("select from claims where claim_id = %s for update", [runs[10]["claim_id"]])
    watcher = connect()
    with in_another_thread(lambda: end_jobs(one_worker, verbs[0], *runs)) as ours:
        wait_until_blocked(watcher, one_worker, by=observer)
        with in_another_thread(lambda: end_jobs(other_worker, verbs[1], *reversed(runs))) as theirs:
            wait_until_blocked(watcher, other_worker, by=one_worker)
            observer.execute("commit")
            assert {row.refusal for row in ours.result()} == {None}
            assert {row.refusal for row in theirs.result()} == {"JQ003"}
    assert value(observer, "select array_agg(distinct status) from jobs") == ["succeeded"]
    ended = "select count(*) from job_events where verb in ('complete', 'fail', 'release')"
    assert value(observer, ended) == 20


def test_runs_that_end_in_an_open_transaction_end_with_it(
    connect: Callable[[], Connection],
) -> None:
    worker, other, observer = connect(), connect(), connect()
    enqueue_jobs(observer, {}, {})
    first, second = claim_jobs(observer, 2)
    worker.execute("begin")
    end_jobs(worker, "complete_jobs", run_of(first))
    with in_another_thread(
        lambda: end_jobs(other, "fail_jobs", run_of(second), run_of(first))
    ) as call:
        wait_until_blocked(observer, other, by=worker)
        worker.execute("rollback")
        assert [row.status for row in call.result()] == ["failed", "failed"]


# --- complete_and_claim


def complete_and_claim(db: Connection, *runs: dict[str, Any], **arguments: Any) -> list[Any]:
    """Complete these runs and claim; return the rows."""
    named = "".join(f", p_{name} => %({name})s" for name in arguments)
    query = f"select * from complete_and_claim(%(runs)s{named})"
    return db.execute(query, {"runs": Jsonb(list(runs)), **arguments}).fetchall()


def test_complete_and_claim_ends_some_runs_and_starts_others(db: Connection) -> None:
    enqueue_jobs(db, *numbered(1, 6))
    held = claim_jobs(db, 2)
    rows = complete_and_claim(db, *(run_of(row, result=row.message) for row in held), limit=3)
    assert messages(rows) == ["3", "4", "5"]
    assert {(row.status, row.refusal) for row in rows} == {("running", None)}
    assert set(rows[0]._fields) == {*held[0]._fields, "refusal"}
    ended = db.execute("select message, result from jobs where status = 'succeeded' order by seq")
    assert ended.fetchall() == [("1", "1"), ("2", "2")]
    claims = db.execute("select claim_id, job_id from claims order by claim_id").fetchall()
    assert claims == [(row.claim_id, row.id) for row in rows]
    assert messages(complete_and_claim(db)) == ["6"]
    assert complete_and_claim(db) == []


def test_complete_and_claim_says_first_what_it_could_not_complete(db: Connection) -> None:
    enqueue_jobs(db, *numbered(1, 4))
    held = claim_jobs(db, 2)
    db.execute("select complete_job(%s, %s)", [held[0].id, held[0].claim_id])
    stranger = {"job_id": UNKNOWN_JOB, "claim_id": held[1].claim_id}
    rows = complete_and_claim(db, run_of(held[0]), run_of(held[1]), stranger, limit=9, worker="w")
    refused = [row for row in rows if row.refusal]
    assert rows[:2] == refused
    assert [(row.id, row.claim_id, row.refusal) for row in refused] == [
        (held[0].id, held[0].claim_id, "JQ003"),
        (UUID(UNKNOWN_JOB), held[1].claim_id, "JQ002"),
    ]
    assert all(
        {name for name, column in row._asdict().items() if column is not None}
        == {"id", "claim_id", "refusal"}
        for row in refused
    )
    assert messages(rows[2:]) == ["3", "4"]
    assert value(db, "select array_agg(distinct worker) from claims") == ["w"]


def test_complete_and_claim_completes_nothing_if_it_may_not_claim(db: Connection) -> None:
    enqueue_jobs(db, {}, {})
    held = claim(db)
    wrongs: list[dict[str, Any]] = [{"limit": 0}, {"queues": []}, {"lease": "2 days"}]
    for wrong in wrongs:
        with raises_and_changes_nothing(db, "JQ001", "^invalid (limit|queues|lease)"):
            complete_and_claim(db, run_of(held), **wrong)


def test_complete_and_claim_claims_what_it_is_asked_for(db: Connection) -> None:
    for queue in ("a", "b"):
        for job_type in ("x", "y"):
            enqueue(db, queue=queue, job_type=job_type, message=f"{queue}{job_type}")
    rows = complete_and_claim(db, limit=9, queues=["b"], job_types=["y"], lease="3 minutes")
    assert messages(rows) == ["by"]
    assert value(db, "select lease::text from claims") == "00:03:00"


def test_complete_and_claim_reuses_the_slot_and_releases_the_child_of_what_it_completes(
    db: Connection,
) -> None:
    db.execute("""select set_queue('default', '{"concurrency_limit": 1}')""")
    parent = enqueue(db, message="parent")
    enqueue(db, message="child", depends_on=[parent], priority=0)
    enqueue(db, message="other")
    held = claim(db)
    (row,) = complete_and_claim(db, run_of(held), limit=5)
    assert row.message == "child"
    (row,) = complete_and_claim(db, run_of(row), limit=5)
    assert row.message == "other"
