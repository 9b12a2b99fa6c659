"""What all routes share: strict JSON, responses made by Postgres, and the statuses of errors."""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from typing import Any

import pydantic_core
from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from api import errors
from api.models import ProblemDetails
from api.routes.arguments import arguments_reader

UTC = """to_char({} at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
"""SQL that writes a time in RFC 3339, whatever the session's time zone and date style."""


class JsonRequest(Request):
    """A request with a strict json method."""

    async def json(self) -> Any:
        """Parse the body strictly: NaN, lone surrogates and endless numbers are not JSON."""
        if not hasattr(self, "_json"):
            try:
                self._json = pydantic_core.from_json(await self.body(), allow_inf_nan=False)
            except ValueError as error:
                raise HTTPException(422, f"body: not JSON: {error}") from None
        return self._json


class JsonRoute(APIRoute):
    """A route that parses bodies strictly, or in the way of another request_class."""

    request_class: type[Request] = JsonRequest

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Hand the route, or FastAPI's handler, a request with a json method of its own."""
        handle = super().get_route_handler()
        read = arguments_reader(self.endpoint, self.body_field.name) if self.body_field else None

        async def handle_json(request: Request) -> Response:
            request = self.request_class(request.scope, request.receive)
            if read is not None and (arguments := await read(request)) is not None:
                response: Response = await self.endpoint(**arguments)
                return response
            return await handle(request)

        return handle_json


class JsonResponse(Response):
    """JSON that Postgres has made."""

    media_type = "application/json"


def json_array(rows: Iterable[str]) -> str:
    """Join rows of JSON to an array of them."""
    return "[" + ",\n".join(rows) + "]"


async def json_array_in_pages(
    first: list[str], pages: AsyncIterator[list[str]]
) -> AsyncIterator[str]:
    """Write an array page by page."""
    yield "[" + ",\n".join(first)
    async for page in pages:
        if page:
            yield ",\n" + ",\n".join(page)
    yield "]"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors of a route, besides those that any route can have."""
    return {
        status: {
            "model": ProblemDetails,
            "description": "; ".join(
                kind.title for kind in errors.KINDS.values() if kind.status == status
            ),
        }
        for status in sorted({*statuses, 401, 403, 422, 429, 503})
    }
