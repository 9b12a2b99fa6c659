"""/schedules: what enqueues a job at each tick of a cron expression."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from api.access import Caller, CallerOf
from api.errors import Problem
from api.models import NewJob, Request, Text
from api.routes.common import UTC, JsonResponse, JsonRoute, json_array, problems
from api.routes.names import PathName

router = APIRouter(route_class=JsonRoute, tags=["schedules"])

# A schedule keeps its job in the words of enqueue_jobs; to REST, durations are seconds.
_DURATIONS = ["delay", "retry_delay", "retry_delay_max", "timeout"]
_SECONDS = ",\n".join(
    f"'{name}_seconds', extract(epoch from (schedule.job ->> '{name}')::interval)::float8"
    for name in _DURATIONS
)

_SCHEDULE = f"""json_build_object(
         'schedule', schedule.schedule,
         'cron', schedule.cron,
         'time_zone', schedule.time_zone,
         'job', schedule.job - '{{{",".join(_DURATIONS)}}}'::text[]
           || jsonb_strip_nulls(jsonb_build_object(
{_SECONDS})),
         'missed_ticks', schedule.missed_ticks,
         'paused', schedule.paused,
         'next_at', {UTC.format("schedule.next_at")},
         'last_at', {UTC.format("schedule.last_at")},
         'last_job_id', schedule.last_job_id,
         'last_error', schedule.last_error)::text"""

_LIST_SCHEDULES = f"""
select {_SCHEDULE}
  from job_queue.list_schedules() as schedule
"""

_GET_SCHEDULE = f"""
select {_SCHEDULE}
  from job_queue.list_schedules(p_schedule => %(schedule)s) as schedule
"""

# Each step names a column of the one before, so that they are taken in this order.
_SET_SCHEDULE = f"""
select {_SCHEDULE}, before.existed
  from (
    select %(schedule)s::text as schedule,
           exists (select from job_queue.list_schedules(p_schedule => %(schedule)s)) as existed
    offset 0
  ) as before
 cross join lateral (
    select before.schedule,
           job_queue.set_schedule(
             p_schedule => before.schedule,
             p_cron => %(cron)s,
             p_job => %(job)s::jsonb,
             p_time_zone => %(time_zone)s,
             p_missed_ticks => %(missed_ticks)s)
    offset 0
  ) as done
 cross join lateral job_queue.list_schedules(p_schedule => done.schedule) as schedule
"""

_PAUSE_SCHEDULE = f"""
select {_SCHEDULE}
  from (
    select %(schedule)s::text as schedule, job_queue.pause_schedule(p_schedule => %(schedule)s)
  ) as done
 cross join lateral job_queue.list_schedules(p_schedule => done.schedule) as schedule
"""

_RESUME_SCHEDULE = f"""
select {_SCHEDULE}
  from (
    select %(schedule)s::text as schedule, job_queue.resume_schedule(p_schedule => %(schedule)s)
  ) as done
 cross join lateral job_queue.list_schedules(p_schedule => done.schedule) as schedule
"""

_DELETE_SCHEDULE = """
select 'deleted' from job_queue.delete_schedule(p_schedule => %(schedule)s)
"""

MissedTicks = Literal["coalesce", "catch up"]


class NewSchedule(Request):
    """When to enqueue which job."""

    cron: Annotated[
        Text,
        Field(
            description="Minute, hour, day of the month, month, day of the week; or @daily and "
            "the like.",
            examples=["30 4 * * *"],
            json_schema_extra={"format": "cron"},
        ),
    ]
    job: NewJob = Field(
        description="The job, as POST /jobs takes it. With a unique_key, a tick adds none while "
        "the last one is unfinished.",
        examples=[{"job_type": "report"}],
    )
    time_zone: Annotated[
        Text,
        Field(
            description="In which cron is read.",
            examples=["Europe/Berlin"],
            json_schema_extra={"format": "time-zone"},
        ),
    ] = "UTC"
    missed_ticks: MissedTicks = Field(
        "coalesce",
        description="If several ticks have passed unseen: coalesce enqueues one job for the last "
        "of them, catch up one for each.",
    )


class Schedule(BaseModel):
    """What enqueues a job at each tick."""

    schedule: str
    cron: str
    time_zone: str
    job: dict[str, Any] = Field(description="What was given, in the words of POST /jobs.")
    missed_ticks: MissedTicks
    paused: bool
    next_at: datetime | None = Field(description="The next tick. Null while it is paused.")
    last_at: datetime | None = Field(description="The last tick that enqueued a job.")
    last_job_id: str | None
    last_error: str | None = Field(description="Why the last tick failed, if it did.")


@router.get(
    "/schedules",
    operation_id="listSchedules",
    response_model=list[Schedule],
    responses=problems(),
)
async def list_schedules(caller: CallerOf) -> Response:
    """Return all schedules, by name."""
    rows = await caller.call("list_schedules", _LIST_SCHEDULES)
    return JsonResponse(json_array(body for (body,) in rows))


@router.get(
    "/schedules/{schedule:name}",
    operation_id="getSchedule",
    response_model=Schedule,
    responses=problems(404),
)
async def get_schedule(schedule: PathName, caller: CallerOf) -> Response:
    """Return one schedule."""
    return await _one(caller, "list_schedules", _GET_SCHEDULE, schedule)


@router.put(
    "/schedules/{schedule:name}",
    operation_id="setSchedule",
    response_model=Schedule,
    responses={
        200: {"description": "The schedule was there before, and is now this"},
        201: {"model": Schedule, "description": "There is such a schedule now"},
        **problems(404, 413, 415),
    },
)
async def set_schedule(schedule: PathName, new: NewSchedule, caller: CallerOf) -> Response:
    """Make a schedule, or change one. The job is tried out: one that is wrong is refused now.

    A schedule that was paused stays paused. If neither cron nor the time zone change, ticks that
    have passed unseen are still made up for.
    """
    rows = await caller.call(
        "set_schedule",
        _SET_SCHEDULE,
        {
            "schedule": schedule,
            **dict(new),
            "job": new.job.model_dump_json(by_alias=True, exclude_unset=True),
        },
    )
    [(body, existed)] = rows
    return JsonResponse(body, 200 if existed else 201)


@router.delete(
    "/schedules/{schedule:name}",
    operation_id="deleteSchedule",
    status_code=204,
    response_class=Response,
    responses=problems(404),
)
async def delete_schedule(schedule: PathName, caller: CallerOf) -> Response:
    """End a schedule. The jobs that it has enqueued stay."""
    await caller.call("delete_schedule", _DELETE_SCHEDULE, {"schedule": schedule})
    return Response(status_code=204)


@router.post(
    "/schedules/{schedule:name}/pause",
    operation_id="pauseSchedule",
    response_model=Schedule,
    responses=problems(404),
)
async def pause_schedule(schedule: PathName, caller: CallerOf) -> Response:
    """Stop a schedule: it enqueues nothing."""
    return await _one(caller, "pause_schedule", _PAUSE_SCHEDULE, schedule)


@router.post(
    "/schedules/{schedule:name}/resume",
    operation_id="resumeSchedule",
    response_model=Schedule,
    responses=problems(404),
)
async def resume_schedule(schedule: PathName, caller: CallerOf) -> Response:
    """Let a schedule go on from now: ticks that passed meanwhile are not made up for."""
    return await _one(caller, "resume_schedule", _RESUME_SCHEDULE, schedule)


async def _one(caller: Caller, function: str, query: str, schedule: str) -> Response:
    rows = await caller.call(function, query, {"schedule": schedule})
    if not rows:
        raise Problem("not-found", f"schedule {schedule} does not exist")
    return JsonResponse(rows[0][0])
