"""OpenTelemetry: the span of a request, and the trace that the job carries which it enqueues."""

import importlib.util
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api import tracing
from tests.support import Connection, one, value

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Where the spans of a test go, as if the server were run by opentelemetry-instrument."""
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def span_of_request(exporter: Any) -> Any:
    """Return the only span of a request."""
    [span] = [span for span in exporter.get_finished_spans() if span.kind.name == "SERVER"]
    return span


def carried(db: Connection) -> dict[str, str]:
    """Return the trace context of the only job."""
    return dict(value(db, "select trace_context from job_queue.jobs") or {})


def test_a_request_is_a_span_named_after_its_route(exporter: Any, api: TestClient) -> None:
    assert api.get("/jobs/no-id").status_code == 422
    span = span_of_request(exporter)
    assert span.name == "GET /jobs/{job_id}"
    assert span.attributes["http.response.status_code"] == 422


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/jobs", {}),
        ("/jobs", {"unique_key": "k"}),
        ("/jobs/batch", [{}]),
    ],
)
def test_a_job_carries_the_span_of_the_request_that_enqueued_it(
    exporter: Any, api: TestClient, db: Connection, path: str, body: Any
) -> None:
    assert api.post(path, json=body).status_code == 201
    spans = {
        f"{span.context.span_id:016x}": span.parent and f"{span.parent.span_id:016x}"
        for span in exporter.get_finished_spans()
    }
    request = span_of_request(exporter).context
    _, trace_id, span_id, _ = carried(db)["traceparent"].split("-")
    assert trace_id == f"{request.trace_id:032x}"
    while span_id != f"{request.span_id:016x}":  # or a span within it
        span_id = spans[span_id]


def test_the_span_continues_the_trace_of_the_client(
    exporter: Any, api: TestClient, db: Connection
) -> None:
    response = api.post("/jobs", json={}, headers={"traceparent": TRACEPARENT})
    assert response.status_code == 201
    span = span_of_request(exporter)
    assert f"{span.parent.span_id:016x}" == SPAN_ID
    assert carried(db)["traceparent"].startswith(f"00-{TRACE_ID}-")
    assert SPAN_ID not in carried(db)["traceparent"]


def test_a_trace_that_the_body_names_is_kept(
    exporter: Any, api: TestClient, db: Connection
) -> None:
    assert api.post("/jobs", json={"trace_context": {"traceparent": "mine"}}).status_code == 201
    assert carried(db) == {"traceparent": "mine"}


def test_a_fault_is_an_error_of_the_span(exporter: Any, api: TestClient, db: Connection) -> None:
    db.execute("alter table job_queue.jobs rename column message to said")
    assert api.post("/jobs", json={}).status_code == 500
    assert span_of_request(exporter).status.status_code.name == "ERROR"


def test_without_a_provider_a_job_carries_what_the_client_sent(
    api: TestClient, db: Connection
) -> None:
    headers = {"traceparent": TRACEPARENT, "tracestate": "a=1"}
    assert api.post("/jobs", json={}, headers=headers).status_code == 201
    assert carried(db) == headers


@pytest.mark.parametrize("traceparent", ["nonsense", TRACEPARENT.upper(), f"{TRACEPARENT}-x", ""])
def test_or_nothing_if_that_is_no_trace(api: TestClient, db: Connection, traceparent: str) -> None:
    headers = {"traceparent": traceparent, "tracestate": "a=1"}
    assert api.post("/jobs", json={}, headers=headers).status_code == 201
    assert one(db, "select trace_context from job_queue.jobs").trace_context is None


def test_without_opentelemetry_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.propagate", None)
    assert tracing.__file__ is not None
    spec = importlib.util.spec_from_file_location("tracing_without", tracing.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.inject is None

    class Request:
        headers = {"traceparent": TRACEPARENT}  # noqa: RUF012

    assert module.trace_context(Request()) == {"traceparent": TRACEPARENT}
    Request.headers = {}
    assert module.trace_context(Request()) is None
