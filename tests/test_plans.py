"""No function scans or sorts a table, whatever the planner knew; a claim costs the same always."""

import json
import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support import Connection, claim, enqueue, one, value

TABLES = {"jobs", "claims", "job_events", "job_dependencies"}
MANY = 20_000
FEW = 15_000  # so many rows may a call read at most: batches are bounded by thousands
ROWS_READ = (
    "select sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::int"
    f" from pg_stat_xact_user_tables where relname = any ('{{{','.join(sorted(TABLES))}}}')"
)

RUNS = (
    "jsonb_build_array(jsonb_build_object('job_id', %(id)s::uuid, 'claim_id', %(claim_id)s::int))"
)
CALLS = {
    "enqueue_job": "enqueue_job(p_unique_key => 'new', p_depends_on => array[%(parent)s::uuid])",
    "enqueue_jobs": 'enqueue_jobs(\'[{}, {"unique_key": "a"}, {"unique_key": "b"}]\')',
    "enqueue_once": "enqueue_once('c', 'k', '[{}, {\"unique_key\": \"a\"}]')",
    "claim_next_job": "claim_next_job('w')",
    "claim_jobs": "claim_jobs(20, 'w')",
    "heartbeat": "heartbeat(array[%(claim_id)s::bigint])",
    "report_progress": "report_progress(%(id)s, %(claim_id)s, '1')",
    "complete_job": "complete_job(%(id)s, %(claim_id)s)",
    "complete_jobs": f"complete_jobs({RUNS})",
    "complete_and_claim": f"complete_and_claim({RUNS}, 5)",
    "fail_job": "fail_job(%(id)s, %(claim_id)s, p_retryable => false)",
    "fail_jobs": f"fail_jobs({RUNS})",
    "snooze_job": "snooze_job(%(id)s, %(claim_id)s, '0')",
    "release_job": "release_job(%(id)s, %(claim_id)s)",
    "release_jobs": f"release_jobs({RUNS})",
    "reclaim_expired_claims": "reclaim_expired_claims()",
    "time_out_jobs": "time_out_jobs()",
    "cancel_job": "cancel_job(%(parent)s)",
    "cancel_jobs": (
        "cancel_jobs('default', p_limit => 3);"
        " cancel_jobs('keyed', p_status => 'queued', p_limit => 3);"
        " cancel_jobs(p_status => 'blocked', p_limit => 3);"
        " cancel_jobs(p_status => 'running', p_limit => 3);"
        " cancel_jobs(p_unique_key => 'key')"
    ),
    "retry_job": "retry_job(%(failed)s)",
    "retry_jobs": "retry_jobs('default', p_limit => 20)",
    "get_job": "get_job(%(id)s)",
    "list_jobs": (
        "list_jobs(p_after => %(id)s);"
        " list_jobs(10, %(id)s, '{running,failed,blocked}');"
        " list_jobs(10, p_statuses => '{queued}', p_queues => '{keyed}');"
        " list_jobs(p_unique_key => 'none'); list_jobs(10, p_unique_key => 'key');"
        " list_jobs(10, p_statuses => '{succeeded}', p_created_before => clock_timestamp());"
        " list_jobs(p_created_after => clock_timestamp() + interval '1 hour')"
    ),
    "list_dead_jobs": "list_dead_jobs(p_after => %(failed)s)",
    "ended_jobs": "ended_jobs(array[%(id)s, %(parent)s, %(failed)s]::uuid[])",
    "job_history": "job_history(%(id)s)",
    "list_events": (
        "list_events(5, 100); list_events(p_job_id => %(id)s);"
        " list_events(p_until => 50, p_queues => '{default}')"
    ),
    "settled_events": "settled_events(5)",
    "list_queues": "list_queues(); list_queues('keyed')",
    "list_schedules": "list_schedules()",
    "set_schedule": "set_schedule('s', '* * * * *')",
    "pause_schedule": "pause_schedule('s')",
    "resume_schedule": "resume_schedule('s')",
    "delete_schedule": "delete_schedule('s')",
    "fire_schedules": "fire_schedules()",
    "next_tick": "next_tick('* * * * *')",
    "prune_jobs": "prune_jobs()",
    "run_maintenance": "run_maintenance()",
    "create_api_key": "create_api_key('k', '{client}', p_rate_limit => 5)",
    "revoke_api_key": "revoke_api_key(%(key_id)s)",
    "list_api_keys": "list_api_keys(%(key_id)s)",
    "authorize": "authorize(%(key_id)s, sha256(%(api_key)s::bytea), 'complete_job', '{default}',"
    " array[%(id)s::uuid], array[%(claim_id)s::bigint])",
    "count_events": "count_events()",
}
# For people, who ask now and then: they may read all claims, and jobs or a backlog up to a bound.
FOR_PEOPLE = {"check_health", "explain_job", "count_jobs"}
# They count the running jobs once, whenever somebody changes a policy.
CHANGE_A_POLICY = {"set_queue", "pause_queue", "resume_queue"}
NO_CALLS = {"grant_roles"}
TOUCH_NO_TABLE = {"start_listening", "stop_listening"}


class Plan:
    """What the server says of a plan that it has made, in its own notation."""

    def __init__(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self._tree = " ".join((diagnostic.message_detail or "").split())
        self._context = " ".join((diagnostic.context or "").split())[:300]

    def faults(self, tables: dict[str, str]) -> set[str]:
        """Say what is wrong with it; the tables that must not be scanned go by their oids."""
        relations = re.findall(r"{RANGETBLENTRY .*?:rtekind \d+(?: :relid (\d+))?", self._tree)
        scanned = re.findall(r"{(\w*SCAN) (?:(?!{\w*SCAN ).)*?:scan.scanrelid (\d+)", self._tree)
        wrong = {
            f"{kind} of {tables[relations[int(index) - 1]]}: {self._context}"
            for kind, index in scanned
            if kind in ("SEQSCAN", "BITMAPHEAPSCAN") and relations[int(index) - 1] in tables
        }
        costs = map(float, re.findall(r"plan\.total_cost ([\d.e+]+)", self._tree))
        if max(costs, default=0) >= 1e10 or re.search(r"plan\.disabled_nodes [1-9]", self._tree):
            wrong.add(f"a disabled node: {self._context}")
        if re.search(r":jitFlags [1-9]", self._tree):
            wrong.add(f"compiled: {self._context}")
        return wrong


@pytest.fixture
def plans(db: Connection) -> list[Plan]:
    """Return where the plans go that this session makes while debug_print_plan is on."""
    noted: list[Plan] = []
    db.add_notice_handler(
        lambda said: noted.append(Plan(said)) if said.message_primary == "plan:" else None
    )
    db.execute("set client_min_messages = log")
    db.execute("set debug_pretty_print = off")
    return noted


def fill(db: Connection, jobs: int) -> None:
    """Add jobs in every status, and children of some."""
    db.execute("select set_queue('keyed', '{\"key_concurrency_limit\": 1}')")
    db.execute(
        "insert into jobs (status, claimable, failed_at, result, queue, job_type)"
        " select status, status = 'queued', case status when 'failed' then now() end,"
        "  case status when 'failed' then '{\"error\": \"no\"}'::jsonb end, 'default', 'sleep'"
        " from generate_series(1, %s) as n cross join lateral ("
        "  select ('{queued,queued,queued,succeeded,failed,cancelled,running,blocked}'::text[])"
        "   [n %% 8 + 1]) as s (status)",
        [jobs],
    )
    db.execute(
        "insert into job_dependencies (job_id, parent_id, on_parent_failure)"
        " select id, (select id from jobs where status = 'queued' order by seq limit 1), 'cancel'"
        " from jobs where status = 'blocked' order by seq limit 100"
    )
    db.execute(
        "insert into job_dependencies (job_id, parent_id, on_parent_failure)"
        " select id, (select id from jobs where status = 'queued' order by seq desc limit 1),"
        "  'cancel' from jobs where status = 'blocked' order by seq offset 100"
    )
    db.execute(
        "insert into claims (job_id, lease, expires_at)"
        " select id, '1 hour', now() + interval '1 hour' from jobs where status = 'running'"
    )
    db.execute(
        "insert into jobs (status, claimable, waits_for_key, queue, concurrency_key, priority)"
        " select 'queued', false, true, 'keyed', 'key' || n %% 10, n %% 4"
        " from generate_series(1, %s) as n",
        [jobs // 4],
    )
    db.execute(
        "insert into job_events (job_id, verb, to_status) select id, 'enqueue', 'queued'"
        " from jobs cross join generate_series(1, 2)"
    )


def names(db: Connection) -> dict[str, Any]:
    """Return the ids that the calls speak of, in a database that is empty or not."""
    return {
        "parent": value(
            db,
            "select coalesce((select parent_id from job_dependencies order by dependency_id"
            " limit 1), enqueue_job())",
        ),
        "failed": value(
            db,
            "select id from jobs where failed_at is not null and attempts = 0 order by id limit 1",
        ),
    }


def call(db: Connection, function: str) -> int:
    """Call the function, have nothing changed, and return how many rows it read at most."""
    with db.transaction(force_rollback=True):
        db.execute("select set_schedule('s', '* * * * *') where %s <> 'set_schedule'", [function])
        db.execute("update schedules set next_at = now() - interval '1 min'")
        db.execute(
            "select setval(c, 0) from unnest('{prune_cursor,dependency_cursor}'::regclass[]) as c"
        )
        db.execute(
            "insert into jobs (status, claimable, failed_at, updated_at)"
            " values ('failed', false, now(), now() - interval '1 year')"
        )
        db.execute(
            "insert into event_cursor select true, coalesce(max(event_id), 0) from job_events"
        )
        enqueue(db, concurrency_key="key1", queue="keyed")
        enqueue(db, timeout="1 ms", priority=0)
        held = claim(db)
        db.execute("select setval('reclaim_due', 0)")
        key = one(db, "select * from create_api_key('k', '{worker}', '{default,keyed}')")
        known = {**names(db), **key._asdict(), "id": held.id, "claim_id": held.claim_id}
        read = []
        for called in CALLS[function].split("; "):
            before = value(db, ROWS_READ)
            db.execute("set local debug_print_plan = on")
            db.execute(f"select * from {called}", known)
            db.execute("set local debug_print_plan = off")
            read.append(int(value(db, ROWS_READ)) - int(before))
        return max(read)


def test_every_public_function_is_called_here(db: Connection) -> None:
    public = db.execute(
        "select proname from pg_proc where pronamespace = 'job_queue'::regnamespace"
        " and prorettype <> 'trigger'::regtype"
        " and obj_description(oid, 'pg_proc') not like '%%Private to this schema%%'"
    ).fetchall()
    called = {*CALLS, *FOR_PEOPLE, *CHANGE_A_POLICY, *NO_CALLS, *TOUCH_NO_TABLE}
    assert {row.proname for row in public} == called


@pytest.mark.parametrize(
    "planned", ["when the tables were empty", "with statistics from then", "with statistics of now"]
)
def test_no_statement_of_a_function_scans_or_sorts_a_table_or_needs_what_is_disabled(
    db: Connection, plans: list[Plan], planned: str
) -> None:
    for table in TABLES:
        db.execute(f"vacuum analyze {table}")
        db.execute(f"alter table {table} set (autovacuum_enabled = off)")
    assert not plans
    if planned == "when the tables were empty":
        for function in CALLS:
            for _ in range(7):
                call(db, function)
        assert len(plans) > 100
    fill(db, MANY)
    if planned == "with statistics of now":
        db.execute("analyze")
    oids = {value(db, "select %s::regclass::oid::text", table): table for table in TABLES}
    found = {}
    for function in CALLS:
        read = [call(db, function) for _ in range(7)]
        wrong = {fault for plan in plans for fault in plan.faults(oids)}
        if max(read) > FEW:
            wrong.add(f"reads {max(read)} rows")
        if wrong:
            found[function] = wrong
        plans.clear()
    assert found == {}


@pytest.mark.parametrize(
    "planned", ["when the tables were empty", "with statistics from then", "with statistics of now"]
)
@pytest.mark.parametrize("types", ["null", "'{other,sleep}'"])
def test_a_claim_searches_the_lanes_and_finds_its_jobs_by_their_ids(
    db: Connection, planned: str, types: str
) -> None:
    for table in TABLES:
        db.execute(f"vacuum analyze {table}")
        db.execute(f"alter table {table} set (autovacuum_enabled = off)")
    ask = f"select * from claim_jobs(20, 'w', p_job_types => {types})"
    if planned == "when the tables were empty":
        for _ in range(7):
            db.execute(ask)
    fill(db, MANY)
    if planned == "with statistics of now":
        db.execute("analyze")
    for _ in range(7):
        db.execute(ask)
    db.execute(
        "select setval('reclaim_due', (extract(epoch from clock_timestamp()) * 1e6)::bigint"
        " + 50000000)"
    )
    query = (
        "select indexrelname as name, pg_stat_get_xact_tuples_returned(indexrelid) as read"
        " from pg_stat_user_indexes where relname = 'jobs'"
    )
    with db.transaction():
        before = {row.name: row.read for row in db.execute(query).fetchall()}
        assert len(db.execute(ask).fetchall()) == 20
        after = {row.name: row.read for row in db.execute(query).fetchall()}
    read = {name: after[name] - before[name] for name in after if after[name] > before[name]}
    assert set(read) == {"jobs_lanes_idx", "jobs_pkey"}
    assert read["jobs_lanes_idx"] <= 2_000  # of 7,500; 140 were claimed before, and are dead
    assert read["jobs_pkey"] <= 60


END = "select refusal is null from {}_jobs(%s::jsonb)"
BEAT = (
    "select held from heartbeat((select array_agg((run ->> 'claim_id')::bigint)"
    " from jsonb_array_elements(%s::jsonb) as run))"
)


@pytest.mark.parametrize(
    "call", [END.format("complete"), END.format("fail"), END.format("release"), BEAT]
)
def test_what_is_done_to_claims_reads_these_alone_though_planned_when_there_were_none(
    db: Connection, call: str
) -> None:
    for table in TABLES:
        db.execute(f"alter table {table} set (autovacuum_enabled = off)")
    stale = claim_of_one_that_ended(db)
    db.execute("vacuum analyze claims")
    assert value(db, "select pg_relation_size('claims')") == 0
    for _ in range(7):
        assert value(db, call, json.dumps([stale])) is False
    fill(db, MANY)
    held = db.execute("select job_id::text, claim_id from claims order by 2 limit 20").fetchall()
    query = (
        "select sum(pg_stat_get_xact_tuples_returned(indexrelid))::int"
        " from pg_stat_user_indexes where relname = 'claims'"
    )
    with db.transaction():
        before = value(db, query)
        done = db.execute(call, [json.dumps([run._asdict() for run in held])]).fetchall()
        read = value(db, query) - before
    assert [is_done for (is_done,) in done] == [True] * 20
    assert read <= 60  # of 2,500


def claim_of_one_that_ended(db: Connection) -> dict[str, Any]:
    """Return a run that is over."""
    enqueue(db)
    run = claim(db)
    db.execute("select complete_job(%s, %s)", [run.id, run.claim_id])
    return {"job_id": str(run.id), "claim_id": run.claim_id}


def front_of_a_paused_queue(db: Connection, jobs: int) -> None:
    db.execute("select enqueue_job(p_queue => 'a') from generate_series(1, %s)", [jobs])
    db.execute("select pause_queue('a')")


def front_of_other_types(db: Connection, jobs: int) -> None:
    db.execute(
        "select enqueue_job(t, p_queue => 'b', p_priority => p) from generate_series(1, %s / 4)"
        " cross join unnest('{a,z}'::text[]) as t cross join unnest('{0,1}'::int[]) as p",
        [jobs],
    )


def front_of_jobs_whose_time_has_not_come(db: Connection, jobs: int) -> None:
    db.execute(
        "select enqueue_job(p_queue => 'b', p_priority => 0, p_delay => '1 hour')"
        " from generate_series(1, %s)",
        [jobs],
    )


def front_of_a_full_key(db: Connection, jobs: int) -> None:
    db.execute("select set_queue('b', '{\"key_concurrency_limit\": 1}')")
    enqueue(db, queue="b", concurrency_key="key")
    claim(db)
    db.execute(
        "select enqueue_job(p_queue => 'b', p_concurrency_key => 'key')"
        " from generate_series(1, %s)",
        [jobs],
    )


def front_of_jobs_that_ended(db: Connection, jobs: int) -> None:
    db.execute("select enqueue_job(p_queue => 'b') from generate_series(1, %s)", [jobs])
    for _ in range(jobs // 1000):
        claimed = db.execute("select id as job_id, claim_id from claim_jobs(1000)").fetchall()
        runs = [{"job_id": str(run.job_id), "claim_id": run.claim_id} for run in claimed]
        db.execute("select complete_jobs(%s)", [Jsonb(runs)])
    db.execute("vacuum jobs")
    db.execute("vacuum claims")


@pytest.mark.parametrize(
    "front",
    [
        front_of_a_paused_queue,
        front_of_other_types,
        front_of_jobs_whose_time_has_not_come,
        front_of_a_full_key,
        front_of_jobs_that_ended,
    ],
)
def test_a_claim_reads_no_more_pages_for_a_longer_backlog_in_front(
    db: Connection, front: Callable[[Connection, int], None]
) -> None:
    db.execute("set synchronous_commit = off")
    for (
        table
    ) in TABLES:  # an analyze in the background would keep the vacuums below from their work
        db.execute(f"alter table {table} set (autovacuum_enabled = off)")
    ask = "select * from claim_next_job(p_queues => '{a,b}', p_job_types => '{sleep}')"

    def pages() -> int:
        """Return what the cheapest of ten claims reads, once those before have tidied up."""
        for _ in range(40):
            assert len(db.execute(ask).fetchall()) == 1
        db.execute("vacuum jobs")
        costs = []
        for _ in range(10):
            db.execute(
                "select setval('reclaim_due', (extract(epoch from clock_timestamp()) * 1e6)::bigint"
                " + 50000000)"
            )
            explained = value(db, f"explain (analyze, buffers, timing off, format json) {ask}")
            plan = explained[0]["Plan"]
            costs.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        return int(min(costs))

    few = []
    for jobs in (1_000, MANY - 1_000):
        front(db, jobs)
        db.execute(
            "select enqueue_job(p_queue => 'b') from generate_series(1, 60)",
        )
        few.append(pages())
    # An index may have grown by a level meanwhile.
    assert few[1] <= few[0] + 15


def test_no_plan_is_compiled_for_people_either(db: Connection, plans: list[Plan]) -> None:
    db.execute("set jit = on")
    job = db.execute("select enqueue_job(p_queue => 'a') as id").fetchone()
    assert job is not None
    db.execute("set debug_print_plan = on")
    db.execute("select * from explain_job(%s)", [job.id])
    db.execute("select * from check_health()")
    faults = {fault for plan in plans for fault in plan.faults({})}
    assert len(plans) > 2
    assert [fault for fault in faults if fault.startswith("compiled")] == []
