"""The REST API: `uvicorn api.main:app`."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

import pydantic_core
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.routing import APIRoute

from api import errors
from api.database import Database
from api.models import CreatedJob, Health, Job, NewJob, Problem
from api.settings import Settings

MAX_BODY_BYTES = 16 * 1024 * 1024


class _JsonRequest(Request):
    async def json(self) -> Any:
        """Parse the body strictly: NaN, lone surrogates and endless numbers are not JSON."""
        if not hasattr(self, "_json"):
            try:
                self._json = pydantic_core.from_json(await self.body(), allow_inf_nan=False)
            except ValueError as error:
                raise HTTPException(422, f"body: not JSON: {error}") from None
        return self._json


class _JsonRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json


def _database(request: Request) -> Database:
    return request.app.state.database  # type: ignore[no-any-return]


Db = Annotated[Database, Depends(_database)]
router = APIRouter(route_class=_JsonRoute)


@router.post(
    "/jobs",
    status_code=201,
    response_model=CreatedJob,
    responses={422: {"model": Problem}, 503: {"model": Problem}},
)
async def create_job(new_job: NewJob, database: Db) -> Response:
    """Enqueue a job. Once this has answered 201, the job is committed."""
    job_id, body = await database.enqueue_job(new_job.sleep_seconds, new_job.message)
    return Response(
        body, 201, headers={"Location": f"/jobs/{job_id}"}, media_type="application/json"
    )


@router.get(
    "/jobs/{job_id}",
    response_model=Job,
    responses={404: {"model": Problem}, 422: {"model": Problem}, 503: {"model": Problem}},
)
async def get_job(job_id: UUID, database: Db) -> Response:
    """Return one job."""
    body = await database.get_job(job_id)
    if body is None:
        raise HTTPException(404, f"job {job_id} does not exist")
    return Response(body, media_type="application/json")


@router.get("/jobs", response_model=list[Job], responses={503: {"model": Problem}})
async def list_jobs(database: Db) -> Response:
    """Return all jobs, newest first."""
    pages = database.list_jobs()
    first_page = await anext(pages)

    async def json_array() -> AsyncIterator[str]:
        yield "[" + ",\n".join(first_page)
        async for page in pages:
            if page:
                yield ",\n" + ",\n".join(page)
        yield "]"

    return StreamingResponse(json_array(), media_type="application/json")


@router.get("/health", response_model=Health, responses={503: {"model": Health}})
async def health(database: Db) -> Response:
    """Say whether the database answers and has the schema."""
    reason = await database.unavailable_because()
    if reason is not None:
        return JSONResponse({"status": "unavailable", "reason": reason}, 503)
    return JSONResponse({"status": "ok"})


def create_app(settings: Settings) -> FastAPI:
    """Make the application; it connects when it starts, whether or not the database is there."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Database(settings) as database:
            app.state.database = database
            yield

    app = FastAPI(
        title="async-job-orchestrator",
        summary="The job queue that is just Postgres.",
        version="1.0.0",
        lifespan=lifespan,
        max_body_size=MAX_BODY_BYTES,
    )
    app.include_router(router)
    errors.install(app)
    return app


app = create_app(Settings.from_environment())
