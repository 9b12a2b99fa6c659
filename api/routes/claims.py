"""/claims, and what ends them under /jobs: what a worker needs, in any language that has HTTP."""

import asyncio
import json
import re
from typing import Annotated, Any, NoReturn
from uuid import UUID

from fastapi import APIRouter, HTTPException, Request, Response
from psycopg.types.json import Jsonb
from pydantic import BaseModel, BeforeValidator, Field

from api import models
from api.access import Caller, CallerOf
from api.database import Concerns, Rows
from api.models import ClaimId, Name, Seconds, Text
from api.preferences import Wait, applied
from api.presence import departure_of
from api.routes.common import UTC, JsonResponse, JsonRoute, json_array, problems

MAX_CLAIMS = 1_000
"""How many jobs one request may claim."""
MAX_HEARTBEATS = 10_000
"""How many claims one request may renew."""

router = APIRouter(route_class=JsonRoute, tags=["worker"])

_CLAIM = """
select job.id, job.claim_id, json_build_object(
         'id', job.id,
         'claim_id', job.claim_id,
         'job_type', job.job_type,
         'payload', job.payload,
         'queue', job.queue,
         'priority', job.priority,
         'attempt', job.attempt,
         'max_attempts', job.max_attempts,
         'losses', job.losses,
         'sleep_seconds', job.sleep_seconds,
         'message', job.message,
         'created_at', {created_at},
         'run_at', {run_at},
         'timeout_seconds', extract(epoch from job.timeout)::float8,
         'lease_seconds', %(lease_seconds)s::float8,
         'trace_context', job.trace_context)::text as body
  from job_queue.claim_jobs(
         p_limit => %(limit)s,
         p_worker => %(worker)s,
         p_queues => {queues},
         p_job_types => %(job_types)s::text[],
         p_lease => make_interval(secs => %(lease_seconds)s)
       ) as job
"""
_TIMES = {"created_at": UTC.format("job.created_at"), "run_at": UTC.format("job.run_at")}

CLAIM_FROM_QUEUES = _CLAIM.format(**_TIMES, queues="%(queues)s::text[]")

_CLAIM_NOW = f"""
select allowed.queues, claimed.*
  from (select) as always
  left join lateral ({_CLAIM.format(**_TIMES, queues="allowed.queues")}) as claimed on true
"""

_HEARTBEAT = """
select json_build_object(
         'claim_id', claim.claim_id,
         'held', claim.held,
         'cancel_requested', claim.cancel_requested)::text
  from job_queue.heartbeat(
         p_claim_ids => %(claim_ids)s::bigint[],
         p_lease => make_interval(secs => %(lease_seconds)s)
       ) as claim
"""

_PROGRESS = """
select job_queue.report_progress(
         p_job_id => %(job_id)s,
         p_claim_id => %(claim_id)s,
         p_progress => %(progress)s
       )
"""

_COMPLETE = """
select job_queue.complete_job(
         p_job_id => %(job_id)s,
         p_claim_id => %(claim_id)s,
         p_result => %(result)s
       )
"""

_FAIL = """
select json_build_object('status', status)::text
  from job_queue.fail_job(
         p_job_id => %(job_id)s,
         p_claim_id => %(claim_id)s,
         p_error => %(error)s,
         p_retryable => %(retryable)s,
         p_retry_in => make_interval(secs => %(retry_in_seconds)s)
       ) as status
"""

_SNOOZE = """
select job_queue.snooze_job(
         p_job_id => %(job_id)s,
         p_claim_id => %(claim_id)s,
         p_delay => make_interval(secs => %(delay_seconds)s)
       )
"""

_RELEASE = """
select job_queue.release_job(p_job_id => %(job_id)s, p_claim_id => %(claim_id)s)
"""

_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")


def _storable(text: Any) -> Any:
    """Put U+FFFD for what Postgres cannot store: an error is not lost for how it is written."""
    return _NOT_STORABLE.sub("\ufffd", text) if isinstance(text, str) else text


Lease = Annotated[float, Field(ge=0.001, le=86_400, allow_inf_nan=False)]


class ClaimRequest(models.Request):
    """Which jobs to claim."""

    worker: Annotated[Text, Field(max_length=500)] | None = Field(
        None, description="Who asks, for people who read /workers."
    )
    queues: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="Those of the first that has any, then the second and so on. Null: all."
    )
    job_types: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="Only jobs of these types. Null: of all."
    )
    lease_seconds: Lease = Field(
        60, description="How long the claims hold unless a heartbeat renews them."
    )
    limit: Annotated[int, Field(ge=1, le=MAX_CLAIMS), models.WHOLE] = 1


class ClaimedJob(BaseModel):
    """A job to run, and the claim that all who speak of this run must name."""

    id: UUID
    claim_id: int
    job_type: str
    payload: Any
    queue: str
    priority: int
    attempt: int = Field(description="From 1 on.")
    max_attempts: int
    losses: int = Field(description="How many workers were lost while they ran it.")
    sleep_seconds: int
    message: str | None
    created_at: models.Time
    run_at: models.Time
    timeout_seconds: float | None
    lease_seconds: float
    trace_context: dict[str, Any] | None


class HeartbeatRequest(models.Request):
    """The claims of a worker that is alive."""

    claim_ids: Annotated[list[ClaimId], Field(max_length=MAX_HEARTBEATS)]
    lease_seconds: Lease | None = Field(
        None, description="How long they hold from now on. Null: as long as before."
    )


class Heartbeat(BaseModel):
    """How a claim stands."""

    claim_id: int
    held: bool = Field(description="False: stop the work, its result will be refused.")
    cancel_requested: bool = Field(description="True: stop the work, and fail or release the job.")


class Run(models.Request):
    """The claim under which something is said."""

    claim_id: ClaimId


class ProgressReport(Run):
    """How far a run has come."""

    progress: Any = Field(description="Any JSON of at most 64 KiB.")


class Completion(Run):
    """What a run has produced."""

    result: Any = Field(None, description="Any JSON.")


class Failure(Run):
    """Why a run has failed."""

    error: Annotated[str, BeforeValidator(_storable)] | None = Field(
        None, description="Any text; what Postgres cannot store becomes U+FFFD."
    )
    retryable: bool = Field(True, description="False: the job fails, whatever attempts are left.")
    retry_in_seconds: Seconds | None = Field(
        None, description="When it may be tried again. Null: retry_delay decides."
    )


class Snooze(Run):
    """When a run is to be begun anew."""

    delay_seconds: Seconds


class FailureOutcome(BaseModel):
    """What became of the job."""

    status: str = Field(examples=["queued", "failed", "cancelled"])


@router.post(
    "/claims",
    operation_id="claimJobs",
    response_model=list[ClaimedJob],
    responses=problems(413, 415),
)
async def claim_jobs(
    asked: ClaimRequest, request: Request, caller: CallerOf, wait: Wait
) -> Response:
    """Claim jobs: an empty array if there are none, at once or until the time to wait is up."""
    async with departure_of(request) as departure:
        rows = await _claim(asked, request, caller, wait, departure)
        await asyncio.sleep(0)  # to be told if the client has gone
        if rows and departure.done():
            await request.app.state.lines.release(rows)
    return JsonResponse(json_array(body for _, _, body in rows), headers=applied(wait))


async def _claim(
    asked: ClaimRequest,
    request: Request,
    caller: Caller,
    wait: int,
    departure: asyncio.Task[None],
) -> Rows:
    lines = request.app.state.lines
    concerns = Concerns(queues=asked.queues)
    parameters = dict(asked)
    line = (caller.key, tuple(asked.queues or ()), tuple(asked.job_types or ()))
    if wait and lines.has_line(line):  # who comes later does not go first
        [(queues,)] = await caller.call("claim_jobs", "select allowed.queues", concerns=concerns)
    else:
        rows = await caller.call("claim_jobs", _CLAIM_NOW, parameters, concerns)
        queues = rows[0][0]
        if rows[0][1] is not None:
            return [row[1:] for row in rows]
    if not wait:
        return []
    parameters["queues"] = queues
    waited: Rows = await lines.wait(line, queues, parameters, wait, departure)
    return waited


@router.post(
    "/claims/heartbeat",
    operation_id="heartbeat",
    response_model=list[Heartbeat],
    responses=problems(413, 415),
)
async def heartbeat(beat: HeartbeatRequest, caller: CallerOf) -> Response:
    """Renew the leases of claims, and say how they stand."""
    rows = await caller.call(
        "heartbeat", _HEARTBEAT, dict(beat), Concerns(claim_ids=beat.claim_ids)
    )
    return JsonResponse(json_array(body for (body,) in rows))


@router.post(
    "/jobs/{job_id}/progress",
    status_code=204,
    operation_id="reportProgress",
    responses=problems(404, 409, 413, 415),
)
async def report_progress(job_id: UUID, report: ProgressReport, caller: CallerOf) -> None:
    """Note how far the run has come, for others to read. Does not renew the lease."""
    parameters = {"claim_id": report.claim_id, "progress": Jsonb(report.progress)}
    await _say(caller, "report_progress", _PROGRESS, job_id, parameters)


@router.post(
    "/jobs/{job_id}/complete",
    status_code=204,
    operation_id="completeJob",
    responses=problems(404, 409, 413, 415),
)
async def complete_job(job_id: UUID, completion: Completion, caller: CallerOf) -> None:
    """End the run with success."""
    result = None if completion.result is None else Jsonb(completion.result)
    parameters = {"claim_id": completion.claim_id, "result": result}
    await _say(caller, "complete_job", _COMPLETE, job_id, parameters)


@router.post(
    "/jobs/{job_id}/snooze",
    status_code=204,
    operation_id="snoozeJob",
    responses=problems(404, 409, 413, 415),
)
async def snooze_job(job_id: UUID, snooze: Snooze, caller: CallerOf) -> None:
    """Put the job off; the attempt does not count."""
    await _say(caller, "snooze_job", _SNOOZE, job_id, dict(snooze))


@router.post(
    "/jobs/{job_id}/release",
    status_code=204,
    operation_id="releaseJob",
    responses=problems(404, 409, 413, 415),
)
async def release_job(job_id: UUID, run: Run, caller: CallerOf) -> None:
    """Hand the job back, to run elsewhere at once; the attempt does not count."""
    await _say(caller, "release_job", _RELEASE, job_id, dict(run))


class _LenientRequest(Request):
    async def json(self) -> Any:
        """Parse the body, whatever its strings hold: halves of characters, or no UTF-8 at all."""
        try:
            body = (await self.body()).decode("utf-8", "replace")
            return json.loads(body, parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            raise HTTPException(422, f"body: not JSON: {error}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


class _LenientRoute(JsonRoute):
    request_class = _LenientRequest


_lenient = APIRouter(route_class=_LenientRoute)


@_lenient.post(
    "/jobs/{job_id}/fail",
    operation_id="failJob",
    response_model=FailureOutcome,
    responses=problems(404, 409, 413, 415),
)
async def fail_job(job_id: UUID, failure: Failure, caller: CallerOf) -> Response:
    """End the run with failure: the job is tried again while attempts are left."""
    rows = await _say(caller, "fail_job", _FAIL, job_id, dict(failure))
    return JsonResponse(rows[0][0])


async def _say(
    caller: Caller, function: str, query: str, job_id: UUID, parameters: dict[str, Any]
) -> Rows:
    return await caller.call(
        function, query, {"job_id": job_id, **parameters}, Concerns(job_ids=[job_id])
    )


router.include_router(_lenient)
