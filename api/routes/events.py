"""/events and /jobs/{job_id}/events: what happens, as it happens (server-sent events)."""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Annotated, Any
from uuid import UUID

import psycopg
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from api.access import Caller, CallerOf
from api.database import Concerns, Database
from api.errors import Problem
from api.models import Name
from api.routes.common import problems
from api.watch import TICK, Event, Follower

HEARTBEAT = 15.0
"""Seconds of silence after which a comment shows that the connection is alive."""
PAUSE = 1.0
"""Seconds after which a stream that the database has failed tries again."""
LONGEST_WAIT_TO_BEGIN = 1.0
"""Seconds that a stream waits for the transactions under way before it begins with what follows."""
LONGEST_STREAM = 600.0
"""Seconds after which the stream of a key ends: its client comes back if the key still holds."""

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

router = APIRouter(tags=["events"])

_JOB_FOLLOWED = """
select not exists (select from job_queue.ended_jobs(p_job_ids => array[%(job_id)s]))
       or exists (
         select
           from job_queue.list_events(
                  p_after => %(after)s,
                  p_limit => 1,
                  p_job_id => %(job_id)s
                )
       )
  from job_queue.get_job(p_job_id => %(job_id)s)
"""

_EVENTS_FOLLOWED = """
select allowed.queues, settled.until
  from job_queue.settled_events(p_after => null) as settled
"""

_NEXT_TRANSACTION = "select pg_current_xact_id()::text::bigint"
_ALL_ENDED_BEFORE = "select pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= %(xid)s"


async def _last_event_id(
    last_event_id: Annotated[
        int | None,
        Header(
            alias="Last-Event-ID",
            ge=0,
            le=2**63 - 1,
            description="The last event that was received: what follows it is sent.",
        ),
    ] = None,
    first_last_event_id: Annotated[
        int | None,
        Query(
            alias="last_event_id",
            ge=0,
            le=2**63 - 1,
            description="The same, where the header cannot be set; it holds if that is missing.",
        ),
    ] = None,
) -> int | None:
    return first_last_event_id if last_event_id is None else last_event_id


LastEventId = Annotated[int | None, Depends(_last_event_id)]

_STREAM: dict[str, Any] = {
    "description": "Server-sent events. `id` is the event's, `event` what was done (enqueue, "
    "claim, complete and so on), and `data` a JSON object with event_id, job_id, queue, at, verb, "
    "from_status, to_status, claim_id, actor, detail and attempt.",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


@router.get(
    "/events",
    operation_id="streamEvents",
    response_class=Response,
    responses={200: _STREAM, **problems()},
)
async def events(
    request: Request,
    caller: CallerOf,
    last_event_id: LastEventId,
    queue: Annotated[list[Name] | None, Query(description="Only jobs of these queues.")] = None,
) -> Response:
    """Send what happens to all jobs, from now on or after the Last-Event-ID, in the order of ids.

    An event is sent once none with a lower id can follow: one that a long transaction has written
    keeps those after it back.
    """
    [(queues, after)] = await caller.call(
        "list_events", _EVENTS_FOLLOWED, concerns=Concerns(queues=queue)
    )
    if last_event_id is None:
        await _let_transactions_end(caller.database)
    else:
        after = last_event_id
    return _stream(request.app.state.watcher.follow_events(after, queues), caller)


@router.get(
    "/jobs/{job_id}/events",
    operation_id="streamJobEvents",
    response_class=Response,
    responses={
        200: _STREAM,
        204: {"description": "The job has ended, and nothing follows: do not ask again."},
        **problems(404),
    },
)
async def job_events(
    job_id: UUID, request: Request, caller: CallerOf, last_event_id: LastEventId
) -> Response:
    """Send all that has happened to a job, or after the Last-Event-ID, until it has ended.

    Events named `progress`, without an id, tell what its worker reports meanwhile.
    """
    after = last_event_id or 0
    rows = await caller.call(
        "list_events",
        _JOB_FOLLOWED,
        {"job_id": job_id, "after": after},
        Concerns(job_ids=[job_id]),
    )
    if not rows:
        raise Problem("not-found", f"job {job_id} does not exist")
    if not rows[0][0]:
        return Response(status_code=204)
    return _stream(request.app.state.watcher.follow_job(job_id, after), caller)


async def _let_transactions_end(database: Database) -> None:
    """Wait for those that may have written an event, with a number below those seen, already.

    What they do is then to be seen by whoever looks once the stream has begun, or follows in it.
    """
    [(xid,)] = await database.fetch(_NEXT_TRANSACTION, {})
    ends_at = time.monotonic() + LONGEST_WAIT_TO_BEGIN
    while time.monotonic() < ends_at:
        [(have_ended,)] = await database.fetch(_ALL_ENDED_BEFORE, {"xid": xid})
        if have_ended:
            return
        await asyncio.sleep(TICK)


def _stream(following: AbstractContextManager[Follower], caller: Caller) -> Response:
    seconds = LONGEST_STREAM if caller.key else math.inf
    return EventSourceResponse(_messages(following, seconds), headers=_HEADERS)


async def _messages(
    following: AbstractContextManager[Follower], seconds: float
) -> AsyncIterator[bytes]:
    ends_at = time.monotonic() + seconds
    with following as follower:
        while not follower.is_over and time.monotonic() < ends_at:
            yield await _next_messages(follower)


async def _next_messages(follower: Follower) -> bytes:
    """Return what happens next, or a comment. Streams outlast that the database is away."""
    try:
        async with asyncio.timeout(HEARTBEAT):
            events = await follower.read()
    except TimeoutError:
        return KEEPALIVE_COMMENT
    except psycopg.Error:
        await asyncio.sleep(PAUSE)
        return KEEPALIVE_COMMENT
    return b"".join(map(_message, events))


def _message(event: Event) -> bytes:
    event_id = None if event.event_id is None else str(event.event_id)
    return format_sse_event(id=event_id, event=event.verb, data_str=event.body)
