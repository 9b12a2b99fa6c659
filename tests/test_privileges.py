"""A login with nothing but the grants of database/README.md can do what they say, and no more."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support import Connection, claim, enqueue, value

README = Path(__file__).resolve().parent.parent / "database" / "README.md"
APP = "job_queue_test_app"
GRANTS = [
    f"{grant} to {APP}" for grant in re.findall(r"^(grant .*) to app;$", README.read_text(), re.M)
]


@pytest.fixture
def app(connect: Callable[[], Connection]) -> Iterator[Connection]:
    """A session of a role that has the documented grants and no others."""
    owner = connect()
    owner.execute(f"drop role if exists {APP}")
    owner.execute(f"create role {APP}")
    for grant in GRANTS:
        owner.execute(grant)
    session = connect()
    session.execute(f"set session authorization {APP}")
    yield session
    session.close()
    owner.execute(f"drop owned by {APP}; drop role {APP}")


def test_the_granted_functions_work(app: Connection, db: Connection) -> None:
    assert len(GRANTS) == 2
    job_id = enqueue(app, message="hello")
    assert value(app, "select message from get_job(%s)", job_id) == "hello"
    assert value(app, "select id from list_jobs()") == job_id
    assert value(db, "select actor from job_history(%s)", job_id) == APP


@pytest.mark.parametrize(
    "attempt",
    [
        "table jobs",
        "table claims",
        "table job_events",
        "insert into jobs (sleep_seconds) values (1)",
        "update jobs set status = 'succeeded'",
        "delete from jobs",
        "truncate jobs",
        "select nextval('reclaim_due')",
        "alter table jobs disable trigger all",
        "create function job_queue.mine() returns int language sql as 'select 1'",
        "select claim_next_job()",
        "select heartbeat('{1}')",
        "select reclaim_expired_claims()",
        "select time_out_jobs()",
        "select cancel_job(id) from list_jobs()",
        "select end_run('fail', id, 1) from list_jobs()",
        "select complete_job(id, 1) from list_jobs()",
    ],
)
def test_everything_else_is_refused(app: Connection, db: Connection, attempt: str) -> None:
    enqueue(db)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute(attempt)


def test_functions_and_tables_that_the_login_puts_in_the_way_are_not_used(
    app: Connection, db: Connection
) -> None:
    app.execute("create temp table jobs (id uuid, status text)")
    app.execute("create temp table job_events (job_id uuid)")
    app.execute(
        "create function pg_temp.clock_timestamp() returns timestamptz"
        " language plpgsql as 'begin raise exception ''hijacked''; end'"
    )
    app.execute(
        "create function pg_temp.length(text) returns integer"
        " language plpgsql as 'begin raise exception ''hijacked''; end'"
    )
    app.execute("set search_path = pg_temp, pg_catalog, job_queue")
    job_id = value(app, "select job_queue.enqueue_job(p_message => 'hello')")
    assert value(app, "select message from job_queue.get_job(%s)", job_id) == "hello"
    assert claim(db).id == job_id
    assert value(app, "select count(*) from pg_temp.jobs") == 0
