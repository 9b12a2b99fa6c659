"""Prefer: wait, of POST /jobs and GET /jobs/{id}."""

import asyncio
import http.client
import json
import logging
import re
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from api import watch
from tests.api.conftest import Serve, ServerHere
from tests.support import Connection, claim, enqueue, eventually, value

logger = logging.getLogger(__name__)


@contextmanager
def asking(call: Callable[[], Any]) -> Iterator[Any]:
    """Send a request beside the block, which must let it be answered."""
    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(call)


def wait_for(api: TestClient, job_id: Any, wait: str = "wait=60", **arguments: Any) -> Any:
    return api.get(f"/jobs/{job_id}", headers={"Prefer": wait}, **arguments)


def waits(api: TestClient) -> int:
    """Return how many wait."""
    watcher = api.app.state.watcher  # type: ignore[attr-defined]
    return sum(len(waiters) for waiters in watcher._waiters.values())


def test_a_job_is_shown_as_soon_as_it_has_succeeded(api: TestClient, db: Connection) -> None:
    job_id = enqueue(db)
    with asking(lambda: wait_for(api, job_id)) as response:
        eventually(lambda: waits(api))
        held = claim(db)
        db.execute("select complete_job(%s, %s, '[1]')", [held.id, held.claim_id])
    shown = response.result()
    assert (shown.status_code, shown.json()["status"], shown.json()["result"]) == (
        200,
        "succeeded",
        [1],
    )
    assert shown.headers["Preference-Applied"] == "wait=60"


def test_a_job_is_shown_as_soon_as_it_is_cancelled(api: TestClient, db: Connection) -> None:
    job_id = enqueue(db)
    with asking(lambda: wait_for(api, job_id)) as response:
        eventually(lambda: waits(api))
        api.post(f"/jobs/{job_id}/cancel")
    assert response.result().json()["status"] == "cancelled"


def test_a_job_is_shown_as_it_is_when_the_time_is_up(api: TestClient, db: Connection) -> None:
    response = wait_for(api, enqueue(db), "wait=1")
    assert response.json()["status"] == "queued"
    assert response.headers["Preference-Applied"] == "wait=1"


def test_a_job_that_has_ended_is_shown_at_once(api: TestClient, db: Connection) -> None:
    job_id = enqueue(db)
    db.execute("select cancel_job(%s)", [job_id])
    assert wait_for(api, job_id).json()["status"] == "cancelled"


def test_who_waits_gets_the_view_that_was_asked_for(api: TestClient, db: Connection) -> None:
    job_id = enqueue(db, job_type="email")
    db.execute("select cancel_job(%s)", [job_id])
    assert wait_for(api, job_id, params={"view": "full"}).json()["job_type"] == "email"


def test_nobody_waits_for_an_unknown_job(api: TestClient) -> None:
    assert wait_for(api, uuid4()).status_code == 404


def test_a_job_that_is_deleted_meanwhile_is_404(api: TestClient, db: Connection) -> None:
    job_id = enqueue(db)
    with asking(lambda: wait_for(api, job_id)) as response:
        eventually(lambda: waits(api))
        db.execute("delete from jobs where id = %s", [job_id])
    assert response.result().status_code == 404


@pytest.mark.parametrize(
    "prefer", ["wait", "wait=", "wait=x", "wait=-1", "wait=1.5", "await=5", ""]
)
def test_what_is_no_preference_to_wait_is_ignored(
    api: TestClient, db: Connection, prefer: str
) -> None:
    response = wait_for(api, enqueue(db), prefer)
    assert response.json()["status"] == "queued"
    assert "Preference-Applied" not in response.headers


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=999999999", "wait=60"),
        ("respond-async, wait=7", "wait=7"),
        ('Wait="7"; foo', "wait=7"),
        ("handling=lenient,wait = 7", "wait=7"),
    ],
)
def test_a_wait_is_understood_among_other_preferences_and_bounded(
    api: TestClient, db: Connection, prefer: str, applied: str
) -> None:
    job_id = enqueue(db)
    db.execute("select cancel_job(%s)", [job_id])
    assert wait_for(api, job_id, prefer).headers["Preference-Applied"] == applied


def test_who_creates_a_job_may_wait_for_its_result(api: TestClient, db: Connection) -> None:
    request = {"json": {"sleep_seconds": 0}, "headers": {"Prefer": "wait=60"}}
    with asking(lambda: api.post("/jobs", **request)) as response:  # type: ignore[arg-type]
        eventually(lambda: waits(api))
        held = claim(db)
        db.execute("""select complete_job(%s, %s, '{"a": 1}')""", [held.id, held.claim_id])
    created = response.result()
    assert created.status_code == 201
    assert created.headers["Location"] == f"/jobs/{held.id}"
    assert created.headers["Preference-Applied"] == "wait=60"
    body = created.json()
    assert list(body) == ["id", "status", "sleep_seconds", "message", "result", "created_at"]
    assert (body["status"], body["result"]) == ("succeeded", {"a": 1})


def test_a_job_that_cannot_be_read_again_was_created_all_the_same(
    api: TestClient, db: Connection
) -> None:
    request = {"json": {}, "headers": {"Prefer": "wait=60"}}
    with asking(lambda: api.post("/jobs", **request)) as response:  # type: ignore[arg-type]
        eventually(lambda: waits(api))
        db.execute("alter function get_job rename to get_job_no_more")
        db.execute("select cancel_job(id) from jobs")
    created = response.result()
    assert (created.status_code, created.json()["status"]) == (201, "queued")


WATCHER = """
  from pg_stat_activity
 where application_name = 'job_queue api watcher' and datname = current_database()
"""


def test_nobody_asks_the_database_while_nobody_waits(api: TestClient, db: Connection) -> None:
    assert value(db, f"select count(*) {WATCHER}") == 0
    wait_for(api, enqueue(db), "wait=1")
    is_idle = f"select query_start < clock_timestamp() - interval '1 second' {WATCHER}"
    eventually(lambda: value(db, is_idle))


def test_one_connection_watches_for_all(api: TestClient, db: Connection) -> None:
    job_ids = [enqueue(db) for _ in range(8)]
    with ThreadPoolExecutor(8) as executor:
        responses = [executor.submit(wait_for, api, job_id) for job_id in job_ids]
        eventually(lambda: waits(api) == 8)
        assert value(db, f"select count(*) {WATCHER}") == 1
        db.execute("select cancel_job(id) from jobs")
        for response, job_id in zip(responses, job_ids, strict=True):
            assert response.result().json()["id"] == str(job_id)
    assert waits(api) == 0


def test_who_waits_outlasts_that_the_watching_connection_is_lost(
    api: TestClient, db: Connection
) -> None:
    job_id = enqueue(db)
    with asking(lambda: wait_for(api, job_id)) as response:
        eventually(lambda: waits(api))
        for _ in range(3):
            eventually(lambda: value(db, f"select count(pg_terminate_backend(pid)) {WATCHER}"))
        db.execute("select cancel_job(%s)", [job_id])
    assert response.result().json()["status"] == "cancelled"


def test_many_ids_are_asked_for_in_parts(
    api: TestClient, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_IDS", 2)
    job_ids = [enqueue(db) for _ in range(5)]
    with ThreadPoolExecutor(5) as executor:
        responses = [executor.submit(wait_for, api, job_id) for job_id in job_ids]
        eventually(lambda: waits(api) == 5)
        db.execute("select cancel_job(id) from jobs")
        assert {response.result().json()["status"] for response in responses} == {"cancelled"}


def test_nobody_waits_for_a_client_that_has_gone(server_here: ServerHere, db: Connection) -> None:
    connection = http.client.HTTPConnection(urlsplit(server_here.url).netloc)
    connection.request("GET", f"/jobs/{enqueue(db)}", headers={"Prefer": "wait=60"})
    waiters = server_here.app.state.watcher._waiters
    eventually(lambda: waiters)
    connection.close()
    eventually(lambda: not waiters)


class Crowd:
    """Clients of a server, each with a connection of its own."""

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url)

    async def ask(self, method: str, path: str, body: str = "", prefer: str = "") -> Any:
        """Send a request, and return the status and the body of the answer."""
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: localhost",
            "Connection: close",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            f"Prefer: {prefer}",
        ]
        writer.write("\r\n".join([*lines, "", body]).encode())
        head, _, answer = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        return int(head.split()[1]), answer.decode()

    async def post(self, count: int) -> float:
        """Create so many jobs, one after the other; return the median of the milliseconds."""
        times = []
        for _ in range(count):
            started = time.perf_counter()
            status, _ = await self.ask("POST", "/jobs", "{}")
            times.append((time.perf_counter() - started) * 1000)
            assert status == 201
        return statistics.median(times)

    async def count_under_way(self) -> int:
        """Return how many requests the server is busy with."""
        _, metrics = await self.ask("GET", "/metrics")
        found = re.search(r"^api_http_requests_in_progress ([0-9.]+)", metrics, re.M)
        assert found
        return int(float(found[1]))


def test_a_thousand_who_wait_keep_nobody_else_waiting(serve: Serve, db: Connection) -> None:
    crowd = Crowd(serve().url)
    job_ids = [row[0] for row in db.execute("select enqueue_job() from generate_series(1, 1000)")]

    async def wait_and_work() -> None:
        logger.info("alone: %.1f ms", await crowd.post(50))
        waits = [
            asyncio.create_task(crowd.ask("GET", f"/jobs/{job_id}", prefer="wait=60"))
            for job_id in job_ids
        ]
        while await crowd.count_under_way() <= len(job_ids):
            assert not any(wait.done() for wait in waits)
        logger.info("while a thousand wait: %.1f ms", await crowd.post(50))
        assert not any(wait.done() for wait in waits)
        assert value(
            db,
            "select count(*) <= 12 from pg_stat_activity"
            " where datname = current_database() and application_name like 'job_queue api%%'",
        )
        db.execute("select cancel_job(id) from unnest(%s::uuid[]) as id", [job_ids])
        logger.info("while they are answered: %.1f ms", await crowd.post(50))
        for answer in await asyncio.gather(*waits):
            assert (answer[0], json.loads(answer[1])["status"]) == (200, "cancelled")

    asyncio.run(wait_and_work())
