"""The REST API: `uvicorn api.main:app`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import errors, logs, metrics, openapi
from api.access import RateLimitHeaders
from api.connections import OneLength
from api.database import Database
from api.lines import Lines
from api.middleware import Application
from api.routes import claims, docs, events, jobs, keys, operations, queues, schedules, workers
from api.routes.names import KeepSlashes
from api.settings import Settings
from api.stopping import stopping
from api.watch import Watcher


def create_app(settings: Settings) -> FastAPI:
    """Make the application; it connects when it starts, whether or not the database is there."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            stopping() as told_to_stop,
            Database(settings) as database,
            metrics.observing_pool(database),
            Watcher(settings, database, told_to_stop) as watcher,
            Lines(settings, database, told_to_stop, claims.CLAIM_FROM_QUEUES) as lines,
        ):
            app.state.stopping = told_to_stop
            app.state.database = database
            app.state.watcher = watcher
            app.state.lines = lines
            app.state.queue_metrics = metrics.QueueMetrics(database)
            app.state.scrapers = set()
            app.state.enqueue = jobs.enqueue_in_groups(database)
            yield

    app = Application(
        settings.cors_origins,
        title="async-job-orchestrator",
        summary="The job queue that is just Postgres.",
        version="1.0.0",
        lifespan=lifespan,
        max_body_size=settings.max_body_bytes,
        docs_url=None,
        # It would lead wherever the Host header says, and keys from https to http.
        redirect_slashes=False,
        redoc_url=None,
    )
    app.state.settings = settings
    app.include_router(jobs.router)
    app.include_router(events.router)
    app.include_router(claims.router)
    app.include_router(queues.router)
    app.include_router(schedules.router)
    app.include_router(workers.router)
    app.include_router(keys.router)
    app.include_router(operations.router)
    app.include_router(docs.router)
    errors.install(app)
    app.add_middleware(RateLimitHeaders)
    app.add_middleware(KeepSlashes)
    app.add_middleware(OneLength)
    openapi.install(app)
    return app


settings = Settings.from_environment()
logs.configure(settings)
app = create_app(settings)
