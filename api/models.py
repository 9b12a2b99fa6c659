"""What clients send, checked, and what they get back, described."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _integer(number: Any) -> Any:
    """Take 3.0 for 3, as JSON Schema does; leave everything else to strict validation."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise PydanticCustomError("nul", "NUL characters (U+0000) cannot be stored")
    return text


class NewJob(BaseModel):
    """A job to enqueue. The bounds are those of the database's enqueue_job."""

    model_config = ConfigDict(strict=True, extra="forbid")

    sleep_seconds: Annotated[
        int,
        Field(ge=0, le=86_400, description="How long the job sleeps."),
        BeforeValidator(_integer),
    ] = 3
    message: Annotated[str, Field(max_length=10_000), AfterValidator(_without_nul)] | None = Field(
        None, description="Echoed in the result."
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
    """A job as it is now."""

    status: str = Field(examples=["queued", "running", "succeeded", "failed"])
    updated_at: datetime = Field(description="When the status last changed.")


class Problem(BaseModel):
    """What was wrong with a request."""

    detail: str


class Health(BaseModel):
    """Whether the API can do its work, and if not, why."""

    status: str = Field(examples=["ok", "unavailable"])
    reason: str | None = None
