"""The worker's calls of the queue's functions."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from worker.connection import InvalidValue, Link, QueueUnavailable

_CLAIM_COLUMNS = """
  id, claim_id, job_type, payload, queue, priority, attempt, max_attempts, losses, timeout,
  created_at, greatest(run_at, '0001-01-02 00:00:00+00') as run_at, updated_at as claimed_at,
  sleep_seconds, message, trace_context
"""
"""Python's calendar begins with the year 1; that of Postgres does not."""

_CLAIM_JOBS = f"""
select {_CLAIM_COLUMNS}
  from job_queue.claim_jobs(
         p_limit => %(limit)s, p_worker => %(worker)s, p_queues => %(queues)s,
         p_job_types => %(job_types)s, p_lease => %(lease)s)
"""

_CLAIM_NEXT_JOB = f"""
select {_CLAIM_COLUMNS}
  from job_queue.claim_next_job(
         p_worker => %(worker)s, p_queues => %(queues)s, p_job_types => %(job_types)s,
         p_lease => %(lease)s)
"""
"""The same for one job, in less time: what a worker that was idle wants."""

_COMPLETE_AND_CLAIM = f"""
select {_CLAIM_COLUMNS}, refusal
  from job_queue.complete_and_claim(
         p_runs => %(runs)s::jsonb, p_limit => %(limit)s, p_worker => %(worker)s,
         p_queues => %(queues)s, p_job_types => %(job_types)s, p_lease => %(lease)s)
"""

_COMPLETE_JOBS = """
select claim_id, refusal from job_queue.complete_jobs(p_runs => %(runs)s::jsonb)
"""

_FAIL_JOBS = """
select claim_id, refusal from job_queue.fail_jobs(p_runs => %(runs)s::jsonb)
"""

_RELEASE_JOBS = """
select claim_id, refusal from job_queue.release_jobs(p_runs => %(runs)s::jsonb)
"""

_SNOOZE_JOB = """
select job_queue.snooze_job(
         p_job_id => %(job_id)s, p_claim_id => %(claim_id)s, p_delay => %(delay)s)
"""

_HEARTBEAT = """
select claim_id, held, cancel_requested from job_queue.heartbeat(p_claim_ids => %(claim_ids)s)
"""

_RUN_MAINTENANCE = """
select coalesce((done ->> 'more')::boolean, false)
  from job_queue.run_maintenance(p_unless_within => %(unless_within)s) as done
"""

_START_LISTENING = """
select job_queue.start_listening(p_queues => %(queues)s)
"""

_STOP_LISTENING = """
select job_queue.stop_listening(p_queues => %(queues)s)
"""


class Job(NamedTuple):
    """A claimed job: a row of _CLAIM_COLUMNS."""

    id: UUID
    claim_id: int
    job_type: str
    payload: str
    """JSON."""
    queue: str
    priority: int
    attempt: int
    """1 for the first."""
    max_attempts: int
    losses: int
    """How often a worker died, or was silent for too long, while it ran the job."""
    timeout: timedelta | None
    """How long this attempt may take."""
    created_at: datetime
    run_at: datetime
    claimed_at: datetime
    sleep_seconds: int = 0
    message: str | None = None
    trace_context: str | None = None
    """JSON: the enqueuer's W3C trace context."""


Ends = dict[int, str | None]
"""For each claim id the SQLSTATE with which the end of the run was refused, or None."""


class Queue:
    """The queue as one worker sees it, over one connection. Every call is one transaction.

    Each method raises QueueUnavailable when it could not be known to succeed: call it again.
    """

    def __init__(
        self,
        link: Link,
        worker: str,
        lease_seconds: float,
        job_types: Sequence[str],
        queues: Callable[[], list[str] | None] = lambda: None,
    ) -> None:
        self.link = link
        self._queues = queues
        self._claim_arguments = {
            "worker": worker,
            "lease": timedelta(seconds=lease_seconds),
            "job_types": list(job_types),
        }

    def claim(self, limit: int) -> list[Job]:
        """Claim the next jobs that this worker can run, at most so many."""
        arguments = {**self._claim_arguments, "queues": self._queues(), "limit": limit}
        try:
            rows = self.link.call(_CLAIM_NEXT_JOB if limit == 1 else _CLAIM_JOBS, arguments)
        except InvalidValue as error:
            raise QueueUnavailable(str(error)) from None
        return [Job._make(row) for row in rows]

    def complete_and_claim(
        self, completions: Iterable[tuple[Job, str]], limit: int
    ) -> tuple[Ends, list[Job]]:
        """Report success, with the results as JSON, and claim the next jobs."""
        completed = list(completions)
        ends: Ends = dict.fromkeys((job.claim_id for job, _ in completed))
        rows = self.link.call(
            _COMPLETE_AND_CLAIM,
            {
                **self._claim_arguments,
                "queues": self._queues(),
                "limit": limit,
                "runs": _runs(completed),
            },
        )
        jobs = []
        for *columns, refusal in rows:
            job = Job._make(columns)
            if refusal is None:
                jobs.append(job)
            else:  # of such a row nothing else is there
                ends[job.claim_id] = refusal
        return ends, jobs

    def complete(self, completions: Iterable[tuple[Job, str]]) -> Ends:
        """Report success, with the results as JSON. Raises InvalidValue for one of them."""
        return self._end(_COMPLETE_JOBS, _runs(completions))

    def fail(self, failures: Iterable[tuple[Job, str]]) -> Ends:
        """Report failure; each with its error, retryable and retry_in as members of JSON."""
        return self._end(_FAIL_JOBS, _runs(failures, member=""))

    def release(self, jobs: Iterable[Job]) -> Ends:
        """Hand jobs back unfinished; the attempt does not count."""
        return self._end(_RELEASE_JOBS, _runs(((job, "") for job in jobs), member=""))

    def snooze(self, job: Job, delay: timedelta) -> None:
        """Put the job off. Raises ClaimRefused if the claim does not hold."""
        self.link.call(_SNOOZE_JOB, {"job_id": job.id, "claim_id": job.claim_id, "delay": delay})

    def heartbeat(self, claim_ids: Sequence[int]) -> dict[int, tuple[bool, bool]]:
        """Renew the leases; return for each claim whether it holds and whether to stop."""
        rows = self.link.call(_HEARTBEAT, {"claim_ids": list(claim_ids)})
        return {claim_id: (held, cancel_requested) for claim_id, held, cancel_requested in rows}

    def run_maintenance(self, unless_within: float) -> bool:
        """Fire schedules, prune old jobs and so on, unless somebody has within so many seconds.

        Return whether there is more to do than one call takes on.
        """
        within = timedelta(seconds=unless_within)
        [(has_more,)] = self.link.call(_RUN_MAINTENANCE, {"unless_within": within})
        return bool(has_more)

    def start_listening(self, queues: list[str] | None) -> bool:
        """Ask to be notified of new jobs; return whether notifications will come."""
        [(is_listening,)] = self.link.call(_START_LISTENING, {"queues": queues})
        return bool(is_listening)

    def stop_listening(self, queues: list[str] | None) -> None:
        """Ask not to be."""
        self.link.call(_STOP_LISTENING, {"queues": queues})

    def _end(self, query: str, runs: str) -> Ends:
        return dict(self.link.call(query, {"runs": runs}))


def _runs(members: Iterable[tuple[Job, str]], member: str = ', "result": ') -> str:
    """Return the runs as JSON, from parts that are JSON already."""
    return (
        "["
        + ", ".join(
            f'{{"job_id": "{job.id}", "claim_id": {job.claim_id}{member}{text}}}'
            for job, text in members
        )
        + "]"
    )
