"""How the loop reports many runs while it claims others, without a database."""

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import eventually
from tests.worker.runs import a_run
from worker.connection import QueueUnavailable
from worker.executor import Ended
from worker.pulse import Pulse
from worker.queue import Ends, Job
from worker.run import Outcome, Run
from worker.runner import MANY, Runner
from worker.settings import Settings
from worker.shutdown import Shutdown


class Queue:
    """One that says what it is told to, and asks for a stop once it has nothing left to say."""

    def __init__(self, shutdown: Shutdown, *answers: list[Job] | Exception) -> None:
        self.link = SimpleNamespace(
            close=lambda: None,
            limit_calls=lambda _: None,
            notified=lambda: False,
            is_open=False,
            is_listening=False,
            has_session=False,
        )
        self._shutdown = shutdown
        self._answers = list(answers)
        self.completed: list[int] = []

    def claim(self, _: int) -> list[Job]:
        if len(self._answers) <= 1:
            self._shutdown.request()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def complete(self, completions: Any) -> Ends:
        claim_ids = [job.claim_id for job, _ in completions]
        self.completed += claim_ids
        return dict.fromkeys(claim_ids)


class Unreachable(Queue):
    """One that cannot be told anything."""

    def complete(self, completions: Any) -> Ends:
        raise QueueUnavailable("away")


class Slow(Queue):
    """One that takes its time."""

    def __init__(self, shutdown: Shutdown, until: Callable[[], bool]) -> None:
        super().__init__(shutdown)
        self._until = until
        self.was_slow = False

    def complete(self, completions: Any) -> Ends:
        self.was_slow = bool(eventually(self._until))
        return super().complete(completions)


class SlowAndUnreachable(Slow):
    """One that takes its time to say that it cannot be told anything."""

    def complete(self, completions: Any) -> Ends:
        super().complete(completions)
        raise QueueUnavailable("away")


class Executor:
    """One whose runs have ended."""

    def __init__(self, ended: list[Ended]) -> None:
        self._ended = ended
        self.started: list[Run] = []
        self.counts = (0, 0)
        self.has_ended_runs = False

    def take_ended(self) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    def take_waiting(self, longer_than: float = 0.0) -> list[Run]:
        return []

    def add(self, runs: list[Run]) -> None:
        self.started += runs

    def could_start_within(self, _: float) -> int:
        return 0

    def forget(self, run: Run) -> None:
        pass

    def held(self) -> list[Run]:
        return []


def ended(count: int) -> list[Ended]:
    """Return runs that succeeded."""
    return [(a_run("email", claim_id=number), Outcome("complete", "1")) for number in range(count)]


def run(queue: Queue, reports: Queue, executor: Executor, shutdown: Shutdown) -> None:
    """Let the loop run until a stop is asked for."""
    handlers: Any = {"email": None}
    heart: Any = SimpleNamespace(unwell_because=None, beaten_at=0.0)
    waker: Any = SimpleNamespace(announce_wait=lambda: None, wait=pytest.fail)
    settings = Settings("", "w", poll_seconds=60, lease_seconds=30, grace_seconds=1)
    loop: Any = Runner
    loop(settings, handlers, queue, reports, heart, executor, waker, shutdown, Pulse(None)).run()


def test_a_claim_that_cannot_have_known_of_the_room_that_many_ends_made_is_repeated() -> None:
    shutdown = Shutdown(1)
    queue, reports = Queue(shutdown, [], []), Queue(shutdown)
    executor = Executor(ended(MANY))
    before = threading.active_count()
    run(queue, reports, executor, shutdown)  # or it would wait for a minute
    assert (queue.completed, reports.completed) == ([], list(range(MANY)))
    assert threading.active_count() == before


@pytest.mark.parametrize("is_claim_answered", [True, False])
def test_many_ends_that_could_not_be_reported_are_reported_again(is_claim_answered: bool) -> None:
    shutdown = Shutdown(1)
    job = a_run("email", claim_id=MANY).job
    queue = Queue(shutdown, [job] if is_claim_answered else QueueUnavailable("away"))
    executor = Executor(ended(MANY))
    run(queue, Unreachable(shutdown), executor, shutdown)
    assert queue.completed == list(range(MANY))
    assert [one.job for one in executor.started] == [job] * is_claim_answered


def test_many_ends_are_not_reported_twice_because_a_claim_was_not_answered() -> None:
    shutdown = Shutdown(1)
    queue, reports = Queue(shutdown, QueueUnavailable("away")), Queue(shutdown)
    run(queue, reports, Executor(ended(MANY)), shutdown)
    assert (queue.completed, reports.completed) == ([], list(range(MANY)))


def test_jobs_are_claimed_while_many_ends_are_still_being_reported() -> None:
    shutdown = Shutdown(1)
    jobs = [a_run("email", claim_id=MANY + number).job for number in range(3)]
    queue = Queue(shutdown, *([job] for job in jobs))
    reports = Slow(shutdown, until=lambda: len(executor.started) >= 2)
    executor = Executor(ended(MANY))
    run(queue, reports, executor, shutdown)
    assert [one.job for one in executor.started] == jobs
    assert (queue.completed, reports.completed) == ([], list(range(MANY)))
    assert reports.was_slow


def test_a_report_that_was_refused_after_more_was_claimed_is_made_again() -> None:
    shutdown = Shutdown(1)
    jobs = [a_run("email", claim_id=MANY + number).job for number in range(3)]
    queue = Queue(shutdown, *([job] for job in jobs))
    reports = SlowAndUnreachable(shutdown, until=lambda: len(executor.started) >= 2)
    executor = Executor(ended(MANY))
    run(queue, reports, executor, shutdown)
    assert [one.job for one in executor.started] == jobs
    assert queue.completed == list(range(MANY))
    assert reports.was_slow
