"""Breaks the queue while it works, and checks that nothing was lost or done twice.

    python -m tests.faults                          all scenarios, 30 seconds of faults each
    python -m tests.faults kill-workers kill-api    some
    python -m tests.faults --short                  those of the short mode: minutes
    python -m tests.faults --long                   all of them, for an hour
    python -m tests.faults disk-full --seed 7 --seconds 60 --to results.json

Each has a PostgreSQL of its own, three real workers, the real API, and clients that enqueue jobs
of all kinds in all ways, cancel them and have them tried again; scenarios.py says what is done to
these. Afterwards all jobs must end, and history.py holds what each client was told against the
tables. It prints a table, and saves JSON and a page with plots; the exit status is 1 if anything
is wrong.

The seed decides what is asked for and what is broken; when exactly, the machine does.
Some scenarios need root, PgBouncer or libfaketime, and are not run without.
"""

import argparse
import logging
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.bench.place import about
from tests.faults import history, load
from tests.faults.page import page
from tests.faults.results import Result, save, table
from tests.faults.scenarios import SCENARIOS, Scenario
from tests.faults.system import Missing, System, prepare

logger = logging.getLogger("tests.faults")

RESULTS = Path(__file__).resolve().parent / "results"

WARM_UP = 2.0
BEFORE, LONGEST_BEFORE = 4.0, 15.0
AFTER = 5.0
"""Seconds of load until it is measured, until the first fault, and after the last."""
LONGEST_DRAIN = 120.0
SHORT, MEDIUM, LONG = 6.0, 30.0, 150.0

RULES = history.Rules(load.LIMITS, load.KEY_LIMITS, load.SCHEDULES)

ALL_HAVE_ENDED = """
select not exists (
  select from job_queue.jobs where status not in ('succeeded', 'failed', 'cancelled'))
"""

_EVENTS = """
select event_id, job_id::text, verb, from_status, to_status, claim_id, attempt,
       detail ->> 'schedule',
       extract(epoch from (detail ->> 'tick')::timestamptz)::bigint,
       extract(epoch from at)::float8
  from job_queue.job_events
"""

_JOBS = """
select id::text, status, payload ->> 'ref', queue, unique_key, concurrency_key, max_attempts,
       max_losses, depends_on::text[], job_type
  from job_queue.jobs
"""


@contextmanager
def template() -> Iterator[Path]:
    """Return a data directory to copy."""
    with tempfile.TemporaryDirectory(prefix="job_queue_faults_") as directory:
        yield prepare(Path(directory))


def run(scenario: Scenario, data: Path, seed: int, seconds: float) -> Result:
    """Run a scenario, and return what it came to."""
    result = Result(scenario.name, seed, seconds, summary=scenario.summary)
    directory = Path(tempfile.mkdtemp(prefix="job_queue_faults_"))
    directory.chmod(0o755)
    try:
        with ExitStack() as stack:
            system = System(directory, data, scenario.layout, seed, stack)
            system.start()
            system.wait_until_ready()
            result.about = about(system.server.conninfo())
            begin = system.begin = time.time()
            system.load.start()
            time.sleep(WARM_UP)
            measured = time.time()
            time.sleep(min(max(BEFORE, seconds / 10), LONGEST_BEFORE))
            scenario.inject(system, seconds)
            time.sleep(AFTER)
            end = time.time()
            system.load.stop()
            result.drain = _drain(system, end)
            system.load.end()
            with system.observe() as connection:
                records, ends = collect(connection, history.read_all(system.logs))
            _judge(result, scenario, system, records)
            result.injected = system.faults
            result.measure(ends, begin, measured, end)
    except Missing:
        shutil.rmtree(directory)
        raise
    except BaseException:
        logger.error("what was logged is in %s", directory)
        raise
    if result.is_good:
        shutil.rmtree(directory)
    else:
        logger.error("what was logged is in %s", directory)
    return result


def _drain(system: System, end: float) -> float:
    """Wait until all jobs have ended, and return how long that took; some may never.

    The schedules have fired by then: where the machine is slow, maintenance may take a while.
    """
    system.running_workers()
    try:
        system.wait_until("select bool_and(last_at is not null) from job_queue.schedules")
        with system.observe() as connection:  # no tick fires while the records are read
            connection.execute("update job_queue.schedules set paused = true")
        system.wait_until(ALL_HAVE_ENDED, LONGEST_DRAIN)
    except TimeoutError as error:
        system.notes.append(f"waited in vain: {' '.join(str(error).split())}")
    return time.time() - end


def collect(
    connection: psycopg.Connection[Any], log: Sequence[history.Entry]
) -> tuple[history.Records, list[float]]:
    """Return all records, and when runs ended."""
    event_rows = connection.execute(_EVENTS).fetchall()
    job_rows = connection.execute(_JOBS).fetchall()
    orders = connection.execute("select ref from public.orders").fetchall()
    effects = connection.execute("select job_id::text, claim_id from public.effects").fetchall()
    records = history.Records(
        log,
        [_event(*row[:9]) for row in event_rows],
        [_job(*row) for row in job_rows],
        frozenset(ref for (ref,) in orders),
        effects,
        frozenset(row[0] for row in job_rows if row[9] == "effect"),
    )
    return records, [row[9] for row in event_rows if row[2] in history.ENDS_A_RUN]


def _event(
    event_id: int,
    job: str,
    verb: str,
    from_status: str | None,
    to_status: str,
    claim: int | None,
    attempt: int | None,
    schedule: str | None,
    tick: int | None,
) -> history.Event:
    detail = {} if tick is None else {"schedule": schedule, "tick": tick}
    return history.Event(event_id, job, verb, from_status, to_status, claim, attempt, detail)


def _job(
    job: str,
    status: str,
    ref: str | None,
    queue: str,
    unique_key: str | None,
    concurrency_key: str | None,
    max_attempts: int,
    max_losses: int,
    depends_on: list[str] | None,
    job_type: str,
) -> history.Job:
    return history.Job(
        job,
        status,
        ref,
        queue,
        unique_key,
        concurrency_key,
        max_attempts,
        max_losses,
        depends_on or [],
        job_type in load.GIVING_UP,
        job_type == "orphan",
    )


def _judge(result: Result, scenario: Scenario, system: System, records: history.Records) -> None:
    died = [history.Fault("died", what) for what in system.died]
    result.judge([*died, *history.check(records, RULES)], scenario.may_lose)
    result.jobs = len(records.jobs)
    for op in ("enqueue", "claim", "end", "cancel", "retry"):
        for entry in history.outcomes(records.log, op).values():
            ways = result.calls.setdefault(op, {})
            ways[entry.outcome] = ways.get(entry.outcome, 0) + 1
    for job in records.jobs:
        result.statuses[job.status] = result.statuses.get(job.status, 0) + 1
    for event in records.events:
        result.verbs[event.verb] = result.verbs.get(event.verb, 0) + 1
    result.unreached = system.load.failures
    result.notes = system.notes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for. Return 1 if something is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="all, if none is named")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="how long faults are done, in each scenario")
    parser.add_argument(
        "--to", type=Path, metavar="FILE", help="where to save the JSON; the page goes beside it"
    )
    parser.add_argument("--short", action="store_true", help="only what takes a few minutes")
    parser.add_argument("--long", action="store_true", help="all of it for an hour")
    given = parser.parse_args(arguments)
    if unknown := set(given.scenarios) - set(SCENARIOS):
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    chosen = [
        one
        for one in SCENARIOS.values()
        if (one.name in given.scenarios or not given.scenarios)
        and (one.is_short or not given.short)
    ]
    seconds = given.seconds or (SHORT if given.short else LONG if given.long else MEDIUM)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("yoyo").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # and clean up
    path = given.to or RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    results: list[Result] = []
    with template() as data:
        for one in chosen:
            logger.info("%s: %s", one.name, one.summary)
            try:
                result = run(one, data, given.seed, seconds)
            except Missing as reason:
                logger.warning("%s: not run: %s", one.name, reason)
                continue
            for line in [*result.notes, *result.found[:10]]:
                logger.info("%s: %s", one.name, line)
            results.append(result)
            save(path, results)
            path.with_suffix(".html").write_text(page(results))
    sys.stdout.write(f"{table(results)}\n\nsaved: {path}, {path.with_suffix('.html')}\n")
    return 0 if all(one.is_good for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
