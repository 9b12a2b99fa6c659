"""Jobs that are asked for at the same time are enqueued together, and stay apart all the same."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from api.grouping import MAX_FLIGHTS, MAX_GROUP, Grouping
from tests.support import Connection, eventually, value


class Calls:
    """A call that is answered when the test says so, and the groups that it was made with."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.answers: list[asyncio.Future[list[int]]] = []
        self.refused: set[int] = set()

    async def __call__(self, items: list[int]) -> list[int]:
        self.groups.append(items)
        answer: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        await answer
        if self.refused & set(items):
            raise psycopg.errors.InvalidTextRepresentation("refused")
        return [-item for item in items]

    def answer_all(self) -> None:
        for answer in self.answers:
            if not answer.done():
                answer.set_result([])


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def many(calls: Calls, count: int) -> list[asyncio.Task[int]]:
    grouping = Grouping(calls)
    tasks = [asyncio.create_task(grouping(number)) for number in range(1, count + 1)]
    await settle()
    return tasks


async def answer_until_done(calls: Calls, tasks: list[asyncio.Task[int]]) -> None:
    while not all(task.done() for task in tasks):
        calls.answer_all()
        await settle()


def test_what_finds_no_call_under_way_is_handed_on_alone_and_at_once() -> None:
    async def scenario() -> None:
        calls = Calls()
        [task] = await many(calls, 1)
        assert calls.groups == [[1]]
        calls.answer_all()
        assert await task == -1

    asyncio.run(scenario())


def test_what_comes_meanwhile_shares_the_next_call_and_each_gets_its_own_answer() -> None:
    async def scenario() -> None:
        calls = Calls()
        tasks = await many(calls, MAX_FLIGHTS + 5)
        assert [len(group) for group in calls.groups] == [1] * MAX_FLIGHTS
        calls.answers[0].set_result([])
        await settle()
        assert len(calls.groups[-1]) == 5
        await answer_until_done(calls, tasks)
        assert [task.result() for task in tasks] == [-n for n in range(1, MAX_FLIGHTS + 6)]

    asyncio.run(scenario())


def test_a_group_has_its_limit() -> None:
    async def scenario() -> None:
        calls = Calls()
        tasks = await many(calls, MAX_FLIGHTS + MAX_GROUP + 1)
        await answer_until_done(calls, tasks)
        assert max(len(group) for group in calls.groups) == MAX_GROUP
        assert sum(len(group) for group in calls.groups) == len(tasks)

    asyncio.run(scenario())


def test_one_that_is_refused_spoils_only_its_own() -> None:
    async def scenario() -> None:
        calls = Calls()
        calls.refused = {MAX_FLIGHTS + 2}
        tasks = await many(calls, MAX_FLIGHTS + 3)
        await answer_until_done(calls, tasks)
        refused = [number for number, task in enumerate(tasks, 1) if task.exception()]
        assert refused == [MAX_FLIGHTS + 2]

    asyncio.run(scenario())


def test_a_call_of_unknown_outcome_is_not_made_again() -> None:
    async def scenario() -> None:
        calls = Calls()
        tasks = await many(calls, MAX_FLIGHTS + 3)
        calls.answers[0].set_result([])
        await settle()
        calls.answers[-1].set_exception(psycopg.OperationalError("the connection is lost"))
        await answer_until_done(calls, tasks)
        assert [bool(task.exception()) for task in tasks] == [False] * MAX_FLIGHTS + [True] * 3
        assert len(calls.groups) == MAX_FLIGHTS + 1

    asyncio.run(scenario())


def test_who_hangs_up_while_waiting_is_left_out() -> None:
    async def scenario() -> None:
        calls = Calls()
        tasks = await many(calls, MAX_FLIGHTS + 2)
        tasks[-1].cancel()
        await settle()
        await answer_until_done(calls, tasks)
        assert calls.groups[-1] == [MAX_FLIGHTS + 1]

    asyncio.run(scenario())


def test_only_items_of_one_kind_share_a_call_and_keep_their_order() -> None:
    async def scenario() -> None:
        calls = Calls()
        grouping = Grouping(calls, kind=lambda item: item % 2)
        tasks = [asyncio.create_task(grouping(number)) for number in range(MAX_FLIGHTS + 6)]
        await settle()
        await answer_until_done(calls, tasks)
        assert calls.groups[MAX_FLIGHTS:] == [[2, 4, 6], [3, 5, 7]]

    assert MAX_FLIGHTS == 2
    asyncio.run(scenario())


@pytest.mark.parametrize("spoilt", [False, True])
def test_requests_of_one_moment_are_enqueued_together_or_if_need_be_alone(
    api: TestClient, db: Connection, connect: Callable[[], Connection], spoilt: bool
) -> None:
    blocker = connect()
    bodies = [{"message": f"{number}"} for number in range(10)]
    bodies += [{"message": "spoilt", "payload": "\0"}] if spoilt else []
    with ThreadPoolExecutor(20) as executor:
        with blocker.transaction():
            blocker.execute("lock table jobs")
            first = [executor.submit(api.post, "/jobs", json={}) for _ in range(MAX_FLIGHTS)]
            eventually(lambda: value(db, "select count(*) = 2 from pg_locks where not granted"))
            rest = [executor.submit(api.post, "/jobs", json=body) for body in bodies]
            eventually(lambda: len(api.app.state.enqueue._waiting) == len(bodies))  # type: ignore[attr-defined]
        assert [response.result().status_code for response in first] == [201, 201]
        statuses = [response.result().status_code for response in rest]
    assert statuses == [201] * 10 + ([422] if spoilt else [])
    for response, body in zip(rest, bodies[:10], strict=False):
        assert response.result().json()["message"] == body["message"]
    assert value(db, "select count(*) from jobs") == MAX_FLIGHTS + 10


def post(executor: ThreadPoolExecutor, api: TestClient, headers: dict[str, str]) -> Future[Any]:
    return executor.submit(api.post, "/jobs", json={}, headers=headers)


@pytest.mark.parametrize(("limit", "created"), [(21, 12), (6, 5)])
def test_each_job_of_a_group_counts_for_the_rate_limit_of_its_key(
    api: TestClient,
    db: Connection,
    connect: Callable[[], Connection],
    limit: int,
    created: int,
) -> None:
    key = value(
        db,
        "select api_key from create_api_key('k', '{client}', p_rate_limit => %s,"
        " p_rate_period => '10 days')",
        limit,
    )
    headers = {"Authorization": f"Bearer {key}"}
    api.get("/jobs", headers=headers)  # the first ever, which sets the clock
    blocker = connect()
    with ThreadPoolExecutor(20) as executor:
        with blocker.transaction():
            blocker.execute("lock table jobs")
            first = [post(executor, api, headers) for _ in range(MAX_FLIGHTS)]
            eventually(lambda: value(db, "select count(*) = 2 from pg_locks where not granted"))
            rest = [post(executor, api, headers) for _ in range(10)]
            stranger = post(executor, api, {})
            waiting = api.app.state.enqueue._waiting  # type: ignore[attr-defined]
            eventually(lambda: len(waiting) == 11)
        responses = [response.result() for response in [*first, *rest]]
    statuses = [response.status_code for response in responses]
    assert sorted(statuses) == [201] * created + [429] * (12 - created)
    assert stranger.result().status_code == 201
    assert "RateLimit" not in stranger.result().headers
    assert value(db, "select count(*) from jobs") == created + 1
    left = re.search(r"r=(\d+)", api.get("/jobs", headers=headers).headers.get("RateLimit", "r=0"))
    assert left is not None
    assert int(left[1]) == max(0, limit - 14)
