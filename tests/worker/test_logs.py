"""What the worker logs: whom its lines are about, how they look, and what they never show."""

import asyncio
import contextlib
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support import Connection, enqueue
from tests.worker.runs import JOB_ID, a_run
from worker import logs, main, registry
from worker.calls import call, call_async
from worker.children import Children
from worker.registry import Handler, handler
from worker.settings import Settings

CONTEXT: Any = None

logger = logging.getLogger("handlers")


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    """Give pytest its logging back."""
    root, pools = logging.getLogger(), logging.getLogger("psycopg.pool")
    before = root.handlers[:], root.level, pools.level
    root.handlers.clear()
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    pools.setLevel(before[2])


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Handler]:
    """The handlers of a test."""
    monkeypatch.setattr(registry, "_handlers", {})
    return registry._handlers


def configure(log_format: str, level: str = "info") -> None:
    """Log as a worker with this format does."""
    environment = {"WORKER_LOG_FORMAT": log_format, "WORKER_LOG_LEVEL": level}
    logs.configure(Settings.from_environment(environment))


Lines = Callable[[], list[Any]]


@pytest.fixture
def text_lines() -> Lines:
    """What has been logged, as lines of text."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        configure("text")
    return lambda: stderr.getvalue().splitlines()


@pytest.fixture
def json_lines() -> Lines:
    """What has been logged, each line read as JSON."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        configure("json")
    return lambda: [json.loads(line) for line in stderr.getvalue().splitlines()]


IDS = {
    "job_id": str(JOB_ID),
    "claim_id": 7,
    "attempt": 1,
    "job_type": "say",
    "queue": "default",
}


def ids_in(line: dict[str, Any]) -> dict[str, Any]:
    """Return the ids that a line of JSON carries."""
    return {name: line[name] for name in IDS if name in line}


def test_a_line_of_json_tells_when_how_grave_from_where_and_what(json_lines: Lines) -> None:
    logger.warning("%d %s", 3, "mice \u20ac\n")
    [line] = json_lines()
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is not None
    assert line == {"level": "WARNING", "logger": "handlers", "message": "3 mice \u20ac\n"}


def test_a_line_of_text_tells_when_how_grave_and_what(text_lines: Lines) -> None:
    logger.warning("%d %s", 3, "mice")
    [line] = text_lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING 3 mice", line)


def test_what_a_handler_logs_carries_the_ids_of_its_run(
    json_lines: Lines, handlers: dict[str, Handler]
) -> None:
    @handler("say")
    def say() -> None:
        logger.info("inside")

    logger.info("before")
    call(handlers["say"], a_run("say"), CONTEXT)
    logger.info("after")
    assert [(line["message"], ids_in(line)) for line in json_lines()] == [
        ("before", {}),
        ("inside", IDS),
        ("after", {}),
    ]


def test_in_text_it_does_at_the_end_of_the_first_line(
    text_lines: Lines, handlers: dict[str, Handler]
) -> None:
    @handler("say")
    def say() -> None:
        logger.info("one\ntwo")

    call(handlers["say"], a_run("say", attempt=2), CONTEXT)
    one, two = text_lines()
    assert one.endswith(f" INFO one [job_id={JOB_ID} claim_id=7 attempt=2]")
    assert two == "two"


def test_of_async_handlers_that_take_turns_each_logs_its_own_ids(
    json_lines: Lines, handlers: dict[str, Handler]
) -> None:
    @handler("say")
    async def say() -> None:
        for _ in range(3):
            logger.info("inside")
            await asyncio.sleep(0)

    async def both() -> None:
        runs = [a_run("say", claim_id=claim_id) for claim_id in (1, 2)]
        await asyncio.gather(*[call_async(handlers["say"], run, CONTEXT) for run in runs])

    asyncio.run(both())
    assert [line["claim_id"] for line in json_lines()] == [1, 2] * 3


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_a_handler_in_a_process_logs_carries_them_too(
    capfd: pytest.CaptureFixture[str], log_format: str
) -> None:
    environment = {
        "WORKER_HANDLERS": "tests.worker.children_jobs",
        "WORKER_LOG_FORMAT": log_format,
    }
    children = Children(Settings.from_environment(environment))
    assert children.run(a_run("child_say", {"what": "inside"})).verb == "complete"
    children.kill()
    [line] = [line for line in capfd.readouterr().err.splitlines() if "inside" in line]
    if log_format == "json":
        assert ids_in(json.loads(line)) == {**IDS, "job_type": "child_say"}
    else:
        assert line.endswith(f" INFO inside [job_id={JOB_ID} claim_id=7 attempt=1]")


def test_what_a_handler_adds_to_a_record_is_kept(
    json_lines: Lines, handlers: dict[str, Handler]
) -> None:
    @handler("say")
    def say() -> None:
        logger.info("inside", extra={"customer": 3, "queue": "of people"})

    call(handlers["say"], a_run("say"), CONTEXT)
    [line] = json_lines()
    assert line["customer"] == 3
    assert ids_in(line) == {**IDS, "queue": "of people"}


def test_an_exception_in_json_stays_one_line(
    json_lines: Lines, handlers: dict[str, Handler]
) -> None:
    @handler("say")
    def say() -> None:
        try:
            raise ValueError("one\ntwo")
        except ValueError:
            logger.exception("it failed")

    call(handlers["say"], a_run("say"), CONTEXT)
    [line] = json_lines()
    assert line["message"] == "it failed"
    assert line["exc_info"].startswith("Traceback (most recent call last):\n")
    assert line["exc_info"].endswith("ValueError: one\ntwo")
    assert ids_in(line) == IDS


def test_what_cannot_be_json_does_not_lose_the_line(json_lines: Lines) -> None:
    logger.info("inside", extra={"thing": {1, 2}, "other": threading_lock()})
    [line] = json_lines()
    assert line["message"] == "inside"


def threading_lock() -> object:
    """Return something that is no JSON."""
    return object()


@pytest.mark.parametrize(
    ("level", "logged"),
    [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)],
)
def test_what_is_below_the_level_is_not_logged(level: str, logged: int) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        configure("text", level)
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logger.log(number, "x")
    assert len(stderr.getvalue().splitlines()) == logged


# The worker


def lines_about(log: str, job_id: object) -> list[str]:
    """Return the lines that are about a job."""
    return [line for line in log.splitlines() if str(job_id) in line]


def test_each_line_of_json_about_a_run_carries_its_ids(
    db: Connection, start_worker: Callable[..., Any]
) -> None:
    worker = start_worker(WORKER_LOG_FORMAT="json", WORKER_HANDLERS="tests.worker.children_jobs")
    said = enqueue(db, job_type="child_say", payload='{"what": "inside"}')
    failed = enqueue(db, job_type="child_raise", payload='{"kind": "error"}')
    worker.wait_until_it_logs(f"job {said} succeeded")
    worker.wait_until_it_logs(f"job {failed} failed (ValueError: no such thing)")
    assert worker.stop() == 0
    lines = [json.loads(line) for line in worker.log.splitlines()]
    for job_id, job_type, count in ((said, "child_say", 3), (failed, "child_raise", 2)):
        about = [line for line in lines if str(job_id) in json.dumps(line)]
        assert len(about) == count
        for line in about:
            assert ids_in(line) == {
                **IDS,
                "job_id": str(job_id),
                "claim_id": about[0]["claim_id"],
                "job_type": job_type,
            }
    assert "Traceback" in json.dumps(about)


def test_each_line_of_text_about_a_run_carries_its_ids(
    db: Connection, start_worker: Callable[..., Any]
) -> None:
    worker = start_worker(WORKER_HANDLERS="tests.worker.children_jobs")
    job_id = enqueue(db, job_type="child_say", payload='{"what": "inside"}')
    worker.wait_until_it_logs(f"job {job_id} succeeded")
    lines = lines_about(worker.log, job_id)
    assert len(lines) == 3
    for line in lines:
        assert re.search(r"\bclaim_id=\d+ attempt=1\]$", line)


# The password


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_password_is_not_logged_by_a_worker_that_works(
    db: Connection, conninfo: str, start_worker: Callable[..., Any], log_format: str
) -> None:
    worker = start_worker(
        DATABASE_URL=f"{conninfo} password=open-sesame",
        WORKER_LOG_LEVEL="debug",
        WORKER_LOG_FORMAT=log_format,
        WORKER_HANDLERS="tests.worker.children_jobs",
    )
    assert conninfo_to_dict(conninfo).get("password") != "open-sesame"
    job_id = enqueue(db, job_type="child_say", payload='{"what": "inside"}')
    worker.wait_until_it_logs(f"job {job_id} succeeded")
    assert worker.stop() == 0
    assert "open-sesame" not in worker.log


def test_nor_by_one_that_cannot_reach_the_database(start_worker: Callable[..., Any]) -> None:
    worker = start_worker(
        DATABASE_URL="postgresql://ann:open-sesame@127.0.0.1:1/jobs", WORKER_LOG_LEVEL="debug"
    )
    worker.wait_until_it_logs("waiting for the queue: connection")
    assert worker.stop() == 0
    assert "open-sesame" not in worker.log


@pytest.mark.parametrize(
    "url",
    [
        "postgres:/ann:open-sesame@127.0.0.1/jobs",
        "postgresql://ann:open-sesame@127.0.0.1:x/jobs?nothing=1",
        "host=127.0.0.1 password=open-sesame no_such_word=1",
    ],
)
def test_nor_by_one_whose_database_url_is_wrong(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    logging.getLogger().handlers.clear()  # those of pytest
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        assert main.main() == main.WRONG_SETTING
    logged = stderr.getvalue()
    assert "ERROR DATABASE_URL is no connection string" in logged
    assert "open-sesame" not in logged
    assert "Traceback" not in logged
