"""Runs of jobs that no database knows."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from worker.queue import Job
from worker.run import Run

JOB_ID = UUID("01234567-89ab-7def-8123-456789abcdef")

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_run(job_type: str, payload: Any = None, **members: Any) -> Run:
    """Return a run as if its job had just been claimed."""
    given: dict[str, Any] = {
        "id": JOB_ID,
        "claim_id": 7,
        "queue": "default",
        "priority": 1,
        "attempt": 1,
        "max_attempts": 3,
        "losses": 0,
        "timeout": None,
        "created_at": NOW,
        "run_at": NOW,
        "claimed_at": NOW,
        **members,
    }
    return Run(Job(job_type=job_type, payload=json.dumps(payload or {}), **given))
