"""The handler http_request, with servers that are real and misbehave."""

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpcore2
import pytest

from tests.support import in_another_thread
from tests.worker.runs import JOB_ID, a_run
from worker import builtin, registry
from worker.calls import call
from worker.context import Context
from worker.outcomes import Cancelled
from worker.run import Outcome, Run

Serve = Callable[[socket.socket], object]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


@dataclass
class Server:
    """A server of one kind of answer, on an address of this machine."""

    port: int
    requests: list[bytes] = field(default_factory=list)
    """What clients have sent, up to the answer."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/path"


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Start servers that answer each request with these bytes, or as the function does."""
    with contextlib.ExitStack() as stack:

        def start(answer: bytes | Serve = OK, host: str = "127.0.0.1") -> Server:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, 0), family=family)
            server = Server(listener.getsockname()[1])
            thread = threading.Thread(target=accept, args=(listener, server, answer))
            thread.start()
            stack.callback(thread.join)
            stack.callback(listener.close)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return server

        def accept(listener: socket.socket, server: Server, answer: bytes | Serve) -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    if callable(answer):
                        answer(connection)
                    elif sent := read_request(connection):
                        server.requests.append(sent)
                        connection.sendall(answer)

        yield start


def read_request(connection: socket.socket) -> bytes:
    """Read a request: its head, and as much of a body as the head says."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (part := connection.recv(65_536)):
            return request
        request += part
    head, _, body = request.partition(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    while len(body) < length and (part := connection.recv(65_536)):
        body += part
    return head + b"\r\n\r\n" + body


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the handler reach the servers of these tests."""
    monkeypatch.setenv("HTTP_REQUEST_ALLOW", "127.0.0.0/8, ::1/128")


@pytest.fixture(autouse=True)
def not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let it reach none, unless a test says so."""
    monkeypatch.delenv("HTTP_REQUEST_ALLOW", raising=False)


def run_of(**payload: Any) -> Run:
    """Return a run of http_request."""
    return a_run("http_request", payload)


def outcome(run: Run) -> Outcome:
    """Run it and return how it ended."""

    def no_pool() -> Any:
        raise AssertionError("the handler needs no database")

    handler = registry._handlers["http_request"]
    assert handler.function is builtin.http_request
    return call(handler, run, Context(run, no_pool, lambda: float("inf")))


def request(**payload: Any) -> Outcome:
    """Run a job with this payload and return how that ended."""
    return outcome(run_of(**payload))


def failure_for_good(**payload: Any) -> str:
    """Return the error of a request that fails its job for good, as foreseen."""
    ended = request(**payload)
    assert (ended.verb, ended.retryable, ended.traceback) == ("fail", False, None), ended
    return ended.text


def failure_of_attempt(**payload: Any) -> Outcome:
    """Return how a request ended that fails but may be tried again, as foreseen."""
    ended = request(**payload)
    assert (ended.verb, ended.retryable, ended.traceback) == ("fail", True, None), ended
    return ended


def result(**payload: Any) -> Any:
    """Return the result of a request that succeeds."""
    ended = request(**payload)
    assert ended.verb == "complete", ended
    return json.loads(ended.text)


# Addresses


INTERNAL = [
    "127.0.0.1",
    "127.1.2.3",
    "localhost",
    "0.0.0.0",
    "0",
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "[::1]",
    "[::]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a00:1]",
    "[64:ff9b:1::a00:1]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[2001:db8::1]",
    "[100::1]",
    "[fe80::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "a@127.0.0.1",
    "a:b@127.0.0.1",
    "example.com@127.0.0.1",
    "example.com%2f@127.0.0.1",
]


@pytest.mark.parametrize("host", INTERNAL)
def test_an_address_that_is_not_public_is_refused_for_good(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setattr(socket, "create_connection", no_connection)
    assert "is not public" in failure_for_good(url=f"http://{host}/")


def no_connection(*_: Any, **__: Any) -> Any:
    raise AssertionError("a connection was attempted")


PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1", "64:ff9b::808:808", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_connected_to(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    connected = []

    def create_connection(to: tuple[str, int], *_: Any, **__: Any) -> Any:
        connected.append(to)
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(socket, "create_connection", create_connection)
    host = f"[{address}]" if ":" in address else address
    assert "refused" in failure_of_attempt(url=f"https://{host}/").text
    assert connected == [(address, 443)]


def resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let the resolver give one of the answers after another; return who was asked for."""
    asked: list[str] = []
    left = iter(answers)

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> Any:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in next(left)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_name_of_an_internal_address_is_refused_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "create_connection", no_connection)
    resolve_to(monkeypatch, ["10.0.0.7"])
    assert failure_for_good(url="http://db.example/") == "db.example is not public: 10.0.0.7"


def test_of_the_addresses_of_a_name_only_the_public_ones_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connected = []

    def create_connection(to: tuple[str, int], *_: Any, **__: Any) -> Any:
        connected.append(to)
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(socket, "create_connection", create_connection)
    resolve_to(monkeypatch, ["127.0.0.1", "8.8.8.8", "10.0.0.1", "8.8.4.4"])
    failure_of_attempt(url="http://example.com/")
    assert connected == [("8.8.8.8", 80), ("8.8.4.4", 80)]


@pytest.mark.usefixtures("allowed")
def test_a_name_is_looked_up_once_so_that_the_address_checked_is_the_one_connected_to(
    monkeypatch: pytest.MonkeyPatch, start_server: Callable[..., Server]
) -> None:
    port = start_server().port
    connect, connected = socket.create_connection, []

    def create_connection(to: tuple[str, int], *arguments: Any, **options: Any) -> socket.socket:
        connected.append(to)
        monkeypatch.undo()  # numeric addresses are looked up again, which tells nobody anything
        return connect(to, *arguments, **options)

    monkeypatch.setattr(socket, "create_connection", create_connection)
    asked = resolve_to(monkeypatch, ["127.0.0.1"])
    assert result(url=f"http://example.com:{port}/")["status"] == 200
    assert (asked, connected) == (["example.com"], [("127.0.0.1", port)])


def test_a_name_that_is_not_known_may_be_known_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert "example.com" in failure_of_attempt(url="http://example.com/").text


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("location", ["http://169.254.169.254/", "http://127.0.0.1:{port}/other"])
def test_a_redirect_is_the_result_and_is_not_followed(
    start_server: Callable[..., Server], location: str
) -> None:
    def redirect(connection: socket.socket) -> None:
        server.requests.append(read_request(connection))
        to = location.format(port=server.port)
        connection.sendall(
            f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n".encode()
        )

    server = start_server(redirect)
    got = result(url=server.url)
    assert (got["status"], got["headers"]["location"]) == (302, location.format(port=server.port))
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("allow", "host", "is_reached"),
    [
        ("127.0.0.1/32", "127.0.0.1", True),
        ("127.0.0.0/8", "localhost", True),
        ("10.0.0.0/8", "127.0.0.1", False),
        ("127.0.0.2/32", "127.0.0.1", False),
        ("::1/128", "127.0.0.1", False),
        ("127.0.0.0/8", "[::ffff:127.0.0.1]", False),  # each spelling is allowed by itself
    ],
)
def test_an_internal_network_can_be_allowed(
    monkeypatch: pytest.MonkeyPatch,
    start_server: Callable[..., Server],
    allow: str,
    host: str,
    is_reached: bool,
) -> None:
    monkeypatch.setenv("HTTP_REQUEST_ALLOW", allow)
    url = f"http://{host}:{start_server().port}/"
    if is_reached:
        assert result(url=url)["body"] == "hi"
    else:
        assert "is not public" in failure_for_good(url=url)


@pytest.mark.usefixtures("allowed")
def test_a_proxy_of_the_environment_is_not_used(
    monkeypatch: pytest.MonkeyPatch, start_server: Callable[..., Server]
) -> None:
    proxy, server = start_server(), start_server()
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
    result(url=server.url)
    assert (len(proxy.requests), len(server.requests)) == (0, 1)


# Bad requests


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1/",
        "//127.0.0.1/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "unix:///run/postgresql",
        "gopher://127.0.0.1/",
        "javascript:alert(1)",
        "ws://127.0.0.1/",
        " http://127.0.0.1/",
        "http://",
        "http:///path",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://[::1/",
        "http://127.0.0.1\r\nX-Injected: yes/",
        "http://ex\u00e4mple.com/",
        "http://" + "a" * 64 + ".com/",
        "http://a..com/",
    ],
)
def test_a_url_that_cannot_be_requested_fails_the_job_for_good(url: str) -> None:
    assert failure_for_good(url=url).startswith("the request cannot be made: ")


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("target", ["a b", "a\x7fb", "a\0b", "a\r\nX-Injected: yes"])
def test_a_path_cannot_smuggle_in_anything(
    start_server: Callable[..., Server], target: str
) -> None:
    server = start_server()
    ended = request(url=server.url + target)
    assert ended.verb == "complete" or not ended.retryable
    for sent in server.requests:
        assert b"\r\nx-injected" not in sent.lower()
        assert len(sent.partition(b"\r\n")[0].split(b" ")) == 3


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("X-A", "a\r\nX-Injected: yes"),
        ("X-A", "a\nX-Injected: yes"),
        ("X-A", "a\r\n\r\nGET /admin HTTP/1.1"),
        ("X-A", "a\0"),
        ("X-A\r\nX-Injected", "yes"),
        ("X-A: a", "b"),
        ("", "a"),
        ("X A", "a"),
        ("X-A", "\u20ac"),
        ("X-\u20ac", "a"),
        ("Content-Length", "1000"),
        ("content-length", "0"),
        ("Transfer-Encoding", "chunked"),
    ],
)
def test_a_header_that_cannot_be_sent_fails_the_job_for_good(
    start_server: Callable[..., Server], name: str, text: str
) -> None:
    server = start_server()
    error = failure_for_good(url=server.url, headers={name: text})
    assert error.startswith("the request cannot be made: ")
    assert not any(b"njected" in sent or b"admin" in sent for sent in server.requests)


@pytest.mark.parametrize(
    ("payload", "fault"),
    [
        ({}, "url: Field required"),
        ({"url": 1}, "url: Input should be a valid string"),
        ({"url": "http://h/", "method": "CONNECT"}, "method: Input should be 'GET'"),
        ({"url": "http://h/", "method": "get"}, "method: Input should be 'GET'"),
        ({"url": "http://h/", "timeout": 0}, "timeout: Input should be greater than 0"),
        ({"url": "http://h/", "timeout": 3601}, "timeout: Input should be less than or equal"),
        ({"url": "http://h/", "headers": {"a": 1}}, "headers.a: Input should be a valid string"),
        ({"url": "http://h/", "verify": False}, "verify: Extra inputs are not permitted"),
    ],
)
def test_a_payload_that_does_not_fit_fails_the_job_for_good(
    payload: dict[str, Any], fault: str
) -> None:
    assert fault in failure_for_good(**payload)


# Requests


@pytest.mark.usefixtures("allowed")
def test_a_get_sends_the_id_of_the_job_so_that_the_server_can_tell_a_repetition(
    start_server: Callable[..., Server],
) -> None:
    server = start_server()
    result(url=server.url + "?a=b")
    [sent] = server.requests
    assert sent.decode() == (
        f"GET /path?a=b HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
        f"Idempotency-Key: {JOB_ID}\r\n\r\n"
    )


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_body_that_is_no_text_is_sent_as_json(
    start_server: Callable[..., Server], method: str
) -> None:
    server = start_server()
    result(url=server.url, method=method, body={"a": ["\u20ac"]})
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(method.encode() + b" /path HTTP/1.1\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert json.loads(body) == {"a": ["\u20ac"]}


@pytest.mark.usefixtures("allowed")
def test_a_body_that_is_text_is_sent_as_it_is(start_server: Callable[..., Server]) -> None:
    server = start_server()
    result(url=server.url, method="POST", body="\u20ac=1", headers={"Content-Type": "text/plain"})
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert b"\r\nContent-Type: text/plain\r\n" in head
    assert body.decode() == "\u20ac=1"


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
def test_a_header_of_the_payload_replaces_ours_however_it_is_spelt(
    start_server: Callable[..., Server], spelling: Callable[[str], str]
) -> None:
    server = start_server()
    headers = {spelling("idempotency-key"): "mine", spelling("content-type"): "application/mine"}
    result(url=server.url, method="POST", body={}, headers=headers)
    sent = server.requests[0].lower()
    assert sent.count(b"idempotency-key: mine\r\n") == sent.count(b"idempotency-key:") == 1
    assert sent.count(b"content-type: application/mine\r\n") == sent.count(b"content-type:") == 1


# Answers


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_result_is_the_status_the_headers_and_the_text(
    start_server: Callable[..., Server], host: str
) -> None:
    body = "caf\u00e9".encode()
    server = start_server(
        b"HTTP/1.1 201 Created\r\nX-One: a\r\nContent-Length: 5\r\n\r\n" + body, host
    )
    at = f"[{host}]" if ":" in host else host
    assert result(url=f"http://{at}:{server.port}/") == {
        "status": 201,
        "headers": {"x-one": "a", "content-length": "5"},
        "body": "caf\u00e9",
    }


@pytest.mark.usefixtures("allowed")
def test_an_answer_to_head_has_no_body(start_server: Callable[..., Server]) -> None:
    server = start_server(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    assert result(url=server.url, method="HEAD")["body"] == ""


@pytest.mark.usefixtures("allowed")
def test_a_body_that_is_no_text_can_be_stored_all_the_same(
    start_server: Callable[..., Server],
) -> None:
    server = start_server(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na\0\xff\xfe")
    assert result(url=server.url)["body"] == "a\ufffd\ufffd\ufffd"


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("head", [b"", b"Content-Length: 1000000000\r\n"])
def test_of_a_long_body_the_first_64_kib_are_kept_and_no_more_is_read(
    start_server: Callable[..., Server], head: bytes
) -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        while True:  # until the client hangs up
            connection.sendall(b"x" * 65_536)

    assert result(url=start_server(answer).url)["body"] == "x" * 65_536


@pytest.mark.usefixtures("allowed")
def test_an_endless_head_is_not_read_to_its_end(start_server: Callable[..., Server]) -> None:
    def answer(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            connection.sendall(b"x" * 65_536)

    failure_of_attempt(url=start_server(answer).url)


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 410, 422])
def test_a_status_from_400_on_fails_the_job_for_good(
    start_server: Callable[..., Server], status: int
) -> None:
    server = start_server(
        f"HTTP/1.1 {status} No\r\nContent-Length: 1000\r\n\r\n".encode() + b"n" * 1000
    )
    assert failure_for_good(url=server.url) == f"{server.url} answered {status}: {'n' * 500}"


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 599])
def test_a_status_of_429_or_from_500_on_fails_the_attempt(
    start_server: Callable[..., Server], status: int
) -> None:
    server = start_server(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode())
    ended = failure_of_attempt(url=server.url)
    assert (ended.text, ended.delay) == (f"{server.url} answered {status}", None)


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [
        ("0", timedelta(0)),
        ("120", timedelta(seconds=120)),
        ("9" * 5000, timedelta(days=1)),
        ("Wed, 21 Oct 2015 07:28:00 GMT", timedelta(0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", timedelta(days=1)),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("\u00b2", None),
        ("", None),
    ],
)
def test_a_retry_after_says_when_the_attempt_that_follows_begins(
    start_server: Callable[..., Server], retry_after: str, delay: timedelta | None
) -> None:
    head = f"HTTP/1.1 503 No\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\n\r\n"
    server = start_server(head.encode("latin-1"))
    assert failure_of_attempt(url=server.url).delay == delay


@pytest.mark.usefixtures("allowed")
def test_a_retry_after_may_be_a_time(start_server: Callable[..., Server]) -> None:
    before = datetime.now(UTC)
    then = before + timedelta(hours=2)
    head = f"HTTP/1.1 429 No\r\nRetry-After: {format_datetime(then, usegmt=True)}\r\n"
    server = start_server(head.encode() + b"Content-Length: 0\r\n\r\n")
    delay = failure_of_attempt(url=server.url).delay
    assert delay is not None
    passed = datetime.now(UTC) - before
    assert then - passed - timedelta(seconds=1) <= before + delay <= then


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\0" * 100,
    ],
)
def test_an_answer_that_is_none_fails_the_attempt(
    start_server: Callable[..., Server], answer: bytes
) -> None:
    failure_of_attempt(url=start_server(answer).url)


@pytest.mark.usefixtures("allowed")
def test_a_server_that_is_away_fails_the_attempt() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "ConnectError" in failure_of_attempt(url=f"http://127.0.0.1:{port}/").text


@pytest.mark.usefixtures("allowed")
def test_a_server_that_speaks_no_tls_fails_the_attempt(
    start_server: Callable[..., Server],
) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    failure_of_attempt(url=start_server(serve).url.replace("http://", "https://"))


# Time


def silent(connection: socket.socket) -> None:
    """Take everything and say nothing, until the client hangs up."""
    while connection.recv(65_536):
        pass


def dripping(text: bytes) -> Serve:
    """Say one byte at a time, and never the last, until the client hangs up."""

    def serve(connection: socket.socket) -> None:
        connection.sendall(text)
        connection.settimeout(0.02)
        while True:
            connection.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                if not connection.recv(65_536):
                    return

    return serve


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize(
    ("scheme", "serve"),
    [
        ("http", silent),
        ("http", dripping(b"")),
        ("http", dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ")),
        ("http", dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")),
        ("https", silent),
        ("https", dripping(b"\x16\x03\x03\x40\x00")),
    ],
)
def test_an_answer_that_is_not_whole_in_time_fails_the_attempt(
    start_server: Callable[..., Server], scheme: str, serve: Serve
) -> None:
    url = start_server(serve).url.replace("http", scheme, 1)
    assert failure_of_attempt(url=url, timeout=0.3).text == "no answer within 0.3 seconds"


@pytest.mark.usefixtures("allowed")
def test_a_connection_is_closed_if_its_time_is_up_before_tls_begins(
    monkeypatch: pytest.MonkeyPatch, start_server: Callable[..., Server]
) -> None:
    connect = httpcore2.SyncBackend.connect_tcp
    opened: list[socket.socket] = []

    def connect_and_be_late(self: Any, *arguments: Any) -> httpcore2.NetworkStream:
        stream = connect(self, *arguments)
        opened.append(stream.get_extra_info("socket"))
        self._patience._deadline = 0.0
        return stream

    monkeypatch.setattr(httpcore2.SyncBackend, "connect_tcp", connect_and_be_late)
    url = start_server(silent).url.replace("http", "https", 1)
    assert failure_of_attempt(url=url, timeout=60).text == "no answer within 60 seconds"
    assert [one.fileno() for one in opened] == [-1]


@pytest.mark.usefixtures("allowed")
def test_a_server_that_does_not_take_the_request_in_time_fails_the_attempt(
    start_server: Callable[..., Server],
) -> None:
    is_over = threading.Event()
    url = start_server(lambda _: is_over.wait(60)).url
    try:
        ended = failure_of_attempt(url=url, method="POST", body="x" * 20_000_000, timeout=0.3)
    finally:
        is_over.set()
    assert ended.text == "no answer within 0.3 seconds"


@pytest.mark.usefixtures("allowed")
def test_a_request_ends_when_its_job_is_to_stop(
    monkeypatch: pytest.MonkeyPatch, start_server: Callable[..., Server]
) -> None:
    monkeypatch.setattr(builtin, "CHECK_SECONDS", 0.02)
    is_connected = threading.Event()

    def serve(connection: socket.socket) -> None:
        is_connected.set()
        silent(connection)

    run = run_of(url=start_server(serve).url, timeout=3600)
    with in_another_thread(lambda: outcome(run)) as ended:
        assert is_connected.wait(60)
        run.stop(Cancelled("stopped"))
        assert ended.result(timeout=60) == Outcome("release", "stopped")


# TLS


def test_a_certificate_that_nobody_vouches_for_fails_the_attempt(
    monkeypatch: pytest.MonkeyPatch, start_server: Callable[..., Server]
) -> None:
    monkeypatch.setenv("HTTP_REQUEST_ALLOW", "127.0.0.0/8")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.sendall(OK)

    server = start_server(serve)
    failure_of_attempt(url=server.url.replace("http://", "https://"))
