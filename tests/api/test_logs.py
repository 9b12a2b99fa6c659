"""What the API logs: whom its lines are about, how they look, and what they never show."""

import contextlib
import io
import json
import logging
import re
import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx2
import pytest
from fastapi.testclient import TestClient

from api import logs
from api.settings import Settings
from tests.api.conftest import Serve
from tests.support import UNKNOWN_JOB, Connection, eventually, value

logger = logging.getLogger("api.somewhere")

Lines = Callable[[], list[Any]]


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Give pytest its logging back."""
    root, own = logging.getLogger(), logging.getLogger("api")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


@contextlib.contextmanager
def logging_to(log_format: str, level: str = "info") -> Iterator[io.StringIO]:
    """Log as an API with this format does."""
    environment = {"API_LOG_FORMAT": log_format, "API_LOG_LEVEL": level}
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        logs.configure(Settings.from_environment(environment))
    yield stderr


@pytest.fixture
def text_lines() -> Iterator[Lines]:
    """What has been logged, as lines of text."""
    with logging_to("text") as stderr:
        yield lambda: stderr.getvalue().splitlines()


@pytest.fixture
def json_lines() -> Iterator[Lines]:
    """What has been logged, each line read as JSON."""
    with logging_to("json") as stderr:
        yield lambda: [json.loads(line) for line in stderr.getvalue().splitlines()]


# The line of a request


def test_a_request_is_one_line_of_json(json_lines: Lines, api: TestClient) -> None:
    response = api.get(f"/jobs/{UNKNOWN_JOB}?view=full", headers={"X-Request-ID": "my-7"})
    [line] = json_lines()
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is not None
    assert 0 < line.pop("duration_seconds") < 60
    assert line.pop("message").startswith(f"GET /jobs/{UNKNOWN_JOB} 404 in ")
    assert line == {
        "level": "INFO",
        "logger": "api.access",
        "method": "GET",
        "path": f"/jobs/{UNKNOWN_JOB}",
        "route": "/jobs/{job_id}",
        "status": 404,
        "bytes": len(response.content),
        "client": "testclient",
        "key_id": None,
        "request_id": "my-7",
    }


def test_a_request_is_one_line_of_text(text_lines: Lines, api: TestClient) -> None:
    response = api.get(f"/jobs/{UNKNOWN_JOB}?view=full", headers={"X-Request-ID": "my-7"})
    [line] = text_lines()
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} INFO GET /jobs/{UNKNOWN_JOB} 404 in [\d.]+ ms, "
        rf"{len(response.content)} bytes to testclient \[request_id=my-7\]",
        line,
    )


def test_the_line_names_the_key_by_its_id(
    json_lines: Lines, api: TestClient, db: Connection
) -> None:
    key = value(db, "select api_key from job_queue.create_api_key('x', '{client}')")
    assert api.get("/jobs?limit=1", headers={"X-API-Key": key}).status_code == 200
    [line] = json_lines()
    assert line["key_id"] == key.split("_")[1]
    assert key not in json.dumps(line)


def test_a_long_response_is_one_line_at_its_end(
    json_lines: Lines, api: TestClient, db: Connection
) -> None:
    db.execute("select enqueue_job() from generate_series(1, 1100)")
    response = api.get("/jobs")
    [line] = json_lines()
    assert line["bytes"] == len(response.content) > 100_000


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz"])
def test_a_probe_that_succeeds_is_a_detail(path: str, conninfo: str) -> None:
    from api.main import create_app

    for level, expected in (("info", 0), ("debug", 1)):
        with (
            logging_to("json", level) as stderr,
            TestClient(create_app(Settings(conninfo))) as api,
        ):
            assert api.get(path).status_code == 200
        lines = [line for line in stderr.getvalue().splitlines() if "api.access" in line]
        assert len(lines) == expected


def test_a_probe_that_fails_is_not(json_lines: Lines, api: TestClient, db: Connection) -> None:
    db.execute("drop schema job_queue cascade")
    assert api.get("/readyz").status_code == 503
    [line] = json_lines()
    assert (line["route"], line["status"]) == ("/readyz", 503)


# Request ids


def test_a_request_without_an_id_is_given_one(api: TestClient) -> None:
    ids = {api.get("/livez").headers["X-Request-ID"] for _ in range(3)}
    assert len(ids) == 3
    assert all(str(UUID(request_id)) == request_id for request_id in ids)


@pytest.mark.parametrize("request_id", ["a", "x" * 128, "Root=1-67891233-abc;Sampled=1", "a/b:c~"])
def test_a_sane_id_of_the_client_is_kept(api: TestClient, request_id: str) -> None:
    response = api.get("/livez", headers={"X-Request-ID": request_id})
    assert response.headers.get_list("X-Request-ID") == [request_id]


@pytest.mark.parametrize("request_id", [b"", b"x" * 129, b"a b", b"a\tb", b"\xe4", b"a\x7f"])
def test_any_other_is_replaced(api: TestClient, request_id: bytes) -> None:
    response = api.get("/livez", headers=[(b"X-Request-ID", request_id)])
    assert UUID(response.headers["X-Request-ID"])


def test_a_problem_says_which_request_it_was(api: TestClient) -> None:
    response = api.get(f"/jobs/{UNKNOWN_JOB}", headers={"X-Request-ID": "a/b<c>"})
    assert response.json()["instance"] == "urn:async-job-orchestrator:request:a%2Fb%3Cc%3E"


def test_what_is_logged_within_a_request_carries_its_id(
    json_lines: Lines, api: TestClient, db: Connection
) -> None:
    db.execute("drop schema job_queue cascade")
    assert api.get(f"/jobs/{UNKNOWN_JOB}", headers={"X-Request-ID": "my-7"}).status_code == 503
    lines = json_lines()
    assert "database unavailable" in lines[0]["message"]
    assert [line["request_id"] for line in lines] == ["my-7", "my-7"]


# Lines of text


def test_what_is_logged_outside_of_requests_has_no_id(text_lines: Lines) -> None:
    logger.warning("%d %s", 3, "mice")
    [line] = text_lines()
    assert line.endswith(" WARNING 3 mice")


def test_further_lines_of_a_record_cannot_be_taken_for_records(text_lines: Lines) -> None:
    forged = "2026-11-25 12:00:00,000 INFO forged"
    try:
        raise ValueError(f"x\n{forged}\r{forged}\x1b[2K\x85{forged}\u2028{forged}")
    except ValueError:
        logger.exception("said\n%s", forged)
    lines = text_lines()
    assert lines[0].endswith(" ERROR said")
    assert len(lines) > 4
    assert all(line.startswith("    ") for line in lines[1:])
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("/jobs/1", "/jobs/1"),
        ("a b\n\r\t\0\x1b", "a\\x20b\\n\\r\\t\\x00\\x1b"),
        ("\xe4\u2028\U0001f600", "\\xe4\\u2028\\U0001f600"),
        ("x" * 1001, "x" * 1000 + "..."),
    ],
)
def test_what_came_from_outside_is_one_word_of_ascii(text: str, word: str) -> None:
    assert logs.escaped(text) == word


# A server


def talk(url: str, request: bytes) -> bytes:
    """Send these very bytes, and return what is answered until the end."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while received := connection.recv(65536):
            answer += received
    return answer


HOSTILE = [
    b"GET /a%0A%0D2026-11-25%20INFO%20forged%1b[2K HTTP/1.1",
    b"GET /%00%ff%e2%80%a8 HTTP/1.1",
    b"GET /\x1b[2K HTTP/1.1",
    b"GET /\xff HTTP/1.1",
    b"GET http://elsewhere/a\x0bb HTTP/1.1",
    b"B\nREW / HTTP/1.1",
    b"BREW" + b"'%s{0}" * 3 + b" / HTTP/1.1",
    b"GET /livez?a\nb HTTP/1.1",
    b"GET /%s%n{client} HTTP/1.1",
    b"GET /" + b"x" * 5000 + b" HTTP/1.1",
    b"GET / HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4 INFO forged [request_id=a]",
    b"GET / HTTP/1.1\r\nX-Forwarded-For: \xff\xfe",
    b"GET / HTTP/1.1\r\nX-Request-ID: a] INFO forged [b",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_request_can_break_or_forge_a_line(serve: Serve, log_format: str) -> None:
    server = serve("--http", "api.connections:Connection", API_LOG_FORMAT=log_format)
    for request_line in HOSTILE:
        talk(server.url, request_line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert httpx2.get(f"{server.url}/openapi.json").status_code == 200
    assert server.stop() == 0
    lines = server.log.split("\n")[:-1]
    assert "/openapi.json 200" in server.log
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        assert len(line) < 3000
        if log_format == "json":
            json.loads(line)
        else:
            assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING) \S", line)
            assert "forged [" not in line
            assert not re.search(r" INFO forged", line)


@pytest.mark.parametrize(
    "arguments", [[], ["--no-access-log"], ["--access-log", "--log-level", "debug"]]
)
def test_each_request_is_one_line_however_the_server_was_started(
    serve: Serve, arguments: list[str]
) -> None:
    server = serve(*arguments, API_LOG_FORMAT="json")
    assert httpx2.get(f"{server.url}/openapi.json?secret=1").status_code == 200
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.splitlines()]  # uvicorn's too
    assert len([line for line in lines if "/openapi.json" in line["message"]]) == 1
    assert any("Application startup complete" in line["message"] for line in lines)
    assert not any("color_message" in line for line in lines)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_fault_is_logged_once_with_its_request_and_not_shown_to_the_client(
    serve: Serve, db: Connection, log_format: str
) -> None:
    server = serve(API_LOG_FORMAT=log_format)
    db.execute("alter table job_queue.jobs rename column message to said")
    response = httpx2.get(f"{server.url}/jobs/{UNKNOWN_JOB}", headers={"X-Request-ID": "my-7"})
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json() == {
        "type": "urn:async-job-orchestrator:problem:internal",
        "title": "The API failed",
        "status": 500,
        "detail": "The API failed. Its log says why.",
        "instance": "urn:async-job-orchestrator:request:my-7",
    }
    assert response.headers["X-Request-ID"] == "my-7"
    assert server.stop() == 0
    errors = [line for line in server.log.splitlines() if "ERROR" in line]
    assert len(errors) == 1
    assert "Exception in ASGI application" in errors[0]
    assert "my-7" in errors[0]
    assert "UndefinedColumn" in server.log


SECRET = "0123456789abcdef" * 4


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_logged_at_any_level(
    serve: Serve, conninfo: str, db: Connection, log_format: str
) -> None:
    server = serve(
        "--log-level",
        "trace",
        API_LOG_LEVEL="debug",
        API_LOG_FORMAT=log_format,
        DATABASE_URL=f"{conninfo} password=open-sesame",
    )
    key = value(db, "select api_key from job_queue.create_api_key('x', '{client}')")
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"X-API-Key": key},
        {"Authorization": f"Bearer jq_012345678901_{SECRET}"},
        {"Authorization": f"Basic {SECRET}"},
        {"X-API-Key": f"{SECRET} {SECRET}"},
        {"Idempotency-Key": SECRET},
    ):
        for url in ("/jobs", f"/jobs/{UNKNOWN_JOB}", f"/nothing?key={SECRET}"):
            httpx2.post(f"{server.url}{url}", json={}, headers=headers)
            httpx2.get(f"{server.url}{url}", headers=headers)
    db.execute("alter table job_queue.jobs rename column message to said")
    httpx2.get(f"{server.url}/jobs/{UNKNOWN_JOB}", headers={"X-API-Key": key})
    assert server.stop() == 0
    assert "/nothing" in server.log
    assert "Traceback" in server.log
    for secret in (key, key.split("_")[2], SECRET, "open-sesame"):
        assert secret not in server.log


def test_nor_by_one_that_cannot_reach_the_database(serve: Serve) -> None:
    server = serve(
        DATABASE_URL="postgresql://ann:open-sesame@127.0.0.1:1/jobs",
        API_LOG_LEVEL="debug",
        API_DATABASE_TIMEOUT="0.5",
    )
    eventually(lambda: httpx2.get(f"{server.url}/health").status_code == 503)
    for path in ("/jobs?limit=1", "/metrics"):
        httpx2.get(f"{server.url}{path}")
    assert server.stop() == 0
    assert "connection" in server.log
    assert "open-sesame" not in server.log
