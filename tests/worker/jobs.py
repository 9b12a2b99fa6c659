"""Handlers for the tests, as a user would write them: WORKER_HANDLERS=tests.worker.jobs."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from worker import AsyncContext, Context, Fail, JobStopped, Retry, Snooze, handler

logger = logging.getLogger(__name__)


@handler("echo")
def echo(value: Any = None) -> Any:
    """Return what came."""
    return value


@handler("async_echo")
async def async_echo(value: Any = None) -> Any:
    """Return what came."""
    await asyncio.sleep(0)
    return value


@handler("process_echo", process=True)
def process_echo(value: Any = None) -> Any:
    """Return what came."""
    return value


@handler("say")
def say(what: str) -> None:
    """Log it."""
    logger.info("%s", what)


@handler("outcome")
def outcome(kind: str) -> Any:
    """End in one of the ways in which a handler can."""
    return _end(kind)


@handler("async_outcome")
async def async_outcome(kind: str) -> Any:
    """End in one of the ways in which a handler can."""
    return _end(kind)


@handler("process_outcome", process=True)
def process_outcome(kind: str) -> Any:
    """End in one of the ways in which a handler can."""
    return _end(kind)


def _end(kind: str) -> Any:
    match kind:
        case "exception":
            raise ValueError("no such thing")
        case "key error":
            raise KeyError("a")
        case "nul":
            raise RuntimeError("a\0b")
        case "surrogate":
            raise RuntimeError("\ud800")
        case "long":
            raise RuntimeError("x" * 10_000_000)
        case "empty":
            raise RuntimeError
        case "unprintable":
            raise Unprintable
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "recursion":
            return _end(kind)
        case "fail":
            raise Fail("never mind")
        case "retry":
            raise Retry
        case "retry at once":
            raise Retry(after=0.00001)
        case "retry later":
            raise Retry(after=3600, error="come back later")
        case "retry much later":
            raise Retry(after=timedelta(days=2))
        case "snooze":
            raise Snooze(3600)
        case "bad snooze":
            raise Snooze(-1)
        case "stop":
            raise JobStopped("who says so?")
        case "object":
            return object()
        case "nul in result":
            return {"a": "\0"}
        case "nan":
            return float("nan")
        case "infinity":
            return float("inf")
        case "surrogate in result":
            return "\ud800"
        case "set":
            return {1, 2}
        case "bytes":
            return b"bytes"
        case "loop":
            endless: list[Any] = []
            endless.append(endless)
            return endless
        case "big number":
            return 10**200_000
    raise AssertionError(kind)


class Unprintable(Exception):
    """An exception that explodes once more when it is looked at."""

    def __str__(self) -> str:
        raise RuntimeError("not even that")


@handler("digits")
def digits(number: int) -> int:
    """Return a number that Python can be made to write, and Postgres cannot be made to store."""
    sys.set_int_max_str_digits(0)
    return int("1" + "0" * number)


@handler("text")
def text(length: int, seconds: float = 0.0) -> str:
    """Return a text of this length, after so long."""
    time.sleep(seconds)
    return "x" * length


@handler("count")
def count(context: Context, at: str, seconds: float = 0.0) -> None:
    """Leave a line in a file, and take so long."""
    with Path(at).open("a") as file:
        file.write(f"{context.job.id}\n")
    time.sleep(seconds)


@handler("wait_for_file")
def wait_for_file(directory: str) -> str:
    """Wait for a file called go, and leave one called gone."""
    while not (Path(directory) / "go").exists():
        time.sleep(0.01)
    (Path(directory) / "gone").touch()
    return "gone"


@handler("wait")
def wait(context: Context) -> None:
    """Wait to be stopped."""
    context.stopping.wait()
    context.check()


@handler("async_wait")
async def async_wait(context: AsyncContext) -> None:
    """Wait to be stopped."""
    try:
        await asyncio.sleep(3600)
    finally:
        logger.info(
            "async_wait of %s ends, stopping: %s", context.job.id, context.stopping.is_set()
        )


@handler("process_wait", process=True)
def process_wait(pid_at: str | None = None) -> None:
    """Wait for ever, and be deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if pid_at is not None:
        Path(pid_at).write_text(str(os.getpid()))
    while True:
        time.sleep(3600)


@handler("deaf")
def deaf(seconds: float) -> str:
    """Heed nothing for so long."""
    time.sleep(seconds)
    return "heeded nothing"


@handler("hold_gil")
def hold_gil(seconds: int) -> None:
    """Hold the GIL, a second at a time, letting go of it for a moment in between."""
    libc = ctypes.PyDLL(None)
    for _ in range(seconds):
        libc.sleep(1)


@handler("stop_quietly")
def stop_quietly() -> None:
    """Have this thread get the signal to stop, which does not wake the main thread."""
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)


@handler("die")
def die(at: str) -> None:
    """Take the whole process along."""
    with Path(at).open("a") as file:
        file.write("died\n")
    os.kill(os.getpid(), signal.SIGKILL)


@handler("progress")
def progress(context: Context) -> None:
    """Report how it goes, and wait."""
    context.progress({"done": 1, "of": 2})
    context.sleep(3600)


@handler("async_progress")
async def async_progress(context: AsyncContext) -> None:
    """Report how it goes, and wait."""
    await context.progress({"done": 1, "of": 2})
    await context.sleep(3600)


@handler("process_progress", process=True)
def process_progress(context: Context) -> None:
    """Report how it goes, and wait."""
    context.progress({"done": 1, "of": 2})
    context.sleep(3600)


@handler("progress_until_told")
def progress_until_told(context: Context) -> None:
    """Report how it goes until the claim is lost."""
    try:
        for done in range(100_000):
            context.progress(done)
            time.sleep(0.01)
    except JobStopped as reason:
        logger.info("progress_until_told was told: %s", type(reason).__name__)
        raise


@handler("async_progress_until_told")
async def async_progress_until_told(context: AsyncContext) -> None:
    """Report how it goes until the claim is lost, and clean up."""
    try:
        for done in range(100_000):
            await context.progress(done)
            await asyncio.sleep(0.01)
    finally:
        await asyncio.sleep(0.01)
        logger.info("async_progress_until_told has cleaned up")


@handler("fan_out")
def fan_out(context: Context, width: int) -> list[str]:
    """Enqueue more jobs."""
    return [
        str(context.enqueue("echo", {"value": number}, priority=0, message=f"number {number}"))
        for number in range(width)
    ]


@handler("async_fan_out")
async def async_fan_out(context: AsyncContext, width: int) -> list[str]:
    """Enqueue more jobs."""
    return [str(await context.enqueue("echo", {"value": number})) for number in range(width)]


@handler("enqueue_wrongly")
def enqueue_wrongly(context: Context, options: dict[str, Any]) -> None:
    """Enqueue with these options, which are wrong."""
    context.enqueue("echo", **options)


@handler("write")
def write(context: Context, then: str) -> str:
    """Write, enqueue and complete in one transaction, and go on in one way or another."""
    with context.transaction() as connection:
        connection.execute("insert into public.written values (%s)", [context.job.id])
        context.enqueue("echo")
        if then != "return":
            context.complete({"written": True})
        if then == "raise inside":
            raise ValueError("undo it all")
    if then == "raise outside":
        raise ValueError("too late")
    return "returned"


@handler("async_write")
async def async_write(context: AsyncContext, then: str) -> str:
    """Write, enqueue and complete in one transaction, and go on in one way or another."""
    async with context.transaction() as connection:
        await connection.execute("insert into public.written values (%s)", [context.job.id])
        await context.enqueue("echo")
        if then != "return":
            await context.complete({"written": True})
        if then == "raise inside":
            raise ValueError("undo it all")
    if then == "raise outside":
        raise ValueError("too late")
    return "returned"


@handler("process_write", process=True)
def process_write(context: Context, then: str) -> str:
    """Write, enqueue and complete in one transaction, and go on in one way or another."""
    if then == "die":
        with context.transaction():
            context.complete({"written": True})
        os.kill(os.getpid(), signal.SIGKILL)
    return write(context, then)


@handler("transact")
def transact(context: Context, how: str) -> str:
    """Use a transaction in a way that its author should not have thought of."""
    with context.transaction() as connection:
        match how:
            case "roll back":
                context.complete("completed")
                raise psycopg.Rollback
            case "roll a savepoint back":
                with connection.transaction(force_rollback=True):
                    connection.execute("insert into public.written values (%s)", [context.job.id])
                context.complete("completed")
            case "swallow an error":
                with contextlib.suppress(psycopg.Error):
                    connection.execute("select 1 / 0")
            case "complete twice":
                context.complete("completed")
                context.complete("completed")
            case "leave settings behind":
                connection.execute("set role pg_monitor")
                connection.execute("set search_path = nowhere")
            case "nest":
                with context.transaction():
                    pass
    return "returned"


@handler("async_transact_at_once")
async def async_transact_at_once(context: AsyncContext) -> None:
    """Begin two transactions at the same time."""

    async def transact() -> None:
        async with context.transaction():
            await asyncio.sleep(0)

    await asyncio.gather(transact(), transact())


@handler("write_late")
def write_late(context: Context, gate: int) -> None:
    """Write, then wait for an advisory lock before completing."""
    with context.transaction() as connection:
        connection.execute("insert into public.written values (%s)", [context.job.id])
        connection.execute("select pg_catalog.pg_advisory_xact_lock(%s)", [gate])
        context.complete("late")
