"""Whether the client of a request is still there."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request


@asynccontextmanager
async def departure_of(request: Request) -> AsyncIterator[asyncio.Task[None]]:
    """Yield a task that is done once the client has gone. The body must have been read before."""
    task = asyncio.create_task(_departure(request))
    try:
        yield task
    finally:
        task.cancel()


async def _departure(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def first_of(seconds: float, *waits: asyncio.Future[Any] | Coroutine[Any, Any, Any]) -> None:
    """Wait until one of them is done, for so many seconds at most; drop the coroutines."""
    own = [asyncio.create_task(wait) for wait in waits if asyncio.iscoroutine(wait)]
    futures = [wait for wait in waits if isinstance(wait, asyncio.Future)]
    try:
        await asyncio.wait([*own, *futures], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in own:
            task.cancel()
