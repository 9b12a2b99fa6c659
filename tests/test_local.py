"""`honcho start` where there is nothing but Python: the whole system, stopped and resumed."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import Connection, eventually, value

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def checkout() -> Iterator[Path]:
    """A copy of the repository, as if freshly cloned."""
    directory = Path(tempfile.mkdtemp(prefix="checkout_"))
    for name in ("api", "worker", "database"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Procfile", directory)
    yield directory
    shutil.rmtree(directory)


class Honcho:
    """`honcho start` in a checkout, with its output in a file."""

    def __init__(self, checkout: Path, **environment: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        bin_directory = str(Path(sys.executable).parent)
        variables = {name: text for name, text in os.environ.items() if not name.startswith("PG")}
        variables.pop("DATABASE_URL", None)
        self._log = checkout / "honcho.log"
        self.address = f"http://127.0.0.1:{port}"
        self.environment = {
            **variables,
            "PATH": bin_directory + os.pathsep + os.environ["PATH"],
            "API_PORT": str(port),
            "POLL_SECONDS": "0.1",
            **environment,
        }
        with self._log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "honcho", "start"],
                cwd=checkout,
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text()

    def request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            self.address + path,
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def is_healthy(self) -> bool:
        assert self.process.poll() is None, self.log
        try:
            return bool(self.request("/health") == {"status": "ok"})
        except (urllib.error.URLError, ConnectionError):
            return False

    def wait_until_healthy(self) -> None:
        eventually(self.is_healthy, seconds=90)

    def press_control_c(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)


@contextmanager
def honcho_start(checkout: Path, **environment: str) -> Iterator[Honcho]:
    """Run `honcho start`; at the end, make sure that nothing of it is left."""
    honcho = Honcho(checkout, **environment)
    try:
        yield honcho
    finally:
        if honcho.process.poll() is None:
            honcho.press_control_c()


def test_jobs_run_and_data_survive_a_stop_and_a_start(checkout: Path) -> None:
    with honcho_start(checkout) as honcho:
        honcho.wait_until_healthy()
        done = honcho.request("/jobs", {"sleep_seconds": 0, "message": "hello"})["id"]
        eventually(lambda: honcho.request(f"/jobs/{done}")["status"] == "succeeded")
        long = honcho.request("/jobs", {"sleep_seconds": 600})["id"]
        eventually(lambda: honcho.request(f"/jobs/{long}")["status"] == "running")
        honcho.press_control_c()
        assert "worker.1 stopped (rc=0)" in honcho.log
        assert "db.1 stopped (rc=0)" in honcho.log
        assert "SIGKILL" not in honcho.log
        assert "Traceback" not in honcho.log
        assert not (checkout / ".data" / "postgres" / "postmaster.pid").exists()
    with honcho_start(checkout, POLL_SECONDS="86400") as honcho:
        honcho.wait_until_healthy()
        jobs = {job["id"]: job for job in honcho.request("/jobs")}
        assert jobs[done]["result"] == {"slept_seconds": 0, "message": "hello"}
        eventually(lambda: honcho.request(f"/jobs/{long}")["status"] == "running")
        psql = subprocess.run(
            [sys.executable, "-m", "database.local", "run", "psql", "-Atc", "select enqueue_job()"],
            cwd=checkout,
            env=honcho.environment,
            check=True,
            capture_output=True,
            text=True,
        )
        assert honcho.request(f"/jobs/{psql.stdout.strip()}")["sleep_seconds"] == 3
        severity = "select severity from job_queue.health where aspect = 'sessions'"
        for user, statement, answer in [
            ("jobs", "create role app login in role job_queue_client", "CREATE ROLE"),
            ("app", "select enqueue_job()", "-7000-"),
            ("jobs", severity, "ok"),
        ]:
            psql_as = ["run", "psql", "-U", user, "-Atc", statement]
            shell = [sys.executable, "-m", "database.local", *psql_as]
            said = subprocess.check_output(shell, cwd=checkout, env=honcho.environment, text=True)
            assert answer in said


def test_a_port_in_use_is_named_and_everything_stops(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        with honcho_start(checkout, API_PORT=str(port)) as honcho:
            assert honcho.process.wait(timeout=90) != 0
            assert str(port) in honcho.log
            assert "address already in use" in honcho.log
            assert "Traceback" not in honcho.log
            assert not (checkout / ".data" / "postgres" / "postmaster.pid").exists()


def test_a_second_start_in_the_same_checkout_leaves_the_first_alone(checkout: Path) -> None:
    with honcho_start(checkout) as first:
        first.wait_until_healthy()
        second = subprocess.run(
            [sys.executable, "-m", "database.local", "serve"],
            cwd=checkout,
            env=first.environment,
            capture_output=True,
            text=True,
        )
        assert second.returncode == 1
        assert "is being served already" in second.stderr
        assert first.is_healthy()


def test_database_url_uses_that_database_instead(
    checkout: Path, conninfo: str, db: Connection
) -> None:
    db.execute("drop schema job_queue cascade")
    db.execute("truncate public._yoyo_migration")
    info = db.info
    password = f":{info.password}" if info.password else ""
    url = f"postgresql://{info.user}{password}@/{info.dbname}?host={info.host}&port={info.port}"
    with honcho_start(checkout, DATABASE_URL=url) as honcho:
        honcho.wait_until_healthy()
        job_id = honcho.request("/jobs", {"sleep_seconds": 0})["id"]
        query = "select status = 'succeeded' from job_queue.get_job(%s)"
        eventually(lambda: value(db, query, job_id))
        assert not (checkout / ".data").exists()
