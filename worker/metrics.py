"""What Prometheus is told."""

from datetime import timedelta

from prometheus_client import Counter, Gauge, Histogram

from worker.queue import Job

_SECONDS = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 43200)

CLAIMED = Counter("worker_jobs_claimed", "Jobs claimed.", ["job_type"])
ENDED = Counter(
    "worker_jobs_ended",
    "Runs that ended, by what the queue was told: complete, fail, snooze or release; lost: the"
    " claim did not hold, and the outcome was discarded.",
    ["job_type", "outcome"],
)
DURATION = Histogram(
    "worker_job_duration_seconds", "How long handlers ran.", ["job_type"], buckets=_SECONDS
)
DELAY = Histogram(
    "worker_job_delay_seconds",
    "How long jobs had been due when they were claimed, by the clock of the database.",
    ["job_type"],
    buckets=_SECONDS,
)
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


class JobTypeMetrics:
    """The metrics of one type of jobs, looked up once."""

    def __init__(self, job_type: str) -> None:
        self._claimed = CLAIMED.labels(job_type)
        self._duration = DURATION.labels(job_type)
        self._delay = DELAY.labels(job_type)
        self._ended = {
            outcome: ENDED.labels(job_type, outcome)
            for outcome in ("complete", "fail", "snooze", "release", "lost")
        }

    def claimed(self, job: Job) -> None:
        """Count a claim."""
        self._claimed.inc()
        self._delay.observe(max((job.claimed_at - job.run_at) / timedelta(seconds=1), 0.0))

    def ended(self, outcome: str, seconds: float | None) -> None:
        """Count a run that ended and, if it had started, how long its handler ran."""
        self._ended[outcome].inc()
        if seconds is not None:
            self._duration.observe(seconds)
