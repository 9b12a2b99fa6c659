"""`docker compose up --build`, where a Docker engine answers."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.settings import VARIABLES
from tests.support import eventually, skip_unless_required

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "job-queue-test"

# Ports that are free, on the same interface, so that the test does not disturb a running system.
OVERRIDE = """
services:
  db: {ports: !override ["127.0.0.1::5432"]}
  api: {ports: !override ["127.0.0.1::8000"]}
"""


class Compose:
    """The project of this test."""

    def __init__(self, override: Path) -> None:
        self._command = ["docker", "compose", "--project-name", PROJECT]
        self._command += ["--file", str(ROOT / "docker-compose.yml"), "--file", str(override)]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([*self._command, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def containers(self, service: str) -> list[Any]:
        ids = self("ps", "--all", "--quiet", service).split()
        return list(json.loads(subprocess.check_output(["docker", "inspect", *ids])))

    def request(self, path: str, body: dict[str, Any] | None = None) -> Any:
        address = self("port", "api", "8000").strip()
        request = urllib.request.Request(
            f"http://{address}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.load(response)

    def status(self, job_id: str) -> str:
        return str(self.request(f"/jobs/{job_id}")["status"])


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The whole system, built and up."""
    try:
        subprocess.run(["docker", "version"], check=True, capture_output=True, timeout=30)
        subprocess.run(["docker", "compose", "version"], check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        skip_unless_required("docker", "no Docker engine with Compose answers here")
    override = tmp_path_factory.mktemp("compose") / "override.yml"
    override.write_text(OVERRIDE)
    compose = Compose(override)
    try:
        compose("up", "--build", "--detach", "--wait", "--scale", "worker=3")
        yield compose
    finally:
        compose("down", "--volumes", "--remove-orphans", "--rmi", "local")


def test_the_api_is_passed_each_of_its_settings() -> None:
    passed = re.findall(r"^      (API_\w+):$", (ROOT / "docker-compose.yml").read_text(), re.M)
    assert passed == sorted(VARIABLES.values())


def test_a_job_posted_to_the_api_succeeds(compose: Compose) -> None:
    assert compose.request("/health") == {"status": "ok"}
    job_id = compose.request("/jobs", {"sleep_seconds": 1, "message": "hello"})["id"]
    eventually(lambda: compose.status(job_id) == "succeeded")
    result = compose.request(f"/jobs/{job_id}")["result"]
    assert result == {"slept_seconds": 1, "message": "hello"}
    assert f"job {job_id} succeeded" in compose("logs", "worker")


def test_services_are_healthy_and_the_migration_step_has_ended(compose: Compose) -> None:
    for service, count in [("db", 1), ("api", 1), ("worker", 3)]:
        states = [container["State"] for container in compose.containers(service)]
        assert [state["Health"]["Status"] for state in states] == ["healthy"] * count
    for step in ("logins", "migrate"):
        [container] = compose.containers(step)
        assert (container["State"]["Status"], container["State"]["ExitCode"]) == ("exited", 0)


def test_no_service_runs_as_root_or_is_published_beyond_loopback(compose: Compose) -> None:
    for service in ("db", "api", "worker", "migrate", "logins"):
        for container in compose.containers(service):
            assert container["Config"]["User"] not in ("", "root", "0")
            for bindings in (container["HostConfig"]["PortBindings"] or {}).values():
                assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"]


def test_api_and_workers_log_in_with_no_right_on_any_table(compose: Compose) -> None:
    psql = ("exec", "-T", "db", "psql", "-U", "postgres", "-d", "jobs", "-Atc")
    logins = "select distinct usename from pg_stat_activity where usename like 'job_queue%'"
    assert set(compose(*psql, logins).split()) == {"job_queue_api", "job_queue_workers"}
    rights = """
        select count(*)
          from pg_class
         cross join unnest('{job_queue_api, job_queue_workers}'::text[]) as login
         where relnamespace = 'job_queue'::regnamespace
           and relkind = 'r'
           and has_table_privilege(login, oid, 'select, insert, update, delete')
    """
    assert compose(*psql, rights).strip() == "0"
    superuser = """
        select rolsuper
          from pg_proc
          join pg_roles on pg_roles.oid = proowner
         where proname = 'enqueue_job'
    """
    assert compose(*psql, superuser).strip() == "f"


def test_psql_in_the_database_container_is_a_client(compose: Compose) -> None:
    psql = ("exec", "-T", "db", "psql", "-U", "postgres", "-d", "jobs", "-Atc")
    job_id = compose(*psql, "SELECT enqueue_job(p_sleep_seconds => 0)").strip()
    eventually(lambda: compose.status(job_id) == "succeeded")


def test_the_system_survives_a_restart_of_the_database(compose: Compose) -> None:
    compose("restart", "db")
    eventually(lambda: compose.containers("db")[0]["State"]["Health"]["Status"] == "healthy")
    job_id = compose.request("/jobs", {"sleep_seconds": 0})["id"]
    eventually(lambda: compose.status(job_id) == "succeeded")


def test_stopped_workers_hand_back_what_they_hold_and_exit_0(compose: Compose) -> None:
    job_id = compose.request("/jobs", {"sleep_seconds": 600})["id"]
    eventually(lambda: compose.status(job_id) == "running")
    compose("stop", "worker")
    assert compose.status(job_id) == "queued"
    exit_codes = [container["State"]["ExitCode"] for container in compose.containers("worker")]
    assert exit_codes == [0, 0, 0]
