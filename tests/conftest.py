"""A PostgreSQL for the tests, and a fresh, migrated database in it for each test."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import namedtuple_row
from pytest_postgresql import factories

from database.local import migrate
from tests.support import Connection, embedded_server


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
