"""/jobs: create, read, list, cancel and retry."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, Literal
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from api.access import Caller, CallerOf
from api.database import Concerns, Database, Key, RateLimit, Rows
from api.errors import Problem
from api.grouping import Grouping
from api.idempotency import IdempotencyKey, unquoted
from api.models import (
    MAX_BATCH,
    MAX_PAGE,
    STATUSES,
    BatchItem,
    BulkOutcome,
    CancelFilter,
    CancelOutcome,
    CreatedJob,
    DeadJob,
    HistoryEvent,
    Job,
    JobKey,
    Name,
    NewJob,
    Progress,
    Reason,
    RetryFilter,
    Text,
    Time,
)
from api.preferences import Wait, applied
from api.routes.common import (
    UTC,
    JsonResponse,
    JsonRoute,
    json_array,
    json_array_in_pages,
    problems,
)
from api.routes.names import JobId
from api.session import OUTAGE
from api.tracing import trace_context

PAGE_SIZE = 1_000
"""Jobs read at once: long lists neither fill the memory nor hold a transaction open."""

_LOCATION: dict[str, Any] = {
    "Location": {"description": "Where the job is", "schema": {"type": "string"}}
}
_LINK: dict[str, Any] = {
    "Link": {
        "description": 'Where the next page is, with rel="next" (RFC 8288); none on the last page',
        "schema": {"type": "string"},
    }
}
_REPLAYED = {"Idempotent-Replayed": "true"}

router = APIRouter(route_class=JsonRoute, tags=["jobs"])

_CREATED_JOB = f"""
  'id', job.id,
  'status', job.status,
  'sleep_seconds', job.sleep_seconds,
  'message', job.message,
  'result', job.result,
  'created_at', {UTC.format("job.created_at")}"""

_JOB = f"""{_CREATED_JOB},
  'updated_at', {UTC.format("job.updated_at")}"""

_FULL_JOB = f"""{_JOB},
  'job_type', job.job_type,
  'payload', job.payload,
  'queue', job.queue,
  'priority', job.priority,
  'run_at', {UTC.format("job.run_at")},
  'attempts', job.attempts,
  'max_attempts', job.max_attempts,
  'losses', job.losses,
  'max_losses', job.max_losses,
  'retry_delay_seconds', extract(epoch from job.retry_delay)::float8,
  'retry_delay_max_seconds', extract(epoch from job.retry_delay_max)::float8,
  'timeout_seconds', extract(epoch from job.timeout)::float8,
  'unique_key', job.unique_key,
  'concurrency_key', job.concurrency_key,
  'depends_on', job.depends_on,
  'cancel_requested', job.cancel_requested,
  'failed_at', {UTC.format("job.failed_at")},
  'worker', job.worker,
  'progress', job.progress,
  'trace_context', job.trace_context"""

_GET_CREATED_JOB = f"""
select json_build_object({_CREATED_JOB})::text
  from job_queue.get_job(p_job_id => %(job_id)s) as job
"""

_VIEWS = {"basic": _JOB, "full": _FULL_JOB}

_ENQUEUE_JOB = f"""
select job.id, json_build_object({_CREATED_JOB})::text
  from job_queue.enqueue_job(
         p_job_type => %(job_type)s,
         p_payload => %(payload)s,
         p_sleep_seconds => %(sleep_seconds)s,
         p_message => %(message)s,
         p_queue => %(queue)s,
         p_priority => %(priority)s,
         p_run_at => %(run_at)s,
         p_delay => make_interval(secs => %(delay_seconds)s),
         p_max_attempts => %(max_attempts)s,
         p_retry_delay => make_interval(secs => %(retry_delay_seconds)s),
         p_retry_delay_max => make_interval(secs => %(retry_delay_max_seconds)s),
         p_max_losses => %(max_losses)s,
         p_timeout => make_interval(secs => %(timeout_seconds)s),
         p_concurrency_key => %(concurrency_key)s,
         p_depends_on => %(depends_on)s,
         p_on_parent_failure => %(on_parent_failure)s,
         p_trace_context => %(trace_context)s
       ) as enqueued (id)
 cross join lateral job_queue.get_job(p_job_id => enqueued.id) as job
"""

_ENQUEUE_JOBS = """
select json_build_object('id', job.id, 'created', job.created)::text
  from job_queue.enqueue_jobs(p_jobs => %(jobs)s::jsonb) as job
"""

_ENQUEUE_GROUP = f"""
select job.id, json_build_object({_CREATED_JOB})::text
  from job_queue.enqueue_jobs(p_jobs => %(jobs)s::jsonb) as added
 cross join lateral job_queue.get_job(p_job_id => added.id) as job
"""

_ENQUEUE_UNIQUE_JOB = f"""
select job.id, json_build_object({_CREATED_JOB})::text, added.created
  from job_queue.enqueue_jobs(p_jobs => %(jobs)s::jsonb) as added
 cross join lateral job_queue.get_job(p_job_id => added.id) as job
"""

_ENQUEUE_ONCE = f"""
select job.id, json_build_object({_CREATED_JOB})::text, job.created, job.replayed,
       json_build_object('id', job.id, 'created', job.created)::text
  from (
    select *, null::jsonb as result
      from job_queue.enqueue_once(
             p_client => allowed.client,
             p_idempotency_key => %(idempotency_key)s,
             p_jobs => %(jobs)s::jsonb
           )
  ) as job
"""

_GET_JOB = {
    view: f"""
select json_build_object({members})::text
  from job_queue.get_job(p_job_id => %(job_id)s) as job
"""
    for view, members in _VIEWS.items()
}

_LISTED = """job_queue.list_jobs(
         p_limit => %(limit)s,
         p_after => %(after)s,
         p_statuses => %(status)s,
         p_queues => allowed.queues,
         p_job_types => %(job_type)s,
         p_created_after => %(created_after)s,
         p_created_before => %(created_before)s,
         p_updated_after => %(updated_after)s,
         p_updated_before => %(updated_before)s,
         p_unique_key => %(unique_key)s,
         p_error => %(error)s
       )"""

_LIST_JOBS = {
    "basic": f"""
select job.id, json_build_object({_JOB})::text, allowed.queues
  from {_LISTED} as job
""",
    "full": f"""
select job.id, json_build_object({_FULL_JOB})::text, allowed.queues
  from {_LISTED} as listed
 cross join lateral job_queue.get_job(p_job_id => listed.id) as job
""",
}

_CANCEL_JOB = """
select json_build_object('id', %(job_id)s::uuid, 'outcome', outcome)::text
  from job_queue.cancel_job(p_job_id => %(job_id)s) as outcome
"""

_RETRY_JOB = """
select json_build_object('id', %(job_id)s::uuid, 'outcome', 'retried')::text
  from job_queue.retry_job(p_job_id => %(job_id)s)
"""

_CANCEL_JOBS = """
select json_build_object('id', job.id, 'outcome', job.outcome)::text
  from job_queue.cancel_jobs(
         p_queue => %(queue)s,
         p_job_type => %(job_type)s,
         p_status => %(status)s,
         p_unique_key => %(unique_key)s,
         p_created_after => %(created_after)s,
         p_created_before => %(created_before)s,
         p_limit => %(limit)s,
         p_dry_run => %(dry_run)s,
         p_within_queues => allowed.queues
       ) as job
"""

_RETRY_JOBS = """
select json_build_object('id', job.id, 'outcome', job.outcome)::text
  from job_queue.retry_jobs(
         p_queue => %(queue)s,
         p_job_type => %(job_type)s,
         p_error => %(error)s,
         p_failed_after => %(failed_after)s,
         p_failed_before => %(failed_before)s,
         p_limit => %(limit)s,
         p_dry_run => %(dry_run)s,
         p_within_queues => allowed.queues
       ) as job
"""

_HISTORY = f"""
select json_build_object(
         'at', {UTC.format("event.at")},
         'verb', event.verb,
         'from_status', event.from_status,
         'to_status', event.to_status,
         'claim_id', event.claim_id,
         'actor', event.actor,
         'detail', event.detail,
         'attempt', event.attempt)::text
  from job_queue.job_history(p_job_id => %(job_id)s) as event
"""

_EXPLAIN = """
select json_build_object('reason', why.reason, 'explanation', why.explanation)::text
  from job_queue.explain_job(p_job_id => %(job_id)s) as why
"""

_PROGRESS = """
select json_build_object('worker', job.worker, 'progress', job.progress)::text
  from job_queue.get_job(p_job_id => %(job_id)s) as job
"""

_LIST_DEAD_JOBS = f"""
select job.id, json_build_object(
         'id', job.id,
         'failed_at', {UTC.format("job.failed_at")},
         'queue', job.queue,
         'job_type', job.job_type,
         'payload', job.payload,
         'error', job.error,
         'attempts', job.attempts,
         'losses', job.losses,
         'retries', job.retries)::text
  from job_queue.list_dead_jobs(
         p_limit => %(limit)s,
         p_after => %(after)s,
         p_job_type => %(job_type)s,
         p_error => %(error)s,
         p_failed_after => %(failed_after)s,
         p_failed_before => %(failed_before)s,
         p_within_queues => allowed.queues
       ) as job
"""

_BATCH = TypeAdapter(list[NewJob])

View = Annotated[
    Literal["basic", "full"],
    Query(description="basic: the members that v1 had. full: all that is known of a job."),
]
LastSeen = Annotated[UUID | None, Query(description="The last id of the page before.")]


class JobFilter(BaseModel):
    """Which jobs to list: those that match all that is given."""

    model_config = ConfigDict(extra="forbid")

    status: list[STATUSES] | None = None
    queue: list[Name] | None = None
    job_type: list[Name] | None = None
    created_after: Time | None = Field(None, description="Then, or later.")
    created_before: Time | None = None
    updated_after: Time | None = None
    updated_before: Time | None = None
    unique_key: JobKey | None = None
    error: Text | None = Field(None, description="A part of the error.")
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] | None = Field(
        None, description="The length of a page. Without, all jobs come in one array."
    )
    after: UUID | None = Field(None, description="The last id of the page before.")
    view: Literal["basic", "full"] = Field(
        "basic", description="basic: the members that v1 had. full: all that is known of a job."
    )


class DeadJobFilter(BaseModel):
    """Which dead letters to list: those that match all that is given."""

    model_config = ConfigDict(extra="forbid")

    queue: list[Name] | None = None
    job_type: Name | None = None
    error: Text | None = Field(None, description="A part of the error.")
    failed_after: Time | None = Field(None, description="Then, or later.")
    failed_before: Time | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100
    after: UUID | None = Field(None, description="The last id of the page before.")


@router.post(
    "/jobs",
    status_code=201,
    operation_id="createJob",
    response_model=CreatedJob,
    responses={
        200: {
            "model": CreatedJob,
            "description": "An unfinished job has the unique key: that job",
            "headers": _LOCATION,
        },
        201: {"description": "The job, committed", "headers": _LOCATION},
        **problems(404, 413, 415),
    },
)
async def create_job(
    new_job: NewJob,
    request: Request,
    caller: CallerOf,
    wait: Wait,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Enqueue a job. Once this has answered 201, the job is committed."""
    if new_job.trace_context is None:
        new_job.trace_context = trace_context(request)
    status, headers = 201, {}
    concerns = Concerns(queues=[new_job.queue], job_ids=new_job.depends_on)
    if idempotency_key is not None:
        [(job_id, body, created, replayed, _)] = await _enqueue_once(
            caller, [new_job], idempotency_key, concerns
        )
        headers = _REPLAYED if replayed else {}
        status = 201 if created else 200
    elif new_job.unique_key is not None:
        [(job_id, body, created)] = await caller.call(
            "enqueue_jobs", _ENQUEUE_UNIQUE_JOB, {"jobs": _as_json([new_job])}, concerns
        )
        status = 201 if created else 200
    elif new_job.depends_on:
        [(job_id, body)] = await caller.call(
            "enqueue_job", _ENQUEUE_JOB, _as_parameters(new_job), concerns
        )
    else:
        job_id, body, caller.rate_limit = await request.app.state.enqueue((caller.key, new_job))
    if wait:
        with suppress(*OUTAGE):  # the job is there, whatever the database can say of it now
            body = await _once_ended(_GET_CREATED_JOB, job_id, request, wait) or body
    return JsonResponse(
        body, status, headers={"Location": f"/jobs/{job_id}", **applied(wait), **headers}
    )


Enqueued = tuple[UUID, str, RateLimit | None]


def enqueue_in_groups(database: Database) -> Grouping[tuple[Key | None, NewJob], Enqueued]:
    """Return what enqueues jobs, together those that come at the same time under one key."""

    async def enqueue(items: list[tuple[Key | None, NewJob]]) -> list[Enqueued]:
        key = items[0][0]
        new_jobs = [new_job for _, new_job in items]
        concerns = Concerns(
            queues=list({new_job.queue for new_job in new_jobs}), requests=len(new_jobs)
        )
        if len(new_jobs) == 1:
            answer = await database.call(
                "enqueue_job", _ENQUEUE_JOB, _as_parameters(new_jobs[0]), key, concerns
            )
        else:
            answer = await database.call(
                "enqueue_jobs", _ENQUEUE_GROUP, {"jobs": _as_json(new_jobs)}, key, concerns
            )
        return [(job_id, body, answer.rate_limit) for job_id, body in answer.rows]

    return Grouping(enqueue, kind=lambda item: item[0])


def _as_parameters(new_job: NewJob) -> dict[str, Any]:
    context = new_job.trace_context
    return dict(new_job) | {
        "payload": Jsonb(new_job.payload),
        "trace_context": None if context is None else Jsonb(context),
    }


@router.post(
    "/jobs/batch",
    status_code=201,
    operation_id="createJobs",
    response_model=list[BatchItem],
    responses=problems(404, 413, 415),
)
async def create_jobs(
    new_jobs: list[NewJob],
    request: Request,
    caller: CallerOf,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Enqueue many jobs, all or, if one is refused, none; the answer is in the same order."""
    if len(new_jobs) > MAX_BATCH:
        raise Problem("too-large", f"{len(new_jobs)} jobs: send at most {MAX_BATCH} at once.")
    context = trace_context(request)
    for new_job in new_jobs:
        if new_job.trace_context is None:
            new_job.trace_context = context
    concerns = Concerns(
        queues=list({new_job.queue for new_job in new_jobs}),
        job_ids=list({parent for new_job in new_jobs for parent in new_job.depends_on or []}),
    )
    if idempotency_key is not None:
        once = await _enqueue_once(caller, new_jobs, idempotency_key, concerns)
        headers = _REPLAYED if any(replayed for _, _, _, replayed, _ in once) else {}
        return JsonResponse(json_array(item for *_, item in once), 201, headers)
    rows = await caller.call("enqueue_jobs", _ENQUEUE_JOBS, {"jobs": _as_json(new_jobs)}, concerns)
    return JsonResponse(json_array(body for (body,) in rows), 201)


async def _enqueue_once(
    caller: Caller, new_jobs: list[NewJob], idempotency_key: str, concerns: Concerns
) -> Rows:
    return await caller.call(
        "enqueue_once",
        _ENQUEUE_ONCE,
        {"jobs": _as_json(new_jobs), "idempotency_key": unquoted(idempotency_key)},
        concerns,
    )


def _as_json(new_jobs: list[NewJob]) -> str:
    return _BATCH.dump_json(new_jobs, by_alias=True, exclude_unset=True).decode()


@router.get(
    "/jobs",
    operation_id="listJobs",
    response_model=list[Job],
    responses={200: {"headers": _LINK}, **problems()},
)
async def list_jobs(caller: CallerOf, filter: Annotated[JobFilter, Query()]) -> Response:
    """Return jobs, newest first: all of them or, with a limit, a page and a link to the next."""
    parameters = filter.model_dump()
    concerns = Concerns(queues=filter.queue)
    query = _LIST_JOBS[filter.view]
    if filter.limit is not None:
        parameters["limit"] += 1
        rows = await caller.call("list_jobs", query, parameters, concerns)
        return _page([(row[0], row[1]) for row in rows], filter.limit, "/jobs", filter)
    parameters["limit"] = PAGE_SIZE
    rows = await caller.call("list_jobs", query, parameters, concerns)

    async def pages() -> AsyncIterator[list[str]]:
        last = rows
        while len(last) == PAGE_SIZE:
            parameters.update(after=last[-1][0], allowed_queues=last[-1][2])
            last = await caller.database.fetch(
                f"select found.* from (select %(allowed_queues)s::text[]) as allowed (queues)"
                f" cross join lateral ({query}) as found",
                parameters,
            )
            yield [body for _, body, _ in last]

    return StreamingResponse(
        json_array_in_pages([body for _, body, _ in rows], pages()), media_type="application/json"
    )


def _page(
    rows: list[tuple[UUID, str]], limit: int, path: str, filter: JobFilter | DeadJobFilter
) -> Response:
    """Return a page of which one row more than its length was read, with a link to the next."""
    headers = {}
    if len(rows) > limit:
        parameters = filter.model_dump(mode="json", exclude_unset=True) | {
            "after": str(rows[limit - 1][0])
        }
        query = urlencode(
            {name: value for name, value in parameters.items() if value is not None}, doseq=True
        )
        headers["Link"] = f'<{path}?{query}>; rel="next"'
    return JsonResponse(json_array(body for _, body in rows[:limit]), headers=headers)


@router.get(
    "/jobs/{job_id:job}",
    operation_id="getJob",
    response_model=Job,
    responses=problems(404),
)
async def get_job(
    job_id: JobId, request: Request, caller: CallerOf, wait: Wait, view: View = "basic"
) -> Response:
    """Return one job, at once or, if the client would wait, when it has ended."""
    body = await _one(caller, "get_job", _GET_JOB[view], job_id)
    if wait:
        ended = await _once_ended(_GET_JOB[view], job_id, request, wait)
        if ended is None:
            raise Problem("not-found", f"job {job_id} does not exist")
        body = ended
    return JsonResponse(body, headers=applied(wait))


async def _once_ended(query: str, job_id: UUID, request: Request, wait: int) -> str | None:
    """Wait for the end of a job and read it, or None if it has been pruned since.

    Who may see it is settled, and it is no second call of the key's.
    """
    async with request.app.state.watcher.end_of(job_id, wait, request):
        rows = await request.app.state.database.fetch(query, {"job_id": job_id})
    return str(rows[0][0]) if rows else None


async def _one(caller: Caller, function: str, query: str, job_id: UUID) -> str:
    rows = await caller.call(function, query, {"job_id": job_id}, Concerns(job_ids=[job_id]))
    if not rows:
        raise Problem("not-found", f"job {job_id} does not exist")
    return str(rows[0][0])


@router.post(
    "/jobs/{job_id}/cancel",
    operation_id="cancelJob",
    response_model=CancelOutcome,
    responses=problems(404),
)
async def cancel_job(job_id: JobId, caller: CallerOf) -> Response:
    """Cancel a job for good, and say which of three things happened."""
    return JsonResponse(await _one(caller, "cancel_job", _CANCEL_JOB, job_id))


@router.post(
    "/jobs/{job_id}/retry",
    operation_id="retryJob",
    response_model=BulkOutcome,
    responses=problems(404, 409),
)
async def retry_job(job_id: JobId, caller: CallerOf) -> Response:
    """Queue a failed or cancelled job again, with all its attempts before it."""
    return JsonResponse(await _one(caller, "retry_job", _RETRY_JOB, job_id))


@router.post(
    "/jobs/cancel",
    operation_id="cancelJobs",
    response_model=list[BulkOutcome],
    responses=problems(413, 415),
)
async def cancel_jobs(filter: CancelFilter, caller: CallerOf) -> Response:
    """Cancel the unended jobs that match, or say which it would be."""
    return await _bulk(caller, "cancel_jobs", _CANCEL_JOBS, filter)


@router.post(
    "/jobs/retry",
    operation_id="retryJobs",
    response_model=list[BulkOutcome],
    responses=problems(413, 415),
)
async def retry_jobs(filter: RetryFilter, caller: CallerOf) -> Response:
    """Retry the failed jobs that match, or say which it would be."""
    return await _bulk(caller, "retry_jobs", _RETRY_JOBS, filter)


async def _bulk(
    caller: Caller, function: str, query: str, filter: CancelFilter | RetryFilter
) -> Response:
    concerns = Concerns(queues=[filter.queue] if filter.queue else None)
    rows = await caller.call(function, query, dict(filter), concerns)
    return JsonResponse(json_array(body for (body,) in rows))


@router.get(
    "/jobs/{job_id}/history",
    operation_id="getJobHistory",
    response_model=list[HistoryEvent],
    responses=problems(404),
)
async def job_history(job_id: JobId, caller: CallerOf) -> Response:
    """Return all that happened to the job, oldest first."""
    rows = await caller.call(
        "job_history", _HISTORY, {"job_id": job_id}, Concerns(job_ids=[job_id])
    )
    if not rows:
        raise Problem("not-found", f"job {job_id} does not exist")
    return JsonResponse(json_array(body for (body,) in rows))


@router.get(
    "/jobs/{job_id}/explain",
    operation_id="explainJob",
    response_model=list[Reason],
    responses=problems(404),
)
async def explain_job(job_id: JobId, caller: CallerOf) -> Response:
    """Say why the job is not running, or that it is."""
    rows = await caller.call(
        "explain_job", _EXPLAIN, {"job_id": job_id}, Concerns(job_ids=[job_id])
    )
    return JsonResponse(json_array(body for (body,) in rows))


@router.get(
    "/jobs/{job_id}/progress",
    operation_id="getJobProgress",
    response_model=Progress,
    responses=problems(404),
)
async def job_progress(job_id: JobId, caller: CallerOf) -> Response:
    """Return what the job's worker last reported; null while it does not run."""
    return JsonResponse(await _one(caller, "get_job", _PROGRESS, job_id))


@router.get(
    "/dead-letters",
    operation_id="listDeadJobs",
    response_model=list[DeadJob],
    responses={200: {"headers": _LINK}, **problems()},
)
async def list_dead_jobs(caller: CallerOf, filter: Annotated[DeadJobFilter, Query()]) -> Response:
    """Return a page of the jobs that have failed for good, the last to fail first."""
    parameters = filter.model_dump()
    parameters["limit"] += 1
    rows = await caller.call(
        "list_dead_jobs", _LIST_DEAD_JOBS, parameters, Concerns(queues=filter.queue)
    )
    return _page([(row[0], row[1]) for row in rows], filter.limit, "/dead-letters", filter)
