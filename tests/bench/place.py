"""Where it is measured: databases of the benchmark's own, real workers, the API."""

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from database.local import migrate
from tests.bench import minimal

ROOT = Path(__file__).resolve().parent.parent.parent

Connection = psycopg.Connection[TupleRow]

SETTINGS = (
    "server_version",
    "synchronous_commit",
    "fsync",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "autovacuum",
)


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """Return where a server is: the one given or, without, an embedded one, made for this."""
    if url:
        yield url
    else:
        from tests.support import embedded_server

        with embedded_server() as embedded:
            yield embedded.get_uri()


def about(conninfo: str) -> dict[str, Any]:
    """Return what the numbers depend on."""
    with connect(conninfo) as connection:
        settings: dict[str, str] = dict(
            connection.execute(
                "select name, current_setting(name) from unnest(%s::text[]) as name",
                (list(SETTINGS),),
            ).fetchall()
        )
    return {
        "at": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "server": settings,
        "cores": os.cpu_count(),
        "processor": _processor(),
        "python": sys.version.split()[0],
        "psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})",
        "commit": _commit(),
        "load_before": os.getloadavg()[0],
    }


def _processor() -> str | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return None


def _commit() -> str | None:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return None


def connect(conninfo: str) -> Connection:
    """Connect, in autocommit mode: one call is one transaction."""
    return psycopg.connect(conninfo, autocommit=True)


def process_seconds(pid: int) -> float:
    """Return the processor time that a process has used; 0 where that cannot be known."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has; 0 where that cannot be known."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


class Place:
    """A server to measure on. What is made here is gone at the end."""

    def __init__(self, conninfo: str, stack: ExitStack) -> None:
        self._conninfo = conninfo
        self._stack = stack
        self._logs = Path(stack.enter_context(TemporaryDirectory(prefix="job_queue_bench_")))
        self._started = 0
        self._template = f"job_queue_bench_{os.getpid()}"
        self._create(self._template, None)
        stack.callback(self._drop, self._template)
        with contextlib.redirect_stdout(io.StringIO()):  # where yoyo shows what functions return
            migrate(make_conninfo(conninfo, dbname=self._template))
        with connect(make_conninfo(conninfo, dbname=self._template)) as connection:
            connection.execute(minimal.SQL)

    @contextmanager
    def database(self) -> Iterator[str]:
        """Return where a fresh database is, with the schema and the minimal queue."""
        self._started += 1
        name = f"{self._template}_{self._started}"
        self._create(name, self._template)
        try:
            yield make_conninfo(self._conninfo, dbname=name)
        finally:
            self._drop(name)

    def _create(self, name: str, template: str | None) -> None:
        with connect(self._conninfo) as connection:
            connection.execute(
                sql.SQL("create database {} template {}").format(
                    sql.Identifier(name), sql.Identifier(template or "template1")
                )
            )

    def _drop(self, name: str) -> None:
        with connect(self._conninfo) as connection:
            connection.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
            )

    @contextmanager
    def workers(
        self, conninfo: str, count: int, **environment: str
    ) -> Iterator[list["subprocess.Popen[bytes]"]]:
        """Run so many real workers, and begin once each has asked for work.

        For that the queue must be empty or paused. Variables of the worker's that are set here
        hold, but those that say where the database is and what to run.
        """
        with ExitStack() as stack, connect(conninfo) as connection:
            names = [f"bench-{number}" for number in range(count)]
            processes = [
                stack.enter_context(
                    self._process(
                        [sys.executable, "-m", "worker.main"],
                        {
                            "WORKER_LOG_LEVEL": "warning",
                            **os.environ,
                            "DATABASE_URL": conninfo,
                            "WORKER_HANDLERS": "tests.bench.handlers",
                            "WORKER_NAME": name,
                            **environment,
                        },
                    )
                )
                for name in names
            ]
            wait_until(
                connection,
                "select count(*) = %s from job_queue.workers where worker = any (%s)",
                (count, names),
            )
            yield processes

    @contextmanager
    def api(self, conninfo: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
        """Run the API, as the Procfile does, with the route that does nothing; return its URL."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = "-m uvicorn tests.bench.app:app --http api.connections:Connection"
        options = f"--no-server-header --timeout-graceful-shutdown 3 --port {port}"
        with self._process(
            [sys.executable, *command.split(), *options.split()],
            {**os.environ, "DATABASE_URL": conninfo},
        ) as process:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 60
            while not _answers(f"{url}/readyz"):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("the API did not start")
                time.sleep(0.05)
            yield url, process

    @contextmanager
    def _process(
        self, command: list[str], environment: dict[str, str]
    ) -> Iterator["subprocess.Popen[bytes]"]:
        self._started += 1
        log = self._logs / f"{self._started}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output
            )
        try:
            yield process
        except BaseException:
            sys.stderr.write(log.read_text()[-3000:])
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


def wait_until(
    connection: Connection,
    question: str,
    parameters: tuple[Any, ...] = (),
    seconds: float = 3600.0,
) -> None:
    """Ask every 50 ms until the answer is true."""
    deadline = time.monotonic() + seconds
    while True:
        row = connection.execute(question, parameters).fetchone()
        if row is not None and row[0]:
            return
        if time.monotonic() > deadline:
            raise TimeoutError(question)
        time.sleep(0.05)


def program(name: str) -> str | None:
    """Return the path of a program of PostgreSQL's or another, if it is installed."""
    found = shutil.which(name)
    if found is None:
        with contextlib.suppress(Exception):
            from database.local import programs

            found = shutil.which(name, path=programs())
    if found is None:
        installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
        found = str(installed[-1]) if installed else None
    return found
