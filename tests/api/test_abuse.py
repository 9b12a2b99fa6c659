"""What a client must not be able to do to a server: break it, fill it, or keep it busy.

The server is started as the Procfile does it, and spoken to over plain sockets where a client
library would not say what is to be said.
"""

import asyncio
import http.client
import json
import os
import random
import re
import resource
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import pytest

from database.local import migrate
from tests.api.conftest import ROOT, Serve, Server
from tests.support import UNKNOWN_JOB, Connection, embedded_server, enqueue, eventually, value

PROBLEM = "application/problem+json"
MIB = 1024 * 1024


def deployed() -> list[str]:
    """Return the arguments that the Procfile gives uvicorn, save the port."""
    match = re.search(r"uvicorn api\.main:app (.*?) --port", (ROOT / "Procfile").read_text())
    assert match
    return [*match[1].split(), "--loop", "asyncio"]  # uvloop is none of the API's requirements


@pytest.fixture
def serve_as_deployed(serve: Serve) -> Serve:
    """Start servers as the Procfile does."""
    return lambda **environment: serve(*deployed(), **environment)


@pytest.fixture
def api_server(serve_as_deployed: Serve) -> Server:
    """Such a server."""
    return serve_as_deployed()


@pytest.fixture
def client(api_server: Server) -> Iterator[httpx2.Client]:
    """A well-behaved client of it."""
    with httpx2.Client(base_url=api_server.url, timeout=60) as client:
        yield client


def open_socket(server: Server) -> socket.socket:
    """Connect to the server."""
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=60)


def request(
    target: str | bytes = b"/jobs",
    body: bytes | None = None,
    *headers: bytes,
    method: bytes = b"",
    length: int | None = None,
) -> bytes:
    """Write a request, with these lines among its headers."""
    target = target.encode() if isinstance(target, str) else target
    lines = [(method or (b"GET" if body is None else b"POST")) + b" " + target + b" HTTP/1.1"]
    lines += [b"Host: localhost", *headers]
    if body is not None:
        lines.append(b"Content-Type: application/json")
    if body is not None and length != -1:
        lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


CHUNKED = b"Transfer-Encoding: chunked"
CLOSE = b"Connection: close"

Answer = tuple[int, str, bytes]

HEALTHY: Answer = (200, "application/json", b'{"status":"ok"}')
CREATE = request("/jobs", b"{}", CLOSE)


def read_answer(connection: socket.socket) -> Answer:
    """Read a response: its status, its media type and its body."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    body = response.read()
    return response.status, response.headers.get("Content-Type", ""), body


def ask(server: Server, data: bytes) -> Answer | None:
    """Send this, and return the answer; None if the server has hung up before it was read."""
    with open_socket(server) as connection, suppress(ConnectionError, http.client.BadStatusLine):
        with suppress(ConnectionError):
            connection.sendall(data)
        return read_answer(connection)
    return None


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server hangs up."""
    parts = []
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def is_problem(answer: Answer | None, *statuses: int) -> bool:
    """Tell whether that is a problem document with one of these statuses."""
    if answer is None or answer[0] not in statuses or not answer[1].startswith(PROBLEM):
        return False
    problem: dict[str, Any] = json.loads(answer[2])
    return problem["status"] == answer[0] and problem.keys() >= {"type", "title", "detail"}


def serves(server: Server) -> bool:
    """Tell whether the server still does its work."""
    return server.process.poll() is None and ask(server, request("/health", None, CLOSE)) == HEALTHY


def open_files(server: Server) -> int:
    """Return how many files and sockets the server has open."""
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def memory(server: Server) -> int:
    """Return how many bytes of memory the server has had at most."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


def jobs_in(db: Connection) -> int:
    """Return how many jobs there are."""
    return int(value(db, "select count(*) from jobs"))


SESSIONS = "from pg_stat_activity where datname = current_database() and application_name like "
BUSY = f"select count(*) {SESSIONS} 'job_queue api%%' and state <> 'idle'"


def metric(server: Server, name: str) -> float:
    """Return a metric of the server."""
    text = httpx2.get(f"{server.url}/metrics", timeout=60).text
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
    assert found, text
    return float(found[1])


# Bytes


MALFORMED = {
    "no request": b"\r\n\r\n\r\nhello\r\n\r\n",
    "all bytes": bytes(range(256)) * 10,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 600,
    "HTTP/0.9": b"GET /jobs\r\n\r\n",
    "no host": b"GET /jobs HTTP/1.1\r\n\r\n",
    "two hosts": request("/jobs", None, b"Host: elsewhere"),
    "a path that is not ASCII": request(b"/queues/\xff\xfe"),
    "a query that is not ASCII": request(b"/jobs?error=\xff"),
    "a path with NUL": request(b"/queues/\0"),
    "a path with a space": request(b"/queues/a b"),
    "a header with NUL": request(b"/jobs", b"{}", b"Idempotency-Key: a\0b"),
    "a header with a bare CR": request(b"/jobs", b"{}", b"Idempotency-Key: a\rX: b"),
    "a header without a name": request(b"/jobs", b"{}", b": b"),
    "two lengths": request(b"/jobs", b"{}", b"Content-Length: 3"),
    "a negative length": request(b"/jobs", b"{}", b"Content-Length: -2", length=-1),
    "a signed length": request(b"/jobs", b"{}", b"Content-Length: +2", length=-1),
    "a length in hex": request(b"/jobs", b"{}", b"Content-Length: 0x2", length=-1),
    "an endless length": request(b"/jobs", b"{}", b"Content-Length: " + b"9" * 5000, length=-1),
    "another transfer coding": request(b"/jobs", b"{}", b"Transfer-Encoding: gzip", length=-1),
    "a transfer coding like chunked": request(
        b"/jobs", b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: xchunked", length=-1
    ),
    "a header name with a space": request(
        b"/jobs", b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding : chunked", length=-1
    ),
    "a chunk of no length": request(b"/jobs", b"zz\r\n{}\r\n0\r\n\r\n", CHUNKED, length=-1),
    "a chunk of less than none": request(b"/jobs", b"-2\r\n{}\r\n0\r\n\r\n", CHUNKED, length=-1),
    "a chunk longer than it says": request(b"/jobs", b"1\r\n{}\r\n0\r\n\r\n", CHUNKED, length=-1),
}


def test_what_is_not_http_is_refused_with_a_problem(api_server: Server, db: Connection) -> None:
    answers = {name: ask(api_server, data) for name, data in MALFORMED.items()}
    assert {n: a for n, a in answers.items() if not is_problem(a, 400)} == {}
    assert jobs_in(db) == 0
    assert serves(api_server)
    assert "Traceback" not in api_server.log


def test_a_second_request_cannot_be_smuggled_in_the_body_of_a_first(
    api_server: Server, db: Connection
) -> None:
    chunks = b"2\r\n{}\r\n0\r\n\r\n"
    smuggled = request("/jobs", b"{}")
    for first in (
        request("/jobs", chunks, CHUNKED),  # and a Content-Length
        request("/jobs", chunks + smuggled, CHUNKED, length=4),
        request("/livez", None, b"Content-Length: 5", CHUNKED) + chunks,
        request("/jobs", chunks, CHUNKED, length=-1).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ):
        with open_socket(api_server) as connection:
            connection.sendall(first + smuggled)
            answers = read_to_end(connection)
        assert answers.count(b"HTTP/1.1 ") == 1, answers
        assert answers.startswith(b"HTTP/1.1 400 "), answers
        assert PROBLEM.encode() in answers
    assert jobs_in(db) == 0


def test_a_body_on_a_route_that_takes_none_is_no_second_request(
    api_server: Server, db: Connection
) -> None:
    body = request("/jobs", b"{}")
    with open_socket(api_server) as connection:
        connection.sendall(request("/livez", body, method=b"GET") + request("/livez", None, CLOSE))
        answers = read_to_end(connection)
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert jobs_in(db) == 0


def test_requests_in_one_go_are_answered_in_their_order(api_server: Server, db: Connection) -> None:
    with open_socket(api_server) as connection:
        connection.sendall(
            b"".join(request("/jobs", b'{"message": "%d"}' % number) for number in range(50))
            + request("/jobs", b'{"message": "last"}', CLOSE)
        )
        answers = read_to_end(connection)
    messages = re.findall(rb'"message" : "(\w+)"', answers)
    assert messages == [b"%d" % number for number in range(50)] + [b"last"]
    assert jobs_in(db) == 51


def test_a_client_of_http_1_0_is_answered_and_hung_up_on(
    api_server: Server, db: Connection
) -> None:
    for data, status in (
        (request("/jobs", b"{}"), 201),
        (request("/jobs"), 200),
        (request("/nowhere"), 404),
    ):
        with open_socket(api_server) as connection:
            connection.sendall(data.replace(b"HTTP/1.1", b"HTTP/1.0"))
            answer = read_to_end(connection)
        assert int(answer.split()[1]) == status
        assert b"chunked" not in answer.lower()
        assert answer.endswith((b"}", b"]"))
    assert jobs_in(db) == 1


def test_a_client_that_expects_100_is_told_to_continue_unless_its_body_is_too_large(
    api_server: Server,
) -> None:
    expects = b"Expect: 100-continue"
    with open_socket(api_server) as connection:
        connection.sendall(request("/jobs", b"", expects, length=2))
        told = connection.recv(65536)
        assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert read_answer(connection)[0] == 201
    assert is_problem(ask(api_server, request("/jobs", b"", expects, length=17 * MIB)), 413)


# Bodies


def in_chunks(connection: socket.socket, piece: bytes, times: int) -> None:
    """Send as many of these as the server takes."""
    with suppress(ConnectionError):
        for _ in range(times):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")


def test_ten_megabytes_are_accepted(api_server: Server, db: Connection) -> None:
    batch = json.dumps([{"message": "x" * 9_990}] * 1_050).encode()
    assert len(batch) > 10_000_000
    answer = ask(api_server, request("/jobs/batch", batch))
    assert answer
    assert answer[0] == 201
    assert jobs_in(db) == 1_050


def test_a_body_that_is_too_large_is_refused_wherever_it_is_sent_and_not_kept(
    api_server: Server, db: Connection
) -> None:
    before = memory(api_server)
    for length in (17 * MIB, 2**64 - 1):
        for target in ("/jobs", "/jobs/batch", "/queues/a", "/nowhere"):
            assert is_problem(ask(api_server, request(target, b"{", length=length)), 413)
        assert is_problem(
            ask(api_server, request("/livez", b"{", length=length, method=b"GET")), 413
        )
    for _ in range(2):
        with open_socket(api_server) as connection:
            connection.sendall(request("/jobs", b"", CHUNKED, length=-1))
            in_chunks(connection, b" " * MIB, 100)
            with suppress(ConnectionError):
                assert is_problem(read_answer(connection), 413)
    assert memory(api_server) - before < 100 * MIB
    assert jobs_in(db) == 0
    assert serves(api_server)


def test_a_body_shorter_than_its_length_creates_nothing(api_server: Server, db: Connection) -> None:
    for data in (
        request("/jobs", b"{}", length=3),
        request("/jobs", b"2\r\n{}\r\n", CHUNKED, length=-1),
        request("/jobs", b"", length=2),
    ):
        with open_socket(api_server) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            read_to_end(connection)
    assert serves(api_server)
    assert jobs_in(db) == 0
    assert "Traceback" not in api_server.log


REFUSED_BODIES = {
    "nothing": b"",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "no UTF-8": b'{"message": "\xff\xfe"}',
    "overlong UTF-8": b'{"message": "\xc0\x80"}',
    "a surrogate in UTF-8": b'{"message": "\xed\xa0\x80"}',
    "a lone surrogate": b'{"message": "\\ud800"}',
    "a raw NUL": b'{"message": "\0"}',
    "NUL as a message": b'{"message": "\\u0000"}',
    "NUL as a unique key": b'{"unique_key": "\\u0000"}',
    "NUL as a job type": b'{"job_type": "a\\u0000"}',
    "NUL as a queue": b'{"queue": "a\\u0000"}',
    "NUL in a payload": b'{"payload": {"a": ["\\u0000"]}}',
    "NUL as a member of a payload": b'{"payload": {"\\u0000": 1}}',
    "NUL as a member": b'{"\\u0000": 1}',
    "NUL in a trace": b'{"trace_context": {"traceparent": "\\u0000"}}',
    "deep arrays": b'{"payload": %s}' % (b"[" * 100_000 + b"]" * 100_000),
    "deep objects": b'{"payload": %s}' % (b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "unclosed arrays": b"[" * 1_000_000,
    "an endless number": b'{"payload": 1e400}',
    "a number of 100000 digits": b'{"payload": %s}' % (b"9" * 100_000),
    "infinity": b'{"payload": Infinity}',
    "no number": b'{"payload": NaN}',
    "an endless sleep": b'{"sleep_seconds": 1e400}',
    "a sleep of 400 digits": b'{"sleep_seconds": %s}' % (b"9" * 400),
    "an endless timeout": b'{"timeout_seconds": 1e400}',
    "attempts beyond 32 bits": b'{"max_attempts": 2147483648}',
    "a time that is none": b'{"run_at": "99999999999999999999"}',
    "a fraction of a second": b'{"sleep_seconds": 0.5}',
    "a payload of 5 MB": b'{"payload": "%s"}' % (b"a" * 5_000_000),
    "far in the future": b'{"run_at": "9999-12-31T23:59:59-23:59"}',
    "far in the past": b'{"run_at": "0001-01-01T00:00:00+23:59"}',
}

ACCEPTED_BODIES = {
    "nested as deep as can be": b'{"payload": %s}' % (b"[" * 150 + b"]" * 150),
    "a number of 4000 digits": b'{"payload": %s}' % (b"9" * 4_000),
    "a number at the edge": b'{"payload": [1e308, -1e308, 5e-324, -0.0]}',
    "a member twice": b'{"message": "a", "message": "b"}',
    "a member of the payload twice": b'{"payload": {"a": 1, "a": 2}}',
    "all that is not ASCII": '{"message": "\u0001\ufffe\U0010ffff\u202e\u2028"}'.replace(
        "\u0001", "\\u0001"
    ).encode(),
}


def test_odd_json_is_stored_or_refused_as_a_whole_and_never_a_fault(
    api_server: Server, client: httpx2.Client, db: Connection
) -> None:
    refused = {
        name: ask(api_server, request("/jobs", body)) for name, body in REFUSED_BODIES.items()
    }
    assert {n: a and a[:2] for n, a in refused.items() if not is_problem(a, 422)} == {}
    batch = {
        name: ask(api_server, request("/jobs/batch", b"[{}, %s]" % body))
        for name, body in REFUSED_BODIES.items()
        if not body.startswith(b"[[")
    }
    assert {n: a and a[:2] for n, a in batch.items() if not is_problem(a, 422)} == {}
    assert jobs_in(db) == 0
    accepted = {
        name: ask(api_server, request("/jobs", body)) for name, body in ACCEPTED_BODIES.items()
    }
    assert {n: a for n, a in accepted.items() if a is None or a[0] != 201} == {}
    listed = client.get("/jobs", params={"view": "full"})
    assert len(json.loads(listed.content, parse_int=str)) == len(ACCEPTED_BODIES)
    assert "Traceback" not in api_server.log


def test_odd_paths_queries_and_headers_are_no_fault(api_server: Server) -> None:
    strange = [b"\xff\xfe\x80", b'"', b'"\\', b"\\", b"%00", b"," * 1000, b";" * 1000, b"=", b"-1"]
    headers = [
        *(b"Authorization", b"X-API-Key", b"X-Request-ID", b"Idempotency-Key", b"Prefer"),
        *(b"Traceparent", b"Tracestate", b"Accept", b"Content-Encoding", b"Range", b"If-Match"),
        *(b"Content-Type", b"Expect", b"Upgrade", b"Origin", b"Cookie", b"X-Forwarded-For"),
        *(b"X-Forwarded-Proto", b"Forwarded", b"Max-Forwards", b"Trailer", b"TE"),
    ]
    escapes = ["%ff%fe", "%00", "%", "%zz", "%2e%2e%2f", "%ed%a0%80", "%0d%0aX:%20y"]
    escapes += ["%25%32%46", "a" * 5000, "%F0%9F%92%A3" * 50, "..", "%5c", "%u0041"]
    requests = [
        request("/jobs", b"{}", name + b": " + text) for name in headers for text in strange
    ]
    requests += [request("/metrics", None, b"Accept: " + text) for text in strange]
    for path in ("/jobs/", "/queues/", "/schedules/", "/api-keys/", "/docs/", "/"):
        requests += [request(path + escape) for escape in escapes]
    for name in ("error", "queue", "unique_key", "status", "limit", "after", "created_after", "x"):
        requests += [request(f"/jobs?{name}={escape}") for escape in escapes]
        requests += [request(f"/jobs?{escape}={name}") for escape in escapes]
    requests += [
        request("*", method=b"OPTIONS"),
        request("localhost:80", method=b"CONNECT"),
        request("http://elsewhere/jobs"),
        request("/jobs", method=b"BREW"),
        request("/jobs", method=b"x" * 1000),
        request("/jobs?" + "&".join(["queue=a"] * 2000)),
    ]
    statuses: dict[bytes, Any] = {}
    for data in requests:
        answer = ask(api_server, data)
        if answer is None or (answer[0] >= 300 and not is_problem(answer, *range(400, 500))):
            statuses[data[:200]] = answer
    assert statuses == {}
    assert "Traceback" not in api_server.log
    assert "\nX: y" not in api_server.log


@pytest.mark.parametrize("path", ["/jobs/", "/queues/", "/docs/", f"/jobs/{UNKNOWN_JOB}/"])
def test_no_host_header_leads_a_client_elsewhere(api_server: Server, path: str) -> None:
    elsewhere = request(path, b"{}", b"X-Forwarded-Host: elsewhere").replace(
        b"localhost", b"elsewhere"
    )
    assert is_problem(ask(api_server, elsewhere), 404)


def test_floods_of_headers_are_refused_and_the_server_lives(api_server: Server) -> None:
    before = memory(api_server)
    many = [b"X-%d: y" % number for number in range(100_000)]
    for data in (
        request("/livez", None, *many),
        request("/livez", None, b"X: " + b"y" * 10 * MIB),
        request("/livez", None, b"y" * 10 * MIB + b": x"),
        request("/" + "a" * 10 * MIB),
        request("/livez", method=b"A" * 10 * MIB),
        request("/jobs", b"2;" + b"x" * 10 * MIB + b"\r\n{}\r\n0\r\n\r\n", CHUNKED, length=-1),
        request("/jobs", b"2\r\n{}\r\n0\r\n" + b"X: y\r\n" * MIB, CHUNKED, length=-1),
    ):
        answer = ask(api_server, data)
        assert answer is None or is_problem(answer, 400), answer
    assert memory(api_server) - before < 20 * MIB
    assert serves(api_server)


# Connections


def hang_up(connection: socket.socket) -> None:
    """Go without a farewell: the server meets a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.fixture
def many_files() -> int:
    """Let this process, and the servers it starts, open as many files as they may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def test_half_sent_requests_keep_nobody_waiting_and_are_given_up(
    serve_as_deployed: Serve, db: Connection
) -> None:
    server = serve_as_deployed(API_CLIENT_TIMEOUT="2")
    files = open_files(server)
    halves = [
        b"",
        b"\r\n",
        b"POST /jobs HTTP/1.1\r\nX: ",
        request("/jobs", b"{", length=2),
        request("/jobs", b"1\r\n{\r\n", CHUNKED, length=-1),
        request("/jobs", b"", CHUNKED, length=-1),
        request("/nowhere", b"", length=2),  # answered, but its body is awaited
        request("/livez") + request("/jobs", b"{", length=2),
    ]
    connections = [open_socket(server) for _ in range(13) for _ in halves]
    for number, connection in enumerate(connections):
        connection.sendall(halves[number % len(halves)])
    assert serves(server)
    answer = ask(server, request("/jobs", b"{}"))
    assert answer
    assert answer[0] == 201
    for connection in connections:
        read_to_end(connection)
        connection.close()
    eventually(lambda: open_files(server) <= files + 3)
    assert jobs_in(db) == 1
    assert "Traceback" not in server.log


def test_a_client_that_takes_no_answer_is_given_up(
    serve_as_deployed: Serve, db: Connection
) -> None:
    server = serve_as_deployed(API_CLIENT_TIMEOUT="1")
    fill(db, 5_000)
    files = open_files(server)
    list_of_jobs = request("/jobs", None, CLOSE)
    with open_slow_socket(server) as list_, open_slow_socket(server) as pipelined:
        list_.sendall(list_of_jobs)
        pipelined.sendall(request("/openapi.json") * 500)
        eventually(lambda: open_files(server) >= files + 2)
        eventually(lambda: open_files(server) <= files + 2)  # the pool has grown, perhaps
        eventually(lambda: metric(server, "api_http_requests_in_progress") == 1)  # this one
    assert value(db, BUSY) == 0
    assert serves(server)


def open_slow_socket(server: Server) -> socket.socket:
    """Connect with a small buffer, so that the server notices what is not read."""
    address = urlsplit(server.url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((address.hostname, address.port))
    connection.settimeout(60)
    return connection


def fill(db: Connection, jobs: int) -> None:
    """Make jobs of four kilobytes each."""
    db.execute(
        """
        select count(*)
          from enqueue_jobs((
                 select jsonb_agg(jsonb_build_object('message', repeat('x', 4000)))
                   from generate_series(1, %s)
               ))
        """,
        [jobs],
    )


def test_a_slow_reader_of_a_long_list_holds_neither_a_transaction_nor_memory(
    api_server: Server, db: Connection
) -> None:
    fill(db, 10_000)
    fill(db, 10_000)
    before = memory(api_server)
    with open_slow_socket(api_server) as connection:
        connection.sendall(request("/jobs", None, CLOSE))
        received = connection.recv(1000)
        eventually(lambda: value(db, BUSY) == 0)
        assert value(db, f"select count(backend_xmin) {SESSIONS} 'job_queue api%%'") == 0
        assert metric(api_server, "api_http_requests_in_progress") == 2  # that, and this
        received += read_to_end(connection)
    assert len(received) > 80_000_000
    assert received.count(b'"message" : "xxx') == 20_000
    assert received.endswith(b"0\r\n\r\n")
    assert memory(api_server) - before < 60 * MIB


def test_five_thousand_connections_at_once_are_served(api_server: Server, many_files: int) -> None:
    if many_files < 6_000:
        pytest.skip("this system does not let a process have so many connections")
    resource.prlimit(api_server.process.pid, resource.RLIMIT_NOFILE, (many_files, many_files))
    connections = [open_socket(api_server) for _ in range(5_000)]
    for connection in connections:
        connection.sendall(request("/livez", None, CLOSE))
    answers = Counter(read_answer(connection)[0] for connection in connections)
    for connection in connections:
        connection.close()
    assert answers == {200: 5_000}
    assert serves(api_server)


def test_a_server_that_has_run_out_of_files_recovers(api_server: Server, db: Connection) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = open_files(api_server)
    resource.prlimit(api_server.process.pid, resource.RLIMIT_NOFILE, (files + 30, hard))
    connections = [open_socket(api_server) for _ in range(100)]
    eventually(lambda: open_files(api_server) >= files + 29)
    connections[0].sendall(request("/jobs", b"{}"))
    assert read_answer(connections[0])[0] in (201, 503)  # it may lack a connection to the database
    for connection in connections:
        connection.close()
    answer = ask(api_server, request("/jobs", b"{}"))
    assert answer
    assert answer[0] == 201
    assert serves(api_server)
    assert api_server.process.poll() is None


def test_clients_that_hang_up_anywhere_leave_nothing_behind(
    api_server: Server, db: Connection
) -> None:
    fill(db, 2_000)
    job_id = enqueue(db)
    requests = [
        request("/jobs", json.dumps({"message": "x" * 9_000}).encode()),
        request("/jobs", b'{"message": "waits"}', b"Prefer: wait=60"),
        request("/jobs", b"2\r\n{}\r\n0\r\n\r\n", CHUNKED, length=-1),
        request("/jobs"),
        request(f"/jobs/{job_id}", None, b"Prefer: wait=60"),
        request(f"/jobs/{job_id}/events"),
        request("/events"),
        request("/events", None, b"Last-Event-ID: 0"),
        request("/metrics"),
        request("/claims", b'{"worker": "w", "queues": ["none"]}', b"Prefer: wait=60"),
    ]
    chance = random.Random(1)
    serve_all(api_server, requests)  # what is opened once, such as the pool, is open now
    eventually(lambda: metric(api_server, "api_http_requests_in_progress") == 1)
    files = open_files(api_server)
    for _ in range(3):
        serve_all(api_server, requests * 5, chance)
    eventually(lambda: metric(api_server, "api_http_requests_in_progress") == 1)
    eventually(lambda: metric(api_server, "api_database_requests_waiting") == 0)
    in_use = 'api_database_connections{state="in use"}'
    eventually(lambda: metric(api_server, in_use) == 0)
    eventually(lambda: value(db, BUSY) == 0)
    eventually(lambda: open_files(api_server) <= files + 10)  # as many as the pool may have
    nobody_asks = f"""
        select coalesce(bool_and(query_start < clock_timestamp() - interval '1 second'), true)
        {SESSIONS} 'job_queue api watcher'
    """
    eventually(lambda: value(db, nobody_asks))
    enqueue(db, queue="none")
    api_answer = ask(api_server, request("/claims", b'{"worker": "w", "queues": ["none"]}'))
    assert api_answer
    assert len(json.loads(api_answer[2])) == 1  # nobody who has gone was given it
    assert serves(api_server)
    assert "Traceback" not in api_server.log


def serve_all(server: Server, requests: list[bytes], chance: random.Random | None = None) -> None:
    """Send the requests, or as much of each as chance has it, and hang up at some point."""
    connections = [open_socket(server) for _ in requests]
    for connection, data in zip(connections, requests, strict=True):
        is_cut = chance is not None and chance.random() < 0.3
        connection.sendall(data[: chance.randrange(len(data))] if chance and is_cut else data)
    for connection, data in zip(connections, requests, strict=True):
        if chance is None or chance.random() < 0.3:
            is_held = b"wait=" in data or b"/events" in data
            connection.settimeout(0.2 if is_held or chance else 60)
            with suppress(TimeoutError, ConnectionError):
                connection.recv(1 if chance is None else chance.randrange(1, 5_000))
        if chance is not None and chance.random() < 0.5:
            connection.close()
        else:
            hang_up(connection)


# Concurrency


async def ask_all(server: Server, requests: list[bytes], at_once: int = 1_000) -> list[Answer]:
    """Send the requests, so many at a time, each over a connection of its own."""
    turns = asyncio.Semaphore(at_once)
    address = urlsplit(server.url)

    async def ask_one(data: bytes) -> Answer:
        async with turns:
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(data)
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        media_type = re.search(rb"\r\ncontent-type: (.*?)\r\n", head + b"\r\n", re.I)
        return int(head.split()[1]), media_type[1].decode() if media_type else "", body

    return await asyncio.gather(*map(ask_one, requests))


def make_key(db: Connection, **arguments: Any) -> tuple[str, bytes]:
    """Make an API key for clients; return its id, and the header that shows it."""
    named = "".join(f", p_{name} => %({name})s" for name in arguments)
    key = db.execute(f"select * from create_api_key('k', '{{client}}'{named})", arguments)
    row = key.fetchone()
    assert row is not None
    return row[0], b"X-API-Key: " + row[1].encode()


def is_outage(answer: Answer | None) -> bool:
    """Tell whether the answer is that the database is not available."""
    return answer is not None and is_problem(answer, 503) and b":unavailable" in answer[2]


def test_of_a_thousand_jobs_created_at_once_each_is_there_whose_creation_was_told(
    api_server: Server, db: Connection
) -> None:
    create = [request("/jobs", b'{"message": "%d"}' % n, CLOSE) for n in range(1_000)]
    answers = asyncio.run(ask_all(api_server, create))
    created = {json.loads(body)["id"] for status, _, body in answers if status == 201}
    assert all(answer[0] == 201 or is_outage(answer) for answer in answers)
    there = {str(id_) for (id_,) in db.execute("select id from jobs")}
    assert created <= there
    # One that timed out may be there all the same, as its answer says.
    assert len(there) <= len(answers)
    assert serves(api_server)


def test_twins_with_one_idempotency_key_create_one_job_and_are_answered_alike(
    api_server: Server, db: Connection
) -> None:
    twin = request("/jobs", b'{"message": "once"}', CLOSE, b"Idempotency-Key: twin")
    answers = asyncio.run(ask_all(api_server, [twin] * 20))
    assert len(set(answers)) == 1, set(answers)
    assert answers[0][0] == 201
    assert jobs_in(db) == 1
    other = request("/jobs", b'{"message": "another"}', CLOSE, b"Idempotency-Key: twin")
    assert all(is_problem(a, 422) for a in asyncio.run(ask_all(api_server, [other] * 20)))
    assert jobs_in(db) == 1


def test_a_key_is_not_served_more_than_its_limit_and_those_that_came_at_once(
    api_server: Server, db: Connection
) -> None:
    for target, body in (("/jobs?limit=1", None), ("/jobs", b"{}")):
        _, key = make_key(db, rate_limit=20, rate_period="1 day")
        send = request(target, body, CLOSE, key)
        answers = asyncio.run(ask_all(api_server, [send] * 200, at_once=10))
        served = [answer for answer in answers if answer[0] in (200, 201)]
        assert 20 <= len(served) <= 20 + 10
        assert all(is_problem(a, 429) for a in answers if a not in served)


def test_a_key_that_is_revoked_under_load_is_refused_from_then_on(
    api_server: Server, db: Connection
) -> None:
    key_id, key = make_key(db)
    create = request("/jobs", b"{}", CLOSE, key)

    async def load() -> list[Answer]:
        before = asyncio.create_task(ask_all(api_server, [create] * 300, at_once=20))
        while not jobs_in(db):
            await asyncio.sleep(0)
        await asyncio.to_thread(db.execute, "select revoke_api_key(%s)", [key_id])
        after = await ask_all(api_server, [create] * 50, at_once=20)
        assert all(is_problem(answer, 401) for answer in after)
        return await before

    answers = asyncio.run(load())
    assert all(answer[0] == 201 or is_problem(answer, 401) for answer in answers)
    assert Counter(answer[0] for answer in answers)[201] == jobs_in(db)


# Outages


def load_until(server: Server, disturb: Callable[[], None]) -> list[Answer]:
    """Create, read and list jobs all the while that this disturbs the database."""
    requests = [
        request("/jobs", b"{}", CLOSE),
        request("/jobs", b'{"unique_key": "u"}', CLOSE),
        request("/jobs?limit=3", None, CLOSE),
        request(f"/jobs/{UNKNOWN_JOB}", None, CLOSE),
    ]

    async def load() -> list[Answer]:
        disturbing = asyncio.create_task(asyncio.to_thread(disturb))
        answers: list[Answer] = []
        while not disturbing.done():
            answers += await ask_all(server, requests * 3)
        await disturbing
        return answers

    return asyncio.run(load())


def check_answers(answers: list[Answer]) -> None:
    """Check that each was served, or told to try again."""
    wrong = [a for a in answers if not (a[0] in (200, 201) or is_problem(a, 404) or is_outage(a))]
    assert wrong == []


def test_terminated_sessions_are_an_outage_at_worst_and_no_told_job_is_lost(
    api_server: Server, db: Connection
) -> None:
    busy = f"select count(pg_terminate_backend(pid)) {SESSIONS} 'job_queue api%%'"

    def terminate() -> None:
        for _ in range(20):
            eventually(lambda: value(db, busy))

    answers = load_until(api_server, terminate)
    check_answers(answers)
    created = {json.loads(body)["id"] for status, _, body in answers if status == 201}
    assert created <= {str(id_) for (id_,) in db.execute("select id from jobs")}
    eventually(lambda: serves(api_server))
    assert "Traceback" not in api_server.log


def test_a_restart_of_the_database_under_load_is_an_outage_at_worst(serve: Serve) -> None:
    with embedded_server() as database:
        conninfo = database.get_uri()
        migrate(conninfo)
        server = serve(*deployed(), DATABASE_URL=conninfo)

        def restart() -> None:
            database.stop()
            eventually(lambda: is_outage(ask(server, CREATE)))
            database.start()
            eventually(lambda: serves(server))

        answers = load_until(server, restart)
        check_answers(answers)
        assert {answer[0] for answer in asyncio.run(ask_all(server, [CREATE] * 20))} == {201}
        assert "Traceback" not in server.log


def test_calls_that_a_lock_holds_up_are_told_so_and_those_after_it_are_served(
    serve_as_deployed: Serve, connect: Callable[[], Connection]
) -> None:
    server = serve_as_deployed(API_DATABASE_TIMEOUT="1", API_POOL_SIZE="4")
    blocker, db = connect(), connect()
    with blocker.transaction():
        blocker.execute("lock table jobs")
        requests = [CREATE, request("/jobs", None, CLOSE), request("/statistics", None, CLOSE)]
        answers = asyncio.run(ask_all(server, requests * 20))
        assert all(is_outage(answer) for answer in answers), Counter(a[0] for a in answers)
        assert ask(server, request("/livez", None, CLOSE)) == HEALTHY
    answers = asyncio.run(ask_all(server, [CREATE] * 40))
    assert {answer[0] for answer in answers} == {201}
    eventually(lambda: value(db, BUSY) == 0)
    assert metric(server, "api_database_requests_waiting") == 0
    assert jobs_in(db) >= 40
    assert "Traceback" not in server.log


# Operations


class Operation:
    """An operation of the OpenAPI document, and how to send it something."""

    def __init__(self, document: Any, path: str, method: str) -> None:
        self._document = document
        self.path, self.method = path, method
        operation = document["paths"][path][method]
        self.name = operation["operationId"]
        self.statuses = {int(status) for status in operation["responses"]}
        parameters = operation.get("parameters", [])
        self.in_path = [p["name"] for p in parameters if p["in"] == "path"]
        self.in_query = [p["name"] for p in parameters if p["in"] == "query"]
        self.in_headers = [p["name"] for p in parameters if p["in"] == "header"]
        content = operation.get("requestBody", {}).get("content", {})
        self.media_type = next(iter(content), None)
        self.schema = content[self.media_type]["schema"] if self.media_type else None

    @property
    def members(self) -> list[str]:
        """The members of its body."""
        return list(self._resolved(self._item()).get("properties", ())) if self.schema else []

    def body(self, **members: Any) -> Any:
        """Return a body that has what is required, and these members."""
        schema = self._resolved(self._item())
        required = {
            name: self._least(schema["properties"][name]) for name in schema.get("required", ())
        }
        body = {**required, **members}
        return [body] if self._resolved(self.schema).get("type") == "array" else body

    def _item(self) -> Any:
        schema = self._resolved(self.schema)
        return schema["items"] if schema.get("type") == "array" else schema

    def _resolved(self, schema: Any) -> Any:
        if "$ref" in schema:
            return self._document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return schema

    def _least(self, schema: Any) -> Any:
        schema = self._resolved(schema)
        if "anyOf" in schema:
            return self._least(schema["anyOf"][0])
        if "enum" in schema:
            return schema["enum"][0]
        if schema.get("type") == "array":
            return [self._least(schema["items"])] * schema.get("minItems", 0)
        if schema.get("type") == "object":
            return {
                name: self._least(schema["properties"][name]) for name in schema.get("required", ())
            }
        if schema.get("format") == "uuid":
            return UNKNOWN_JOB
        return {"integer": 1, "number": 1, "boolean": False}.get(schema.get("type"), "a")

    def send(
        self,
        client: httpx2.Client,
        in_path: str = UNKNOWN_JOB,
        params: Any = None,
        headers: dict[str, str] | None = None,
        body: Any = None,
        content: bytes | None = None,
    ) -> str | None:
        """Send it, and return what is wrong with the answer."""
        if content is None and body is not None:
            content = json.dumps(body).encode()
        path = re.sub(r"\{\w+\}", quote(in_path, safe=""), self.path)
        media_type = {"Content-Type": self.media_type} if content and self.media_type else {}
        with client.stream(
            self.method.upper(),
            path,
            params=params,
            headers={**media_type, **(headers or {})},
            content=content,
        ) as response:
            found = response.headers.get("Content-Type", "")
            if found.startswith("text/event-stream"):
                return None
            answer = (response.status_code, found, response.read())
        is_known = answer[0] in self.statuses and answer[0] != 500
        if is_known and (answer[0] < 400 or is_problem(answer, answer[0])):
            return None
        return f"{self.name}: {in_path} {params} {headers} {content!r} -> {answer}"


@pytest.fixture
def operations(client: httpx2.Client) -> list[Operation]:
    """All operations that the server says it has."""
    document = client.get("/openapi.json").json()
    return [
        Operation(document, path, method)
        for path, methods in document["paths"].items()
        for method in methods
    ]


SQL = [
    "'; drop table job_queue.jobs; --",
    '"; drop schema job_queue cascade; --',
    "' or '1'='1",
    "1); delete from job_queue.jobs; --",
    "$$; drop table job_queue.jobs; $$",
    "\\'; drop table job_queue.jobs; --",
    "%s %(job_id)s %% {} {0} :x $1",
    "{'; drop table job_queue.jobs; --}",
]


def test_sql_is_text_wherever_it_is_sent(
    client: httpx2.Client, operations: list[Operation], db: Connection
) -> None:
    job_id = enqueue(db, message="unharmed", delay="1 day")
    shape = """
        select oid::regclass::text from pg_class where relnamespace = 'job_queue'::regnamespace
        union
        select oid::regprocedure::text from pg_proc where pronamespace = 'job_queue'::regnamespace
    """
    before = set(db.execute(shape))
    wrong = []
    for text in SQL:
        for operation in operations:
            if operation.in_path:
                body = operation.body() if operation.schema else None
                wrong.append(operation.send(client, text, body=body))
            for name in operation.in_query:
                wrong.append(operation.send(client, params={name: text}))
            for name in operation.in_headers:
                body = operation.body() if operation.schema else None
                wrong.append(operation.send(client, headers={name: text}, body=body))
            for name in operation.members:
                for member in (text, [text], {text: text}, [{text: text}]):
                    body = operation.body(**{name: member})
                    wrong.append(operation.send(client, body=body))
        for header in ("Authorization", "X-API-Key", "X-Request-ID", "Traceparent", "Tracestate"):
            answer = client.get("/queues", headers={header: text})
            assert answer.status_code in (200, 401)
    assert [answer for answer in wrong if answer] == []
    assert before <= set(db.execute(shape))  # rate limits have brought clocks
    shown = client.get(f"/jobs/{job_id}", params={"view": "full"}).json()
    assert (shown["status"], shown["message"]) == ("queued", "unharmed")


@pytest.mark.parametrize("text", [SQL[0], "%2F/..;?#\\\"'&=+", "\u202e\U0001f4a3\u2028\x1b[31m"])
def test_odd_text_is_given_back_as_it_was(client: httpx2.Client, text: str) -> None:
    names = ["message", "job_type", "queue", "unique_key", "concurrency_key"]
    job = dict.fromkeys(names, text) | {"payload": {text: [text]}}
    created = client.post("/jobs", json=job).json()
    path = f"/jobs/{created['id']}"
    shown = client.get(path, params={"view": "full"}).json()
    assert {name: shown[name] for name in job} == job
    for name in ("queue", "job_type", "unique_key"):
        found = client.get("/jobs", params={name: text, "limit": 5}).json()
        assert [job["id"] for job in found] == [created["id"]]
    name = quote(text, safe="")
    assert client.post(f"/queues/{name}/pause").json()["queue"] == text
    schedule = {"cron": "@daily", "job": {"message": text}}
    assert client.put(f"/schedules/{name}", json=schedule).json()["schedule"] == text
    assert client.get(f"/schedules/{name}").json()["job"]["message"] == text
    client.post(f"/queues/{name}/resume")
    [claimed] = claim_over_rest(client, text)
    failed = {"claim_id": claimed["claim_id"], "error": text}
    assert client.post(f"{path}/fail", json=failed).status_code == 200
    [dead] = client.get("/dead-letters", params={"error": text}).json()
    assert (dead["id"], dead["error"], dead["payload"]) == (created["id"], text, job["payload"])


def claim_over_rest(client: httpx2.Client, text: str) -> Any:
    """Claim a job of this queue, in the name of this worker."""
    response = client.post("/claims", json={"worker": text, "queues": [text], "job_types": [text]})
    assert response.status_code == 200, response.text
    return response.json()


def test_operations_answer_what_they_do_not_take_as_they_say(
    client: httpx2.Client, operations: list[Operation], api_server: Server
) -> None:
    wrong = []
    values: list[Any] = [None, True, 1, -1, 2**63, 1e300, "", "x", [], [None], [[]], {}, {"a": 1}]
    texts = ["", "x", "-1", "1e5", "9" * 30, "null", "\0", "\ud7ff", "x" * 20_000]
    for operation in operations:
        wrong.append(operation.send(client))
        wrong.append(operation.send(client, params={"unknown": "x"}))
        for text in texts[1:]:
            if operation.in_path and len(text) < 20_000:
                body = operation.body() if operation.schema else None
                wrong.append(operation.send(client, text, body=body))
        for text in texts:
            for name in operation.in_query:
                wrong.append(operation.send(client, params={name: text}))
                wrong.append(operation.send(client, params=[(name, text), (name, text)]))
        if operation.schema is None:
            wrong.append(operation.send(client, content=b"not asked for"))
            continue
        for value_ in values:
            wrong.append(operation.send(client, body=value_))
            wrong.append(operation.send(client, body=[value_]))
            wrong.append(operation.send(client, body={"unknown": value_}))
            for name in operation.members:
                wrong.append(operation.send(client, body=operation.body(**{name: value_})))
        for content in (b"", b"{", b"{}}", b"\0", b"nul", b"<a/>", b"{}" * 2):
            wrong.append(operation.send(client, content=content))
        for media_type in ("", "x", "text/plain", "application/x-www-form-urlencoded", "a/b;c"):
            headers = {"Content-Type": media_type}
            wrong.append(operation.send(client, headers=headers, body=operation.body()))
    assert [answer for answer in wrong if answer] == []
    assert "Traceback" not in api_server.log


def test_methods_that_a_path_does_not_have_are_405_and_its_own_are_told(
    client: httpx2.Client, operations: list[Operation]
) -> None:
    methods: dict[str, set[str]] = {}
    for operation in operations:
        path = re.sub(r"\{\w+\}", UNKNOWN_JOB, operation.path)
        methods.setdefault(path, set()).add(operation.method.upper())
    for path, known in methods.items():
        for method in {"DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "BREW"} - known:
            response = client.request(method, path)
            answer = (response.status_code, response.headers["Content-Type"], response.content)
            assert is_problem(answer, 405), (method, path, answer)
            # /jobs/batch is a path of its own, and what GET /jobs/{job_id} says is none.
            assert known <= set(response.headers["Allow"].split(", ")), (method, path)
        assert client.head(path).status_code == 405
