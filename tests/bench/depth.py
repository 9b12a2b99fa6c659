"""What is measured beside very many jobs that matter to nobody just then: one function a part."""

import json
import time

from tests.bench.calls import Calls
from tests.bench.growth import EXPLAINED, FILL_FINISHED, WARMING, fill
from tests.bench.parts import ALL_ENDED, percentile, value
from tests.bench.place import Connection, Place, connect, wait_until
from tests.bench.results import Results
from tests.bench.sizes import Sizes

# What stands before the jobs that may be taken: each of these jobs is older than those.
FRONTS = {
    "nothing": "",
    "of another type": "'other', 'default', 1, clock_timestamp(), null",
    "in a paused queue": "'noop', 'paused', 1, clock_timestamp(), null",
    "of a better priority, in an hour": (
        "'noop', 'default', 0, clock_timestamp() + interval '1 hour', null"
    ),
    "with a key at its limit": "'noop', 'keyed', 1, clock_timestamp(), 'full'",
}
FILL_FRONT = """
insert into job_queue.jobs (job_type, queue, priority, run_at, concurrency_key)
select {} from generate_series(1, %s)
"""
EXPLAIN_CLAIM = (
    "explain (analyze, buffers, format json) select * from job_queue.claim_next_job("
    "p_worker => 'explained', p_queues => '{paused,keyed,default}', p_job_types => '{noop}')"
)

FILL_EXPIRED = """
with filled as (
  insert into job_queue.jobs (id, job_type, payload, status, claimable, attempts, queue,
                              created_at, updated_at)
  select (lpad(to_hex((extract(epoch from now() - interval '8 days') * 1000)::bigint), 12, '0')
          || '7' || substr(md5(random()::text), 1, 19))::uuid,
         'noop', '{}', 'succeeded', false, 1, 'default', now() - interval '8 days',
         now() - interval '8 days'
    from generate_series(1, %s) as i
  returning id
)
insert into job_queue.job_events (job_id, verb, from_status, to_status)
select filled.id, step.verb, step.before, step.after
  from filled
 cross join (values ('enqueue', null, 'queued'), ('claim', 'queued', 'running'),
                    ('complete', 'running', 'succeeded')) as step (verb, before, after)
"""
EXPIRED = "select count(*) from job_queue.jobs where updated_at < now() - interval '1 day'"

# What people and programs ask of a queue, besides work.
READS = {
    "list_jobs": "select * from job_queue.list_jobs()",
    "list_jobs, queued": "select * from job_queue.list_jobs(p_statuses => '{queued}')",
    "list_jobs, failed": "select * from job_queue.list_jobs(p_statuses => '{failed}')",
    "list_dead_jobs": "select * from job_queue.list_dead_jobs()",
    "list_queues": "select * from job_queue.list_queues()",
    "list_events": "select * from job_queue.list_events()",
    "queue_statistics": "select * from job_queue.queue_statistics",
    "explain_job": (
        "select * from job_queue.explain_job((select id from job_queue.jobs where claimable"
        " order by queue, job_type, priority, run_at, seq limit 1))"
    ),
    "check_health": "select * from job_queue.check_health()",
    "run_maintenance": "select job_queue.run_maintenance()",
}


def front(place: Place, sizes: Sizes, results: Results) -> None:
    """What a claim costs that finds very many jobs before its own which may not be taken."""
    base: dict[str, str] = {}
    for name, columns in FRONTS.items():
        with place.database() as conninfo, connect(conninfo) as connection:
            connection.execute("select job_queue.pause_queue('paused')")
            connection.execute(
                "select job_queue.set_queue('keyed', '{\"key_concurrency_limit\": 1}')"
            )
            connection.execute(
                "select job_queue.enqueue_job(p_queue => 'keyed', p_concurrency_key => 'full')"
            )
            connection.execute("select from job_queue.claim_next_job(p_queues => '{keyed}')")
            if columns:
                fill(connection, FILL_FRONT.format(columns), sizes.front)
            connection.execute("vacuum analyze")
            _measure_claims(connection, sizes, results, name, base)


def _measure_claims(
    connection: Connection, sizes: Sizes, results: Results, name: str, base: dict[str, str]
) -> None:
    calls = Calls(connection)
    buffers, milliseconds = [], []
    for _ in range(WARMING + sizes.probes):
        calls.enqueue(0)
        top = value(connection, EXPLAIN_CLAIM)[0]
        buffers.append(top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"])
        milliseconds.append(top["Execution Time"])
        [claim] = connection.execute(EXPLAINED).fetchall()
        calls.complete((claim[0], claim[1]))
    for unit, values in (("buffers", buffers[WARMING:]), ("ms", milliseconds[WARMING:])):
        what = f"claim_next_job, {unit} p50, in front: {name}"
        results.add("front", what, unit, [percentile(values, 0.5)], base.get(unit))
        base.setdefault(unit, what)
    results.add("front", f"the slowest claim of all, in front: {name}", "ms", [max(milliseconds)])


def reads(place: Place, sizes: Sizes, results: Results) -> None:
    """What lists, statistics and maintenance cost beside few jobs and beside many."""
    for finished in (sizes.queued[0], sizes.finished):
        with place.database() as conninfo, connect(conninfo) as connection:
            fill(connection, FILL_FINISHED, finished)
            Calls(connection).enqueue_many(sizes.queued[0], 1000)
            connection.execute("vacuum analyze")
            for name, statement in READS.items():
                times = []
                for _ in range(1 + max(sizes.rounds, 1)):
                    start = time.perf_counter()
                    connection.execute(statement).fetchall()
                    times.append((time.perf_counter() - start) * 1e3)
                what = f"{name}, beside {finished:,} finished"
                beside = f"{name}, beside {sizes.queued[0]:,} finished"
                results.add("reads", what, "ms", times[1:], None if what == beside else beside)


def prune(place: Place, sizes: Sizes, results: Results) -> None:
    """A worker drains a backlog while it also prunes jobs that have expired, and while it does not.

    In two databases, in turns: in one of them everything is kept. What is pruned was enqueued at
    one time, and lies in the table as it was filled.
    """
    rates: dict[str, list[float]] = {"1000 years": [], "7 days": []}
    pruned: list[float] = []
    jobs = 5 * sizes.drain
    with place.database() as kept, place.database() as short:
        places = {"1000 years": kept, "7 days": short}
        for keep, conninfo in places.items():
            with connect(conninfo) as connection:
                policy = json.dumps({"keep_succeeded": keep})
                connection.execute("select job_queue.set_queue('default', %s)", (policy,))
                fill(connection, FILL_EXPIRED, sizes.expired)
                connection.execute("vacuum analyze")
        for _ in range(max(sizes.rounds, 1)):
            for keep, conninfo in places.items():
                with connect(conninfo) as connection:
                    per_second, expired = _drain_beside(place, connection, conninfo, jobs)
                rates[keep].append(per_second)
                if keep == "7 days":
                    pruned.append(expired)
    base = "drain by one worker, nothing to prune"
    results.add("prune", base, "jobs/s", rates["1000 years"])
    results.add("prune", "drain by one worker, while it prunes", "jobs/s", rates["7 days"], base)
    results.add("prune", "pruned meanwhile", "jobs/s", pruned)


def _drain_beside(
    place: Place, connection: Connection, conninfo: str, jobs: int
) -> tuple[float, float]:
    """Return how many jobs a second are drained, and how many expired ones pruned meanwhile."""
    connection.execute("select job_queue.pause_queue('default')")
    Calls(connection).enqueue_many(jobs, min(1000, jobs))
    start = value(connection, "select now()")
    with place.workers(conninfo, 1):
        before = value(connection, EXPIRED)
        connection.execute("select job_queue.resume_queue('default')")
        wait_until(connection, ALL_ENDED)
        after = value(connection, EXPIRED)
    seconds = value(
        connection,
        "select extract(epoch from max(at) filter (where verb = 'complete')"
        " - min(at) filter (where verb = 'claim'))::float8"
        " from job_queue.job_events where at > %s",
        start,
    )
    return jobs / seconds, (before - after) / seconds
