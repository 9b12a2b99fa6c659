"""Where workers wait that ask for jobs over HTTP: in line, the first to come first.

Those that would take the same jobs wait in one line. A task claims for the first of them when
Postgres says that there is work, and now and then in case it has not said so: a thousand workers
that wait cost no more than one.
"""

import asyncio
import hashlib
import json
import logging
import math
import random
from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import psycopg

from api.database import Database, Rows
from api.presence import first_of
from api.session import OUTAGE, Session
from api.settings import Settings

logger = logging.getLogger(__name__)

POLL = 1.5
"""Seconds, on average, after which a line looks for a job of which nobody told."""

_START_LISTENING = "select job_queue.start_listening(p_queues => %(queues)s::text[])"
_STOP_LISTENING = "select job_queue.stop_listening(p_queues => %(queues)s::text[])"
_BACKEND = "select pg_backend_pid()"
_RELEASE = "select job_queue.release_jobs(p_runs => %(runs)s::jsonb)"


@dataclass(eq=False)
class _Worker:
    """Somebody who waits for jobs."""

    parameters: Mapping[str, Any]
    answer: "asyncio.Future[Rows]"


class _Line:
    """Those who wait for the same jobs, the first to come first."""

    def __init__(self, queues: list[str] | None) -> None:
        self.queues = queues
        self.channels = {_channel(queue) for queue in queues} if queues else {_channel(None)}
        self.workers: deque[_Worker] = deque()
        self.woken = asyncio.Event()


def _channel(queue: str | None) -> str:
    """Return where Postgres says that the queue, or any, has work (see "Waking")."""
    if queue is None:
        return "job_queue"
    return "job_queue_" + hashlib.md5(queue.encode(), usedforsecurity=False).hexdigest()


class Lines:
    """The lines of this process.

    query claims jobs with the parameters that a worker brings; its first two columns are the id of
    the job and that of the claim.
    """

    def __init__(
        self, settings: Settings, database: Database, stopping: asyncio.Event, query: str
    ) -> None:
        self._settings = settings
        self._database = database
        self._stopping = stopping
        self._query = query
        self._listener = _Listener(settings)
        self._lines: dict[Hashable, _Line] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listening = asyncio.create_task(self._listener.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._tasks:  # nobody waits any more, but something may be to be released
            await asyncio.wait(self._tasks, timeout=self._settings.database_timeout)
        for task in (self._listening, *self._tasks):
            task.cancel()
        await asyncio.gather(self._listening, *self._tasks, return_exceptions=True)
        await self._listener.close()

    def has_line(self, name: Hashable) -> bool:
        """Tell whether somebody waits in this line."""
        return name in self._lines

    async def wait(
        self,
        name: Hashable,
        queues: list[str] | None,
        parameters: Mapping[str, Any],
        seconds: float,
        departure: asyncio.Task[None],
    ) -> Rows:
        """Wait in the line of this name for jobs of these queues, and return what was claimed.

        Nothing, if there was nothing until the time was up, the client had gone or the process was
        to stop.
        """
        worker = _Worker(parameters, asyncio.get_running_loop().create_future())
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line(queues)
            task = asyncio.create_task(self._serve(name, line))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        line.workers.append(worker)
        try:
            await first_of(seconds, worker.answer, departure, self._stopping.wait())
            return worker.answer.result() if worker.answer.done() else []
        finally:
            worker.answer.cancel()
            if worker in line.workers:
                line.workers.remove(worker)
                line.woken.set()

    async def release(self, rows: Rows) -> None:
        """Hand jobs back that nobody has been told of."""
        runs = [{"job_id": str(job_id), "claim_id": claim_id} for job_id, claim_id, *_ in rows]
        try:
            await self._database.fetch(_RELEASE, {"runs": json.dumps(runs)})
        except OUTAGE as error:
            logger.warning("%d jobs wait for the end of their leases: %s", len(runs), error)

    async def _serve(self, name: Hashable, line: _Line) -> None:
        self._listener.add(line)
        try:
            while line.workers:
                await first_of(POLL * random.uniform(0.7, 1.3), line.woken.wait())
                line.woken.clear()
                while line.workers and await self._serve_first_of(line):
                    pass
        finally:
            self._listener.remove(line)
            del self._lines[name]

    async def _serve_first_of(self, line: _Line) -> bool:
        """Claim for the first worker; return whether there may be more."""
        worker = line.workers[0]
        try:
            rows = await self._database.fetch(self._query, worker.parameters)
        except OUTAGE as error:
            logger.warning("nothing can be claimed: %s", " ".join(str(error).split()) or "timeout")
            return False
        if rows and worker.answer.done():
            await self.release(rows)
        elif rows:
            line.workers.popleft()
            worker.answer.set_result(rows)
        return bool(rows)


class _Listener:
    """One connection over which Postgres says that there is work, to all lines."""

    def __init__(self, settings: Settings) -> None:
        self._session = Session(settings, "job_queue api listener")
        self._lines: set[_Line] = set()
        self._heard: set[_Line] = set()
        """The lines whose queues are listened to."""
        self._changed = asyncio.Event()
        self._connection: psycopg.AsyncConnection[Any] | None = None

    def add(self, line: _Line) -> None:
        """Listen to the queues of this line from now on."""
        self._lines.add(line)
        self._changed.set()

    def remove(self, line: _Line) -> None:
        """Listen to them no more."""
        self._lines.discard(line)
        self._changed.set()

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def run(self) -> None:
        """Listen to what the lines wait for. They poll while that is not possible."""
        while True:
            self._changed.clear()
            try:
                if (self._lines or self._heard) and not await self._listen():
                    logger.info("not listening: a pooler lends a session for one transaction only")
                    await self._session.close()
                    return
                await self._wait()
            except OUTAGE as error:
                if self._connection is not None:
                    self._connection = None
                    logger.warning("not listening: %s", " ".join(str(error).split()) or "timeout")
                await self._session.close()
                await asyncio.sleep(self._session.next_delay())

    async def _listen(self) -> bool:
        """Start and stop what is to be started and stopped; return whether that is possible."""
        connection = await self._session.open()
        if connection is not self._connection:
            self._heard.clear()
            self._connection = connection
            connection.add_notify_handler(lambda notification: self._wake(notification.channel))
            [(pid,)] = await self._session.fetch(_BACKEND, {})
            if pid != connection.info.backend_pid:
                return False
        for line in self._heard - self._lines:
            await self._session.fetch(_STOP_LISTENING, {"queues": line.queues})
            self._heard.discard(line)
        for line in self._lines - self._heard:
            [(started,)] = await self._session.fetch(_START_LISTENING, {"queues": line.queues})
            if started:
                self._heard.add(line)
                line.woken.set()  # a job may have come before
        while notification := connection.pgconn.notifies():
            self._wake(notification.relname.decode())
        return True

    async def _wait(self) -> None:
        """Wait until there is something to read, or to start or stop."""
        if not self._heard:
            await first_of(POLL if self._lines else math.inf, self._changed.wait())
            return
        assert self._connection is not None
        loop = asyncio.get_running_loop()
        descriptor = self._connection.fileno()
        loop.add_reader(descriptor, self._changed.set)
        try:
            # Whoever would have had to wait in order to start listening tries again.
            await first_of(POLL, self._changed.wait())
        finally:
            loop.remove_reader(descriptor)

    def _wake(self, channel: str) -> None:
        for line in self._heard:
            if channel in line.channels:
                line.woken.set()
