"""The group roles may execute what is meant for them, and nothing else, whatever they try."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

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
