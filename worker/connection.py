"""Connections that are reopened when they break, and that no call waits on for ever."""

import random
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
from psycopg import BaseConnection
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Format
from psycopg.rows import Row, TupleRow
from psycopg_pool import AsyncConnectionPool, ConnectionPool

CLAIM_DOES_NOT_HOLD = {"JQ002", "JQ003", "JQ004"}
NOT_MIGRATED = {"3F000", "42883"}
"""invalid_schema_name, undefined_function"""
UNUSABLE_VALUE = ("22", "54", "JQ001")
"""data_exception, program_limit_exceeded, and what our functions say of a wrong argument"""

CONNECTION_DEFAULTS = {
    "application_name": "job_queue worker",
    "connect_timeout": "5",
    # A server that vanishes without a word is noticed, also by connections of handlers.
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
}

LONGEST_CALL = 15.0
"""Seconds after which a call of the queue counts as lost, at most."""

FIRST_RETRY_DELAY = 0.1
LONGEST_RETRY_DELAY = 5.0
"""Seconds between attempts to reach a database that is away."""

LISTENING_NEEDS_A_SESSION = """
select pg_catalog.pg_backend_pid(),
       pg_catalog.set_config('statement_timeout', %(statement_timeout)s, false)
 where pg_catalog.pg_backend_pid() = %(pid)s
"""


class QueueUnavailable(Exception):
    """The database, or the schema in it, cannot be used now."""


class ClaimRefused(Exception):
    """The claim that a call named does not hold."""


class InvalidValue(Exception):
    """The database cannot store what it was given."""


def connection_arguments(conninfo: str) -> dict[str, Any]:
    """Return psycopg's arguments: what the conninfo says, and defaults for what it leaves out."""
    return {**CONNECTION_DEFAULTS, **conninfo_to_dict(conninfo), "client_encoding": "UTF8"}


class Backoff:
    """How long to wait for a database that is away: longer each time, and never quite the same."""

    def __init__(self) -> None:
        self._delay = FIRST_RETRY_DELAY

    def next_delay(self) -> float:
        """Return seconds."""
        delay = self._delay
        self._delay = min(delay * 2, LONGEST_RETRY_DELAY)
        return delay * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again with a short delay."""
        self._delay = FIRST_RETRY_DELAY


class TimedConnection(psycopg.Connection[Row]):
    """A connection whose calls give up after call_seconds, whatever the network does."""

    call_seconds: float | None = None
    is_changed = False
    """Whether a handler has had it, and may have left settings, a role or locks behind."""

    def wait(self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None) -> Any:
        """Do what psycopg does, but not for ever."""
        return super().wait(gen, interval, self.call_seconds if timeout is None else timeout)


class TimedAsyncConnection(psycopg.AsyncConnection[Row]):
    """The same for an event loop."""

    call_seconds: float | None = None
    is_changed = False

    async def wait(
        self, gen: PQGen[Any], interval: float = 0.1, timeout: float | None = None
    ) -> Any:
        """Do what psycopg does, but not for ever."""
        return await super().wait(gen, interval, self.call_seconds if timeout is None else timeout)


@contextmanager
def calls_of_the_queue(
    connection: TimedConnection[Any] | TimedAsyncConnection[Any],
) -> Iterator[None]:
    """Limit what is called in this block to LONGEST_CALL."""
    connection.call_seconds = LONGEST_CALL
    try:
        yield
    finally:
        connection.call_seconds = None


class _JsonbAsText(Loader):
    """Loads JSON as the text that it is. Its binary form begins with a byte for the version."""

    format = Format.BINARY

    def load(self, data: Buffer) -> str:
        return bytes(data[1:]).decode()


class Link:
    """One connection in autocommit mode. Each call is one transaction.

    A pooler in transaction mode is noticed: it hands each transaction to another session, so that
    nothing can be kept in one. Then nothing is prepared and `has_session` is false.
    """

    def __init__(
        self, conninfo: str, call_seconds: float, before_call: Callable[[], None] = lambda: None
    ) -> None:
        self._arguments = connection_arguments(conninfo)
        self._before_call = before_call
        self._call_seconds = call_seconds
        self._connection: TimedConnection[TupleRow] | None = None
        self.has_session = False
        self.is_listening = False
        """For the caller to set, of this session; false again once it has ended."""

    def call(self, query: str, parameters: Mapping[str, Any]) -> list[TupleRow]:
        """Execute the query and return its rows.

        Raises QueueUnavailable when it could not be known to succeed; ClaimRefused when the claim
        does not hold; InvalidValue for an argument that the database does not take.
        """
        self._before_call()
        try:
            # In binary, so that no DateStyle or IntervalStyle of the database's matters.
            return self._open().execute(query, parameters, binary=True).fetchall()
        except psycopg.Error as error:
            reason = " ".join((error.diag.message_primary or str(error)).split())
            sqlstate = error.sqlstate or ""
            if sqlstate in CLAIM_DOES_NOT_HOLD:
                raise ClaimRefused(reason) from None
            if sqlstate.startswith(UNUSABLE_VALUE) or isinstance(error, psycopg.DataError):
                raise InvalidValue(reason) from None
            self.close()
            if sqlstate in NOT_MIGRATED:
                reason += "; has `yoyo apply` been run?"
            raise QueueUnavailable(reason) from None

    def notified(self) -> bool:
        """Return whether a notification has come since this was last asked.

        Raises QueueUnavailable if the connection is broken.
        """
        if self._connection is None:
            return False
        try:
            return any([True for _ in self._connection.notifies(timeout=0)])
        except psycopg.Error as error:
            self.close()
            raise QueueUnavailable(" ".join(str(error).split())) from None

    @property
    def is_open(self) -> bool:
        """Whether the last call went well."""
        return self._connection is not None

    def fileno(self) -> int:
        """Return the socket, to wait for notifications. The connection must be open."""
        assert self._connection is not None
        return self._connection.fileno()

    def limit_calls(self, seconds: float) -> None:
        """Let calls, and attempts to connect, take so many seconds at most from now on."""
        self._call_seconds = min(self._call_seconds, seconds)
        if self._connection is not None:
            self._connection.call_seconds = self._call_seconds

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        self.has_session = False
        self.is_listening = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _open(self) -> TimedConnection[TupleRow]:
        if self._connection is not None:
            return self._connection
        longest = max(min(int(self._arguments["connect_timeout"]), int(self._call_seconds)), 2)
        connection = TimedConnection.connect(
            autocommit=True,
            **{**self._arguments, "connect_timeout": str(longest)},
        )
        try:
            connection.call_seconds = self._call_seconds
            connection.adapters.register_loader("jsonb", _JsonbAsText)  # handlers parse it
            # The server gives up first, so that a claim which nobody waits for is not made.
            self.has_session = bool(
                connection.execute(
                    LISTENING_NEEDS_A_SESSION,
                    {
                        "pid": connection.info.backend_pid,
                        "statement_timeout": f"{int(self._call_seconds * 900)}ms",
                    },
                ).fetchall()
            )
            if not self.has_session:
                connection.prepare_threshold = None
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection


HandlerPool = ConnectionPool[TimedConnection[TupleRow]]
AsyncHandlerPool = AsyncConnectionPool[TimedAsyncConnection[TupleRow]]


def _handler_arguments(conninfo: str) -> dict[str, Any]:
    """Return psycopg's arguments. Nothing is prepared, which a pooler might not bear."""
    return {**connection_arguments(conninfo), "autocommit": True, "prepare_threshold": None}


def _reset(connection: TimedConnection[TupleRow]) -> None:
    """Forget what a handler has set. The pool calls this beside the handlers, not before them."""
    if connection.is_changed:
        with calls_of_the_queue(connection):
            connection.execute("discard all")
        connection.is_changed = False


async def _reset_async(connection: TimedAsyncConnection[TupleRow]) -> None:
    """Do the same on the event loop."""
    if connection.is_changed:
        with calls_of_the_queue(connection):
            await connection.execute("discard all")
        connection.is_changed = False


def handler_pool(conninfo: str, size: int) -> HandlerPool:
    """Return connections for handlers that are plain functions, none of them opened yet."""
    return ConnectionPool(
        connection_class=TimedConnection[TupleRow],
        kwargs=_handler_arguments(conninfo),
        min_size=0,
        max_size=size,
        max_idle=60.0,
        reset=_reset,
        name="handlers",
        open=True,
    )


async def async_handler_pool(conninfo: str, size: int) -> AsyncHandlerPool:
    """Return connections for handlers on the running event loop, none of them opened yet."""
    pool = AsyncConnectionPool(
        connection_class=TimedAsyncConnection[TupleRow],
        kwargs=_handler_arguments(conninfo),
        min_size=0,
        max_size=size,
        max_idle=60.0,
        reset=_reset_async,
        name="async handlers",
        open=False,
    )
    await pool.open()
    return pool


@contextmanager
def lend(pool: HandlerPool) -> Iterator[TimedConnection[TupleRow]]:
    """Lend a connection, passing over those that a restart of the server has closed.

    The pool replaces what is handed back to it closed. Its own check parameter would wait after
    each closed connection, longer every time.
    """
    while True:
        with pool.connection() as connection:
            if not _is_closed_by_server(connection):
                yield connection
                return


@asynccontextmanager
async def lend_async(pool: AsyncHandlerPool) -> AsyncIterator[TimedAsyncConnection[TupleRow]]:
    """Do the same on the event loop."""
    while True:
        async with pool.connection() as connection:
            if not _is_closed_by_server(connection):
                yield connection
                return


def _is_closed_by_server(connection: BaseConnection[Any]) -> bool:
    """Tell whether the server has closed this idle connection, without asking it.

    A server that goes away leaves its farewell and the end of the stream on the socket, where
    nobody reads until the next use: the first call takes in the one, the second meets the other.
    """
    try:
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except psycopg.OperationalError:
        return True
    return False
