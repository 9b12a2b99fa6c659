"""The handlers that every worker has."""

import contextlib
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import httpcore2
from pydantic import Field

from worker.context import Context
from worker.outcomes import Fail, Retry
from worker.registry import handler
from worker.settings import Network, Settings

LONGEST_BODY = 65_536
"""How much of a response's body the result keeps, in bytes."""

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""IPv6 addresses that stand for IPv4 ones (RFC 6052)."""

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is in public use of IPv6 (RFC 4291). Python's is_global knows some exceptions only."""

LONGEST_WAIT = 86_400
"""Seconds of a Retry-After that are heeded, at most."""

CHECK_SECONDS = 1.0
"""How often to look, while an answer is awaited, whether the job is to stop."""

WRITE_SIZE = 16_384
"""How much of a request is sent at a time, in bytes."""


@handler("sleep")
def sleep(context: Context) -> dict[str, Any]:
    """Sleep for the job's sleep_seconds and echo its message."""
    job = context.job
    context.sleep(job.sleep_seconds)
    return {"slept_seconds": job.sleep_seconds, "message": job.message}


@handler("http_request")
def http_request(
    context: Context,
    url: str,
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET",
    headers: dict[str, str] | None = None,
    body: Any = None,
    timeout: Annotated[float, Field(gt=0, le=3600)] = 30.0,
) -> dict[str, Any]:
    """Send an HTTP request; return the response's status, headers and text.

    A body that is no text is sent as JSON. The job's id goes along as Idempotency-Key, since a job
    may run more than once. A status of 429 or 5xx, or no answer within `timeout` seconds, fails the
    attempt; any other from 400 on, and a bad or forbidden URL, the job. Redirects are not followed.
    """
    content = body.encode() if isinstance(body, str) else None
    defaults = {"Idempotency-Key": str(context.job.id)}
    if content is None and body is not None:
        content = json.dumps(body).encode()
        defaults["Content-Type"] = "application/json"
    given = {name.lower() for name in headers or {}}
    if framing := given & {"content-length", "transfer-encoding"}:
        raise Fail(f"the request cannot be made: {framing.pop()} is not for the job to say")
    sent_headers = {name: text for name, text in defaults.items() if name.lower() not in given}
    sent_headers |= headers or {}
    if not url.lower().startswith(("http://", "https://")):
        raise Fail("the request cannot be made: the URL does not begin with http:// or https://")
    allowed = Settings.from_environment().internal_networks
    backend = _PublicNetwork(allowed, _Patience(context, timeout))
    try:
        with (
            httpcore2.ConnectionPool(network_backend=backend) as pool,
            pool.stream(
                method, url, headers=list(sent_headers.items()), content=content
            ) as response,
        ):
            text = _read(response.iter_stream())
            status = response.status
            received = {
                name.decode("latin-1").lower(): value.decode("latin-1")
                for name, value in response.headers
            }
    except httpcore2.TimeoutException:
        raise Retry(error=f"no answer within {timeout:g} seconds") from None
    except (httpcore2.NetworkError, httpcore2.RemoteProtocolError) as error:
        raise Retry(error=f"{type(error).__name__}: {error}") from None
    except (httpcore2.LocalProtocolError, TypeError, ValueError) as error:
        raise Fail(f"the request cannot be made: {error}") from None
    if status == 429 or status >= 500:
        raise Retry(
            _seconds(received.get("retry-after", "")), error=f"{_shown(url)} answered {status}"
        )
    if status >= 400:
        raise Fail(f"{_shown(url)} answered {status}: {text[:500]}")
    return {"status": status, "headers": received, "body": text}


def _shown(url: str) -> str:
    """Return the URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _read(stream: Iterable[bytes]) -> str:
    body = b""
    for part in stream:
        body += part
        if len(body) >= LONGEST_BODY:
            break
    return body[:LONGEST_BODY].decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _seconds(retry_after: str) -> float | None:
    """Return the seconds that a Retry-After names (RFC 9110, 10.2.3); None if it is no such."""
    if retry_after.isascii() and retry_after.isdecimal():
        return float(min(int(retry_after[:9]), LONGEST_WAIT))
    try:
        time_then = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return min(max(time_then.timestamp() - time.time(), 0.0), LONGEST_WAIT)


class _Patience:
    """How long a request may still take: so many seconds, and no longer than the job may run."""

    def __init__(self, context: Context, seconds: float) -> None:
        self._context = context
        self._deadline = time.monotonic() + seconds

    def seconds_left(self) -> float:
        """Return more than 0. Raises ReadTimeout, or what check() of the context does."""
        self._context.check()
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise httpcore2.ReadTimeout("out of time")
        return seconds


class _PatientStream(httpcore2.NetworkStream):
    """A stream of which all reads and writes together end in time, however little each brings."""

    def __init__(self, stream: httpcore2.NetworkStream, patience: _Patience) -> None:
        self._stream = stream
        self._patience = patience

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        while True:
            seconds = min(self._patience.seconds_left(), CHECK_SECONDS)
            with contextlib.suppress(httpcore2.ReadTimeout):
                return self._stream.read(max_bytes, seconds)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), WRITE_SIZE):
            seconds = self._patience.seconds_left()
            self._stream.write(buffer[start : start + WRITE_SIZE], seconds)

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        try:
            seconds = self._patience.seconds_left()
        except BaseException:
            self.close()  # which is for whoever could not start it
            raise
        stream = self._stream.start_tls(ssl_context, server_hostname, seconds)
        return _PatientStream(stream, self._patience)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _PublicNetwork(httpcore2.SyncBackend):
    """Connects to addresses of the public Internet only, and to networks that are allowed.

    The address that is checked is the one that is connected to, so that a name which resolves to
    another the next time gains nothing (DNS rebinding).
    """

    def __init__(self, allowed: Iterable[Network], patience: _Patience) -> None:
        self._allowed = tuple(allowed)
        self._patience = patience

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        if not host:
            raise Fail("the request cannot be made: the URL names no host")
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore2.ConnectError(f"{host}: {error}") from None
        addresses = [str(address[0]) for *_, address in found]
        reason: Exception = Fail(f"{host} is not public: {', '.join(addresses)}")
        for address in filter(self._may_reach, addresses):
            try:
                seconds = self._patience.seconds_left()
                stream = super().connect_tcp(address, port, seconds, local_address, socket_options)
                return _PatientStream(stream, self._patience)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                reason = error
        raise reason

    def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.NetworkStream:
        raise Fail("a Unix socket is not public")

    def _may_reach(self, text: str) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        if any(address in network for network in self._allowed):
            return True
        if isinstance(address, ipaddress.IPv6Address):
            if address in NAT64:
                address = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
            else:
                address = address.ipv4_mapped or address.sixtofour or address
        if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_UNICAST:
            return False
        return address.is_global and not address.is_multicast
