"""The faults. Each function does one to a system under load, and leaves it whole.

What must hold is always what history.py checks, and that every job ends: of each scenario its
docstring says what else to expect.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.faults.system import API, CLIENT, LEASE, POOLED, WORKER, Layout, System, migrate_to


@dataclass(frozen=True)
class Scenario:
    """A fault, and the system that it is done to."""

    inject: Callable[[System, float], None]
    layout: Layout
    is_short: bool
    may_lose: bool

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.inject.__name__.replace("_", "-")

    @property
    def summary(self) -> str:
        """The first line of what it does."""
        return (self.inject.__doc__ or "").splitlines()[0]


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    layout: Layout | None = None, *, short: bool = False, may_lose: bool = False
) -> Callable[[Callable[[System, float], None]], Callable[[System, float], None]]:
    """Register a scenario; short: of the short mode; may_lose: what is missing is only told."""

    def register(inject: Callable[[System, float], None]) -> Callable[[System, float], None]:
        one = Scenario(inject, layout or Layout(), short, may_lose)
        SCENARIOS[one.name] = one
        return inject

    return register


def _until(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def _kill_worker(system: System) -> None:
    with system.fault("kill -9 of a worker"):
        system.kill_worker(system.chance.choice(system.running_workers()))
        system.start_worker()


def _freeze_workers(system: System) -> None:
    frozen = system.running_workers()[1:]
    with system.fault("SIGSTOP of workers"):
        for worker in frozen:
            worker.send_signal(signal.SIGSTOP)
        time.sleep(LEASE + 2.5)
        for worker in frozen:
            worker.send_signal(signal.SIGCONT)


def _restart_worker(system: System) -> None:
    worker = system.running_workers()[0]
    with system.fault("SIGTERM of a worker"):
        worker.terminate()
        status = worker.wait(timeout=30)
        system.workers.remove(worker)
        system.start_worker()
    if status != 0:
        system.notes.append(f"a worker that was told to stop ended with status {status}")


def _kill_api(system: System) -> None:
    assert system.api is not None
    with system.fault("kill -9 of the API"):
        with system.observe() as connection, connection.transaction():
            connection.execute("lock table job_queue.job_events in share mode")
            time.sleep(0.3)  # for requests to come, whose jobs are committed once it has died
            system.api.kill()
            system.api.wait()
        system.start_api()


def _terminate_backends(system: System, seconds: float) -> None:
    goes_on = _until(seconds)
    with system.observe() as connection, system.fault("pg_terminate_backend at random") as fault:
        fault.times = 0
        while goes_on():
            ended = connection.execute(
                """
                select pg_terminate_backend(pid)
                  from pg_stat_activity
                 where backend_type = 'client backend' and pid <> pg_backend_pid()
                 order by md5(%s || pid) limit 1
                """,
                [str(system.chance.random())],
            )
            fault.times += ended.rowcount
            time.sleep(0.2)


def _restart_postgres(system: System) -> None:
    with system.fault("immediate stop of PostgreSQL"):
        system.server.stop("immediate")
        time.sleep(1)
        system.server.start()


def _kill_postmaster(system: System) -> None:
    with system.fault("kill -9 of the postmaster"):
        system.server.kill()
        system.server.start()


def _again(system: System, seconds: float, do: Callable[[System], None], every: float) -> None:
    """Do it until the time is over, with a pause after each."""
    goes_on = _until(seconds)
    while goes_on():
        do(system)
        time.sleep(every)


@scenario(short=True)
def kill_workers(system: System, seconds: float) -> None:
    """Kill -9 a worker every two seconds, and start another.

    Its jobs run again when its lease has run out; one that three workers were lost with fails.
    """
    _again(system, seconds, _kill_worker, 2)


@scenario(short=True)
def freeze_workers(system: System, seconds: float) -> None:
    """SIGSTOP all workers but one for longer than a lease, then SIGCONT.

    What they come back with is refused, as others have run their jobs.
    """
    _again(system, seconds, _freeze_workers, 2)


@scenario()
def rolling_restart(system: System, seconds: float) -> None:
    """SIGTERM one worker after the other, each replaced once it has ended.

    None is lost: what cannot finish within the grace is handed back, uncounted.
    """
    _again(system, seconds, _restart_worker, 1)


@scenario(short=True)
def kill_api(system: System, seconds: float) -> None:
    """Kill -9 the API amid requests, and start it again.

    Clients repeat what was not answered, with the same Idempotency-Key: nothing is enqueued twice.
    """
    _again(system, seconds, _kill_api, 4)


@scenario(short=True)
def terminate_backends(system: System, seconds: float) -> None:
    """End connections at random, five times a second (pg_terminate_backend)."""
    _terminate_backends(system, seconds)


@scenario(short=True)
def restart_postgres(system: System, seconds: float) -> None:
    """Stop PostgreSQL in immediate mode, which it takes for a crash, and start it again."""
    _again(system, seconds, _restart_postgres, 6)


@scenario()
def kill_postmaster(system: System, seconds: float) -> None:
    """Kill -9 the postmaster, and start PostgreSQL again."""
    _again(system, seconds, _kill_postmaster, 6)


@scenario()
def everything(system: System, seconds: float) -> None:
    """Do any of the above, in an order that the seed decides."""
    faults: list[Callable[[System], None]] = [
        _kill_worker,
        _freeze_workers,
        _restart_worker,
        _kill_api,
        lambda system: _terminate_backends(system, 2),
        _restart_postgres,
        _kill_postmaster,
    ]
    _again(system, seconds, lambda system: system.chance.choice(faults)(system), 1)


@scenario()
def old_snapshots(system: System, seconds: float) -> None:
    """Leave a session idle in a transaction that has written, and four readers at REPEATABLE READ.

    Nothing may be vacuumed meanwhile; throughput stays.
    """
    with contextlib.ExitStack() as stack, system.fault("five open transactions"):
        for number in range(5):
            connection = stack.enter_context(system.observe())
            connection.execute("begin isolation level repeatable read")
            connection.execute("select count(*) from job_queue.jobs")
            if number == 0:
                connection.execute("select pg_current_xact_id()")
        time.sleep(seconds)


@scenario()
def no_connections(system: System, seconds: float) -> None:
    """Take every connection that the server has, and end those of the workers and the API.

    They can connect again only when the others have gone.
    """
    with contextlib.ExitStack() as stack, system.fault("no connection left"):
        observer = stack.enter_context(system.observe())
        goes_on = _until(min(seconds, 15.0))
        while goes_on():
            observer.execute(
                """
                select pg_terminate_backend(pid)
                  from pg_stat_activity
                 where usename in ('faults_worker', 'faults_api')
                """
            )
            is_quicker = _until(0.3)
            while is_quicker():
                try:
                    stack.enter_context(
                        psycopg.connect(system.server.conninfo("faults_client", system.dbname))
                    )
                except psycopg.OperationalError:
                    time.sleep(0.005)


@scenario(Layout(pooler=True))
def exhaust_pooler(system: System, seconds: float) -> None:
    """Leave transactions open on every connection that PgBouncer has, for longer than a lease.

    Nobody else is served meanwhile; jobs of workers that cannot heartbeat run again.
    """
    goes_on = _until(seconds)
    while goes_on():
        with system.fault("the pooler exhausted"), contextlib.ExitStack() as stack:
            for user in (WORKER, API, CLIENT):
                for _ in range(POOLED):
                    connection = psycopg.connect(system.conninfo(user), prepare_threshold=None)
                    stack.enter_context(contextlib.closing(connection))
                    connection.execute("select")
            time.sleep(LEASE + 3)
        time.sleep(6)


@scenario(Layout(api_pool=2))
def lock_jobs(system: System, seconds: float) -> None:
    """Lock the table of jobs for longer than a lease, as a careless ALTER TABLE does.

    Whoever calls waits, and the API's small pool is exhausted: it answers 503, and recovers.
    """
    goes_on = _until(seconds)
    while goes_on():
        with system.fault("jobs locked"), system.observe() as connection, connection.transaction():
            connection.execute("lock table job_queue.jobs in access exclusive mode")
            time.sleep(LEASE + 3)
        time.sleep(6)


@scenario(Layout(disk=160))
def disk_full(system: System, seconds: float) -> None:
    """Fill the disk that the data is on, and make room again. What needs room is refused."""
    _fill(system, system.disk, seconds)


@scenario(Layout(wal_disk=160))
def wal_full(system: System, seconds: float) -> None:
    """Fill the disk of the write-ahead log, on which PostgreSQL goes down; make room, start it."""
    _fill(system, system.wal_disk, seconds)


def _fill(system: System, disk: Path, seconds: float) -> None:
    filler = disk / "filler"
    goes_on = _until(seconds)
    while goes_on():
        with system.fault("disk full"):
            with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
                while True:
                    file.write(b"x" * 65_536)
            with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
                while True:
                    file.write(b"x")
            time.sleep(max(6.0, min(seconds / 3, 20.0)))
            filler.unlink()
            if not system.server.is_up:
                system.server.start()
        time.sleep(8)
    panics = system.server.log.read_text(errors="replace").count("PANIC:")
    system.notes.append(f"PostgreSQL panicked {panics} times")


@scenario(Layout(proxy=True), short=True)
def drop_packets(system: System, seconds: float) -> None:
    """Let nothing through between the workers and the database, for longer than a lease."""
    assert system.proxy is not None
    goes_on = _until(seconds)
    while goes_on():
        with system.fault("packets dropped"):
            system.proxy.drop_packets()
            time.sleep(LEASE + 3)
            system.proxy.forward_again()
        time.sleep(8)


@scenario(Layout(namespace=True))
def part_network(system: System, seconds: float) -> None:
    """Drop the workers' packets in their own network namespace, for longer than a lease.

    Other than with drop_packets, connections may live on afterwards, with what was under way.
    """
    goes_on = _until(seconds)
    while goes_on():
        with system.fault("packets dropped"):
            system.drop_packets(True)
            time.sleep(LEASE + 3)
            system.drop_packets(False)
        time.sleep(8)


@scenario(Layout(clock=True))
def wrong_clock(system: System, seconds: float) -> None:
    """Put the clock of the workers' host an hour forward, then back, while they work.

    All times are the database's: nothing happens.
    """
    goes_on = _until(seconds)
    while goes_on():
        for offset in ("+3600", "-3600"):
            with system.fault(f"clock {offset} s"):
                system.set_clock(offset)
                environment = {**os.environ, **system.worker_environment}
                seen = float(subprocess.check_output(["date", "+%s"], env=environment))
                assert abs(seen - time.time() - float(offset)) < 60, "the clock is not wrong"
                time.sleep(LEASE + 1)
    system.set_clock("+0")


@scenario(Layout(migrated=190))
def migrate(system: System, seconds: float) -> None:
    """Apply the last migrations under load, at first beside a long transaction that has read.

    One that cannot have its lock gives up, and is applied again. A call may fail in the moment in
    which its function is replaced.
    """
    conninfo = system.server.conninfo(dbname=system.dbname)
    with system.fault("migrations"), system.observe() as reader:
        reader.execute("begin; select count(*) from job_queue.jobs")
        for attempt in itertools.count(1):
            try:
                migrate_to(conninfo)
            except psycopg.errors.LockNotAvailable:
                reader.close()
                continue
            system.notes.append(f"migrated in {attempt} attempts")
            break


@scenario(Layout(pooler=True))
def pooler(system: System, seconds: float) -> None:
    """PgBouncer in transaction mode between everything, killed and started again."""
    goes_on = _until(seconds)
    while goes_on():
        assert system.pooler is not None
        with system.fault("kill -9 of PgBouncer"):
            system.pooler.kill()
            system.pooler.wait()
            system.start_pooler()
        time.sleep(5)


@scenario(Layout(standby="sync"))
def promote_synchronous(system: System, seconds: float) -> None:
    """Kill the primary and promote a synchronous standby. Nothing acknowledged is missing."""
    _fail_over(system, seconds, lag=0)


@scenario(Layout(standby="async"), may_lose=True)
def promote_asynchronous(system: System, seconds: float) -> None:
    """Kill the primary and promote an asynchronous standby that lags half a second behind.

    What the primary has acknowledged since may be missing: jobs, claims and completions. What is
    missing is told, not judged; all that is there must end. Nobody is let in before the numbers are
    moved on, as database/README.md asks for: the lost claims had some of those that come next.
    """
    _fail_over(system, seconds, lag=0.5)


_MOVE_NUMBERS = """
select setval(numbers, nextval(numbers) + 1000000000)
  from unnest(array[pg_get_serial_sequence('job_queue.claims', 'claim_id'),
                    pg_get_serial_sequence('job_queue.job_events', 'event_id')]::regclass[])
         as numbers
"""


def _fail_over(system: System, seconds: float, lag: float) -> None:
    assert system.standby is not None
    time.sleep(min(seconds, 5.0))
    if lag:
        with system.observe() as connection:
            for (pid,) in connection.execute("select pid from pg_stat_replication"):
                os.kill(pid, signal.SIGSTOP)
        time.sleep(lag)
    with system.fault("the primary is killed, the standby promoted"):
        old = system.server
        for pid in [old.postmaster, *_children_of(old.postmaster)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        hba = system.standby.data / "pg_hba.conf"
        admitted = hba.read_text()
        if lag:
            hba.write_text("host all postgres 127.0.0.1/32 trust\n")
            system.standby.reload()
        system.standby.promote()
        system.server, system.standby = system.standby, old
        with system.observe() as connection:
            if lag:
                connection.execute(_MOVE_NUMBERS)
                hba.write_text(admitted)
            connection.execute("alter system set synchronous_standby_names = ''")
            connection.execute("select pg_reload_conf()")
    time.sleep(min(seconds, 10.0))


def _children_of(parent: int) -> list[int]:
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        return [int(pid) for pid in file.read().split()]
