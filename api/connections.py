"""The HTTP connections of clients: uvicorn's, with bounds to how long a client may take.

`uvicorn --http api.connections:Connection api.main:app`. Uvicorn itself bounds only how long a
connection may idle between two requests: who never finishes a request, or takes no answer, would
keep one for ever.
"""

import asyncio
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from api.errors import problem
from api.settings import Settings

TIMEOUT = Settings.from_environment().client_timeout

PART = 64 * 1024
"""How many bytes of a body have to come within the timeout."""


class Connection(H11Protocol):
    """Speaks HTTP/1.1 with one client, who has to get on with it.

    The head of a request, each part of its body, and anything of the response that waits to be sent
    have to move within the timeout. For how long the API itself takes, nobody is blamed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._awaited: object = None
        self._received = 0
        self._reading: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the head of a request."""
        super().connection_made(transport)
        self._watch_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        for timer in (self._reading, self._writing):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sends."""
        self._received += len(data)
        super().data_received(data)
        self._watch_reading()

    def on_response_complete(self) -> None:
        """Turn to the next request, which may have come already."""
        super().on_response_complete()
        self._watch_reading()
        self._watch_writing()

    def pause_writing(self) -> None:
        """Let the application wait until the client has taken more."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """Let the application go on."""
        super().resume_writing()
        if self._writing is not None:
            self._writing.cancel()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, unless an answer is under way already."""
        if self.cycle is not None:
            self.cycle.disconnected = True  # what the application has to say is not sent
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = problem("bad-request", "This is not a request of HTTP/1.1 (RFC 9112).")
            headers = [*response.raw_headers, (b"connection", b"close")]
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _watch_reading(self) -> None:
        awaited: object = self.conn.their_state
        is_idle = awaited is h11.IDLE and self.timeout_keep_alive_task is not None
        if awaited not in (h11.IDLE, h11.SEND_BODY) or is_idle:
            awaited = None  # nothing, or the next request, for which uvicorn itself waits
        is_a_part = self._received >= PART and self.conn.our_state is not h11.DONE
        if awaited is self._awaited and not (awaited is h11.SEND_BODY and is_a_part):
            return  # the rest of a body that has been answered without it has to come within one
        self._awaited, self._received = awaited, 0
        if self._reading is not None:
            self._reading.cancel()
        if awaited is not None:
            self._reading = self.loop.call_later(TIMEOUT, self._end_reading)

    def _end_reading(self) -> None:
        if self.flow.read_paused:  # it is the application that does not take the body
            self._reading = self.loop.call_later(TIMEOUT, self._end_reading)
        else:
            self.transport.close()
            self._watch_writing()

    def _watch_writing(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
        self._unsent = self.transport.get_write_buffer_size()
        if self._unsent:
            self._writing = self.loop.call_later(TIMEOUT, self._end_writing)

    def _end_writing(self) -> None:
        if self.transport.get_write_buffer_size() < self._unsent:
            self._watch_writing()
        else:
            self.transport.abort()


class OneLength:
    """Refuses a request that tells its length in two ways, and ends its connection (RFC 9112, 6.1).

    A proxy before this server may go by the other: what it takes for a body would be another
    request here, smuggled past it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        app = self._app
        if scope["type"] == "http":
            names = {name for name, _ in scope["headers"]}
            if b"transfer-encoding" in names and (
                b"content-length" in names or scope["http_version"] == "1.0"
            ):
                app = problem(
                    "bad-request",
                    "Send Transfer-Encoding alone, and with HTTP/1.1.",
                    {"Connection": "close"},
                )
        await app(scope, receive, send)
