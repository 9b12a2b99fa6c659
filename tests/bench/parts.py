"""What is measured on a queue that is not deep: one function a part."""

import random
import re
import subprocess
import time
from collections.abc import Callable
from tempfile import NamedTemporaryFile
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from tests.bench.calls import Calls
from tests.bench.load import load
from tests.bench.place import Connection, Place, connect, process_seconds, program, wait_until
from tests.bench.results import Results
from tests.bench.sizes import Sizes

ALL_ENDED = """
select not exists (select from job_queue.claims)
   and (select seq from job_queue.jobs where claimable
         order by queue, job_type, priority, run_at, seq limit 1) is null
"""


def rate(count: int, call: Callable[[], object]) -> float:
    """Return how many a second that makes."""
    start = time.perf_counter()
    call()
    return count / (time.perf_counter() - start)


def percentile(values: list[float], share: float) -> float:
    """Return the value below which that share of them lies."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def value(connection: Connection, query: str, *parameters: Any) -> Any:
    """Return the only column of the only row."""
    [(only,)] = connection.execute(query, parameters).fetchall()
    return only


def enqueue(place: Place, sizes: Sizes, results: Results) -> None:
    """Enqueue one by one: each job a call and a transaction of its own, over one connection."""
    with place.database() as conninfo, connect(conninfo) as connection:
        calls = Calls(connection)
        calls.enqueue(0)
        calls.enqueue_minimal(0)
        ours, minimal = [], []
        for _ in range(sizes.rounds):
            minimal.append(
                rate(sizes.calls, lambda: list(map(calls.enqueue_minimal, range(sizes.calls))))
            )
            ours.append(rate(sizes.calls, lambda: list(map(calls.enqueue, range(sizes.calls)))))
        count = value(connection, "select count(*) from job_queue.jobs where status = 'queued'")
        assert count == 1 + sizes.rounds * sizes.calls
    results.add("enqueue", "minimal insert function", "jobs/s", minimal)
    results.add("enqueue", "enqueue_job", "jobs/s", ours, beside="minimal insert function")


def bulk(place: Place, sizes: Sizes, results: Results) -> None:
    """Enqueue many at a time: one call and one transaction for so many jobs."""
    name = f"enqueue_jobs, {sizes.batch} a call"
    base = f"minimal insert function, {sizes.batch} a call"
    with place.database() as conninfo, connect(conninfo) as connection:
        calls = Calls(connection)
        ours, minimal = [], []
        for _ in range(sizes.rounds):
            minimal.append(
                rate(sizes.bulk, lambda: calls.enqueue_many_minimal(sizes.bulk, sizes.batch))
            )
            ours.append(rate(sizes.bulk, lambda: calls.enqueue_many(sizes.bulk, sizes.batch)))
        assert value(connection, "select count(*) from job_queue.jobs") == sizes.rounds * sizes.bulk
    results.add("bulk", base, "jobs/s", minimal)
    results.add("bulk", name, "jobs/s", ours, beside=base)


def claim(place: Place, sizes: Sizes, results: Results) -> None:
    """Claim and complete, without a worker, beside the minimal pair of functions."""
    batches = max(sizes.bulk // 100, 1)
    jobs = sizes.rounds * (sizes.calls + 200 * batches)
    rates: dict[str, list[float]] = {
        "minimal pair, one by one": [],
        "claim_next_job, complete_job": [],
        "minimal pair, 100 a call": [],
        "claim_jobs, complete_jobs, 100 a call": [],
        "complete_and_claim, 100 a call": [],
    }
    with place.database() as conninfo, connect(conninfo) as connection:
        calls = Calls(connection)
        calls.enqueue_many_minimal(jobs, 1000)
        calls.enqueue_many(jobs, 1000)
        connection.execute("vacuum analyze")

        def one_by_one() -> None:
            for _ in range(sizes.calls):
                calls.complete(calls.claim())

        def minimal_one_by_one() -> None:
            for _ in range(sizes.calls):
                calls.run_minimal()

        def by_many() -> None:
            for _ in range(batches):
                calls.complete_many(calls.claim_many(100))

        def minimal_by_many() -> None:
            for _ in range(batches):
                calls.run_many_minimal(100)

        def fused() -> None:
            claims = calls.claim_many(100)
            for _ in range(batches - 1):
                claims = calls.complete_and_claim(claims, 100)
            calls.complete_many(claims)

        ways = (minimal_one_by_one, one_by_one, minimal_by_many, by_many, fused)
        for _ in range(sizes.rounds):
            for (name, values), way in zip(rates.items(), ways, strict=True):
                count = sizes.calls if "100" not in name else 100 * batches
                values.append(rate(count, way))
        succeeded = value(
            connection, "select count(*) from job_queue.jobs where status = 'succeeded'"
        )
        assert succeeded == jobs
    for name, values in rates.items():
        base = f"minimal pair, {'100 a call' if '100' in name else 'one by one'}"
        results.add("claim", name, "jobs/s", values, beside=None if name == base else base)
    _claim_by_eight(place, sizes, results)


def _claim_by_eight(place: Place, sizes: Sizes, results: Results) -> None:
    pgbench = program("pgbench")
    if pgbench is None:
        results.about["eight_connections"] = "not measured: pgbench is not installed"
        return
    scripts = {
        "minimal pair, 8 connections (pgbench)": (
            "select id from minimal.claim() \\gset\nselect minimal.complete(:id);\n"
        ),
        "claim_next_job, complete_job, 8 connections (pgbench)": (
            "select id, claim_id from job_queue.claim_next_job('bench') \\gset\n"
            "select job_queue.complete_job(:id, :claim_id);\n"
        ),
    }
    each = max(sizes.calls // 4, 1)
    rates: dict[str, list[float]] = {name: [] for name in scripts}
    with place.database() as conninfo, connect(conninfo) as connection:
        calls = Calls(connection)
        calls.enqueue_many_minimal(sizes.rounds * 8 * each, 1000)
        calls.enqueue_many(sizes.rounds * 8 * each, 1000)
        connection.execute("vacuum analyze")
        for _ in range(sizes.rounds):
            for name, script in scripts.items():
                rates[name].append(_pgbench(pgbench, conninfo, script, each))
    base = next(iter(scripts))
    for name, values in rates.items():
        results.add("claim", name, "jobs/s", values, beside=None if name == base else base)


def _pgbench(pgbench: str, conninfo: str, script: str, each: int) -> float:
    with NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        place = conninfo_to_dict(conninfo)
        command = [pgbench, "-n", "-M", "prepared", "-c", "8", "-j", "2", "-t", str(each)]
        command += ["-h", str(place.get("host", "")), "-p", str(place.get("port", ""))]
        command += ["-U", str(place.get("user", "")), "-f", file.name, str(place["dbname"])]
        environment = {"PGPASSWORD": str(place.get("password") or ""), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
    found = re.search(r"tps = ([\d.]+)", done.stdout)
    if done.returncode != 0 or found is None:
        raise RuntimeError(f"pgbench: {done.stderr[-1000:]}")
    return float(found[1])


def drain(place: Place, sizes: Sizes, results: Results) -> None:
    """Real workers on a backlog: jobs by the seconds from the first claim to the last completion.

    These two times are those of the history, and so of the server's clock.
    """
    rates: dict[int, list[float]] = {1: [], 2: []}
    worker_time: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(sizes.rounds):
        for count in rates:
            with place.database() as conninfo, connect(conninfo) as connection:
                connection.execute("select job_queue.pause_queue('default')")
                Calls(connection).enqueue_many(sizes.drain, sizes.batch)
                with place.workers(conninfo, count) as processes:
                    before = sum(process_seconds(process.pid) for process in processes)
                    connection.execute("select job_queue.resume_queue('default')")
                    wait_until(connection, ALL_ENDED)
                    after = sum(process_seconds(process.pid) for process in processes)
                seconds = _drained_in(connection, sizes.drain)
            rates[count].append(sizes.drain / seconds)
            worker_time[count].append((after - before) / sizes.drain * 1e6)
    one = "1 worker process"
    results.add("drain", one, "jobs/s", rates[1])
    results.add("drain", "2 worker processes", "jobs/s", rates[2], beside=one)
    results.add("drain", "processor time of a worker", "us/job", worker_time[1])


def _drained_in(connection: Connection, count: int) -> float:
    """Return the seconds, once it is sure that each job has run once."""
    assert (
        value(connection, "select count(*) from job_queue.jobs where status = 'succeeded'") == count
    )
    rows = connection.execute(
        "select verb, count(*), count(distinct job_id), min(at), max(at) from job_queue.job_events"
        " where verb <> 'enqueue' group by verb order by verb"
    ).fetchall()
    assert [row[:3] for row in rows] == [("claim", count, count), ("complete", count, count)]
    return float((rows[1][4] - rows[0][3]).total_seconds())


def latency(place: Place, sizes: Sizes, results: Results) -> None:
    """From the call of enqueue_job to the start of the handler, of a worker that was idle."""
    with place.database() as conninfo, connect(conninfo) as connection:
        calls = Calls(connection)
        asked_at = []
        with place.workers(conninfo, 1):
            for _ in range(sizes.samples + 5):
                wait_until(connection, ALL_ENDED)
                time.sleep(random.uniform(0.005, max(sizes.idle_seconds, 0.01)))
                asked_at.append(time.monotonic_ns())
                calls.enqueue_stamp()
            wait_until(connection, ALL_ENDED)
        ran_at = [
            int(row[0])
            for row in connection.execute(
                "select result from job_queue.jobs where job_type = 'stamp'"
                " and status = 'succeeded' order by seq"
            ).fetchall()
        ]
    assert len(ran_at) == len(asked_at)
    waits = [(ran - asked) / 1e6 for asked, ran in zip(asked_at, ran_at, strict=True)][5:]
    for share in (50, 95, 99):
        results.add("latency", f"p{share}", "ms", [percentile(waits, share / 100)])


def post(place: Place, sizes: Sizes, results: Results) -> None:
    """POST /jobs, beside a route of the same process that does nothing."""
    body = '{"sleep_seconds": 2, "message": "hello world"}'
    with place.database() as conninfo, place.api(conninfo) as (url, _):
        for connections in sizes.connections:
            rates: dict[str, list[float]] = {"/noop": [], "/jobs": []}
            for _ in range(sizes.rounds):
                for path, values in rates.items():
                    per_second, client = load(f"{url}{path}", body, sizes.seconds, connections)
                    values.append(per_second)
            results.about["http_client"] = client
            base = f"POST /noop, {connections} connections"
            results.add("post", base, "requests/s", rates["/noop"])
            results.add(
                "post", f"POST /jobs, {connections} connections", "requests/s", rates["/jobs"], base
            )
        with connect(conninfo) as connection:
            assert value(connection, "select count(*) from job_queue.jobs") > 0
