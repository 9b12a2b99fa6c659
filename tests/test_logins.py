"""Each service logs in with a role of its own, even where another role had migrated."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from database import logins
from database.local import migrate
from database.logins import MEMBERSHIPS, OWNER
from tests.conftest import Server
from tests.support import value

ROOT = Path(__file__).resolve().parent.parent
DATABASE = "job_queue_test_logins"
PASSWORDS = {"OWNER_PASSWORD": "o", "API_PASSWORD": "a", "WORKER_PASSWORD": "w"}


@pytest.fixture
def where(server: Server) -> Iterator[dict[str, Any]]:
    """A database that a superuser has migrated; the roles are gone afterwards."""
    address: dict[str, Any] = {"host": server.host, "port": server.port}
    superuser = {**address, "user": server.user, "password": server.password or ""}
    with psycopg.connect(
        make_conninfo(**superuser, dbname=server.maintenance_dbname), autocommit=True
    ) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
        migrate(make_conninfo(**superuser, dbname=DATABASE))
        yield superuser
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(DATABASE)))
        for role in MEMBERSHIPS:
            admin.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))


def run(where: dict[str, Any], *arguments: str, **environment: str) -> None:
    """Run a module on the database, as this user unless told otherwise."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "PGHOST": where["host"],
            "PGPORT": str(where["port"]),
            "PGUSER": where["user"],
            "PGPASSWORD": where["password"],
            "PGDATABASE": DATABASE,
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def connect(where: dict[str, Any], user: str, password: str) -> psycopg.Connection[Any]:
    """Log in to the database."""
    login = {**where, "user": user, "password": password, "dbname": DATABASE}
    return psycopg.connect(make_conninfo(**login), autocommit=True)


def test_the_owner_takes_over_what_a_superuser_has_migrated_and_the_services_do_their_part(
    where: dict[str, Any],
) -> None:
    for _ in range(2):  # the second time nothing is left to do
        run(where, "database.logins", **PASSWORDS)
    run(where, "yoyo", "rollback", "--all", PGUSER=OWNER, PGPASSWORD="o")
    run(where, "yoyo", "apply", PGUSER=OWNER, PGPASSWORD="o")

    with (
        connect(where, "job_queue_api", "a") as api,
        connect(where, "job_queue_workers", "w") as worker,
    ):
        for session in (api, worker):
            job_id = value(api, "select enqueue_job()")
            assert value(session, "select id from claim_next_job()") == job_id
            assert "pruned" in value(session, "select run_maintenance()")
        api.execute("select pause_queue('mail')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            worker.execute("select cancel_job(null)")
        for session in (api, worker):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("table job_queue.jobs")
    with connect(where, where["user"], where["password"]) as admin:
        secrets = "select rolpassword from pg_authid where rolname = any (%s)"
        for (secret,) in admin.execute(secrets, [list(MEMBERSHIPS)]).fetchall():
            assert secret.startswith("SCRAM-SHA-256$")


def test_nothing_that_others_put_in_public_runs_as_the_superuser_or_the_owner(
    where: dict[str, Any],
) -> None:
    run(where, "database.logins", **PASSWORDS)
    superuser = (where["user"], where["password"])
    with connect(where, *superuser) as admin:
        admin.execute("grant create on schema public to public")
    with connect(where, OWNER, "o") as owner:
        for types in ("text, text, regclass", "text, regprocedure", "text, regtype", "text"):
            owner.execute(
                f"create function public.format({types}) returns text language plpgsql as"
                " 'begin alter role job_queue_owner superuser; return ''select''; end'"
            )
    run(where, "database.logins", **PASSWORDS)
    with connect(where, *superuser) as admin:
        assert value(admin, "select rolsuper from pg_roles where rolname = %s", OWNER) is False
    with (
        connect(where, "job_queue_api", "a") as api,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        api.execute("create table public.mine ()")


def test_the_api_may_do_less_where_it_is_told_so(
    where: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(where, "database.logins", **PASSWORDS)
    run(where, "database.logins", **PASSWORDS, API_ROLES="client, worker")
    with connect(where, "job_queue_api", "a") as api:
        job_id = value(api, "select enqueue_job()")
        assert value(api, "select id from claim_next_job()") == job_id
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            api.execute("select pause_queue('mail')")
    run(where, "database.logins", **PASSWORDS, API_ROLES="")
    with connect(where, "job_queue_api", "a") as api:
        api.execute("select pause_queue('mail')")
    monkeypatch.setenv("API_ROLES", "client,admin")
    with pytest.raises(ValueError, match="API_ROLES: admin: not one of client, worker, operator"):
        logins.main()
