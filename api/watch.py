"""What happens to jobs, watched over one connection for all who wait for it.

Nobody who waits asks the database: one task asks for all, as often as it can without being a load,
and not at all while nobody waits. While the database is away, everybody just waits on.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from uuid import UUID

from fastapi import Request

from api.database import Database, Rows
from api.presence import departure_of, first_of
from api.session import OUTAGE, Session
from api.settings import Settings

logger = logging.getLogger(__name__)

TICK = 0.05
"""Seconds between two looks."""
PATIENCE = 4
"""How many times as long as a look took the pause after it is at least: a load of a fifth."""
SHORTEST_PAUSE = 0.01
"""Seconds after a look, even if somebody new waits."""
PROGRESS_TICK = 1.0
"""Seconds between two looks at the progress of runs."""
MAX_IDS = 10_000
"""Jobs that are asked for in one call."""
PAGE = 1_000
"""Events of all jobs that are read in one call."""
JOB_PAGE = 100
"""Events of one job that are read in one call."""
RECENT_EVENTS, RECENT_CHARACTERS = 2_000, 4_000_000
"""How much of what has happened is kept for those who cannot take it at once."""

_ENDED = "select job_queue.ended_jobs(p_job_ids => %(job_ids)s::uuid[])"

_EVENT = """event.event_id, event.queue, event.verb, json_build_object(
         'event_id', event.event_id,
         'job_id', event.job_id,
         'queue', event.queue,
         'at', to_char(event.at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
         'verb', event.verb,
         'from_status', event.from_status,
         'to_status', event.to_status,
         'claim_id', event.claim_id,
         'actor', event.actor,
         'detail', event.detail,
         'attempt', event.attempt)::text"""

# The events are read after it is known whether the job has ended: that event is among them.
_JOB_EVENTS = f"""
select followed.number,
       followed.job_id in (
         select ended from job_queue.ended_jobs(p_job_ids => %(job_ids)s::uuid[]) as ended
       ),
       {_EVENT}
  from unnest(%(job_ids)s::uuid[], %(afters)s::bigint[])
       with ordinality as followed (job_id, after, number)
  left join lateral job_queue.list_events(
         p_after => followed.after,
         p_limit => {JOB_PAGE},
         p_job_id => followed.job_id
       ) as event on true
 order by followed.number, event.event_id
"""

_PROGRESS = """
select job.id, json_build_object('worker', job.worker, 'progress', job.progress)::text
  from unnest(%(job_ids)s::uuid[]) as followed (job_id)
 cross join lateral job_queue.get_job(p_job_id => followed.job_id) as job
 where job.progress is not null
"""

_NEXT_EVENTS = f"""
select settled.until, settled.gap_until, settled.gap_xid, {_EVENT}
  from job_queue.settled_events(
         p_after => %(after)s::bigint,
         p_limit => {PAGE},
         p_gap_until => %(gap_until)s::bigint,
         p_gap_xid => %(gap_xid)s::bigint
       ) as settled
  left join lateral job_queue.list_events(
         p_after => coalesce(%(after)s, settled.until),
         p_limit => {PAGE},
         p_until => settled.until,
         p_queues => %(queues)s::text[]
       ) as event on true
 order by event.event_id
"""

Fetch = Callable[[str, Mapping[str, Any]], Awaitable[Rows]]


@dataclass(frozen=True)
class Event:
    """A line of the history. Without an id: the progress of a run, which is no part of it."""

    event_id: int | None
    queue: str | None
    verb: str
    body: str


class Follower:
    """Somebody who wants to be told what happens."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self.is_over = False
        """Whether nothing follows what has been read."""

    def notify(self) -> None:
        """Let a read look again."""
        self._changed.set()

    async def read(self) -> list[Event]:
        """Return what comes next, when it does; nothing once it is over. May be cancelled."""
        raise NotImplementedError


class JobFollower(Follower):
    """Somebody who follows one job, until it has ended."""

    def __init__(self, job_id: UUID, after: int) -> None:
        super().__init__()
        self.job_id = job_id
        self.after = after
        self.events: list[Event] = []
        self.has_ended = False
        self.progress: str | None = None
        self._progress_read: str | None = None

    async def read(self) -> list[Event]:
        """Return the next events of the job, or its progress if that has changed."""
        while True:
            events, self.events = self.events, []
            if self.progress != self._progress_read:
                self._progress_read = self.progress
                if self.progress is not None:
                    events.append(Event(None, None, "progress", self.progress))
            self.is_over |= self.has_ended
            if events or self.is_over:
                return events
            self._changed.clear()
            await self._changed.wait()


class EventReader:
    """Reads the events of all jobs in their order.

    Transactions commit in another order than that of their events, so an event is passed only once
    all before it are visible, or were rolled back.
    """

    def __init__(self, position: int | None = None) -> None:
        self.position = position
        """The last event that was passed. None: to begin with what happens after the first read."""
        self._gap: tuple[int | None, int | None] = (None, None)

    async def read(self, fetch: Fetch, queues: list[str] | None = None) -> list[Event]:
        """Return the next events; none if there are none as yet."""
        gap_until, gap_xid = self._gap
        rows = await fetch(
            _NEXT_EVENTS,
            {
                "after": self.position,
                "gap_until": gap_until,
                "gap_xid": gap_xid,
                "queues": queues,
            },
        )
        self.position, *gap = rows[0][:3]
        self._gap = (gap[0], gap[1])
        return [Event(*row[3:]) for row in rows if row[3] is not None]


class Tail:
    """The last events of all jobs, shared by all who follow them."""

    def __init__(self) -> None:
        self.reader = EventReader()
        self.since = 0
        """The events after this one, up to the reader's position, are all at hand."""
        self._events: deque[Event] = deque()
        self._characters = 0

    def add(self, events: list[Event]) -> None:
        """Note what has been read, and forget what is old."""
        for event in events:
            self._events.append(event)
            self._characters += len(event.body)
        while len(self._events) > RECENT_EVENTS or self._characters > RECENT_CHARACTERS:
            oldest = self._events.popleft()
            self._characters -= len(oldest.body)
            self.since = oldest.event_id or 0

    def after(self, event_id: int) -> list[Event]:
        """Return the events after this one."""
        newest_first = []
        for event in reversed(self._events):
            if event.event_id is None or event.event_id <= event_id:
                break
            newest_first.append(event)
        return newest_first[::-1]


class EventFollower(Follower):
    """Somebody who follows all jobs, or those of some queues.

    Whoever is slower than the events are, or begins with old ones, reads pages of their own until
    they have caught up: what happens is neither kept for them, nor lost.
    """

    def __init__(self, tail: Tail, after: int, queues: list[str] | None, fetch: Fetch) -> None:
        super().__init__()
        self._tail = tail
        self._after = after
        self._queues = queues
        self._fetch = fetch
        self._reader: EventReader | None = None

    @property
    def is_behind(self) -> bool:
        """Whether it reads for itself."""
        return self._reader is not None

    async def read(self) -> list[Event]:
        """Return the next events."""
        while not self.is_over:
            self._changed.clear()
            position = self._tail.reader.position
            if position is not None:
                before = self._after
                events = await self._next(position)
                if events:
                    return events
                if self._after != before:
                    continue
            await self._changed.wait()
        return []

    async def _next(self, position: int) -> list[Event]:
        if self._after >= self._tail.since:
            self._reader = None
            events = self._tail.after(self._after)
            self._after = max(self._after, position)
            return [e for e in events if self._queues is None or e.queue in self._queues]
        self._reader = self._reader or EventReader(self._after)
        events = await self._reader.read(self._fetch, self._queues)
        self._after = self._reader.position or 0
        return events


F = TypeVar("F", bound=Follower)


class Watcher:
    """Watches for all who wait in this process."""

    def __init__(self, settings: Settings, database: Database, stopping: asyncio.Event) -> None:
        self._database = database
        self._session = Session(settings, "job_queue api watcher")
        self._stopping = stopping
        self._turns = asyncio.Semaphore(max(1, settings.pool_size // 4))
        self._waiters: dict[UUID, set[asyncio.Event]] = {}
        self._followers: set[JobFollower] = set()
        self._event_followers: set[EventFollower] = set()
        self._tail = Tail()
        self._new_waiters: set[UUID] = set()
        self._new = asyncio.Event()
        self._progress_at = 0.0
        self._is_away = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._stop())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    @asynccontextmanager
    async def end_of(self, job_id: UUID, seconds: float, request: Request) -> AsyncIterator[None]:
        """Wait for the end of a job, and let the block read what came of it.

        When many jobs end at once, or many waited in vain, only some read at a time, so that
        all the others who use the database are not kept waiting.
        """
        await self.wait_for_end(job_id, seconds, request)
        async with self._turns:
            yield

    async def wait_for_end(self, job_id: UUID, seconds: float, request: Request) -> None:
        """Return when the job has ended or does not exist, the time is up, the client has gone or
        the process is to stop."""
        ended = asyncio.Event()
        self._waiters.setdefault(job_id, set()).add(ended)
        self._new_waiters.add(job_id)
        self._new.set()
        try:
            if not self._stopping.is_set():
                async with departure_of(request) as departure:
                    await first_of(seconds, ended.wait(), departure)
        finally:
            self._waiters[job_id].discard(ended)
            if not self._waiters[job_id]:
                del self._waiters[job_id]
                self._new_waiters.discard(job_id)

    @contextmanager
    def follow_job(self, job_id: UUID, after: int) -> Iterator[JobFollower]:
        """Follow a job, from the event after this one on."""
        with self._following(JobFollower(job_id, after), self._followers) as follower:
            yield follower

    @contextmanager
    def follow_events(self, after: int, queues: list[str] | None) -> Iterator[EventFollower]:
        """Follow all jobs, or those of some queues, from the event after this one on."""
        if not self._event_followers:
            self._tail = Tail()
        follower = EventFollower(self._tail, after, queues, self._fetch_in_turn)
        with self._following(follower, self._event_followers):
            yield follower

    async def _fetch_in_turn(self, query: str, parameters: Mapping[str, Any]) -> Rows:
        async with self._turns:
            return await self._database.fetch(query, parameters)

    @contextmanager
    def _following(self, follower: F, followers: set[F]) -> Iterator[F]:
        followers.add(follower)
        follower.is_over = self._stopping.is_set()
        self._new.set()
        try:
            yield follower
        finally:
            followers.discard(follower)

    async def _stop(self) -> None:
        """Once the process is to stop, let all who wait go."""
        await self._stopping.wait()
        for waiters in self._waiters.values():
            for ended in waiters:
                ended.set()
        for follower in (*self._followers, *self._event_followers):
            follower.is_over = True
            follower.notify()

    async def _watch(self) -> None:
        look_at = 0.0
        while True:
            if not (self._waiters or self._followers or self._event_followers):
                await self._new.wait()
            self._new.clear()
            started = time.monotonic()
            try:
                if started < look_at:
                    await self._look_for_ends(list(self._new_waiters))
                else:
                    await self._look()
                    look_at = time.monotonic() + self._pause(started)
            except Exception as error:
                self._report(error)
                await asyncio.sleep(self._session.next_delay())
                continue
            self._is_away = False
            await asyncio.sleep(SHORTEST_PAUSE)
            with suppress(TimeoutError):
                async with asyncio.timeout(look_at - time.monotonic()):
                    await self._new.wait()

    @staticmethod
    def _pause(started: float) -> float:
        return max(TICK, PATIENCE * (time.monotonic() - started))

    def _report(self, error: Exception) -> None:
        if not isinstance(error, OUTAGE):
            logger.exception("nothing can be watched")
        elif not self._is_away:
            logger.warning("nothing can be watched: %s", " ".join(str(error).split()) or "timeout")
        self._is_away = True

    async def _look(self) -> None:
        await self._look_for_ends(list(self._waiters))
        await self._look_for_job_events()
        if time.monotonic() >= self._progress_at:
            await self._look_for_progress()
            self._progress_at = time.monotonic() + PROGRESS_TICK
        await self._look_for_events()

    async def _look_for_ends(self, job_ids: list[UUID]) -> None:
        self._new_waiters -= set(job_ids)
        for first in range(0, len(job_ids), MAX_IDS):
            rows = await self._session.fetch(_ENDED, {"job_ids": job_ids[first : first + MAX_IDS]})
            for (job_id,) in rows:
                for ended in self._waiters.get(job_id, ()):
                    ended.set()

    async def _look_for_job_events(self) -> None:
        # Who has not yet taken what there is, is not given more.
        followers = [f for f in self._followers if not f.events and not f.has_ended]
        if not followers:
            return
        rows = await self._session.fetch(
            _JOB_EVENTS,
            {"job_ids": [f.job_id for f in followers], "afters": [f.after for f in followers]},
        )
        for number, has_ended, *event in rows:
            follower = followers[number - 1]
            if event[0] is not None:
                follower.events.append(Event(*event))
                follower.after = event[0]
            follower.has_ended = has_ended
        for follower in followers:
            if len(follower.events) == JOB_PAGE:
                follower.has_ended = False
            if follower.events or follower.has_ended:
                follower.notify()

    async def _look_for_progress(self) -> None:
        job_ids = list({follower.job_id for follower in self._followers})
        if not job_ids:
            return
        rows = await self._session.fetch(_PROGRESS, {"job_ids": job_ids})
        progress: dict[UUID, str] = dict(rows)
        for follower in self._followers:
            if follower.progress != progress.get(follower.job_id):
                follower.progress = progress.get(follower.job_id)
                follower.notify()

    async def _look_for_events(self) -> None:
        if not self._event_followers:
            return
        tail = self._tail
        position = tail.reader.position
        tail.add(await tail.reader.read(self._session.fetch))
        if position is None:
            tail.since = tail.reader.position or 0
        for follower in self._event_followers:
            if follower.is_behind or tail.reader.position != position:
                follower.notify()
