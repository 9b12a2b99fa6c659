"""What happens when two workers meet: each race with two connections, and all of them at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.support import (
    Connection,
    claim,
    enqueue,
    in_another_thread,
    value,
    wait_until_blocked,
)

ENDING_A_RUN = {
    "complete_job": "succeeded",
    "fail_job": "failed",
    "release_job": "queued",
}


@pytest.mark.parametrize("first", ENDING_A_RUN)
@pytest.mark.parametrize("second", ENDING_A_RUN)
def test_of_two_calls_that_end_a_run_the_second_is_refused_once_the_first_commits(
    connect: Callable[[], Connection], first: str, second: str
) -> None:
    one_worker, other_worker, observer = connect(), connect(), connect()
    enqueue(observer)
    held = claim(observer)
    with one_worker.transaction():
        one_worker.execute(f"select {first}(%s, %s)", [held.id, held.claim_id])
        with in_another_thread(
            lambda: other_worker.execute(f"select {second}(%s, %s)", [held.id, held.claim_id])
        ) as late:
            wait_until_blocked(observer, other_worker, by=one_worker)
            one_worker.execute("commit")
            one_worker.execute("begin")
            with pytest.raises(psycopg.DatabaseError) as raised:
                late.result()
    assert raised.value.sqlstate == "JQ003"
    assert value(observer, "select status from jobs") == ENDING_A_RUN[first]


@pytest.mark.parametrize("first", ENDING_A_RUN)
@pytest.mark.parametrize("second", ENDING_A_RUN)
def test_of_two_calls_that_end_a_run_the_second_succeeds_if_the_first_rolls_back(
    connect: Callable[[], Connection], first: str, second: str
) -> None:
    one_worker, other_worker, observer = connect(), connect(), connect()
    enqueue(observer)
    held = claim(observer)
    one_worker.execute("begin")
    one_worker.execute(f"select {first}(%s, %s)", [held.id, held.claim_id])
    with in_another_thread(
        lambda: other_worker.execute(f"select {second}(%s, %s)", [held.id, held.claim_id])
    ) as late:
        wait_until_blocked(observer, other_worker, by=one_worker)
        one_worker.execute("rollback")
        late.result()
    assert value(observer, "select status from jobs") == ENDING_A_RUN[second]


@pytest.mark.parametrize("verb", ENDING_A_RUN)
def test_a_late_call_meets_the_next_workers_claim_and_is_refused(
    connect: Callable[[], Connection], verb: str
) -> None:
    late_worker, next_worker, observer = connect(), connect(), connect()
    enqueue(observer)
    late = claim(late_worker)
    next_worker.execute("begin")
    next_worker.execute("select release_job(%s, %s)", [late.id, late.claim_id])
    assert claim(next_worker).id == late.id
    with in_another_thread(
        lambda: late_worker.execute(f"select {verb}(%s, %s)", [late.id, late.claim_id])
    ) as call:
        wait_until_blocked(observer, late_worker, by=next_worker)
        next_worker.execute("commit")
        with pytest.raises(psycopg.DatabaseError) as raised:
            call.result()
    assert raised.value.sqlstate == "JQ004"
    assert value(observer, "select status from jobs") == "running"


def test_a_job_that_is_being_released_cannot_be_claimed_before_the_commit(
    connect: Callable[[], Connection],
) -> None:
    one_worker, other_worker = connect(), connect()
    job_id = enqueue(one_worker)
    held = claim(one_worker)
    with one_worker.transaction():
        one_worker.execute("select release_job(%s, %s)", [held.id, held.claim_id])
        assert other_worker.execute("select * from claim_next_job()").fetchall() == []
    assert claim(other_worker).id == job_id


def test_eight_workers_run_each_of_400_jobs_exactly_once(
    connect: Callable[[], Connection],
) -> None:
    client = connect()
    client.execute("select enqueue_job() from generate_series(1, 400)")

    def work(worker: Connection) -> list[Any]:
        done = []
        while rows := worker.execute("select * from claim_next_job()").fetchall():
            [held] = rows
            # A few are handed back on the way, so that claims and releases meet too.
            verb = "release_job" if held.claim_id % 10 == 0 else "complete_job"
            worker.execute(f"select {verb}(%s, %s)", [held.id, held.claim_id])
            if verb == "complete_job":
                done.append(held.id)
        return done

    with ThreadPoolExecutor(max_workers=8) as executor:
        runs = [
            job_id for done in executor.map(work, [connect() for _ in range(8)]) for job_id in done
        ]
    # A worker leaves when it finds nothing to claim, which may be just before another hands back.
    runs += work(client)
    assert len(runs) == len(set(runs)) == 400
    assert value(client, "select count(*) from jobs where status = 'succeeded'") == 400
    assert value(client, "select count(*) from claims") == 0
