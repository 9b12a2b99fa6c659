"""The short way from a request with a body to its route.

FastAPI looks for all that any route could want, anew for each request: a third of what it took to
enqueue a job. Most of our routes want their body and a few things from the headers; these are read
here. A request that is not in order is left to FastAPI, which says what is wrong with it.
"""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import HTTPException, Request, Response
from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect

from api.access import CallerOf, caller_of
from api.idempotency import IdempotencyKey, idempotency_key_of
from api.preferences import Wait, wait_of

Arguments = dict[str, Any]

_READERS: dict[Any, Callable[[Request], Any]] = {
    Request: lambda request: request,
    CallerOf: caller_of,
    Wait: wait_of,
    IdempotencyKey: idempotency_key_of,
}
"""How to read what a parameter is annotated with. A ValueError says that it is not in order."""


def arguments_reader(
    route: Callable[..., Any], body: str
) -> Callable[[Request], Awaitable[Arguments | None]] | None:
    """Return what reads the arguments of a route, or None if the route needs FastAPI for more.

    body is the name of the parameter that the body is for. Of a request that is not in order, what
    is returned makes None.
    """
    signature = inspect.signature(route)
    parameters = dict(signature.parameters)
    validate = TypeAdapter(parameters.pop(body).annotation).validate_python
    is_known = all(parameter.annotation in _READERS for parameter in parameters.values())
    if not is_known or signature.return_annotation is not Response:
        return None
    readers = [(name, _READERS[parameter.annotation]) for name, parameter in parameters.items()]

    async def read(request: Request) -> Arguments | None:
        if not _is_json(request) or not await _has_body(request):
            return None
        content = await request.json()
        try:
            arguments = {name: value_of(request) for name, value_of in readers}
            arguments[body] = validate(content)
        except ValueError:
            return None
        return arguments

    return read


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("Content-Type", "").partition(";")[0]
    return media_type.strip().lower() == "application/json"


async def _has_body(request: Request) -> bool:
    try:
        return bool(await request.body())
    except ClientDisconnect:
        raise HTTPException(400, "The body ended before its time.") from None
