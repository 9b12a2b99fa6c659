"""/health, /livez, /readyz and /metrics: how the API itself fares."""

import asyncio
from typing import Any

import psycopg
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api import metrics
from api.access import Caller, CallerOf
from api.database import Key
from api.models import Health
from api.routes.common import problems

router = APIRouter(tags=["operations"])

_METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Metrics in the text format of Prometheus, or in OpenMetrics",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
}


@router.get(
    "/health", operation_id="getHealth", response_model=Health, responses={503: {"model": Health}}
)
async def health(request: Request) -> Response:
    """Say whether the database answers and has the schema."""
    return _health(await request.app.state.database.unavailable_because())


@router.get("/livez", operation_id="getLiveness", response_model=Health)
async def livez() -> Response:
    """Say that the process answers. It asks nobody else: restart it if this fails."""
    return JSONResponse({"status": "ok"})


@router.get(
    "/readyz",
    operation_id="getReadiness",
    response_model=Health,
    responses={503: {"model": Health}},
)
async def readyz(request: Request) -> Response:
    """Say whether to send requests here: as /health, but not any more once it shuts down."""
    stopping = getattr(request.app.state, "stopping", None)
    if stopping is not None and stopping.is_set():
        return _health("the API is shutting down")
    return _health(await request.app.state.database.unavailable_because())


def _health(reason: str | None) -> Response:
    if reason is not None:
        return JSONResponse({"status": "unavailable", "reason": reason}, 503)
    return JSONResponse({"status": "ok"})


@router.get(
    "/metrics",
    operation_id="getMetrics",
    response_class=Response,
    responses={**_METRICS, **problems()},
)
async def read_metrics(request: Request, caller: CallerOf) -> Response:
    """Return the metrics of the API and of the queue. A key needs the scope operator."""
    state = request.app.state
    if caller.key:
        await _authorize(caller, state.scrapers)
    metrics.observe_pool(state.database)
    families = await state.queue_metrics.families()
    accept = request.headers.get("accept", "")
    body, media_type = await asyncio.to_thread(metrics.exposition, accept, families)
    return Response(body, headers={"Content-Type": media_type})


async def _authorize(caller: Caller, scrapers: set[Key]) -> None:
    """Let in whose key the database lets or, while it is away, has let before."""
    assert caller.key is not None
    try:
        await caller.call("count_events", "select")
    except (psycopg.Error, TimeoutError) as error:
        if (getattr(error, "sqlstate", None) or "").startswith("JQ"):
            scrapers.discard(caller.key)
        if caller.key not in scrapers:
            raise
    else:
        scrapers.add(caller.key)
