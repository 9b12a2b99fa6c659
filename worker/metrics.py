"""What Prometheus is told."""

from bisect import bisect_left
from collections.abc import Iterator
from datetime import timedelta

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric

from worker.queue import Job

_SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43200)
_OUTCOMES = ("complete", "fail", "snooze", "release", "lost")
_SECOND = timedelta(seconds=1)

RUNNING = Gauge("worker_jobs_running", "Handlers that run now.")
WAITING = Gauge("worker_jobs_waiting", "Jobs claimed ahead, which have not started.")
CAPACITY = Gauge("worker_concurrency", "How many handlers may run at a time.")
UNAVAILABLE = Counter(
    "worker_database_unavailable", "Calls of the database that did not succeed.", ["call"]
)
HEARTBEATS = Counter("worker_heartbeats", "Calls of heartbeat that succeeded.")
LAST_ANSWER = Gauge(
    "worker_database_last_answer_timestamp_seconds",
    "When the database last answered the worker's loop, in Unix time.",
)


class _Histogram:
    """How often values were seen, by the bucket that they fall in."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_SECONDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(_SECONDS, seconds)] += 1
        self._sum += seconds

    def add_to(self, family: HistogramMetricFamily, job_type: str) -> None:
        counts, total, buckets = list(self._counts), 0, []
        for bound, count in zip((*map(float, _SECONDS), "+Inf"), counts, strict=True):
            total += count
            buckets.append((str(bound), total))
        family.add_metric([job_type], buckets, self._sum)


class JobTypeMetrics:
    """The metrics of one type of jobs. Only the worker's loop counts, so that no lock is needed.

    They are counted here and handed over when somebody asks: prometheus_client's own take six times
    as long for a job, and were a quarter of what the worker itself does for one.
    """

    def __init__(self, job_type: str) -> None:
        self.claims = 0
        self.delay = _Histogram()
        self.ends = dict.fromkeys(_OUTCOMES, 0)
        self.duration = _Histogram()
        _by_type[job_type] = self

    def claimed(self, job: Job) -> None:
        """Count a claim."""
        self.claims += 1
        self.delay.observe(max((job.claimed_at - job.run_at) / _SECOND, 0.0))

    def ended(self, outcome: str, seconds: float | None) -> None:
        """Count a run that ended and, if it had started, how long its handler ran."""
        self.ends[outcome] += 1
        if seconds is not None:
            self.duration.observe(seconds)


_by_type: dict[str, JobTypeMetrics] = {}


class _Collector:
    """Hands over what has been counted."""

    def collect(self) -> Iterator[Metric]:
        labels = ["job_type"]
        claimed = CounterMetricFamily("worker_jobs_claimed", "Jobs claimed.", labels=labels)
        ended = CounterMetricFamily(
            "worker_jobs_ended",
            "Runs that ended, by what the queue was told: complete, fail, snooze or release; lost:"
            " the claim did not hold, and the outcome was discarded.",
            labels=["job_type", "outcome"],
        )
        duration = HistogramMetricFamily(
            "worker_job_duration_seconds", "How long handlers ran.", labels=labels
        )
        delay = HistogramMetricFamily(
            "worker_job_delay_seconds",
            "How long jobs had been due when they were claimed, by the clock of the database.",
            labels=labels,
        )
        for job_type, of_type in list(_by_type.items()):
            claimed.add_metric([job_type], of_type.claims)
            for outcome, count in of_type.ends.items():
                ended.add_metric([job_type, outcome], count)
            of_type.duration.add_to(duration, job_type)
            of_type.delay.add_to(delay, job_type)
        yield from (claimed, ended, duration, delay)


REGISTRY.register(_Collector())
