"""What is done to every request and response: ids, logs, metrics, and headers for browsers."""

import logging
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import logs, metrics
from api.errors import problem

logger = logging.getLogger("api.access")

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")

_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
"""What every response has, unless its route says otherwise."""

_PROBES = {"/health", "/livez", "/readyz"}
"""Routes asked every few seconds: only when they fail is it more than a detail."""


class Application(FastAPI):
    """FastAPI with our middleware around all of it.

    Added in FastAPI's way, middleware would not see the answer to a fault: that is made further
    outside.
    """

    def __init__(self, cors_origins: Sequence[str], max_body_size: int, **options: Any) -> None:
        super().__init__(max_body_size=max_body_size, **options)
        app: ASGIApp = _BodyLimit(super().__call__, max_body_size)
        if cors_origins:
            app = _cors(app, cors_origins)
        self._outermost = _Outermost(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve, as ASGI has it."""
        await self._outermost(scope, receive, send)


def _cors(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        allow_headers=[
            "Authorization",
            "Content-Type",
            "Idempotency-Key",
            "Last-Event-ID",
            "Prefer",
            "Traceparent",
            "Tracestate",
            "X-API-Key",
            "X-Request-ID",
        ],
        expose_headers=[
            "Idempotent-Replayed",
            "Link",
            "Location",
            "Preference-Applied",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
            "X-Request-ID",
        ],
    )


class _BodyLimit:
    """Refuses a body that is said to be too large.

    FastAPI does so too, but in plain text. The others, which come in chunks, it can have.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.app
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"content-length" and value.isdigit() and int(value[:20]) > self._limit:
                    app = problem("too-large", f"A body may have {self._limit} bytes at most.")
        await app(scope, receive, send)


class _Outermost:
    """Sees each request first, and its response last."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        # Never reset: a fault that leaves here is logged by the server, in the same task.
        logs.current_request_id.set(request_id)
        scope.setdefault("state", {})
        id_header = (b"x-request-id", request_id.encode())
        status, length = 500, 0

        async def send_on(message: Message) -> None:
            nonlocal status, length
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), id_header]
                names = {name for name, _ in headers}
                headers += [header for header in _HEADERS if header[0] not in names]
                message = {**message, "headers": headers}
            elif message["type"] == "http.response.body":
                length += len(message.get("body", b""))
            await send(message)

        started = time.perf_counter()
        metrics.IN_PROGRESS.inc()
        try:
            await self.app(scope, receive, send_on)
        finally:
            metrics.IN_PROGRESS.dec()
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path_format", None)
            metrics.observe_request(scope["method"], route, status, seconds)
            _log(scope, route, status, seconds, length)


def _request_id(scope: Scope) -> str:
    """Return the id that the client has given the request, if it is one, or else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            if _REQUEST_ID.fullmatch(value):
                return str(value.decode())
            break
    return str(uuid.uuid4())


def _log(scope: Scope, route: str | None, status: int, seconds: float, length: int) -> None:
    level = logging.DEBUG if route in _PROBES and status == 200 else logging.INFO
    if not logger.isEnabledFor(level):
        return
    path = logs.escaped((scope.get("raw_path") or scope["path"].encode()).decode("latin-1"))
    client = logs.escaped(scope["client"][0]) if scope.get("client") else "-"
    method = logs.escaped(scope["method"])
    key = getattr(scope["state"].get("caller"), "key", None)
    logger.log(
        level,
        "%s %s %d in %.1f ms, %d bytes to %s",
        method,
        path,
        status,
        seconds * 1000,
        length,
        client,
        extra={
            "method": method,
            "path": path,
            "route": route,
            "status": status,
            "duration_seconds": round(seconds, 6),
            "bytes": length,
            "client": client,
            "key_id": key and key.key_id,
        },
    )
