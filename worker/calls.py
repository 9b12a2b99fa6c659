"""Calls handlers, and makes of what they return or raise how their runs ended."""

import asyncio
import contextvars

from worker import tracing
from worker.context import AsyncContext, Context
from worker.registry import Handler
from worker.run import Outcome, Run, encode, outcome_of

current_run: contextvars.ContextVar[Run | None] = contextvars.ContextVar("run", default=None)
"""The run that this thread or task is at, for log records."""


def call(handler: Handler, run: Run, context: Context) -> Outcome:
    """Call a plain function and return how the run ended. Raises nothing, not even SystemExit."""
    token = current_run.set(run)
    try:
        with tracing.span(run.job):
            try:
                result = handler.function(**handler.arguments(run.job.payload, context))
                return _returned(run, result)
            except BaseException as error:
                return _raised(run, error)
    finally:
        current_run.reset(token)


async def call_async(handler: Handler, run: Run, context: AsyncContext) -> Outcome:
    """Await an `async def` and return how the run ended. Raises nothing."""
    current_run.set(run)  # in the context of this task, which ends with it
    with tracing.span(run.job):
        try:
            result = await handler.function(**handler.arguments(run.job.payload, context))
            return _returned(run, result)
        except BaseException as error:
            return _raised(run, error)


def _returned(run: Run, result: object) -> Outcome:
    if run.completed:
        return Outcome("nothing", "completed in its own transaction")
    return Outcome("complete", encode(result))


def _raised(run: Run, error: BaseException) -> Outcome:
    if isinstance(error, asyncio.CancelledError) and run.reason is not None:
        error = run.reason
    outcome = outcome_of(error)
    if run.completed:
        text = f"completed in its own transaction, but then: {outcome.text}"
        return Outcome("nothing", text, traceback=outcome.traceback)
    if outcome.verb == "fail":
        tracing.mark_failed(outcome.text)
    return outcome
