"""OpenTelemetry, if its API is installed: a span for each run, linked to who enqueued the job.

Which spans are kept, and where they go, is for the SDK to say: run the worker under
`opentelemetry-instrument`, or set a tracer provider in the module of the handlers. Names follow
https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/.
"""

import contextlib
import json
from collections.abc import Iterator

from worker.queue import Job

_NOTHING = contextlib.nullcontext()

try:
    from opentelemetry import propagate, trace
except ImportError:

    def current_context() -> dict[str, str] | None:
        """Return the W3C trace context to put on a job: there is none."""
        return None

    def span(job: Job) -> contextlib.AbstractContextManager[None]:
        """Trace nothing."""
        return _NOTHING

    def mark_failed(error: str) -> None:
        """Say that the current span failed: there is none."""

else:
    _tracer = trace.get_tracer("async-job-orchestrator")

    def current_context() -> dict[str, str] | None:
        """Return the W3C trace context to put on a job, if there is a current span."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier or None

    def span(job: Job) -> contextlib.AbstractContextManager[None]:
        """Trace the run of the job, if anybody traces."""
        if isinstance(_tracer, trace.ProxyTracer) and isinstance(
            trace.get_tracer_provider(), trace.ProxyTracerProvider
        ):  # nobody has set one that does anything
            return _NOTHING
        return _span(job)

    @contextlib.contextmanager
    def _span(job: Job) -> Iterator[None]:
        members = json.loads(job.trace_context) if job.trace_context else {}
        # Whoever enqueues may have put anything there, and propagators raise for what is no text.
        carrier = {name: value for name, value in members.items() if isinstance(value, str)}
        enqueuer = trace.get_current_span(propagate.extract(carrier)).get_span_context()
        with _tracer.start_as_current_span(
            f"process {job.queue}",
            kind=trace.SpanKind.CONSUMER,
            links=[trace.Link(enqueuer)] if enqueuer.is_valid else [],
            attributes={
                "messaging.system": "async-job-orchestrator",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": job.queue,
                "messaging.message.id": str(job.id),
                "job.type": job.job_type,
                "job.attempt": job.attempt,
                "job.claim_id": job.claim_id,
            },
        ):
            yield

    def mark_failed(error: str) -> None:
        """Say that the current span failed."""
        trace.get_current_span().set_status(trace.StatusCode.ERROR, error)
