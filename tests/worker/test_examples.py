"""The workers in other languages, as processes: what they do to jobs, and what jobs do to them."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support import (
    Connection,
    claim,
    enqueue,
    eventually,
    one,
    skip_unless_required,
    value,
)
from tests.worker.conftest import Login, job, wait_for

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "worker" / "examples"
LEASE = "3"
HOSTILE = "it's \"so\" \\ :'id' :id $(touch x) `touch x` ${x} %s\r\n\t'; drop table jobs; -- ü ☃ 🐘"


class Worker:
    """A worker's process, with its log in a file."""

    def __init__(self, directory: Path, command: list[str], environment: dict[str, str]) -> None:
        self._log = directory / "log"
        with self._log.open("a") as output:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env={**os.environ, **environment},
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def log(self) -> str:
        """What the worker has logged so far."""
        return self._log.read_text(errors="replace")

    def wait_until_it_logs(self, text: str) -> None:
        """Wait until the log holds the text."""
        eventually(lambda: text in self.log)

    def send(self, signal_number: int) -> None:
        """Send a signal."""
        self.process.send_signal(signal_number)

    def freeze(self) -> None:
        """Let all of it stand still, but for the commands that it runs."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Send the signal and return the exit status."""
        self.send(signal_number)
        return self.process.wait(timeout=60)


StartWorker = Callable[..., Worker]


@pytest.fixture
def start(tmp_path: Path, login: Login) -> Iterator[StartWorker]:
    """Start workers in a directory of their own; end them after the test."""
    workers: list[Worker] = []

    def start_one(*command: str, **environment: str) -> Worker:
        defaults = {"DATABASE_URL": login.url, "POLL_SECONDS": "0.1", "WORKER_LEASE": LEASE}
        workers.append(Worker(tmp_path, [*command], {**defaults, **environment}))
        return workers[-1]

    yield start_one
    for worker in workers:
        try:
            with suppress(ProcessLookupError):
                worker.thaw()
            worker.stop()
        finally:
            worker.process.kill()
            worker.process.wait()


@pytest.fixture
def shell_tools() -> None:
    """Skip the test where the commands that the shell workers use are missing."""
    if missing := [name for name in ("bash", "psql", "iconv", "timeout") if not shutil.which(name)]:
        skip_unless_required("examples", f"{' and '.join(missing)} cannot be found here")


@pytest.fixture
def start_shell(start: StartWorker, shell_tools: None) -> StartWorker:
    """Start worker.sh for jobs of the type work."""

    def start_one(*command: str, job_type: str = "work", **environment: str) -> Worker:
        return start(str(EXAMPLES / "worker.sh"), job_type, *command, **environment)

    return start_one


@pytest.fixture
def start_node(start: StartWorker) -> StartWorker:
    """Start worker.mjs."""
    if not shutil.which("node"):
        skip_unless_required("examples", "node cannot be found here")
    if not (EXAMPLES / "node_modules" / "pg").exists():
        skip_unless_required("examples", "`npm ci --prefix worker/examples` has not been run")

    def start_one(**environment: str) -> Worker:
        return start("node", str(EXAMPLES / "worker.mjs"), **{"WORKER_GRACE": "1", **environment})

    return start_one


def verbs(db: Connection, job_id: Any) -> list[str]:
    """Return what happened to a job."""
    return [row.verb for row in db.execute("select * from job_history(%s)", [job_id])]


def errors(db: Connection, job_id: Any) -> list[str]:
    """Return the errors of a job's attempts."""
    return [
        row.detail["error"]
        for row in db.execute("select * from job_history(%s) where verb = 'fail'", [job_id])
    ]


def lose_the_claim(db: Connection) -> Any:
    """Let the only claim run out, and claim its job."""
    with db.transaction():
        db.execute("update claims set expires_at = '-infinity'")
        assert value(db, "select reclaim_expired_claims()") == 1
        return claim(db)


def claim_once_it_is_reclaimed(db: Connection) -> Any:
    """Try to claim until the claim of a worker that is silent has run out."""
    return eventually(lambda: db.execute("select * from claim_next_job()").fetchone())


def wait_until_leases_without_heartbeat_would_be_over(db: Connection) -> None:
    """Wait until all claims have been held for more than two leases."""
    eventually(
        lambda: (
            value(db, "select reclaim_expired_claims()") == 0
            and value(db, "select min(claimed_at + 2.5 * lease) < clock_timestamp() from claims")
        )
    )


# worker.sh

ENDLESS = 'trap "touch stopped; exit 1" TERM; touch started; while :; do sleep 0.05; done'
UNTIL_GO = "touch started; until [ -e go ]; do sleep 0.05; done; echo '\"went\"'"


def run_python(program: str) -> list[str]:
    """Return a command that runs the program."""
    return [sys.executable, "-X", "utf8", "-c", f"import json, os, sys, time\n{program}"]


@pytest.mark.usefixtures("shell_tools")
def test_ten_lines_complete_and_fail_jobs_and_are_refused_when_they_come_late(
    db: Connection, start: StartWorker, tmp_path: Path
) -> None:
    worker = start(str(EXAMPLES / "ten-lines.sh"), "work", "bash", "-c", UNTIL_GO + "; [ -e fine ]")
    job_id = enqueue(db, job_type="work", payload=Jsonb(HOSTILE))
    eventually((tmp_path / "started").exists)
    other = lose_the_claim(db)
    (tmp_path / "go").touch()
    worker.wait_until_it_logs("not hold job")
    db.execute("select complete_job(%s, %s, '1')", [job_id, other.claim_id])
    failed = enqueue(db, job_type="work")
    assert wait_for(db, failed, "failed").result == {"error": '"went"'}
    (tmp_path / "fine").touch()
    assert wait_for(db, enqueue(db, job_type="work"), "succeeded").result == "went"
    assert job(db, job_id).result == 1
    worker.process.kill()


@pytest.mark.usefixtures("shell_tools")
def test_ten_lines_leave_hostile_text_as_it_is(db: Connection, start: StartWorker) -> None:
    worker = start(str(EXAMPLES / "ten-lines.sh"), HOSTILE, "cat")
    job_id = enqueue(db, job_type=HOSTILE, payload=Jsonb({HOSTILE: HOSTILE}))
    assert wait_for(db, job_id, "succeeded").result == {HOSTILE: HOSTILE}
    worker.process.kill()


def test_shell_completes_a_job_with_what_the_command_prints(
    db: Connection, start_shell: StartWorker
) -> None:
    start_shell(
        *run_python(
            "names = ['JOB_ID', 'JOB_ATTEMPT']\n"
            "print(json.dumps([json.load(sys.stdin), *map(os.environ.get, names)], indent=1))"
        )
    )
    for payload in ({"to": ["a", 1, None]}, {}):
        job_id = enqueue(db, job_type="work", payload=Jsonb(payload))
        done = wait_for(db, job_id, "succeeded")
        assert done.result == [payload, str(job_id), "1"]
        assert verbs(db, job_id) == ["enqueue", "claim", "complete"]


def test_shell_completes_a_job_whose_command_prints_nothing(
    db: Connection, start_shell: StartWorker
) -> None:
    start_shell("true")
    assert wait_for(db, enqueue(db, job_type="work"), "succeeded").result is None


def test_shell_passes_results_on_that_are_longer_than_an_argument_may_be(
    db: Connection, start_shell: StartWorker
) -> None:
    start_shell("cat")
    long = "x" * 1_000_000
    job_id = enqueue(db, job_type="work", payload=Jsonb(long))
    assert wait_for(db, job_id, "succeeded").result == long


def test_shell_fails_a_job_with_what_the_command_writes_to_standard_error(
    db: Connection, start_shell: StartWorker
) -> None:
    start_shell("bash", "-c", 'echo "no luck, attempt $JOB_ATTEMPT" >&2; exit 7')
    job_id = enqueue(db, job_type="work", max_attempts=2, retry_delay="0")
    failed = wait_for(db, job_id, "failed")
    assert errors(db, job_id) == ["no luck, attempt 1", "no luck, attempt 2"]
    assert failed.result == {"error": "no luck, attempt 2"}


def test_shell_fails_a_job_with_the_exit_status_where_the_command_is_silent(
    db: Connection, start_shell: StartWorker
) -> None:
    start_shell("bash", "-c", "exit 7")
    job_id = enqueue(db, job_type="work")
    assert wait_for(db, job_id, "failed").result == {"error": "exit status 7"}


def test_shell_leaves_hostile_text_as_it_is(
    db: Connection, start_shell: StartWorker, tmp_path: Path
) -> None:
    start_shell(
        *run_python("text = json.load(sys.stdin)\nprint(json.dumps(text))\nsys.exit(text[1:])"),
        job_type=HOSTILE,
    )
    bad = enqueue(db, job_type=HOSTILE, payload=Jsonb("!" + HOSTILE))
    assert wait_for(db, bad, "failed").result == {"error": HOSTILE}
    assert list(tmp_path.glob("x")) == []


@pytest.mark.parametrize("text", [HOSTILE, "", "\\", "'", "\\'", '"', "\n", "\u2028", "\\."])
def test_shell_hands_a_hostile_payload_to_the_command_and_its_result_back(
    db: Connection, start_shell: StartWorker, tmp_path: Path, text: str
) -> None:
    start_shell("cat", job_type=HOSTILE)
    job_id = enqueue(db, job_type=HOSTILE, payload=Jsonb({text: text}))
    assert wait_for(db, job_id, "succeeded").result == {text: text}
    assert list(tmp_path.glob("x")) == []


@pytest.mark.parametrize("bytes_in_octal", ["\\377", "not JSON", "1 2", "1\\0", '"\\\\u0000"'])
def test_shell_fails_a_job_for_good_whose_result_is_no_json(
    db: Connection, start_shell: StartWorker, bytes_in_octal: str
) -> None:
    worker = start_shell("printf", bytes_in_octal)
    job_id = enqueue(db, job_type="work", max_attempts=5)
    assert wait_for(db, job_id, "failed").result == {"error": "the result is not JSON"}
    assert verbs(db, job_id) == ["enqueue", "claim", "fail"]
    assert worker.process.poll() is None


def test_shell_stores_of_an_error_what_is_text(db: Connection, start_shell: StartWorker) -> None:
    start_shell("bash", "-c", r"printf 'caf\303\251 \377 \000!' >&2; exit 1")
    job_id = enqueue(db, job_type="work")
    assert wait_for(db, job_id, "failed").result == {"error": "café  !"}


def test_shell_keeps_the_lease_of_a_command_that_outlives_it(
    db: Connection, start_shell: StartWorker, tmp_path: Path
) -> None:
    start_shell("bash", "-c", UNTIL_GO)
    job_id = enqueue(db, job_type="work")
    wait_for(db, job_id, "running")
    wait_until_leases_without_heartbeat_would_be_over(db)
    (tmp_path / "go").touch()
    assert wait_for(db, job_id, "succeeded").result == "went"
    assert verbs(db, job_id) == ["enqueue", "claim", "complete"]


def test_shell_stops_a_command_whose_claim_is_lost_and_goes_on(
    db: Connection, start_shell: StartWorker, tmp_path: Path
) -> None:
    worker = start_shell("bash", "-c", f'[ "$(cat)" = 1 ] || exit 0; {ENDLESS}')
    job_id = enqueue(db, job_type="work", payload=Jsonb(1), max_attempts=5)
    eventually((tmp_path / "started").exists)
    other = lose_the_claim(db)
    worker.wait_until_it_logs("not hold job")
    assert (tmp_path / "stopped").exists()
    wait_for(db, enqueue(db, job_type="work", payload=Jsonb(2)), "succeeded")
    db.execute("select complete_job(%s, %s)", [job_id, other.claim_id])
    assert verbs(db, job_id) == ["enqueue", "claim", "reclaim", "claim", "complete"]


def test_shell_that_wakes_past_its_lease_is_refused_and_goes_on(
    db: Connection, start_shell: StartWorker, tmp_path: Path
) -> None:
    worker = start_shell("bash", "-c", UNTIL_GO)
    job_id = enqueue(db, job_type="work")
    eventually((tmp_path / "started").exists)
    worker.freeze()
    other = claim_once_it_is_reclaimed(db)
    (tmp_path / "go").touch()
    worker.thaw()
    worker.wait_until_it_logs("not hold job")
    wait_for(db, enqueue(db, job_type="work"), "succeeded")
    db.execute("select complete_job(%s, %s, '\"other\"')", [job_id, other.claim_id])
    assert job(db, job_id).result == "other"


def test_shell_that_is_killed_loses_its_claim(
    db: Connection, start_shell: StartWorker, tmp_path: Path
) -> None:
    """No heartbeat outlives it, though the command does."""
    worker = start_shell("bash", "-c", UNTIL_GO)
    enqueue(db, job_type="work")
    eventually((tmp_path / "started").exists)
    worker.process.kill()
    worker.process.wait()
    claim_once_it_is_reclaimed(db)
    (tmp_path / "go").touch()


def test_shell_stops_a_command_and_its_children_when_the_job_is_cancelled(
    db: Connection, start_shell: StartWorker, tmp_path: Path
) -> None:
    worker = start_shell("bash", "-c", '(eval "$0") & wait', ENDLESS)
    job_id = enqueue(db, job_type="work", max_attempts=5)
    eventually((tmp_path / "started").exists)
    assert value(db, "select cancel_job(%s)", job_id) == "requested"
    wait_for(db, job_id, "cancelled")
    eventually((tmp_path / "stopped").exists)
    assert worker.process.poll() is None


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_shell_hands_its_job_back_uncharged_when_it_is_told_to_stop(
    db: Connection, start_shell: StartWorker, tmp_path: Path, signal_number: int
) -> None:
    worker = start_shell("bash", "-c", ENDLESS)
    job_id = enqueue(db, job_type="work")
    eventually((tmp_path / "started").exists)
    assert worker.stop(signal_number) == 0
    assert (tmp_path / "stopped").exists()
    assert verbs(db, job_id) == ["enqueue", "claim", "release"]
    assert job(db, job_id).attempts == 0


@pytest.mark.parametrize("way", ["cancelled", "lost", "told to stop"])
def test_shell_stops_a_command_that_knows_nothing_of_signals(
    db: Connection, start_shell: StartWorker, way: str
) -> None:
    worker = start_shell("sleep", "3600")
    job_id = enqueue(db, job_type="work")
    wait_for(db, job_id, "running")
    if way == "cancelled":
        db.execute("select cancel_job(%s)", [job_id])
        wait_for(db, job_id, "cancelled")
    elif way == "lost":
        lose_the_claim(db)
        worker.wait_until_it_logs("not hold job")
    assert worker.stop() == 0
    if way == "told to stop":
        assert verbs(db, job_id) == ["enqueue", "claim", "release"]


def test_shell_kills_a_command_that_ignores_that_it_should_stop(
    db: Connection, start_shell: StartWorker, tmp_path: Path
) -> None:
    worker = start_shell("bash", "-c", f"{ENDLESS.replace('touch stopped; exit 1', '')}")
    job_id = enqueue(db, job_type="work")
    eventually((tmp_path / "started").exists)
    assert worker.stop() == 0
    assert verbs(db, job_id) == ["enqueue", "claim", "release"]


def test_shell_with_nothing_to_do_stops_when_it_is_told_to(
    db: Connection, start_shell: StartWorker
) -> None:
    worker = start_shell("true", POLL_SECONDS="2")
    eventually(lambda: value(db, "select count(*) from worker_sightings"))
    assert worker.stop() == 0


def test_shell_leaves_other_types_alone(db: Connection, start_shell: StartWorker) -> None:
    other = enqueue(db, job_type="other", priority=0)
    start_shell("true")
    wait_for(db, enqueue(db, job_type="work"), "succeeded")
    assert verbs(db, other) == ["enqueue"]


def test_shell_outlasts_that_the_database_is_away(
    db: Connection, start_shell: StartWorker, tmp_path: Path, login: Login
) -> None:
    worker = start_shell("bash", "-c", UNTIL_GO, WORKER_LEASE="600")
    job_id = enqueue(db, job_type="work")
    eventually((tmp_path / "started").exists)
    login.lock_out()
    (tmp_path / "go").touch()
    worker.wait_until_it_logs("is not permitted to log in")
    login.let_in()
    wait_for(db, job_id, "succeeded")
    login.lock_out()
    before = worker.log.count("is not permitted to log in")
    eventually(lambda: worker.log.count("is not permitted to log in") >= before + 2)
    login.let_in()
    wait_for(db, enqueue(db, job_type="work"), "succeeded")
    assert verbs(db, job_id) == ["enqueue", "claim", "complete"]


def test_shell_says_how_it_is_used(start_shell: StartWorker) -> None:
    for worker in (start_shell(), start_shell("true", DATABASE_URL="")):
        assert worker.process.wait(timeout=60) == 2
        assert "usage:" in worker.log


# worker.mjs


class Site:
    """A web server that answers each path as it is told to, once it is told to."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[int, str]] = {}
        self._told = threading.Condition()
        self._is_closing = False
        self.asked: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = site._answer_to(self.path)
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """Let those go who no longer wait for the answer."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05])
        self._thread.start()

    def job(self, db: Connection, path: str, **arguments: Any) -> Any:
        """Enqueue a job that fetches a path, and return its id."""
        url = f"http://127.0.0.1:{self._server.server_address[1]}{path}"
        return enqueue(db, job_type="fetch", payload=Jsonb({"url": url}), **arguments)

    def answer(self, path: str, body: str = "", status: int = 200) -> None:
        """Answer all who ask for the path."""
        with self._told:
            self._answers[path] = (status, body)
            self._told.notify_all()

    def _answer_to(self, path: str) -> tuple[int, str]:
        with self._told:
            self.asked.append(path)
            self._told.wait_for(lambda: path in self._answers or self._is_closing)
            return self._answers.get(path, (503, ""))

    def close(self) -> None:
        """End."""
        with self._told:
            self._is_closing = True
            self._told.notify_all()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    """What the workers fetch from."""
    site = Site()
    yield site
    site.close()


@pytest.fixture
def deposits(db: Connection, login: Login) -> None:
    """The table of one of the handlers."""
    db.execute("create table deposits (account text, amount integer check (amount > 0))")
    login.may_insert_into("deposits")


def deposit(db: Connection, amount: int, **arguments: Any) -> Any:
    """Enqueue a job that writes to the table, and return its id."""
    payload = Jsonb({"account": HOSTILE, "amount": amount})
    return enqueue(db, job_type="deposit", payload=payload, **arguments)


def test_node_completes_a_job_with_what_its_handler_returns(
    db: Connection, start_node: StartWorker, site: Site
) -> None:
    start_node()
    site.answer("/", HOSTILE)
    job_id = site.job(db, "/")
    assert wait_for(db, job_id, "succeeded").result == {"status": 200, "body": HOSTILE}
    assert verbs(db, job_id) == ["enqueue", "claim", "complete"]


def test_node_retries_what_may_go_better_and_nothing_else(
    db: Connection, start_node: StartWorker, site: Site
) -> None:
    start_node()
    site.answer("/busy", HOSTILE, status=503)
    site.answer("/gone", HOSTILE, status=410)
    busy, gone = (
        site.job(db, path, max_attempts=2, retry_delay="0") for path in ("/busy", "/gone")
    )
    assert wait_for(db, busy, "failed").result == {"error": f"503 {HOSTILE}"}
    assert errors(db, busy) == [f"503 {HOSTILE}"] * 2
    assert wait_for(db, gone, "failed").result == {"error": f"410 {HOSTILE}"}
    assert errors(db, gone) == [f"410 {HOSTILE}"]


def test_node_fails_a_job_for_good_whose_result_cannot_be_stored(
    db: Connection, start_node: StartWorker, site: Site
) -> None:
    worker = start_node()
    site.answer("/", "\0")
    job_id = site.job(db, "/", max_attempts=5)
    assert "cannot be stored" in wait_for(db, job_id, "failed").result["error"]
    site.answer("/error", "\0", status=500)
    assert wait_for(db, site.job(db, "/error"), "failed").result == {"error": "500 \ufffd"}
    assert worker.process.poll() is None


def test_node_keeps_the_leases_of_all_that_it_runs(
    db: Connection, start_node: StartWorker, site: Site
) -> None:
    start_node(WORKER_CONCURRENCY="3")
    job_ids = [site.job(db, "/") for _ in range(4)]
    eventually(lambda: len(site.asked) == 3)
    wait_until_leases_without_heartbeat_would_be_over(db)
    assert value(db, "select count(*) from claims") == 3
    site.answer("/")
    for job_id in job_ids:
        wait_for(db, job_id, "succeeded")
        assert verbs(db, job_id) == ["enqueue", "claim", "complete"]


def test_node_stops_a_handler_whose_claim_is_lost_and_goes_on(
    db: Connection, start_node: StartWorker, site: Site
) -> None:
    worker = start_node()
    job_id = site.job(db, "/never", max_attempts=5)
    eventually(lambda: site.asked)
    other = lose_the_claim(db)
    worker.wait_until_it_logs(f"job {job_id} not failed (the claim was lost)")
    site.answer("/")
    wait_for(db, site.job(db, "/"), "succeeded")
    db.execute("select complete_job(%s, %s)", [job_id, other.claim_id])
    assert verbs(db, job_id) == ["enqueue", "claim", "reclaim", "claim", "complete"]


def test_node_that_wakes_past_its_lease_is_refused_and_goes_on(
    db: Connection, start_node: StartWorker, site: Site
) -> None:
    worker = start_node()
    job_id = site.job(db, "/")
    eventually(lambda: site.asked)
    worker.freeze()
    other = claim_once_it_is_reclaimed(db)
    site.answer("/")
    worker.thaw()
    worker.wait_until_it_logs(f"claim {other.claim_id - 1} does not hold job {job_id}")
    wait_for(db, site.job(db, "/"), "succeeded")
    db.execute("select complete_job(%s, %s, '\"other\"')", [job_id, other.claim_id])
    assert job(db, job_id).result == "other"


def test_node_stops_the_handler_of_a_job_that_is_cancelled(
    db: Connection, start_node: StartWorker, site: Site
) -> None:
    worker = start_node()
    job_id = site.job(db, "/never", max_attempts=5)
    eventually(lambda: site.asked)
    assert value(db, "select cancel_job(%s)", job_id) == "requested"
    wait_for(db, job_id, "cancelled")
    assert errors(db, job_id) == ["cancelled"]
    assert worker.process.poll() is None


def test_node_lets_jobs_end_when_it_is_told_to_stop(
    db: Connection, start_node: StartWorker, site: Site
) -> None:
    worker = start_node(WORKER_GRACE="60", WORKER_CONCURRENCY="1")
    job_id, waiting = site.job(db, "/"), site.job(db, "/")
    eventually(lambda: site.asked)
    worker.send(signal.SIGTERM)
    site.answer("/")
    assert worker.process.wait(timeout=60) == 0
    assert verbs(db, job_id) == ["enqueue", "claim", "complete"]
    assert verbs(db, waiting) == ["enqueue"]


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_node_hands_jobs_back_uncharged_that_do_not_end_in_time(
    db: Connection, start_node: StartWorker, site: Site, signal_number: int
) -> None:
    worker = start_node(WORKER_GRACE="0.1")
    job_ids = [site.job(db, "/never") for _ in range(2)]
    eventually(lambda: len(site.asked) == 2)
    assert worker.stop(signal_number) == 0
    for job_id in job_ids:
        assert verbs(db, job_id) == ["enqueue", "claim", "release"]
        assert job(db, job_id).attempts == 0


@pytest.mark.usefixtures("deposits")
def test_node_hands_a_job_back_whose_handler_does_not_heed_its_signal(
    db: Connection, connect: Callable[[], Connection], start_node: StartWorker
) -> None:
    blocker = connect()
    with blocker.transaction():
        blocker.execute("lock table deposits in share mode")
        worker = start_node(WORKER_GRACE="0.1")
        job_id = deposit(db, 5)
        wait_for(db, job_id, "running")
        assert worker.stop() == 0
    assert verbs(db, job_id) == ["enqueue", "claim", "release"]
    assert value(db, "select count(*) from deposits") == 0


def test_node_leaves_other_types_alone(db: Connection, start_node: StartWorker, site: Site) -> None:
    other = enqueue(db, job_type="constructor", priority=0)
    start_node()
    site.answer("/")
    wait_for(db, site.job(db, "/"), "succeeded")
    assert verbs(db, other) == ["enqueue"]


@pytest.mark.usefixtures("deposits")
def test_node_commits_what_a_handler_writes_together_with_the_end_of_its_job(
    db: Connection, start_node: StartWorker
) -> None:
    start_node()
    job_id = deposit(db, 5)
    assert wait_for(db, job_id, "succeeded").result == {"deposited": 5}
    written = one(db, "select *, deposits.xmin = jobs.xmin as is_together from deposits, jobs")
    assert (written.account, written.amount, written.is_together) == (HOSTILE, 5, True)
    assert verbs(db, job_id) == ["enqueue", "claim", "complete"]


@pytest.mark.usefixtures("deposits")
def test_node_commits_neither_if_the_handler_fails(db: Connection, start_node: StartWorker) -> None:
    start_node()
    job_id = deposit(db, -5)
    assert "deposits_amount_check" in wait_for(db, job_id, "failed").result["error"]
    assert value(db, "select count(*) from deposits") == 0


@pytest.mark.usefixtures("deposits")
def test_node_commits_neither_if_the_claim_is_lost(
    db: Connection, connect: Callable[[], Connection], start_node: StartWorker, login: Login
) -> None:
    blocker = connect()
    with blocker.transaction():
        blocker.execute("lock table deposits in share mode")
        worker = start_node()
        job_id = deposit(db, 5)
        eventually(
            lambda: value(
                db,
                "select count(*) from pg_stat_activity where usename = %s and %s = any"
                " (pg_blocking_pids(pid))",
                login.role,
                blocker.info.backend_pid,
            )
        )
        other = lose_the_claim(db)
    worker.wait_until_it_logs(f"job {job_id} not failed (claim {other.claim_id - 1} does not hold")
    assert value(db, "select count(*) from deposits") == 0
    db.execute("select complete_job(%s, %s)", [job_id, other.claim_id])
    second = deposit(db, 6)
    wait_for(db, second, "succeeded")
    assert value(db, "select amount from deposits") == 6


def test_node_is_woken_by_a_new_job(
    db: Connection, start_node: StartWorker, site: Site, login: Login
) -> None:
    start_node(POLL_SECONDS="86400")
    site.answer("/")
    for _ in range(3):
        eventually(login.is_listening)
        wait_for(db, site.job(db, "/"), "succeeded")


def test_node_finds_jobs_of_which_nobody_told_it(
    db: Connection, start_node: StartWorker, site: Site, login: Login
) -> None:
    start_node()
    site.answer("/")
    eventually(login.is_listening)
    wait_for(db, site.job(db, "/", delay="0.3 s"), "succeeded")


def test_node_does_not_listen_while_it_has_no_room(
    db: Connection, start_node: StartWorker, site: Site, login: Login
) -> None:
    start_node(WORKER_CONCURRENCY="1")
    eventually(login.is_listening)
    job_id = site.job(db, "/")
    eventually(lambda: site.asked and not login.is_listening())
    site.answer("/")
    wait_for(db, job_id, "succeeded")
    eventually(login.is_listening)


def test_node_outlasts_that_the_database_is_away(
    db: Connection, start_node: StartWorker, site: Site, login: Login
) -> None:
    worker = start_node(WORKER_LEASE="600")
    job_id = site.job(db, "/")
    eventually(lambda: site.asked)
    login.lock_out()
    site.answer("/")
    eventually(lambda: worker.log.count("is not permitted to log in") >= 5)
    login.let_in()
    wait_for(db, job_id, "succeeded")
    assert verbs(db, job_id) == ["enqueue", "claim", "complete"]
    login.lock_out()
    login.let_in()
    wait_for(db, site.job(db, "/"), "succeeded")
