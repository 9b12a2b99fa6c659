"""GET /health, and every route while the database is away, empty or slow."""

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from fastapi.testclient import TestClient

from api.main import create_app
from api.settings import Settings
from database.local import migrate
from tests.support import Connection, embedded_server, eventually, value

NOWHERE = "host=127.0.0.1 port=1 dbname=jobs connect_timeout=2"


def client(conninfo: str, **timeouts: Any) -> TestClient:
    settings = Settings(conninfo, **timeouts)
    return TestClient(create_app(settings), raise_server_exceptions=False)


def test_health_is_ok_with_a_migrated_database(api: TestClient) -> None:
    response = api.get("/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_without_a_database_all_routes_are_503_and_health_says_why() -> None:
    with client(NOWHERE, database_timeout=0.2) as api:
        health = api.get("/health")
        assert health.status_code == 503
        assert health.json()["status"] == "unavailable"
        assert "connection refused" in health.json()["reason"].lower()
        for response in (
            api.post("/jobs", json={}),
            api.get("/jobs"),
            api.get("/jobs/01234567-89ab-7def-8123-456789abcdef"),
        ):
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "2"
            assert response.json()["type"] == "urn:async-job-orchestrator:problem:unavailable"


def test_without_the_schema_all_routes_are_503_and_health_says_why(
    api: TestClient, db: Connection
) -> None:
    db.execute("drop schema job_queue cascade")
    health = api.get("/health")
    assert health.status_code == 503
    assert "enqueue_job" in health.json()["reason"]
    assert "yoyo apply" in health.json()["reason"]
    assert api.post("/jobs", json={}).status_code == 503
    assert api.get("/jobs").status_code == 503


def test_health_notices_an_older_schema(api: TestClient, db: Connection) -> None:
    db.execute("drop function list_jobs")
    health = api.get("/health")
    assert health.status_code == 503
    assert "the schema lacks list_jobs" in health.json()["reason"]


def test_a_database_that_never_answers_does_not_keep_anybody_waiting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        conninfo = f"host=127.0.0.1 port={silent.getsockname()[1]} dbname=jobs connect_timeout=2"
        with client(conninfo, database_timeout=0.2, health_timeout=0.2) as api:
            health = api.get("/health")
            assert health.json()["reason"] == "the database did not answer within 0.2 s"
            assert api.post("/jobs", json={}).status_code == 503


def test_a_call_that_the_database_does_not_finish_in_time_is_503(
    connect: Callable[[], Connection], conninfo: str
) -> None:
    blocker = connect()
    with client(conninfo, database_timeout=0.2) as api, blocker.transaction():
        blocker.execute("lock table jobs")
        response = api.post("/jobs", json={})
    assert response.status_code == 503
    assert "may still have done" in response.json()["detail"]


def test_the_pool_survives_a_restart_of_the_database_without_a_failed_request() -> None:
    with embedded_server() as server:
        conninfo = server.get_uri()
        migrate(conninfo)
        with client(conninfo) as api:
            make_the_pool_grow(api, conninfo)
            server.stop()
            assert api.get("/health").status_code == 503
            server.start()
            assert api.get("/health").status_code == 200
            for _ in range(5):
                assert api.post("/jobs", json={}).status_code == 201


def make_the_pool_grow(api: TestClient, conninfo: str) -> None:
    """Hold requests up until several are under way at once."""
    with (
        psycopg.connect(conninfo, autocommit=True) as observer,
        psycopg.connect(conninfo) as blocker,
        ThreadPoolExecutor(4) as executor,
    ):
        blocker.execute("lock table job_queue.jobs")
        responses = [executor.submit(api.get, "/jobs") for _ in range(4)]
        eventually(lambda: value(observer, "select count(*) = 4 from pg_locks where not granted"))
        blocker.rollback()
        assert [response.result().status_code for response in responses] == [200] * 4
