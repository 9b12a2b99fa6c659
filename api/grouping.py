"""Enqueue what comes at the same time in one call of the database."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import psycopg

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

MAX_FLIGHTS = 2
"""How many calls are under way at a time. What comes meanwhile shares the next."""
MAX_GROUP = 200
"""How many items one call may have."""


class Grouping(Generic[Item, Outcome]):
    """Hands items to a call, alone while there are few, together while there are many.

    Nobody waits for others to come: an item that finds no call under way is handed on at once.
    """

    def __init__(
        self,
        call: Callable[[list[Item]], Awaitable[list[Outcome]]],
        kind: Callable[[Item], object] = lambda _: None,
    ) -> None:
        """Only items of one kind share a call."""
        self._call = call
        self._kind = kind
        self._flights = 0
        self._waiting: deque[tuple[Item, asyncio.Future[Outcome]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, item: Item) -> Outcome:
        """Return what the call makes of this item, or raise what it raises."""
        if self._flights < MAX_FLIGHTS:
            self._flights += 1
            try:
                [outcome] = await self._call([item])
                return outcome
            finally:
                self._land()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        return await future

    def _land(self) -> None:
        self._flights -= 1
        group: list[tuple[Item, asyncio.Future[Outcome]]] = []
        others: list[tuple[Item, asyncio.Future[Outcome]]] = []
        while self._waiting and len(group) < MAX_GROUP:
            item, future = self._waiting.popleft()
            if future.cancelled():
                continue
            is_like_the_first = not group or self._kind(item) == self._kind(group[0][0])
            (group if is_like_the_first else others).append((item, future))
        self._waiting.extendleft(reversed(others))
        if group:
            self._flights += 1
            task = asyncio.create_task(self._fly(group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _fly(self, group: list[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await self._call([item for item, _ in group])
        except (psycopg.Error, TimeoutError) as error:
            if len(group) > 1 and _is_refusal(error):
                await self._one_by_one(group)
            else:
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
        else:
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)
        finally:
            self._land()

    async def _one_by_one(self, group: list[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        """Find out which item was refused: that call changed nothing."""
        for item, future in group:
            try:
                [outcome] = await self._call([item])
            except (psycopg.Error, TimeoutError) as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(outcome)


def _is_refusal(error: Exception) -> bool:
    """Tell a call that the database answered with an error from one whose outcome is unknown."""
    return isinstance(error, psycopg.Error) and not isinstance(error, psycopg.OperationalError)
