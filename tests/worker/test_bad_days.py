"""What becomes of jobs when processes die, networks break and the database goes away."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from database.local import migrate
from tests.support import Connection, embedded_server, enqueue, eventually, one, value
from tests.worker.conftest import (
    StartWorker,
    WorkerProcess,
    job,
    wait_for,
    wait_until_all_have_ended,
)
from tests.worker.proxy import proxy_to

NEVER = "86400"
"""A poll interval with which only a notification can tell the worker of a job."""


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file, or none if it is not there."""
    return path.read_text().splitlines() if path.exists() else []


def is_asleep(db: Connection) -> bool:
    """Return whether a worker of this database waits for a notification."""
    return bool(
        value(
            db,
            "select count(*) > 0 from pg_locks where locktype = 'advisory' and mode = 'ShareLock'"
            " and database = (select oid from pg_database where datname = current_database())",
        )
    )


# Processes


def test_ten_thousand_jobs_run_once_each_over_four_workers(
    db: Connection, start_worker: StartWorker, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    for _ in range(4):
        start_worker(WORKER_LOG_LEVEL="warning")
    db.execute(
        "select count(*) from enqueue_jobs((select jsonb_agg(jsonb_build_object("
        "  'job_type', 'count', 'payload', jsonb_build_object('at', %s::text)))"
        " from generate_series(1, 10000)))",
        [str(ran)],
    )
    wait_until_all_have_ended(db)
    ids = {str(row.id) for row in db.execute("select id from jobs where status = 'succeeded'")}
    assert len(ids) == 10_000
    assert Counter(lines_of(ran)) == dict.fromkeys(ids, 1)
    assert value(db, "select count(*) from claims") == 0
    workers = one(
        db,
        "select count(*), count(distinct detail ->> 'worker') as workers"
        " from job_events where verb = 'claim'",
    )
    assert workers == (10_000, 4)


def test_no_job_is_lost_or_written_twice_while_workers_are_killed(
    db: Connection, start_worker: StartWorker
) -> None:
    """Each handler writes and completes in one transaction."""
    db.execute("create table public.written (job_id uuid)")
    db.execute(
        "select count(*) from enqueue_jobs((select jsonb_agg(jsonb_build_object("
        "  'job_type', 'write', 'max_losses', 1000, 'payload', '{\"then\": \"complete\"}'::jsonb))"
        " from generate_series(1, 2000)))"
    )

    def start() -> None:
        workers.append(start_worker(WORKER_LEASE="3", WORKER_LOG_LEVEL="warning"))

    def unwritten() -> int:
        return 2000 - int(value(db, "select count(*) from public.written"))

    workers: list[WorkerProcess] = []
    for _ in range(3):
        start()
    for left in (1500, 1000, 500):
        eventually(lambda: unwritten() < left)  # noqa: B023
        workers.pop(random.randrange(len(workers))).process.kill()
        start()
    wait_until_all_have_ended(db)
    assert value(
        db,
        "select count(*) = 2000 and bool_and(written = 1 and status = 'succeeded') from ("
        " select job.status, (select count(*) from public.written where job_id = job.id) as written"
        "   from jobs as job where job_type = 'write') as each",
    )


def test_a_job_that_kills_its_worker_does_it_once_and_harms_no_other_job(
    db: Connection, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Lost once, it runs in a process of its own, and is the only one to be blamed again."""
    died, ran = tmp_path / "died", tmp_path / "ran"
    innocents = [
        enqueue(db, job_type="count", payload=f'{{"at": "{ran}", "seconds": 0.05}}')
        for _ in range(30)
    ]
    poison = enqueue(db, job_type="die", payload=f'{{"at": "{died}"}}', max_attempts=2)
    victim = start_worker(WORKER_LEASE="3")
    assert victim.process.wait(timeout=60) == -signal.SIGKILL
    survivor = start_worker(WORKER_LEASE="3")
    failed = wait_for(db, poison, "failed")
    assert failed.result == {"error": "the process of the job ended by itself: SIGKILL"}
    assert len(lines_of(died)) == 3  # with the first worker, and its two attempts
    for innocent in innocents:
        wait_for(db, innocent, "succeeded")
    assert survivor.process.poll() is None


def test_jobs_claimed_ahead_are_handed_back_uncharged_on_a_stop(
    db: Connection, start_worker: StartWorker
) -> None:
    worker = start_worker(WORKER_CONCURRENCY="2", WORKER_GRACE="2")
    for _ in range(500):
        enqueue(db, job_type="echo")  # so that it finds jobs quick
    wait_until_all_have_ended(db)
    db.execute(
        'select count(*) from enqueue_jobs((select jsonb_agg(\'{"job_type": "wait"}\'::jsonb)'
        " from generate_series(1, 200)))"
    )
    eventually(lambda: value(db, "select count(*) > 2 from claims"))
    assert worker.stop() == 0
    assert value(
        db,
        "select count(*) = 200 and bool_and(status = 'queued' and attempts = 0 and losses = 0)"
        " from jobs where job_type = 'wait'",
    )
    assert value(db, "select count(*) from claims") == 0


def test_a_job_claimed_ahead_that_cannot_start_is_left_to_another_worker(
    db: Connection, start_worker: StartWorker
) -> None:
    start_worker(WORKER_CONCURRENCY="1", WORKER_NAME="busy")
    for _ in range(500):
        enqueue(db, job_type="echo")
    wait_until_all_have_ended(db)
    with db.transaction():
        enqueue(db, job_type="wait")
        quick = [enqueue(db, job_type="echo") for _ in range(20)]
    wait_for(db, one(db, "select id from jobs where job_type = 'wait'").id, "running")
    start_worker()
    for job_id in quick:
        wait_for(db, job_id, "succeeded")
    assert value(db, "select count(*) from job_events where verb = 'release'") <= len(quick)


def test_results_that_take_several_calls_are_all_reported_before_a_stop(
    db: Connection, start_worker: StartWorker
) -> None:
    worker = start_worker(WORKER_GRACE="20")
    payload = '{"length": 4000000, "seconds": 2}'
    job_ids = [enqueue(db, job_type="text", payload=payload) for _ in range(9)]
    for job_id in job_ids:
        wait_for(db, job_id, "running")
    assert worker.stop() == 0
    assert {job(db, job_id).status for job_id in job_ids} == {"succeeded"}


def test_a_date_that_python_does_not_know_stops_no_worker(
    db: Connection, start_worker: StartWorker
) -> None:
    worker = start_worker()
    enqueue(db, job_type="echo", run_at="0044-03-15 BC")
    wait_until_all_have_ended(db)
    assert value(db, "select status from jobs") == "succeeded"
    assert worker.process.poll() is None


def test_a_worker_does_not_mind_how_its_database_writes_dates_and_texts(
    db: Connection, start_worker: StartWorker
) -> None:
    for setting in ("intervalstyle = iso_8601", "datestyle = 'SQL, DMY'"):
        db.execute(f"alter database {db.info.dbname} set {setting}")
    worker = start_worker(PGCLIENTENCODING="LATIN1")
    job_id = enqueue(db, sleep_seconds=0, message="\N{EURO SIGN}", timeout="1 hour")
    wait_for(db, job_id, "succeeded")
    assert worker.process.poll() is None


def test_a_fault_of_the_loops_own_ends_the_worker_with_status_70(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    (tmp_path / "sabotage.py").write_text(
        "from worker.runner import Runner\nRunner._turn = lambda self: 1 / 0\n"
    )
    worker = start_worker(WORKER_HANDLERS="sabotage", PYTHONPATH=str(tmp_path))
    assert worker.process.wait(timeout=60) == 70
    assert "ZeroDivisionError" in worker.log


def test_a_handler_that_holds_the_gil_keeps_its_claim(
    db: Connection, start_worker: StartWorker
) -> None:
    """It lets go of it for a moment each second."""
    workers = [start_worker(WORKER_LEASE="6", POLL_SECONDS="1") for _ in range(2)]
    job_id = enqueue(db, job_type="hold_gil", payload='{"seconds": 10}')
    wait_for(db, job_id, "succeeded")
    assert "".join(worker.log for worker in workers).count(f"job {job_id} claimed") == 1
    assert job(db, job_id).status == "succeeded"
    assert value(db, "select losses from jobs") == 0


@pytest.mark.parametrize("lost", ["on the way there", "on the way back"])
def test_a_report_that_gets_lost_is_made_again(
    db: Connection, start_worker: StartWorker, tmp_path: Path, lost: str
) -> None:
    """The first three calls that complete a job do not arrive, or their answers do not."""
    (tmp_path / "lossy.py").write_text(
        "from worker.connection import Link, QueueUnavailable\n"
        "from tests.worker.jobs import *\n"
        "call, losses = Link.call, [1, 2, 3]\n"
        "def lossy_call(self, query, parameters):\n"
        "    loses = 'complete' in query and losses and losses.pop()\n"
        f"    if not loses or {lost == 'on the way back'}:\n"
        "        rows = call(self, query, parameters)\n"
        "    if loses:\n"
        "        raise QueueUnavailable('lost')\n"
        "    return rows\n"
        "Link.call = lossy_call\n"
    )
    job_id = enqueue(db, job_type="echo", payload='{"value": "done"}')
    worker = start_worker(WORKER_HANDLERS="lossy", PYTHONPATH=str(tmp_path))
    assert wait_for(db, job_id, "succeeded").result == "done"
    worker.wait_until_it_logs("the queue answers")
    wait_for(db, enqueue(db, job_type="echo"), "succeeded")


# Wake-ups


def test_a_sleeping_worker_is_woken_by_an_enqueue(
    db: Connection, start_worker: StartWorker
) -> None:
    start_worker(POLL_SECONDS=NEVER)
    for _ in range(3):
        eventually(lambda: is_asleep(db))
        wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")


@pytest.mark.parametrize("queues", ["mail", "mail,default", "mail=2,default=1"])
def test_a_worker_of_some_queues_is_woken_for_them(
    db: Connection, start_worker: StartWorker, queues: str
) -> None:
    start_worker(POLL_SECONDS=NEVER, WORKER_QUEUES=queues)
    eventually(lambda: is_asleep(db))
    wait_for(db, enqueue(db, sleep_seconds=0, queue="mail"), "succeeded")


def test_a_busy_worker_with_room_is_woken_too(db: Connection, start_worker: StartWorker) -> None:
    start_worker(POLL_SECONDS=NEVER)
    wait_for(db, enqueue(db, job_type="wait"), "running")
    eventually(lambda: is_asleep(db))
    wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")


def test_a_worker_that_is_woken_in_vain_listens_no_more_for_a_while(
    db: Connection, start_worker: StartWorker
) -> None:
    """So jobs that are not for it cost it no claim each, and their enqueuers no notification."""
    start_worker(POLL_SECONDS=NEVER)
    eventually(lambda: is_asleep(db))
    eventually(lambda: enqueue(db, job_type="not for it") and not is_asleep(db))


def test_a_worker_that_does_not_listen_polls(db: Connection, start_worker: StartWorker) -> None:
    start_worker(WORKER_LISTEN="off")
    wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
    wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
    assert not is_asleep(db)


def test_a_worker_behind_a_pooler_in_transaction_mode_polls(
    db: Connection, start_worker: StartWorker, tmp_path: Path
) -> None:
    """Such a pooler gives each transaction another session than the one that it tells of."""
    (tmp_path / "pooled.py").write_text(
        "import psycopg\n"
        "from tests.worker.jobs import *\n"
        "psycopg.ConnectionInfo.backend_pid = property(lambda self: 0)\n"
    )
    start_worker(WORKER_HANDLERS="pooled", PYTHONPATH=str(tmp_path))
    for _ in range(20):
        wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
    assert not is_asleep(db)


def test_a_worker_listens_again_after_its_connection_was_terminated(
    db: Connection, start_worker: StartWorker
) -> None:
    start_worker(POLL_SECONDS=NEVER)
    for _ in range(3):
        eventually(lambda: is_asleep(db))
        db.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where application_name = 'job_queue worker' and datname = current_database()"
        )
        eventually(lambda: is_asleep(db))
        wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")


# The network and the database


def test_connections_that_are_terminated_during_a_job_cost_it_nothing(
    db: Connection, start_worker: StartWorker
) -> None:
    def expiries() -> Any:
        return db.execute("select expires_at from claims").fetchall()

    start_worker(WORKER_LEASE="3")
    job_id = enqueue(db, sleep_seconds=5)
    wait_for(db, job_id, "running")
    while job(db, job_id).status == "running":
        db.execute(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
            " where application_name = 'job_queue worker' and datname = current_database()"
        )
        leases = expiries()
        eventually(lambda: expiries() != leases)  # noqa: B023
    assert job(db, job_id).status == "succeeded"
    assert value(db, "select losses from jobs") == 0


def test_a_network_that_drops_packets_is_noticed_within_the_lease(
    db: Connection, conninfo: str, start_worker: StartWorker
) -> None:
    """Nobody resets the connections; they just fall silent."""
    lease = 12
    with proxy_to(conninfo) as proxy:
        worker = start_worker(DATABASE_URL=proxy.conninfo, WORKER_LEASE=str(lease))
        wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
        proxy.drop_packets()
        dropped_at = time.monotonic()
        worker.wait_until_it_logs("waiting for the queue")
        assert time.monotonic() - dropped_at < lease
        proxy.forward_again()
        wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
        worker.wait_until_it_logs("the queue answers")


def test_a_worker_behind_a_broken_network_is_replaced_and_its_late_result_refused(
    db: Connection, conninfo: str, start_worker: StartWorker
) -> None:
    with proxy_to(conninfo) as proxy:
        cut_off = start_worker(DATABASE_URL=proxy.conninfo, WORKER_LEASE="3")
        job_id = enqueue(db, sleep_seconds=2)
        wait_for(db, job_id, "running")
        proxy.drop_packets()
        start_worker(WORKER_LEASE="3")
        done = wait_for(db, job_id, "succeeded")
        proxy.forward_again()
        cut_off.wait_until_it_logs(f"job {job_id} discarded")
        assert job(db, job_id) == done
        assert value(db, "select losses from jobs") == 1


def test_a_result_waits_for_the_network_as_long_as_the_claim_holds(
    db: Connection, conninfo: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    with proxy_to(conninfo) as proxy:
        worker = start_worker(DATABASE_URL=proxy.conninfo)
        payload = f'{{"directory": "{tmp_path}"}}'
        job_id = enqueue(db, job_type="wait_for_file", payload=payload)
        wait_for(db, job_id, "running")
        proxy.cut()
        worker.wait_until_it_logs("waiting for the queue")
        (tmp_path / "go").touch()
        eventually((tmp_path / "gone").exists)
        connections = proxy.connections
        eventually(lambda: proxy.connections > connections + 3)
        assert job(db, job_id).status == "running"
        proxy.forward_again()
        wait_for(db, job_id, "succeeded")
        assert value(db, "select losses from jobs") == 0


def test_a_worker_does_not_spin_while_the_database_is_away(
    db: Connection, conninfo: str, start_worker: StartWorker
) -> None:
    """Each attempt comes later than the one before, at least half of 0.1, 0.2, 0.4 … seconds."""
    with proxy_to(conninfo) as proxy:
        worker = start_worker(DATABASE_URL=proxy.conninfo, POLL_SECONDS="0.01")
        wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
        proxy.cut()
        before, cut_at = proxy.connections, time.monotonic()
        eventually(lambda: proxy.connections - before >= 12)
        assert time.monotonic() - cut_at > 1.0
        assert worker.log.count("waiting for the queue") <= 3
        proxy.forward_again()
        wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")


def test_a_stop_during_an_outage_does_not_wait_for_the_database(
    db: Connection, conninfo: str, start_worker: StartWorker
) -> None:
    with proxy_to(conninfo) as proxy:
        worker = start_worker(DATABASE_URL=proxy.conninfo)
        wait_for(db, enqueue(db, sleep_seconds=0), "succeeded")
        proxy.drop_packets()
        assert worker.stop() == 0


def test_workers_work_on_when_the_database_comes_back_from_a_crash(
    start_worker: StartWorker, tmp_path: Path
) -> None:
    """Every process of the server is killed at once, with jobs running and jobs waiting."""
    ran = tmp_path / "ran"
    with embedded_server() as server:
        conninfo = server.get_uri()
        migrate(conninfo)
        worker = start_worker(DATABASE_URL=conninfo, POLL_SECONDS=NEVER, WORKER_CONCURRENCY="5")
        with psycopg.connect(conninfo, autocommit=True) as connection:
            for _ in range(50):
                value(
                    connection,
                    "select job_queue.enqueue_job('count', jsonb_build_object("
                    " 'at', %s::text, 'seconds', 0.1))",
                    str(ran),
                )
        eventually(lambda: len(lines_of(ran)) > 10)
        postmaster = int((Path(server.pgdata) / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGQUIT)  # pg_ctl stop -m immediate
        worker.wait_until_it_logs("waiting for the queue")
        eventually(lambda: not (Path(server.pgdata) / "postmaster.pid").exists())
        server.start()
        with psycopg.connect(conninfo, autocommit=True) as connection:
            eventually(
                lambda: value(
                    connection,
                    "select count(*) = 50 from job_queue.list_jobs() where status = 'succeeded'",
                )
            )
        assert worker.stop() == 0
