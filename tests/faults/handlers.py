"""What the workers run under faults: WORKER_HANDLERS=tests.faults.handlers."""

import asyncio
import os
import random
import time
from pathlib import Path

from tests.faults.log import Log
from worker import AsyncContext, Context, Fail, Snooze, handler

_log = Log(Path(os.environ["FAULTS_LOGS"]) / f"worker-{os.getpid()}-{time.time_ns()}.jsonl")


def _begin(context: Context | AsyncContext) -> None:
    """Say which claim this runs under: somebody must have made it."""
    job = context.job
    _log.write("run", f"run {job.claim_id}", "acknowledged", job=job.id, claim=job.claim_id)


@handler("orphan")
@handler("quick")
def quick(context: Context, ref: str) -> str:
    """Return at once."""
    _begin(context)
    return ref


@handler("dozy")
def dozy(context: Context, ref: str) -> str:
    """Put it off, every other time."""
    _begin(context)
    if random.random() < 0.5:
        raise Snooze(0.2)
    return ref


@handler("slow")
def slow(context: Context, ref: str, seconds: float) -> str:
    """Take a while."""
    _begin(context)
    context.sleep(seconds)
    return ref


@handler("async")
async def asynchronous(context: AsyncContext, ref: str, seconds: float) -> str:
    """Take a while, on the event loop."""
    _begin(context)
    await asyncio.sleep(seconds)
    return ref


@handler("process", process=True)
def process(context: Context, ref: str) -> str:
    """Run in a process of its own."""
    _begin(context)
    return ref


@handler("flaky")
def flaky(context: Context, ref: str) -> str:
    """Fail, but for the last attempt."""
    _begin(context)
    if context.job.attempt < context.job.max_attempts:
        raise RuntimeError("not yet")
    return ref


@handler("hopeless")
def hopeless(context: Context, ref: str, seconds: float = 0.0) -> None:
    """Fail for good."""
    _begin(context)
    context.sleep(seconds)
    raise Fail(ref)


@handler("late")
def late(context: Context, ref: str) -> None:
    """Take longer than the job's timeout."""
    _begin(context)
    context.sleep(60)


@handler("effect")
def effect(context: Context, ref: str) -> None:
    """Write and complete in one transaction: exactly once, whatever happens."""
    _begin(context)
    with context.transaction() as connection:
        connection.execute(
            "insert into public.effects values (%s, %s)", [context.job.id, context.job.claim_id]
        )
        context.complete(ref)
