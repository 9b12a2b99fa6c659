"""Handlers in processes of their own: how these end, and what the worker makes of that."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually, in_another_thread
from tests.worker.runs import a_run
from worker import children as children_module
from worker import registry
from worker.children import Children
from worker.executor import Executor
from worker.outcomes import Cancelled, ClaimLost, HandBack, JobStopped, TimedOut
from worker.run import Outcome, Run
from worker.settings import Settings

JOBS = "tests.worker.children_jobs"
ROOT = Path(__file__).resolve().parent.parent.parent


def settings(process_jobs: int = 1000, concurrency: int = 10) -> Settings:
    """Return the settings of a worker with the handlers of these tests, and without a database."""
    return Settings.from_environment(
        {
            "WORKER_HANDLERS": JOBS,
            "WORKER_PROCESS_JOBS": str(process_jobs),
            "WORKER_CONCURRENCY": str(concurrency),
        }
    )


@pytest.fixture
def children() -> Iterator[Children]:
    """The processes of a worker."""
    children = Children(settings())
    yield children
    children.kill()


def run_in(children: Children, job_type: str, **payload: Any) -> Outcome:
    """Run a job in a process and return how that ended."""
    with in_another_thread(lambda: children.run(a_run(job_type, payload))) as future:
        outcome: Outcome = future.result(timeout=60)
    return outcome


def echo(children: Children, value: Any = None) -> Any:
    """Run a job that succeeds and return its result, which tells where it ran."""
    outcome = run_in(children, "child_echo", value=value)
    assert outcome.verb == "complete", outcome
    return json.loads(outcome.text)


def is_running(pid: int) -> bool:
    """Return whether a thread of it is left, and not only what its parent has to fetch."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" or threads > 1


def pid_in(path: Path) -> int:
    """Wait until a job has said that it runs; return the process that it names."""
    eventually(path.exists)
    return int(path.read_text())


def test_a_job_runs_in_another_process_and_its_result_comes_back(children: Children) -> None:
    result = echo(children, {"a": ["\u20ac", None]})
    assert result["value"] == {"a": ["\u20ac", None]}
    assert result["pid"] != os.getpid()
    assert result["attempt"] == 1


def test_a_result_of_many_megabytes_comes_back(children: Children) -> None:
    assert echo(children, "x" * 3_000_000)["value"] == "x" * 3_000_000


@pytest.mark.parametrize(
    ("kind", "error", "retryable"),
    [
        ("error", "ValueError: no such thing", True),
        ("fail", "never", False),
        ("exit", "SystemExit: 3", True),
    ],
)
def test_what_a_job_raises_is_its_failure_and_the_process_serves_on(
    children: Children, kind: str, error: str, retryable: bool
) -> None:
    before = echo(children)["pid"]
    outcome = run_in(children, "child_raise", kind=kind)
    assert (outcome.verb, outcome.text, outcome.retryable) == ("fail", error, retryable)
    assert (outcome.traceback is None) == (kind == "fail")
    assert echo(children)["pid"] == before


@pytest.mark.parametrize("kind", ["object", "lambda", "lock"])
def test_a_result_that_is_no_json_fails_the_job_and_the_process_serves_on(
    children: Children, kind: str
) -> None:
    before = echo(children)["pid"]
    outcome = run_in(children, "child_return", kind=kind)
    assert (outcome.verb, outcome.retryable) == ("fail", False)
    assert outcome.text.startswith("the result is no JSON: ")
    assert echo(children)["pid"] == before


def test_a_process_is_used_again(children: Children) -> None:
    assert len({echo(children)["pid"] for _ in range(3)}) == 1


def test_a_process_is_replaced_after_as_many_jobs_as_it_may_run() -> None:
    children = Children(settings(process_jobs=2))
    pids = [echo(children)["pid"] for _ in range(5)]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert not is_running(pids[0])
    assert not is_running(pids[2])
    assert is_running(pids[4])
    children.kill()
    assert not is_running(pids[4])


def test_jobs_at_the_same_time_run_in_a_process_each(children: Children, tmp_path: Path) -> None:
    runs = [a_run("child_wait", {"ready": str(tmp_path / str(n))}) for n in range(2)]
    threads = [threading.Thread(target=children.run, args=[run]) for run in runs]
    for thread in threads:
        thread.start()
    pids = [pid_in(tmp_path / str(n)) for n in range(2)]
    assert pids[0] != pids[1]
    for run in runs:
        run.stop(Cancelled("stopped"))
    for thread in threads:
        thread.join()


# How a process is ended


@pytest.mark.parametrize("kind", ["wait", "ignore", "gil"])
@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (TimedOut("timed out after 0:00:01"), Outcome("fail", "timed out after 0:00:01")),
        (Cancelled("stopped"), Outcome("release", "stopped")),
        (HandBack("handed back"), Outcome("release", "handed back")),
        (ClaimLost("lost"), Outcome("nothing", "lost")),
    ],
)
def test_a_process_whose_job_is_to_stop_is_killed_whatever_it_does(
    children: Children, tmp_path: Path, kind: str, reason: JobStopped, expected: Outcome
) -> None:
    run = a_run("child_wait", {"ready": str(tmp_path / "ready"), "kind": kind})
    with in_another_thread(lambda: children.run(run)) as outcome:
        pid = pid_in(tmp_path / "ready")
        run.stop(reason)
        assert outcome.result(timeout=60) == expected
    assert not is_running(pid)
    assert echo(children)["pid"] != pid


def test_a_job_that_is_to_stop_before_it_starts_does_not_start(
    children: Children, tmp_path: Path
) -> None:
    run = a_run("child_wait", {"ready": str(tmp_path / "ready")})
    run.stop(Cancelled("stopped"))
    with in_another_thread(lambda: children.run(run)) as outcome:
        assert outcome.result(timeout=60) == Outcome("release", "stopped")
    assert not (tmp_path / "ready").exists()
    assert echo(children)


def test_a_process_killed_just_as_its_job_ended_is_given_no_other(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It may be a while before a process that was killed is seen to be dead.
    monkeypatch.setattr(children_module._Child, "is_usable", True)

    class StoppedLate(Run):
        def when_stopped(self, interrupt: Any) -> None:
            if interrupt is None:
                self.stop(Cancelled("too late"))
            super().when_stopped(interrupt)

    run = StoppedLate(a_run("child_echo").job)
    with in_another_thread(lambda: children.run(run)) as outcome:
        killed = json.loads(outcome.result(timeout=60).text)["pid"]
    assert echo(children)["pid"] != killed


@pytest.mark.parametrize("kind", ["fork", "open files"])
def test_what_a_job_has_started_is_killed_with_it(
    children: Children, tmp_path: Path, kind: str
) -> None:
    payload = {"ready": str(tmp_path / "ready"), "kind": kind, "then": "wait"}
    run = a_run("child_parent", payload)
    with in_another_thread(lambda: children.run(run)) as outcome:
        pid = pid_in(tmp_path / "ready")
        run.stop(TimedOut("timed out"))
        assert outcome.result(timeout=60) == Outcome("fail", "timed out")
    eventually(lambda: not is_running(pid))


# How it ends by itself


@pytest.mark.parametrize(
    ("job_type", "payload", "how"),
    [
        ("child_exit", {"status": 0}, "exit status 0"),
        ("child_exit", {"status": 3}, "exit status 3"),
        ("child_kill", {"number": signal.SIGKILL}, "SIGKILL"),
        ("child_kill", {"number": signal.SIGTERM}, "SIGTERM"),
        ("child_kill", {"number": signal.SIGSEGV}, "SIGSEGV"),
    ],
)
def test_a_process_that_ends_by_itself_fails_its_job_and_no_other(
    children: Children, job_type: str, payload: dict[str, Any], how: str
) -> None:
    before = echo(children)["pid"]
    outcome = run_in(children, job_type, **payload)
    assert outcome == Outcome("fail", f"the process of the job ended by itself: {how}")
    assert echo(children)["pid"] != before


@pytest.mark.parametrize("kind", ["fork", "open files"])
def test_the_end_of_a_process_is_noticed_even_if_what_it_started_lives_on(
    children: Children, tmp_path: Path, kind: str
) -> None:
    ready = tmp_path / "ready"
    outcome = run_in(children, "child_parent", ready=str(ready), kind=kind, then="exit")
    assert outcome == Outcome("fail", "the process of the job ended by itself: exit status 3")
    eventually(lambda: not is_running(pid_in(ready)))


def test_a_process_that_died_while_it_had_no_job_costs_no_job(children: Children) -> None:
    pid = echo(children)["pid"]
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not is_running(pid))
    assert echo(children)["pid"] != pid


def test_a_module_of_handlers_that_a_process_cannot_load_fails_the_job() -> None:
    children = Children(Settings.from_environment({"WORKER_HANDLERS": "no_such_module"}))
    outcome = run_in(children, "sleep")
    assert outcome == Outcome("fail", "the process of the job ended by itself: exit status 1")


# The worker around it


@pytest.mark.parametrize("kind", ["wait", "open files"])
def test_when_the_worker_is_killed_its_processes_and_what_they_started_end(
    tmp_path: Path, kind: str
) -> None:
    job_type, payload = "child_wait", {"ready": str(tmp_path / "ready")}
    if kind != "wait":
        job_type, payload = "child_parent", {**payload, "kind": kind, "then": "wait"}
    code = (
        "from tests.worker.runs import a_run\n"
        "from tests.worker.test_children import settings\n"
        "from worker.children import Children\n"
        f"Children(settings()).run(a_run({job_type!r}, {payload!r}))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as worker:
        pid = pid_in(tmp_path / "ready")
        assert is_running(pid)
        worker.kill()
    eventually(lambda: not is_running(pid))


def test_what_a_killed_process_has_printed_is_not_lost(
    children: Children,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    run = a_run("child_wait", {"ready": str(tmp_path / "ready"), "text": "I was here"})
    with in_another_thread(lambda: children.run(run)) as outcome:
        pid_in(tmp_path / "ready")
        run.stop(Cancelled("stopped"))
        outcome.result(timeout=60)
    assert "I was here\n" in capfd.readouterr().out


def test_a_process_that_cannot_be_started_fails_the_job_and_its_slot_is_free_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, is_full = children_module._Child, [True]

    def start_if_there_is_room(settings: Settings) -> Any:
        if is_full.pop() if is_full else False:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return start(settings)

    monkeypatch.setattr(children_module, "_Child", start_if_there_is_room)
    has_ended = threading.Semaphore(0)
    handlers = registry.load([JOBS])
    executor = Executor(
        settings(concurrency=1),
        {"child_echo": handlers["child_echo"]},
        lambda: float("inf"),
        has_ended.release,
    )
    executor.add([a_run("child_echo", claim_id=claim_id) for claim_id in (1, 2)])
    for _ in range(2):
        assert has_ended.acquire(timeout=60)
    ended = [(run.job.claim_id, outcome) for run, outcome in executor.take_ended()]
    assert [(claim_id, outcome.verb) for claim_id, outcome in ended] == [
        (1, "fail"),
        (2, "complete"),
    ]
    error = "BlockingIOError: [Errno 11] Resource temporarily unavailable"
    assert (ended[0][1].text, ended[0][1].retryable) == (error, True)
    assert executor.close()
