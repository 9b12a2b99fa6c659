"""/queues and /statistics: the policies of queues, and how the queues fare."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel, Field

from api.access import Caller, CallerOf
from api.database import Concerns
from api.models import MICROSECONDS, WHOLE, YEAR, Count, Request, Seconds
from api.routes.common import JsonResponse, JsonRoute, json_array, problems
from api.routes.names import PathName

MILLENNIUM = 1000 * YEAR
"""Seconds: for good."""

router = APIRouter(route_class=JsonRoute, tags=["queues"])


def _seconds(interval: str, most: int = YEAR) -> str:
    """Write SQL for an interval in seconds, no more than may be sent: '1 year' has 365.25 days."""
    seconds = f"extract(epoch from {interval})::float8"
    return f"case when {seconds} > {most} then {most} else {seconds} end"


_POLICY = f"""json_build_object(
         'queue', policy.queue,
         'paused', policy.paused,
         'concurrency_limit', policy.concurrency_limit,
         'key_concurrency_limit', policy.key_concurrency_limit,
         'rate_limit', policy.rate_limit,
         'rate_period_seconds', {_seconds("policy.rate_period")},
         'max_attempts', policy.max_attempts,
         'retry_delay_seconds', {_seconds("policy.retry_delay")},
         'retry_delay_max_seconds', {_seconds("policy.retry_delay_max")},
         'max_losses', policy.max_losses,
         'timeout_seconds', {_seconds("policy.timeout")},
         'keep_succeeded_seconds', {_seconds("policy.keep_succeeded", MILLENNIUM)},
         'keep_failed_seconds', {_seconds("policy.keep_failed", MILLENNIUM)},
         'keep_cancelled_seconds', {_seconds("policy.keep_cancelled", MILLENNIUM)})::text"""

_LIST_QUEUES = f"""
select {_POLICY}
  from job_queue.list_queues(p_within_queues => allowed.queues) as policy
"""

_GET_QUEUE = f"""
select {_POLICY}
  from job_queue.list_queues(p_queue => %(queue)s) as policy
"""

# What a function has changed is read through a column beside its call, so that it is read after it.
_SET_QUEUE = f"""
select {_POLICY}
  from (
    select %(queue)s::text as queue,
           job_queue.set_queue(p_queue => %(queue)s, p_policy => %(policy)s::jsonb)
  ) as done
 cross join lateral job_queue.list_queues(p_queue => done.queue) as policy
"""

_PAUSE_QUEUE = f"""
select {_POLICY}
  from (select %(queue)s::text as queue, job_queue.pause_queue(p_queue => %(queue)s)) as done
 cross join lateral job_queue.list_queues(p_queue => done.queue) as policy
"""

_RESUME_QUEUE = f"""
select {_POLICY}
  from (select %(queue)s::text as queue, job_queue.resume_queue(p_queue => %(queue)s)) as done
 cross join lateral job_queue.list_queues(p_queue => done.queue) as policy
"""

_STATISTICS = """json_build_object(
         'queue', {queue},
         'paused', {paused},
         'blocked', coalesce(counted.blocked, 0),
         'queued', coalesce(counted.queued, 0),
         'running', coalesce(counted.running, 0),
         'succeeded', coalesce(counted.succeeded, 0),
         'failed', coalesce(counted.failed, 0),
         'cancelled', coalesce(counted.cancelled, 0),
         'ready', coalesce(counted.ready, 0),
         'oldest_ready_age_seconds', extract(epoch from counted.oldest_ready_age)::float8,
         'ended_last_minute', coalesce(counted.ended_last_minute, 0),
         'ended_last_hour', coalesce(counted.ended_last_hour, 0),
         'estimated', {estimated})::text"""

_ALL_STATISTICS = f"""
select {
    _STATISTICS.format(
        queue="counted.queue", paused="counted.paused", estimated="counted.estimated"
    )
}
  from job_queue.queue_statistics as counted
 where allowed.queues is null
    or counted.queue = any (allowed.queues)
 order by counted.queue
"""

_ANY_ESTIMATED = "coalesce((select bool_or(one.estimated) from all_of_them as one), false)"

_QUEUE_STATISTICS = f"""
  with all_of_them as materialized (select * from job_queue.queue_statistics)
select {_STATISTICS.format(queue="policy.queue", paused="policy.paused", estimated=_ANY_ESTIMATED)}
  from job_queue.list_queues(p_queue => %(queue)s) as policy
  left join all_of_them as counted on counted.queue = %(queue)s
"""


class QueuePolicy(BaseModel):
    """The policy of a queue, with the defaults where nothing else was set."""

    queue: str
    paused: bool = Field(description="Whether no job is claimed.")
    concurrency_limit: int | None = Field(description="How many jobs may run at once. Null: any.")
    key_concurrency_limit: int | None = Field(
        description="How many jobs with one concurrency_key may run at once. Null: any."
    )
    rate_limit: int | None = Field(
        description="How many jobs may start within rate_period_seconds. Null: any."
    )
    rate_period_seconds: float
    max_attempts: int
    retry_delay_seconds: float
    retry_delay_max_seconds: float
    max_losses: int
    timeout_seconds: float | None
    keep_succeeded_seconds: float = Field(description="How long a succeeded job is kept.")
    keep_failed_seconds: float
    keep_cancelled_seconds: float


Limit = Annotated[int, Field(ge=1, le=10_000), WHOLE]
Period = Annotated[float, Field(ge=0.001, le=YEAR, allow_inf_nan=False)]
Retention = Annotated[float, Field(ge=0, le=MILLENNIUM, allow_inf_nan=False), MICROSECONDS]


class PolicyPatch(Request):
    """What is to change in a policy: what is left out stays, null is the default again."""

    paused: bool | None = None
    concurrency_limit: Limit | None = None
    key_concurrency_limit: Limit | None = None
    rate_limit: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = None
    rate_period_seconds: Period | None = Field(None, serialization_alias="rate_period")
    max_attempts: Annotated[int, Field(ge=1, le=2**31 - 1), WHOLE] | None = None
    retry_delay_seconds: Seconds | None = Field(None, serialization_alias="retry_delay")
    retry_delay_max_seconds: Seconds | None = Field(None, serialization_alias="retry_delay_max")
    max_losses: Count | None = None
    timeout_seconds: Period | None = Field(None, serialization_alias="timeout")
    keep_succeeded_seconds: Retention | None = Field(None, serialization_alias="keep_succeeded")
    keep_failed_seconds: Retention | None = Field(None, serialization_alias="keep_failed")
    keep_cancelled_seconds: Retention | None = Field(None, serialization_alias="keep_cancelled")


class QueueStatistics(BaseModel):
    """How many jobs of a queue there are in each status, and how long they wait."""

    queue: str
    paused: bool
    blocked: int
    queued: int
    running: int
    succeeded: int = Field(description="How many there are still: ended jobs are pruned.")
    failed: int
    cancelled: int
    ready: int = Field(description="How many could be claimed now, if no limit kept them.")
    oldest_ready_age_seconds: float | None = Field(
        description="How long the first of these has been ready: the number to raise an alarm on."
    )
    ended_last_minute: int
    ended_last_hour: int
    estimated: bool = Field(
        description="Whether there are more than 100,000 jobs in all. Succeeded, cancelled and "
        "whatever there are more than some thousands of are then estimated from a sample, and 0 "
        "if it has none of them."
    )


@router.get(
    "/queues",
    operation_id="listQueues",
    response_model=list[QueuePolicy],
    responses=problems(),
)
async def list_queues(caller: CallerOf) -> Response:
    """Return the policy of each queue that has one, or has jobs that wait or run."""
    rows = await caller.call("list_queues", _LIST_QUEUES)
    return JsonResponse(json_array(body for (body,) in rows))


@router.get(
    "/queues/{queue:name}",
    operation_id="getQueue",
    response_model=QueuePolicy,
    responses=problems(),
)
async def get_queue(queue: PathName, caller: CallerOf) -> Response:
    """Return the policy of a queue; one that nobody has heard of has the defaults."""
    return await _one(caller, "list_queues", _GET_QUEUE, queue)


@router.patch(
    "/queues/{queue:name}",
    operation_id="setQueue",
    response_model=QueuePolicy,
    responses=problems(413, 415),
)
async def set_queue(
    queue: PathName,
    patch: Annotated[PolicyPatch, Body(media_type="application/merge-patch+json")],
    caller: CallerOf,
) -> Response:
    """Change the policy of a queue by a JSON merge patch (RFC 7396), and return all of it.

    A queue needs no creation: the first patch gives it a policy of its own.
    """
    policy = patch.model_dump_json(by_alias=True, exclude_unset=True)
    return await _one(caller, "set_queue", _SET_QUEUE, queue, policy=policy)


@router.post(
    "/queues/{queue:name}/pause",
    operation_id="pauseQueue",
    response_model=QueuePolicy,
    responses=problems(),
)
async def pause_queue(queue: PathName, caller: CallerOf) -> Response:
    """Stop the claims from a queue: jobs can still be created, and running ones run on."""
    return await _one(caller, "pause_queue", _PAUSE_QUEUE, queue)


@router.post(
    "/queues/{queue:name}/resume",
    operation_id="resumeQueue",
    response_model=QueuePolicy,
    responses=problems(),
)
async def resume_queue(queue: PathName, caller: CallerOf) -> Response:
    """Let the jobs of a paused queue be claimed again."""
    return await _one(caller, "resume_queue", _RESUME_QUEUE, queue)


@router.get(
    "/queues/{queue:name}/statistics",
    operation_id="getQueueStatistics",
    response_model=QueueStatistics,
    responses=problems(),
)
async def queue_statistics(queue: PathName, caller: CallerOf) -> Response:
    """Count the jobs of a queue or, of more than 100,000 in all, estimate some of the numbers."""
    return await _one(caller, "queue_statistics", _QUEUE_STATISTICS, queue)


@router.get(
    "/statistics",
    operation_id="listQueueStatistics",
    response_model=list[QueueStatistics],
    responses=problems(),
)
async def all_statistics(caller: CallerOf) -> Response:
    """Count the jobs of each queue as GET /queues/{queue}/statistics does of one."""
    rows = await caller.call("queue_statistics", _ALL_STATISTICS)
    return JsonResponse(json_array(body for (body,) in rows))


async def _one(
    caller: Caller, function: str, query: str, queue: str, **parameters: Any
) -> Response:
    rows = await caller.call(
        function, query, {"queue": queue, **parameters}, Concerns(queues=[queue])
    )
    return JsonResponse(rows[0][0])
