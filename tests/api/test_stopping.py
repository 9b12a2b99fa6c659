"""How a server ends that is told to: nobody who waits keeps it, and nobody's request is lost."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from api.grouping import MAX_FLIGHTS
from tests.api.conftest import Serve
from tests.support import Connection, enqueue, eventually, value

WAITING = {"Prefer": "wait=60"}


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_ends_with_0(serve: Serve, signal_number: int) -> None:
    server = serve()
    assert httpx2.get(f"{server.url}/openapi.json").status_code == 200
    assert server.stop(signal_number) == 0
    assert "Traceback" not in server.log


def listens(db: Connection) -> bool:
    """Tell whether the API listens for a worker that waits."""
    return bool(
        value(
            db,
            "select count(*) from pg_locks join pg_stat_activity using (pid)"
            " where locktype = 'advisory' and application_name = 'job_queue api listener'"
            " and datname = current_database()",
        )
    )


@pytest.mark.parametrize("processes", [1, 2])
def test_nobody_who_waits_keeps_a_server_from_ending(
    serve: Serve, db: Connection, processes: int
) -> None:
    server = serve("--workers", str(processes))
    job_ids = [enqueue(db, queue="slow") for _ in range(4)]

    def get(path: str) -> Any:
        return httpx2.get(server.url + path, headers=WAITING, timeout=60)

    def post(path: str, body: Any) -> Any:
        return httpx2.post(server.url + path, json=body, headers=WAITING, timeout=60)

    def stream(path: str) -> list[str]:
        with httpx2.stream("GET", server.url + path, timeout=60) as response:
            if path == "/events":
                begun.add(path)
            lines = []
            for line in response.iter_lines():
                if line == "event: enqueue":
                    begun.add(path)
                lines.append(line)
            return lines

    begun: set[str] = set()
    with ThreadPoolExecutor(30) as executor:
        waits = [executor.submit(get, f"/jobs/{job_id}") for job_id in job_ids]
        created = executor.submit(post, "/jobs", {"queue": "slow"})
        claims = [executor.submit(post, "/claims", {"queues": ["none"]}) for _ in range(4)]
        paths = ["/events", *(f"/jobs/{job_id}/events" for job_id in job_ids)]
        streams = [executor.submit(stream, path) for path in paths]
        eventually(lambda: len(begun) == len(streams) and listens(db))
        eventually(lambda: value(db, "select count(*) from jobs") == 5)
        assert server.stop() == 0
        for wait, job_id in zip(waits, job_ids, strict=True):
            assert (wait.result().json()["id"], wait.result().json()["status"]) == (
                str(job_id),
                "queued",
            )
        assert (created.result().status_code, created.result().json()["status"]) == (201, "queued")
        assert [claim.result().json() for claim in claims] == [[]] * 4
        assert [of_job.result().count("event: enqueue") for of_job in streams[1:]] == [1] * 4
    assert "Traceback" not in server.log
    assert "ERROR" not in server.log


@pytest.mark.parametrize("processes", [1, 2])
def test_requests_under_way_are_answered_before_a_server_ends(
    serve: Serve,
    db: Connection,
    connect: Callable[[], Connection],
    processes: int,
) -> None:
    server = serve("--workers", str(processes), API_DATABASE_TIMEOUT="60")
    blocker = connect()
    with ThreadPoolExecutor(4) as executor:
        blocker.execute("begin; lock table jobs")
        posts = [
            executor.submit(httpx2.post, f"{server.url}/jobs", json={}, timeout=60)
            for _ in range(MAX_FLIGHTS)
        ]
        eventually(lambda: value(db, "select count(*) = 2 from pg_locks where not granted"))
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: server.log.count("Shutting down") == processes)
        blocker.execute("commit")
        assert server.process.wait(timeout=60) == 0
        assert [post.result().status_code for post in posts] == [201] * MAX_FLIGHTS
    assert value(db, "select count(*) from jobs") == MAX_FLIGHTS
    assert "Traceback" not in server.log
