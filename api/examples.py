"""Examples of what is sent and answered, by the name of its model. OpenAPI shows them."""

from typing import Any

JOB_ID = "019aba5c-7d3e-7c41-9d0e-6a1f4b1f8c11"
REQUEST_ID = "8e03978e-40d5-43e8-bc93-6894a57f9324"

_CREATED_JOB = {
    "id": JOB_ID,
    "status": "queued",
    "sleep_seconds": 2,
    "message": "hello world",
    "result": None,
    "created_at": "2026-01-02T03:04:05.678901Z",
}

_JOB = _CREATED_JOB | {
    "status": "succeeded",
    "result": {"message": "hello world", "slept_seconds": 2},
    "updated_at": "2026-01-02T03:04:07.890123Z",
}

_FULL_JOB = _JOB | {
    "sleep_seconds": 3,
    "message": None,
    "result": {"sent": True},
    "job_type": "email",
    "payload": {"to": "a@b.c"},
    "queue": "mail",
    "priority": 1,
    "run_at": "2026-01-02T03:04:05.678901Z",
    "attempts": 1,
    "max_attempts": 5,
    "losses": 0,
    "max_losses": 3,
    "retry_delay_seconds": 15,
    "retry_delay_max_seconds": 3600,
    "timeout_seconds": None,
    "unique_key": None,
    "concurrency_key": "a@b.c",
    "depends_on": None,
    "cancel_requested": False,
    "failed_at": None,
    "worker": None,
    "progress": None,
    "trace_context": None,
}

_API_KEY = {
    "key_id": "0123456789ab",
    "name": "billing",
    "scopes": ["client"],
    "queues": ["mail"],
    "rate_limit": 600,
    "rate_period_seconds": 60,
    "created_at": "2026-01-02T03:04:05.678901Z",
    "created_by": "postgres",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": "2026-01-03T12:00:00.000000Z",
}

EXAMPLES: dict[str, list[Any]] = {
    "ApiKey": [_API_KEY],
    "BatchItem": [{"id": JOB_ID, "created": True}],
    "BulkOutcome": [{"id": JOB_ID, "outcome": "cancelled"}],
    "CancelFilter": [{"queue": "mail", "status": "queued", "dry_run": True}],
    "CancelOutcome": [{"id": JOB_ID, "outcome": "cancelled"}],
    "Check": [
        {
            "aspect": "maintenance",
            "severity": "ok",
            "detail": "jobs were last maintained 12 seconds ago",
        }
    ],
    "ClaimRequest": [
        {"worker": "worker-1", "queues": ["mail", "default"], "lease_seconds": 60, "limit": 10}
    ],
    "ClaimedJob": [
        {
            "id": JOB_ID,
            "claim_id": 42,
            "job_type": "email",
            "payload": {"to": "a@b.c"},
            "queue": "mail",
            "priority": 1,
            "attempt": 1,
            "max_attempts": 5,
            "losses": 0,
            "sleep_seconds": 3,
            "message": None,
            "created_at": "2026-01-02T03:04:05.678901Z",
            "run_at": "2026-01-02T03:04:05.678901Z",
            "timeout_seconds": None,
            "lease_seconds": 60,
            "trace_context": None,
        }
    ],
    "Completion": [{"claim_id": 42, "result": {"sent": True}}],
    "CreatedJob": [_CREATED_JOB],
    "CreatedKey": [
        _API_KEY | {"api_key": "jq_0123456789ab_" + 8 * "c0ffee42", "last_used_at": None}
    ],
    "DeadJob": [
        {
            "id": JOB_ID,
            "failed_at": "2026-01-02T03:04:07.890123Z",
            "queue": "mail",
            "job_type": "email",
            "payload": {"to": "a@b.c"},
            "error": "mailbox full",
            "attempts": 5,
            "losses": 0,
            "retries": 0,
        }
    ],
    "Failure": [{"claim_id": 42, "error": "mailbox full", "retry_in_seconds": 30}],
    "FailureOutcome": [{"status": "queued"}],
    "Health": [{"status": "ok"}],
    "Heartbeat": [{"claim_id": 42, "held": True, "cancel_requested": False}],
    "HeartbeatRequest": [{"claim_ids": [42]}],
    "HistoryEvent": [
        {
            "at": "2026-01-02T03:04:05.678901Z",
            "verb": "enqueue",
            "from_status": None,
            "to_status": "queued",
            "claim_id": None,
            "actor": "postgres",
            "detail": None,
            "attempt": None,
        }
    ],
    "Job": [_JOB, _FULL_JOB],
    "NewJob": [
        {"sleep_seconds": 2, "message": "hello world"},
        {
            "job_type": "email",
            "payload": {"to": "a@b.c"},
            "queue": "mail",
            "max_attempts": 5,
            "delay_seconds": 60,
        },
    ],
    "NewKey": [
        {
            "name": "billing",
            "scopes": ["client"],
            "queues": ["mail"],
            "expires_in_seconds": 2_592_000,
            "rate_limit": 600,
            "rate_period_seconds": 60,
        }
    ],
    "NewSchedule": [
        {
            "cron": "30 4 * * *",
            "time_zone": "Europe/Berlin",
            "job": {"job_type": "report", "unique_key": "nightly"},
            "missed_ticks": "coalesce",
        }
    ],
    "PolicyPatch": [
        {
            "concurrency_limit": 5,
            "rate_limit": 100,
            "rate_period_seconds": 60,
            "timeout_seconds": None,
        }
    ],
    "Progress": [{"worker": "worker-1", "progress": {"done": 3, "of": 10}}],
    "ProgressReport": [{"claim_id": 42, "progress": {"done": 3, "of": 10}}],
    "QueuePolicy": [
        {
            "queue": "mail",
            "paused": False,
            "concurrency_limit": 5,
            "key_concurrency_limit": None,
            "rate_limit": 100,
            "rate_period_seconds": 60,
            "max_attempts": 1,
            "retry_delay_seconds": 15,
            "retry_delay_max_seconds": 3600,
            "max_losses": 3,
            "timeout_seconds": None,
            "keep_succeeded_seconds": 604_800,
            "keep_failed_seconds": 2_592_000,
            "keep_cancelled_seconds": 604_800,
        }
    ],
    "QueueStatistics": [
        {
            "queue": "mail",
            "paused": False,
            "blocked": 0,
            "queued": 12,
            "running": 5,
            "succeeded": 3456,
            "failed": 1,
            "cancelled": 0,
            "ready": 10,
            "oldest_ready_age_seconds": 0.75,
            "ended_last_minute": 240,
            "ended_last_hour": 3456,
            "estimated": False,
        }
    ],
    "Reason": [{"reason": "paused", "explanation": "queue mail is paused"}],
    "RetryFilter": [{"job_type": "email", "error": "mailbox full", "limit": 100, "dry_run": True}],
    "Run": [{"claim_id": 42}],
    "Schedule": [
        {
            "schedule": "nightly",
            "cron": "30 4 * * *",
            "time_zone": "Europe/Berlin",
            "job": {"job_type": "report", "unique_key": "nightly"},
            "missed_ticks": "coalesce",
            "paused": False,
            "next_at": "2026-01-03T03:30:00.000000Z",
            "last_at": "2026-01-02T03:30:00.000000Z",
            "last_job_id": JOB_ID,
            "last_error": None,
        }
    ],
    "Snooze": [{"claim_id": 42, "delay_seconds": 60}],
    "Worker": [
        {
            "worker": "worker-1",
            "queues": ["mail"],
            "job_types": None,
            "seen_at": "2026-01-02T03:04:05.678901Z",
            "last_beat_at": "2026-01-02T03:04:05.678901Z",
            "claims": 1,
            "expired_claims": 0,
            "oldest_claim_at": "2026-01-02T03:04:05.678901Z",
            "job_ids": [JOB_ID],
        }
    ],
}
