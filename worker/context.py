"""What a handler can learn and do about the job that it runs."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any, NoReturn
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from worker import tracing
from worker.connection import (
    CLAIM_DOES_NOT_HOLD,
    AsyncHandlerPool,
    HandlerPool,
    TimedAsyncConnection,
    TimedConnection,
    calls_of_the_queue,
    lend,
    lend_async,
)
from worker.outcomes import ClaimLost, HandBack, JobStopped
from worker.queue import Job
from worker.run import Run, encode

ENQUEUE_OPTIONS = {
    "sleep_seconds",
    "message",
    "queue",
    "priority",
    "run_at",
    "delay",
    "max_attempts",
    "retry_delay",
    "retry_delay_max",
    "max_losses",
    "timeout",
    "unique_key",
    "concurrency_key",
    "depends_on",
    "on_parent_failure",
}
"""The parameters of enqueue_job that a handler may give, without their p_."""

_PROGRESS = sql.SQL("""
select job_queue.report_progress(
         p_job_id => %(job_id)s, p_claim_id => %(claim_id)s, p_progress => %(progress)s::jsonb)
""")

_COMPLETE = sql.SQL("""
select job_queue.complete_job(
         p_job_id => %(job_id)s, p_claim_id => %(claim_id)s, p_result => %(result)s::jsonb)
""")


class _Base:
    """What both kinds of context have in common."""

    _connection: psycopg.BaseConnection[Any] | None

    def __init__(self, run: Run, seconds_left: Callable[[], float]) -> None:
        self._run = run
        self._seconds_left = seconds_left
        self._is_in_transaction = False
        self._result: str | None = None
        """With which the job is to be completed at the end of the transaction, as JSON."""

    @property
    def job(self) -> Job:
        """The job: its id, attempt, queue and so on."""
        return self._run.job

    def check(self) -> None:
        """Raise Cancelled, ClaimLost, TimedOut or HandBack if the handler is to stop."""
        if self._run.reason is not None:
            raise self._run.reason

    def _stop(self, reason: JobStopped) -> NoReturn:
        self._run.stop(reason)
        raise reason

    def _check_time_left(self, seconds: float) -> None:
        self.check()
        if seconds > self._seconds_left():
            self._stop(HandBack("handed back"))

    def _progress(self, progress: Any) -> tuple[sql.SQL | sql.Composed, dict[str, Any]]:
        self.check()
        return _PROGRESS, {**self._claim, "progress": encode(progress)}

    def _enqueue(
        self, job_type: str, payload: Any, options: dict[str, Any]
    ) -> tuple[sql.SQL | sql.Composed, dict[str, Any]]:
        self.check()
        if unknown := options.keys() - ENQUEUE_OPTIONS:
            raise TypeError(f"enqueue_job has no parameter p_{', p_'.join(sorted(unknown))}")
        arguments = {
            "job_type": job_type,
            "payload": Jsonb({} if payload is None else payload),
            "trace_context": Jsonb(context) if (context := tracing.current_context()) else None,
            **options,
        }
        named = sql.SQL(", ").join(
            sql.SQL("p_{} => {}").format(sql.SQL(name), sql.Placeholder(name)) for name in arguments
        )
        return sql.SQL("select job_queue.enqueue_job({})").format(named), arguments

    def _enter_transaction(self) -> None:
        if self._is_in_transaction:
            raise RuntimeError("the handler is in a transaction already")
        self.check()
        self._is_in_transaction = True

    def _leave_transaction(self) -> None:
        self._is_in_transaction = False
        self._connection = None
        self._result = None

    @staticmethod
    def _check_statements(connection: psycopg.BaseConnection[Any]) -> None:
        """Raise if a statement failed and the handler went on: COMMIT would silently do nothing."""
        if connection.info.transaction_status == TransactionStatus.INERROR:
            raise RuntimeError("a statement failed, so that the transaction cannot be committed")

    def _set_result(self, result: Any) -> None:
        if self._connection is None:
            raise RuntimeError("call complete in the block of transaction(), or return the result")
        if self._result is not None:
            raise RuntimeError("the handler has called complete already")
        self.check()
        self._result = encode(result)

    def _completion(self) -> tuple[sql.SQL | sql.Composed, dict[str, Any]]:
        return _COMPLETE, {**self._claim, "result": self._result}

    @property
    def _claim(self) -> dict[str, Any]:
        return {"job_id": self.job.id, "claim_id": self.job.claim_id}

    def _refused(self, error: psycopg.Error) -> None:
        """Stop the run if the database says that the claim does not hold."""
        if error.sqlstate in CLAIM_DOES_NOT_HOLD:
            self._stop(ClaimLost(error.diag.message_primary or str(error)))


class Context(_Base):
    """The job that a plain function runs. Its methods raise JobStopped once that is to stop."""

    def __init__(
        self,
        run: Run,
        pool: Callable[[], HandlerPool],
        seconds_left: Callable[[], float],
    ) -> None:
        super().__init__(run, seconds_left)
        self._pool = pool
        self._connection: TimedConnection[Any] | None = None

    @property
    def stopping(self) -> threading.Event:
        """Set once the handler is to stop: cancelled, claim lost, out of time, or handed back."""
        return self._run.stopping

    def sleep(self, seconds: float) -> None:
        """Wait, but raise as soon as the handler is to stop, or if the worker must end sooner."""
        self._check_time_left(seconds)
        while not self.stopping.wait(min(seconds, 1.0)):
            seconds -= 1.0
            if seconds <= 0:
                return
            self._check_time_left(seconds)
        self.check()

    def progress(self, progress: Any) -> None:
        """Show how far the job has come, as JSON, to whoever reads get_job."""
        self._execute(*self._progress(progress))

    def enqueue(self, job_type: str, payload: Any = None, **options: Any) -> UUID:
        """Enqueue a job and return its id; in transaction(), if that commits.

        The options are the parameters of enqueue_job, without their p_.
        """
        [job_id] = self._execute(*self._enqueue(job_type, payload, options), is_fenced=False)
        assert isinstance(job_id, UUID)
        return job_id

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """Begin a transaction on a connection of the handler's own; commit it at the end.

        What it writes and enqueue() and complete() are done together, or not at all.
        """
        self._enter_transaction()
        is_completed = False
        try:
            with lend(self._pool()) as connection:
                self._connection = connection
                connection.is_changed = True
                with connection.transaction():
                    yield connection
                    self._check_statements(connection)
                    if self._result is not None:
                        self._execute(*self._completion())
                        is_completed = True
                if is_completed:
                    self._run.mark_completed()
        finally:
            self._leave_transaction()

    def complete(self, result: Any = None) -> None:
        """End the job with success, and with this result, as the last step of transaction().

        There ClaimLost is raised, and all is rolled back, if the claim does not hold.
        """
        self._set_result(result)

    def _execute(
        self, query: sql.SQL | sql.Composed, parameters: dict[str, Any], is_fenced: bool = True
    ) -> Any:
        own = lend(self._pool()) if self._connection is None else nullcontext(self._connection)
        try:
            with own as connection, calls_of_the_queue(connection):
                return connection.execute(query, parameters).fetchone()
        except psycopg.Error as error:
            if is_fenced:
                self._refused(error)
            raise


class AsyncContext(_Base):
    """The job that an `async def` runs. When that is to stop, it is also cancelled."""

    def __init__(
        self,
        run: Run,
        pool: AsyncHandlerPool,
        seconds_left: Callable[[], float],
    ) -> None:
        super().__init__(run, seconds_left)
        self._pool = pool
        self._connection: TimedAsyncConnection[Any] | None = None
        self.stopping = asyncio.Event()
        """Set once the handler is to stop: cancelled, claim lost, out of time, or handed back."""

    def _stop(self, reason: JobStopped) -> NoReturn:
        self._run.when_stopped(None)  # raising is enough: what cleans up must not be cancelled
        self.stopping.set()
        super()._stop(reason)

    async def sleep(self, seconds: float) -> None:
        """Wait, but raise HandBack as soon as it is known that the worker must end sooner."""
        self._check_time_left(seconds)
        while seconds > 0:
            await asyncio.sleep(min(seconds, 1.0))
            seconds -= 1.0
            self._check_time_left(seconds)

    async def progress(self, progress: Any) -> None:
        """Show how far the job has come, as JSON, to whoever reads get_job."""
        await self._execute(*self._progress(progress))

    async def enqueue(self, job_type: str, payload: Any = None, **options: Any) -> UUID:
        """Enqueue a job and return its id; in transaction(), if that commits.

        The options are the parameters of enqueue_job, without their p_.
        """
        [job_id] = await self._execute(*self._enqueue(job_type, payload, options), is_fenced=False)
        assert isinstance(job_id, UUID)
        return job_id

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """Begin a transaction on a connection of the handler's own; commit it at the end.

        What it writes and enqueue() and complete() are done together, or not at all.
        """
        self._enter_transaction()
        is_completed = False
        try:
            async with lend_async(self._pool) as connection:
                self._connection = connection
                connection.is_changed = True
                async with connection.transaction():
                    yield connection
                    self._check_statements(connection)
                    if self._result is not None:
                        await self._execute(*self._completion())
                        is_completed = True
                if is_completed:
                    self._run.mark_completed()
        finally:
            self._leave_transaction()

    async def complete(self, result: Any = None) -> None:
        """End the job with success, and with this result, as the last step of transaction().

        There ClaimLost is raised, and all is rolled back, if the claim does not hold.
        """
        self._set_result(result)

    async def _execute(
        self, query: sql.SQL | sql.Composed, parameters: dict[str, Any], is_fenced: bool = True
    ) -> Any:
        own = lend_async(self._pool) if self._connection is None else nullcontext(self._connection)
        try:
            async with own as connection:
                with calls_of_the_queue(connection):
                    return await (await connection.execute(query, parameters)).fetchone()
        except psycopg.Error as error:
            if is_fenced:
                self._refused(error)
            raise
