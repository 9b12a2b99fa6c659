"""What schemathesis must be told to make requests that are right: the rest is in the document."""

import itertools
from typing import Any

import schemathesis
from hypothesis import strategies as st

_numbers = itertools.count(1)

schemathesis.openapi.format(
    "cron", st.sampled_from(["30 4 * * *", "@daily", "*/5 8-18 * * 1-5", "0 0 29 2 *"])
)
schemathesis.openapi.format("time-zone", st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata"]))


@schemathesis.hook
def before_call(context: Any, case: schemathesis.Case[Any], kwargs: dict[str, Any]) -> None:
    """Let no two bodies have one Idempotency-Key: the second would be refused, as it should be."""
    meta = case.meta
    if meta and meta.generation.mode.is_positive and "Idempotency-Key" in (case.headers or {}):
        case.headers["Idempotency-Key"] = f"key {next(_numbers)}"
