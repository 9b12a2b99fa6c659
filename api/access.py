"""Who asks: the API key of a request. What the key may do is for the database to say."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.database import NOTHING, Concerns, Database, Key, RateLimit, Rows
from api.errors import Problem

_KEY = re.compile(r"jq_([0-9a-f]{12})_[0-9a-f]{64}")

_bearer = HTTPBearer(
    auto_error=False, scheme_name="ApiKey", description="An API key, as create_api_key made it."
)
_header = APIKeyHeader(
    name="X-API-Key",
    auto_error=False,
    scheme_name="ApiKeyHeader",
    description="The same in a header of its own.",
)


@dataclass
class Caller:
    """One request's way to the database: its calls run with the rights of its API key."""

    database: Database
    key: Key | None
    rate_limit: RateLimit | None = None

    async def call(
        self,
        function: str,
        query: str,
        parameters: Mapping[str, Any] | None = None,
        concerns: Concerns = NOTHING,
    ) -> Rows:
        """Run a query that calls this function of the queue, and return its rows."""
        answer = await self.database.call(function, query, parameters or {}, self.key, concerns)
        self.rate_limit = answer.rate_limit
        return answer.rows


def caller_of(request: Request) -> Caller:
    """Return whose request it is: by its key or, where none is needed, nobody in particular."""
    caller = Caller(request.app.state.database, None)
    headers = request.headers
    if "Authorization" in headers or "X-API-Key" in headers:  # a key to show, however malformed
        scheme, bearer = get_authorization_scheme_param(headers.get("Authorization"))
        is_bearer = scheme.lower() == "bearer" and bearer
        caller.key = _key(bearer if is_bearer else headers.get("X-API-Key", ""))
    elif request.app.state.settings.require_key:
        raise Problem(
            "unauthenticated", "This API needs a key. Send it as Authorization: Bearer <key>."
        )
    request.state.caller = caller
    return caller


def _key(text: str) -> Key:
    """Return what the database is to know of a key. The key itself never leaves this process."""
    match = _KEY.fullmatch(text)
    if match is None:
        raise Problem("unauthenticated", "The API key is not valid.")
    return Key(match[1], hashlib.sha256(text.encode()).digest())


async def _caller(
    request: Request,
    bearer: Annotated[Any, Depends(_bearer)],
    header: Annotated[str | None, Depends(_header)],
) -> Caller:
    """Tell FastAPI of both ways to send a key."""
    return caller_of(request)


CallerOf = Annotated[Caller, Depends(_caller)]


class RateLimitHeaders:
    """Say in each response how the rate limit of its key stands.

    The headers are those of draft-ietf-httpapi-ratelimit-headers-10.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})  # what request.state shows

        async def send_with_headers(message: Message) -> None:
            caller = state.get("caller")
            if message["type"] == "http.response.start" and caller and caller.rate_limit:
                MutableHeaders(scope=message).update(_rate_limit_headers(caller.rate_limit))
            await send(message)

        await self._app(scope, receive, send_with_headers)


def _rate_limit_headers(limit: RateLimit) -> dict[str, str]:
    return {
        "RateLimit-Policy": f'"key";q={limit.limit};w={math.ceil(limit.period)}',
        "RateLimit": f'"key";r={limit.remaining};t={math.ceil(limit.reset)}',
    }
