"""The worker that needs nothing but bash and curl, as a process: worker/examples/curl-worker.sh."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import ROOT, Serve
from tests.support import Connection, enqueue, eventually, one, skip_unless_required, value

WORKER = ROOT / "worker" / "examples" / "curl-worker.sh"

Process = subprocess.Popen[bytes]
Start = Callable[..., Process]


@pytest.fixture
def start(serve: Serve, tmp_path: Path, db: Connection) -> Iterator[Start]:
    """Start workers for jobs of the type work, with a key, against a server that requires one."""
    if not shutil.which("curl"):
        skip_unless_required("examples", "curl cannot be found here")
    url = serve(API_REQUIRE_KEY="on").url
    key = value(db, "select api_key from create_api_key('worker', '{worker}')")
    workers: list[Process] = []

    def start_one(*command: str) -> Process:
        environment = {**os.environ, "API_URL": url, "API_KEY": key, "WORKER_LEASE": "3"}
        workers.append(
            subprocess.Popen(
                [str(WORKER), "work", *command],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.terminate()
        worker.wait(timeout=60)


def work(db: Connection, **options: Any) -> Any:
    return enqueue(db, job_type="work", **options)


def ended(db: Connection, job_id: Any) -> Any:
    """Wait until a job has ended, and return it."""
    eventually(lambda: value(db, "select count(*) from ended_jobs(array[%s::uuid])", job_id))
    return one(db, "select * from get_job(%s)", job_id)


def is_running(db: Connection, job_id: Any) -> bool:
    return bool(value(db, "select status = 'running' from get_job(%s)", job_id))


def test_output_that_is_no_json_fails_the_job_for_good_and_the_next_one_is_run(
    start: Start, db: Connection
) -> None:
    start("grep", "-o", '"payload" : [0-9]*')
    jobs = [work(db, payload=str(number), max_attempts=3) for number in (7, 8)]
    assert [ended(db, job_id).result for job_id in jobs] == [{"error": "no JSON"}] * 2


def test_what_the_command_prints_is_the_result(start: Start, db: Connection) -> None:
    start("bash", "-c", 'read -r job; [[ $job == *attempt* ]] && echo "[\\"$JOB_ID\\", \\"é\\"]"')
    job = ended(db, work(db, payload='{"a": "\\" \\\\ ] }"}'))
    assert (job.status, job.result) == ("succeeded", [str(job.id), "é"])


def test_a_command_that_prints_nothing_succeeds_with_null(start: Start, db: Connection) -> None:
    start("true")
    job = ended(db, work(db))
    assert (job.status, job.result) == ("succeeded", None)


def test_a_command_that_fails_fails_the_job_with_what_it_wrote(
    start: Start, db: Connection
) -> None:
    start("bash", "-c", 'echo "disk \\"full\\" \\\\ é" >&2; exit 3')
    job = ended(db, work(db))
    assert job.status == "failed"
    assert job.result["error"].startswith('disk "full" \\ ')


def test_output_cannot_name_another_claim(start: Start, db: Connection) -> None:
    start("echo", '1, "claim_id": 999')
    assert ended(db, work(db)).result == 1


def test_a_long_job_keeps_its_claim_and_a_cancelled_one_is_stopped(
    start: Start, db: Connection
) -> None:
    start("sleep", "1000")
    job_id = work(db)
    eventually(lambda: is_running(db, job_id))
    first = value(db, "select expires_at from claims")
    eventually(lambda: value(db, "select expires_at > %s from claims", first))
    db.execute("select cancel_job(%s)", [job_id])
    assert ended(db, job_id).status == "cancelled"


def test_a_worker_that_is_told_to_stop_hands_its_job_back(
    start: Start, db: Connection, tmp_path: Path
) -> None:
    worker = start("bash", "-c", "touch started; exec sleep 1000")
    job_id = work(db)
    eventually((tmp_path / "started").exists)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 0
    job = one(db, "select status, attempts from get_job(%s)", job_id)
    assert (job.status, job.attempts) == ("queued", 0)


def test_a_worker_that_waits_for_jobs_stops_at_once_and_claims_nothing_more(
    start: Start, db: Connection
) -> None:
    worker = start("true")
    eventually(lambda: value(db, "select count(*) from worker_sightings"))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=60) == 0
    job_id = work(db)
    assert not is_running(db, job_id)


def test_it_says_how_to_use_it() -> None:
    done = subprocess.run([str(WORKER), "work"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: API_URL=" in done.stderr
