"""The checker: holds what clients were told against what the queue itself has kept.

Pure functions. What a client does not know, because its connection broke at the wrong moment, is
"maybe": it may have happened or not, and is never counted as lost or doubled.

The order is that of event_id. It is given before a transaction commits, and who waits for that
commit, because of a row, a unique key or a slot, gets a higher one. So for all that is judged
here it is the order in which things took effect, and no clock is asked; but for leases, whose
length the clients measure.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

ENDED = {"succeeded", "failed", "cancelled"}
ENDS_A_RUN = {"complete", "fail", "time_out", "snooze", "release", "reclaim"}
UNCOUNTED = {"snooze", "release", "reclaim"}
"""Ways to end a run that give the attempt back."""
STALE = {"JQ003", "JQ004"}
"""The SQLSTATEs of a call whose claim holds no more."""
TRANSITIONS = {
    (None, "enqueue", "queued"),
    (None, "enqueue", "blocked"),
    ("blocked", "unblock", "queued"),
    ("blocked", "cancel", "cancelled"),
    ("queued", "cancel", "cancelled"),
    ("queued", "claim", "running"),
    ("running", "cancel", "running"),
    ("running", "complete", "succeeded"),
    *(("running", verb, "queued") for verb in ENDS_A_RUN - {"complete"}),
    *(("running", verb, "cancelled") for verb in ENDS_A_RUN - {"complete"}),
    *(("running", verb, "failed") for verb in ("fail", "time_out", "reclaim")),
    ("failed", "retry", "queued"),
    ("cancelled", "retry", "queued"),
}
"""All that may happen to a job; what has succeeded stays so."""
IN_A_TRANSACTION = "order-"
"""What the refs of jobs begin with that are enqueued together with a row of public.orders."""


@dataclass(frozen=True)
class Entry:
    """A line of a client's own log. Each call is an intent, and mostly an outcome after it."""

    op: str
    """enqueue, claim, heartbeat, end, cancel, retry; run: a handler has begun; or done: it is over,
    and answer is what the worker is to tell the queue."""
    ref: str
    """The call. One that is made again, to learn how it went, keeps its ref."""
    outcome: str
    """intent, acknowledged, refused, rolled back or unknown."""
    job: str | None = None
    claim: int | None = None
    answer: str | None = None
    """Of an enqueue "created" or "there already", of an end its verb, else what was returned."""
    batch: str | None = None
    """The call or transaction in which several jobs are enqueued, all or none."""
    lease: float | None = None
    """For how many seconds a claim holds, from when it was asked for."""
    sqlstate: str | None = None
    """Why it was refused."""
    at: float | None = None
    """When the line was written, in seconds: the machine's monotonic clock, the same for all."""
    by: str | None = None
    """The process or client whose log it is."""


@dataclass(frozen=True)
class Event:
    """A row of job_events."""

    event_id: int
    job: str
    verb: str
    from_status: str | None
    to_status: str
    claim: int | None = None
    attempt: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A row of jobs, once all is over."""

    id: str
    status: str
    ref: str | None = None
    """What its payload says who asked for it."""
    queue: str = "default"
    unique_key: str | None = None
    concurrency_key: str | None = None
    max_attempts: int = 1
    max_losses: int = 3
    depends_on: Sequence[str] = ()
    gives_up: bool = False
    """Whether it may fail for good before its attempts are used up."""
    outlives_parents: bool = False
    """Whether it runs once those that it depends on have ended, in whatever way."""


@dataclass(frozen=True)
class Rules:
    """What was to be honoured besides."""

    limits: Mapping[str, int] = field(default_factory=dict)
    """How many jobs of a queue may run at once."""
    key_limits: Mapping[str, int] = field(default_factory=dict)
    """How many with one concurrency key."""
    every_minute: Sequence[str] = ()
    """The schedules of which no tick may be missing between the first and the last."""


@dataclass(frozen=True)
class Records:
    """What is left of a run: the clients' logs, and the tables."""

    log: Sequence[Entry]
    events: Sequence[Event]
    jobs: Sequence[Job]
    orders: frozenset[str] = frozenset()
    """The refs in public.orders, whose rows are written in the transactions that enqueue."""
    effects: Sequence[tuple[str, int]] = ()
    """The jobs and claims in public.effects, written in the transactions that complete."""
    with_effects: frozenset[str] = frozenset()
    """The jobs that write there."""


@dataclass(frozen=True)
class Fault:
    """Something that must not happen."""

    kind: str
    """lost, unended, doubled, unclaimed, unasked, stale, leases, attempts, limits, unique,
    dependencies, schedules, transactions, transitions; or died, of a process."""
    what: str


def check(records: Records, rules: Rules | None = None) -> list[Fault]:
    """Return all that is wrong."""
    rules = rules or Rules()
    replay = _Replay(records.jobs, rules)
    faults = [*replay.faults(records.events)]
    faults += _enqueues(records)
    faults += _runs(records, replay)
    faults += _leases(records.log, replay)
    faults += _untold(records.log, replay)
    faults += _asked(records, replay)
    faults += _twice(records.log)
    faults += _transactions(records)
    faults += _ticks(records.events, rules)
    return faults


def read(lines: Iterable[str]) -> Iterator[Entry]:
    """Read a log. The last line of a process that was killed may be cut off, and says nothing."""
    for line in lines:
        if line.endswith("\n"):
            yield Entry(**json.loads(line))


def read_all(directory: Path) -> list[Entry]:
    """Read the logs of all clients."""
    entries: list[Entry] = []
    for path in sorted(directory.glob("*.jsonl")):
        with path.open() as file:
            entries += read(file)
    return entries


def outcomes(log: Iterable[Entry], op: str) -> dict[str, Entry]:
    """Return of each call how it ended, as far as its client knows.

    One answer is enough to know. Without, a call is unknown if it was not answered even once: that
    a repetition was refused does not say that the first had no effect.
    """
    rank = {"rolled back": 1, "refused": 1, "unknown": 2, "acknowledged": 3}
    pending: Counter[str] = Counter()
    intents: dict[str, Entry] = {}
    best: dict[str, Entry] = {}
    for entry in log:
        if entry.op != op:
            continue
        if entry.outcome == "intent":
            pending[entry.ref] += 1
            intents[entry.ref] = entry
            continue
        pending[entry.ref] -= 1
        known = best.get(entry.ref)
        if known is None or rank[entry.outcome] > rank[known.outcome]:
            best[entry.ref] = entry
    for ref, count in pending.items():
        if count > 0 and (ref not in best or best[ref].outcome != "acknowledged"):
            best[ref] = replace(intents[ref], outcome="unknown")
    return best


class _State:
    """A job, as its events have made it so far."""

    def __init__(self) -> None:
        self.status: str | None = None
        self.claim: int | None = None
        self.attempts = self.losses = 0
        self.cancel_requested = self.has_ended = self.has_not_succeeded = False
        self.verbs: Counter[tuple[str, str]] = Counter()
        self.on_demand: Counter[str] = Counter()
        """How often what only happens if somebody asks for it."""


class _Replay:
    """Goes through the events in their order, and says what could not have happened."""

    def __init__(self, jobs: Sequence[Job], rules: Rules) -> None:
        self.jobs = {job.id: job for job in jobs}
        self.claims: dict[int, Event] = {}
        self.ends: dict[int, Event] = {}
        self.states: dict[str, _State] = defaultdict(_State)
        self._rules = rules
        self._running: Counter[tuple[str, str | None]] = Counter()
        self._holders: dict[tuple[str, str], str] = {}

    def faults(self, events: Iterable[Event]) -> Iterator[Fault]:
        for event in sorted(events, key=lambda event: event.event_id):
            state = self.states[event.job]
            job = self.jobs.get(event.job, Job(event.job, ""))
            yield from self._transition(event, state)
            if event.verb == "claim":
                yield from self._claim(event, job, state)
            elif event.verb in ENDS_A_RUN:
                yield from self._end(event, job, state)
            elif event.verb == "cancel":
                state.cancel_requested |= event.to_status == "running"
                state.on_demand["cancel"] += not self._is_doomed(event, job)
            elif event.verb == "retry":
                state.attempts = state.losses = 0
                state.cancel_requested = False
                state.on_demand["retry"] += 1
            elif event.to_status == "queued":
                yield from self._release(event, job)
            state.status = event.to_status
            state.has_ended |= event.to_status in ENDED
            state.has_not_succeeded |= event.to_status in {"failed", "cancelled"}
            state.verbs[event.verb, event.to_status] += 1
            yield from self._hold(event, job)
        for job_id in self.states.keys() | self.jobs.keys():
            yield from self._last(job_id)

    def _transition(self, event: Event, state: _State) -> Iterator[Fault]:
        if event.from_status != state.status:
            what = f"{_name(event)} comes from {event.from_status}, not {state.status}"
            yield Fault("transitions", what)
        elif (event.from_status, event.verb, event.to_status) not in TRANSITIONS:
            what = f"{_name(event)} leads from {event.from_status} to {event.to_status}"
            yield Fault("transitions", what)

    def _release(self, event: Event, job: Job) -> Iterator[Fault]:
        """Look whether a job that need not wait any more has nothing to wait for."""
        for parent in job.depends_on:
            its = self.states[parent]
            is_over = its.has_ended if job.outlives_parents else its.status == "succeeded"
            if not is_over:
                yield Fault("dependencies", f"{_name(event)}, but {parent} is {its.status}")

    def _is_doomed(self, event: Event, job: Job) -> bool:
        """Return whether a parent's end is reason enough to cancel a job."""
        is_over = any(self.states[parent].has_not_succeeded for parent in job.depends_on)
        return event.from_status == "blocked" and not job.outlives_parents and is_over

    def _claim(self, event: Event, job: Job, state: _State) -> Iterator[Fault]:
        if event.claim is None:
            yield Fault("unclaimed", f"{_name(event)} has no number")
            return
        if state.claim is not None:
            yield Fault("doubled", f"{_name(event)} while claim {state.claim} holds")
        if event.claim in self.claims:
            yield Fault("doubled", f"{_name(event)}: the number was used before")
        state.claim = event.claim
        self.claims[event.claim] = event
        state.attempts += 1
        if event.attempt != state.attempts:
            yield Fault("attempts", f"{_name(event)} is attempt {state.attempts}")
        if state.attempts > job.max_attempts:
            yield Fault("attempts", f"{_name(event)}, of {job.max_attempts}")
        for lane, limit in self._limits(job):
            self._running[lane] += 1
            if limit is not None and self._running[lane] > limit:
                yield Fault("limits", f"{_name(event)} is number {self._running[lane]} of {lane}")

    def _end(self, event: Event, job: Job, state: _State) -> Iterator[Fault]:
        if event.claim is None or event.claim != state.claim:
            yield Fault("stale", f"{_name(event)} while claim {state.claim} holds")
            return
        state.claim = None
        self.ends[event.claim] = event
        if event.attempt not in (None, state.attempts):
            yield Fault("attempts", f"{_name(event)}, ends attempt {state.attempts}")
        for lane, _ in self._limits(job):
            self._running[lane] -= 1
        state.losses += event.verb == "reclaim"
        expected = _expected(event, job, state)
        if event.to_status not in expected:
            yield Fault(
                "attempts",
                f"{_name(event)}, attempt {state.attempts} of {job.max_attempts}, loss "
                f"{state.losses} of {job.max_losses}: {event.to_status}, not {expected}",
            )
        state.attempts -= event.verb in UNCOUNTED

    def _limits(self, job: Job) -> list[tuple[tuple[str, str | None], int | None]]:
        lanes: list[tuple[tuple[str, str | None], int | None]] = [
            ((job.queue, None), self._rules.limits.get(job.queue))
        ]
        if job.concurrency_key is not None:
            lanes.append(((job.queue, job.concurrency_key), self._rules.key_limits.get(job.queue)))
        return lanes

    def _hold(self, event: Event, job: Job) -> Iterator[Fault]:
        if job.unique_key is None:
            return
        key = job.queue, job.unique_key
        holder = self._holders.get(key)
        if event.to_status in ENDED:
            if holder == job.id:
                del self._holders[key]
        elif holder is None:
            self._holders[key] = job.id
        elif holder != job.id:
            yield Fault("unique", f"{_name(event)}: {key} is held by {holder}")

    def _last(self, job_id: str) -> Iterator[Fault]:
        job, state = self.jobs.get(job_id), self.states[job_id]
        if job is None:
            yield Fault("lost", f"job {job_id} has a history, but is gone")
        elif job.status not in ENDED:
            yield Fault("unended", f"job {job_id} has never ended: it is {job.status}")
        elif job.status != state.status:
            yield Fault(
                "transitions", f"job {job_id} is {job.status}, by its history {state.status}"
            )


def _expected(event: Event, job: Job, state: _State) -> set[str]:
    """Return what may become of the job."""
    if event.verb == "complete":
        return {"succeeded"}
    if state.cancel_requested:
        return {"cancelled"}
    if event.verb in {"snooze", "release"}:
        return {"queued"}
    if event.verb == "reclaim":
        return {"queued" if state.losses < job.max_losses else "failed"}
    if state.attempts >= job.max_attempts:
        return {"failed"}
    return {"queued", "failed"} if job.gives_up else {"queued"}


def _enqueues(records: Records) -> Iterator[Fault]:
    """Hold what was enqueued, as clients were told, against the jobs that there are."""
    jobs = {job.id: job for job in records.jobs}
    made: dict[str, list[str]] = defaultdict(list)
    for job in records.jobs:
        if job.ref is not None:
            made[job.ref].append(job.id)
    for ref, ids in made.items():
        if len(ids) > 1:
            yield Fault("doubled", f"{ref} was enqueued {len(ids)} times")
    answered: dict[str, set[str | None]] = defaultdict(set)
    batches: dict[str, set[str]] = defaultdict(set)
    for entry in records.log:
        if entry.op == "enqueue" and entry.outcome == "acknowledged":
            answered[entry.ref].add(entry.job)
        if entry.op == "enqueue" and entry.batch is not None:
            batches[entry.batch].add(entry.ref)
    for ref, answers in answered.items():
        if len(answers) > 1:
            yield Fault("doubled", f"{ref} was acknowledged as the jobs {answers}")
    for batch, refs in batches.items():
        if refs & made.keys() and refs - made.keys():
            yield Fault("transactions", f"{batch}: there is no {refs - made.keys()}")
    known = outcomes(records.log, "enqueue")
    for ref in made.keys() - known.keys():
        yield Fault("unasked", f"{ref} was enqueued {len(made[ref])} times")
    for ref, entry in known.items():
        mine, told = made.get(ref, []), jobs.get(entry.job or "")
        if entry.outcome in {"rolled back", "refused"} and mine:
            yield Fault("transactions", f"{ref} was {entry.outcome}, but the job is there")
        elif entry.outcome != "acknowledged":
            continue
        elif told is None:
            yield Fault("lost", f"{ref} was acknowledged as job {entry.job}")
        elif told.id not in mine and (entry.answer == "created" or told.unique_key is None):
            yield Fault("lost", f"{ref} was acknowledged as job {told.id}, which is {told.ref}")
        elif mine and told.id not in mine:
            yield Fault("transactions", f"{ref} was there already, but is job {mine} too")


def _runs(records: Records, replay: _Replay) -> Iterator[Fault]:
    """Hold what was claimed, run and ended, as clients were told, against the history."""
    for op in ("claim", "run"):
        for ref, entry in outcomes(records.log, op).items():
            if entry.outcome == "acknowledged" and entry.claim is not None:
                claimed = replay.claims.get(entry.claim)
                if claimed is None or claimed.job != entry.job:
                    yield Fault("unclaimed", f"{op} {ref}: job {entry.job} under no claim of its")
    for ref, entry in outcomes(records.log, "end").items():
        end = replay.ends.get(entry.claim) if entry.claim is not None else None
        is_there = end is not None and end.verb == entry.answer and end.job == entry.job
        if entry.outcome == "acknowledged" and not is_there:
            yield Fault("lost", f"{ref} was accepted: {entry.answer} of job {entry.job}")
        if entry.outcome == "refused" and is_there:
            yield Fault("stale", f"{ref} was refused, and took effect: {entry.answer}")
    meant: dict[tuple[str | None, int | None], set[str | None]] = defaultdict(set)
    for entry in records.log:
        if entry.op in {"end", "done"}:
            meant[entry.job, entry.claim].add(entry.answer)
    for event in replay.ends.values():
        verbs = meant[event.job, event.claim]
        if event.verb not in {"complete", "fail", "snooze"} or event.to_status == "cancelled":
            continue
        # A worker may fail what it could not begin, or what has died under way.
        if event.verb not in verbs and (verbs or event.verb != "fail"):
            yield Fault("unasked", f"{_name(event)}, whose run was to {verbs or 'go on'}")


def _leases(log: Sequence[Entry], replay: _Replay) -> Iterator[Fault]:
    """Look for claims that were refused though their leases had not run out."""
    intents: dict[tuple[str, str], float] = {}
    until: dict[tuple[str | None, int | None], float] = {}
    ends = outcomes(log, "end")
    for entry in log:
        if entry.at is None:
            continue
        if entry.outcome == "intent":
            intents[entry.op, entry.ref] = entry.at
        elif entry.outcome == "acknowledged" and entry.lease is not None:
            until[entry.job, entry.claim] = intents[entry.op, entry.ref] + entry.lease
        elif entry.op == "end" and entry.sqlstate in STALE and entry.claim in replay.claims:
            left = until.get((entry.job, entry.claim), entry.at) - entry.at
            if left > 0 and ends[entry.ref].outcome == "refused":
                yield Fault("leases", f"{entry.ref} was refused {left:.3f} s before its lease ends")


def _untold(log: Sequence[Entry], replay: _Replay) -> Iterator[Fault]:
    """Look for runs that were to complete, and of which a worker never told though it lived on.

    It did if it claimed more at least a second later. When a claim was made is known from those of
    other clients, who have noted when they asked: later claims have higher numbers.
    """
    claims = [entry for entry in log if entry.op == "claim" and entry.at is not None]
    asked = {entry.ref: entry.at or 0 for entry in claims if entry.outcome == "intent"}
    clock = [(asked[entry.ref], entry.claim) for entry in claims if entry.claim is not None]
    runs: dict[str | None, list[int]] = defaultdict(list)
    done: dict[int, list[Entry]] = defaultdict(list)
    for entry in log:
        if entry.op == "run" and entry.claim in replay.claims:
            runs[entry.by].append(entry.claim)
        if entry.op == "done" and entry.claim is not None and entry.at is not None:
            done[entry.claim].append(entry)
    for claim, end in replay.ends.items():
        if end.verb != "reclaim" or {entry.answer for entry in done[claim]} != {"complete"}:
            continue
        last = done[claim][-1]
        later = min((known for at, known in clock if at > (last.at or 0) + 1), default=None)
        for other in runs[last.by]:
            if later and other > later and replay.claims[other].event_id < end.event_id:
                yield Fault("lost", f"{_name(end)}, which {last.by} had done before claim {other}")
                break


def _asked(records: Records, replay: _Replay) -> Iterator[Fault]:
    """Hold what was asked of jobs, as clients were told, against their history."""
    for op in ("cancel", "retry"):
        calls = outcomes(records.log, op).values()
        maybe = Counter(one.job for one in calls if one.outcome == "unknown")
        told = Counter(one.job for one in calls if one.outcome == "acknowledged" and _acts(one))
        for job in {*replay.states}:
            count = replay.states[job].on_demand[op]
            if count > told[job] + maybe[job] and not maybe[None]:  # a call for many may be for any
                is_child = op == "cancel" and job in replay.jobs and replay.jobs[job].depends_on
                kind = "dependencies" if is_child else "unasked"
                yield Fault(kind, f"{count} times {op} of job {job}, asked for {told[job]} times")
        for one in calls:
            if one.outcome != "acknowledged" or one.job is None or not _acts(one):
                continue
            if not _is_seen(one, told[one.job], replay.states[one.job]):
                yield Fault("lost", f"{one.ref}, {op} of job {one.job}: {one.answer}")


def _acts(entry: Entry) -> bool:
    """Return whether something must be seen of an acknowledged call."""
    return entry.op == "retry" or entry.answer in {"cancelled", "requested"}


def _is_seen(entry: Entry, count: int, state: _State) -> bool:
    """Return whether a job's history has what was acknowledged, of calls like it so often.

    A job is cancelled but once: who asks again is told the same, be it by the end of its run.
    """
    if entry.op == "retry":
        return state.on_demand["retry"] >= count
    wanted = ("cancel", "running" if entry.answer == "requested" else "cancelled")
    return not state.verbs.keys().isdisjoint({wanted, *_CANCELLED_BY_ITS_END})


_CANCELLED_BY_ITS_END = {(verb, "cancelled") for verb in ENDS_A_RUN}


def _twice(log: Iterable[Entry]) -> Iterator[Fault]:
    """Look for claims that were run twice, or ended twice, as far as the callers were told."""
    told = Counter(
        (one.op, one.job, one.claim)
        for one in log
        if one.op in {"run", "end"} and one.outcome == "acknowledged"
    )
    for (op, job, claim), count in told.items():
        if count > 1:
            yield Fault("doubled", f"{count} times {op} of job {job} under claim {claim}")


def _transactions(records: Records) -> Iterator[Fault]:
    """Look for halves: of what was to be enqueued or completed with other writes, or not at all."""
    refs = {job.ref for job in records.jobs if job.ref and job.ref.startswith(IN_A_TRANSACTION)}
    for ref in refs ^ records.orders:
        half = "job" if ref in refs else "order"
        yield Fault("transactions", f"{ref}: of the job and the order only the {half} is there")
    completed: set[tuple[str, int | None]] = {
        (event.job, event.claim)
        for event in records.events
        if event.verb == "complete" and event.job in records.with_effects
    }
    effects: Counter[tuple[str, int | None]] = Counter(records.effects)
    for run in completed | effects.keys():
        if (run in completed, effects[run]) != (True, 1):
            told = "completed" if run in completed else "not completed"
            yield Fault("transactions", f"{run} was {told}, with {effects[run]} effects")


def _ticks(events: Iterable[Event], rules: Rules) -> Iterator[Fault]:
    """Look for ticks of schedules that fired twice, or never."""
    fired: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event.verb == "enqueue" and "tick" in event.detail:
            fired[event.detail["schedule"]].append(event.detail["tick"])
    for schedule, ticks in fired.items():
        for tick, count in Counter(ticks).items():
            if count > 1:
                yield Fault("schedules", f"{schedule} fired {count} times for {tick}")
    for schedule in rules.every_minute:
        ticks = fired[schedule]
        if not ticks:
            yield Fault("schedules", f"{schedule} has never fired")
            continue
        for tick in set(range(min(ticks), max(ticks), 60)) - set(ticks):
            yield Fault("schedules", f"{schedule} did not fire for {tick}")
        for tick in {tick for tick in ticks if tick % 60}:
            yield Fault("schedules", f"{schedule} fired for {tick}, which is no tick of its")


def _name(event: Event) -> str:
    attempt = "" if event.attempt is None else f", attempt {event.attempt}"
    claim = "" if event.claim is None else f" under claim {event.claim}"
    return f"event {event.event_id}, {event.verb} of job {event.job}{claim}{attempt}"
