"""Six connections do what a seed tells them, all at once; afterwards the history must add up.

The check reads job_events and the answers that the connections got, and knows nothing of how the
functions work: every job's events form a chain, no job ran under two claims at once, whatever was
acknowledged is in the history once and whatever was refused is not, and every job ends.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.support import Connection, value

CONNECTIONS = 6
STEPS = 400
ENDING_A_RUN = {
    "complete": "select complete_job(%s, %s, '1')",
    "fail": "select fail_job(%s, %s, 'no', p_retry_in => '0')",
    "snooze": "select snooze_job(%s, %s, '0')",
    "release": "select release_job(%s, %s)",
}
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
            step = self._random.choices(
                [self.enqueue, self.claim, self.end, self.beat, self.cancel, self.retry, self.die],
                [4, 8, 8, 2, 1, 1, 1],
            )[0]
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

    def enqueue(self) -> None:
        unique_key = self._random.choice(["a", "b", None, None])
        rows = self._call(
            "select enqueue_job(p_priority => %s, p_max_attempts => %s, p_max_losses => %s,"
            " p_timeout => %s, p_unique_key => %s)",
            self._random.randint(0, 3),
            self._random.randint(1, 3),
            self._random.randint(0, 3),
            self._random.choice(["1 millisecond", None, None]),
            unique_key,
        )
        assert rows is not None
        self._job_ids.append(rows[0][0])
        if unique_key is None:  # else it may be the id of a job that is there already
            self.acknowledged.append(("enqueue", rows[0][0], None))

    def claim(self) -> None:
        lease = self._random.choice(["1 millisecond", "1 hour"])
        for row in self._call("select * from claim_next_job(p_lease => %s)", lease) or []:
            self._claims.append((row.id, row.claim_id))
            self.acknowledged.append(("claim", row.id, row.claim_id))

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

    def die(self) -> None:
        self._claims.clear()
        self._call("select reclaim_expired_claims(p_limit => 3)")


def drain(db: Connection) -> None:
    """Let every job end: first those whose claims are still held, then those that wait."""
    db.execute("update claims set lease = '1 ms', expires_at = now() - interval '1 s'")
    value(db, "select reclaim_expired_claims(1000000)")
    db.execute("update jobs set run_at = created_at")  # no wait before another attempt
    while rows := db.execute("select * from claim_next_job()").fetchall():
        db.execute("select complete_job(%s, %s)", [rows[0].id, rows[0].claim_id])


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
    by_design = {"reclaim", "fail", "enqueue", "cancel", "claim", "complete"}
    assert unacknowledged <= by_design

    jobs = db.execute("table jobs").fetchall()
    assert {job.id for job in jobs} == set(chains)
    for job in jobs:
        assert job.status == chains[job.id][-1].to_status
        assert job.status in ("succeeded", "failed", "cancelled")
        assert job.attempts <= job.max_attempts
        assert job.losses <= max(job.max_losses, 1)
        assert job.held_key is None
    assert value(db, "select count(*) from claims") == 0


@pytest.mark.parametrize("seed", range(4))
def test_whatever_many_connections_do_at_once_adds_up(
    connect: Callable[[], Connection], seed: int
) -> None:
    db = connect()
    clients = [Client(connect(), seed * CONNECTIONS + number) for number in range(CONNECTIONS)]
    with ThreadPoolExecutor(CONNECTIONS) as executor:
        for finished in [executor.submit(client.run) for client in clients]:
            finished.result()
    drain(db)
    check_that_the_history_adds_up(db, clients)
