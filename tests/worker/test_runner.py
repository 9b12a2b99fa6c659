"""The worker's loop with handlers and queues that misbehave."""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import Connection, enqueue, one
from worker.queue import InvalidResult, Job, Queue, QueueUnavailable
from worker.runner import Runner
from worker.settings import Settings
from worker.shutdown import Shutdown


def settings_for(conninfo: str, poll_seconds: float) -> Settings:
    """Return settings with which nothing runs out during a test."""
    return Settings(
        conninfo,
        name="test",
        poll_seconds=poll_seconds,
        lease_seconds=30,
        grace_seconds=60,
        health_file=None,
    )


def run_one_job(conninfo: str, handler: Callable[[], Any], queue: Queue | None = None) -> None:
    """Run a worker's loop in this thread until it has run one job with this handler."""
    shutdown = Shutdown(grace_seconds=60)
    settings = settings_for(conninfo, poll_seconds=0.01)

    def handle(job: Job, *_: Any) -> Any:
        shutdown.request()
        return handler()

    Runner(settings, queue or Queue(conninfo, "test", lease_seconds=30), handle, shutdown).run()


def raiser(error: BaseException) -> Callable[[], None]:
    """Return a handler that raises the error."""

    def handler() -> None:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (ValueError("no such thing"), "ValueError: no such thing"),
        (KeyError("a"), "KeyError: 'a'"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (RuntimeError("a\0b"), "RuntimeError: a\ufffdb"),
        (RuntimeError("\ud800"), "RuntimeError: ?"),
        (RuntimeError("x" * 10_000_000), ("RuntimeError: " + "x" * 10_000)[:10_000]),
        (RuntimeError(), "RuntimeError: "),
    ],
)
def test_an_exception_fails_the_job_with_the_error_in_its_result(
    db: Connection, conninfo: str, error: Exception, recorded: str
) -> None:
    enqueue(db)
    run_one_job(conninfo, raiser(error))
    job = one(db, "table jobs")
    assert (job.status, job.result) == ("failed", {"error": recorded})


@pytest.mark.parametrize("result", [None, {}, {"a": [1, "\u2028"]}, "text", 1.5, False])
def test_what_the_handler_returns_is_the_result(db: Connection, conninfo: str, result: Any) -> None:
    enqueue(db)
    run_one_job(conninfo, lambda: result)
    job = one(db, "table jobs")
    assert (job.status, job.result) == ("succeeded", result)


@pytest.mark.parametrize(
    "result", [object(), {"a": "\0"}, float("nan"), float("inf"), "\ud800", {1, 2}, b"bytes"]
)
def test_a_result_that_cannot_be_stored_fails_the_job(
    db: Connection, conninfo: str, result: Any
) -> None:
    enqueue(db)
    run_one_job(conninfo, lambda: result)
    job = one(db, "table jobs")
    assert job.status == "failed"
    assert job.result["error"]


def test_a_job_whose_report_got_lost_on_the_way_is_reported_again(
    db: Connection, conninfo: str
) -> None:
    class LossyQueue(Queue):
        lost = 0

        def complete_job(self, job: Job, result: Any) -> None:
            if self.lost < 3:
                self.lost += 1
                raise QueueUnavailable("lost on the way")
            super().complete_job(job, result)

    enqueue(db)
    run_one_job(conninfo, lambda: "done", LossyQueue(conninfo, "test", lease_seconds=30))
    job = one(db, "table jobs")
    assert (job.status, job.result) == ("succeeded", "done")


def test_a_report_whose_answer_got_lost_on_the_way_back_counts(
    db: Connection, conninfo: str
) -> None:
    class LossyQueue(Queue):
        lost = 0

        def complete_job(self, job: Job, result: Any) -> None:
            super().complete_job(job, result)
            self.lost += 1
            if self.lost == 1:
                raise QueueUnavailable("lost on the way back")

    enqueue(db)
    run_one_job(conninfo, lambda: "done", LossyQueue(conninfo, "test", lease_seconds=30))
    job = one(db, "table jobs")
    assert (job.status, job.result) == ("succeeded", "done")


@pytest.mark.parametrize("queue_is_away", [False, True])
def test_a_stop_that_comes_during_a_claim_is_heeded_before_the_next_poll(
    queue_is_away: bool,
) -> None:
    shutdown = Shutdown(grace_seconds=60)

    class StoppingQueue(Queue):
        def claim_next_job(self) -> Job | None:
            shutdown.request()
            if queue_is_away:
                raise QueueUnavailable("away")
            return None

    settings = settings_for("", poll_seconds=86_400)
    runner = Runner(
        settings, StoppingQueue("", "test", lease_seconds=30), lambda *_: None, shutdown
    )
    thread = threading.Thread(target=runner.run, daemon=True)
    thread.start()
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_a_heartbeat_that_is_due_comes_before_maintenance(
    db: Connection, conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage longer than the lease, maintenance would take the job away first."""
    monkeypatch.setattr("worker.runner.MAINTENANCE_INTERVAL", 0.0)
    enqueue(db)
    calls: list[str] = []

    class Recorded(Queue):
        def heartbeat(self, job: Job) -> bool:
            calls.append("heartbeat")
            return super().heartbeat(job)

        def run_maintenance(self) -> None:
            calls.append("maintenance")

    shutdown = Shutdown(grace_seconds=60)

    def handle(job: Job, _: Shutdown, beat: Callable[[], None]) -> None:
        shutdown.request()
        calls.clear()
        beat()

    settings = dataclasses.replace(settings_for(conninfo, poll_seconds=0.01), lease_seconds=0)
    Runner(settings, Recorded(conninfo, "test", lease_seconds=30), handle, shutdown).run()
    assert calls == ["heartbeat"]


@pytest.mark.parametrize("error", [QueueUnavailable("no"), InvalidResult("no")])
def test_jobs_do_not_depend_on_maintenance(
    db: Connection, conninfo: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    class Unmaintained(Queue):
        def run_maintenance(self) -> None:
            raise error

    job_id = enqueue(db)
    run_one_job(conninfo, lambda: "done", Unmaintained(conninfo, "test", lease_seconds=30))
    assert one(db, "select status from get_job(%s)", job_id).status == "succeeded"
    assert [record.getMessage() for record in caplog.records if "maintenance" in record.msg] == [
        "maintenance failed: no"
    ]
