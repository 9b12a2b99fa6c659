"""The migrations lead to what schema/ describes, one by one, there and back."""

import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from yoyo import get_backend, read_migrations

from tests.conftest import ROOT, SCHEMA_FILES, Database, Server
from tests.support import value

MIGRATIONS = sorted(
    path
    for path in (ROOT / "database" / "migrations").glob("*.sql")
    if not path.name.endswith(".rollback.sql")
)


@pytest.fixture
def database(new_database: Callable[[str], Database]) -> Database:
    """One such database."""
    return new_database("job_queue_test_migrations")


def test_every_migration_but_the_first_depends_on_the_one_before() -> None:
    depends = [re.findall(r"^-- depends: (.*)$", path.read_text(), re.M) for path in MIGRATIONS]
    assert depends == [[], *([path.stem] for path in MIGRATIONS[:-1])]


def test_every_migration_has_a_rollback() -> None:
    for path in MIGRATIONS:
        assert path.with_suffix(".rollback.sql").read_text().strip()


def test_each_function_of_the_schema_stands_verbatim_in_a_migration() -> None:
    """Save that one which takes another's place is replaced, so that no call can miss it."""
    migrations = [
        path.read_text().replace("create or replace function", "create function")
        for path in MIGRATIONS
    ]
    for path in SCHEMA_FILES:
        for function in re.findall(r"^create function .*", path.read_text(), re.M | re.S):
            function = function.split("create trigger")[0]
            assert any(function in migration for migration in migrations), path.name


def test_migrations_lead_to_what_the_schema_files_describe(
    new_database: Callable[[str], Database],
) -> None:
    described, migrated = new_database("job_queue_test_a"), new_database("job_queue_test_b")
    described.load_schema_files()
    migrated.yoyo("apply")
    assert "CREATE FUNCTION job_queue.claim_next_job" in described.dump()
    assert migrated.dump() == described.dump()
    assert migrated.search_path == described.search_path


def test_each_migration_can_be_rolled_back_and_applied_again(database: Database) -> None:
    def state() -> tuple[str, Any]:
        return database.dump(), database.search_path

    migrations = read_migrations(str(ROOT / "database" / "migrations"))
    states = [state()]
    backend = get_backend(database.url)
    with closing(backend.connection), backend.lock():
        for migration in backend.to_apply(migrations):
            backend.apply_one(migration)
            states.append(state())
        for migration, before in zip(backend.to_rollback(migrations), states[-2::-1], strict=True):
            backend.rollback_one(migration)
            assert state() == before, migration.id
    database.yoyo("apply")
    assert state() == states[-1]


def test_migrations_apply_to_the_database_of_a_url(database: Database) -> None:
    for variable in ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"):
        database.environment.pop(variable)
    database.yoyo("apply", "--database", database.url)
    with database.connect() as connection:
        assert value(connection, "select enqueue_job(p_sleep_seconds => 2, p_message => 'hello')")
    database.yoyo("rollback", "--all", "--database", database.url)
    with database.connect() as connection:
        assert value(connection, "select to_regnamespace('job_queue')") is None


def test_functions_work_unqualified_in_a_new_session(database: Database) -> None:
    database.yoyo("apply")
    with database.connect() as connection:
        job_id = value(connection, "SELECT enqueue_job(p_sleep_seconds => 2, p_message => 'hello')")
        assert str(job_id) in str(value(connection, "SELECT claim_next_job()"))


@pytest.mark.parametrize(
    "search_path", ['"$user", public', "app", 'app, "Strange; Name", public', "''"]
)
def test_a_search_path_of_the_database_is_kept_and_given_back(
    database: Database, search_path: str
) -> None:
    with database.connect() as connection:
        connection.execute('create schema app; create schema "Strange; Name"')
        connection.execute(f"alter database {database.name} set search_path = {search_path}")
    before = database.search_path
    database.environment["PGOPTIONS"] = "-c search_path=public"  # for yoyo's own tables
    database.yoyo("apply")
    assert database.search_path == ("job_queue" if before == '""' else f"{before}, job_queue")
    database.yoyo("rollback", "--all")
    assert database.search_path == before


def test_a_role_that_does_not_own_the_database_migrates_without_touching_the_search_path(
    database: Database, server: Server
) -> None:
    with database.connect() as connection:
        connection.execute("grant create on schema public to public")
        connection.execute(f"grant create on database {database.name} to public")
        before = database.search_path
    with database.connect(server.user) as admin:
        admin.execute("create role job_queue_test_guest login password 'job_queue_test_guest'")
    try:
        database.environment.update(
            PGUSER="job_queue_test_guest", PGPASSWORD="job_queue_test_guest"
        )
        database.yoyo("apply")
        with database.connect("job_queue_test_guest") as connection:
            assert value(connection, "select job_queue.enqueue_job()")
        assert database.search_path == before
        database.yoyo("rollback", "--all")
    finally:
        with database.connect(server.user) as admin:
            admin.execute("drop owned by job_queue_test_guest; drop role job_queue_test_guest")
