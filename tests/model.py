"""What the queue's documentation says of jobs, claims and queues, as a small program.

It keeps everything in lists and looks through all of them each time. Nothing of it is taken from
the SQL: test_model.py holds the one against the other.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

START = datetime(2050, 1, 1, tzinfo=UTC)
"""When the examples begin: long after any server was started, for a lease counts from then."""

ENDED = {"succeeded", "failed", "cancelled"}
UNFINISHED = {"blocked", "queued", "running"}

LOST = "lost with its worker"
TIMED_OUT = "timed out after"


class Event(NamedTuple):
    """A line of a job's history."""

    job_id: Any
    verb: str
    before: str | None
    after: str
    claim_id: int | None
    attempt: int | None


@dataclass
class Queue:
    """A policy; without one a queue has these values."""

    paused: bool = False
    concurrency_limit: int | None = None
    key_concurrency_limit: int | None = None
    max_attempts: int | None = None
    max_losses: int | None = None


@dataclass
class Job:
    """A job, in the words of the table."""

    id: Any
    arrival: int
    created_at: datetime
    updated_at: datetime
    run_at: datetime
    queue: str = "a"
    job_type: str = "x"
    priority: int = 1
    max_attempts: int = 1
    max_losses: int = 3
    retry_delay: timedelta = timedelta(seconds=15)
    retry_delay_max: timedelta = timedelta(hours=1)
    timeout: timedelta | None = None
    unique_key: str | None = None
    concurrency_key: str | None = None
    depends_on: list[Any] | None = None
    on_parent_failure: str = "cancel"
    status: str = "queued"
    attempts: int = 0
    losses: int = 0
    cancel_requested: bool = False
    failed_at: datetime | None = None
    result: Any = None
    waits_for: list["Job"] = field(default_factory=list)
    may_wait: timedelta | None = None
    """If its next attempt is at some time between now and then, which the database chooses."""

    @property
    def place(self) -> tuple[int, datetime, int]:
        """Where it stands in its queue."""
        return self.priority, self.run_at, self.arrival


@dataclass
class Claim:
    """A claim, in the words of the table."""

    claim_id: int
    job: Job
    worker: str
    lease: timedelta
    claimed_at: datetime
    expires_at: datetime
    deadline_at: datetime | None
    progress: Any = None


class Model:
    """The queue as documented."""

    def __init__(self) -> None:
        self.now = START
        self.jobs: dict[Any, Job] = {}
        self.claims: dict[int, Claim] = {}
        self.past_claims: list[tuple[Any, int]] = []
        self.queues: dict[str, Queue] = {}
        self.events: list[Event] = []
        self.aside: set[Any] = set()
        self.recovered_at: datetime | None = None

    def policy(self, queue: str) -> Queue:
        return self.queues.get(queue, Queue())

    def with_status(self, *statuses: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.status in statuses]

    def holder(self, queue: str, unique_key: str | None) -> Job | None:
        """Return the unfinished job of the queue that has this unique key."""
        for job in self.with_status(*UNFINISHED):
            if unique_key is not None and (job.queue, job.unique_key) == (queue, unique_key):
                return job
        return None

    def due(self) -> list[Job]:
        return [job for job in self.with_status("queued") if job.run_at <= self.now]

    def instants_ahead(self) -> list[datetime]:
        """Return when leases and timeouts run out and jobs become due."""
        instants = [job.run_at for job in self.with_status("queued")]
        for claim in self.claims.values():
            instants += [claim.expires_at, claim.deadline_at or self.now]
        return sorted({instant for instant in instants if instant > self.now})

    # What happens to a job

    def move(
        self, job: Job, verb: str, after: str, claim_id: int | None = None, attempt: Any = None
    ) -> None:
        before = job.status
        job.status = after
        job.updated_at = self.now
        self.events.append(Event(job.id, verb, before, after, claim_id, attempt))
        if after in ENDED:
            self.settle(job)

    def settle(self, parent: Job) -> None:
        """Unblock or cancel the jobs that wait for one that has ended."""
        for child in self.with_status("blocked"):
            if parent not in child.waits_for or child.status != "blocked":
                continue
            child.waits_for.remove(parent)
            if parent.status != "succeeded" and child.on_parent_failure == "cancel":
                self.move(child, "cancel", "cancelled")
            elif not child.waits_for:
                self.move(child, "unblock", "queued")

    def add(self, job_id: Any, queue: str = "a", **given: Any) -> Job:
        """Enqueue a job, its dependencies still unsettled."""
        policy = self.policy(queue)
        given.setdefault("max_attempts", policy.max_attempts or 1)
        given.setdefault("max_losses", 3 if policy.max_losses is None else policy.max_losses)
        given["run_at"] = given.get("run_at", self.now) + given.pop("delay", timedelta())
        job = Job(job_id, len(self.jobs), self.now, self.now, queue=queue, **given)
        parents = dict.fromkeys(job.depends_on or [])
        job.waits_for = [self.jobs[parent] for parent in parents]
        job.status = "blocked" if parents else "queued"
        self.jobs[job_id] = job
        self.events.append(Event(job_id, "enqueue", None, job.status, None, None))
        return job

    def settle_new(self, jobs: Iterable[Job]) -> None:
        """Settle what new jobs wait for and is over already."""
        for job in jobs:
            for parent in list(job.waits_for):
                if parent.status in ENDED:
                    self.settle(parent)

    def claim(self, job: Job, claim_id: int, worker: str, lease: timedelta) -> None:
        job.attempts += 1
        self.move(job, "claim", "running", claim_id, job.attempts)
        self.claims[claim_id] = Claim(
            claim_id,
            job,
            worker,
            lease,
            self.now,
            self.now + lease,
            None if job.timeout is None else self.now + job.timeout,
        )
        self.past_claims.append((job.id, claim_id))

    def refusal(self, job_id: Any, claim_id: int | None) -> str | None:
        """Return the SQLSTATE of a call under this claim. None: it holds."""
        if job_id not in self.jobs:
            return "JQ002"
        if self.jobs[job_id].status != "running":
            return "JQ003"
        claim = self.claims.get(claim_id or 0)
        return None if claim and claim.job.id == job_id else "JQ004"

    def end(
        self,
        claim_id: int,
        verb: str,
        *,
        result: Any = None,
        error: str | None = None,
        retryable: bool = True,
        delay: timedelta | None = None,
    ) -> str:
        """End a run and return the job's new status."""
        job = self.claims.pop(claim_id).job
        attempt = job.attempts
        if verb in ("snooze", "release", "reclaim"):
            job.attempts -= 1
        if verb == "reclaim":
            job.losses += 1
        again = {
            "complete": False,
            "fail": retryable and job.attempts < job.max_attempts,
            "time_out": job.attempts < job.max_attempts,
            "snooze": True,
            "release": True,
            "reclaim": job.losses < max(job.max_losses, 1),
        }[verb]
        if verb == "complete":
            after, job.result = "succeeded", result
        elif job.cancel_requested:
            after = "cancelled"
        elif again:
            after = "queued"
            if delay is not None:
                job.run_at = self.now + delay
            elif verb in ("fail", "time_out"):
                job.may_wait = min(job.retry_delay * 2 ** (attempt - 1), job.retry_delay_max)
                job.run_at = self.now + job.may_wait
        else:
            after, job.result, job.failed_at = "failed", {"error": error}, self.now
        self.move(job, verb, after, claim_id, attempt)
        return after

    def end_many(
        self, verb: str, runs: list[tuple[Any, int]], how: list[dict[str, Any]]
    ) -> list[tuple[str | None, str | None]]:
        """End those of the runs that hold; return a status or a refusal for each.

        Of two with the same claim the first holds. Which refusal it is, is asked at the end.
        """
        statuses = [
            None if self.refusal(*run) else self.end(run[1], verb, **arguments)
            for run, arguments in zip(runs, how, strict=True)
        ]
        return [
            (status, None if status else self.refusal(*run))
            for status, run in zip(statuses, runs, strict=True)
        ]

    def cancel(self, job: Job) -> str:
        if job.status in ("succeeded", "failed"):
            return "too late"
        if job.status == "running":
            if not job.cancel_requested:
                job.cancel_requested = True
                self.events.append(Event(job.id, "cancel", "running", "running", None, None))
            return "requested"
        if job.status != "cancelled":
            self.move(job, "cancel", "cancelled")
        return "cancelled"

    def retry_refusal(self, job: Job | None) -> str | None:
        """Return the SQLSTATE of a call of retry_job. None: it is in order."""
        if job is None:
            return "JQ002"
        if job.status not in ("failed", "cancelled"):
            return "JQ006"
        return "JQ007" if self.holder(job.queue, job.unique_key) else None

    def retry(self, job: Job) -> None:
        job.attempts = job.losses = 0
        job.run_at = self.now
        job.result = job.failed_at = None
        job.cancel_requested = False
        job.waits_for = []
        self.move(job, "retry", "queued")

    def heartbeat(self, claim_id: int, lease: timedelta | None) -> tuple[bool, bool]:
        """Renew a lease; return whether the claim is held and whether the run is to stop."""
        claim = self.claims.get(claim_id)
        if claim is None:
            return False, False
        claim.lease = lease or claim.lease
        claim.expires_at = self.now + claim.lease
        return True, claim.job.cancel_requested

    # What time does

    def time_out(self) -> int:
        late = [
            claim_id
            for claim_id, claim in self.claims.items()
            if claim.deadline_at is not None and claim.deadline_at <= self.now < claim.expires_at
        ]
        for claim_id in late:
            self.end(claim_id, "time_out", error=TIMED_OUT)
        return len(late)

    def reclaim(self) -> int:
        lost = [i for i, claim in self.claims.items() if claim.expires_at <= self.now]
        for claim_id in lost:
            self.end(claim_id, "reclaim", error=LOST)
        return len(lost)

    def recover(self) -> tuple[int, int]:
        self.recovered_at = self.now
        return self.time_out(), self.reclaim()

    # Which job is next

    def takeable(self, queue: str, types: list[str] | None, limit: int) -> list[Job]:
        """Return which jobs of the queue a claim takes, in order."""
        policy = self.policy(queue)
        running = [job for job in self.with_status("running") if job.queue == queue]
        of_key = Counter(job.concurrency_key for job in running)
        if policy.concurrency_limit is not None:
            limit = min(limit, policy.concurrency_limit - len(running))
        picked: list[Job] = []
        for job in sorted(self.due(), key=lambda job: job.place):
            key = job.concurrency_key
            if policy.paused or len(picked) >= limit:
                break
            if job.queue != queue or job.id in self.aside:
                continue
            if types is not None and job.job_type not in types:
                continue
            if key is not None and policy.key_concurrency_limit is not None:
                if of_key[key] >= policy.key_concurrency_limit:
                    continue
                of_key[key] += 1
            picked.append(job)
        return picked

    def next_jobs(
        self, limit: int, queues: list[str] | None, types: list[str] | None
    ) -> list[list[Job]]:
        """Return what a claim may take: one list, or two if it may begin with either queue.

        Which of all queues has "the first job" is open where that job cannot be taken, because of
        its type or a limit. Both readings are then allowed.
        """
        orders = [queues] if queues is not None else self._orders_of_queues(types)
        answers = []
        for order in orders:
            taken: list[Job] = []
            for queue in dict.fromkeys(order):
                taken += self.takeable(queue, types, limit - len(taken))
            answers.append(taken)
        return answers

    def _orders_of_queues(self, types: list[str] | None) -> list[list[str]]:
        heads = {}
        for queue in {job.queue for job in self.due()}:
            could_be = min(job.place for job in self.due() if job.queue == queue)
            takeable = self.takeable(queue, types, 1)
            heads[queue] = could_be, takeable[0].place if takeable else could_be
        orders = [sorted(heads, key=lambda queue: heads[queue][1])]
        first, *others = orders[0] or [""]
        if any(heads[other][0] < heads[first][1] for other in others):
            orders.append(orders[0][::-1])
        return orders
