"""The API's calls of the queue's functions. JSON is made in Postgres and passed through as text."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import psycopg
from psycopg_pool import AsyncConnectionPool

from api.settings import Settings

PAGE_SIZE = 1_000
"""Jobs read at once: long lists neither fill the memory nor hold a transaction open."""

FUNCTIONS = ["enqueue_job", "get_job", "list_jobs"]

_CREATED_JOB = """
  'id', job.id,
  'status', job.status,
  'sleep_seconds', job.sleep_seconds,
  'message', job.message,
  'result', job.result,
  'created_at', to_char(job.created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
"""

_JOB = f"""{_CREATED_JOB},
  'updated_at', to_char(job.updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
"""

_ENQUEUE_JOB = f"""
select job.id, json_build_object({_CREATED_JOB})::text
  from job_queue.enqueue_job(
         p_sleep_seconds => %(sleep_seconds)s,
         p_message => %(message)s
       ) as enqueued (id)
 cross join lateral job_queue.get_job(p_job_id => enqueued.id) as job
"""

_GET_JOB = f"""
select json_build_object({_JOB})::text
  from job_queue.get_job(p_job_id => %(job_id)s) as job
"""

_LIST_JOBS = f"""
select job.id, json_build_object({_JOB})::text
  from job_queue.list_jobs(p_limit => %(limit)s, p_after => %(after)s) as job
"""

_MISSING_FUNCTIONS = """
select name
  from unnest(%(names)s::text[]) as name
 where to_regproc('job_queue.' || name) is null
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
            max_size=10,
            timeout=self._timeout,
            open=False,
        )

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

    async def enqueue_job(self, sleep_seconds: int, message: str | None) -> tuple[UUID, str]:
        """Enqueue a job; return its id and its JSON."""
        [(job_id, body)] = await self._fetch(
            _ENQUEUE_JOB, {"sleep_seconds": sleep_seconds, "message": message}
        )
        return job_id, body

    async def get_job(self, job_id: UUID) -> str | None:
        """Return the job's JSON, or None if there is no such job."""
        rows = await self._fetch(_GET_JOB, {"job_id": job_id})
        return rows[0][0] if rows else None

    async def list_jobs(self) -> AsyncIterator[list[str]]:
        """Yield all jobs' JSON, newest first, a page at a time; the last page may be empty."""
        after: UUID | None = None
        while True:
            rows = await self._fetch(_LIST_JOBS, {"limit": PAGE_SIZE, "after": after})
            yield [body for _, body in rows]
            if len(rows) < PAGE_SIZE:
                return
            after = rows[-1][0]

    async def unavailable_because(self) -> str | None:
        """Return why the database cannot serve the API now, or None if it can.

        Asks over a connection of its own: the answer is the database's, not that of a busy pool.
        """
        try:
            async with (
                asyncio.timeout(self._health_timeout),
                await psycopg.AsyncConnection.connect(
                    self._conninfo, autocommit=True, application_name="job_queue health"
                ) as connection,
            ):
                cursor = await connection.execute(_MISSING_FUNCTIONS, {"names": FUNCTIONS})
                missing = [name for (name,) in await cursor.fetchall()]
        except TimeoutError:
            return f"the database did not answer within {self._health_timeout:g} s"
        except psycopg.Error as error:
            return " ".join(str(error).split())
        if missing:
            return f"the schema lacks {', '.join(missing)}: run `yoyo apply`"
        return None

    async def _fetch(self, query: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async with self._connection() as connection, asyncio.timeout(self._timeout):
            cursor = await connection.execute(query, parameters)
            return await cursor.fetchall()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Lend a connection, passing over those that a restart of the server has closed.

        The pool replaces what is handed back to it closed. Its own check parameter would wait after
        each closed connection, longer every time.
        """
        while True:
            async with self._pool.connection() as connection:
                if not _is_closed_by_server(connection):
                    yield connection
                    return


def _is_closed_by_server(connection: psycopg.AsyncConnection[Any]) -> bool:
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
