"""What clients send, checked, and what they get back, described.

What is sent is checked so that the answer names each fault; the bounds are those of the database,
which checks again. What is sent back was made in Postgres: those models only describe it.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

YEAR = 360 * 86_400
"""Seconds. Where Postgres compares intervals, a month has 30 days."""
MAX_BATCH = 10_000
"""How many jobs one request may create."""
MAX_PAGE = 1_000
"""How many rows one page may have."""
MAX_BULK = 10_000
"""How many jobs one request may cancel or retry."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)

STATUSES = Literal["blocked", "queued", "running", "succeeded", "failed", "cancelled"]


def _integer(number: Any) -> Any:
    """Take 3.0 for 3, as JSON Schema does; leave everything else to strict validation."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _rfc3339(time: Any) -> Any:
    """Refuse other ways to write a time, such as the seconds since 1970."""
    if isinstance(time, datetime) or (isinstance(time, str) and _RFC3339.fullmatch(time)):
        return time
    raise PydanticCustomError("time", "Write a time as RFC 3339 does: 2026-01-02T03:04:05Z")


def _utc(time: datetime) -> datetime:
    """Convert a time: Postgres knows no offset of 16 hours or more."""
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise PydanticCustomError("time", "In UTC, the year must be from 1 to 9999") from None


def without_nul(text: str) -> str:
    """Refuse what Postgres cannot store."""
    if "\0" in text:
        raise PydanticCustomError("nul", "NUL characters (U+0000) cannot be stored")
    return text


def _not_null(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("null", "Leave it out rather than send null")
    return value


def _microseconds(seconds: float) -> float:
    return round(seconds, 6)


WHOLE = BeforeValidator(_integer)
"""Of an int, after its bounds: before them, OpenAPI would not tell of them."""
_TEXT: JsonDict = {"pattern": r"^[^\x00]*$"}
_NO_NUL = AfterValidator(without_nul)
Text = Annotated[str, Field(json_schema_extra=_TEXT), _NO_NUL]
Part = Annotated[str, Field(min_length=1, json_schema_extra=_TEXT), _NO_NUL]
Name = Annotated[str, Field(min_length=1, max_length=100, json_schema_extra=_TEXT), _NO_NUL]
JobKey = Annotated[str, Field(min_length=1, max_length=500, json_schema_extra=_TEXT), _NO_NUL]
Message = Annotated[str, Field(max_length=10_000, json_schema_extra=_TEXT), _NO_NUL]
MICROSECONDS = AfterValidator(_microseconds)
"""Of a number of seconds: an interval is no finer."""
Seconds = Annotated[float, Field(ge=0, le=YEAR, allow_inf_nan=False), MICROSECONDS]
ClaimId = Annotated[int, Field(ge=0, le=2**53 - 1, description="What claimed the job."), WHOLE]
Count = Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE]
Time = Annotated[
    AwareDatetime, Field(strict=False), BeforeValidator(_rfc3339), AfterValidator(_utc)
]
Id = Annotated[UUID, Field(strict=False)]


class Request(BaseModel):
    """What is common to all bodies: nothing is converted, and nothing unknown let through."""

    model_config = ConfigDict(strict=True, extra="forbid")


def _something_of(*members: str) -> ConfigDict:
    """Say in the schema, to programs that make requests, that not all of these may be missing."""
    missing: JsonDict = {member: {"type": "null"} for member in members}
    return ConfigDict(json_schema_extra={"not": {"properties": missing}})


class NewJob(Request):
    """A job to enqueue. What is left out has the default of enqueue_job, or of the queue."""

    model_config = ConfigDict(
        json_schema_extra={
            "not": {
                "required": ["run_at", "delay_seconds"],
                "properties": {
                    "run_at": {"type": "string"},
                    "delay_seconds": {"type": "number"},
                },
            }
        }
    )

    sleep_seconds: Annotated[
        int,
        Field(ge=0, le=86_400, description="How long a job of the type sleep sleeps."),
        WHOLE,
    ] = 3
    message: Message | None = Field(
        None, description="Echoed in the result of a job of the type sleep."
    )
    job_type: Name = Field("sleep", description="The name by which a worker knows what to do.")
    payload: Annotated[Any, AfterValidator(_not_null)] = Field(
        default_factory=dict,
        description="The input of the work: any JSON but null, at most 4 MiB.",
        json_schema_extra={"not": {"type": "null"}},
    )
    queue: Name = Field("default", description="The lane in which the job waits.")
    priority: Annotated[int, Field(ge=0, le=3), WHOLE] = Field(
        1, description="Within its queue: 0 runs first, 3 last."
    )
    run_at: Time | None = Field(None, description="Not before this time.")
    delay_seconds: Seconds | None = Field(
        None,
        serialization_alias="delay",
        description="Not before so many seconds from now. Not together with run_at.",
    )
    max_attempts: Annotated[int, Field(ge=1, le=2**31 - 1), WHOLE] | None = Field(
        None, description="How often the job may be tried if it fails."
    )
    retry_delay_seconds: Seconds | None = Field(
        None,
        serialization_alias="retry_delay",
        description="The longest wait before the second attempt; doubled for each further.",
    )
    retry_delay_max_seconds: Seconds | None = Field(
        None,
        serialization_alias="retry_delay_max",
        description="The longest wait before any attempt.",
    )
    max_losses: Count | None = Field(
        None, description="How many workers it may take down before it fails; 0: runs at most once."
    )
    timeout_seconds: Annotated[float, Field(ge=0.001, le=YEAR)] | None = Field(
        None, serialization_alias="timeout", description="How long one attempt may run."
    )
    unique_key: JobKey | None = Field(
        None,
        description="If an unfinished job of the queue has this key, that is answered with.",
    )
    concurrency_key: JobKey | None = Field(
        None, description="What the queue's key_concurrency_limit counts by."
    )
    depends_on: Annotated[list[Id], Field(max_length=1000)] | None = Field(
        None, description="The jobs that must have succeeded first."
    )
    on_parent_failure: Literal["cancel", "release"] = Field(
        "cancel", description="What becomes of the job if one of those does not succeed."
    )
    trace_context: dict[str, Any] | None = Field(
        None, description="W3C Trace Context. Left out, the traceparent of the request is taken."
    )


class CreatedJob(BaseModel):
    """A job as it was when it was created."""

    id: UUID
    status: str = Field(examples=["queued"])
    sleep_seconds: int
    message: str | None
    result: Any
    created_at: datetime


class Job(CreatedJob):
    """A job as it is now. What is not required comes with view=full."""

    status: STATUSES
    updated_at: datetime = Field(description="When the status last changed.")
    job_type: str = ""
    payload: Any = None
    queue: str = ""
    priority: int = 1
    run_at: datetime | None = None
    attempts: int = 0
    max_attempts: int = 1
    losses: int = 0
    max_losses: int = 3
    retry_delay_seconds: float = 15
    retry_delay_max_seconds: float = 3600
    timeout_seconds: float | None = None
    unique_key: str | None = None
    concurrency_key: str | None = None
    depends_on: list[UUID] | None = None
    cancel_requested: bool = False
    failed_at: datetime | None = None
    worker: str | None = Field(None, description="Who runs it.")
    progress: Any = Field(None, description="What its worker last reported.")
    trace_context: dict[str, Any] | None = None


class BatchItem(BaseModel):
    """What became of one job of a batch."""

    id: UUID
    created: bool = Field(description="False: an unfinished job had its unique key; its id.")


class CancelOutcome(BaseModel):
    """What became of a request to cancel."""

    id: UUID
    outcome: Literal["cancelled", "requested", "too late"] = Field(
        description="cancelled: it will not run. requested: it is running, and its worker is told. "
        "too late: it has succeeded or failed."
    )


class CancelFilter(Request):
    """Which jobs to cancel: unended ones that match all that is given. Something must be."""

    model_config = _something_of(
        "queue", "job_type", "status", "unique_key", "created_after", "created_before"
    )

    queue: Name | None = None
    job_type: Name | None = None
    status: Literal["blocked", "queued", "running"] | None = None
    unique_key: JobKey | None = None
    created_after: Time | None = None
    created_before: Time | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_BULK), WHOLE] = 1_000
    dry_run: bool = Field(False, description="Only say which jobs it would be.")


class RetryFilter(Request):
    """Which failed jobs to retry: those that match all that is given. Something must be."""

    model_config = _something_of("queue", "job_type", "error", "failed_after", "failed_before")

    queue: Name | None = None
    job_type: Name | None = None
    error: Part | None = Field(None, description="A part of the error.")
    failed_after: Time | None = None
    failed_before: Time | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_BULK), WHOLE] = 1_000
    dry_run: bool = Field(False, description="Only say which jobs it would be.")


class BulkOutcome(BaseModel):
    """What became of one job of a bulk request."""

    id: UUID
    outcome: str = Field(examples=["cancelled", "retried", "would be retried"])


class HistoryEvent(BaseModel):
    """One change of a job's status."""

    at: datetime
    verb: str = Field(examples=["enqueue", "claim", "complete", "fail", "retry"])
    from_status: str | None
    to_status: str
    claim_id: int | None
    actor: str
    detail: Any
    attempt: int | None


class Reason(BaseModel):
    """A reason why a job is not running, or that it is."""

    reason: str = Field(examples=["scheduled", "no worker", "paused"])
    explanation: str


class Progress(BaseModel):
    """How far a run has come."""

    worker: str | None
    progress: Any


class DeadJob(BaseModel):
    """A job that has failed for good."""

    id: UUID
    failed_at: datetime
    queue: str
    job_type: str
    payload: Any
    error: str | None
    attempts: int
    losses: int
    retries: int


class Health(BaseModel):
    """Whether the API can do its work, and if not, why."""

    status: str = Field(examples=["ok", "unavailable"])
    reason: str | None = None


class FieldError(BaseModel):
    """One fault of a request."""

    detail: str
    pointer: str | None = Field(None, description="Where in the body: a JSON Pointer (RFC 6901).")
    parameter: str | None = Field(None, description="Which parameter, if it is not in the body.")


class ProblemDetails(BaseModel):
    """What went wrong, as RFC 9457 has it."""

    type: str = Field(examples=["urn:async-job-orchestrator:problem:not-found"])
    title: str
    status: int
    detail: str
    instance: str | None = Field(
        None,
        description="Which request it was: ends with its X-Request-ID.",
        examples=["urn:async-job-orchestrator:request:8e03978e-40d5-43e8-bc93-6894a57f9324"],
    )
    code: str | None = Field(
        None, description="The SQLSTATE, of class JQ, if the database said so."
    )
    errors: list[FieldError] | None = None
