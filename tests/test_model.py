"""Whatever is called in whatever order, the database does what the model says.

MODEL_EXAMPLES=2000 pytest tests/test_model.py looks longer, and elsewhere each time.
"""

import json
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg.conninfo import make_conninfo
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb
from pytest_postgresql import factories

from tests.model import LOST, TIMED_OUT, UNFINISHED, Event, Job, Model, Queue
from tests.support import UNKNOWN_JOB, Connection, value

SCHEMA = Path(__file__).resolve().parent.parent / "database" / "schema"

CLOCK = re.compile(r"([\w.]*)\bclock_timestamp\(\)")

CLOCK_OF_THE_TESTS = """
create schema test_clock;
create function test_clock.clock_timestamp() returns timestamptz language sql volatile as $$
  select pg_catalog.current_setting('test_clock.now')::pg_catalog.timestamptz
$$;
set test_clock.now = '2050-01-01 00:00:00+00';
"""


def _load(host: str, port: int, user: str, dbname: str, password: str | None, **_: Any) -> None:
    where = make_conninfo(host=host, port=port, user=user, dbname=dbname, password=password)
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(CLOCK_OF_THE_TESTS)
        for path in sorted(SCHEMA.glob("*.sql")):
            connection.execute(CLOCK.sub("test_clock.clock_timestamp()", path.read_text()).encode())


clock_template = factories.postgresql_noproc(
    depends_on="server", dbname="job_queue_clock", load=[_load]
)
clock_database = factories.postgresql("clock_template")


@pytest.fixture
def clocked(clock_database: Connection) -> Connection:
    """A connection to a database whose clock shows the setting test_clock.now."""
    clock_database.autocommit = True
    clock_database.row_factory = namedtuple_row
    clock_database.execute("set search_path = public, job_queue")
    clock_database.execute("set synchronous_commit = off")
    return clock_database


def seconds(*numbers: float) -> st.SearchStrategy[timedelta]:
    return st.sampled_from([timedelta(seconds=number) for number in numbers])


# Indexes into whatever jobs or claims there are by then.
INDEXES = st.integers(0, 50)
QUEUES = st.sampled_from(["a", "a", "b"])
TYPES = st.sampled_from(["x", "y"])
WORKERS = st.sampled_from(["one", "two"])
LEASES = seconds(0.5, 10, 60, 3600)
ERRORS = st.sampled_from(["boom", "bang", None])
RUNS = st.tuples(INDEXES, st.sampled_from(["right"] * 4 + ["foreign"] * 2 + ["stale"] * 2 + ["no"]))
ATTEMPTS = st.integers(1, 3)
LIMITS = st.sampled_from([1, 1, 2, 3, None])
RECOVERY = st.sampled_from(["due", "not due", "as it is"])

JOBS = st.fixed_dictionaries(
    {"queue": QUEUES, "job_type": TYPES},
    optional={
        "priority": st.integers(0, 3),
        "delay": seconds(0, 0.001, 30, 3600),
        "max_attempts": ATTEMPTS,
        "max_losses": st.integers(0, 3),
        "retry_delay": seconds(0, 0.5, 10),
        "retry_delay_max": seconds(0, 15),
        "timeout": seconds(0.5, 60, 600),
        "unique_key": st.sampled_from(["u", "v"]),
        "concurrency_key": st.sampled_from(["k", "k", "l"]),
        "depends_on": st.lists(INDEXES, max_size=3),
        "on_parent_failure": st.sampled_from(["cancel", "release"]),
    },
)
"""Jobs as enqueue_jobs wants them, save that depends_on has indexes."""

ENDS: st.SearchStrategy[tuple[str, dict[str, Any]]] = st.one_of(
    st.tuples(st.just("complete"), st.fixed_dictionaries({"result": st.just(Jsonb(["done"]))})),
    st.tuples(
        st.just("fail"),
        st.fixed_dictionaries(
            {"error": ERRORS, "retryable": st.sampled_from([True, True, False])},
            optional={"delay": seconds(0, 5)},
        ),
    ),
    st.tuples(st.just("snooze"), st.fixed_dictionaries({"delay": seconds(0, 1, 3600)})),
    st.tuples(st.just("release"), st.just({})),
)
"""The verbs that end a run, with their arguments."""

NAMES = {("fail", "delay"): "retry_in"}

POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "paused": st.sampled_from([False, False, True, None]),
        "concurrency_limit": LIMITS,
        "key_concurrency_limit": LIMITS,
        "max_attempts": ATTEMPTS | st.none(),
        "max_losses": st.integers(0, 2) | st.none(),
    },
)

CLAIMS = st.fixed_dictionaries(
    {
        "limit": st.sampled_from([None, 1, 2, 3, 5]),
        "worker": WORKERS,
        "queues": st.sampled_from([None, None, ["a"], ["b", "a"], ["a", "b", "a"]]),
        "job_types": st.sampled_from([None, None, ["x"], ["y"], ["y", "x"]]),
        "lease": LEASES,
        "recovery": RECOVERY,
    }
)
"""How to claim; a limit of None means claim_next_job."""


def has_been_claimed(machine: "Machine") -> bool:
    """Return whether there have been any runs, which a call could be about."""
    return bool(machine.model.past_claims)


class Machine(RuleBasedStateMachine):
    """Calls the functions of the database and of the model, and compares."""

    db: ClassVar[Connection]

    @initialize(
        policies=st.tuples(POLICIES, POLICIES),
        jobs=st.lists(JOBS, min_size=4, max_size=9),
        lease=LEASES,
        ends=st.lists(st.tuples(st.booleans(), RUNS, ENDS), min_size=2, max_size=5),
    )
    def begin(
        self, policies: Any, jobs: list[dict[str, Any]], lease: timedelta, ends: list[Any]
    ) -> None:
        self.model = Model()
        self.db.execute(
            """
            truncate jobs, claims, job_dependencies, job_events, worker_sightings;
            delete from queues;
            alter sequence reclaim_due restart;
            alter sequence prune_cursor restart;
            alter sequence dependency_cursor restart;
            select setseed(0.5);
            """
        )
        self.transitions = {tuple(row) for row in self.db.execute("table job_transitions")}
        self.last_event_id = value(self.db, "select coalesce(max(event_id), 0) from job_events")
        self.last_claim_id = 0
        self.is_sound = True
        self.pass_time(timedelta())
        for queue, policy in zip("ab", policies, strict=True):
            usual = {"max_attempts": 2} | ({"key_concurrency_limit": 1} if queue == "a" else {})
            self.set_queue(queue, usual | policy | {"paused": False})
        self.enqueue_many(jobs)
        self.claim({**ANY, "limit": 4, "lease": lease, "recovery": "due"})
        # Each example has some runs that end, and some that were to be cancelled before.
        for is_to_stop, run, end in ends:
            self.the_rows_are_those_of_the_model()
            if is_to_stop and self.run_at(*run)[0] in self.model.jobs:
                job = self.model.jobs[self.run_at(*run)[0]]
                assert self.ask("cancel_job", job_id=job.id) == [(self.model.cancel(job),)]
            self.end_a_run(run, end)

    # Helpers

    def ask(self, function: str, **arguments: Any) -> list[Any]:
        """Call a function of the database and return its rows."""
        self.is_sound = False
        named = ", ".join(f"p_{name} => %({name})s" for name in arguments)
        return self.db.execute(f"select * from {function}({named})", arguments).fetchall()

    def refused(self, sqlstate: str, function: str, **arguments: Any) -> None:
        """Call a function that must raise this. That nothing changes, the invariants see."""
        with pytest.raises(psycopg.DatabaseError) as raised:
            self.ask(function, **arguments)
        assert raised.value.sqlstate == sqlstate, raised.value
        assert raised.value.diag.message_hint

    def ask_or_be_refused(self, sqlstate: str | None, function: str, **arguments: Any) -> Any:
        """Return the answer, or None where the call must be refused."""
        if sqlstate is None:
            return self.ask(function, **arguments)[0][0]
        self.refused(sqlstate, function, **arguments)
        return None

    def pass_time(self, time: timedelta) -> None:
        self.model.now += time
        self.db.execute(
            "select set_config('test_clock.now', %s, false)", [self.model.now.isoformat()]
        )

    def job_at(self, index: int) -> Job | None:
        jobs = list(self.model.jobs.values())
        return jobs[index % len(jobs)] if jobs else None

    def run_at(self, index: int, kind: str) -> tuple[Any, int]:
        """Return the ids of a job and a claim which may or may not hold it."""
        running = [(claim.job.id, claim_id) for claim_id, claim in self.model.claims.items()]
        if kind == "right" and running:
            return running[index % len(running)]
        job = self.job_at(index)
        if kind == "foreign" and job and running:
            return job.id, running[-index % len(running)][1]
        if kind == "stale" and self.model.past_claims:
            return self.model.past_claims[index % len(self.model.past_claims)]
        return UNKNOWN_JOB, running[0][1] if running else 1

    def spelled_out(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the job with ids for indexes."""
        job = dict(given)
        if "depends_on" in job:
            parents = [self.job_at(index) for index in job["depends_on"]]
            job["depends_on"] = [parent.id for parent in parents if parent]
        return job

    # Clients

    @rule(given=JOBS)
    def enqueue(self, given: dict[str, Any]) -> None:
        job = self.spelled_out(given)
        [[job_id]] = self.ask("enqueue_job", **job)
        if holder := self.model.holder(job["queue"], job.get("unique_key")):
            assert job_id == holder.id
        else:
            assert job_id not in self.model.jobs
            self.model.settle_new([self.model.add(job_id, **job)])

    @rule(given=st.lists(JOBS, max_size=5))
    def enqueue_many(self, given: list[dict[str, Any]]) -> None:
        jobs = [self.spelled_out(job) for job in given]
        rows = self.ask("enqueue_jobs", jobs=as_json(jobs))
        new = []
        for job, row in zip(jobs, rows, strict=True):
            holder = self.model.holder(job["queue"], job.get("unique_key"))
            assert row.created == (holder is None)
            if holder:
                assert row.id == holder.id
            else:
                assert row.id not in self.model.jobs
                new.append(self.model.add(row.id, **job))
        self.model.settle_new(new)

    @rule(given=JOBS, many=st.booleans())
    def enqueue_after_a_job_that_does_not_exist(self, given: dict[str, Any], many: bool) -> None:
        job = {**given, "depends_on": [UNKNOWN_JOB]}
        job.pop("unique_key", None)
        if many:
            self.refused("JQ002", "enqueue_jobs", jobs=as_json([{"queue": "a"}, job]))
        else:
            self.refused("JQ002", "enqueue_job", **job)

    @rule(index=INDEXES)
    def cancel(self, index: int) -> None:
        if job := self.job_at(index):
            assert self.ask("cancel_job", job_id=job.id) == [(self.model.cancel(job),)]
        else:
            self.refused("JQ002", "cancel_job", job_id=UNKNOWN_JOB)

    @rule(index=INDEXES, ended=st.booleans())
    def retry(self, index: int, ended: bool) -> None:
        jobs = self.model.with_status("failed", "cancelled")
        job = jobs[index % len(jobs)] if ended and jobs else self.job_at(index)
        refusal = self.model.retry_refusal(job)
        self.ask_or_be_refused(refusal, "retry_job", job_id=job.id if job else UNKNOWN_JOB)
        if job and refusal is None:
            self.model.retry(job)

    @precondition(lambda self: self.model.with_status("failed"))
    @rule(
        queue=QUEUES | st.none(),
        job_type=TYPES | st.none(),
        error=st.sampled_from([None, "oo", LOST, TIMED_OUT]),
        limit=st.sampled_from([1, 1000]),
        dry_run=st.booleans(),
    )
    def retry_many(self, queue: Any, job_type: Any, error: Any, limit: int, dry_run: bool) -> None:
        filters = {"queue": queue, "job_type": job_type, "error": error}
        if not any(filters.values()):
            self.refused("JQ001", "retry_jobs", **filters)
            return
        rows = self.ask("retry_jobs", **filters, limit=limit, dry_run=dry_run)
        matching = [
            job
            for job in self.model.with_status("failed")
            if (queue or job.queue) == job.queue
            and (job_type or job.job_type) == job.job_type
            and (not error or error in (job.result["error"] or ""))
        ]
        chosen = [self.model.jobs[row.id] for row in rows]
        assert len({job.id for job in chosen}) == len(chosen) == min(limit, len(matching))
        assert all(job in matching for job in chosen)
        # Of those that failed at the same time either may be the first.
        assert [job.failed_at for job in chosen] == sorted(
            job.failed_at for job in matching if job.failed_at
        )[:limit]
        for job, row in zip(chosen, rows, strict=True):
            if dry_run:
                assert row.outcome == "would be retried"
            elif self.model.retry_refusal(job):
                assert row.outcome == "unique key held"
            else:
                assert row.outcome == "retried"
                self.model.retry(job)

    @rule(queue=QUEUES, policy=POLICIES)
    def set_queue(self, queue: str, policy: dict[str, Any]) -> None:
        self.ask("set_queue", queue=queue, policy=Jsonb(policy))
        known = self.model.queues.setdefault(queue, Queue())
        for name, setting in policy.items():
            setattr(known, name, bool(setting) if name == "paused" else setting)

    @rule(queue=QUEUES, paused=st.booleans())
    def pause_or_resume(self, queue: str, paused: bool) -> None:
        self.ask("pause_queue" if paused else "resume_queue", queue=queue)
        self.model.queues.setdefault(queue, Queue()).paused = paused

    # Workers

    @precondition(lambda self: self.model.due())
    @rule(how=CLAIMS)
    def claim(self, how: dict[str, Any]) -> None:
        self.recover_before(how)
        arguments = {name: how[name] for name in ("worker", "queues", "job_types", "lease")}
        if how["limit"] is None:
            rows = self.ask("claim_next_job", **arguments)
        else:
            rows = self.ask("claim_jobs", limit=how["limit"], **arguments)
        self.take_over(rows, how)

    @precondition(lambda self: self.model.due())
    @rule(limit=st.integers(1, 5), lease=LEASES)
    def claim_anything(self, limit: int, lease: timedelta) -> None:
        self.claim({**ANY, "limit": limit, "lease": lease, "recovery": "due"})

    @rule(how=CLAIMS, runs=st.lists(RUNS, max_size=3))
    def complete_and_claim(self, how: dict[str, Any], runs: list[tuple[int, str]]) -> None:
        how = {**how, "limit": how["limit"] or 1, "job_types": None, "recovery": "due"}
        pairs = [self.run_at(*run) for run in runs]
        results = [{"result": [position]} for position in range(len(pairs))]
        answers = self.model.end_many("complete", pairs, results)
        refused = [
            (str(job_id), claim_id, refusal)
            for (job_id, claim_id), (_, refusal) in zip(pairs, answers, strict=True)
            if refusal
        ]
        self.recover_before(how)
        rows = self.ask(
            "complete_and_claim",
            runs=as_json(
                [
                    {"job_id": job_id, "claim_id": claim_id, **result}
                    for (job_id, claim_id), result in zip(pairs, results, strict=True)
                ]
            ),
            **{name: how[name] for name in ("limit", "worker", "queues", "job_types", "lease")},
        )
        assert [(str(row.id), row.claim_id, row.refusal) for row in rows[: len(refused)]] == refused
        claimed = rows[len(refused) :]
        assert all(row.refusal is None for row in claimed)
        self.take_over(claimed, how)

    def recover_before(self, how: dict[str, Any]) -> None:
        """Make recovery due, or not, before a claim, and let the model do it.

        Without types in the way, recovery puts back each job that its key no longer keeps from
        being claimed. With them, only those are put back that come before the others of their key,
        whatever their type; which they are is then read before the claim.
        """
        since = self.model.now - (self.model.recovered_at or self.model.now - timedelta(days=1))
        is_due = since > timedelta(seconds=1)
        if how["recovery"] != "as it is" or since == timedelta(seconds=1):
            is_due = how["recovery"] == "due"
            self.db.execute(
                "select setval('reclaim_due', (%s * 1000000)::bigint)",
                [self.model.now.timestamp() + 1 if not is_due else 0],
            )
        if is_due and how["job_types"] not in (None, ["y", "x"]):
            self.maintain()
            self.the_rows_are_those_of_the_model()
            self.db.execute(
                "select setval('reclaim_due', (%s * 1000000)::bigint)",
                [self.model.now.timestamp() + 1],
            )
        elif is_due:
            self.model.recover()
            self.model.aside = set()
        self.model.recovered_at = self.model.now if is_due else self.model.recovered_at
        if not is_due:
            self.model.recovered_at = self.model.now

    def take_over(self, rows: list[Any], how: dict[str, Any]) -> None:
        """Check that the claim took what was next, and let the model take it too."""
        answers = self.model.next_jobs(how["limit"] or 1, how["queues"], how["job_types"])
        assert [row.id for row in rows] in [[job.id for job in jobs] for jobs in answers]
        for row in rows:
            job = self.model.jobs[row.id]
            assert row.claim_id > self.last_claim_id
            self.last_claim_id = row.claim_id
            self.model.claim(job, row.claim_id, how["worker"], how["lease"])
            assert (row.status, row.attempt, row.run_at) == ("running", job.attempts, job.run_at)
            assert (row.queue, row.job_type, row.priority, row.max_attempts, row.timeout) == (
                (job.queue, job.job_type, job.priority, job.max_attempts, job.timeout)
            )
        waiting = self.db.execute("select id from jobs where waits_for_key").fetchall()
        for (job_id,) in waiting:
            if job_id not in self.model.aside:
                self.assert_its_key_is_at_its_limit(self.model.jobs[job_id])
        self.model.aside = {job_id for (job_id,) in waiting}

    def assert_its_key_is_at_its_limit(self, job: Job) -> None:
        limit = self.model.policy(job.queue).key_concurrency_limit
        assert limit is not None
        assert job.concurrency_key is not None
        assert self.running_with(job) >= limit

    def running_with(self, job: Job) -> int:
        """Return how many jobs run with the same key in the same queue."""
        return sum(
            (other.queue, other.concurrency_key) == (job.queue, job.concurrency_key)
            for other in self.model.with_status("running")
        )

    @precondition(has_been_claimed)
    @rule(run=RUNS, end=ENDS)
    def end_a_run(self, run: tuple[int, str], end: tuple[str, dict[str, Any]]) -> None:
        verb, how = end
        job_id, claim_id = self.run_at(*run)
        refusal = self.model.refusal(job_id, claim_id)
        status = self.ask_or_be_refused(
            refusal,
            f"{verb}_job",
            job_id=job_id,
            claim_id=claim_id,
            **{NAMES.get((verb, name), name): argument for name, argument in how.items()},
        )
        if refusal is None:
            if verb == "complete":
                how = {"result": how["result"].obj}
            after = self.model.end(claim_id, verb, **how)
            assert status == (after if verb == "fail" else "")

    @precondition(has_been_claimed)
    @rule(runs=st.lists(RUNS, max_size=5))
    def complete_many(self, runs: list[tuple[int, str]]) -> None:
        pairs = [self.run_at(*run) for run in runs]
        how = [{"result": [position]} for position in range(len(runs))]
        self.end_many("complete", pairs, how, how)

    def end_many(self, verb: str, pairs: list[Any], given: list[Any], how: list[Any]) -> None:
        """Call complete_jobs and the like, in its words and then in the model's."""
        ids = [{"job_id": job_id, "claim_id": claim_id} for job_id, claim_id in pairs]
        rows = self.ask(
            f"{verb}_jobs", runs=as_json([a | b for a, b in zip(ids, given, strict=True)])
        )
        answers = self.model.end_many(verb, pairs, how)
        assert [(str(row[0]), *row[1:]) for row in rows] == [
            (str(job_id), claim_id, *answer)
            for (job_id, claim_id), answer in zip(pairs, answers, strict=True)
        ]

    @precondition(has_been_claimed)
    @rule(
        runs=st.lists(
            st.tuples(RUNS, ERRORS, st.booleans() | st.none(), st.none() | seconds(0, 5)),
            max_size=5,
        )
    )
    def fail_many(self, runs: list[Any]) -> None:
        given, how = [], []
        for _, error, retryable, delay in runs:
            given.append({"error": error, "retryable": retryable, "retry_in": delay})
            how.append({"error": error, "retryable": retryable is not False, "delay": delay})
        self.end_many("fail", [self.run_at(*run[0]) for run in runs], given, how)

    @precondition(has_been_claimed)
    @rule(runs=st.lists(RUNS, max_size=5))
    def release_many(self, runs: list[tuple[int, str]]) -> None:
        how: list[dict[str, Any]] = [{} for _ in runs]
        self.end_many("release", [self.run_at(*run) for run in runs], how, how)

    @precondition(has_been_claimed)
    @rule(run=RUNS, progress=st.integers(0, 100))
    def report_progress(self, run: tuple[int, str], progress: int) -> None:
        job_id, claim_id = self.run_at(*run)
        refusal = self.model.refusal(job_id, claim_id)
        self.ask_or_be_refused(
            refusal, "report_progress", job_id=job_id, claim_id=claim_id, progress=Jsonb(progress)
        )
        if refusal is None:
            self.model.claims[claim_id].progress = progress

    @precondition(has_been_claimed)
    @rule(runs=st.lists(RUNS, max_size=4), lease=LEASES | st.none())
    def heartbeat(self, runs: list[tuple[int, str]], lease: timedelta | None) -> None:
        claim_ids = [self.run_at(*run)[1] for run in runs]
        rows = self.ask("heartbeat", claim_ids=claim_ids, lease=lease)
        answers = [(claim_id, *self.model.heartbeat(claim_id, lease)) for claim_id in claim_ids]
        assert sorted(map(tuple, rows)) == sorted(answers)

    # Time

    @rule(time=seconds(0.001, 0.5, 1, 5, 30, 300, 1800))
    def wait(self, time: timedelta) -> None:
        self.pass_time(time)

    @precondition(lambda self: self.model.instants_ahead())
    @rule(index=INDEXES, before=st.sampled_from([False, False, True]), then=st.booleans())
    def wait_until_something_is_due(self, index: int, before: bool, then: bool) -> None:
        instants = self.model.instants_ahead()
        time = instants[index % len(instants)] - self.model.now
        self.pass_time(time - timedelta(microseconds=1) if before else time)
        if then:
            self.maintain()

    @rule(lost_first=st.booleans())
    def recover_what_is_overdue(self, lost_first: bool) -> None:
        if lost_first:
            assert self.ask("reclaim_expired_claims") == [(self.model.reclaim(),)]
        assert self.ask("time_out_jobs") == [(self.model.time_out(),)]

    @rule()
    def maintain(self) -> None:
        [[done]] = self.ask("run_maintenance")
        timed_out, reclaimed = self.model.recover()
        assert (done["timed_out"], done["reclaimed"]) == (timed_out, reclaimed)
        # The end of each parent settled what there was to settle, and nothing is old enough to go.
        assert (done["settled"], done["fired"], done["pruned"]) == (0, 0, 0)
        waiting = {id for (id,) in self.db.execute("select id from jobs where waits_for_key")}
        self.model.aside &= waiting
        for job_id in waiting:
            job = self.model.jobs[job_id]
            if not self.model.policy(job.queue).paused:
                self.assert_its_key_leaves_no_room(job)

    def assert_its_key_leaves_no_room(self, job: Job) -> None:
        """Assert that those of its key that run, and those before it, use up the limit."""
        limit = self.model.policy(job.queue).key_concurrency_limit
        assert limit is not None
        before = [
            other
            for other in self.model.due()
            if (other.queue, other.concurrency_key) == (job.queue, job.concurrency_key)
            and other.id not in self.model.aside
            and other.place < job.place
        ]
        assert self.running_with(job) + len(before) >= limit

    # What holds after each step

    @invariant()
    def the_rows_are_those_of_the_model(self) -> None:
        self.jobs_are_as_the_model_says()
        self.claims_are_as_the_model_says()
        self.history_is_as_the_model_says()
        waits = self.db.execute(
            "select job_id, parent_id from job_dependencies join jobs on jobs.id = job_id"
            " where status = 'blocked'"
        )
        assert {tuple(row) for row in waits} == {
            (job.id, parent.id)
            for job in self.model.with_status("blocked")
            for parent in job.waits_for
        }
        policies = self.db.execute(
            "select queue, paused, concurrency_limit, key_concurrency_limit, max_attempts,"
            " max_losses from queues"
        )
        assert {row[0]: Queue(*row[1:]) for row in policies} == self.model.queues
        self.is_sound = True

    def jobs_are_as_the_model_says(self) -> None:
        rows = {row.id: row for row in self.db.execute("table jobs")}
        assert rows.keys() == self.model.jobs.keys()
        for job in self.model.jobs.values():
            row = rows[job.id]
            if job.may_wait is not None:
                assert self.model.now <= row.run_at <= self.model.now + job.may_wait
                job.run_at, job.may_wait = row.run_at, None
            for name in COMPARED:
                assert getattr(row, name) == getattr(job, name), (name, row, job)
            assert without_numbers(row.result) == job.result
            assert row.held_key == (job.unique_key if job.status in UNFINISHED else None)
            if row.waits_for_key:
                assert job.id in self.model.aside
                assert job in self.model.due()
            assert row.claimable == (job.status == "queued" and not row.waits_for_key)
        self.model.aside = {row.id for row in rows.values() if row.waits_for_key}
        keys = [(row.queue, row.unique_key) for row in rows.values() if row.status in UNFINISHED]
        assert all(key is None or keys.count((queue, key)) == 1 for queue, key in keys)

    def claims_are_as_the_model_says(self) -> None:
        rows = self.db.execute(
            "select claim_id, job_id, worker, lease, claimed_at, expires_at, deadline_at, progress"
            " from claims"
        )
        assert {row.claim_id: tuple(row) for row in rows} == {
            claim_id: (
                claim_id,
                claim.job.id,
                claim.worker,
                claim.lease,
                claim.claimed_at,
                claim.expires_at,
                claim.deadline_at,
                claim.progress,
            )
            for claim_id, claim in self.model.claims.items()
        }

    def history_is_as_the_model_says(self) -> None:
        rows = self.db.execute(
            "select event_id, job_id, verb, from_status, to_status, claim_id, attempt, at"
            " from job_events where event_id > %s order by event_id",
            [self.last_event_id],
        ).fetchall()
        happened = [Event(*row[1:7]) for row in rows]
        expected, self.model.events = self.model.events, []
        for job_id in {event.job_id for event in happened + expected}:
            assert [event for event in happened if event.job_id == job_id] == [
                event for event in expected if event.job_id == job_id
            ]
        assert {(row.from_status, row.verb, row.to_status) for row in rows} <= self.transitions
        assert all(row.at == self.model.now for row in rows)
        self.last_event_id = rows[-1].event_id if rows else self.last_event_id

    # In the end

    def teardown(self) -> None:
        if getattr(self, "is_sound", False):
            self.everything_can_finish()

    def everything_can_finish(self) -> None:
        for queue in list(self.model.queues):
            self.pause_or_resume(queue, False)
        turns = 0
        while self.model.with_status(*UNFINISHED):
            turns += 1
            assert turns < 500, self.model.with_status(*UNFINISHED)
            instants = self.model.instants_ahead()
            if not self.model.due() and not self.model.claims and instants:
                self.pass_time(instants[0] - self.model.now)
            self.claim({**ANY, "recovery": "due"})
            self.the_rows_are_those_of_the_model()
            self.complete_many([(index, "right") for index in range(len(self.model.claims))])
            self.the_rows_are_those_of_the_model()
        assert value(self.db, "select count(*) from claims") == 0
        assert value(self.db, "select count(*) from job_dependencies") == 0


COMPARED = (
    "id",
    "status",
    "created_at",
    "updated_at",
    "job_type",
    "queue",
    "priority",
    "run_at",
    "attempts",
    "max_attempts",
    "retry_delay",
    "retry_delay_max",
    "cancel_requested",
    "timeout",
    "unique_key",
    "losses",
    "max_losses",
    "concurrency_key",
    "failed_at",
    "depends_on",
)

ANY = {
    "limit": 100,
    "worker": "last",
    "queues": None,
    "job_types": None,
    "lease": timedelta(hours=1),
}


def as_json(rows: list[dict[str, Any]]) -> Jsonb:
    """Return the argument of a function that takes many, intervals and ids written as text."""

    def written(thing: Any) -> str:
        return f"{thing.total_seconds()} seconds" if isinstance(thing, timedelta) else str(thing)

    return Jsonb(rows, dumps=lambda rows: json.dumps(rows, default=written))


def without_numbers(result: Any) -> Any:
    """Return the result of a job, of the errors that recovery writes only the beginning."""
    error = result.get("error") if isinstance(result, dict) else None
    for beginning in (LOST, TIMED_OUT):
        if error is not None and error.startswith(beginning):
            return {"error": beginning}
    return result


def test_the_database_does_what_the_model_says(clocked: Connection) -> None:
    Machine.db = clocked
    examples = os.environ.get("MODEL_EXAMPLES")
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=int(examples or 100),
            stateful_step_count=50,
            derandomize=examples is None,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def mentions_of_the_clock(db: Connection) -> dict[str, set[str]]:
    """Return how the functions, defaults and views of the schema qualify their clock's name."""
    rows = db.execute(
        """
        select proname::text, pg_get_functiondef(oid)
          from pg_proc where pronamespace = 'job_queue'::regnamespace
        union all
        select adrelid::regclass || '.' || adnum, pg_get_expr(adbin, adrelid)
          from pg_attrdef
          join pg_class as relation on relation.oid = adrelid
         where relnamespace = 'job_queue'::regnamespace
        union all
        select relname, pg_get_viewdef(oid)
          from pg_class where relnamespace = 'job_queue'::regnamespace and relkind in ('v', 'm')
        """
    )
    return {
        name: mentions
        for name, text in rows
        if (mentions := {qualifier.rstrip(".") for qualifier in CLOCK.findall(text)})
    }


def test_no_session_can_set_the_clock_of_a_migrated_database(
    db: Connection, clocked: Connection
) -> None:
    mentions = mentions_of_the_clock(db)
    assert set().union(*mentions.values()) <= {"", "pg_catalog"}
    assert value(db, "select to_regnamespace('test_clock')") is None
    # Here the test looks where the clock is: in a database with another, it finds that.
    replaced = mentions_of_the_clock(clocked)
    assert replaced.keys() == mentions.keys()
    assert set().union(*replaced.values()) == {"test_clock"}
