"""A connection of the API's own, for what goes on beside the requests."""

import asyncio
import random
from collections.abc import Mapping
from typing import Any

import psycopg

from api.database import Rows, is_closed_by_server
from api.settings import Settings

OUTAGE = (psycopg.Error, TimeoutError)
"""What a call raises while the database, or the schema in it, cannot be used."""

FIRST_DELAY = 0.1
LONGEST_DELAY = 5.0
"""Seconds between attempts to reach a database that is away."""


class Session:
    """One connection in autocommit mode, opened by the first call and by the one after a failure.

    One task uses it at a time.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._delay = FIRST_DELAY
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def open(self) -> psycopg.AsyncConnection[Any]:
        """Return the connection: a new one if there is none, or if the server has closed it."""
        if self._connection is not None and is_closed_by_server(self._connection):
            await self.close()
        if self._connection is None:
            async with asyncio.timeout(self._settings.database_timeout):
                self._connection = await psycopg.AsyncConnection.connect(
                    self._settings.conninfo, autocommit=True, application_name=self._name
                )
        return self._connection

    async def fetch(self, query: str, parameters: Mapping[str, Any]) -> Rows:
        """Return the rows of a query. Whatever it raises, the connection is closed."""
        try:
            connection = await self.open()
            async with asyncio.timeout(self._settings.database_timeout):
                cursor = await connection.execute(query, parameters)
                rows = await cursor.fetchall()
        except BaseException:
            await self.close()
            raise
        self._delay = FIRST_DELAY
        return rows

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def next_delay(self) -> float:
        """Return how many seconds to wait after a failure: longer each time, never quite as long
        as others wait."""
        delay = self._delay
        self._delay = min(delay * 2, LONGEST_DELAY)
        return delay * random.uniform(0.5, 1.0)
