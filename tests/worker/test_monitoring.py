"""What the worker shows over HTTP and in its health file, to probes and to Prometheus."""

import http.client
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg.conninfo import make_conninfo

from tests.support import Connection, enqueue, eventually
from worker import health, metrics
from worker import pulse as pulse_module
from worker.monitoring import Monitoring
from worker.pulse import STALE_SECONDS, Pulse

ROOT = Path(__file__).resolve().parent.parent.parent

Answer = tuple[int, dict[str, str], str]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def ask(port: int, path: str, method: str = "GET") -> Answer:
    """Send a request; return the status, the headers and the body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock by which loops are judged."""
    clock = Clock()
    monkeypatch.setattr(pulse_module, "time", clock)
    return clock


class Served:
    """A worker of which only the monitoring is real."""

    def __init__(self) -> None:
        self.pulse = Pulse(None)
        self.unready_because: str | None = None
        self.refreshed = 0
        self.port = free_port()
        self.monitoring = Monitoring(
            "127.0.0.1",
            self.port,
            lambda: self.pulse.is_alive,
            lambda: self.unready_because,
            self._refresh,
        )

    def _refresh(self) -> None:
        self.refreshed += 1
        metrics.RUNNING.set(3)


@pytest.fixture
def served() -> Iterator[Served]:
    """Such a worker."""
    served = Served()
    yield served
    served.monitoring.close()


# Liveness


def test_a_worker_whose_loops_move_is_alive(served: Served, clock: Clock) -> None:
    for _ in range(3):
        served.pulse.beat("loop")
        served.pulse.beat("heartbeat")
        clock.now += STALE_SECONDS - 1
        status, headers, body = ask(served.port, "/livez")
        assert (status, body) == (200, "ok\n")
        assert headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("stuck", ["loop", "heartbeat"])
def test_a_worker_of_which_one_loop_is_stuck_is_not_alive_however_the_other_moves(
    served: Served, clock: Clock, stuck: str
) -> None:
    served.pulse.beat("loop")
    served.pulse.beat("heartbeat")
    clock.now += STALE_SECONDS
    for loop in {"loop", "heartbeat"} - {stuck}:
        served.pulse.beat(loop)
    assert ask(served.port, "/livez")[0] == 503
    served.pulse.beat(stuck)
    assert ask(served.port, "/livez")[0] == 200


def test_a_worker_that_is_not_ready_is_alive(served: Served) -> None:
    served.pulse.beat("loop")
    served.unready_because = "connection refused"
    assert ask(served.port, "/livez")[0] == 200


# Readiness


def test_readiness_tells_why_a_worker_is_not_ready(served: Served) -> None:
    assert ask(served.port, "/readyz")[::2] == (200, "ok\n")
    served.unready_because = "the queue is away \u20ac"
    assert ask(served.port, "/readyz")[::2] == (503, "the queue is away \u20ac\n")


# HTTP


@pytest.mark.parametrize("path", ["/", "/livez/", "/metrics2", "/..%2flivez"])
def test_an_unknown_path_is_404(served: Served, path: str) -> None:
    assert ask(served.port, path)[0] == 404


@pytest.mark.parametrize("path", ["/livez", "/unknown"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_method_that_is_not_get_or_head_is_405(served: Served, method: str, path: str) -> None:
    status, headers, body = ask(served.port, path, method)
    assert (status, headers["Allow"], body) == (405, "GET, HEAD", "")


@pytest.mark.parametrize("path", ["/livez", "/metrics"])
def test_head_answers_as_get_does_without_the_body(served: Served, path: str) -> None:
    served.pulse.beat("loop")
    got, headed = ask(served.port, path), ask(served.port, path, "HEAD")
    assert headed[0] == got[0] == 200
    assert headed[1]["Content-Type"] == got[1]["Content-Type"]
    assert (bool(got[2]), headed[2]) == (True, "")


def test_a_query_is_ignored(served: Served) -> None:
    assert ask(served.port, "/readyz?verbose=1")[0] == 200


def test_the_server_names_no_software_version(served: Served) -> None:
    assert "Python" not in ask(served.port, "/readyz")[1]["Server"]


def test_a_client_that_says_nothing_holds_up_no_other(served: Served) -> None:
    with socket.create_connection(("127.0.0.1", served.port)):
        assert ask(served.port, "/readyz")[0] == 200


def test_a_port_that_is_taken_is_an_error(served: Served) -> None:
    with pytest.raises(OSError, match="in use"):
        Monitoring("127.0.0.1", served.port, lambda: True, lambda: None, lambda: None)


# Metrics


def families(text: str) -> dict[str, Any]:
    """Return the families of metrics by name."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_metrics_are_read_anew_for_each_answer(served: Served) -> None:
    status, headers, body = ask(served.port, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    [sample] = families(body)["worker_jobs_running"].samples
    assert sample.value == 3
    ask(served.port, "/metrics")
    assert served.refreshed == 2


def test_metrics_have_the_names_units_and_labels_that_prometheus_advises(served: Served) -> None:
    metrics.JobTypeMetrics("email").ended("complete", 0.2)
    ours = {
        name: family
        for name, family in families(ask(served.port, "/metrics")[2]).items()
        if name.startswith("worker_")
    }
    assert len(ours) >= 10
    for name, family in ours.items():
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", name)
        assert family.documentation.endswith("."), name
        samples = {sample.name for sample in family.samples} - {f"{name}_created"}
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels <= {"job_type", "outcome", "call", "le"}, name
        match family.type:
            case "counter":
                assert samples <= {f"{name}_total"}, name
            case "histogram":
                assert name.endswith("_seconds"), name
                assert samples <= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
            case "gauge":
                assert samples <= {name}
                assert not name.endswith("_total")
            case other:
                pytest.fail(f"{name} is a {other}")


def test_a_run_counts_once_under_its_type_and_outcome(served: Served) -> None:
    def counted() -> dict[str, float]:
        found = families(ask(served.port, "/metrics")[2])
        ended = {
            sample.labels["outcome"]: sample.value
            for sample in found["worker_jobs_ended"].samples
            if sample.name.endswith("_total") and sample.labels["job_type"] == "counted"
        }
        [runs] = [
            sample.value
            for sample in found["worker_job_duration_seconds"].samples
            if sample.name.endswith("_count") and sample.labels["job_type"] == "counted"
        ]
        return {**ended, "runs": runs}

    of_type = metrics.JobTypeMetrics("counted")
    before = counted()
    assert before == dict.fromkeys(["complete", "fail", "snooze", "release", "lost", "runs"], 0)
    of_type.ended("fail", 0.5)
    of_type.ended("release", None)
    assert counted() == {**before, "fail": 1, "release": 1, "runs": 1}


# The worker


def test_a_worker_that_reaches_the_database_is_alive_and_ready_and_counts_its_jobs(
    db: Connection, start_worker: Callable[..., Any]
) -> None:
    port = free_port()
    worker = start_worker(WORKER_HTTP_PORT=str(port))
    worker.wait_until_it_logs("started")
    eventually(lambda: ask(port, "/readyz")[0] == 200)
    assert ask(port, "/livez")[0] == 200
    job_id = enqueue(db, sleep_seconds=0)
    worker.wait_until_it_logs(f"job {job_id} succeeded")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families(ask(port, "/metrics")[2]).values()
        for sample in family.samples
    }
    assert samples["worker_jobs_claimed_total", "sleep"] == 1
    assert samples["worker_jobs_ended_total", "complete", "sleep"] == 1
    assert samples["worker_job_duration_seconds_count", "sleep"] == 1
    assert samples["worker_job_delay_seconds_count", "sleep"] == 1
    assert samples["worker_jobs_running",] == 0
    assert samples["worker_concurrency",] == 10
    assert samples["worker_database_last_answer_timestamp_seconds",] <= time.time()


def test_when_the_database_goes_away_the_worker_is_not_ready_but_alive_until_it_is_back(
    conninfo: str, start_worker: Callable[..., Any], tmp_path: Path
) -> None:
    port = free_port()
    worker = start_worker(WORKER_HTTP_PORT=str(port), WORKER_HEALTH_FILE=str(tmp_path / "health"))
    worker.wait_until_it_logs("started")
    eventually(lambda: ask(port, "/readyz")[0] == 200)
    name = psycopg.conninfo.conninfo_to_dict(conninfo)["dbname"]
    with psycopg.connect(make_conninfo(conninfo, dbname="postgres"), autocommit=True) as admin:
        admin.execute(f'alter database "{name}" allow_connections false')
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = %s and application_name = 'job_queue worker'",
            [name],
        )
        answer = eventually(lambda: (got := ask(port, "/readyz"))[0] == 503 and got)
        assert answer[2].strip()
        assert ask(port, "/livez")[0] == 200
        # The file is touched while the database is away.
        os.utime(tmp_path / "health", (0, 0))
        eventually(lambda: (tmp_path / "health").stat().st_mtime > 0)
        admin.execute(f'alter database "{name}" allow_connections true')
    eventually(lambda: ask(port, "/readyz")[0] == 200)
    assert worker.stop() == 0


def test_a_worker_that_stops_is_not_ready(db: Connection, start_worker: Callable[..., Any]) -> None:
    port = free_port()
    worker = start_worker(WORKER_HTTP_PORT=str(port), WORKER_GRACE="60")
    job_id = enqueue(db, sleep_seconds=20)
    worker.wait_until_it_logs(f"job {job_id} claimed")
    worker.process.terminate()
    worker.wait_until_it_logs("SIGTERM received")
    assert ask(port, "/readyz")[::2] == (503, "stopping\n")
    assert ask(port, "/livez")[0] == 200


def test_a_port_that_is_taken_ends_the_worker_with_2(
    served: Served, start_worker: Callable[..., Any]
) -> None:
    worker = start_worker(WORKER_HTTP_PORT=str(served.port))
    assert worker.process.wait(timeout=60) == 2
    assert "WORKER_HTTP_PORT" in worker.log


# The health file


@pytest.fixture
def health_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A health file, which is not there yet."""
    monkeypatch.setenv("WORKER_HEALTH_FILE", str(tmp_path / "health"))
    return tmp_path / "health"


def test_a_health_file_that_was_just_touched_is_healthy(health_file: Path) -> None:
    health_file.touch()
    assert health.main() == 0


@pytest.mark.parametrize(("older", "status"), [(-5, 0), (5, 1), (86_400, 1)])
def test_a_health_file_is_judged_by_its_age(health_file: Path, older: int, status: int) -> None:
    health_file.touch()
    then = time.time() - STALE_SECONDS - older
    os.utime(health_file, (then, then))
    assert health.main() == status


def test_a_health_file_that_is_not_there_is_unhealthy(health_file: Path) -> None:
    assert health.main() == 1


def test_a_health_check_without_a_file_to_look_at_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WORKER_HEALTH_FILE", raising=False)
    assert health.main() == 2
    assert capsys.readouterr().err == "WORKER_HEALTH_FILE is not set\n"


def test_the_health_check_is_a_command(health_file: Path) -> None:
    def check() -> int:
        return subprocess.run([sys.executable, "-m", "worker.health"], cwd=ROOT).returncode

    assert check() == 1
    health_file.touch()
    assert check() == 0


def test_the_pulse_touches_the_file_only_while_every_loop_moves(
    health_file: Path, clock: Clock
) -> None:
    pulse = Pulse(str(health_file))
    pulse.beat("loop")
    pulse.beat("heartbeat")
    assert health_file.exists()
    health_file.unlink()
    clock.now += STALE_SECONDS + 1
    pulse.beat("loop")
    assert not health_file.exists()
    pulse.beat("heartbeat")
    assert health_file.exists()


def test_the_pulse_does_not_touch_the_file_more_often_than_needed(
    health_file: Path, clock: Clock
) -> None:
    pulse = Pulse(str(health_file))
    pulse.beat("loop")
    health_file.unlink()
    clock.now += 0.9
    pulse.beat("loop")
    assert not health_file.exists()
    clock.now += 0.2
    pulse.beat("loop")
    assert health_file.exists()
