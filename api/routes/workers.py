"""/workers and /health/checks: who works, and what would hurt next."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from api.access import CallerOf
from api.routes.common import UTC, JsonResponse, JsonRoute, json_array, problems

router = APIRouter(route_class=JsonRoute, tags=["operations"])

_WORKERS = f"""
select json_build_object(
         'worker', worker.worker,
         'queues', worker.queues,
         'job_types', worker.job_types,
         'seen_at', {UTC.format("worker.seen_at")},
         'last_beat_at', {UTC.format("worker.last_beat_at")},
         'claims', worker.claims,
         'expired_claims', worker.expired_claims,
         'oldest_claim_at', {UTC.format("worker.oldest_claim_at")},
         'job_ids', coalesce(worker.job_ids, '{{}}'))::text
  from job_queue.workers as worker
 order by worker.worker
"""

_HEALTH = """
select json_build_object(
         'aspect', checked.aspect,
         'severity', checked.severity,
         'detail', checked.detail)::text
  from job_queue.health as checked
"""


class Worker(BaseModel):
    """Who has asked for work within the last day, or runs a job."""

    worker: str | None = Field(description="Null: those that gave no name, together.")
    queues: list[str] | None = Field(description="Those that it serves. Null: all.")
    job_types: list[str] | None = Field(description="Those that it runs. Null: all.")
    seen_at: datetime | None = Field(description="When it last asked for work, roughly.")
    last_beat_at: datetime | None = Field(description="When it last renewed a lease, or claimed.")
    claims: int = Field(description="How many jobs it runs.")
    expired_claims: int = Field(description="How many of these are about to be taken from it.")
    oldest_claim_at: datetime | None
    job_ids: list[UUID] = Field(description="The jobs that it runs, the first claimed first.")


class Check(BaseModel):
    """One thing that was looked at."""

    aspect: str = Field(examples=["maintenance"])
    severity: Literal["ok", "warning", "critical"]
    detail: str


@router.get(
    "/workers",
    operation_id="listWorkers",
    response_model=list[Worker],
    responses=problems(),
)
async def list_workers(caller: CallerOf) -> Response:
    """Say who works, and on what."""
    rows = await caller.call("workers", _WORKERS)
    return JsonResponse(json_array(body for (body,) in rows))


@router.get(
    "/health/checks",
    operation_id="listHealthChecks",
    response_model=list[Check],
    responses=problems(),
)
async def health_checks(caller: CallerOf) -> Response:
    """Say what would hurt next: dead rows, stalled maintenance, missing workers and so on."""
    rows = await caller.call("health", _HEALTH)
    return JsonResponse(json_array(body for (body,) in rows))
