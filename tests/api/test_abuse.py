"""What a client must not be able to do to a server: break it, fill it, or keep it busy.

The server is started as the Procfile does it, and spoken to over plain sockets where a client
library would not say what is to be said.
"""

import http.client
import json
import os
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.api.conftest import ROOT, Serve, Server
from tests.support import (
    Connection,
    value,
)

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
def server(serve_as_deployed: Serve) -> Server:
    """Such a server."""
    return serve_as_deployed()


@pytest.fixture
def client(server: Server) -> Iterator[httpx2.Client]:
    """A well-behaved client of it."""
    with httpx2.Client(base_url=server.url, timeout=60) as client:
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
    problem = json.loads(answer[2])
    return problem["status"] == answer[0] and {"type", "title", "detail"} <= problem.keys()


def serves(server: Server) -> bool:
    """Tell whether the server still does its work."""
    return server.process.poll() is None and ask(server, request("/health", None, CLOSE)) == (
        200,
        "application/json",
        b'{"status":"ok"}',
    )


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
    "a length of 5000 digits": request(
        b"/jobs", b"{}", b"Content-Length: " + b"9" * 5000, length=-1
    ),
    "another transfer coding": request(b"/jobs", b"{}", b"Transfer-Encoding: gzip", length=-1),
    "a transfer coding like chunked": request(
        b"/jobs", b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding: xchunked", length=-1
    ),
    "a header name with a space": request(
        b"/jobs", b"2\r\n{}\r\n0\r\n\r\n", b"Transfer-Encoding : chunked", length=-1
    ),
    "a chunk of no length": request(b"/jobs", b"zz\r\n{}\r\n0\r\n\r\n", CHUNKED, length=-1),
    "a chunk of negative length": request(b"/jobs", b"-2\r\n{}\r\n0\r\n\r\n", CHUNKED, length=-1),
    "a chunk longer than its length": request(
        b"/jobs", b"1\r\n{}\r\n0\r\n\r\n", CHUNKED, length=-1
    ),
}


def test_what_is_not_http_is_refused_with_a_problem(server: Server, db: Connection) -> None:
    answers = {name: ask(server, data) for name, data in MALFORMED.items()}
    assert {n: a for n, a in answers.items() if not is_problem(a, 400)} == {}
    assert jobs_in(db) == 0
    assert serves(server)
    assert "Traceback" not in server.log


def test_a_second_request_cannot_be_smuggled_in_the_body_of_a_first(
    server: Server, db: Connection
) -> None:
    chunks = b"2\r\n{}\r\n0\r\n\r\n"
    smuggled = request("/jobs", b"{}")
    for first in (
        request("/jobs", chunks, CHUNKED),  # and a Content-Length
        request("/jobs", chunks + smuggled, CHUNKED, length=4),
        request("/livez", None, b"Content-Length: 5", CHUNKED) + chunks,
        request("/jobs", chunks, CHUNKED, length=-1).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ):
        with open_socket(server) as connection:
            connection.sendall(first + smuggled)
            answers = read_to_end(connection)
        assert answers.count(b"HTTP/1.1 ") == 1, answers
        assert answers.startswith(b"HTTP/1.1 400 "), answers
        assert PROBLEM.encode() in answers
    assert jobs_in(db) == 0


def test_a_body_on_a_route_that_takes_none_is_no_second_request(
    server: Server, db: Connection
) -> None:
    body = request("/jobs", b"{}")
    with open_socket(server) as connection:
        connection.sendall(request("/livez", body, method=b"GET") + request("/livez", None, CLOSE))
        answers = read_to_end(connection)
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert jobs_in(db) == 0


def test_requests_in_one_go_are_answered_in_their_order(server: Server, db: Connection) -> None:
    with open_socket(server) as connection:
        connection.sendall(
            b"".join(request("/jobs", b'{"message": "%d"}' % number) for number in range(50))
            + request("/jobs", b'{"message": "last"}', CLOSE)
        )
        answers = read_to_end(connection)
    messages = re.findall(rb'"message" : "(\w+)"', answers)
    assert messages == [b"%d" % number for number in range(50)] + [b"last"]
    assert jobs_in(db) == 51


def test_a_client_of_http_1_0_is_answered_and_hung_up_on(server: Server, db: Connection) -> None:
    for data, status in (
        (request("/jobs", b"{}"), 201),
        (request("/jobs"), 200),
        (request("/nowhere"), 404),
    ):
        with open_socket(server) as connection:
            connection.sendall(data.replace(b"HTTP/1.1", b"HTTP/1.0"))
            answer = read_to_end(connection)
        assert int(answer.split()[1]) == status
        assert b"chunked" not in answer.lower()
        assert answer.endswith((b"}", b"]"))
    assert jobs_in(db) == 1


def test_a_client_that_expects_100_is_told_to_continue_unless_its_body_is_too_large(
    server: Server,
) -> None:
    expects = b"Expect: 100-continue"
    with open_socket(server) as connection:
        connection.sendall(request("/jobs", b"", expects, length=2))
        told = connection.recv(65536)
        assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert read_answer(connection)[0] == 201
    assert is_problem(ask(server, request("/jobs", b"", expects, length=17 * MIB)), 413)


# Bodies


def in_chunks(connection: socket.socket, piece: bytes, times: int) -> None:
    """Send as many of these as the server takes."""
    with suppress(ConnectionError):
        for _ in range(times):
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.sendall(b"0\r\n\r\n")


def test_ten_megabytes_are_accepted(server: Server, db: Connection) -> None:
    batch = json.dumps([{"message": "x" * 9_990}] * 1_050).encode()
    assert len(batch) > 10_000_000
    answer = ask(server, request("/jobs/batch", batch))
    assert answer
    assert answer[0] == 201
    assert jobs_in(db) == 1_050


def test_a_body_that_is_too_large_is_refused_wherever_it_is_sent_and_not_kept(
    server: Server, db: Connection
) -> None:
    before = memory(server)
    for length in (17 * MIB, 2**64 - 1):
        for target in ("/jobs", "/jobs/batch", "/queues/a", "/nowhere"):
            assert is_problem(ask(server, request(target, b"{", length=length)), 413)
        assert is_problem(ask(server, request("/livez", b"{", length=length, method=b"GET")), 413)
    for _ in range(2):
        with open_socket(server) as connection:
            connection.sendall(request("/jobs", b"", CHUNKED, length=-1))
            in_chunks(connection, b" " * MIB, 100)
            with suppress(ConnectionError):
                assert is_problem(read_answer(connection), 413)
    assert memory(server) - before < 100 * MIB
    assert jobs_in(db) == 0
    assert serves(server)


def test_a_body_shorter_than_its_length_creates_nothing(server: Server, db: Connection) -> None:
    for data in (
        request("/jobs", b"{}", length=3),
        request("/jobs", b"2\r\n{}\r\n", CHUNKED, length=-1),
        request("/jobs", b"", length=2),
    ):
        with open_socket(server) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            read_to_end(connection)
    assert serves(server)
    assert jobs_in(db) == 0
    assert "Traceback" not in server.log


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
    "far in the future": b'{"run_at": "9999-12-31T23:59:59-23:59"}',
    "far in the past": b'{"run_at": "0001-01-01T00:00:00+23:59"}',
}


def test_odd_json_is_stored_or_refused_as_a_whole_and_never_a_fault(
    server: Server, client: httpx2.Client, db: Connection
) -> None:
    refused = {name: ask(server, request("/jobs", body)) for name, body in REFUSED_BODIES.items()}
    assert {n: a and a[:2] for n, a in refused.items() if not is_problem(a, 422)} == {}
    batch = {
        name: ask(server, request("/jobs/batch", b"[{}, %s]" % body))
        for name, body in REFUSED_BODIES.items()
        if not body.startswith(b"[[")
    }
    assert {n: a and a[:2] for n, a in batch.items() if not is_problem(a, 422)} == {}
    assert jobs_in(db) == 0
    accepted = {name: ask(server, request("/jobs", body)) for name, body in ACCEPTED_BODIES.items()}
    assert {n: a for n, a in accepted.items() if a is None or a[0] != 201} == {}
    listed = client.get("/jobs", params={"view": "full"})
    assert len(json.loads(listed.content, parse_int=str)) == len(ACCEPTED_BODIES)
    assert "Traceback" not in server.log


def test_odd_paths_queries_and_headers_are_no_fault(server: Server) -> None:
    strange = [b"\xff\xfe\x80", b'"', b'"\\', b"\\", b"%00", b"," * 1000, b";" * 1000, b"=", b"-1"]
    headers = [
        *(b"Authorization", b"X-API-Key", b"X-Request-ID", b"Idempotency-Key", b"Prefer"),
        *(b"Traceparent", b"Tracestate", b"Accept", b"Content-Encoding", b"Range", b"If-Match"),
        *(b"Content-Type", b"Expect", b"Upgrade", b"Origin", b"Cookie", b"X-Forwarded-For"),
        *(b"X-Forwarded-Proto", b"Forwarded", b"Max-Forwards", b"Trailer", b"TE"),
    ]
    escapes = ["%ff%fe", "%00", "%", "%zz", "%2e%2e%2f", "%ed%a0%80", "%0d%0aX:%20y", "%25%32%46"]
    escapes += ["a" * 5000, "%F0%9F%92%A3" * 50, "..", "%5c", "%u0041"]
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
        answer = ask(server, data)
        if (
            answer is None
            or answer[0] >= 500
            or not (answer[0] < 300 or is_problem(answer, answer[0]))
        ):
            statuses[data[:200]] = answer
    assert statuses == {}
    assert "Traceback" not in server.log
    assert "\nX: y" not in server.log


def test_floods_of_headers_are_refused_and_the_server_lives(server: Server) -> None:
    before = memory(server)
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
        answer = ask(server, data)
        assert answer is None or is_problem(answer, 400), answer
    assert memory(server) - before < 20 * MIB
    assert serves(server)
