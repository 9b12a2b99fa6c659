"""Six connections do what a seed tells them, all at once; afterwards the history must add up.

The check reads job_events and the answers that the connections got, and knows nothing of how the
functions work: every job's events form a chain, no job ran under two claims at once, whatever was
acknowledged is in the history once and whatever was refused is not, no child ran before its parents
had succeeded, and every job ends. Meanwhile a seventh connection looks again and again whether a
queue, or a key in it, ever runs more jobs at once than its limit allows.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support import Connection, value

CONNECTIONS = 6
STEPS = 400
ENDING_A_RUN = {
    "complete": "select complete_job(%s, %s, '1')",
    "fail": "select fail_job(%s, %s, 'no', p_retry_in => '0')",
    "snooze": "select snooze_job(%s, %s, '0')",
    "release": "select release_job(%s, %s)",
}
POLICIES = {
    "limited": {"concurrency_limit": 3},
    "keyed": {"concurrency_limit": 6, "key_concurrency_limit": 1},
    "rated": {"rate_limit": 1000, "rate_period": "1 second"},
}
QUEUES = ["default", *POLICIES]
REFUSALS = {"JQ002", "JQ003", "JQ004", "JQ006", "JQ007"}


class Client:
    """One connection, its random choices, and the answers that it got."""

    def __init__(self, connection: Connection, seed: int) -> None:
        self._connection = connection
        self._random = random.Random(seed)
        self._job_ids: list[Any] = []
        self._claims: list[tuple[Any, int]] = []
        self.acknowledged: list[tuple[str, Any, int | None]] = []

    def run(self) -> None:
        for _ in range(STEPS):
            steps = {
                self.enqueue: 4,
                self.enqueue_many: 1,
                self.enqueue_a_child: 2,
                self.claim: 8,
                self.claim_many: 1,
                self.end: 8,
                self.end_many: 1,
                self.complete_and_claim: 1,
                self.beat: 2,
                self.cancel: 1,
                self.retry: 1,
                self.retry_many: 1,
                self.pause: 1,
                self.maintain: 1,
                self.die: 1,
            }
            step = self._random.choices(list(steps), list(steps.values()))[0]
            if self._random.random() < 0.1:
                self._in_a_transaction_that_rolls_back(step)
            else:
                step()

    def _in_a_transaction_that_rolls_back(self, step: Callable[[], None]) -> None:
        acknowledged, job_ids = len(self.acknowledged), len(self._job_ids)
        with self._connection.transaction(force_rollback=True):
            step()
        del self.acknowledged[acknowledged:], self._job_ids[job_ids:]

    def _call(self, query: str, *parameters: Any) -> list[Any] | None:
        """Return the rows, or None if the call was refused; any other error is a defect."""
        try:
            with self._connection.transaction():
                return self._connection.execute(query, parameters).fetchall()
        except psycopg.DatabaseError as error:
            if error.sqlstate not in REFUSALS:
                raise
            return None

    def _new_job(self) -> dict[str, Any]:
        return {
            "queue": self._random.choice(QUEUES),
            "priority": self._random.randint(0, 3),
            "max_attempts": self._random.randint(1, 3),
            "max_losses": self._random.randint(0, 3),
            "timeout": self._random.choice(["1 millisecond", None, None]),
            "unique_key": self._random.choice(["a", "b", None, None]),
            "concurrency_key": self._random.choice(["x", "y", None]),
        }

    def _enqueue(self, new: dict[str, Any]) -> None:
        named = ", ".join(f"p_{name} => %s" for name in new)
        rows = self._call(f"select enqueue_job({named})", *new.values())
        assert rows is not None
        self._job_ids.append(rows[0][0])
        if new["unique_key"] is None:  # else it may be the id of a job that is there already
            self.acknowledged.append(("enqueue", rows[0][0], None))

    def enqueue(self) -> None:
        self._enqueue(self._new_job())

    def enqueue_many(self) -> None:
        new = [self._new_job() for _ in range(self._random.randint(1, 5))]
        rows = self._call("select * from enqueue_jobs(%s)", Jsonb(new))
        assert rows is not None
        for row in rows:
            self._job_ids.append(row.id)
            if row.created:
                self.acknowledged.append(("enqueue", row.id, None))

    def enqueue_a_child(self) -> None:
        if self._job_ids:
            parents = self._random.choices(self._job_ids[-20:], k=self._random.randint(1, 2))
            policy = self._random.choice(["cancel", "release"])
            self._enqueue({**self._new_job(), "depends_on": parents, "on_parent_failure": policy})

    def claim(self) -> None:
        lease = self._random.choice(["1 millisecond", "1 hour"])
        self._note_claims(self._call("select * from claim_next_job(p_lease => %s)", lease))

    def claim_many(self) -> None:
        queues = self._random.choice([None, self._random.sample(QUEUES, 2)])
        self._note_claims(self._call("select * from claim_jobs(4, p_queues => %s)", queues))

    def _note_claims(self, rows: list[Any] | None) -> None:
        for row in rows or []:
            self._claims.append((row.id, row.claim_id))
            self.acknowledged.append(("claim", row.id, row.claim_id))

    def _some_runs(self) -> list[dict[str, Any]]:
        some = dict(self._random.choices(self._claims[-5:], k=3) if self._claims else [])
        return [{"job_id": str(job_id), "claim_id": held} for job_id, held in some.items()]

    def end_many(self) -> None:
        verb = self._random.choice(["complete", "fail"])
        rows = self._call(f"select * from {verb}_jobs(%s)", Jsonb(self._some_runs()))
        assert rows is not None
        for row in rows:
            assert (row.status is None) == (row.refusal in REFUSALS)
            if row.status is not None:
                self.acknowledged.append((verb, row.job_id, row.claim_id))

    def complete_and_claim(self) -> None:
        runs = self._some_runs()
        rows = self._call("select * from complete_and_claim(%s, 2)", Jsonb(runs))
        assert rows is not None
        lost = {row.claim_id for row in rows if row.refusal}
        for run in runs:
            if run["claim_id"] not in lost:
                self.acknowledged.append(("complete", UUID(run["job_id"]), run["claim_id"]))
        self._note_claims([row for row in rows if not row.refusal])

    def end(self) -> None:
        if self._claims:
            # Some claims are tried again after they have ended.
            job_id, claim_id = self._random.choice(self._claims[-5:])
            verb = self._random.choice(list(ENDING_A_RUN))
            if self._call(ENDING_A_RUN[verb], job_id, claim_id) is not None:
                self.acknowledged.append((verb, job_id, claim_id))

    def beat(self) -> None:
        claim_ids = [claim_id for _, claim_id in self._claims[-5:]]
        self._call("select * from heartbeat(%s)", claim_ids)

    def cancel(self) -> None:
        if self._job_ids:
            job_id = self._random.choice(self._job_ids)
            self._call("select cancel_job(%s)", job_id)

    def retry(self) -> None:
        if self._job_ids:
            job_id = self._random.choice(self._job_ids)
            if self._call("select retry_job(%s)", job_id) is not None:
                self.acknowledged.append(("retry", job_id, None))

    def retry_many(self) -> None:
        queue = self._random.choice(QUEUES)
        for row in self._call("select * from retry_jobs(%s, p_limit => 2)", queue) or []:
            if row.outcome == "retried":
                self.acknowledged.append(("retry", row.id, None))

    def pause(self) -> None:
        verb = self._random.choice(["pause_queue", "resume_queue", "resume_queue"])
        self._call(f"select {verb}(%s)", self._random.choice(QUEUES))

    def maintain(self) -> None:
        self._call("select run_maintenance()")

    def die(self) -> None:
        self._claims.clear()
        self._call("select reclaim_expired_claims(p_limit => 3)")


def drain(db: Connection) -> None:
    """Let every job end: first those whose claims are still held, then those that wait."""
    for queue in QUEUES:
        db.execute("select resume_queue(%s)", [queue])
    db.execute("update claims set lease = '1 ms', expires_at = now() - interval '1 s'")

    def unfinished() -> Any:
        db.execute("select run_maintenance()")
        db.execute("update jobs set run_at = created_at")  # no wait before another attempt
        db.execute("select setval(d, 0) from unnest('{sweep_due,reclaim_due}'::regclass[]) as d")
        return value(
            db, "select count(*) from jobs where status in ('blocked', 'queued', 'running')"
        )

    while left := unfinished():
        for row in db.execute("select * from claim_jobs(100)").fetchall():
            db.execute("select complete_job(%s, %s)", [row.id, row.claim_id])
        waits_for_the_rate_limit = "select from jobs where queue = 'rated' and status = 'queued'"
        assert unfinished() < left or db.execute(waits_for_the_rate_limit).fetchall()


@contextmanager
def holding_the_limits_against_the_claims(db: Connection) -> Iterator[None]:
    """Look at the claims again and again, and see no limit exceeded."""
    over = Event()
    exceeded: list[Any] = []

    def look() -> None:
        while not over.is_set():
            exceeded.extend(
                db.execute(
                    "select job.queue, job.concurrency_key, running.of_queue, running.of_key"
                    " from jobs as job join queues as queue on queue.queue = job.queue"
                    " cross join lateral ("
                    "  select count(*) as of_queue, count(*) filter ("
                    "   where other.concurrency_key = job.concurrency_key) as of_key"
                    "  from claims join jobs as other on other.id = claims.job_id"
                    "  where other.queue = job.queue) as running"
                    " where job.id in (select job_id from claims)"
                    " and (running.of_queue > queue.concurrency_limit"
                    "  or running.of_key > queue.key_concurrency_limit)"
                ).fetchall()
            )

    thread = Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert exceeded == []


def check_that_the_history_adds_up(db: Connection, clients: list[Client]) -> None:
    events = db.execute("table job_events order by event_id").fetchall()
    allowed = {tuple(row) for row in db.execute("table job_transitions")}
    chains = defaultdict(list)
    for event in events:
        assert (event.from_status, event.verb, event.to_status) in allowed, event
        chains[event.job_id].append(event)

    for chain in chains.values():
        holder = None
        for before, event in zip([None, *chain], chain, strict=False):
            assert event.from_status == (before.to_status if before else None), chain
            if event.verb == "claim":
                assert holder is None, chain
                holder = event.claim_id
            elif event.from_status == "running" and event.verb != "cancel":
                assert event.claim_id == holder, chain
                holder = None
        assert holder is None, chain

    recorded = Counter((event.verb, event.job_id, event.claim_id) for event in events)
    for answer in (answer for client in clients for answer in client.acknowledged):
        recorded[answer] -= 1
        assert recorded[answer] >= 0, answer
    unacknowledged = {answer[0] for answer, count in recorded.items() if count > 0}
    # By the clock, by a key that is taken or free, uncounted, or by the drain.
    by_design = {"reclaim", "fail", "enqueue", "cancel", "claim", "complete", "time_out", "unblock"}
    assert unacknowledged <= by_design
    check_that_no_child_ran_before_its_parents_had_succeeded(db)

    jobs = db.execute("table jobs").fetchall()
    assert {job.id for job in jobs} == set(chains)
    for job in jobs:
        assert job.status == chains[job.id][-1].to_status
        assert job.status in ("succeeded", "failed", "cancelled")
        assert job.attempts <= job.max_attempts
        assert job.losses <= max(job.max_losses, 1)
        assert job.held_key is None
        assert not job.waits_for_key
    assert value(db, "select count(*) from claims") == 0


def check_that_no_child_ran_before_its_parents_had_succeeded(db: Connection) -> None:
    """Check it by the clock of the events; a parent that failed may have been let pass."""
    too_early = (
        "select child.id from jobs as child"
        " join job_events as start on start.job_id = child.id and start.verb = 'unblock'"
        " cross join lateral unnest(child.depends_on) as parent (id)"
        " where not exists (select from job_events as done where done.job_id = parent.id"
        "  and done.at <= start.at and done.to_status in ('succeeded', 'failed', 'cancelled'))"
    )
    assert db.execute(too_early).fetchall() == []
    unblocked = (
        "select from job_events as event join jobs as job on job.id = event.job_id"
        " where job.depends_on <> '{}' and event.verb = 'claim' and not exists ("
        "  select from job_events as before where before.job_id = job.id"
        "  and before.verb in ('unblock', 'retry') and before.event_id < event.event_id)"
    )
    assert db.execute(unblocked).fetchall() == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("searched", ["from the beginning", "from marks"])
def test_whatever_many_connections_do_at_once_adds_up(
    connect: Callable[[], Connection], seed: int, searched: str
) -> None:
    db = connect()
    if searched == "from marks":  # as if every search had gone far
        db.execute(
            "create or replace function job_queue.effort() returns bigint volatile language sql as"
            " 'select (extract(epoch from clock_timestamp()) * 1000000)::bigint * 2000'"
        )
    for queue, policy in POLICIES.items():
        db.execute("select set_queue(%s, %s)", [queue, Jsonb(policy)])
    clients = [Client(connect(), seed * CONNECTIONS + number) for number in range(CONNECTIONS)]
    with (
        holding_the_limits_against_the_claims(connect()),
        ThreadPoolExecutor(CONNECTIONS) as executor,
    ):
        for finished in [executor.submit(client.run) for client in clients]:
            finished.result()
    assert (value(db, "select count(*) from marks") > 0) == (searched == "from marks")
    drain(db)
    check_that_the_history_adds_up(db, clients)
