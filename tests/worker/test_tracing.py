"""OpenTelemetry: the span of a run, and the trace that a job carries."""

import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from tests.support import Connection, enqueue, eventually, one
from tests.worker.runs import JOB_ID, a_run
from worker import AsyncContext, Context, Fail, Retry, Snooze, calls, handler, registry, tracing
from worker.calls import call, call_async
from worker.connection import handler_pool
from worker.outcomes import Cancelled
from worker.registry import Handler
from worker.run import Outcome

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
TRACE_CONTEXT = f'{{"traceparent": "00-{TRACE_ID}-{SPAN_ID}-01"}}'

CONTEXT: Any = None


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Handler]:
    """The handlers of a test."""
    monkeypatch.setattr(registry, "_handlers", {})
    return registry._handlers


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Where the spans of a test go."""
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "_tracer", provider.get_tracer("test"))
    yield exporter
    provider.shutdown()


def only_span(exporter: Any) -> Any:
    """Return the only span there is."""
    [span] = exporter.get_finished_spans()
    return span


def test_a_run_is_a_span_named_and_described_as_the_conventions_say(
    exporter: Any, handlers: dict[str, Handler]
) -> None:
    @handler("email")
    def send() -> None: ...

    call(handlers["email"], a_run("email", queue="mail", attempt=2), CONTEXT)
    span = only_span(exporter)
    assert (span.name, span.kind.name) == ("process mail", "CONSUMER")
    assert dict(span.attributes) == {
        "messaging.system": "async-job-orchestrator",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "mail",
        "messaging.message.id": str(JOB_ID),
        "job.type": "email",
        "job.attempt": 2,
        "job.claim_id": 7,
    }
    assert span.status.status_code.name == "UNSET"
    assert span.end_time >= span.start_time


def test_the_span_is_linked_to_that_of_whoever_enqueued_the_job(
    exporter: Any, handlers: dict[str, Handler]
) -> None:
    @handler("email")
    def send() -> None: ...

    call(handlers["email"], a_run("email", trace_context=TRACE_CONTEXT), CONTEXT)
    span = only_span(exporter)
    [link] = span.links
    assert f"{link.context.trace_id:032x}" == TRACE_ID
    assert f"{link.context.span_id:016x}" == SPAN_ID
    assert span.parent is None


@pytest.mark.parametrize(
    "trace_context",
    [
        None,
        "{}",
        '{"traceparent": "nonsense"}',
        '{"traceparent": 5}',
        '{"traceparent": null}',
        '{"traceparent": ["a"]}',
        '{"traceparent": {"a": 1}}',
        '{"baggage": 5}',
        f'{{"traceparent": "00-{"0" * 32}-{"0" * 16}-01"}}',
    ],
)
def test_a_job_without_a_trace_that_can_be_read_runs_without_a_link(
    exporter: Any, handlers: dict[str, Handler], trace_context: str | None
) -> None:
    @handler("email")
    def send() -> str:
        return "sent"

    run = a_run("email", trace_context=trace_context)
    assert call(handlers["email"], run, CONTEXT) == Outcome("complete", '"sent"')
    assert not only_span(exporter).links


def test_what_the_handler_traces_is_inside_the_span_of_its_run(
    exporter: Any, handlers: dict[str, Handler]
) -> None:
    @handler("email")
    def send() -> None:
        with tracing._tracer.start_as_current_span("inside"):
            pass

    call(handlers["email"], a_run("email"), CONTEXT)
    inside, outside = exporter.get_finished_spans()
    assert (inside.name, outside.name) == ("inside", "process default")
    assert inside.parent.span_id == outside.context.span_id


def test_the_spans_of_async_handlers_that_take_turns_do_not_mix(
    exporter: Any, handlers: dict[str, Handler]
) -> None:
    @handler("email")
    async def send(to: str) -> None:
        await asyncio.sleep(0)
        with tracing._tracer.start_as_current_span(to):
            await asyncio.sleep(0)

    async def both() -> None:
        runs = [a_run("email", {"to": to}, queue=to) for to in ("ann", "bob")]
        await asyncio.gather(*[call_async(handlers["email"], run, CONTEXT) for run in runs])

    asyncio.run(both())
    spans = {span.name: span for span in exporter.get_finished_spans()}
    for to in ("ann", "bob"):
        assert spans[to].parent.span_id == spans[f"process {to}"].context.span_id
        assert spans[f"process {to}"].parent is None


@pytest.mark.parametrize(
    ("error", "description"),
    [
        (ValueError("no such thing"), "ValueError: no such thing"),
        (Fail("never"), "never"),
        (Retry(error="busy"), "busy"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
def test_the_span_of_a_run_that_failed_says_so_and_why(
    exporter: Any,
    handlers: dict[str, Handler],
    error: Exception,
    description: str,
    is_async: bool,
) -> None:
    if is_async:

        @handler("email")
        async def send_later() -> None:
            raise error

        asyncio.run(call_async(handlers["email"], a_run("email"), CONTEXT))
    else:

        @handler("email")
        def send() -> None:
            raise error

        call(handlers["email"], a_run("email"), CONTEXT)
    status = only_span(exporter).status
    assert (status.status_code.name, status.description) == ("ERROR", description)


def test_the_span_of_a_run_with_a_payload_that_does_not_fit_says_so(
    exporter: Any, handlers: dict[str, Handler]
) -> None:
    @handler("email")
    def send(to: str) -> None: ...

    call(handlers["email"], a_run("email"), CONTEXT)
    status = only_span(exporter).status
    assert status.status_code.name == "ERROR"
    assert "to: Field required" in status.description


@pytest.mark.parametrize("error", [Snooze(5), Cancelled("stopped")])
def test_a_run_that_is_put_off_or_stopped_has_not_failed(
    exporter: Any, handlers: dict[str, Handler], error: Exception
) -> None:
    @handler("email")
    def send() -> None:
        raise error

    call(handlers["email"], a_run("email"), CONTEXT)
    assert only_span(exporter).status.status_code.name == "UNSET"


def test_a_job_that_a_handler_enqueues_carries_the_span_of_its_run(
    exporter: Any, handlers: dict[str, Handler], db: Connection, conninfo: str
) -> None:
    @handler("email")
    def send(context: Context) -> str:
        return str(context.enqueue("letter"))

    run = a_run("email", trace_context=TRACE_CONTEXT)
    with handler_pool(conninfo, size=1) as pool:
        outcome = call(handlers["email"], run, Context(run, lambda: pool, lambda: float("inf")))
    assert outcome.verb == "complete", outcome
    span = only_span(exporter).context
    row = one(db, "select trace_context from job_queue.jobs where job_type = 'letter'")
    assert row.trace_context == {
        "traceparent": f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"
    }


# Without OpenTelemetry


@pytest.fixture
def without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as it is where OpenTelemetry is not installed."""
    for name in [*sys.modules]:
        if name.partition(".")[0] == "opentelemetry":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert tracing.__file__ is not None
    spec = importlib.util.spec_from_file_location("tracing_without", tracing.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(calls, "tracing", module)
    monkeypatch.setattr("worker.context.tracing", module)
    return module


def test_without_opentelemetry_there_is_no_trace(without_opentelemetry: ModuleType) -> None:
    assert not hasattr(without_opentelemetry, "trace")
    assert without_opentelemetry.current_context() is None


@pytest.mark.usefixtures("without_opentelemetry")
def test_without_opentelemetry_jobs_run_and_fail_and_enqueue_all_the_same(
    handlers: dict[str, Handler],
    db: Connection,
    conninfo: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    @handler("email")
    def send(context: Context) -> None:
        context.enqueue("letter")
        raise ValueError("no such thing")

    @handler("later")
    async def send_later(context: AsyncContext) -> str:
        return context.job.queue

    run = a_run("email", trace_context=TRACE_CONTEXT)
    with handler_pool(conninfo, size=1) as pool:
        outcome = call(handlers["email"], run, Context(run, lambda: pool, lambda: float("inf")))
    assert (outcome.verb, outcome.text) == ("fail", "ValueError: no such thing")
    assert one(db, "select trace_context from job_queue.jobs").trace_context is None

    async def later() -> Outcome:
        run = a_run("later", trace_context=TRACE_CONTEXT)
        pool: Any = None
        context = AsyncContext(run, pool, lambda: float("inf"))
        return await call_async(handlers["later"], run, context)

    assert asyncio.run(later()) == Outcome("complete", '"default"')
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_a_job_whose_trace_is_no_trace_does_not_hold_up_the_worker(
    db: Connection, start_worker: Any
) -> None:
    trace_context = '{"traceparent": 5, "tracestate": {}}'
    enqueue(db, sleep_seconds=0, trace_context=trace_context)
    worker = start_worker(WORKER_HANDLERS="")
    eventually(lambda: one(db, "select status from job_queue.jobs").status == "succeeded")
    assert worker.stop() == 0
