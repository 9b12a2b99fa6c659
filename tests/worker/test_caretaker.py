"""The worker's maintenance: called again soon while there is more to do, and else now and then."""

import queue
import threading
from typing import Any, cast

from tests.support import Connection
from worker import background
from worker.background import MAINTENANCE_INTERVAL, Caretaker, Heart
from worker.connection import Link
from worker.queue import Queue


class Quiet:
    """Stands for a heart that is well, and for a link."""

    unwell_because = None

    def close(self) -> None:
        """Do nothing."""


class Maintained:
    """Stands for the queue: says whether there is more, and notes what it was asked."""

    def __init__(self, answers: list[bool]) -> None:
        self.link = Quiet()
        self.asked: queue.Queue[float] = queue.Queue()
        self._answers = iter(answers)

    def run_maintenance(self, unless_within: float) -> bool:
        """Answer the next."""
        self.asked.put(unless_within)
        return next(self._answers, False)


class Waits(threading.Event):
    """Notes for how long it is waited, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Return at once; that it is set after ten times."""
        self.waited.append(timeout or 0.0)
        return len(self.waited) > 10


def test_maintenance_is_called_again_soon_while_there_is_more_to_do(monkeypatch: Any) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr("worker.background.time.monotonic", lambda: next(ticks) * 0.1)
    maintained = Maintained([True, True, True, False])
    caretaker = Caretaker(cast(Queue, maintained), cast(Heart, Quiet()))
    waits = caretaker._ending = Waits()
    caretaker._run_and_close()
    rest = background.REST * 0.1
    assert [round(wait, 6) for wait in waits.waited[1:4]] == [round(rest, 6)] * 3
    assert all(wait >= 0.7 * MAINTENANCE_INTERVAL for wait in waits.waited[4:])
    asked = [maintained.asked.get_nowait() for _ in range(10)]
    normal = MAINTENANCE_INTERVAL / 2
    assert [round(unless_within, 6) for unless_within in asked] == [
        *[normal, round(rest / 2, 6), round(rest / 2, 6), round(rest / 2, 6)],
        *[normal] * 6,
    ]


def test_a_long_call_is_not_waited_out_longer_than_usual(monkeypatch: Any) -> None:
    ticks = iter(range(1000))
    monkeypatch.setattr("worker.background.time.monotonic", lambda: next(ticks) * 60.0)
    caretaker = Caretaker(cast(Queue, Maintained([True])), cast(Heart, Quiet()))
    waits = caretaker._ending = Waits()
    caretaker._run_and_close()
    assert waits.waited[1] == MAINTENANCE_INTERVAL


def test_maintenance_says_whether_there_is_more_to_do(db: Connection, conninfo: str) -> None:
    link = Link(conninfo, call_seconds=30.0)
    maintained = Queue(link, "w", 60.0, ["sleep"])
    try:
        assert maintained.run_maintenance(0.0) is False
        assert maintained.run_maintenance(60.0) is False  # it was done just now
        db.execute(
            "insert into idempotency_keys"
            " (client, idempotency_key, fingerprint, outcome, created_at)"
            " select '', n::text, '', '[]', now() - interval '2 days'"
            " from generate_series(1, 10001) as n"
        )
        assert maintained.run_maintenance(0.0) is True
        assert maintained.run_maintenance(0.0) is False
    finally:
        link.close()
