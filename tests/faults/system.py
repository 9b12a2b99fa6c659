"""The system that faults are done to: a PostgreSQL of its own, real workers, the real API, a load.

The server keeps what it acknowledges: fsync and synchronous_commit are on. All that runs here has
its data, its logs and its ports to itself, and is gone at the end.
"""

import contextlib
import io
import os
import pwd
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Any
from urllib.parse import urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from yoyo import get_backend, read_migrations

from database.local import MIGRATIONS
from tests.bench.place import ROOT, program
from tests.faults import load
from tests.faults.results import Injected
from tests.worker.proxy import Proxy

DATABASE = "jobs"
WORKER, API, CLIENT = "faults_worker", "faults_api", "faults_client"

LEASE = 3
"""Seconds: the shortest that a worker takes."""

SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "wal_level": "replica",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] %u ",
}

POOLED = 15
"""How many connections PgBouncer holds for each login."""

HOST_ADDRESS, INSIDE_ADDRESS = "10.213.7.1", "10.213.7.2"
"""Of the network that workers in a namespace have."""

_LOGINS = f"""
create role {WORKER} login in role job_queue_worker;
create role {API} login in role job_queue_client, job_queue_worker, job_queue_operator;
create role {CLIENT} login in role job_queue_client, job_queue_worker, job_queue_operator;
"""

TABLES = """
create table public.orders (ref text primary key);
create table public.effects (job_id uuid, claim_id bigint);
"""

_GRANTS = f"""
grant insert on public.orders to {CLIENT};
grant insert on public.effects to {WORKER};
"""


class Missing(Exception):
    """This machine lacks what a scenario needs."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _account() -> str | None:
    """Return as whom PostgreSQL is to run; None: as who we are. It does not run as root."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return "nobody"


def as_account(name: str, *arguments: object, is_checked: bool = True) -> int:
    """Run a program of PostgreSQL's, and return its exit status."""
    found = program(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    command = [found, *map(str, arguments)]
    done = subprocess.run(
        command, user=_account(), cwd="/", stdout=DEVNULL, stderr=DEVNULL, check=is_checked
    )
    return done.returncode


def own(path: Path) -> None:
    """Give a directory to the account that PostgreSQL runs as."""
    account = _account()
    if account is not None:
        for one in [path, *path.rglob("*")]:
            shutil.chown(one, account)


class Server:
    """A PostgreSQL server on a data directory that is there already."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.port = free_port()
        self.log = data.with_suffix(".log")
        self.settings = dict(SETTINGS)

    def conninfo(self, user: str = "postgres", dbname: str = DATABASE) -> str:
        """Return how to connect to it."""
        return make_conninfo(host="127.0.0.1", port=self.port, user=user, dbname=dbname)

    def start(self) -> None:
        """Start it, and wait until it answers. After a crash that may take several attempts."""
        options = [f"-c {name}={shlex.quote(value)}" for name, value in self.settings.items()]
        options += [f"-p {self.port}", "-c unix_socket_directories="]
        command = ["-D", self.data, "-l", self.log, "-w", "-o", " ".join(options), "start"]
        deadline = time.monotonic() + 60
        while as_account("pg_ctl", *command, is_checked=False) and not self.is_up:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server does not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.2)

    def stop(self, mode: str = "fast") -> None:
        """Stop it."""
        as_account("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop", is_checked=False)

    def kill(self) -> None:
        """Kill the postmaster alone. Its children find out by themselves."""
        os.kill(self.postmaster, signal.SIGKILL)

    @property
    def postmaster(self) -> int:
        """The process of the postmaster."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    @property
    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            psycopg.connect(self.conninfo(), connect_timeout=2).close()
        except psycopg.Error:
            return False
        return True

    def reload(self) -> None:
        """Have it read its settings again."""
        as_account("pg_ctl", "-D", self.data, "reload")

    def promote(self) -> None:
        """Make a standby the primary."""
        as_account("pg_ctl", "-D", self.data, "-w", "promote")


def prepare(directory: Path) -> Path:
    """Make a data directory with the schema and the logins in it, to be copied."""
    own(directory)
    directory.chmod(0o755)
    data = directory / "template"
    cluster = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8"]
    as_account("initdb", "-D", data, *cluster, "--wal-segsize=1", "--no-sync")
    server = Server(data)
    server.settings |= {"min_wal_size": "2MB", "max_wal_size": "2MB"}  # it keeps none to reuse
    server.start()
    try:
        with psycopg.connect(server.conninfo(dbname="postgres"), autocommit=True) as connection:
            connection.execute(f"create database {DATABASE}")
        migrate_to(server.conninfo())
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            connection.execute(_LOGINS + TABLES + _GRANTS)
            set_policies(connection)
    finally:
        server.stop()
    return data


def migrate_to(conninfo: str, last: int | None = None) -> None:
    """Apply the migrations, all or those up to a number, that this database lacks."""
    backend = get_backend(f"postgresql+psycopg:///?{urlencode(conninfo_to_dict(conninfo))}")
    chosen = read_migrations(str(MIGRATIONS)).filter(
        lambda step: last is None or int(step.id[:4]) <= last
    )
    with (
        contextlib.redirect_stdout(io.StringIO()),  # where yoyo shows what functions return
        closing(backend.connection),
        backend.lock(),
    ):
        backend.apply_migrations(backend.to_apply(chosen))


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def set_policies(connection: psycopg.Connection[Any]) -> None:
    """Set the limits and the schedules of the load. The schedules have an hour to catch up."""
    for name, limits in (
        ("concurrency_limit", load.LIMITS),
        ("key_concurrency_limit", load.KEY_LIMITS),
    ):
        for queue, limit in limits.items():
            connection.execute(
                "select from job_queue.set_queue(%s, jsonb_build_object(%s::text, %s::integer))",
                [queue, name, limit],
            )
    for schedule in load.SCHEDULES:
        connection.execute(
            """
            select job_queue.set_schedule(
              %s::text, '* * * * *',
              jsonb_build_object('job_type', 'quick', 'payload', jsonb_build_object('ref', null)),
              p_missed_ticks => 'catch up')
            """,
            [schedule],
        )
    connection.execute("update job_queue.schedules set next_at = next_at - interval '1 hour'")


@dataclass(frozen=True)
class Layout:
    """What a scenario needs to be otherwise."""

    workers: int = 3
    proxy: bool = False
    """Whether the workers reach the database through something that can break."""
    pooler: bool = False
    """Whether everybody does so through PgBouncer in transaction mode."""
    standby: str | None = None
    """A standby that follows: sync or async."""
    api_pool: int = 10
    """How many connections the requests to the API share."""
    disk: int | None = None
    """Megabytes that the data directory has, the data included."""
    wal_disk: int | None = None
    """Megabytes that the write-ahead log has for itself."""
    migrated: int | None = None
    """The last migration that has been applied when the load begins."""
    clock: bool = False
    """Whether the workers have a clock of their own, which System.set_clock sets."""
    namespace: bool = False
    """Whether the workers have a network of their own, which System.drop_packets breaks."""


class System:
    """All of it. `faults` says what was done to it, and when."""

    def __init__(
        self, directory: Path, template: Path, layout: Layout, seed: int, stack: ExitStack
    ) -> None:
        if (layout.disk or layout.wal_disk or layout.namespace) and os.geteuid() != 0:
            raise Missing("it needs root")
        if layout.namespace and not (shutil.which("ip") and shutil.which("iptables")):
            raise Missing("ip (iproute2) or iptables is not installed")
        self.directory, self.layout = directory, layout
        self.chance = random.Random(seed)
        self.faults: list[Injected] = []
        self.begin = 0.0
        """When the load began."""
        self.notes: list[str] = []
        self.died: list[str] = []
        """What ended by itself, and should not."""
        self.logs = directory / "clients"
        self.logs.mkdir()
        self.workers: list[subprocess.Popen[bytes]] = []
        self.api: subprocess.Popen[bytes] | None = None
        self.api_port = free_port()
        self.worker_command: list[str] = []
        """What is put before the command of a worker."""
        self.worker_environment: dict[str, str] = {}
        self.dbname = DATABASE
        self.standby: Server | None = None
        self.proxy: Proxy | None = None
        self.pooler: subprocess.Popen[bytes] | None = None
        self.pooler_port = free_port()
        self._stack, self._started = stack, 0
        self.disk, self.wal_disk = directory / "disk", directory / "wal"
        self.server = Server(self._data(template))
        self.load = load.Load(seed, self.logs, lambda: self.conninfo(CLIENT), self.api_port)

    def _data(self, template: Path) -> Path:
        self._make_disk(self.disk, self.layout.disk)
        data = self.disk / "data"
        subprocess.run(["cp", "-a", template, data], check=True)
        if self.layout.wal_disk is not None:
            self._make_disk(self.wal_disk, self.layout.wal_disk)
            shutil.move(data / "pg_wal", self.wal_disk)
            (data / "pg_wal").symlink_to(self.wal_disk / "pg_wal")
            own(self.wal_disk)
        with (data / "pg_hba.conf").open("a") as file:
            file.write(f"host all all {HOST_ADDRESS}/30 trust\n")
        return data

    def _make_disk(self, path: Path, size: int | None) -> None:
        """Make a directory, of so many megabytes if a size is given."""
        path.mkdir()
        if size is not None:
            options = f"size={size}m"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
            self._stack.callback(lambda: subprocess.run(["umount", "-l", path], check=True))
        own(path)

    def start(self) -> None:
        """Start everything but the load."""
        self._stack.callback(self.server.stop, "immediate")
        self.server.log = self.directory / "disk.log"
        self.server.log.touch()
        own(self.server.log)
        if self.layout.namespace:
            self._make_namespace()
        self.server.start()
        if self.layout.migrated is not None:
            self._make_old_database(self.layout.migrated)
        if self.layout.clock:
            self._make_clock()
        if self.layout.standby:
            self._follow(self.layout.standby)
        if self.layout.pooler:
            self.start_pooler()
        if self.layout.proxy:
            self.proxy = Proxy(self.server.conninfo(WORKER))
            self._stack.callback(self.proxy.close)
        self._stack.callback(self._end)
        self.start_api()
        for _ in range(self.layout.workers):
            self.start_worker()

    def _follow(self, kind: str) -> None:
        data = self.directory / "standby"
        self.standby = Server(data)
        self.standby.settings["wal_retrieve_retry_interval"] = "200ms"
        name = "standby"
        data.mkdir(mode=0o700)
        own(data)
        self.standby.log.touch()
        own(self.standby.log)
        source = f"{self.server.conninfo(dbname='')} application_name={name}"
        as_account("pg_basebackup", "-D", data, "-R", "-c", "fast", "-d", source)
        self.standby.start()
        self._stack.callback(self.standby.stop, "immediate")
        if kind == "sync":
            with self.observe() as connection:
                connection.execute(f"alter system set synchronous_standby_names = '{name}'")
                connection.execute("select pg_reload_conf()")
            self.wait_until("select bool_or(sync_state = 'sync') from pg_stat_replication")

    def _make_old_database(self, last: int) -> None:
        with self.observe() as connection:
            connection.execute("create database before")
        self.dbname = "before"
        migrate_to(self.server.conninfo(dbname=self.dbname), last)
        with self.observe() as connection:
            connection.execute(TABLES + _GRANTS)
            set_policies(connection)

    def _make_clock(self) -> None:
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        if library is None:
            raise Missing("libfaketime is not installed")
        self.set_clock("+0")
        self.worker_environment |= {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self.directory / "clock"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set_clock(self, offset: str) -> None:
        """Put the workers' clock forward or back."""
        draft = self.directory / "clock.draft"
        draft.write_text(f"{offset}\n")
        draft.replace(self.directory / "clock")

    def _make_namespace(self) -> None:
        name = f"faults{os.getpid()}"
        _ip("netns", "add", name)
        self._stack.callback(_ip, "netns", "delete", name)
        _ip("link", "add", name, "type", "veth", "peer", "name", "inside", "netns", name)
        _ip("address", "add", f"{HOST_ADDRESS}/30", "dev", name)
        _ip("link", "set", name, "up")
        _ip("-n", name, "address", "add", f"{INSIDE_ADDRESS}/30", "dev", "inside")
        _ip("-n", name, "link", "set", "inside", "up")
        self.server.settings["listen_addresses"] += f",{HOST_ADDRESS}"
        self.worker_command = ["ip", "netns", "exec", name]

    def drop_packets(self, is_on: bool) -> None:
        """Drop all packets to and from the workers, or no more."""
        for chain in ("INPUT", "OUTPUT"):
            rule = ["iptables", "--wait", "-A" if is_on else "-D", chain, "-j", "DROP"]
            subprocess.run([*self.worker_command, *rule], check=True)

    def conninfo(self, user: str) -> str:
        """Return how whoever this is connects to the queue."""
        if self.layout.namespace and user == WORKER:
            return make_conninfo(self.server.conninfo(user, self.dbname), host=HOST_ADDRESS)
        if self.proxy is not None and user == WORKER:
            return str(self.proxy.conninfo)
        if self.layout.pooler:
            return make_conninfo(
                host="127.0.0.1", port=self.pooler_port, user=user, dbname=self.dbname
            )
        if self.layout.standby and self.standby is not None:
            ports = f"{self.server.port},{self.standby.port}"
            return make_conninfo(
                host="127.0.0.1,127.0.0.1",
                port=ports,
                user=user,
                dbname=self.dbname,
                target_session_attrs="read-write",
            )
        return self.server.conninfo(user, self.dbname)

    def observe(self) -> psycopg.Connection[Any]:
        """Connect as a superuser, past all that may be broken."""
        return psycopg.connect(
            self.server.conninfo(dbname=self.dbname), autocommit=True, connect_timeout=3
        )

    def wait_until(self, question: str, seconds: float = 60.0) -> None:
        """Ask until the answer is true."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(psycopg.OperationalError), self.observe() as connection:
                row = connection.execute(question).fetchone()
                if row is not None and row[0]:
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(question)
            time.sleep(0.1)

    # --- processes

    def start_worker(self) -> "subprocess.Popen[bytes]":
        """Start one more worker."""
        worker = self._start(
            [*self.worker_command, sys.executable, "-m", "worker.main"],
            {
                "DATABASE_URL": self.conninfo(WORKER),
                "WORKER_HANDLERS": "tests.faults.handlers",
                "WORKER_LEASE": str(LEASE),
                "WORKER_GRACE": "3",
                "WORKER_LOG_LEVEL": "warning",
                "POLL_SECONDS": "0.5",
                "FAULTS_LOGS": str(self.logs),
                **self.worker_environment,
            },
            "worker",
        )
        self.workers.append(worker)
        return worker

    def start_api(self) -> None:
        """Start the API, as the Procfile does."""
        command = "-m uvicorn api.main:app --http api.connections:Connection --no-server-header"
        options = f"--timeout-graceful-shutdown 3 --port {self.api_port}"
        self.api = self._start(
            [sys.executable, *command.split(), *options.split()],
            {
                "DATABASE_URL": self.conninfo(API),
                "API_LOG_LEVEL": "warning",
                "API_POOL_SIZE": str(self.layout.api_pool),
            },
            "api",
        )

    def start_pooler(self) -> None:
        """Start PgBouncer."""
        users = self.directory / "users"
        users.write_text("".join(f'"{user}" ""\n' for user in (WORKER, API, CLIENT)))
        settings = self.directory / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n{self.dbname} = host=127.0.0.1 port={self.server.port}\n"
            "[pgbouncer]\npool_mode = transaction\nauth_type = trust\n"
            f"auth_file = {users}\nlisten_addr = 127.0.0.1\nlisten_port = {self.pooler_port}\n"
            f"unix_socket_dir =\ndefault_pool_size = {POOLED}\nmax_client_conn = 500\n"
        )
        found = program("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
        if found is None:
            raise Missing("pgbouncer is not installed")
        self.pooler = self._start([found, str(settings)], {}, "pooler", user=_account())

    def _start(
        self, command: list[str], environment: dict[str, str], name: str, user: str | None = None
    ) -> "subprocess.Popen[bytes]":
        self._started += 1
        with (self.directory / f"{name}-{self._started}.log").open("wb") as log:
            return subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
                user=user,
            )

    def wait_until_ready(self) -> None:
        """Wait until the API answers and all workers have asked for work."""
        deadline = time.monotonic() + 60
        while not self._answers():
            if time.monotonic() > deadline or (self.api and self.api.poll() is not None):
                raise RuntimeError("the API did not start")
            time.sleep(0.1)
        self.wait_until(f"select count(*) >= {len(self.workers)} from job_queue.workers")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.api_port}/readyz", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def _end(self) -> None:
        self.load.is_over.set()
        self.load.is_done.set()
        for process in [*self.workers, self.api, self.pooler]:
            if process is not None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in [*self.workers, self.api, self.pooler]:
            if process is not None:
                try:
                    process.wait(timeout=15)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    # --- what is done to it

    @contextmanager
    def fault(self, what: str) -> Iterator[Injected]:
        """Note when something was broken, and when it was whole again."""
        fault = Injected(what, time.time() - self.begin, 0.0)
        yield fault
        fault.end = time.time() - self.begin
        self.faults.append(fault)

    def kill_worker(self, worker: "subprocess.Popen[bytes]") -> None:
        """Kill a worker without a warning."""
        worker.kill()
        worker.wait()
        self.workers.remove(worker)

    def running_workers(self) -> list["subprocess.Popen[bytes]"]:
        """Return the workers. One that has ended by itself is noted, and replaced."""
        for worker in list(self.workers):
            if worker.poll() is not None:
                self.died.append(f"a worker ended by itself, with status {worker.returncode}")
                self.workers.remove(worker)
                self.start_worker()
        if self.api is not None and self.api.poll() is not None:
            self.died.append(f"the API ended by itself, with status {self.api.returncode}")
            self.start_api()
        return self.workers
