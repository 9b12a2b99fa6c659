"""The trace that a request belongs to, for the worker that runs what it asked for."""

import re

from fastapi import Request

try:
    from opentelemetry.propagate import inject
except ImportError:  # pragma: no cover
    inject = None  # type: ignore[assignment]

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def trace_context(request: Request) -> dict[str, str] | None:
    """Return the request's own span where OpenTelemetry traces, or else what its headers say.

    W3C Trace Context: https://www.w3.org/TR/trace-context/
    """
    carrier: dict[str, str] = {}
    if inject is not None:
        inject(carrier)
    if not carrier and _TRACEPARENT.fullmatch(request.headers.get("traceparent", "")):
        carrier["traceparent"] = request.headers["traceparent"]
        if state := request.headers.get("tracestate", "")[:512]:
            carrier["tracestate"] = state
    return carrier or None
