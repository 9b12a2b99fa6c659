"""Any two verbs may meet on one job: each ordered pair, with the first one's transaction open.

The second call starts while the first one's transaction is open. It waits for that, or returns at
once; then the first commits or rolls back. Afterwards the history must hold what the two calls said
that they did, and nothing else, and the tables must agree with it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import product
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support import Connection, claim, enqueue, eventually, one, value

Rows = list[Any]
LOST = {"JQ003", "JQ004"}


class Verb(NamedTuple):
    """A call, what it says that it did, the statuses that it acts on, and how it may be refused."""

    call: str
    statuses: set[str]
    did: Callable[[Rows], dict[str, int]] = lambda rows: {}
    refusals: set[str] = set()  # noqa: RUF012 (never changed)
    never_waits: bool = False
    recovers: bool = False


def did_end(rows: Rows) -> dict[str, int]:
    return {"end": 1}


def did_end_those_with_a_status(rows: Rows) -> dict[str, int]:
    assert all((row.status is None) == (row.refusal in LOST) for row in rows)
    return {"end": sum(row.status is not None for row in rows)}


def did_end_so_many(rows: Rows) -> dict[str, int]:
    return {"end": rows[0][0]}


def did_claim(rows: Rows) -> dict[str, int]:
    return {"claim": len(rows)}


def did_maintain(rows: Rows) -> dict[str, int]:
    done = rows[0][0]
    return {"end": done["timed_out"] + done["reclaimed"], "prune": done["pruned"]}


RUNS = (
    "jsonb_build_array(jsonb_build_object("
    "'job_id', %(id)s::uuid, 'claim_id', %(claim_id)s::bigint))"
)
VERBS = {
    "complete_job": Verb("select complete_job(%(id)s, %(claim_id)s)", {"running"}, did_end, LOST),
    "complete_jobs": Verb(
        f"select * from complete_jobs({RUNS})", {"running"}, did_end_those_with_a_status
    ),
    "fail_job": Verb("select fail_job(%(id)s, %(claim_id)s)", {"running"}, did_end, LOST),
    "fail_job_for_good": Verb(
        "select fail_job(%(id)s, %(claim_id)s, p_retryable => false)", {"running"}, did_end, LOST
    ),
    "fail_jobs": Verb(f"select * from fail_jobs({RUNS})", {"running"}, did_end_those_with_a_status),
    "snooze_job": Verb("select snooze_job(%(id)s, %(claim_id)s, '0')", {"running"}, did_end, LOST),
    "release_job": Verb("select release_job(%(id)s, %(claim_id)s)", {"running"}, did_end, LOST),
    "release_jobs": Verb(
        f"select * from release_jobs({RUNS})", {"running"}, did_end_those_with_a_status
    ),
    "complete_and_claim": Verb(
        f"select * from complete_and_claim({RUNS}) where refusal is null",
        {"running"},
        did_claim,
        recovers=True,  # or completes: either way the rows do not say
    ),
    "heartbeat": Verb(
        "select * from heartbeat(array[%(claim_id)s::bigint])", {"running"}, never_waits=True
    ),
    "report_progress": Verb(
        "select report_progress(%(id)s, %(claim_id)s, '1')", {"running"}, refusals=LOST
    ),
    "cancel_job": Verb(
        "select cancel_job(%(id)s)", {"blocked", "queued", "running"}, refusals={"JQ002"}
    ),
    "cancel_jobs": Verb(
        "select * from cancel_jobs(p_queue => 'default')",
        {"blocked", "queued", "running"},
        never_waits=True,
    ),
    "retry_job": Verb(
        "select retry_job(%(id)s)",
        {"failed", "cancelled"},
        lambda rows: {"retry": 1},
        {"JQ002", "JQ006", "JQ007"},
    ),
    "retry_jobs": Verb(
        "select * from retry_jobs(p_queue => 'default')",
        {"failed"},
        lambda rows: {"retry": sum(row.outcome == "retried" for row in rows)},
    ),
    "reclaim_expired_claims": Verb(
        "select reclaim_expired_claims()", {"running"}, did_end_so_many, never_waits=True
    ),
    "time_out_jobs": Verb("select time_out_jobs()", {"running"}, did_end_so_many, never_waits=True),
    "claim_next_job": Verb(
        "select * from claim_next_job(p_worker => 'w')", {"queued"}, did_claim, never_waits=True
    ),
    "claim_next_job_and_recover": Verb(
        "select setval('reclaim_due', 0); select * from claim_next_job()",
        {"queued", "running", "blocked"},
        did_claim,
        never_waits=True,
        recovers=True,
    ),
    "claim_jobs": Verb("select * from claim_jobs(5)", {"queued"}, did_claim, never_waits=True),
    "run_maintenance": Verb(
        "select run_maintenance()",
        {"blocked", "queued", "running", "succeeded", "failed", "cancelled"},
        did_maintain,
        never_waits=True,
    ),
    "prune_jobs": Verb(
        "select prune_jobs()",
        {"succeeded", "failed", "cancelled"},
        lambda rows: {"prune": rows[0][0]},
        never_waits=True,
    ),
    "enqueue_a_child": Verb(
        "select enqueue_job(p_depends_on => array[%(id)s::uuid])",
        {"blocked", "queued", "running", "succeeded", "failed", "cancelled"},
        refusals={"JQ002"},
    ),
    "enqueue_its_key": Verb(
        "select enqueue_job(p_unique_key => 'key')",
        {"blocked", "queued", "running", "succeeded", "failed", "cancelled"},
    ),
    "complete_its_parent": Verb(
        "select complete_job(%(parent_id)s, %(parent_claim_id)s)", {"blocked"}, did_end, LOST
    ),
    "fail_its_parent": Verb(
        "select fail_job(%(parent_id)s, %(parent_claim_id)s)", {"blocked"}, did_end, LOST
    ),
}
MEETINGS = sorted(
    (status, first, limits)
    for first, verb in VERBS.items()
    for status in verb.statuses
    for limits in ["no limits", "limits"]
    if limits == "no limits" or status in ("queued", "running")
)


def seconds(status: str) -> list[str]:
    """Return the verbs that may be called on a job in the status, if only to be refused."""
    of_a_run = {name for name, verb in VERBS.items() if verb.statuses == {"running"}}
    of_a_parent = {name for name, verb in VERBS.items() if verb.statuses == {"blocked"}}
    never_ran = status in ("blocked", "queued", "cancelled")
    return [
        name
        for name in VERBS
        if not (name in of_a_parent and status != "blocked")
        and not (name in of_a_run and never_ran and not VERBS[name].never_waits)
    ]


def bring_to(db: Connection, status: str, lease_is_over: bool) -> dict[str, Any]:
    """Bring a job to the status, such that whoever may act on it will; it is the only one."""
    for table in ("jobs", "claims", "job_events", "job_dependencies", "worker_sightings"):
        db.execute(f"delete from {table}")
    db.execute("select setval('prune_cursor', 0)")
    db.execute(
        "select setval('reclaim_due',"
        " (extract(epoch from clock_timestamp() + interval '50 s') * 1000000)::bigint)"
    )
    names: dict[str, Any] = dict.fromkeys(["claim_id", "parent_id", "parent_claim_id"])
    arguments: dict[str, Any] = {}
    if status == "blocked":
        parent = enqueue(db)
        names |= {"parent_id": parent, "parent_claim_id": claim(db).claim_id}
        arguments = {"depends_on": [parent]}
    names["id"] = enqueue(
        db, unique_key="key", concurrency_key="key", max_attempts=3, timeout="1 hour", **arguments
    )
    if status in ("running", "succeeded", "failed"):
        names["claim_id"] = claim(db).claim_id
        db.execute(
            "update claims set deadline_at = clock_timestamp(), lease = '1 ms',"
            " expires_at = clock_timestamp() + %s::interval",
            ["-1 s" if lease_is_over else "1 hour"],
        )
    if status == "succeeded":
        db.execute("select complete_job(%(id)s, %(claim_id)s)", names)
    if status == "failed":
        db.execute("select fail_job(%(id)s, %(claim_id)s, p_retryable => false)", names)
    if status == "cancelled":
        db.execute("select cancel_job(%(id)s)", names)
    if status in ("succeeded", "failed", "cancelled"):
        db.execute("update jobs set updated_at = now() - interval '1 year'")
    assert value(db, "select status from jobs where id = %s", names["id"]) == status
    return names


def run(db: Connection, verb: Verb, names: dict[str, Any]) -> Rows:
    """Make the call and return its rows."""
    *before, last = verb.call.split("; ")
    for statement in before:
        db.execute(statement)
    return db.execute(last, names).fetchall()


def counts_of(db: Connection) -> dict[str, int]:
    """Count what has happened, by kind."""
    counted = one(
        db,
        "select count(*) filter (where from_status = 'running' and verb <> 'cancel') as \"end\","
        " count(*) filter (where verb = 'claim') as claim,"
        " count(*) filter (where verb = 'retry') as retry from job_events",
    )
    return counted._asdict()  # type: ignore[no-any-return]


def check_that_the_tables_agree(db: Connection) -> None:
    """Check that each history is a chain of transitions that ends where the job is."""
    allowed = {tuple(row) for row in db.execute("table job_transitions")}
    chains = defaultdict(list)
    for event in db.execute("table job_events order by event_id"):
        assert (event.from_status, event.verb, event.to_status) in allowed, event
        chains[event.job_id].append(event)
    jobs = {job.id: job for job in db.execute("table jobs")}
    assert set(jobs) == set(chains)
    for job_id, chain in chains.items():
        assert [None, *(event.to_status for event in chain[:-1])] == [
            event.from_status for event in chain
        ], chain
        assert jobs[job_id].status == chain[-1].to_status, chain
        ends = [e.claim_id for e in chain if e.from_status == "running" and e.verb != "cancel"]
        assert len(ends) == len(set(ends)), chain
        is_over = jobs[job_id].status in ("succeeded", "failed", "cancelled")
        assert jobs[job_id].held_key == (None if is_over else jobs[job_id].unique_key)
    claimed = [row.job_id for row in db.execute("table claims")]
    running = [job.id for job in jobs.values() if job.status == "running"]
    assert sorted(claimed) == sorted(running)


def check_that_recovery_leaves_nobody_blocked_in_vain(db: Connection) -> None:
    """Check that what the calls had to pass over is settled by the next maintenance."""
    db.execute("select run_maintenance()")
    query = (
        "select from jobs as child where status = 'blocked' and not exists ("
        " select from jobs as parent where parent.id = any (child.depends_on)"
        " and parent.status in ('blocked', 'queued', 'running'))"
    )
    assert db.execute(query).fetchall() == []
    assert db.execute("select from jobs where waits_for_key").fetchall() == []
    check_that_the_tables_agree(db)


@contextmanager
def noting(what: str) -> Iterator[None]:
    """Say in which round an error came up."""
    try:
        yield
    except BaseException as error:
        error.add_note(what)
        raise


def returns_at_once(
    call: Future[Rows], observer: Connection, caller: Connection, holder: Connection
) -> bool:
    """Wait until the call is over or waits for the holder; return which."""
    pids = holder.info.backend_pid, caller.info.backend_pid

    def what_it_does() -> str | None:
        wait([call], timeout=0.002)
        if call.done():
            return "returned"
        blocked = value(observer, "select %s = any (pg_blocking_pids(%s))", *pids)
        return "waits" if blocked else None

    return eventually(what_it_does) == "returned"  # type: ignore[no-any-return]


@pytest.mark.parametrize(("status", "first", "limits"), MEETINGS)
def test_whichever_verb_comes_second_the_outcome_is_legal(
    connect: Callable[[], Connection], status: str, first: str, limits: str
) -> None:
    holder, caller, observer = sessions = connect(), connect(), connect()
    for session in sessions:
        session.execute("set synchronous_commit = off")
    if limits == "limits":
        policy = {"concurrency_limit": 3, "key_concurrency_limit": 1}
        observer.execute("select set_queue('default', %s)", [Jsonb(policy)])
    with ThreadPoolExecutor(max_workers=1) as executor:
        for second, outcome in product(seconds(status), ["commit", "rollback"]):
            with noting(f"{first}, then {second}, then {outcome}"):
                lease_is_over = "time_out_jobs" not in (first, second)
                with observer.transaction():
                    names = bring_to(observer, status, lease_is_over)
                before = counts_of(observer)
                holder.execute("begin")
                said = VERBS[first].did(run(holder, VERBS[first], names))
                call = executor.submit(run, caller, VERBS[second], names)
                try:
                    at_once = returns_at_once(call, observer, caller, holder)
                finally:
                    holder.execute(outcome)
                assert at_once or not VERBS[second].never_waits
                if outcome == "rollback":
                    said = {}
                try:
                    did = VERBS[second].did(call.result())
                except psycopg.DatabaseError as error:
                    if error.sqlstate not in VERBS[second].refusals:
                        raise
                    did = {}

                gone = value(observer, "select count(*) from jobs where id = %s", names["id"]) == 0
                after = counts_of(observer)
                total = {
                    kind: said.get(kind, 0) + did.get(kind, 0)
                    for kind in ("end", "claim", "retry", "prune")
                }
                assert total["prune"] == gone
                if not gone:
                    for kind in ("end", "claim", "retry"):
                        if kind == "end" and (VERBS[first].recovers or VERBS[second].recovers):
                            continue
                        assert after[kind] - before[kind] == total[kind], kind
                check_that_the_tables_agree(observer)
                check_that_recovery_leaves_nobody_blocked_in_vain(observer)


def test_a_claim_does_not_wait_for_maintenance_that_forgets_the_worker(
    connect: Callable[[], Connection],
) -> None:
    maintenance, worker, observer = connect(), connect(), connect()
    ask = "select * from claim_next_job('w')"
    worker.execute(ask)
    observer.execute("update worker_sightings set seen_at = seen_at - interval '2 days'")
    with ThreadPoolExecutor(max_workers=1) as executor, maintenance.transaction():
        maintenance.execute("select run_maintenance()")
        call = executor.submit(lambda: worker.execute(ask).fetchall())
        try:
            assert returns_at_once(call, observer, worker, maintenance)
        finally:
            maintenance.execute("rollback; begin")


def test_maintenance_leaves_a_schedule_alone_whose_unique_key_a_client_is_just_taking(
    connect: Callable[[], Connection],
) -> None:
    maintenance, client = connect(), connect()
    maintenance.execute("set statement_timeout = '60s'")  # to end a broken test
    maintenance.execute("select set_schedule('s', '* * * * *', '{\"unique_key\": \"key\"}')")
    maintenance.execute("update schedules set next_at = clock_timestamp() - interval '1 minute'")
    before = maintenance.execute("table schedules").fetchall()
    with client.transaction(force_rollback=True):
        enqueue(client, unique_key="key")
        assert value(maintenance, "select run_maintenance() ->> 'fired'") == "0"
        assert maintenance.execute("table schedules").fetchall() == before
    assert value(maintenance, "select run_maintenance() ->> 'fired'") == "1"


def test_two_batches_with_the_same_unique_keys_in_opposite_orders_do_not_deadlock(
    connect: Callable[[], Connection],
) -> None:
    sessions = [connect(), connect()]
    keys = [{"unique_key": str(key)} for key in range(50)]

    def enqueue_in_turn(session: Connection, jobs: list[dict[str, str]]) -> list[Any]:
        call = "select count(*) from enqueue_jobs(%s)"
        return [value(session, call, Jsonb(jobs)) for _ in range(20)]

    with ThreadPoolExecutor(max_workers=2) as executor:
        for _ in range(10):
            sessions[0].execute("delete from jobs")
            calls = [
                executor.submit(enqueue_in_turn, session, jobs)
                for session, jobs in zip(sessions, [keys, keys[::-1]], strict=True)
            ]
            assert [call.result() for call in calls] == [[50] * 20] * 2
            assert value(sessions[0], "select count(*) from jobs") == 50
