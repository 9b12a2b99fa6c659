"""A mixed load from a seed: clients that ask for jobs in every way, and log what they are told."""

import http.client
import json
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.faults.history import IN_A_TRANSACTION
from tests.faults.log import Log

LIMITS = {"limited": 2}
KEY_LIMITS = {"keyed": 1}
"""So low that jobs have to wait for each other."""
SCHEDULES = ("every-minute-1", "every-minute-2")
GIVING_UP = {"hopeless"}
"""The types of jobs that may fail before their attempts are used up."""
BY_HAND = "by hand"
"""The type of the jobs that no worker of ours runs, but clients of the load."""
LEASE_BY_HAND = 1.0
ENDS_BY_HAND = {
    "complete": ", '{}'",
    "fail": ", 'not this time'",
    "snooze": ", interval '0.1 seconds'",
    "release": "",
}
"""The ways in which it ends, with what else the function is told."""

KINDS = {
    "quick": 28,
    "dozy": 2,
    "slow": 4,
    "async": 4,
    "process": 1,
    "flaky": 6,
    "hopeless": 3,
    "late": 1,
    "effect": 10,
    "long": 2,
    "later": 4,
    "child": 6,
    "orphan": 2,
    "unique": 6,
    "mortal": 2,
    "limited": 6,
    "keyed": 6,
    BY_HAND: 7,
}
"""The kinds of jobs, and how often each is asked for, of a hundred."""

OF_AN_ENDING_CONNECTION = ("08", "57P")
"""SQLSTATEs after which it is not known whether the call took effect."""

_CLAIM = """
select id, claim_id
  from job_queue.claim_next_job(
         p_worker => %s, p_queues => array['by hand'], p_job_types => array['by hand'],
         p_lease => make_interval(secs => %s))
"""

Job = dict[str, Any]
"""A job to enqueue, with the members that POST /jobs has."""


def a_job(chance: random.Random, ref: str, parents: list[str]) -> Job:
    """Make one up."""
    [kind] = chance.choices(list(KINDS), list(KINDS.values()))
    job: Job = {"job_type": kind, "payload": {"ref": ref}, "priority": chance.randrange(4)}
    seconds = round(chance.uniform(0.05, 1.0), 3)
    match kind:
        case "slow" | "async":
            job["payload"]["seconds"] = seconds
        case "long":  # longer than a lease; often cancelled
            job |= {"job_type": "slow", "payload": {"ref": ref, "seconds": 5 * seconds}}
        case "flaky":
            job |= {"max_attempts": 3, "retry_delay_seconds": 0.2}
        case "hopeless":
            job["max_attempts"] = 3
        case "late":
            job |= {"timeout_seconds": 0.5, "max_attempts": 2, "retry_delay_seconds": 0.1}
        case "later":
            job |= {"job_type": "quick", "delay_seconds": seconds}
        case "child":
            job |= {"job_type": "quick", "depends_on": chance.sample(parents, min(2, len(parents)))}
        case "orphan":  # runs though its parents fail
            job["depends_on"] = chance.sample(parents, min(2, len(parents)))
            job["on_parent_failure"] = "release"
        case "unique":
            job |= {"job_type": "slow", "payload": {"ref": ref, "seconds": seconds}}
            job["unique_key"] = f"key {chance.randrange(5)}"
        case "mortal":
            job |= {"job_type": "hopeless", "payload": {"ref": ref, "seconds": seconds}}
            job["unique_key"] = f"key {chance.randrange(5)}"
        case "limited":
            job |= {"job_type": "slow", "payload": {"ref": ref, "seconds": seconds / 2}}
            job["queue"] = "limited"
        case "keyed":
            job |= {"job_type": "slow", "payload": {"ref": ref, "seconds": seconds / 2}}
            job["queue"] = "keyed"
            job["concurrency_key"] = f"key {chance.randrange(3)}"
        case "by hand":
            job |= {"queue": BY_HAND, "max_attempts": 2, "retry_delay_seconds": 0.1}
            job["max_losses"] = 2
    return job


def arguments(job: Job) -> Job:
    """Return the members as the parameters of enqueue_job have them, without their p_."""
    return {
        name.removesuffix("_seconds"): f"{value} seconds" if name.endswith("_seconds") else value
        for name, value in job.items()
    }


def outcome_of(error: Exception) -> str:
    """Return what a client knows after this: refused, or that it does not know."""
    sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
    if sqlstate is None or sqlstate.startswith(OF_AN_ENDING_CONNECTION):
        return "unknown"
    return "refused"


class Client(threading.Thread):
    """Does something so many times a second, and connects again when it must."""

    def __init__(self, load: "Load", name: str, a_second: float) -> None:
        super().__init__(name=name, daemon=True)
        self.load = load
        self.log = Log(load.logs / f"{name}.jsonl")
        self.chance = random.Random(f"{load.seed} {name}")
        self.is_over = load.is_over
        self._interval = 1 / a_second
        self._number = 0
        self._connection: psycopg.Connection[Any] | None = None
        self.failures = 0
        """How often it could not reach the queue."""

    def run(self) -> None:
        due = time.monotonic()
        while not self.is_over.is_set():
            try:
                self.act()
            except (OSError, psycopg.Error, http.client.HTTPException):
                self.failures += 1
                self.disconnect()
                self.is_over.wait(0.2)
            due = max(due + self._interval, time.monotonic() - 1)
            self.is_over.wait(due - time.monotonic())
        self.disconnect()

    def act(self) -> None:
        """Do it once."""
        raise NotImplementedError

    def connect(self) -> psycopg.Connection[Any]:
        """Return the connection."""
        if self._connection is None:
            self._connection = psycopg.connect(
                self.load.conninfo(),
                autocommit=True,
                prepare_threshold=None,
                connect_timeout=3,
                tcp_user_timeout=8000,
            )
        return self._connection

    def disconnect(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def ref(self, prefix: str = "") -> str:
        """Return a new name for a call."""
        self._number += 1
        return f"{prefix}{self.name}-{self._number}"

    def call(
        self, op: str, ref: str, query: Any, parameters: Any, **members: Any
    ) -> list[Any] | None:
        """Make a call of one statement and return its rows; log an outcome that is no success.

        Raises the error if the connection has to be opened anew.
        """
        connection = self.connect()
        self.log.write(op, ref, "intent", **members)
        try:
            return connection.execute(query, parameters).fetchall()
        except psycopg.Error as error:
            self.log.write(op, ref, outcome_of(error), sqlstate=error.sqlstate, **members)
            if connection.broken or outcome_of(error) == "unknown":
                raise
            return None

    def acknowledged(self, ref: str, job_id: Any, answer: str | None = "created") -> None:
        """Log that a job was enqueued."""
        self.log.write("enqueue", ref, "acknowledged", job=job_id, answer=answer)
        self.load.known.append(str(job_id))

    def retry(self, job_id: Any) -> None:
        """Ask for a job to be tried again."""
        ref = self.ref()
        rows = self.call("retry", ref, "select job_queue.retry_job(%s)", [job_id], job=job_id)
        if rows is not None:
            self.log.write("retry", ref, "acknowledged", job=job_id)

    def parents(self) -> list[str]:
        """Return some jobs that exist."""
        return list(self.load.known)[-20:]


class ByStatement(Client):
    """Enqueues by SQL, one call a transaction."""

    def act(self) -> None:
        ref = self.ref()
        job = arguments(a_job(self.chance, ref, self.parents()))
        if self.chance.random() < 0.5:
            rows = self.call("enqueue", ref, *enqueue_job(job))
            if rows is not None:  # it does not say whether a unique job was there already
                self.acknowledged(ref, rows[0][0], None if "unique_key" in job else "created")
            return
        query = "select id, created from job_queue.enqueue_jobs(%s)"
        rows = self.call("enqueue", ref, query, [Jsonb([job])])
        if rows is not None:
            [(job_id, created)] = rows
            self.acknowledged(ref, job_id, "created" if created else "there already")


class ByTransaction(Client):
    """Enqueues in transactions together with other writes, of which some are rolled back."""

    def act(self) -> None:
        connection = self.connect()
        refs = [self.ref(IN_A_TRANSACTION) for _ in range(self.chance.randint(1, 3))]
        ids: list[str] = []
        for ref in refs:
            self.log.write("enqueue", ref, "intent", batch=f"transaction of {refs[0]}")
        outcome = "rolled back"
        try:
            connection.execute("begin")
            for ref in refs:  # each but the first waits for those before it
                job = {"job_type": "quick", "payload": {"ref": ref}, "depends_on": [*ids]}
                connection.execute("insert into public.orders values (%s)", [ref])
                row = connection.execute(*enqueue_job(job)).fetchone()
                assert row is not None
                ids.append(str(row[0]))
            if self.chance.random() < 0.3:
                connection.execute("rollback")
            else:
                outcome = "unknown"
                connection.execute("commit")
                outcome = "acknowledged"
        except psycopg.Error as error:
            if outcome == "unknown" and outcome_of(error) == "refused":
                outcome = "rolled back"
            raise
        finally:
            for place, ref in enumerate(refs):
                if outcome == "acknowledged":
                    self.acknowledged(ref, ids[place])
                else:
                    self.log.write("enqueue", ref, outcome)


class ByBatch(Client):
    """Enqueues many in one call, all or none; now and then one of them is wrong."""

    def act(self) -> None:
        batch = self.ref()
        refs = [f"{batch}.{number}" for number in range(self.chance.randint(2, 20))]
        jobs: list[Job] = [{"job_type": "quick", "payload": {"ref": ref}} for ref in refs]
        if self.chance.random() < 0.2:
            self.chance.choice(jobs)["priority"] = 9
        connection = self.connect()
        for ref in refs:
            self.log.write("enqueue", ref, "intent", batch=batch)
        query = "select id from job_queue.enqueue_jobs(%s)"
        try:
            rows = connection.execute(query, [Jsonb(jobs)]).fetchall()
        except psycopg.Error as error:
            for ref in refs:
                self.log.write("enqueue", ref, outcome_of(error), sqlstate=error.sqlstate)
            if connection.broken or outcome_of(error) == "unknown":
                raise
            return
        for ref, (job_id,) in zip(refs, rows, strict=True):
            self.acknowledged(ref, job_id)


class ByRest(Client):
    """Enqueues by POST /jobs, and asks again with the same Idempotency-Key if it must, or can."""

    def act(self) -> None:
        ref = self.ref()
        job = a_job(self.chance, ref, self.parents())
        for _ in range(8):
            self.log.write("enqueue", ref, "intent")
            status, body = self._post(json.dumps(job), ref)
            if status in (200, 201):
                unique = "unique_key" in job
                self.acknowledged(ref, json.loads(body)["id"], None if unique else "created")
                if self.chance.random() < 0.8:
                    return
                continue
            if 400 <= status < 500:
                self.log.write("enqueue", ref, "refused")
                return
            self.log.write("enqueue", ref, "unknown")
            self.failures += 1
            if self.is_over.wait(0.5):
                return

    def _post(self, body: str, key: str) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": f'"{key}"'}
        connection = http.client.HTTPConnection("127.0.0.1", self.load.api_port, timeout=15)
        try:
            connection.request("POST", "/jobs", body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()


class Operator(Client):
    """Cancels jobs, and has failed or cancelled ones tried again."""

    def __init__(self, load: "Load", name: str, a_second: float) -> None:
        super().__init__(load, name, a_second)
        self.dead: list[str] = []

    def act(self) -> None:
        ways = [self._cancel, self._retry, self._cancel_many, self._retry_many]
        [do] = self.chance.choices(ways, [65, 25, 5, 5])
        do()

    def _cancel(self) -> None:
        if not self.load.known:
            return
        ref, job_id = self.ref(), self.chance.choice(list(self.load.known)[-15:])
        rows = self.call("cancel", ref, "select job_queue.cancel_job(%s)", [job_id], job=job_id)
        if rows is not None:
            self.log.write("cancel", ref, "acknowledged", job=job_id, answer=rows[0][0])
            if rows[0][0] == "cancelled":
                self.dead.append(job_id)

    def _retry(self) -> None:
        if not self.dead:
            query = "select id from job_queue.list_dead_jobs(p_limit => 10)"
            self.dead += [str(job_id) for (job_id,) in self.connect().execute(query)]
            return
        self.retry(self.dead.pop(self.chance.randrange(len(self.dead))))

    def _cancel_many(self) -> None:
        query = "select id, outcome from job_queue.cancel_jobs(%s, p_limit => 2)"
        self._many("cancel", query, self.chance.choice(["default", "limited", "keyed", BY_HAND]))

    def _retry_many(self) -> None:
        query = """
            select id, null from job_queue.retry_jobs(%s, p_limit => 5) where outcome = 'retried'
        """
        self._many("retry", query, self.chance.choice(["default", BY_HAND]))

    def _many(self, op: str, query: str, queue: str) -> None:
        """Do it to all in a queue, up to a limit. Without an answer it is not known to which."""
        ref = self.ref()
        rows = self.call(op, ref, query, [queue])
        if rows is None:
            return
        self.log.write(op, ref, "acknowledged")
        for place, (job_id, answer) in enumerate(rows):
            self.log.write(op, f"{ref}.{place}", "acknowledged", job=job_id, answer=answer)


class ByHand(Client):
    """A worker in SQL: it ends jobs in every way, forgets some, and comes too late with others."""

    def __init__(self, load: "Load", name: str, a_second: float) -> None:
        super().__init__(load, name, a_second)
        self.is_over = load.is_done

    def act(self) -> None:
        ref = self.ref()
        rows = self.call("claim", ref, _CLAIM, [self.name, LEASE_BY_HAND])
        if rows is None:
            return
        if not rows:
            self.log.write("claim", ref, "acknowledged")
            return
        [(job_id, claim_id)] = rows
        held = {"job": job_id, "claim": claim_id, "lease": LEASE_BY_HAND}
        self.log.write("claim", ref, "acknowledged", **held)
        if self.chance.random() < 0.1:
            self.retry(job_id)  # in vain, as it runs
        fate = self.chance.random()
        if fate < 0.1:
            return
        if fate < 0.4:
            time.sleep(self.chance.uniform(0.4, 2.5) * LEASE_BY_HAND)
        elif fate < 0.45:
            time.sleep(0.7 * LEASE_BY_HAND)
            self._renew(held)
            time.sleep(0.7 * LEASE_BY_HAND)
        verb = self.chance.choices(list(ENDS_BY_HAND), [6, 3, 1, 1])[0]
        for _ in range(self.chance.choice([1, 1, 1, 2])):
            self._end(verb, job_id, claim_id)

    def _renew(self, held: dict[str, Any]) -> None:
        ref = self.ref()
        query = "select held from job_queue.heartbeat(array[%s::bigint])"
        rows = self.call("heartbeat", ref, query, [held["claim"]])
        if rows == [(True,)]:
            self.log.write("heartbeat", ref, "acknowledged", **held)

    def _end(self, verb: str, job_id: Any, claim_id: int) -> None:
        ref = f"end {claim_id}"
        query = f"select job_queue.{verb}_job(%s, %s{ENDS_BY_HAND[verb]})"
        members = {"job": job_id, "claim": claim_id, "answer": verb}
        if self.call("end", ref, query, [job_id, claim_id], **members) is not None:
            self.log.write("end", ref, "acknowledged", **members)


def enqueue_job(job: Job) -> tuple[sql.Composed, Job]:
    """Return a statement that calls enqueue_job, and its parameters."""
    named = sql.SQL(", ").join(
        sql.SQL("p_{} => {}").format(sql.SQL(name), sql.Placeholder(name)) for name in job
    )
    query = sql.SQL("select job_queue.enqueue_job({})").format(named)
    types = {"payload": Jsonb}
    return query, {name: types.get(name, lambda value: value)(job[name]) for name in job}


class Load:
    """All clients together."""

    def __init__(
        self, seed: int, logs: Path, conninfo: Callable[[], str], api_port: int, factor: float = 1.0
    ) -> None:
        self.seed, self.logs, self.conninfo, self.api_port = seed, logs, conninfo, api_port
        self.is_over, self.is_done = threading.Event(), threading.Event()
        self.known: deque[str] = deque(maxlen=200)
        self.clients: list[Client] = [
            *(ByStatement(self, f"statement-{number}", 15 * factor) for number in range(2)),
            ByTransaction(self, "transaction", 6 * factor),
            ByBatch(self, "batch", factor),
            *(ByRest(self, f"rest-{number}", 8 * factor) for number in range(2)),
            Operator(self, "operator", 4 * factor),
            *(ByHand(self, f"by-hand-{number}", 4 * factor) for number in range(3)),
        ]

    def start(self) -> None:
        """Begin."""
        for client in self.clients:
            client.start()

    def stop(self) -> None:
        """Ask for no more jobs, and wait for the answers that are due."""
        self.is_over.set()
        self._wait_for([one for one in self.clients if one.is_over is self.is_over])

    def end(self) -> None:
        """End the rest: what works by hand."""
        self.is_over.set()
        self.is_done.set()
        self._wait_for(self.clients)

    def _wait_for(self, clients: list[Client]) -> None:
        deadline = time.monotonic() + 60
        for client in clients:
            client.join(timeout=max(deadline - time.monotonic(), 0))
            if client.is_alive():
                raise TimeoutError(f"{client.name} of the load waits for ever")

    @property
    def failures(self) -> int:
        """How often a client could not reach the queue."""
        return sum(client.failures for client in self.clients)
