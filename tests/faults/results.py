"""What a scenario came to: the checker's verdict, and what the faults cost."""

import bisect
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.history import Fault

AS_BEFORE = 0.9
"""The part of the throughput before at which the system counts as recovered."""
WINDOW = 2.0
"""Seconds over which throughput is taken."""

MISSING = ("lost", "unclaimed")
"""What the checker finds where transactions are gone that were acknowledged."""
LOST = ("lost", "unended")
DOUBLED = ("doubled", "unclaimed", "stale")
"""The kinds that the columns of the table count."""


@dataclass
class Injected:
    """A fault that was done; times are seconds of the load."""

    what: str
    begin: float
    end: float
    recovery: float | None = None
    """The time from its end until throughput was back; None: it never was."""
    times: int = 1
    """How often it was done within that time."""


@dataclass
class Result:
    """What is known of one scenario."""

    scenario: str
    seed: int
    seconds: float
    about: dict[str, Any] = field(default_factory=dict)
    """What the numbers depend on."""
    jobs: int = 0
    runs: int = 0
    calls: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of each kind of call, how many ended in which way."""
    statuses: dict[str, int] = field(default_factory=dict)
    """How many jobs ended in which."""
    verbs: dict[str, int] = field(default_factory=dict)
    """How many events there were of each."""
    summary: str = ""
    """What it does, in a sentence."""
    injected: list[Injected] = field(default_factory=list)
    wrong: dict[str, int] = field(default_factory=dict)
    """What the checker found, by kind."""
    found: list[str] = field(default_factory=list)
    """Some of it in words."""
    before: float = 0.0
    """Runs that ended a second, before the first fault."""
    recovery: float | None = None
    """The longest of the faults' recoveries; None: one never came."""
    standstill: float = 0.0
    """The longest time from the first fault on in which no run ended."""
    throughput_lost: float = 0.0
    """The part of the runs that did not end, from the first fault to the end of the load."""
    drain: float = 0.0
    """Seconds until all jobs had ended, once nobody asked for more."""
    unreached: int = 0
    """How often a client of the load could not reach the queue."""
    a_second: list[int] = field(default_factory=list)
    """Runs that ended in each second of the load."""
    notes: list[str] = field(default_factory=list)
    allowed: dict[str, int] = field(default_factory=dict)
    """What the checker found that the scenario must allow, by kind."""

    def judge(self, faults: Sequence[Fault], may_lose: bool = False) -> None:
        """Take in what the checker has found."""
        counts = Counter(fault.kind for fault in faults)
        self.allowed = {kind: counts.pop(kind, 0) for kind in MISSING} if may_lose else {}
        self.wrong = dict(counts)
        self.found = [f"{fault.kind}: {fault.what}" for fault in faults[:50]]

    def measure(self, ends: Sequence[float], begin: float, measured: float, end: float) -> None:
        """Take in when runs ended; the load lasted from begin to end, and was warm at measured."""
        times = sorted(at - begin for at in ends if at <= end)
        self.runs = len(times)
        self.a_second = [0] * (int(end - begin) + 1)
        for at in times:
            self.a_second[max(int(at), 0)] += 1
        first = min((fault.begin for fault in self.injected), default=end - begin)
        warm = measured - begin
        self.before = _count(times, warm, first) / max(first - warm, WINDOW)
        last = end - begin
        since = [at for at in [first, *times, last] if first <= at <= last]
        self.standstill = max(b - a for a, b in itertools.pairwise(since))
        for fault in self.injected:
            fault.recovery = recovery_time(times, fault.end, self.before, last)
        known = [fault.recovery for fault in self.injected if fault.recovery is not None]
        self.recovery = None if len(known) < len(self.injected) else max(known, default=0.0)
        expected = self.before * max(last - first, WINDOW)
        self.throughput_lost = 1 - _count(times, first, last) / expected if expected else 0.0

    @property
    def is_good(self) -> bool:
        """Whether nothing happened that must not."""
        return not self.wrong


def recovery_time(times: Sequence[float], after: float, before: float, last: float) -> float | None:
    """Return the seconds until throughput was back; None if it never was."""
    at = after
    while at + WINDOW <= last:
        if _count(times, at, at + WINDOW) >= AS_BEFORE * before * WINDOW:
            return at - after
        at += 0.1
    return None


def _count(times: Sequence[float], begin: float, end: float) -> int:
    return bisect.bisect_left(times, end) - bisect.bisect_left(times, begin)


def table(results: Sequence[Result]) -> str:
    """Return the results as a table of Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows_of(results))


def rows_of(results: Sequence[Result]) -> list[list[str]]:
    """Return the cells of the table, the head and the line below it first."""
    head = ["scenario", "jobs", "faults", "lost", "doubled", "other", "unknown outcomes"]
    head += ["before, runs/s", "standstill, s", "recovery, s", "throughput lost"]
    rows = [head, ["---"] * len(head)]
    for one in results:
        lost, doubled = (sum(one.wrong.get(kind, 0) for kind in kinds) for kinds in (LOST, DOUBLED))
        missing = f" ({sum(one.allowed.values())} missing, as may be)" if one.allowed else ""
        rows.append(
            [
                one.scenario,
                f"{one.jobs:,}",
                f"{sum(fault.times for fault in one.injected):,}",
                f"{lost}{missing}",
                str(doubled),
                str(sum(one.wrong.values()) - lost - doubled),
                str(sum(ways.get("unknown", 0) for ways in one.calls.values())),
                f"{one.before:.0f}",
                f"{one.standstill:.1f}",
                "not within the run" if one.recovery is None else f"{one.recovery:.1f}",
                f"{max(one.throughput_lost, 0):.0%}",
            ]
        )
    return rows


def save(path: Path, results: Sequence[Result]) -> None:
    """Write all of it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(one) for one in results], indent=1) + "\n")
