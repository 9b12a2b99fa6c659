"""The worker's calls of the queue's functions, over one connection, reopened when it breaks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

CLAIM_DOES_NOT_HOLD = {"JQ002", "JQ003", "JQ004"}
NOT_MIGRATED = {"3F000", "42883"}
"""invalid_schema_name, undefined_function"""

CONNECTION_DEFAULTS = {
    "application_name": "job_queue worker",
    "connect_timeout": "5",
    # A server that vanishes without a word is noticed within 15 seconds.
    "keepalives_idle": "5",
    "keepalives_interval": "5",
    "keepalives_count": "2",
    "tcp_user_timeout": "15000",
}

_CLAIM_NEXT_JOB = """
select id, claim_id, sleep_seconds, message
  from job_queue.claim_next_job(
         p_worker => %(worker)s, p_job_types => array['sleep'], p_lease => %(lease)s)
"""

_HEARTBEAT = """
select held, cancel_requested
  from job_queue.heartbeat(p_claim_ids => %(claim_ids)s)
"""

_COMPLETE_JOB = """
select job_queue.complete_job(
         p_job_id => %(job_id)s, p_claim_id => %(claim_id)s, p_result => %(result)s)
"""

_FAIL_JOB = """
select job_queue.fail_job(
         p_job_id => %(job_id)s, p_claim_id => %(claim_id)s, p_error => %(error)s)
"""

_RELEASE_JOB = """
select job_queue.release_job(p_job_id => %(job_id)s, p_claim_id => %(claim_id)s)
"""

_RUN_MAINTENANCE = """
select job_queue.run_maintenance()
"""


@dataclass(frozen=True)
class Job:
    """A claimed job."""

    id: UUID
    claim_id: int
    sleep_seconds: int
    message: str | None


class ClaimLost(Exception):
    """This worker's claim no longer holds: the job has ended or is another worker's."""


class QueueUnavailable(Exception):
    """The database, or the schema in it, cannot be used now."""


class InvalidResult(Exception):
    """The database cannot store what the job returned."""


class Queue:
    """The queue as one worker sees it. Every call is one transaction.

    Each method raises QueueUnavailable when it could not be known to succeed: call it again.
    """

    def __init__(self, conninfo: str, worker: str, lease_seconds: float) -> None:
        self._connect_arguments: dict[str, Any] = {
            **CONNECTION_DEFAULTS,
            **conninfo_to_dict(conninfo),
        }
        self._worker = worker
        self._lease = timedelta(seconds=lease_seconds)
        self._connection: psycopg.Connection[dict[str, Any]] | None = None

    def claim_next_job(self) -> Job | None:
        """Claim the next job that this worker can run; return None if none is waiting."""
        rows = self._call(_CLAIM_NEXT_JOB, {"worker": self._worker, "lease": self._lease})
        return Job(**rows[0]) if rows else None

    def heartbeat(self, job: Job) -> bool:
        """Renew the claim's lease; return whether the job was asked to stop.

        Raise ClaimLost if the claim no longer holds.
        """
        [answer] = self._call(_HEARTBEAT, {"claim_ids": [job.claim_id]})
        if not answer["held"]:
            raise ClaimLost(f"claim {job.claim_id} was lost")
        return bool(answer["cancel_requested"])

    def complete_job(self, job: Job, result: Any) -> None:
        """Report success. Raise ClaimLost or InvalidResult if the database refuses it."""
        self._end(_COMPLETE_JOB, job, result=Jsonb(result))

    def fail_job(self, job: Job, error: str) -> None:
        """Report failure, whatever the error's text holds. Raise ClaimLost if that is refused."""
        text = error.replace("\0", "\N{REPLACEMENT CHARACTER}")
        self._end(_FAIL_JOB, job, error=text.encode(errors="replace").decode())

    def release_job(self, job: Job) -> None:
        """Hand the job back unfinished. Raise ClaimLost if that is refused."""
        self._end(_RELEASE_JOB, job)

    def run_maintenance(self) -> None:
        """Do what has to be done from time to time: fire schedules, prune old jobs, and so on."""
        self._call(_RUN_MAINTENANCE, {})

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _end(self, query: str, job: Job, **parameters: Any) -> None:
        self._call(query, {"job_id": job.id, "claim_id": job.claim_id, **parameters})

    def _call(self, query: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        try:
            if self._connection is None:
                self._connection = psycopg.connect(
                    autocommit=True, row_factory=dict_row, **self._connect_arguments
                )
            return self._connection.execute(query, parameters).fetchall()
        except psycopg.Error as error:
            reason = " ".join((error.diag.message_primary or str(error)).split())
            if error.sqlstate in CLAIM_DOES_NOT_HOLD:
                raise ClaimLost(reason) from None
            if isinstance(error, psycopg.DataError):
                raise InvalidResult(reason) from None
            self.close()
            if error.sqlstate in NOT_MIGRATED:
                reason += "; has `yoyo apply` been run?"
            raise QueueUnavailable(reason) from None
