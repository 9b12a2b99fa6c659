"""What the workers run under faults: WORKER_HANDLERS=tests.faults.handlers."""

import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.log import Log
from worker import AsyncContext, Context, Fail, Snooze, handler

_log = Log(Path(os.environ["FAULTS_LOGS"]) / f"worker-{os.getpid()}-{time.time_ns()}.jsonl")


def _say(op: str, context: Context | AsyncContext, outcome: str, answer: str | None) -> None:
    job = context.job
    _log.write(op, f"run {job.claim_id}", outcome, job=job.id, claim=job.claim_id, answer=answer)


@contextmanager
def _run(context: Context | AsyncContext) -> Iterator[None]:
    """Say which claim this runs under, and then what the worker is to tell the queue."""
    _say("run", context, "acknowledged", None)
    try:
        yield
    except Snooze:
        _say("done", context, "intent", "snooze")
        raise
    except BaseException:
        _say("done", context, "intent", "fail")
        raise
    _say("done", context, "intent", "complete")


@handler("orphan")
@handler("quick")
def quick(context: Context, ref: str) -> str:
    """Return at once."""
    with _run(context):
        return ref


@handler("dozy")
def dozy(context: Context, ref: str) -> str:
    """Put it off, every other time."""
    with _run(context):
        if random.random() < 0.5:
            raise Snooze(0.2)
        return ref


@handler("slow")
def slow(context: Context, ref: str, seconds: float) -> str:
    """Take a while."""
    with _run(context):
        context.sleep(seconds)
        return ref


@handler("async")
async def asynchronous(context: AsyncContext, ref: str, seconds: float) -> str:
    """Take a while, on the event loop."""
    with _run(context):
        await asyncio.sleep(seconds)
        return ref


@handler("process", process=True)
def process(context: Context, ref: str) -> str:
    """Run in a process of its own."""
    with _run(context):
        return ref


@handler("flaky")
def flaky(context: Context, ref: str) -> str:
    """Fail, but for the last attempt."""
    with _run(context):
        if context.job.attempt < context.job.max_attempts:
            raise RuntimeError("not yet")
        return ref


@handler("hopeless")
def hopeless(context: Context, ref: str, seconds: float = 0.0) -> None:
    """Fail for good."""
    with _run(context):
        context.sleep(seconds)
        raise Fail(ref)


@handler("late")
def late(context: Context, ref: str) -> None:
    """Take longer than the job's timeout."""
    with _run(context):
        context.sleep(60)


@handler("effect")
def effect(context: Context, ref: str) -> None:
    """Write and complete in one transaction: exactly once, whatever happens."""
    with _run(context), context.transaction() as connection:
        connection.execute(
            "insert into public.effects values (%s, %s)", [context.job.id, context.job.claim_id]
        )
        _say("done", context, "intent", "complete")  # as it may be the last that is heard of it
        context.complete(ref)
