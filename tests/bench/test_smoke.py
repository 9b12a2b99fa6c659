"""The benchmark still works. How fast anything is, no test says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from psycopg.conninfo import make_conninfo

from tests.bench.__main__ import PARTS
from tests.bench.place import ROOT, Place
from tests.bench.results import Results
from tests.bench.sizes import TINY, Sizes, parse
from tests.conftest import Server
from tests.support import Connection, eventually, value

FIGURES = {
    "enqueue": {"enqueue_job"},
    "bulk": {"enqueue_jobs, 20 a call"},
    "claim": {
        "claim_next_job, complete_job",
        "claim_jobs, complete_jobs, 100 a call",
        "complete_and_claim, 100 a call",
    },
    "drain": {"1 worker process", "2 worker processes"},
    "latency": {"p50", "p95", "p99"},
    "post": {"POST /noop, 1 connections", "POST /jobs, 1 connections"},
    "growth": {
        "claim_next_job, buffers/job: 150 queued",
        "claim_next_job, buffers/job: 300 queued, old snapshot, 40 passed",
        "claim_jobs(100), ms p95: 150 queued, 200 finished",
    },
    "pinned": {"claim and complete, 100 a call, old snapshot, 210 passed"},
    "front": {
        "claim_next_job, buffers p50, in front: nothing",
        "claim_next_job, ms p50, in front: with a key at its limit",
    },
    "reads": {"queue_statistics, beside 200 finished", "explain_job, beside 150 finished"},
    "prune": {"drain by one worker, while it prunes"},
    "life": {"WAL, payload of 100 bytes, one by one", "disk, payload of 100 bytes, 100 a call"},
    "million": {"drain, all of it", "memory of the API, at most", "memory of the worker, at most"},
}


@pytest.fixture(scope="module")
def place(server: Server) -> Iterator[Place]:
    """Return where to measure, for all tests here."""
    conninfo = make_conninfo(
        host=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        dbname=server.maintenance_dbname,
    )
    with ExitStack() as stack:
        yield Place(conninfo, stack)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_gives_its_figures_and_loses_no_job(
    place: Place, part: str, tmp_path: Path
) -> None:
    results = Results({})
    PARTS[part](place, TINY, results)  # asserts itself that each job was done, and once
    found = {figure["what"]: figure for figure in results.figures}
    assert found.keys() >= FIGURES[part]
    for what in FIGURES[part]:
        assert found[what]["median"] > 0, what
        assert found[what].get("ratio", 1) > 0, what
    for series in results.series:
        assert series["points"]
    assert all(what in results.table() for what in found)
    results.save(tmp_path / "results" / "of.json")
    saved = json.loads((tmp_path / "results" / "of.json").read_text())
    assert saved["figures"] == results.figures


def test_what_is_made_for_measuring_is_gone_at_the_end(place: Place, db: Connection) -> None:
    with place.database():
        pass
    left = "select count(*) from pg_database where datname like %s"
    assert value(db, left, f"job_queue_bench_{os.getpid()}_%") == 0


def test_a_ratio_is_the_median_of_those_within_each_round() -> None:
    results = Results({})
    results.add("part", "minimal", "jobs/s", [100, 10, 1])
    results.add("part", "ours", "jobs/s", [50, 9, 2], beside="minimal")
    assert results.of("part", "ours")["ratio"] == 0.9


def test_sizes_are_read_as_what_they_are() -> None:
    given = {"rounds": "3", "queued": "10,20", "seconds": "0.5", "drain": None}
    assert parse(Sizes(), given) == Sizes(rounds=3, queued=(10, 20), seconds=0.5)


HARNESS = """
import os, sys

DSN, BATCH, CONC = os.environ["DSN"], 0, 0

def payload(i):
    return {"i": i, "user": "someone", "pad": ""}

def chunks(n, size):
    yield [payload(i) for i in range(n)]

def ran(i):
    os.write(1, b"%d\\n" % i)

def gate():
    pass

def timed(call):
    call()

def cli():
    getattr(sys.modules["__main__"], sys.argv[1])(*map(int, sys.argv[2:]))
"""


def test_the_driver_enqueues_and_works_under_a_harness(
    fresh_database: Connection, conninfo: str, tmp_path: Path
) -> None:
    fresh_database.execute("drop schema job_queue cascade")
    fresh_database.commit()
    (tmp_path / "common.py").write_text(HARNESS)
    environment = {**os.environ, "DSN": conninfo, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    driver = [sys.executable, str(ROOT / "tests" / "bench" / "driver.py")]
    for command in (["setup"], ["enqueue", "2"], ["bulk", "3"]):
        subprocess.run([*driver, *command], env=environment, check=True)
    output = tmp_path / "ran"
    with output.open("w") as ran:
        worker = subprocess.Popen([*driver, "worker"], env=environment, stdout=ran)
    try:
        eventually(lambda: len(output.read_text().splitlines()) == 6)
    finally:
        worker.kill()
        worker.wait()
    assert sorted(output.read_text().split()) == ["0", "0", "0", "1", "1", "2"]
