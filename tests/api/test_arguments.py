"""The short way to a route: whoever takes it cannot tell it from FastAPI's."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.testclient import TestClient

from api import errors
from api.access import CallerOf
from api.idempotency import IdempotencyKey
from api.models import NewJob
from api.preferences import Wait
from api.routes.arguments import arguments_reader
from api.routes.common import JsonResponse, JsonRoute
from api.settings import Settings

router = APIRouter(route_class=JsonRoute)


@router.post("/short")
async def short(
    new_job: NewJob,
    request: Request,
    caller: CallerOf,
    wait: Wait,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Say what arrived."""
    return Response(f"{new_job!r} {request.url.query} {caller.key} {wait} {idempotency_key}")


@router.post("/long", response_model=None)
async def long(
    new_job: NewJob,
    request: Request,
    caller: CallerOf,
    wait: Wait,
    idempotency_key: IdempotencyKey = None,
) -> JsonResponse | Response:
    """Say it too, called by FastAPI."""
    return await short(new_job, request, caller, wait, idempotency_key)


@pytest.fixture(params=[False, True], ids=["without keys", "with keys"])
def api(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """A client of both routes, with no database behind them."""
    app = FastAPI(max_body_size=1000)
    app.include_router(router)
    errors.install(app)
    app.state.settings = Settings("", require_key=request.param)
    app.state.database = None
    with TestClient(app) as client:
        yield client


KEY = f"jq_{'1' * 12}_{'2' * 64}"
JSON = {"Content-Type": "application/json"}

REQUESTS: list[tuple[bytes, dict[str, str]]] = [
    *((b'{"message": "hi", "run_at": "2026-01-02T03:04:05Z"}', headers) for headers in (
        JSON,
        {},
        {"Content-Type": "Application/JSON ; charset=utf-8"},
        {"Content-Type": "application/problem+json"},
        {"Content-Type": "text/plain"},
        {"Content-Type": ""},
        JSON | {"Authorization": f"Bearer {KEY}"},
        JSON | {"Authorization": f"bEARER  {KEY} "},
        JSON | {"Authorization": f"Basic {KEY}"},
        JSON | {"Authorization": f"Basic {KEY}", "X-API-Key": KEY},
        JSON | {"Authorization": "Bearer", "X-API-Key": KEY},
        JSON | {"Authorization": "Bearer wrong", "X-API-Key": KEY},
        JSON | {"Authorization": ""},
        JSON | {"X-API-Key": KEY},
        JSON | {"X-API-Key": "wrong"},
        JSON | {"X-API-Key": ""},
        JSON | {"Prefer": "wait=5"},
        JSON | {"Prefer": "respond-async, wait=999"},
        JSON | {"Prefer": "wait=soon"},
        JSON | {"Idempotency-Key": '"a \\" key"'},
        JSON | {"Idempotency-Key": "bare"},
        JSON | {"Idempotency-Key": '"open'},
        JSON | {"Idempotency-Key": "two\twords"},
        JSON | {"Idempotency-Key": ""},
    )),
    *((body, JSON) for body in (
        b"",
        b" ",
        b"{}",
        b"[]",
        b"null",
        b"3",
        b"{",
        b'{"message": NaN}',
        b'{"message": "\\ud800"}',
        b"\xff",
        b'{"message": 1, "priority": 7, "unknown": 0}',
        b'{"priority": 1.0, "payload": null}',
        b'{"sleep_seconds": "3"}',
        b'{"message": "' + b"x" * 1000 + b'"}',
    )),
    (b"{", JSON | {"X-API-Key": "wrong"}),
    (b"[]", JSON | {"X-API-Key": "wrong"}),
    (b"[]", JSON | {"Idempotency-Key": ""}),
]  # fmt: skip


@pytest.mark.parametrize(("body", "headers"), REQUESTS)
def test_both_ways_answer_alike(api: TestClient, body: bytes, headers: dict[str, str]) -> None:
    def answer(path: str, content: Any) -> tuple[int, str, list[tuple[str, str]]]:
        response = api.post(f"{path}?query", content=content, headers=headers)
        kept = [header for header in response.headers.items() if header[0] != "date"]
        return response.status_code, response.text, kept

    assert answer("/short", body) == answer("/long", body)
    assert answer("/short", iter([body])) == answer("/long", iter([body]))


def test_the_routes_of_that_test_take_the_two_ways() -> None:
    assert arguments_reader(short, "new_job")
    assert not arguments_reader(long, "new_job")
