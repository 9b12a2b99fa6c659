"""Every function on every status under every kind of claim moves as documented, or not at all."""

import re
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

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

ROW = re.compile(r"^\| (?:`(?P<status>\w+)` )?\| `(?P<function>\w+)` \| `(?P<to>\w+)` \|$", re.M)
TRANSITIONS = {
    (row["status"], row["function"]): row["to"] for row in ROW.finditer(README.read_text())
}

STATUSES = ["queued", "running", "succeeded", "failed"]
ENDING_A_RUN = ["complete_job", "fail_job", "release_job"]
CLAIMS = ["right", "stale", "none"]


class Cell(NamedTuple):
    """A job with two claims behind it, of which the second is the latest."""

    job_id: Any
    right: int
    stale: int
    none: None = None


@pytest.fixture
def cell(db: Connection, status: str) -> Cell:
    """Bring a job to the status by way of the functions, past a claim that was released."""
    job_id = enqueue(db)
    stale = claim(db).claim_id
    db.execute("select release_job(%s, %s)", [job_id, stale])
    right = claim(db).claim_id
    last = {"queued": "release_job", "succeeded": "complete_job", "failed": "fail_job"}
    if status in last:
        db.execute(f"select {last[status]}(%s, %s)", [job_id, right])
    assert value(db, "select status from jobs") == status
    return Cell(job_id, right, stale)


def test_the_documented_statuses_are_those_of_the_table(db: Connection) -> None:
    check = value(
        db,
        "select pg_get_constraintdef(oid) from pg_constraint where conname = %s",
        "jobs_status_is_known",
    )
    documented = {*TRANSITIONS.values(), *(status for status, _ in TRANSITIONS if status)}
    assert set(re.findall(r"'(\w+)'", check)) == documented == set(STATUSES)


def test_a_new_job_is_in_the_documented_status(db: Connection) -> None:
    enqueue(db)
    assert value(db, "select status from jobs") == TRANSITIONS[None, "enqueue_job"]


@pytest.mark.parametrize("status", STATUSES)
def test_claim_next_job_on_every_status(db: Connection, cell: Cell, status: str) -> None:
    before = everything(db)
    claimed = db.execute("select * from claim_next_job()").fetchall()
    if to := TRANSITIONS.get((status, "claim_next_job")):
        assert [job.id for job in claimed] == [cell.job_id]
        assert value(db, "select status from jobs") == to
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
    call = f"select {function}(%s, %s)"
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
        assert value(db, "select status from jobs") == to
        assert value(db, "select count(*) from claims") == 0


@pytest.mark.parametrize("function", ENDING_A_RUN)
@pytest.mark.parametrize("job_id", [UNKNOWN_JOB, None])
@pytest.mark.parametrize("claim_id", ["live", -1, None])
def test_an_unknown_job_is_refused_whatever_the_claim(
    db: Connection, function: str, job_id: str | None, claim_id: Any
) -> None:
    enqueue(db)
    live = claim(db).claim_id
    with raises_and_changes_nothing(db, "JQ002", "does not exist"):
        db.execute(f"select {function}(%s, %s)", [job_id, live if claim_id == "live" else claim_id])
