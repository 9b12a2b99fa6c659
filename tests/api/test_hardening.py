"""What the API sends to browsers besides its answers, and what it survives."""

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from api.settings import Settings
from tests.api.conftest import Serve
from tests.support import UNKNOWN_JOB, Connection, skip_unless_required

JSON_POLICY = "default-src 'none'; frame-ancestors 'none'"


# Headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/metrics", 200),
        ("POST", "/jobs", 201),
        ("GET", "/jobs", 200),
        ("GET", "/openapi.json", 200),
        ("GET", f"/jobs/{UNKNOWN_JOB}", 404),
        ("GET", "/jobs/no-id", 422),
        ("GET", "/nothing", 404),
        ("PUT", "/livez", 405),
    ],
)
def test_each_response_tells_browsers_to_keep_and_to_run_nothing(
    api: TestClient, method: str, path: str, status: int
) -> None:
    response = api.request(method, path, json={} if method == "POST" else None)
    assert response.status_code == status
    assert_is_hardened(response)


def assert_is_hardened(response: Any) -> None:
    """Each of the headers is there, once."""
    assert {name: response.headers.get_list(name) for name in HARDENED} == HARDENED


HARDENED = {
    "Cache-Control": ["no-store"],
    "Content-Security-Policy": [JSON_POLICY],
    "Referrer-Policy": ["no-referrer"],
    "X-Content-Type-Options": ["nosniff"],
}


def test_so_does_the_response_to_a_fault(api: TestClient, db: Connection) -> None:
    db.execute("alter table job_queue.jobs rename column message to said")
    response = api.get(f"/jobs/{UNKNOWN_JOB}")
    assert response.status_code == 500
    assert_is_hardened(response)
    assert response.headers["X-Request-ID"]


@pytest.mark.parametrize("is_in_chunks", [False, True])
def test_so_does_the_response_to_a_body_that_is_too_large(
    conninfo: str, is_in_chunks: bool
) -> None:
    body = b" " * 1025
    with TestClient(create_app(Settings(conninfo, max_body_bytes=1024))) as api:
        response = api.post(
            "/jobs",
            content=iter([body]) if is_in_chunks else body,
            headers={"Content-Type": "application/json"},
        )
    assert response.status_code == 413
    assert response.headers["Content-Type"] == "application/problem+json"
    assert_is_hardened(response)


# CORS

ORIGIN = "https://app.example.com"


@pytest.fixture
def shared(conninfo: str) -> Iterator[TestClient]:
    """An API that pages of one origin may call."""
    settings = Settings(conninfo, cors_origins=(ORIGIN, "https://b.example.com"))
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def preflight(api: TestClient, origin: str, method: str, headers: str) -> Any:
    return api.options(
        "/jobs",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        },
    )


def test_without_origins_no_page_of_another_may_call_the_api(api: TestClient) -> None:
    response = api.get("/jobs", headers={"Origin": ORIGIN})
    assert not [name for name in response.headers if name.startswith("access-control-")]
    assert preflight(api, ORIGIN, "POST", "content-type").status_code == 405


def test_pages_of_an_origin_that_is_named_may(shared: TestClient) -> None:
    response = preflight(
        shared, ORIGIN, "POST", "authorization, content-type, idempotency-key, prefer, x-api-key"
    )
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "Access-Control-Allow-Credentials" not in response.headers
    response = shared.post("/jobs", json={}, headers={"Origin": ORIGIN})
    assert response.status_code == 201
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
    assert {
        "Location",
        "Link",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
        "X-Request-ID",
        "Preference-Applied",
        "Idempotent-Replayed",
    } == exposed


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", "null", f"{ORIGIN}.evil.example.com", f"{ORIGIN}:8443"]
)
def test_pages_of_others_may_not(shared: TestClient, origin: str) -> None:
    assert preflight(shared, origin, "POST", "content-type").status_code == 400
    response = shared.get("/jobs", headers={"Origin": origin})
    assert "Access-Control-Allow-Origin" not in response.headers


def test_a_page_can_read_why_its_request_failed(shared: TestClient, db: Connection) -> None:
    db.execute("alter table job_queue.jobs rename column message to said")
    for path, status in ((f"/jobs/{UNKNOWN_JOB}", 500), ("/nothing", 404)):
        response = shared.get(path, headers={"Origin": ORIGIN})
        assert response.status_code == status
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN


# /docs


def test_docs_loads_nothing_from_elsewhere_and_runs_no_script_in_the_page(api: TestClient) -> None:
    page = api.get("/docs")
    assert page.status_code == 200
    assert "//" not in page.text
    assert "<script>" not in page.text
    policy = dict(
        part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/docs/swagger-ui.css", "text/css"),
        ("/docs/swagger-ui-bundle.js", "text/javascript"),
        ("/docs/start.js", "text/javascript"),
    ],
)
def test_what_docs_needs_is_there(api: TestClient, path: str, media_type: str) -> None:
    response = api.get(path)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith(media_type)


@pytest.mark.parametrize(
    "name", ["redoc.standalone.js", "..", "..%2f__init__.py", "core.py", "%00"]
)
def test_other_files_are_not(api: TestClient, name: str) -> None:
    assert api.get(f"/docs/{name}").status_code == 404


def test_docs_shows_the_routes_in_a_browser(serve: Serve, tmp_path: Path) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        skip_unless_required("chromium", "there is no chromium here")
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            f"{serve().url}/docs",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    for shown in ('data-path="/jobs/{job_id}"', "Authorize"):
        assert shown in done.stdout
    assert "Content Security Policy" not in done.stderr


# Floods

MIB = 1024 * 1024
CONNECTION = "api.connections:Connection"


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET /", b"a" * 65536),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: ", b"a" * 65536),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n", b"X-A: abcdefgh\r\n" * 4096),
        (b"G" * 65536, b"G" * 65536),
    ],
)
def test_a_flood_of_headers_is_cut_off(serve: Serve, start: bytes, more: bytes) -> None:
    server = serve("--http", CONNECTION)
    host, port = server.url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        try:
            connection.sendall(start)
            for _ in range(64 * MIB // len(more)):
                connection.sendall(more)
            pytest.fail("all of it was taken in")
        except (BrokenPipeError, ConnectionResetError):
            pass
        with contextlib.suppress(ConnectionResetError):  # which may have taken the answer with it
            received = connection.recv(65536)
    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
    assert httpx2.get(f"{server.url}/livez").status_code == 200
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_how_the_api_is_started_bounds_its_headers() -> None:
    root = Path(__file__).resolve().parent.parent.parent
    assert f" --http {CONNECTION} " in (root / "Procfile").read_text()
    assert f'"--http", "{CONNECTION}"' in (root / "api" / "Dockerfile").read_text()
