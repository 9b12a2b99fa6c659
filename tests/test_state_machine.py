"""Every function on every status under every kind of claim moves as documented, or not at all."""

import re
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support import (
    UNKNOWN_JOB,
    Connection,
    claim,
    enqueue,
    everything,
    one,
    raises_and_changes_nothing,
    value,
)

README = Path(__file__).resolve().parent.parent / "database" / "README.md"

ROW = re.compile(r"^\| (?:`(\w+)` )?\| `(\w+)` \| `(\w+)` \| `(\w+)`", re.M)
DOCUMENTED = [match.groups() for match in ROW.finditer(README.read_text())]
TRANSITIONS = {
    (status, function): {
        to for before, _, to, by in DOCUMENTED if (before, by) == (status, function)
    }
    for status, _, _, function in DOCUMENTED
}

STATUSES = ["blocked", "queued", "running", "succeeded", "failed", "cancelled"]
ENDING_A_RUN = {
    "complete_job": "select complete_job(%s, %s)",
    "fail_job": "select fail_job(%s, %s)",
    "snooze_job": "select snooze_job(%s, %s, '1 hour')",
    "release_job": "select release_job(%s, %s)",
}
ENDING_MANY_RUNS = {
    "complete_jobs": "complete_job",
    "fail_jobs": "fail_job",
    "release_jobs": "release_job",
}
CLAIMS = ["right", "stale", "none"]


class Cell(NamedTuple):
    """A job with two claims behind it, of which the second is the latest."""

    job_id: Any
    right: int
    stale: int
    none: None = None


def bring_to(db: Connection, status: str) -> Cell:
    """Bring a job to the status by way of the functions, past a claim that was released."""
    if status == "blocked":
        parent = enqueue(db, delay="1 hour")
        return Cell(enqueue(db, depends_on=[parent]), right=-1, stale=-2)
    job_id = enqueue(db)
    stale = claim(db).claim_id
    db.execute("select release_job(%s, %s)", [job_id, stale])
    right = claim(db).claim_id
    last = {"queued": "release_job", "succeeded": "complete_job", "failed": "fail_job"}
    if status == "cancelled":
        db.execute("select release_job(%s, %s)", [job_id, right])
        db.execute("select cancel_job(%s)", [job_id])
    elif status in last:
        db.execute(f"select {last[status]}(%s, %s)", [job_id, right])
    cell = Cell(job_id, right, stale)
    assert status_of(db, cell) == status
    return cell


def status_of(db: Connection, cell: Cell) -> Any:
    return value(db, "select status from jobs where id = %s", cell.job_id)


@pytest.fixture
def cell(db: Connection, status: str) -> Cell:
    """A job in this status."""
    return bring_to(db, status)


def test_the_documented_statuses_are_those_of_the_table(db: Connection) -> None:
    rule = value(db, "select prosrc from pg_proc where proname = 'is_consistent'")
    documented = {to for _, _, to, _ in DOCUMENTED}
    assert set(re.findall(r"'(\w+)'", rule)) == documented == set(STATUSES)
    assert not value(db, "select is_consistent('sleeping', false, false, false, false)")


@pytest.mark.parametrize("status", STATUSES)
def test_what_a_job_has_must_fit_its_status(db: Connection, status: str) -> None:
    allowed = {
        (claimable, waits, has_failed, has_result)
        for claimable, waits, has_failed, has_result in product([False, True], repeat=4)
        if (claimable + waits == 1 if status == "queued" else not claimable and not waits)
        and has_failed == (status == "failed")
        and (not has_result or status in ("succeeded", "failed"))
    }
    rows = db.execute(
        "select claimable, waits, failed, result from (values (false), (true)) as a (claimable),"
        " (values (false), (true)) as b (waits), (values (false), (true)) as c (failed),"
        " (values (false), (true)) as d (result)"
        " where is_consistent(%s, claimable, waits, failed, result)",
        [status],
    ).fetchall()
    assert {tuple(row) for row in rows} == allowed


@pytest.mark.parametrize("status", STATUSES)
def test_an_update_by_hand_of_what_must_fit_the_status_is_refused(
    db: Connection, cell: Cell, status: str
) -> None:
    for change in (
        "claimable = not claimable",
        "waits_for_key = not waits_for_key",
        "failed_at = case when failed_at is null then clock_timestamp() end",
    ):
        with pytest.raises(psycopg.errors.CheckViolation, match="jobs_fit_their_status"):
            db.execute(f"update jobs set {change} where id = %s", [cell.job_id])


def test_the_documented_transitions_are_those_of_the_database(db: Connection) -> None:
    rows = db.execute("select from_status, verb, to_status from job_transitions").fetchall()
    assert sorted(map(str, rows)) == sorted(
        map(
            str,
            map(type(rows[0])._make, ((status, verb, to) for status, verb, to, _ in DOCUMENTED)),
        )
    )


def test_the_triggers_condition_lists_the_transitions_of_the_table(db: Connection) -> None:
    rule = value(db, "select prosrc from pg_proc where proname = 'may_become'")
    listed = re.findall(r"(\w+) -> (\w+)", rule)
    documented = {(status, to) for status, _, to, _ in DOCUMENTED if status and status != to}
    assert len(listed) == len(set(listed))
    assert set(listed) == documented


@pytest.mark.parametrize(("before", "after"), list(product(STATUSES, STATUSES)))
def test_an_update_by_hand_is_refused_unless_it_is_a_transition(
    db: Connection, before: str, after: str
) -> None:
    cell = bring_to(db, before)
    # What the CHECKs tie to the status goes along, so that only the trigger is in the way.
    update = """
        update jobs
           set status = %(to)s,
               claimable = %(to)s = 'queued',
               failed_at = case %(to)s when 'failed' then clock_timestamp() end,
               result = null
         where id = %(id)s
    """
    arguments = {"to": after, "id": cell.job_id}
    if before == after or any((before, after) == (status, to) for status, _, to, _ in DOCUMENTED):
        db.execute(update, arguments)
        assert status_of(db, cell) == after
    else:
        with raises_and_changes_nothing(db, "JQ005", f"cannot change from {before} to {after}"):
            db.execute(update, arguments)


def test_a_new_job_is_in_the_documented_status(db: Connection) -> None:
    job_id = enqueue(db)
    enqueue(db, depends_on=[job_id])
    statuses = {row.status for row in db.execute("select status from jobs")}
    assert statuses == TRANSITIONS[None, "enqueue_job"]


@pytest.mark.parametrize("status", STATUSES)
def test_claim_next_job_on_every_status(db: Connection, cell: Cell, status: str) -> None:
    before = everything(db)
    claimed = db.execute("select * from claim_next_job()").fetchall()
    if to := TRANSITIONS.get((status, "claim_next_job")):
        assert [job.id for job in claimed] == [cell.job_id]
        assert {status_of(db, cell)} == to
        assert one(db, "table claims").claim_id == claimed[0].claim_id > cell.right
    else:
        assert claimed == []
        assert everything(db) == before


@pytest.mark.parametrize(
    ("status", "function", "which"), list(product(STATUSES, ENDING_A_RUN, CLAIMS))
)
def test_functions_that_end_a_run_on_every_status_under_every_claim(
    db: Connection, cell: Cell, status: str, function: str, which: str
) -> None:
    call = ENDING_A_RUN[function]
    arguments = [cell.job_id, getattr(cell, which)]
    to = TRANSITIONS.get((status, function))
    if to is None:
        with raises_and_changes_nothing(db, "JQ003", f"is {status}, not running"):
            db.execute(call, arguments)
    elif which != "right":
        with raises_and_changes_nothing(db, "JQ004", "does not hold job"):
            db.execute(call, arguments)
    else:
        db.execute(call, arguments)
        assert status_of(db, cell) in to
        assert value(db, "select count(*) from claims") == 0


@pytest.mark.parametrize(
    ("status", "function", "which"), list(product(STATUSES, ENDING_MANY_RUNS, CLAIMS))
)
def test_functions_that_end_many_runs_on_every_status_under_every_claim(
    db: Connection, cell: Cell, status: str, function: str, which: str
) -> None:
    before = everything(db)
    run = Jsonb([{"job_id": str(cell.job_id), "claim_id": getattr(cell, which)}])
    outcome = one(db, f"select * from {function}(%s)", run)
    assert outcome.job_id == cell.job_id
    to = TRANSITIONS.get((status, ENDING_MANY_RUNS[function]))
    if to is not None and which == "right":
        assert outcome.refusal is None
        assert outcome.status == status_of(db, cell)
        assert outcome.status in to
        assert value(db, "select count(*) from claims") == 0
    else:
        assert outcome.status is None
        assert outcome.refusal == ("JQ003" if to is None else "JQ004")
        assert everything(db) == before


@pytest.mark.parametrize(("status", "which"), list(product(STATUSES, CLAIMS)))
def test_report_progress_on_every_status_under_every_claim(
    db: Connection, cell: Cell, status: str, which: str
) -> None:
    call = "select report_progress(%s, %s, '50')"
    arguments = [cell.job_id, getattr(cell, which)]
    if status == "running" and which == "right":
        events = db.execute("table job_events").fetchall()
        db.execute(call, arguments)
        assert value(db, "select progress from claims") == 50
        assert db.execute("table job_events").fetchall() == events
    else:
        code = "JQ004" if status == "running" else "JQ003"
        with raises_and_changes_nothing(db, code, "does not hold|not running"):
            db.execute(call, arguments)


@pytest.mark.parametrize(("status", "which"), list(product(STATUSES, CLAIMS)))
def test_heartbeat_on_every_status_under_every_claim(
    db: Connection, cell: Cell, status: str, which: str
) -> None:
    before = everything(db)
    beat = one(db, "select * from heartbeat(%s::bigint[])", [getattr(cell, which)])
    assert beat.held == (status == "running" and which == "right")
    if not beat.held:
        assert everything(db) == before


@pytest.mark.parametrize("function", ENDING_A_RUN)
@pytest.mark.parametrize("job_id", [UNKNOWN_JOB, None])
@pytest.mark.parametrize("claim_id", ["live", -1, None])
def test_an_unknown_job_is_refused_whatever_the_claim(
    db: Connection, function: str, job_id: str | None, claim_id: Any
) -> None:
    enqueue(db)
    live = claim(db).claim_id
    with raises_and_changes_nothing(db, "JQ002", "does not exist"):
        db.execute(ENDING_A_RUN[function], [job_id, live if claim_id == "live" else claim_id])


@pytest.mark.parametrize("status", STATUSES)
def test_cancel_job_on_every_status(db: Connection, cell: Cell, status: str) -> None:
    before = everything(db)
    answer = value(db, "select cancel_job(%s)", cell.job_id)
    assert (
        answer
        == {
            "blocked": "cancelled",
            "queued": "cancelled",
            "running": "requested",
            "succeeded": "too late",
            "failed": "too late",
            "cancelled": "cancelled",
        }[status]
    )
    if to := TRANSITIONS.get((status, "cancel_job")):
        assert {status_of(db, cell)} == to
    else:
        assert everything(db) == before


@pytest.mark.parametrize("status", STATUSES)
def test_retry_job_on_every_status(db: Connection, cell: Cell, status: str) -> None:
    if to := TRANSITIONS.get((status, "retry_job")):
        db.execute("select retry_job(%s)", [cell.job_id])
        assert {status_of(db, cell)} == to
    else:
        with raises_and_changes_nothing(db, "JQ006", f"is {status}"):
            db.execute("select retry_job(%s)", [cell.job_id])


@pytest.mark.parametrize("function", ["cancel_job", "retry_job"])
@pytest.mark.parametrize("job_id", [UNKNOWN_JOB, None])
def test_an_unknown_job_can_be_neither_cancelled_nor_retried(
    db: Connection, function: str, job_id: str | None
) -> None:
    with raises_and_changes_nothing(db, "JQ002", "does not exist"):
        db.execute(f"select {function}(%s)", [job_id])
