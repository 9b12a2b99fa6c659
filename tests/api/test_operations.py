"""/livez, /readyz and /metrics."""

import asyncio
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from api import metrics
from api.main import create_app
from api.settings import Settings
from tests.api.conftest import Serve
from tests.support import (
    UNKNOWN_JOB,
    Connection,
    claim,
    enqueue,
    eventually,
    skip_unless_required,
    value,
)

NOWHERE = "host=127.0.0.1 port=1 dbname=jobs connect_timeout=2"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples_in(text: str) -> Samples:
    """Return the samples of a scrape by their name and labels, each of which must be there once."""
    found = [
        ((sample.name, frozenset(sample.labels.items())), sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    assert len(found) == len(dict(found))
    return dict(found)


def scrape(api: Any, key: str | None = None) -> Samples:
    """Return the samples of one scrape."""
    response = api.get("/metrics", headers={"X-API-Key": key} if key else {})
    assert response.status_code == 200, response.text
    return samples_in(response.text)


def sample(samples: Samples, name: str, **labels: str) -> float:
    """Return one sample; 0 if it is not there."""
    return samples.get((name, frozenset(labels.items())), 0.0)


@pytest.fixture(autouse=True)
def always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each scrape ask the database."""
    monkeypatch.setattr(metrics, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(metrics, "_FRESH_FOR_EACH_SECOND", 0.0)


# Probes


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_a_probe_is_ok_while_all_is_well(api: TestClient, path: str) -> None:
    response = api.get(path)
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_without_a_database_the_process_is_alive_but_not_ready() -> None:
    with TestClient(create_app(Settings(NOWHERE))) as api:
        assert api.get("/livez").status_code == 200
        response = api.get("/readyz")
        assert response.status_code == 503
        assert "connection refused" in response.json()["reason"].lower()


def test_a_process_that_is_told_to_stop_is_alive_but_not_ready(api: TestClient) -> None:
    api.app.state.stopping.set()  # type: ignore[attr-defined]
    response = api.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"status": "unavailable", "reason": "the API is shutting down"}
    assert api.get("/livez").status_code == 200


def test_probes_need_no_key(conninfo: str) -> None:
    with TestClient(create_app(Settings(conninfo, require_key=True))) as api:
        for path in ("/health", "/livez", "/readyz"):
            assert api.get(path).status_code == 200


# The metrics of requests


def requests(api: Any, route: str, status: int, method: str = "GET") -> float:
    """Return how many requests of the route were answered with the status."""
    return sample(
        scrape(api), "api_http_requests_total", method=method, route=route, status=str(status)
    )


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/livez", "/livez", 200),
        ("POST", "/jobs", "/jobs", 201),
        ("GET", f"/jobs/{UNKNOWN_JOB}", "/jobs/{job_id}", 404),
        ("GET", "/jobs/no-id", "/jobs/{job_id}", 422),
        ("PUT", "/livez", "/livez", 405),
        ("GET", "/no/such/path", "other", 404),
    ],
)
def test_a_request_is_counted_by_its_method_route_and_status(
    api: TestClient, method: str, path: str, route: str, status: int
) -> None:
    before = scrape(api)
    response = api.request(method, path, json={} if method == "POST" else None)
    assert response.status_code == status
    after = scrape(api)
    labels = {"method": method, "route": route, "status": str(status)}
    for name in ("api_http_requests_total", "api_http_request_duration_seconds_count"):
        assert sample(after, name, **labels) == sample(before, name, **labels) + 1
    total = "api_http_request_duration_seconds_sum"
    assert sample(after, total, **labels) > sample(before, total, **labels)


def test_clients_cannot_invent_labels(api: TestClient) -> None:
    def labels() -> set[Any]:
        return {key for key in scrape(api) if "brew" in str(key).lower() or "coffee" in str(key)}

    for number in range(3):
        api.request(f"BREW{number}", f"/coffee/{number}")
    assert labels() == set()
    assert requests(api, "other", 404, "other") >= 3


def test_a_request_that_fails_within_the_api_is_counted_as_500(
    api: TestClient, db: Connection
) -> None:
    db.execute("alter table job_queue.jobs rename column message to said")
    before = requests(api, "/jobs/{job_id}", 500)
    assert api.get(f"/jobs/{UNKNOWN_JOB}").status_code == 500
    assert requests(api, "/jobs/{job_id}", 500) == before + 1


def test_requests_under_way_are_told(api: TestClient) -> None:
    assert sample(scrape(api), "api_http_requests_in_progress") == 1  # the scrape itself


def test_the_pool_is_told(conninfo: str, connect: Callable[[], Connection]) -> None:
    def of_pool() -> Samples:
        metrics.observe_pool(api.app.state.database)  # type: ignore[attr-defined]
        return samples_in(metrics.exposition("", [])[0].decode())

    blocker = connect()
    with (
        TestClient(create_app(Settings(conninfo, pool_size=2))) as api,
        ThreadPoolExecutor() as threads,
    ):
        with blocker.transaction():
            blocker.execute("lock table job_queue.jobs")
            waiting = [threads.submit(api.get, f"/jobs/{UNKNOWN_JOB}") for _ in range(3)]
            eventually(lambda: sample(of_pool(), "api_database_requests_waiting") == 1)
            samples = of_pool()
            assert sample(samples, "api_database_connections", state="in use") == 2
            assert sample(samples, "api_database_connections", state="idle") == 0
            assert sample(samples, "api_database_connections_limit") == 2
        assert [response.result().status_code for response in waiting] == [404] * 3


def test_promtool_finds_no_fault(api: TestClient, db: Connection) -> None:
    if shutil.which("promtool") is None:
        skip_unless_required("promtool", "there is no promtool here")
    enqueue(db, queue='a "queue"\\ of\nlines {x="y"}')
    db.execute("select complete_job(%s, %s)", claim(db)[:2])
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=api.get("/metrics").text,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_whoever_accepts_openmetrics_gets_it(api: TestClient) -> None:
    response = api.get(
        "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert response.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0")
    families = openmetrics.text_string_to_metric_families(response.text)  # type: ignore[no-untyped-call]
    assert "job_queue_jobs" in {family.name for family in families}
    assert api.get("/metrics").headers["Content-Type"].startswith("text/plain; version=")


# The metrics of the queue


def test_jobs_are_told_by_queue_and_status(api: TestClient, db: Connection) -> None:
    for _ in range(3):
        enqueue(db, queue="mail")
    enqueue(db, queue="mail", delay="1 hour")
    claim(db)
    samples = scrape(api)
    assert sample(samples, "job_queue_up") == 1
    counts = {
        status: sample(samples, "job_queue_jobs", queue="mail", status=status)
        for status in ("blocked", "queued", "running", "succeeded", "failed", "cancelled")
    }
    assert counts == {
        "blocked": 0,
        "queued": 3,
        "running": 1,
        "succeeded": 0,
        "failed": 0,
        "cancelled": 0,
    }
    assert sample(samples, "job_queue_ready_jobs", queue="mail") == 2
    assert 0 < sample(samples, "job_queue_oldest_ready_age_seconds", queue="mail") < 3600


def test_a_queue_without_ready_jobs_has_no_age_to_be_alarmed_by(
    api: TestClient, db: Connection
) -> None:
    enqueue(db, queue="mail", delay="1 hour")
    samples = scrape(api)
    labels = frozenset({("queue", "mail")})
    assert samples["job_queue_oldest_ready_age_seconds", labels] == 0


def test_what_happens_is_counted_from_the_first_scrape_on(api: TestClient, db: Connection) -> None:
    enqueue(db, queue="mail")
    scrape(api)
    for _ in range(3):
        enqueue(db, queue="mail", max_attempts=2)
    held = [claim(db) for _ in range(3)]
    db.execute("select complete_job(%s, %s)", [held[0].id, held[0].claim_id])
    db.execute("select fail_job(%s, %s, 'no')", [held[1].id, held[1].claim_id])
    db.execute("select snooze_job(%s, %s, '1 hour')", [held[2].id, held[2].claim_id])
    samples = scrape(api)

    def count(name: str) -> float:
        return sample(samples, name, queue="mail")

    assert count("job_queue_enqueued_total") == 3
    assert count("job_queue_claims_total") == 3
    assert count("job_queue_completed_total") == 1
    assert count("job_queue_failures_total") + count("job_queue_retries_total") == 1
    assert count("job_queue_snoozes_total") == 1
    for outcome in ("complete", "fail", "snooze"):
        labels = {"queue": "mail", "outcome": outcome}
        assert sample(samples, "job_queue_run_duration_seconds_count", **labels) == 1
        assert sample(samples, "job_queue_run_duration_seconds_sum", **labels) > 0
    assert scrape(api)["job_queue_claims_total", frozenset({("queue", "mail")})] == 3


EVENTS = [
    ("mail", "enqueue", "queued", 100, 0.0),
    ("mail", "enqueue", "blocked", 7, 0.0),
    ("mail", "claim", "running", 90, 0.0),
    ("mail", "complete", "succeeded", 50, 25.0),
    ("mail", "fail", "queued", 10, 5.0),
    ("mail", "fail", "failed", 3, 1.0),
    ("mail", "time_out", "queued", 4, 8.0),
    ("mail", "time_out", "failed", 2, 4.0),
    ("mail", "reclaim", "queued", 6, 60.0),
    ("mail", "reclaim", "failed", 1, 10.0),
    ("mail", "snooze", "queued", 11, 1.0),
    ("mail", "release", "queued", 12, 2.0),
    ("mail", "release", "cancelled", 1, 1.0),
    ("mail", "cancel", "running", 1, 0.0),
    ("mail", "cancel", "cancelled", 5, 0.0),
    ("mail", "retry", "queued", 8, 0.0),
    ("post", "claim", "running", 1, 0.0),
]


def test_each_counter_counts_the_events_that_it_says() -> None:
    families = list(metrics._event_families(EVENTS))
    samples = samples_in(metrics.exposition("", families)[0].decode())
    counts = {
        name: sample(samples, f"job_queue_{name}_total", queue="mail")
        for name in (family.name.removeprefix("job_queue_") for family in families[:-1])
    }
    assert counts == {
        "enqueued": 107,
        "claims": 90,
        "completed": 50,
        "failures": 6,
        "cancellations": 6,
        "retries": 14,
        "timeouts": 6,
        "losses": 7,
        "snoozes": 11,
        "releases": 13,
        "revivals": 8,
    }
    assert sample(samples, "job_queue_claims_total", queue="post") == 1
    labels = {"queue": "mail", "outcome": "fail"}
    assert sample(samples, "job_queue_run_duration_seconds_count", **labels) == 13
    assert sample(samples, "job_queue_run_duration_seconds_sum", **labels) == 6


def test_each_verb_of_the_state_machine_is_counted_somewhere(db: Connection) -> None:
    verbs = {row.verb for row in db.execute("table job_queue.job_transitions")}
    counted = set[str]().union(*(verbs for _, verbs, _ in metrics._COUNTERS.values() if verbs))
    assert verbs - counted == {"unblock", "cancel"}  # cancellations go by the status
    assert verbs >= counted | metrics._RUN_ENDS
    from_running = db.execute(
        "select distinct verb from job_queue.job_transitions"
        " where from_status = 'running' and to_status <> 'running'"
    )
    assert {row.verb for row in from_running} == metrics._RUN_ENDS


def test_without_a_database_the_metrics_of_requests_still_come(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with TestClient(create_app(Settings(NOWHERE))) as api:
        for _ in range(2):
            samples = scrape(api)
            assert sample(samples, "job_queue_up") == 0
            assert not [name for name, _ in samples if name == "job_queue_jobs"]
            assert sample(samples, "api_http_requests_in_progress") == 1
    warnings = [record for record in caplog.records if "no metrics of the queue" in record.message]
    assert len(warnings) == 1  # and not one a scrape


def test_a_database_that_never_answers_does_not_keep_the_scraper_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        conninfo = f"host=127.0.0.1 port={silent.getsockname()[1]} dbname=jobs connect_timeout=2"
        with TestClient(create_app(Settings(conninfo, database_timeout=0.2))) as api:
            assert sample(scrape(api), "job_queue_up") == 0


def test_a_login_that_may_not_ask_is_told_apart_from_a_queue_at_rest(
    api: TestClient, db: Connection, conninfo: str
) -> None:
    db.execute("drop role if exists metrics_stranger")
    db.execute("create role metrics_stranger login")
    try:
        db.execute("grant job_queue_client to metrics_stranger")
        with TestClient(create_app(Settings(f"{conninfo} user=metrics_stranger"))) as stranger:
            assert sample(scrape(stranger), "job_queue_up") == 0
        assert sample(scrape(api), "job_queue_up") == 1
    finally:
        db.execute("drop role metrics_stranger")


class SlowDatabase:
    """Answers when it is let, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = asyncio.Event()

    async def fetch_apart(self, *queries: str) -> list[list[Any]]:
        self.asked += 1
        await self.answer.wait()
        return [[] for _ in queries]


def test_simultaneous_scrapes_ask_the_database_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "_FRESH_SECONDS", 60.0)

    async def ten_scrapes() -> int:
        database: Any = SlowDatabase()
        queue_metrics = metrics.QueueMetrics(database)
        scrapes = [asyncio.create_task(queue_metrics.families()) for _ in range(10)]
        await asyncio.sleep(0)
        scrapes.pop(0).cancel()  # a scraper that hangs up holds up nobody
        await asyncio.sleep(0)
        database.answer.set()
        assert all(len(families) > 1 for families in await asyncio.gather(*scrapes))
        return int(database.asked)

    assert asyncio.run(ten_scrapes()) == 2


def test_the_longer_it_took_to_ask_the_longer_the_answer_is_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "_FRESH_FOR_EACH_SECOND", 10.0)
    times = iter([0.0, 2.0, 21.9, 22.1, 22.2])
    monkeypatch.setattr(metrics, "time", SimpleNamespace(monotonic=lambda: next(times)))

    async def asked() -> list[int]:
        database: Any = SlowDatabase()
        database.answer.set()
        queue_metrics = metrics.QueueMetrics(database)
        counts = []
        for _ in range(3):
            await queue_metrics.families()
            counts.append(database.asked)
        return counts

    assert asyncio.run(asked()) == [1, 1, 2]


# Who may read them


def new_key(db: Connection, *scopes: str) -> str:
    """Make an API key."""
    return str(value(db, "select api_key from job_queue.create_api_key('x', %s)", [*scopes]))


@pytest.fixture
def guarded(conninfo: str) -> Iterator[TestClient]:
    """An API that needs keys."""
    with TestClient(create_app(Settings(conninfo, require_key=True))) as client:
        yield client


def test_where_keys_are_needed_metrics_need_one_of_an_operator(
    guarded: TestClient, db: Connection
) -> None:
    assert guarded.get("/metrics").status_code == 401
    for scope, status in (("client", 403), ("worker", 403), ("operator", 200)):
        response = guarded.get("/metrics", headers={"X-API-Key": new_key(db, scope)})
        assert response.status_code == status, scope


def test_a_key_counts_even_where_none_is_needed(api: TestClient, db: Connection) -> None:
    assert api.get("/metrics", headers={"X-API-Key": new_key(db, "client")}).status_code == 403


def test_a_key_that_was_good_stays_good_while_the_database_is_away(
    guarded: TestClient, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown, revoked = (new_key(db, "operator") for _ in range(3))
    scrape(guarded, known)
    scrape(guarded, revoked)
    db.execute("select job_queue.revoke_api_key(%s)", [revoked.split("_")[1]])
    assert guarded.get("/metrics", headers={"X-API-Key": revoked}).status_code == 401

    async def away(*_: Any) -> Any:
        raise TimeoutError

    state = guarded.app.state  # type: ignore[attr-defined]
    monkeypatch.setattr(state.database, "fetch", away)
    monkeypatch.setattr(state.database, "fetch_apart", away)
    assert sample(scrape(guarded, known), "job_queue_up") == 0
    for key in (unknown, revoked):
        assert guarded.get("/metrics", headers={"X-API-Key": key}).status_code == 503


# Several processes


def test_several_processes_tell_the_metrics_of_all_and_those_of_the_queue_once(
    serve: Serve, db: Connection, tmp_path: Path
) -> None:
    for _ in range(3):
        enqueue(db, queue="mail")
    shared = tmp_path / "metrics"
    server = serve(WEB_CONCURRENCY="2", PROMETHEUS_MULTIPROC_DIR=str(shared))
    eventually(lambda: len(re.findall("Application startup complete", server.log)) == 2)
    for _ in range(20):  # each a connection of its own, which either process may accept
        assert httpx2.get(f"{server.url}/livez").status_code == 200
    for _ in range(5):
        with httpx2.Client(base_url=server.url) as client:
            samples = scrape(client)
        livez = {"method": "GET", "route": "/livez", "status": "200"}
        assert sample(samples, "api_http_requests_total", **livez) == 20
        assert sample(samples, "api_database_connections_limit") == 20
        assert sample(samples, "job_queue_jobs", queue="mail", status="queued") == 3
    assert server.stop() == 0


def test_gauges_of_a_process_that_has_died_are_not_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for name in (f"gauge_livesum_{dead.pid}.db", f"counter_{dead.pid}.db", "gauge_livesum_1.db"):
        (tmp_path / name).touch()
    metrics._of_processes()
    assert {path.name for path in tmp_path.iterdir()} == {
        f"counter_{dead.pid}.db",
        "gauge_livesum_1.db",
    }
