"""The API's calls of the queue's functions. JSON is made in Postgres and passed through as text."""

import asyncio
import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg_pool import AsyncConnectionPool

from api.settings import Settings

FUNCTIONS = ["enqueue_job", "get_job", "list_jobs", "authorize", "settled_events"]
"""Some without which the API cannot work: those of v1, and the last that were added."""

_MISSING_FUNCTIONS = f"""
select name
  from unnest('{{{", ".join(FUNCTIONS)}}}'::text[]) as name
 where to_regproc('job_queue.' || name) is null
"""

Rows = list[tuple[Any, ...]]

READING_MUCH = frozenset({"list_jobs", "list_dead_jobs", "queue_statistics"})
"""What may take long. It gets half of the connections at most: the rest never waits for it."""


@dataclass(frozen=True)
class Key:
    """An API key, as the database knows it."""

    key_id: str
    key_hash: bytes


@dataclass(frozen=True)
class Concerns:
    """What a call is about, where a key's restriction to some queues has a say."""

    queues: list[str] | None = None
    job_ids: list[Any] | None = None
    claim_ids: list[int] | None = None
    requests: int = 1
    """As how many requests it counts for the key's rate limit."""


@dataclass(frozen=True)
class RateLimit:
    """How the rate limit of a key stands, after the call."""

    limit: int
    period: float
    remaining: int
    reset: float


@dataclass(frozen=True)
class Answer:
    """The rows that a function returned, and the rate limit of the key that was used, if any."""

    rows: Rows
    rate_limit: RateLimit | None


NOTHING = Concerns()


@functools.cache
def _authorized(function: str, query: str) -> str:
    """Put the authorization before a query, so that both are one statement: one round trip.

    In the query, allowed.client is whose key it is, and allowed.queues the queues asked for or, if
    none were, those that the key is restricted to; null means all.
    """
    return f"""
select allowed.rate_limit,
       extract(epoch from allowed.rate_period)::float8,
       allowed.rate_remaining,
       extract(epoch from allowed.rate_reset)::float8,
       answer.*
  from job_queue.authorize(
         p_key_id => %(_key_id)s,
         p_key_hash => %(_key_hash)s,
         p_function => '{function}',
         p_queues => %(_queues)s::text[],
         p_job_ids => %(_job_ids)s::uuid[],
         p_claim_ids => %(_claim_ids)s::bigint[],
         p_requests => %(_requests)s
       ) as allowed
  left join lateral (select true as is_found, found.* from ({query}) as found) as answer on true
"""


class Database:
    """A pool of connections, each call one round trip and one transaction.

    Raises psycopg.Error, or TimeoutError when the database has not answered in time: then it is not
    known whether the call took effect.
    """

    def __init__(self, settings: Settings) -> None:
        self._conninfo = settings.conninfo
        self._timeout = settings.database_timeout
        self._health_timeout = settings.health_timeout
        self._pool = AsyncConnectionPool(
            self._conninfo,
            kwargs={"autocommit": True, "application_name": "job_queue api"},
            min_size=1,
            max_size=settings.pool_size,
            timeout=self._timeout,
            open=False,
        )
        self._reading_much = asyncio.Semaphore(max(1, settings.pool_size // 2))

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._pool.close()

    async def call(
        self,
        function: str,
        query: str,
        parameters: Mapping[str, Any],
        key: Key | None = None,
        concerns: Concerns = NOTHING,
    ) -> Answer:
        """Run a query that calls the function, for somebody who may, with this key, call that."""
        everything = {
            **parameters,
            "_key_id": key and key.key_id,
            "_key_hash": key and key.key_hash,
            "_queues": concerns.queues,
            "_job_ids": concerns.job_ids,
            "_claim_ids": concerns.claim_ids,
            "_requests": concerns.requests,
        }
        async with asyncio.timeout(2 * self._timeout):
            async with self._reading_much if function in READING_MUCH else nullcontext():
                rows = await self.fetch(_authorized(function, query), everything)
        limit = RateLimit(*rows[0][:4]) if rows[0][0] is not None else None
        return Answer([row[5:] for row in rows if row[4]], limit)

    async def fetch(self, query: str, parameters: Mapping[str, Any]) -> Rows:
        """Run a query of the API's own, for nobody in particular."""
        async with self._connection() as connection, asyncio.timeout(self._timeout):
            cursor = await connection.execute(query, parameters)
            return await cursor.fetchall()

    async def unavailable_because(self) -> str | None:
        """Return why the database cannot serve the API now, or None if it can.

        Asks over a connection of its own: the answer is the database's, not that of a busy pool.
        """
        try:
            [rows] = await self._fetch_apart(self._health_timeout, _MISSING_FUNCTIONS)
        except TimeoutError:
            return f"the database did not answer within {self._health_timeout:g} s"
        except psycopg.Error as error:
            return " ".join(str(error).split())
        missing = [name for (name,) in rows]
        if missing:
            return f"the schema lacks {', '.join(missing)}: run `yoyo apply`"
        return None

    async def fetch_apart(self, *queries: str) -> list[Rows]:
        """Run queries over a connection of their own, for who must not wait for a busy pool."""
        return await self._fetch_apart(self._timeout, *queries)

    async def _fetch_apart(self, timeout: float, *queries: str) -> list[Rows]:
        async with (
            asyncio.timeout(timeout),
            await psycopg.AsyncConnection.connect(
                self._conninfo, autocommit=True, application_name="job_queue health"
            ) as connection,
        ):
            return [await (await connection.execute(query)).fetchall() for query in queries]

    def pool_statistics(self) -> dict[str, int]:
        """Return how the pool stands, in the words of psycopg_pool."""
        return self._pool.get_stats()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Lend a connection, passing over those that a restart of the server has closed.

        The pool replaces what is handed back to it closed. Its own check parameter would wait after
        each closed connection, longer every time.
        """
        while True:
            async with self._pool.connection() as connection:
                if not is_closed_by_server(connection):
                    yield connection
                    return


def is_closed_by_server(connection: psycopg.AsyncConnection[Any]) -> bool:
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
