"""The group roles may execute what is meant for them, and nothing else, whatever they try."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.support import Connection, claim, enqueue, everything, one, value

READING = {
    "get_job",
    "list_jobs",
    "job_history",
    "explain_job",
    "list_dead_jobs",
    "ended_jobs",
    "list_events",
    "settled_events",
    "authorize",
}
INTENDED = {
    "job_queue_client": READING | {"enqueue_job", "enqueue_jobs", "enqueue_once", "cancel_job"},
    "job_queue_worker": READING
    | {
        "enqueue_job",
        "enqueue_jobs",
        "enqueue_once",
        "claim_next_job",
        "claim_jobs",
        "start_listening",
        "stop_listening",
        "heartbeat",
        "report_progress",
        "complete_job",
        "complete_jobs",
        "complete_and_claim",
        "fail_job",
        "fail_jobs",
        "snooze_job",
        "release_job",
        "release_jobs",
        "run_maintenance",
    },
    "job_queue_operator": READING
    | {
        "cancel_job",
        "cancel_jobs",
        "retry_job",
        "retry_jobs",
        "set_queue",
        "pause_queue",
        "resume_queue",
        "list_queues",
        "set_schedule",
        "pause_schedule",
        "resume_schedule",
        "delete_schedule",
        "list_schedules",
        "next_tick",
        "create_api_key",
        "revoke_api_key",
        "list_api_keys",
        "count_events",
        "run_maintenance",
        "time_out_jobs",
        "reclaim_expired_claims",
        "fire_schedules",
        "prune_jobs",
        "check_health",
        "count_jobs",
    },
    "job_queue_test_nobody": set(),
}
VIEWS = {"queue_statistics", "workers", "health"}
INLINED = {
    "effort",
    "first_of_lane",
    "has_sleepers",
    "is_consistent",
    "is_in_order",
    "may_become",
    "new_job_id",
    "sleepers_lock",
    "status_after",
}
INVOKERS = INLINED | {"grant_roles"}


@pytest.fixture
def login(connect: Callable[[], Connection]) -> Iterator[Callable[[str], Connection]]:
    """Open sessions of logins that are members of one group role, and of nothing else."""
    owner, names, sessions = connect(), [], []

    def log_in(group: str) -> Connection:
        name = f"{group}_test_login"
        owner.execute(f"drop role if exists {name}")
        owner.execute(f"create role {name} in role {group}")
        names.append(name)
        session = connect()
        session.execute(f"set session authorization {name}")
        sessions.append(session)
        return session

    yield log_in
    for session in sessions:
        session.close()
    for name in names:
        owner.execute(f"drop owned by {name}; drop role {name}")


@pytest.fixture
def nobody(db: Connection) -> Iterator[None]:
    """Have a role without any grant: what it may do, PUBLIC may."""
    db.execute("drop role if exists job_queue_test_nobody; create role job_queue_test_nobody")
    yield
    db.execute("drop role job_queue_test_nobody")


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("role", INTENDED)
def test_a_role_may_execute_what_is_meant_for_it_and_has_no_other_right(
    db: Connection, role: str
) -> None:
    executable = db.execute(
        "select proname from pg_proc where pronamespace = 'job_queue'::regnamespace"
        " and has_function_privilege(%s, oid, 'execute')",
        [role],
    ).fetchall()
    assert {row.proname for row in executable} == INTENDED[role]
    readable = VIEWS if role == "job_queue_operator" else set()
    for right in ["select", "insert", "update", "delete", "truncate", "references", "trigger"]:
        relations = db.execute(
            "select relname from pg_class where relnamespace = 'job_queue'::regnamespace"
            " and relkind in ('r', 'p', 'v', 'm', 'f')"
            " and (has_table_privilege(%s, oid, %s) or case"
            "  when %s in ('select', 'insert', 'update', 'references')"
            "  then has_any_column_privilege(%s, oid, %s) end)",
            [role, right, right, role, right],
        ).fetchall()
        assert {row.relname for row in relations} == (readable if right == "select" else set())
    sequences = (
        "select from pg_class where relnamespace = 'job_queue'::regnamespace"
        " and case relkind when 'S' then"
        " has_sequence_privilege(%s, oid, 'usage, select, update') end"
    )
    assert db.execute(sequences, [role]).fetchall() == []
    schema = one(
        db,
        "select has_schema_privilege(%s, 'job_queue', 'usage') as may_use,"
        " has_schema_privilege(%s, 'job_queue', 'create') as may_create",
        role,
        role,
    )
    assert (schema.may_use, schema.may_create) == (bool(INTENDED[role]), False)
    attributes = one(db, "select * from pg_roles where rolname = %s", role)
    assert not any(
        getattr(attributes, f"rol{right}")
        for right in ["super", "createrole", "createdb", "canlogin", "bypassrls", "replication"]
    )
    memberships = "select from pg_auth_members where member = %s::regrole"
    assert db.execute(memberships, [role]).fetchall() == []


def test_what_runs_with_the_owners_rights_looks_nothing_up_in_the_callers_path(
    db: Connection,
) -> None:
    functions = db.execute(
        "select proname, prosecdef, proconfig from pg_proc"
        " where pronamespace = 'job_queue'::regnamespace"
    ).fetchall()
    assert {row.proname for row in functions if not row.prosecdef} == INVOKERS
    pinned = "search_path=pg_catalog, pg_temp"
    assert {row.proname for row in functions if pinned not in (row.proconfig or [])} == INLINED


def call_of_each_granted_function(db: Connection, role: str) -> list[tuple[str, list[str]]]:
    """Return each function that the role may execute, with the types of its parameters."""
    rows = db.execute(
        "select proname, array(select format_type(given.oid, null)"
        " from unnest(proargtypes) with ordinality as given (oid, n) order by n) as types"
        " from pg_proc where pronamespace = 'job_queue'::regnamespace and proname = any (%s)",
        [list(INTENDED[role])],
    ).fetchall()
    return [(row.proname, row.types) for row in rows]


FORBIDDEN = [
    "table job_queue.jobs",
    "table job_queue.claims",
    "table job_queue.job_events",
    "table job_queue.queues",
    "table job_queue.queue_statistics",
    "table job_queue.health",
    "copy job_queue.jobs to stdout",
    "insert into job_queue.jobs (sleep_seconds) values (1)",
    "insert into job_queue.job_events (job_id, verb, to_status) values"
    " (gen_random_uuid(), 'complete', 'succeeded')",
    "update job_queue.jobs set status = 'succeeded'",
    "delete from job_queue.job_events",
    "truncate job_queue.jobs",
    "select * from job_queue.jobs for update",
    "begin; lock table job_queue.jobs",
    "select nextval('job_queue.reclaim_due')",
    "select setval('job_queue.claims_claim_id_seq', 1)",
    "select last_value from job_queue.prune_cursor",
    "alter table job_queue.jobs disable trigger all",
    "drop trigger jobs_change_status_as_job_transitions_says on job_queue.jobs",
    "create function job_queue.mine() returns int language sql as 'select 1'",
    "create table job_queue.mine ()",
    "create temp table child () inherits (job_queue.jobs)",
    "create trigger mine before insert on job_queue.jobs execute function"
    " job_queue.refuse_transition()",
    "alter function job_queue.enqueue_job set search_path = mine",
    "grant execute on function job_queue.prune_jobs to public",
    "set role job_queue_operator",
    "set session_replication_role = replica",
    "create role mine",
]


@pytest.mark.parametrize("role", ["job_queue_client", "job_queue_worker"])
def test_a_member_is_refused_everything_else_and_changes_nothing(
    login: Callable[[str], Connection], db: Connection, role: str
) -> None:
    enqueue(db, message="secret")
    session = login(role)
    others = db.execute(
        "select format('select job_queue.%I(%s)', proname, (select string_agg(format("
        "  'null::%s', format_type(given.oid, null)), ', ' order by n)"
        "  from unnest(proargtypes) with ordinality as given (oid, n))) as call, proname"
        " from pg_proc where pronamespace = 'job_queue'::regnamespace"
        " and prorettype <> 'trigger'::regtype"
        " and not proisstrict"  # of null they are null, and not called at all
    ).fetchall()
    calls = [row.call for row in others if row.proname not in INTENDED[role]]
    before = everything(db)
    for attempt in [*FORBIDDEN, *calls]:
        with pytest.raises(psycopg.Error) as raised:
            session.execute(attempt)
        if attempt.startswith("begin"):
            session.execute("rollback")
        # Some of what is not theirs is refused before anybody asks whose it is.
        assert raised.value.sqlstate in ("42501", "42939"), attempt
    assert everything(db) == before


SHADOWS = [
    "create temp table jobs (id uuid, status text, message text)",
    "create temp table claims (claim_id bigint)",
    "create temp table job_events (job_id uuid)",
    "create temp table queues (queue text, paused boolean)",
    "create function pg_temp.hijack() returns void language plpgsql as"
    " 'begin raise exception ''hijacked''; end'",
    "create function pg_temp.clock_timestamp() returns timestamptz language plpgsql as"
    " 'begin raise exception ''hijacked''; end'",
    "create function pg_temp.length(text) returns integer language plpgsql as"
    " 'begin raise exception ''hijacked''; end'",
    "create function pg_temp.equal(text, text) returns boolean language plpgsql as"
    " 'begin raise exception ''hijacked''; end'",
    "create operator pg_temp.= (leftarg = text, rightarg = text, function = pg_temp.equal)",
    "create function pg_temp.add(timestamptz, interval) returns timestamptz language plpgsql as"
    " 'begin raise exception ''hijacked''; end'",
    "create operator pg_temp.+ (leftarg = timestamptz, rightarg = interval,"
    " function = pg_temp.add)",
    "create function pg_temp.between_all(bigint, bigint) returns boolean language plpgsql as"
    " 'begin raise exception ''hijacked''; end'",
    "create operator pg_temp.>= (leftarg = bigint, rightarg = bigint,"
    " function = pg_temp.between_all)",
    "create domain pg_temp.uuid as text check (value = '')",
    "create domain pg_temp.interval as text check (value = '')",
    "create domain pg_temp.jsonb as text check (value = '')",
    "set search_path = pg_temp, pg_catalog, job_queue",
]


def test_what_a_member_puts_in_the_way_is_not_used(
    login: Callable[[str], Connection], db: Connection
) -> None:
    client, worker = login("job_queue_client"), login("job_queue_worker")
    for session in (client, worker):
        for statement in SHADOWS:
            session.execute(statement)
    job_id = value(
        client,
        "select job_queue.enqueue_job(p_message => 'hello', p_unique_key => 'key',"
        " p_delay => '0'::pg_catalog.interval)",
    )
    child_id = value(
        client, "select job_queue.enqueue_job(p_depends_on => array[%s::pg_catalog.uuid])", job_id
    )
    assert value(client, "select message from job_queue.get_job(%s)", job_id) == "hello"
    assert len(client.execute("select id from job_queue.list_jobs()").fetchall()) == 2
    held = one(worker, "select * from job_queue.claim_next_job('w')")
    assert held.id == job_id
    assert one(worker, "select * from job_queue.heartbeat(array[%s::int8])", held.claim_id).held
    worker.execute("select job_queue.complete_job(%s, %s)", [job_id, held.claim_id])
    worker.execute("select job_queue.run_maintenance()")
    assert value(client, "select job_queue.cancel_job(%s)", child_id) == "cancelled"
    actors = db.execute("select distinct actor from job_events order by actor").fetchall()
    assert [row.actor for row in actors] == [
        "job_queue_client_test_login",
        "job_queue_worker_test_login",
    ]
    for session in (client, worker):
        assert value(session, "select count(*) from pg_temp.jobs") == 0


INJECTION = "'); select set_config('hijacked.by', 'text', false); delete from job_queue.jobs; --"


@pytest.mark.parametrize("role", ["job_queue_client", "job_queue_worker", "job_queue_operator"])
def test_no_text_that_a_member_passes_is_executed(
    login: Callable[[str], Connection], db: Connection, role: str
) -> None:
    session = login(role)
    job_id = enqueue(db, message="kept")
    claim(db)
    texts: dict[str, list[Any]] = {
        "text": [INJECTION, "%s%I%L", '"; drop schema job_queue cascade; --'],
        "text[]": [[INJECTION]],
        "jsonb": [
            '{"paused": true, "\'); drop table job_queue.jobs; --": 1}',
            f'"{INJECTION}"',
            f'[{{"queue": "{INJECTION}", "unique_key": "{INJECTION}"}}]',
        ],
    }
    for function, types in call_of_each_granted_function(db, role):
        for position, kind in enumerate(types):
            for text in texts.get(kind, []):
                call = sql.SQL("select job_queue.{}({})").format(
                    sql.Identifier(function),
                    sql.SQL(", ").join(
                        sql.SQL("%s::" + other) if at == position else sql.SQL("null::" + other)
                        for at, other in enumerate(types)
                    ),
                )
                try:
                    session.execute(call, [text])
                except psycopg.Error as error:
                    # Refused by us, or by a type that cannot be read from it; never a syntax error.
                    assert str(error.sqlstate)[:2] in ("JQ", "22"), (function, text)  # noqa: PT017
                assert value(session, "select current_setting('hijacked.by', true)") is None
    assert value(db, "select message from jobs where id = %s", job_id) == "kept"


HOSTILE = """'); select set_config('hijacked.by', 'x', false); drop schema job_queue; --$$\\%s"/*"""


def test_each_function_takes_hostile_text_for_text_in_a_hostile_session(
    login: Callable[[str], Connection], db: Connection
) -> None:
    """Every function that anybody may execute is called here, with HOSTILE for all its texts."""
    sessions = {role: login(role) for role in INTENDED if role != "job_queue_test_nobody"}
    for session in sessions.values():
        for statement in SHADOWS:
            session.execute(statement)
    called = set()

    def call(role: str, function: str, /, **arguments: Any) -> list[Any]:
        called.add(function)
        query = sql.SQL("select * from job_queue.{}({})").format(
            sql.Identifier(function),
            sql.SQL(", ").join(
                sql.SQL("{} => {}").format(sql.Identifier(f"p_{name}"), sql.Placeholder(name))
                for name in arguments
            ),
        )
        session = sessions[f"job_queue_{role}"]
        rows = session.execute(query, arguments).fetchall()
        assert value(session, "select current_setting('hijacked.by', true)") is None
        return rows

    texts = {"job_type": HOSTILE, "queue": HOSTILE}
    job = texts | {"message": HOSTILE, "concurrency_key": HOSTILE, "payload": {HOSTILE: HOSTILE}}
    call("operator", "set_queue", queue=HOSTILE, policy='{"key_concurrency_limit": 9}')
    call("operator", "pause_queue", queue=HOSTILE)
    call("operator", "resume_queue", queue=HOSTILE)
    [key] = call("operator", "create_api_key", name=HOSTILE, scopes="{client}", queues=[HOSTILE])
    schedule = {"schedule": HOSTILE, "cron": "@hourly", "job": Jsonb(job)}
    call("operator", "set_schedule", **schedule)
    for verb in ("pause_schedule", "resume_schedule"):
        call("operator", verb, schedule=HOSTILE)
    call("worker", "start_listening", queues=[HOSTILE])

    given = job | {"unique_key": HOSTILE, "payload": Jsonb(job["payload"]), "max_attempts": 9}
    [(first,)] = call("client", "enqueue_job", **given)
    call("client", "enqueue_jobs", jobs=Jsonb([job, {"depends_on": [str(first)]} | job]))
    call("client", "enqueue_once", client=HOSTILE, idempotency_key=HOSTILE, jobs=Jsonb([job] * 9))
    choice = {"worker": HOSTILE, "queues": [HOSTILE], "job_types": [HOSTILE]}
    held = [
        *call("worker", "claim_next_job", **choice),
        *call("worker", "claim_jobs", limit=3, **choice),
        *call("worker", "complete_and_claim", runs="[]", limit=5, **choice),
    ]
    assert held[0].id == first
    assert len(held) == 9
    runs = [{"job_id": str(one.id), "claim_id": one.claim_id} for one in held]
    ids = [{"job_id": one.id, "claim_id": one.claim_id} for one in held]
    call("worker", "heartbeat", claim_ids=[one.claim_id for one in held])
    call("worker", "report_progress", **ids[0], progress=Jsonb({HOSTILE: HOSTILE}))
    assert call("client", "get_job", job_id=first)[0].progress == {HOSTILE: HOSTILE}
    call("worker", "fail_job", **ids[0], error=HOSTILE, retryable=False)
    call("worker", "fail_jobs", runs=Jsonb([runs[1] | {"error": HOSTILE, "retryable": False}]))
    call("worker", "complete_job", **ids[2], result=Jsonb({HOSTILE: HOSTILE}))
    call("worker", "complete_jobs", runs=Jsonb([runs[3] | {"result": {HOSTILE: HOSTILE}}]))
    call("worker", "snooze_job", **ids[4], delay="1 hour")
    call("worker", "release_job", **ids[5])
    call("worker", "release_jobs", runs=Jsonb([runs[6]]))
    for function in ("run_maintenance", "time_out_jobs", "reclaim_expired_claims", "prune_jobs"):
        call("operator", function)
    for function in ("fire_schedules", "check_health", "count_jobs", "count_events"):
        call("operator", function)
    call("worker", "stop_listening", queues=[HOSTILE])

    [read] = call("client", "get_job", job_id=first)
    assert {name: getattr(read, name) for name in job} == job
    assert read.unique_key == HOSTILE
    assert call("client", "job_history", job_id=first)[-1].detail == {"error": HOSTILE}
    found = {"statuses": "{failed}", "queues": [HOSTILE], "job_types": [HOSTILE]}
    [listed] = call("client", "list_jobs", **found, unique_key=HOSTILE, error=HOSTILE)
    assert listed.id == first
    dead = call("client", "list_dead_jobs", **texts, error=HOSTILE, within_queues=[HOSTILE])
    assert {one.id for one in dead} == {held[0].id, held[1].id}
    assert len(call("client", "list_events", queues=[HOSTILE], limit=10_000)) > 20
    call("client", "settled_events", after=0)
    call("client", "ended_jobs", job_ids=[first])
    call("client", "explain_job", job_id=held[5].id)
    [queue] = call("operator", "list_queues", queue=HOSTILE, within_queues=[HOSTILE])
    assert (queue.queue, queue.key_concurrency_limit) == (HOSTILE, 9)
    [listed] = call("operator", "list_schedules", schedule=HOSTILE)
    assert (listed.schedule, listed.job["queue"]) == (HOSTILE, HOSTILE)
    [listed] = call("operator", "list_api_keys", key_id=key.key_id)
    assert (listed.name, listed.queues) == (HOSTILE, [HOSTILE])
    call("operator", "next_tick", cron="@hourly", time_zone="UTC", after="2026-01-01")
    workers = sessions["job_queue_operator"].execute("select worker from job_queue.workers")
    assert HOSTILE in {one.worker for one in workers.fetchall()}

    retry = texts | {"error": HOSTILE, "within_queues": [HOSTILE]}
    call("operator", "retry_job", job_id=first)
    assert [one.id for one in call("operator", "retry_jobs", **retry)] == [held[1].id]
    assert call("client", "cancel_job", job_id=first) == [("cancelled",)]
    cancel = texts | {"unique_key": HOSTILE, "within_queues": [HOSTILE]}
    assert call("operator", "cancel_jobs", **cancel) == []
    call("operator", "delete_schedule", schedule=HOSTILE)
    call("operator", "revoke_api_key", key_id=key.key_id)
    with pytest.raises(psycopg.Error) as raised:
        call("client", "authorize", key_id=HOSTILE, key_hash=b"", function=HOSTILE)
    assert raised.value.sqlstate == "JQ008"
    assert called == set().union(*INTENDED.values())


def test_a_member_sees_no_other_session(login: Callable[[str], Connection], db: Connection) -> None:
    enqueue(db)
    client = login("job_queue_client")
    [other] = client.execute(
        "select query from pg_stat_activity where pid = %s", [db.info.backend_pid]
    ).fetchall()
    assert other.query == "<insufficient privilege>"


def test_roles_that_the_migrating_role_may_not_make_are_granted_their_functions_later(
    db: Connection,
) -> None:
    notices: list[str] = []
    db.add_notice_handler(lambda said: notices.append(said.message_primary or ""))
    executable = (
        "select proname from pg_proc where pronamespace = 'job_queue'::regnamespace"
        " and has_function_privilege('job_queue_test_client', oid, 'execute')"
    )
    with db.transaction(force_rollback=True):
        db.execute("create role job_queue_test_migrator")
        db.execute("alter schema job_queue owner to job_queue_test_migrator")
        # Another name for the role, since that of ours cannot be dropped: other databases use it.
        db.execute(
            "do $$ begin execute replace(pg_get_functiondef('grant_roles()'::regprocedure),"
            " 'job_queue_client', 'job_queue_test_client'); end $$"
        )
        db.execute(
            "do $$ declare v_object text; begin for v_object in"
            "  select 'function ' || oid::regprocedure from pg_proc"
            "   where pronamespace = 'job_queue'::regnamespace"
            "  union all select 'view ' || oid::regclass from pg_class"
            "   where relnamespace = 'job_queue'::regnamespace and relkind = 'v'"
            " loop execute format('alter %s owner to job_queue_test_migrator', v_object);"
            " end loop; end $$"
        )
        db.execute("set local role job_queue_test_migrator")
        db.execute("select grant_roles()")
        db.execute("reset role")
        assert notices == [
            "role job_queue_test_client does not exist, and job_queue_test_migrator may not make it"
        ]
        db.execute("create role job_queue_test_client")
        assert db.execute(executable).fetchall() == []
        db.execute("set local role job_queue_test_migrator")
        db.execute("select grant_roles()")
        granted = db.execute(executable).fetchall()
        assert {row.proname for row in granted} == INTENDED["job_queue_client"]
