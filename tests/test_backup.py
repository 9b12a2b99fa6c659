"""A dump of a queue at work, restored elsewhere, works on: nothing is stuck, lost or done twice.

What is done to a copy is what database/README.md says: its options, and then its statements.
"""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import namedtuple_row

from database.local import programs
from tests.conftest import ROOT, Database
from tests.faults import history, load
from tests.faults.__main__ import ALL_HAVE_ENDED, RULES, collect
from tests.faults.system import LEASE, TABLES, set_policies
from tests.support import (
    Connection,
    claim,
    enqueue,
    eventually,
    one,
    raises_and_changes_nothing,
    skip_unless_required,
    value,
)
from tests.worker.conftest import WorkerProcess

README = (ROOT / "database" / "README.md").read_text()
[SECTION] = re.findall(r"^## Backup and restore\n(.*?)^## ", README, re.M | re.S)
[DUMP] = re.findall(r"^pg_dump (.*) --file=", SECTION, re.M)
[RESTORE] = re.findall(r"^pg_restore (.*) --dbname=", SECTION, re.M)
[STATEMENTS] = re.findall(r"```sql\n(.*?)```", SECTION, re.S)
FOR_TRIALS = re.findall(r"^jobs=> (.*);$", SECTION, re.M)

COPY = "job_queue_test_copy"


@pytest.fixture
def run_program(db: Connection) -> Callable[..., None]:
    """Run a program of PostgreSQL's, of the version of the server."""
    major = db.info.server_version // 10_000

    def run(name: str, options: str, conninfo: str, *arguments: str) -> None:
        places = [programs(), Path(f"/usr/lib/postgresql/{major}/bin")]
        for path in (place / name for place in places):
            if path.exists() and f" {major}." in _output(path, "--version"):
                _output(path, *options.split(), *arguments, f"--dbname={conninfo}")
                return
        skip_unless_required("pg_dump", f"there is no {name} of PostgreSQL {major}")

    return run


def _output(program: Path, *arguments: str) -> str:
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def copy(
    db: Connection, conninfo: str, run_program: Callable[..., None], tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """Dump the test's database and restore it as another, of which the conninfo is returned."""
    where = make_conninfo(conninfo, dbname=COPY)

    def make(*, is_adopted: bool = True) -> str:
        file = str(tmp_path / "jobs.dump")
        run_program("pg_dump", DUMP, conninfo, f"--file={file}")
        db.execute(f"create database {COPY}")
        run_program("pg_restore", RESTORE, where, file)
        if is_adopted:
            with psycopg.connect(where, autocommit=True) as connection:
                adopt(connection)
        return where

    yield make
    db.execute(f"drop database if exists {COPY} with (force)")


def adopt(connection: Connection) -> None:
    """Execute what the README says that a copy needs, in its order."""
    name = connection.info.dbname
    for statement in STATEMENTS.replace("DATABASE jobs", f"DATABASE {name}").split(";"):
        if statement.strip():
            connection.execute(statement)


@contextmanager
def session(conninfo: str) -> Iterator[Connection]:
    """Open a new session, with the search_path that its database gives it."""
    with psycopg.connect(conninfo, autocommit=True, row_factory=namedtuple_row) as connection:
        yield connection


class Site:
    """A database with a load, or what is left of one, and a real worker."""

    def __init__(self, conninfo: str, logs: Path, clients: tuple[type[load.Client], ...]) -> None:
        logs.mkdir()
        self.logs = logs
        self.load = load.Load(1, logs, lambda: conninfo, api_port=0)
        self.load.clients = [one for one in self.load.clients if isinstance(one, clients)]
        self.load.start()
        self.worker = WorkerProcess(
            logs / "worker.log",
            {
                "DATABASE_URL": conninfo,
                "WORKER_HANDLERS": "tests.faults.handlers",
                "WORKER_LEASE": str(LEASE),
                "POLL_SECONDS": "0.5",
                "FAULTS_LOGS": str(logs),
            },
        )

    def leave(self) -> None:
        """End it as a machine does that loses its power: what runs is not handed back."""
        self.load.end()
        self.worker.process.kill()
        self.worker.process.wait()


def test_a_dump_of_a_queue_at_work_works_on_elsewhere(
    db: Connection, conninfo: str, copy: Callable[[], str], tmp_path: Path
) -> None:
    db.execute(TABLES)
    set_policies(db)
    users = (load.ByStatement, load.ByTransaction, load.Operator, load.ByHand)
    original = Site(conninfo, tmp_path / "original", users)
    try:
        for verb in ("complete", "fail", "unblock", "cancel"):
            eventually(partial(_has, db, verb, 10))
        lost = enqueue(db, queue="lost", job_type="lost", max_losses=0)
        assert claim_for(db, "lost", "10 s").id == lost
        known = history.read_all(original.logs)
        where = copy()
    finally:
        original.leave()

    with session(where) as there:
        assert value(there, "select status from jobs where id = %s", lost) == "running"
        copied = Site(where, tmp_path / "copy", (load.ByHand,))
        try:
            eventually(lambda: value(there, ALL_HAVE_ENDED), 60)
            there.execute("select pause_schedule(schedule) from list_schedules()")
            eventually(lambda: value(there, ALL_HAVE_ENDED))
        finally:
            copied.leave()
        asked = [one for one in history.read_all(original.logs) if one.outcome == "intent"]
        # Its clients number their calls as those of the original do.
        later = [replace(one, ref=f"copy, {one.ref}") for one in history.read_all(copied.logs)]
        log = [*known, *asked, *later]  # asked: also for what came after `known`
        with psycopg.connect(where) as plain:  # its rows are tuples
            records, _ = collect(plain, log)
        assert len(known) > 100
        assert history.check(records, RULES) == []
        assert value(there, "select status from jobs where id = %s", lost) == "failed"


def claim_for(db: Connection, queue: str, lease: str) -> Any:
    """Claim a job for a worker that never comes back."""
    query = "select * from claim_next_job('gone', array[%s], p_lease => %s)"
    return one(db, query, queue, lease)


def _has(db: Connection, verb: str, events: int) -> bool:
    return bool(value(db, "select count(*) >= %s from job_events where verb = %s", events, verb))


def test_a_claim_of_before_is_refused_in_the_copy_by_whoever_has_the_job_then(
    db: Connection, copy: Callable[..., str]
) -> None:
    """The original gives a number after the dump, which the copy must not give again."""
    job_id = enqueue(db)
    where = copy()
    late = claim(db)
    assert late.id == job_id
    with session(where) as there:
        new = claim(there)
        assert new.id == job_id
        complete = "select complete_job(%s, %s)"
        with raises_and_changes_nothing(there, "JQ004", "claim"):
            there.execute(complete, [job_id, late.claim_id])
        there.execute(complete, [job_id, new.claim_id])


def test_events_of_the_copy_come_after_those_of_the_original(
    db: Connection, copy: Callable[..., str]
) -> None:
    """Whoever has read the original's to their end reads on in the copy."""
    enqueue(db)
    where = copy()
    enqueue(db)
    position = value(db, "select until from settled_events(null)")
    with session(where) as there:
        job_id = enqueue(there)
        step = one(there, "select * from settled_events(%s)", position)
        step = one(
            there,
            "select * from settled_events(%s, 1000, %s, %s)",
            step.until,
            step.gap_until,
            step.gap_xid,
        )
        read = there.execute(
            "select job_id from list_events(%s, p_until => %s)", [position, step.until]
        )
        assert [row.job_id for row in read] == [job_id]


def test_who_waits_for_a_transaction_of_another_server_does_not_wait_for_ever(
    db: Connection, connect: Callable[[], Connection]
) -> None:
    with db.transaction(force_rollback=True):
        enqueue(db)
    enqueue(db)
    last = value(db, "select max(event_id) from job_events")
    settled = "select * from settled_events(0, 1000, %s, %s)"
    with connect() as other, other.transaction():
        other.execute("select pg_current_xact_id()")
        step = one(db, settled, last, 2**62)
        assert (step.until, step.gap_until) == (0, last)
        assert step.gap_xid < 2**62
    step = one(db, settled, step.gap_until, step.gap_xid)
    assert step.until == last


def test_a_job_that_must_not_run_twice_does_not_in_the_copy(
    db: Connection, copy: Callable[..., str]
) -> None:
    ids = [enqueue(db, max_losses=losses) for losses in (0, 3)]
    for _ in ids:
        claim_for(db, "default", "1 s")
    with session(copy()) as there:
        eventually(lambda: not claims_left(there))
        statuses = [value(there, "select status from jobs where id = %s", id_) for id_ in ids]
        assert statuses == ["failed", "queued"]


def test_a_copy_to_try_things_out_on_does_nothing_that_the_original_does(
    db: Connection, copy: Callable[..., str]
) -> None:
    enqueue(db, queue="running", max_attempts=9)
    claim_for(db, "running", "1 s")
    parent = enqueue(db, delay="1 hour")
    for policy in ("cancel", "release"):
        enqueue(db, depends_on=[parent], on_parent_failure=policy)
    db.execute("""select set_queue('keyed', '{"key_concurrency_limit": 1}')""")
    for _ in range(2):
        enqueue(db, queue="keyed", concurrency_key="key")
    for _ in range(2):
        db.execute("select claim_next_job('gone', '{keyed}', p_lease => '1 s')")
    assert value(db, "select count(*) from jobs where waits_for_key") == 1
    db.execute("select set_schedule('minutely', '* * * * *')")
    db.execute("update schedules set next_at = now() - interval '1 hour'")
    with session(copy()) as there:
        for statement in FOR_TRIALS:
            there.execute(statement)
        eventually(lambda: not claims_left(there))
        assert value(there, "select count(*) from claim_jobs(10)") == 0
        assert value(there, "select array_agg(distinct status) from jobs") == ["cancelled"]
        assert value(there, "select count(*) from jobs") == 6


def claims_left(db: Connection) -> Any:
    """Run maintenance, as workers do, and count the claims."""
    db.execute("select run_maintenance()")
    return value(db, "select count(*) from claims")


def test_the_copy_of_an_owner_who_is_no_superuser_is_what_the_original_is(
    new_database: Callable[[str], Database], run_program: Callable[..., None], tmp_path: Path
) -> None:
    original, restored = new_database("job_queue_test_a"), new_database("job_queue_test_b")
    original.yoyo("apply")
    with original.connect() as owner:
        job_id = enqueue(owner)
    file = str(tmp_path / "jobs.dump")
    run_program("pg_dump", DUMP, conninfo_of(original), f"--file={file}")
    run_program("pg_restore", RESTORE, conninfo_of(restored), file)
    with restored.connect() as owner:
        adopt(owner)
    assert restored.dump() == original.dump()
    assert restored.search_path == original.search_path
    restored.yoyo("apply")
    assert restored.dump() == original.dump()
    with restored.connect() as owner:
        assert value(owner, "select id from claim_next_job()") == job_id


def conninfo_of(database: Database) -> str:
    """Return how its owner connects."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    parts = {name: database.environment[variable] for name, variable in names.items()}
    return make_conninfo("", dbname=database.name, **parts)


def test_a_copy_without_privileges_is_nobodys_until_the_roles_are_granted_theirs(
    db: Connection, copy: Callable[..., str]
) -> None:
    public = """
        select count(*)
          from pg_proc
         where pronamespace = 'job_queue'::regnamespace
           and (proacl is null or exists (
             select from aclexplode(proacl) where grantee = 0 and privilege_type = 'EXECUTE'))
        """
    usage = "select has_schema_privilege('job_queue_client', 'job_queue', 'usage')"
    with session(copy(is_adopted=False)) as there:
        assert value(there, public) > 0
        assert not value(there, usage)
        adopt(there)
        assert value(there, public) == 0
        assert value(there, usage)
