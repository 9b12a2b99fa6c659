"""The worker as a process: what users see of it in the database, its log and exit status."""

import signal
import time
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from database.local import migrate
from tests.support import Connection, embedded_server, enqueue, eventually, one, value
from tests.worker.conftest import StartWorker, job, wait_for


def test_a_job_sleeps_and_succeeds_with_what_it_slept_and_its_message(
    db: Connection, start_worker: StartWorker
) -> None:
    worker = start_worker()
    job_id = enqueue(db, sleep_seconds=1, message="hello")
    done = wait_for(db, job_id, "succeeded")
    assert done.result == {"slept_seconds": 1, "message": "hello"}
    assert (done.updated_at - done.created_at).total_seconds() >= 1
    worker.wait_until_it_logs(f"job {job_id} succeeded after ")
    assert value(db, "select count(*) from claims") == 0


def test_jobs_run_one_after_the_other_without_a_poll_between_them(
    db: Connection, start_worker: StartWorker
) -> None:
    job_ids = [enqueue(db, sleep_seconds=0) for _ in range(50)]
    start_worker(POLL_SECONDS="86400", WORKER_CONCURRENCY="1")
    wait_for(db, job_ids[-1], "succeeded")
    ended = db.execute("select id from jobs order by updated_at").fetchall()
    assert [row.id for row in ended] == job_ids


def test_an_empty_queue_is_polled(db: Connection, start_worker: StartWorker) -> None:
    start_worker().wait_until_it_logs("started")
    for _ in range(2):
        wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")


def test_the_claim_names_its_worker(db: Connection, start_worker: StartWorker) -> None:
    worker = start_worker()
    wait_for(db, enqueue(db, sleep_seconds=600), "running")
    assert value(db, "select worker from claims").endswith(f":{worker.process.pid}")


def test_several_workers_share_the_jobs_and_run_none_twice(
    db: Connection, start_worker: StartWorker
) -> None:
    workers = [start_worker() for _ in range(3)]
    job_ids = [enqueue(db, sleep_seconds=0) for _ in range(100)]
    eventually(lambda: value(db, "select count(*) = 100 from jobs where status = 'succeeded'"))
    for worker in workers:
        worker.wait_until_it_logs("started")
        assert worker.stop() == 0
    logs = "".join(worker.log for worker in workers)
    assert [logs.count(f"job {job_id} claimed") for job_id in job_ids] == [1] * 100


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_a_job_finish_that_can_within_the_grace_period(
    db: Connection, start_worker: StartWorker, signal_number: int
) -> None:
    worker = start_worker(WORKER_CONCURRENCY="1")
    running = enqueue(db, sleep_seconds=2)
    waiting = enqueue(db, sleep_seconds=0)
    wait_for(db, running, "running")
    assert worker.stop(signal_number) == 0
    assert job(db, running).status == "succeeded"
    assert job(db, waiting).status == "queued"


def test_a_stop_hands_back_at_once_a_job_that_cannot_finish(
    db: Connection, start_worker: StartWorker
) -> None:
    worker = start_worker()
    job_id = enqueue(db, sleep_seconds=86_400)
    wait_for(db, job_id, "running")
    assert worker.stop() == 0
    assert job(db, job_id).status == "queued"
    assert value(db, "select count(*) from claims") == 0
    assert "handed back" in worker.log


def test_a_second_signal_ends_the_worker_at_once(db: Connection, start_worker: StartWorker) -> None:
    worker = start_worker(WORKER_GRACE="86400")
    wait_for(db, enqueue(db, sleep_seconds=3600), "running")
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_until_it_logs("SIGTERM received")
    assert worker.stop() == 128 + signal.SIGTERM


def test_a_signal_that_does_not_wake_the_main_thread_is_not_lost(
    db: Connection, start_worker: StartWorker
) -> None:
    worker = start_worker()
    job_id = enqueue(db, job_type="stop_quietly")
    assert worker.process.wait(timeout=60) == 0
    assert job(db, job_id).status == "succeeded"
    assert "SIGTERM received" in worker.log


def test_an_idle_worker_stops_at_once(start_worker: StartWorker) -> None:
    worker = start_worker(POLL_SECONDS="86400")
    worker.wait_until_it_logs("started")
    assert worker.stop() == 0
    assert worker.log.count("stopped") == 1


def test_a_worker_whose_claim_was_lost_discards_the_result_and_goes_on(
    db: Connection, start_worker: StartWorker
) -> None:
    worker = start_worker()
    job_id = enqueue(db, sleep_seconds=1)
    wait_for(db, job_id, "running")
    with db.transaction():
        held = one(db, "table claims")
        db.execute("select release_job(%s, %s)", [held.job_id, held.claim_id])
        newer = one(db, "select * from claim_next_job('somebody else')")
    worker.wait_until_it_logs(f"job {job_id} discarded, another claim holds the job, after")
    assert job(db, job_id).status == "running"
    db.execute("select complete_job(%s, %s, '42')", [job_id, newer.claim_id])
    wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
    assert job(db, job_id).result == 42


def test_a_job_that_outlives_its_lease_keeps_its_claim(
    db: Connection, start_worker: StartWorker
) -> None:
    workers = [start_worker(WORKER_LEASE="3") for _ in range(2)]
    job_id = enqueue(db, sleep_seconds=5)
    wait_for(db, job_id, "succeeded")
    assert "".join(worker.log for worker in workers).count(f"job {job_id} claimed") == 1
    assert value(db, "select losses from jobs") == 0


def test_a_running_job_that_is_cancelled_stops(db: Connection, start_worker: StartWorker) -> None:
    worker = start_worker(WORKER_LEASE="3")
    job_id = enqueue(db, sleep_seconds=3600)
    wait_for(db, job_id, "running")
    assert value(db, "select cancel_job(%s)", job_id) == "requested"
    wait_for(db, job_id, "cancelled")
    worker.wait_until_it_logs(f"job {job_id} stopped, as it was asked to")
    wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")


def test_only_jobs_that_the_worker_can_run_are_claimed(
    db: Connection, start_worker: StartWorker
) -> None:
    email = enqueue(db, job_type="email", priority=0)
    start_worker()
    wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
    assert job(db, email).status == "queued"


def test_the_job_of_a_killed_worker_runs_again(db: Connection, start_worker: StartWorker) -> None:
    victim = start_worker(WORKER_LEASE="3")
    job_id = enqueue(db, sleep_seconds=1)
    victim.wait_until_it_logs(f"job {job_id} claimed")
    victim.process.kill()
    start_worker(WORKER_LEASE="3")
    assert wait_for(db, job_id, "succeeded").result == {"slept_seconds": 1, "message": None}
    assert value(db, "select losses from jobs") == 1


def test_a_frozen_worker_that_wakes_past_its_lease_is_refused(
    db: Connection, start_worker: StartWorker
) -> None:
    zombie = start_worker(WORKER_LEASE="3")
    job_id = enqueue(db, sleep_seconds=1)
    zombie.wait_until_it_logs(f"job {job_id} claimed")
    zombie.process.send_signal(signal.SIGSTOP)
    start_worker(WORKER_LEASE="3")
    done = wait_for(db, job_id, "succeeded")
    zombie.process.send_signal(signal.SIGCONT)
    zombie.wait_until_it_logs(f"job {job_id} discarded")
    assert job(db, job_id) == done
    assert zombie.stop() == 0


def test_a_worker_waits_with_one_line_for_the_database_and_one_for_the_schema(
    start_worker: StartWorker,
) -> None:
    with embedded_server() as server:
        conninfo = server.get_uri()
        server.stop()
        worker = start_worker(DATABASE_URL=conninfo)
        worker.wait_until_it_logs("waiting for the queue: connection")
        server.start()
        worker.wait_until_it_logs('schema "job_queue" does not exist; has `yoyo apply` been run?')
        assert worker.log.count("yoyo apply") == 1
        migrate(conninfo)
        with psycopg.connect(conninfo, autocommit=True) as connection:
            job_id = value(connection, "select job_queue.enqueue_job(p_sleep_seconds => 0)")
            worker.wait_until_it_logs(f"job {job_id} succeeded")
        assert "the queue answers" in worker.log
        assert worker.stop() == 0


def test_a_worker_survives_a_restart_of_the_database_in_the_middle_of_a_job(
    start_worker: StartWorker,
) -> None:
    with embedded_server() as server:
        conninfo = server.get_uri()
        migrate(conninfo)
        worker = start_worker(DATABASE_URL=conninfo)
        with psycopg.connect(conninfo, autocommit=True) as connection:
            job_id = value(connection, "select job_queue.enqueue_job(p_sleep_seconds => 1)")
            worker.wait_until_it_logs(f"job {job_id} claimed")
        server.stop()
        worker.wait_until_it_logs("waiting for the queue")  # its job is over by now
        server.start()
        worker.wait_until_it_logs(f"job {job_id} succeeded")
        with psycopg.connect(conninfo, autocommit=True) as connection:
            assert value(connection, "select status from job_queue.get_job(%s)", job_id) == (
                "succeeded"
            )
        assert worker.stop() == 0


def test_a_worker_that_cannot_report_before_it_must_stop_says_so(
    start_worker: StartWorker,
) -> None:
    with embedded_server() as server:
        conninfo = server.get_uri()
        migrate(conninfo)
        worker = start_worker(DATABASE_URL=conninfo, WORKER_GRACE="0.5")
        with psycopg.connect(conninfo, autocommit=True) as connection:
            job_id = value(connection, "select job_queue.enqueue_job(p_sleep_seconds => 0)")
            worker.wait_until_it_logs(f"job {job_id} succeeded")
            job_id = value(connection, "select job_queue.enqueue_job(p_sleep_seconds => 600)")
            worker.wait_until_it_logs(f"job {job_id} claimed")
        server.stop()
        worker.wait_until_it_logs("waiting for the queue")
        assert worker.stop() == 1
        assert "the end of a job could not be recorded" in worker.log


def test_a_lost_connection_is_replaced(db: Connection, start_worker: StartWorker) -> None:
    worker = start_worker()
    wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
    for _ in range(3):
        db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'job_queue worker' and datname = current_database()"
        )
        wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
    assert worker.process.poll() is None


def test_the_password_is_not_logged(start_worker: StartWorker) -> None:
    conninfo = make_conninfo(
        host="127.0.0.1", port=1, user="u", password="sesame", dbname="d", connect_timeout=2
    )
    worker = start_worker(DATABASE_URL=conninfo)
    worker.wait_until_it_logs("waiting for the queue")
    assert "sesame" not in worker.log


@pytest.mark.parametrize("url_scheme", ["postgresql", "postgresql+psycopg", "postgres"])
def test_database_url_is_understood_in_its_usual_forms(
    db: Connection, start_worker: StartWorker, url_scheme: str
) -> None:
    info = db.info
    password = f":{info.password}" if info.password else ""
    address = f"{info.user}{password}@/{info.dbname}?host={info.host}&port={info.port}"
    start_worker(DATABASE_URL=f"{url_scheme}://{address}")
    wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")


def test_without_database_url_libpqs_own_variables_hold(
    db: Connection, start_worker: StartWorker
) -> None:
    info = db.info
    start_worker(
        DATABASE_URL="",
        PGHOST=info.host,
        PGPORT=str(info.port),
        PGUSER=info.user,
        PGDATABASE=info.dbname,
        PGPASSWORD=info.password,
    )
    wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")


@pytest.mark.parametrize(
    ("variable", "bad"),
    [
        ("POLL_SECONDS", "soon"),
        ("POLL_SECONDS", "0"),
        ("WORKER_GRACE", "-1"),
        ("WORKER_LEASE", "1"),
        ("POLL_SECONDS", "nan"),
    ],
)
def test_a_wrong_setting_is_named_and_ends_the_worker(
    start_worker: StartWorker, variable: str, bad: str
) -> None:
    worker = start_worker(**{variable: bad})
    assert worker.process.wait(timeout=60) == 2
    assert variable in worker.log
    assert repr(bad) in worker.log
    assert "Traceback" not in worker.log


def test_the_health_file_moves_while_the_worker_polls_works_and_waits(
    db: Connection, start_worker: StartWorker, tmp_path: Path
) -> None:
    health_file = tmp_path / "health"

    def moves() -> bool:
        if not health_file.exists():
            return False
        before = health_file.stat().st_mtime_ns
        return bool(eventually(lambda: health_file.stat().st_mtime_ns > before))

    start_worker(WORKER_HEALTH_FILE=str(health_file))
    eventually(moves)
    wait_for(db, enqueue(db, sleep_seconds=600), "running")
    assert moves()
    waiting = start_worker(
        DATABASE_URL="host=127.0.0.1 port=1", WORKER_HEALTH_FILE=str(health_file)
    )
    waiting.wait_until_it_logs("waiting")
    assert moves()
    assert time.time() - health_file.stat().st_mtime < 60


def test_a_worker_fires_schedules_also_while_it_runs_a_job(
    db: Connection,
    start_worker: StartWorker,
) -> None:
    long = enqueue(db, sleep_seconds=600)
    worker = start_worker()
    worker.wait_until_it_logs(f"job {long} claimed")
    db.execute("select set_schedule('often', '* * * * *', '{\"queue\": \"scheduled\"}')")
    db.execute("update schedules set next_at = clock_timestamp() - interval '1 min'")
    eventually(lambda: value(db, "select count(*) from jobs where queue = 'scheduled'") == 1)
