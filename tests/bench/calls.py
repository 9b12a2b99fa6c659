"""Calls of the queue's functions as an application makes them: prepared, in binary."""

import json
import random
from collections.abc import Sequence
from functools import cache
from typing import Any

from tests.bench.place import Connection

ENQUEUE_JOB = "select job_queue.enqueue_job(p_job_type => %s, p_payload => %s::jsonb)"
ENQUEUE_JOBS = "select from job_queue.enqueue_jobs(%s::jsonb)"
CLAIM_NEXT_JOB = "select id, claim_id from job_queue.claim_next_job(p_worker => 'bench')"
CLAIM_JOBS = "select id, claim_id from job_queue.claim_jobs(%s, p_worker => 'bench')"
COMPLETE_JOB = "select job_queue.complete_job(%s, %s)"
COMPLETE_JOBS = "select from job_queue.complete_jobs(%s::jsonb)"
COMPLETE_AND_CLAIM = """
select id, claim_id, refusal from job_queue.complete_and_claim(%s::jsonb, %s, p_worker => 'bench')
"""

Claims = list[tuple[Any, int]]


def payload(i: int, size: int = 100) -> dict[str, Any]:
    """Return a payload of about so many bytes of JSON, which compress as hexadecimal digits do."""
    return {"i": i, "user": "someone@example.test", "pad": _pad(size)}


@cache
def _pad(size: int) -> str:
    return random.Random(size).randbytes(max(size - 50, 0) // 2).hex()


def jobs(count: int, size: int = 100, first: int = 0) -> str:
    """Return the argument of enqueue_jobs."""
    return json.dumps(
        [{"job_type": "noop", "payload": payload(first + i, size)} for i in range(count)]
    )


def runs(claims: Sequence[tuple[Any, int]]) -> str:
    """Return the argument of complete_jobs."""
    return json.dumps([{"job_id": str(job_id), "claim_id": number} for job_id, number in claims])


class Calls:
    """One connection's."""

    def __init__(self, connection: Connection) -> None:
        self._cursor = connection.cursor(binary=True)

    def _rows(self, query: str, *parameters: Any) -> list[Any]:
        return self._cursor.execute(query, parameters, prepare=True).fetchall()

    def enqueue(self, i: int, size: int = 100, job_type: str = "noop") -> None:
        """Enqueue one job."""
        self._rows(ENQUEUE_JOB, job_type, json.dumps(payload(i, size)))

    def enqueue_many(self, count: int, batch: int, size: int = 100) -> None:
        """Enqueue jobs, so many a call."""
        for first in range(0, count, batch):
            self._cursor.execute(ENQUEUE_JOBS, (jobs(min(batch, count - first), size, first),))

    def enqueue_stamp(self) -> None:
        """Enqueue a job that tells when it ran."""
        self._rows(ENQUEUE_JOB, "stamp", "{}")

    def claim(self) -> tuple[Any, int]:
        """Claim a job, which must be there."""
        [(job_id, claim_id)] = self._rows(CLAIM_NEXT_JOB)
        return job_id, claim_id

    def claim_many(self, limit: int) -> Claims:
        """Claim jobs."""
        return self._rows(CLAIM_JOBS, limit)

    def complete(self, claim: tuple[Any, int]) -> None:
        """Complete a job."""
        self._rows(COMPLETE_JOB, *claim)

    def complete_many(self, claims: Claims) -> None:
        """Complete jobs."""
        self._cursor.execute(COMPLETE_JOBS, (runs(claims),), prepare=True)

    def complete_and_claim(self, claims: Claims, limit: int) -> Claims:
        """Complete jobs and claim others."""
        rows = self._rows(COMPLETE_AND_CLAIM, runs(claims), limit)
        assert not any(refusal for *_, refusal in rows)
        return [(job_id, number) for job_id, number, _ in rows]

    def pass_through(self, count: int, batch: int) -> None:
        """Let so many jobs come, be claimed and end."""
        claims: Claims = []
        for first in range(0, count, batch):
            size = min(batch, count - first)
            self.enqueue_many(size, size)
            claims = self.complete_and_claim(claims, size)
        self.complete_many(claims)

    # The same of the minimal queue

    def enqueue_minimal(self, i: int) -> None:
        """Enqueue one job."""
        self._rows("select minimal.enqueue(%s::jsonb)", json.dumps(payload(i)))

    def enqueue_many_minimal(self, count: int, batch: int) -> None:
        """Enqueue jobs, so many a call."""
        for first in range(0, count, batch):
            payloads = [json.dumps(payload(first + i)) for i in range(min(batch, count - first))]
            self._cursor.execute("select minimal.enqueue_many(%s::text[]::jsonb[])", (payloads,))

    def run_minimal(self) -> None:
        """Claim and complete a job."""
        [(job_id, _)] = self._rows("select id, payload from minimal.claim()")
        self._rows("select minimal.complete(%s)", job_id)

    def run_many_minimal(self, limit: int) -> None:
        """Claim and complete jobs."""
        rows = self._rows("select id, payload from minimal.claim_many(%s)", limit)
        assert len(rows) == limit
        self._rows("select minimal.complete_many(%s)", [job_id for job_id, _ in rows])
