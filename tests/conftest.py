"""A PostgreSQL for the tests, and a fresh, migrated database in it for each test."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import namedtuple_row
from pytest_postgresql import factories

from database.local import migrate, programs
from tests.support import Connection, embedded_server, value

ROOT = Path(__file__).resolve().parent.parent
SCHEMA_FILES = sorted((ROOT / "database" / "schema").glob("*.sql"))

OWNER = "job_queue_test_owner"
"""Of the databases that a test makes itself: no superuser."""


@dataclass(frozen=True)
class Server:
    """Where the tests make their databases, in the words of pytest-postgresql."""

    host: str
    port: int
    user: str
    password: str | None
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: None = None


class Database:
    """An empty database, owned by a role that is no superuser."""

    def __init__(self, server: Server, name: str) -> None:
        self._server = server
        self.name = name
        self.environment = {
            **os.environ,
            "PGHOST": server.host,
            "PGPORT": str(server.port),
            "PGUSER": OWNER,
            "PGPASSWORD": OWNER,
            "PGDATABASE": name,
        }
        self.url = (
            f"postgresql+psycopg://{OWNER}:{OWNER}@/{name}"
            f"?host={quote(server.host, safe='')}&port={server.port}"
        )

    def connect(self, user: str = OWNER) -> Connection:
        return psycopg.connect(
            make_conninfo(
                host=self._server.host,
                port=self._server.port,
                user=user,
                password=user if user != self._server.user else self._server.password,
                dbname=self.name,
            ),
            autocommit=True,
        )

    def yoyo(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "yoyo", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def load_schema_files(self) -> None:
        with self.connect() as connection:
            for path in SCHEMA_FILES:
                connection.execute(path.read_text())

    def dump(self) -> str:
        """Return what pg_dump says of everything that is not yoyo's own."""
        command = [f"{programs()}/pg_dump", "--schema-only", "--exclude-table=*yoyo*"]
        dump = subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True
        )
        # Two lines with a random word, and a counter of the server's own that newer minor releases
        # keep with each column and an older pg_dump takes for an option.
        noise = r"^(\\(un)?restrict .*|ALTER TABLE .* SET \(pg_attver=\d+\);)\n+"
        return re.sub(noise, "", dump.stdout, flags=re.M)

    @property
    def search_path(self) -> Any:
        with self.connect() as connection:
            return value(connection, "show search_path")


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The server that TEST_DATABASE_URL names, or else an embedded one."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield _address(url)
    else:
        with embedded_server() as embedded:
            yield _address(embedded.get_uri())


def _address(url: str) -> Server:
    with psycopg.connect(url) as connection:
        info = connection.info
        return Server(info.host, info.port, info.user, info.password or None)


def _migrate(host: str, port: int, user: str, dbname: str, password: str | None, **_: Any) -> None:
    migrate(make_conninfo(host=host, port=port, user=user, dbname=dbname, password=password))


migrated_template = factories.postgresql_noproc(
    depends_on="server", dbname="job_queue_test", load=[_migrate]
)
fresh_database = factories.postgresql("migrated_template")


@pytest.fixture
def conninfo(fresh_database: Connection) -> str:
    """Where this test's database is."""
    info = fresh_database.info
    return make_conninfo(
        host=info.host,
        port=info.port,
        user=info.user,
        dbname=info.dbname,
        password=info.password or None,
    )


@pytest.fixture
def connect(conninfo: str) -> Iterator[Callable[[], Connection]]:
    """Open connections to this test's database, in autocommit mode, as a psql session would be."""
    connections: list[Connection] = []

    def open_another() -> Connection:
        connection = psycopg.connect(conninfo, autocommit=True, row_factory=namedtuple_row)
        connection.execute("set search_path = public, job_queue")
        connections.append(connection)
        return connection

    yield open_another
    for connection in connections:
        connection.close()


@pytest.fixture
def db(connect: Callable[[], Connection]) -> Connection:
    """One such connection."""
    return connect()


@pytest.fixture
def new_database(server: Server) -> Iterator[Callable[[str], Database]]:
    """Make databases for one test."""
    names: list[str] = []
    with psycopg.connect(
        make_conninfo(
            host=server.host,
            port=server.port,
            user=server.user,
            password=server.password,
            dbname=server.maintenance_dbname,
        ),
        autocommit=True,
    ) as admin:
        admin.execute(f"drop role if exists {OWNER}")
        admin.execute(f"create role {OWNER} login password '{OWNER}'")

        def create(name: str) -> Database:
            names.append(name)
            admin.execute(
                sql.SQL("create database {} owner {}").format(
                    sql.Identifier(name), sql.Identifier(OWNER)
                )
            )
            return Database(server, name)

        yield create
        for name in names:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
        admin.execute(f"drop role {OWNER}")
