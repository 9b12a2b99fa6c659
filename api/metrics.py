"""What Prometheus is told: how requests and the pool fare and, asked of the database, the queue.

Where several processes serve, each has metrics of its own, and a scrape sees those of one. With
PROMETHEUS_MULTIPROC_DIR they share them by files in that directory, which is to be empty when the
first of them starts. The queue's come from the database, once, either way.
"""

import asyncio
import glob
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from api.database import Database, Rows

logger = logging.getLogger(__name__)

if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    os.makedirs(os.environ["PROMETHEUS_MULTIPROC_DIR"], exist_ok=True)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

_POOL_SECONDS = 5.0

_REQUEST = ["method", "route", "status"]
REQUESTS = Counter("api_http_requests", "Requests answered.", _REQUEST)
DURATION = Histogram(
    "api_http_request_duration_seconds",
    "How long requests took, to the end of the response.",
    _REQUEST,
    buckets=_SECONDS,
)
IN_PROGRESS = Gauge(
    "api_http_requests_in_progress", "Requests under way now.", multiprocess_mode="livesum"
)
CONNECTIONS = Gauge(
    "api_database_connections",
    "Connections of the pool: in use, or idle.",
    ["state"],
    multiprocess_mode="livesum",
)
CONNECTIONS_LIMIT = Gauge(
    "api_database_connections_limit",
    "How many connections the pool may have.",
    multiprocess_mode="livesum",
)
WAITING = Gauge(
    "api_database_requests_waiting",
    "Calls that wait for a connection of the pool.",
    multiprocess_mode="livesum",
)

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
OTHER = "other"
"""The label of a method or a route that the API does not have: clients can invent many."""

_requests: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}


def observe_request(method: str, route: str | None, status: int, seconds: float) -> None:
    """Count a request that has been answered."""
    labels = (method if method in _METHODS else OTHER, route or OTHER, status)
    if labels not in _requests:
        _requests[labels] = (REQUESTS.labels(*labels), DURATION.labels(*labels))
    requests, duration = _requests[labels]
    requests.inc()
    duration.observe(seconds)


def observe_pool(database: Database) -> None:
    """Note how the pool of this process stands."""
    statistics = database.pool_statistics()
    size, idle = statistics.get("pool_size", 0), statistics.get("pool_available", 0)
    CONNECTIONS.labels("idle").set(idle)
    CONNECTIONS.labels("in use").set(size - idle)
    CONNECTIONS_LIMIT.set(statistics.get("pool_max", 0))
    WAITING.set(statistics.get("requests_waiting", 0))


@asynccontextmanager
async def observing_pool(database: Database) -> AsyncIterator[None]:
    """Note it every few seconds, for scrapes that another process answers."""

    async def observe() -> None:
        while True:
            observe_pool(database)
            await asyncio.sleep(_POOL_SECONDS)

    task = asyncio.create_task(observe())
    try:
        yield
    finally:
        task.cancel()


# The queue

_STATUSES = ("blocked", "queued", "running", "succeeded", "failed", "cancelled")

_QUEUES = f"""
select queue, paused, ready, coalesce(extract(epoch from oldest_ready_age), 0)::float8,
       {", ".join(_STATUSES)}
  from job_queue.queue_statistics
"""

_EVENTS = "select queue, verb, to_status, events, run_seconds from job_queue.count_events()"

_COUNTERS: dict[str, tuple[str, set[str] | None, str | None]] = {
    "job_queue_enqueued": ("Jobs enqueued.", {"enqueue"}, None),
    "job_queue_claims": ("Runs begun.", {"claim"}, None),
    "job_queue_completed": ("Jobs that succeeded.", {"complete"}, None),
    "job_queue_failures": ("Jobs that failed for good.", None, "failed"),
    "job_queue_cancellations": ("Jobs cancelled.", None, "cancelled"),
    "job_queue_retries": ("Runs that failed and are tried again.", {"fail", "time_out"}, "queued"),
    "job_queue_timeouts": ("Runs that took longer than their timeout.", {"time_out"}, None),
    "job_queue_losses": ("Runs lost together with their worker.", {"reclaim"}, None),
    "job_queue_snoozes": ("Runs that put their job off.", {"snooze"}, None),
    "job_queue_releases": ("Runs that handed their job back.", {"release"}, None),
    "job_queue_revivals": ("Ended jobs that somebody queued again.", {"retry"}, None),
}
"""Each counter, what it counts, and of which events: their verbs and their new status."""

_RUN_ENDS = {"complete", "fail", "time_out", "reclaim", "snooze", "release"}

_FRESH_SECONDS = 1.0
_FRESH_FOR_EACH_SECOND = 10.0


class QueueMetrics:
    """Asks the database, for one scrape at a time, and not again while the answer is fresh.

    It is fresh for a second or, as what is asked reads much, for ten times as long as it took:
    however many scrape, the database spends a tenth of one core on it at most.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asking = asyncio.Lock()
        self._fresh_until = 0.0
        self._families: list[Metric] = []
        self._failure: str | None = None

    async def families(self) -> list[Metric]:
        """Return the metrics of the queue, or that it is not up."""
        async with self._asking:
            started = time.monotonic()
            if started >= self._fresh_until:
                self._families = await self._ask()
                ended = time.monotonic()
                took = ended - started
                self._fresh_until = ended + max(_FRESH_SECONDS, _FRESH_FOR_EACH_SECOND * took)
            return self._families

    async def _ask(self) -> list[Metric]:
        failure = None
        families: list[Metric] = []
        try:
            queues, events = await self._database.fetch_apart(_QUEUES, _EVENTS)
            families = [*_queue_families(queues), *_event_families(events)]
        except TimeoutError:
            failure = "the database did not answer in time"
        except psycopg.Error as error:
            failure = " ".join(str(error).split())
        if failure is not None and failure != self._failure:
            logger.warning("no metrics of the queue: %s", failure)
        self._failure = failure
        up = "Whether the database could be asked for the metrics of the queue."
        return [GaugeMetricFamily("job_queue_up", up, value=failure is None), *families]


def _queue_families(rows: Rows) -> Iterator[Metric]:
    jobs = GaugeMetricFamily(
        "job_queue_jobs",
        "Jobs, by status. Some are estimates where there are more than 100,000.",
        labels=["queue", "status"],
    )
    paused = GaugeMetricFamily("job_queue_paused", "Whether it is paused.", labels=["queue"])
    ready = GaugeMetricFamily(
        "job_queue_ready_jobs", "Jobs that could be claimed now.", labels=["queue"]
    )
    age = GaugeMetricFamily(
        "job_queue_oldest_ready_age_seconds",
        "How long the first of these has been ready; 0 if there is none.",
        labels=["queue"],
    )
    for queue, is_paused, ready_jobs, oldest_ready_age, *counts in rows:
        for status, count in zip(_STATUSES, counts, strict=True):
            jobs.add_metric([queue, status], count)
        paused.add_metric([queue], is_paused)
        ready.add_metric([queue], ready_jobs)
        age.add_metric([queue], oldest_ready_age)
    yield from (jobs, ready, age, paused)


def _event_families(rows: Rows) -> Iterator[Metric]:
    queues = sorted({queue for queue, *_ in rows})
    for name, (what, verbs, status) in _COUNTERS.items():
        counter = CounterMetricFamily(name, what, labels=["queue"])
        for queue in queues:
            counts = [
                events
                for of_queue, verb, to_status, events, _ in rows
                if of_queue == queue
                and verb in (verbs or {verb})
                and to_status == (status or to_status)
            ]
            counter.add_metric([queue], sum(counts))
        yield counter
    duration = SummaryMetricFamily(
        "job_queue_run_duration_seconds", "How long runs took.", labels=["queue", "outcome"]
    )
    runs: dict[tuple[str, str], list[float]] = {}
    for queue, verb, _, events, seconds in rows:
        if verb in _RUN_ENDS:
            total = runs.setdefault((queue, verb), [0, 0.0])
            total[0] += events
            total[1] += seconds or 0.0
    for labels, (count, seconds) in sorted(runs.items()):
        duration.add_metric(labels, int(count), seconds)
    yield duration


# The scrape


class _All(Collector):
    """The metrics of the processes, and after them those of the queue."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from _of_processes().collect()
        yield from self._families


def _of_processes() -> Any:
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory is None:
        return REGISTRY
    for path in glob.glob(os.path.join(directory, "gauge_live*_*.db")):
        pid = int(path.rpartition("_")[2].removesuffix(".db"))
        if not _is_alive(pid):
            mark_process_dead(pid, directory)  # type: ignore[no-untyped-call]
    return MultiProcessCollector(None, directory)  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def exposition(accept: str, families: Iterable[Metric]) -> tuple[bytes, str]:
    """Return all metrics, and the media type: OpenMetrics for whoever accepts that."""
    encode, media_type = choose_encoder(accept)
    return encode(_All(families)), media_type
