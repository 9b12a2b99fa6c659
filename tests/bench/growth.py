"""What is measured as the queue grows: one function a part."""

import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import psycopg

from tests.bench.calls import Calls, jobs
from tests.bench.parts import ALL_ENDED, percentile, rate, value
from tests.bench.place import Connection, Place, connect, resident_bytes, wait_until
from tests.bench.results import Results
from tests.bench.sizes import Sizes

EXPLAIN_CLAIM = (
    "explain (analyze, buffers, format json)"
    " select * from job_queue.claim_next_job(p_worker => 'explained')"
)
EXPLAIN_CLAIMS = (
    "explain (analyze, buffers, format json)"
    " select * from job_queue.claim_jobs(100, p_worker => 'explained')"
)
EXPLAINED = "select job_id, claim_id from job_queue.claims where worker = 'explained'"

# Through the public functions, ten million jobs with their history would take the better part of
# an hour. These rows are what they would have left.
FILL_QUEUED = """
with filled as (
  insert into job_queue.jobs (job_type, payload)
  select 'noop', jsonb_build_object('i', i, 'user', 'someone@example.test', 'pad', repeat('x', 60))
    from generate_series(1, %s) as i
  returning id
)
insert into job_queue.job_events (job_id, verb, to_status)
select id, 'enqueue', 'queued' from filled
"""
FILL_FINISHED = """
with filled as (
  insert into job_queue.jobs (job_type, payload, status, claimable, attempts)
  select 'noop', jsonb_build_object('i', i, 'user', 'someone@example.test', 'pad', repeat('x', 60)),
         'succeeded', false, 1
    from generate_series(1, %s) as i
  returning id
)
insert into job_queue.job_events (job_id, verb, from_status, to_status, claim_id, attempt)
select filled.id, step.verb, step.before, step.after, step.claim_id, step.attempt
  from filled
 cross join (values ('enqueue', null, 'queued', null, null),
                    ('claim', 'queued', 'running', 0, 1),
                    ('complete', 'running', 'succeeded', 0, 1))
         as step (verb, before, after, claim_id, attempt)
"""
FILL_AT_A_TIME = 500_000

WARMING = 5
"""Claims that are not counted: a new session reads the catalog and makes its plans."""

RELATIONS = """
select relname, pg_total_relation_size(oid)
  from pg_class where relnamespace = 'job_queue'::regnamespace and relkind = 'r'
"""


@contextmanager
def old_snapshot(conninfo: str) -> Iterator[None]:
    """Hold a snapshot, as a report or a dump does: vacuum takes nothing away that is newer."""
    with psycopg.connect(conninfo) as holder:
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("select count(*) from job_queue.queues")
        yield


def growth(place: Place, sizes: Sizes, results: Results) -> None:
    """What a claim costs beside more and more jobs, and again once many have passed through.

    Those pass while an old snapshot is held, so that of what they leave nothing can be removed.
    """
    costs: dict[str, list[tuple[float, float]]] = {}
    base: str | None = None
    scenarios = [(f"{count:,} queued", count, 0) for count in sizes.queued]
    beside = f"{sizes.queued[0]:,} queued, {sizes.finished:,} finished"
    scenarios.append((beside, sizes.queued[0], sizes.finished))
    for name, queued, finished in scenarios:
        with place.database() as conninfo, connect(conninfo) as connection:
            fill(connection, FILL_FINISHED, finished)
            fill(connection, FILL_QUEUED, queued)
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")
            _cost(connection, sizes, results, name, base, costs, queued if not finished else None)
            with old_snapshot(conninfo):
                Calls(connection).pass_through(sizes.passed, min(1000, sizes.passed))
                pinned = f"{name}, old snapshot, {sizes.passed:,} passed"
                _cost(connection, sizes, results, pinned, base or name, costs, None)
        base = base or name
    for what, points in costs.items():
        results.add_series("growth", what, "queued jobs", what, points)


def fill(connection: Connection, statement: str, count: int) -> None:
    """Run a statement that makes so many rows, for some of them at a time."""
    for first in range(0, count, FILL_AT_A_TIME):
        connection.execute(statement, (min(FILL_AT_A_TIME, count - first),))


def _cost(
    connection: Connection,
    sizes: Sizes,
    results: Results,
    name: str,
    base: str | None,
    costs: dict[str, list[tuple[float, float]]],
    x: int | None,
) -> None:
    """Measure single claims and claims of a hundred, the latter by the job."""
    found = {
        "claim_next_job": _explained(connection, EXPLAIN_CLAIM, sizes.probes, 1),
        "claim_jobs(100)": _explained(connection, EXPLAIN_CLAIMS, max(sizes.probes // 10, 1), 100),
    }
    for call, (buffers, milliseconds) in found.items():
        for unit, number in (
            ("buffers/job", median(buffers)),
            ("ms p50", percentile(milliseconds, 0.5)),
            ("ms p95", percentile(milliseconds, 0.95)),
        ):
            what = f"{call}, {unit}"
            beside = None if base is None else f"{what}: {base}"
            results.add("growth", f"{what}: {name}", unit, [number], beside)
            if x is not None:
                costs.setdefault(what, []).append((x, number))


def _explained(
    connection: Connection, statement: str, count: int, size: int
) -> tuple[list[float], list[float]]:
    """Return the buffers a job and the milliseconds a call of so many claims.

    The time is the server's, without the commit and the way there and back.
    """
    calls = Calls(connection)
    buffers, milliseconds = [], []
    for _ in range(WARMING + count):
        calls.enqueue_many(size, size)  # so that the queue stays as deep as it is
        plan = value(connection, statement)[0]
        top = plan["Plan"]
        buffers.append((top["Shared Hit Blocks"] + top["Shared Read Blocks"]) / size)
        milliseconds.append(plan["Execution Time"])
        claims = [(row[0], row[1]) for row in connection.execute(EXPLAINED).fetchall()]
        assert len(claims) == size
        calls.complete_many(claims)
    return buffers[WARMING:], milliseconds[WARMING:]


def pinned(place: Place, sizes: Sizes, results: Results) -> None:
    """How fast claims are as jobs pass through, with an old snapshot held, and without.

    In two databases, in turns: a snapshot in one holds up no vacuum in the other.
    """
    singles, batches = sizes.calls, max(sizes.bulk // 100, 1)
    measured = singles + 100 * batches  # long enough to have its share of sweeps and recoveries
    step = max(sizes.passed // sizes.steps, measured)
    curves: dict[str, list[tuple[float, float]]] = {}
    with (
        place.database() as free,
        place.database() as held,
        old_snapshot(held),
        connect(free) as free_connection,
        connect(held) as held_connection,
    ):
        sides = {"free": free_connection, "old snapshot": held_connection}
        for number in range(sizes.steps + 1):
            for side, connection in sides.items():
                calls = Calls(connection)
                if number and step > measured:
                    calls.pass_through(step - measured, min(1000, step - measured))
                calls.enqueue_many(measured, 1000)
                for what, per_second in (
                    ("one by one", _single_rate(calls, singles)),
                    ("100 a call", _batch_rate(calls, batches)),
                ):
                    curves.setdefault(f"{what}, {side}", []).append((number * step, per_second))
    for what in ("one by one", "100 a call"):
        without, with_it = curves[f"{what}, free"], curves[f"{what}, old snapshot"]
        late = slice(len(without) - max(len(without) // 3, 1), None)
        base = f"claim and complete, {what}"
        held_name = f"{base}, old snapshot, {step * sizes.steps:,} passed"
        results.add("pinned", base, "jobs/s", [y for _, y in without[late]])
        results.add("pinned", held_name, "jobs/s", [y for _, y in with_it[late]], base)
    for what, points in curves.items():
        results.add_series("pinned", what, "jobs passed", "jobs/s", points)


def _single_rate(calls: Calls, count: int) -> float:
    def run() -> None:
        for _ in range(count):
            calls.complete(calls.claim())

    return rate(count, run)


def _batch_rate(calls: Calls, count: int) -> float:
    def run() -> None:
        for _ in range(count):
            calls.complete_many(calls.claim_many(100))

    return rate(100 * count, run)


def life(place: Place, sizes: Sizes, results: Results) -> None:
    """WAL, and what stays on disk, for a job from enqueue to completion.

    The WAL is all that the server wrote meanwhile, with the pages that it copies after each
    checkpoint: on a server that does something else too, it counts that as well.
    """
    for size in sizes.payloads:
        count = max(sizes.life * 100 // max(size, 100), 20)
        for name, batch in (("one by one", 1), ("100 a call", 100)):
            with place.database() as conninfo, connect(conninfo) as connection:
                calls = Calls(connection)
                connection.execute("checkpoint")
                before = _sizes(connection)
                start = value(connection, "select pg_current_wal_lsn()")
                if batch == 1:
                    for i in range(count):
                        calls.enqueue(i, size)
                    for _ in range(count):
                        calls.complete(calls.claim())
                else:
                    calls.enqueue_many(count, batch, size)
                    while claims := calls.claim_many(batch):
                        calls.complete_many(claims)
                end = value(connection, "select pg_current_wal_lsn()")
                written = value(connection, "select %s::pg_lsn - %s::pg_lsn", end, start)
                after = _sizes(connection)
            what = f"payload of {size:,} bytes, {name}"
            results.add("life", f"WAL, {what}", "bytes/job", [float(written) / count])
            grown = sum(after.values()) - sum(before.values())
            results.add("life", f"disk, {what}", "bytes/job", [grown / count])


def _sizes(connection: Connection) -> dict[str, int]:
    return dict(connection.execute(RELATIONS).fetchall())


def million(place: Place, sizes: Sizes, results: Results) -> None:
    """Very many jobs, enqueued through the API and drained by a worker, whose memory is watched."""
    batch = min(1000, sizes.million)
    with place.database() as conninfo, connect(conninfo) as connection:
        connection.execute("select job_queue.pause_queue('default')")
        with place.api(conninfo) as (url, process), _watched(process.pid) as of_api:
            for first in range(0, sizes.million, batch):
                request = urllib.request.Request(
                    f"{url}/jobs/batch",
                    jobs(min(batch, sizes.million - first), first=first).encode(),
                    {"Content-Type": "application/json"},
                )
                urllib.request.urlopen(request).read()
        with place.workers(conninfo, 1) as [process], _watched(process.pid) as of_worker:
            connection.execute("select job_queue.resume_queue('default')")
            wait_until(connection, ALL_ENDED)
        per_second = connection.execute(
            "select extract(epoch from date_trunc('second', at) - min(min(at)) over ())::float8,"
            " count(*), count(distinct job_id) from job_queue.job_events"
            " where verb = 'complete' group by date_trunc('second', at) order by 1"
        ).fetchall()
        seconds = value(
            connection,
            "select extract(epoch from max(at) filter (where verb = 'complete')"
            " - min(at) filter (where verb = 'claim'))::float8 from job_queue.job_events",
        )
    assert sum(row[1] for row in per_second) == sizes.million
    assert sum(row[2] for row in per_second) == sizes.million
    curve = [(max(row[0], 0.0), float(row[1])) for row in per_second]
    whole = [y for _, y in curve[1:-1]] or [y for _, y in curve]  # the ends are parts of seconds
    fifth = max(len(whole) // 5, 1)
    results.add("million", "drain, all of it", "jobs/s", [sizes.million / seconds])
    results.add("million", "drain, first fifth of the time", "jobs/s", whole[:fifth])
    results.add("million", "drain, last fifth of the time", "jobs/s", whole[-fifth:])
    first_fifth, last_fifth = (
        results.of("million", f"drain, {which} fifth of the time") for which in ("first", "last")
    )
    last_fifth["beside"] = first_fifth["what"]
    last_fifth["ratio"] = last_fifth["median"] / first_fifth["median"]
    results.add_series("million", "drain", "seconds", "jobs/s", curve)
    for who, points in (("API", of_api), ("worker", of_worker)):
        megabytes = [y for _, y in points]
        results.add("million", f"memory of the {who}, at first", "MB", megabytes[:1])
        results.add("million", f"memory of the {who}, at most", "MB", [max(megabytes)])
        results.add("million", f"memory of the {who}, at the end", "MB", megabytes[-1:])
        results.add_series("million", f"memory of the {who}", "seconds", "MB", points)


@contextmanager
def _watched(pid: int) -> Iterator[list[tuple[float, float]]]:
    """Look twice a second how much memory a process has, in megabytes."""
    start = time.monotonic()
    points: list[tuple[float, float]] = []
    ended = threading.Event()

    def look() -> None:
        points.append((time.monotonic() - start, resident_bytes(pid) / 1e6))

    def keep_looking() -> None:
        while not ended.wait(0.5):
            look()

    look()
    thread = threading.Thread(target=keep_looking)
    thread.start()
    try:
        yield points
        look()
    finally:
        ended.set()
        thread.join()
