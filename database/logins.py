"""Give each service a database login of its own, with no right that it does not need.

    python -m database.logins

Connects as a superuser, by libpq's PG* variables, and makes, or brings up to date, the role that
owns the database and applies the migrations, and the logins of the API and of the workers, and lets
nobody but the owner create anything in the schema public, as PostgreSQL 15 does. Their
passwords are OWNER_PASSWORD, API_PASSWORD and WORKER_PASSWORD.

API_ROLES says what the API may do for its clients, whatever their keys: by default
client,worker,operator. With less, the routes that need the rest answer 403.
"""

import os
from typing import Any

import psycopg
from psycopg import sql

OWNER = "job_queue_owner"

GROUPS = {
    "client": "job_queue_client",
    "worker": "job_queue_worker",
    "operator": "job_queue_operator",
}
"""The group roles, by the names that API_ROLES has for them."""

MEMBERSHIPS = {
    OWNER: ["pg_read_all_stats"],
    "job_queue_api": [*GROUPS.values()],
    "job_queue_workers": ["job_queue_worker"],
}
"""Each login, and the roles that it is a member of, unless API_ROLES says less."""

PASSWORDS = {
    OWNER: "OWNER_PASSWORD",
    "job_queue_api": "API_PASSWORD",
    "job_queue_workers": "WORKER_PASSWORD",
}

ADOPT = """
do $$
declare
  v_statement text;
begin
  for v_statement in
    select format('alter schema job_queue owner to job_queue_owner')
      from pg_namespace
     where nspname = 'job_queue'
    union all
    select format(
             'alter %s %s owner to job_queue_owner',
             case relkind when 'v' then 'view' when 'S' then 'sequence' else 'table' end,
             oid::regclass)
      from pg_class
     where relkind in ('r', 'v', 'S')
       and (relnamespace = to_regnamespace('job_queue')
            or relnamespace = to_regnamespace('public') and relname like '%yoyo%')
       and not exists (
         select
           from pg_depend
          where pg_depend.objid = pg_class.oid
            and deptype in ('a', 'i')
            and refclassid = 'pg_class'::regclass)
    union all
    select format('alter function %s owner to job_queue_owner', oid::regprocedure)
      from pg_proc
     where pronamespace = to_regnamespace('job_queue')
    union all
    select format('alter type %s owner to job_queue_owner', pg_type.oid::regtype)
      from pg_type
      join pg_class on pg_class.oid = typrelid
     where typnamespace = to_regnamespace('job_queue')
       and relkind = 'c'
  loop
    execute v_statement;
  end loop;
end
$$
"""
"""Make over what a migration run as another role has left behind."""


def _verifier(connection: psycopg.Connection[Any], login: str) -> str:
    """Return what the server may know, and log, of the password (SCRAM-SHA-256, RFC 5803)."""
    password = os.environ[PASSWORDS[login]]
    return connection.pgconn.encrypt_password(
        password.encode(), login.encode(), b"scram-sha-256"
    ).decode()


def _memberships() -> dict[str, list[str]]:
    """Return the memberships as API_ROLES has them; raise ValueError if it names no such role."""
    names = [name.strip() for name in os.environ.get("API_ROLES", "").split(",") if name.strip()]
    if unknown := set(names) - set(GROUPS):
        raise ValueError(f"API_ROLES: {', '.join(sorted(unknown))}: not one of {', '.join(GROUPS)}")
    return MEMBERSHIPS | ({"job_queue_api": [GROUPS[name] for name in names]} if names else {})


def main() -> None:
    """Make the roles; raise psycopg.Error if that may not be."""
    memberships = _memberships()
    with psycopg.connect() as connection:
        # A superuser runs nothing that others have put where it would be found.
        connection.execute("set search_path = pg_catalog, pg_temp")
        connection.execute("revoke create on schema public from public")
        for role in [*GROUPS.values(), *memberships]:
            known = connection.execute("select to_regrole(%s)", [role]).fetchone()
            if known == (None,):
                connection.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
        for login, groups in memberships.items():
            connection.execute(
                sql.SQL("alter role {} login password {}").format(
                    sql.Identifier(login), sql.Literal(_verifier(connection, login))
                )
            )
            for group in groups:
                connection.execute(
                    sql.SQL("grant {} to {}").format(sql.Identifier(group), sql.Identifier(login))
                )
            for group in set(MEMBERSHIPS[login]) - set(groups):
                connection.execute(
                    sql.SQL("revoke {} from {}").format(
                        sql.Identifier(group), sql.Identifier(login)
                    )
                )
        connection.execute(
            sql.SQL("alter database {} owner to {}").format(
                sql.Identifier(connection.info.dbname), sql.Identifier(OWNER)
            )
        )
        connection.execute(ADOPT)


if __name__ == "__main__":
    main()
