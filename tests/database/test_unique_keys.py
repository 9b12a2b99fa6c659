"""p_unique_key: at most one unfinished job for each queue and key, whatever happens to it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support import (
    Connection,
    claim,
    enqueue,
    everything,
    in_another_thread,
    one,
    raises_and_changes_nothing,
    value,
    wait_until_blocked,
)

UNFINISHED = "select count(*) from jobs where status in ('queued', 'running')"


def test_a_second_enqueue_adds_nothing_and_returns_the_first_jobs_id_with_a_notice(
    db: Connection,
) -> None:
    notices: list[str | None] = []
    db.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    first = enqueue(db, unique_key="report")
    before = everything(db)
    assert notices == []
    assert enqueue(db, unique_key="report", message="another") == first
    assert notices == [f"job {first} has the unique key report already"]
    assert everything(db) == before


def test_keys_are_unique_within_a_queue_only(db: Connection) -> None:
    job_ids = {
        enqueue(db, unique_key="a"),
        enqueue(db, unique_key="b"),
        enqueue(db, unique_key="a", queue="other"),
        enqueue(db),
        enqueue(db),
    }
    assert len(job_ids) == 5


ENDINGS = {
    "succeeded": ["select complete_job(%s, %s)"],
    "failed": ["select fail_job(%s, %s)"],
    "cancelled": ["select release_job(%s, %s)", "select cancel_job(%s)"],
    "cancelled while it ran": ["select cancel_job(%s)", "select fail_job(%s, %s)"],
    "lost": [
        "update claims set lease = '1 ms', expires_at = now() - interval '1 s'",
        "select reclaim_expired_claims()",
    ],
}


def end(db: Connection, ending: str) -> Any:
    """Claim the next job and let it end that way; return its id."""
    held = claim(db)
    for call in ENDINGS[ending]:
        db.execute(call, [held.id, held.claim_id][: call.count("%s")])
    return held.id


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_key_is_free_again_once_the_job_has_ended(db: Connection, ending: str) -> None:
    first = enqueue(db, unique_key="report", max_losses=0)
    end(db, ending)
    assert one(db, "select unique_key from get_job(%s)", first).unique_key == "report"
    assert enqueue(db, unique_key="report") != first


@pytest.mark.parametrize(
    "call",
    [
        "select fail_job(%s, %s)",
        "select snooze_job(%s, %s, '0')",
        "select release_job(%s, %s)",
        ENDINGS["lost"],
    ],
)
def test_the_key_is_held_until_the_job_has_ended(db: Connection, call: str | list[str]) -> None:
    first = enqueue(db, unique_key="report", max_attempts=2)
    held = claim(db)
    assert enqueue(db, unique_key="report") == first
    for query in call if isinstance(call, list) else [call]:
        db.execute(query, [held.id, held.claim_id][: query.count("%s")])
    assert value(db, "select status from jobs") == "queued"
    assert enqueue(db, unique_key="report") == first


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_a_retry_takes_the_key_again_if_it_is_free(db: Connection, ending: str) -> None:
    first = enqueue(db, unique_key="report")
    end(db, ending)
    db.execute("select retry_job(%s)", [first])
    assert enqueue(db, unique_key="report") == first


def test_a_retry_is_refused_while_another_job_holds_the_key(db: Connection) -> None:
    first = enqueue(db, unique_key="report")
    end(db, "failed")
    enqueue(db, unique_key="report")
    with raises_and_changes_nothing(db, "JQ007", "unique key"):
        db.execute("select retry_job(%s)", [first])


@pytest.mark.parametrize("unique_key", ["", "x" * 501])
def test_a_wrong_key_is_refused(db: Connection, unique_key: str) -> None:
    with raises_and_changes_nothing(db, "JQ001", "^invalid unique_key"):
        enqueue(db, unique_key=unique_key)


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_of_two_enqueues_at_once_one_waits_for_the_other(
    connect: Callable[[], Connection], outcome: str
) -> None:
    one_client, other_client, observer = connect(), connect(), connect()
    one_client.execute("begin")
    first = enqueue(one_client, unique_key="report")
    with in_another_thread(lambda: enqueue(other_client, unique_key="report")) as call:
        wait_until_blocked(observer, other_client, by=one_client)
        one_client.execute(outcome)
        assert (call.result() == first) == (outcome == "commit")
    assert value(observer, UNFINISHED) == 1


@pytest.mark.parametrize("outcome", ["commit", "rollback"])
def test_an_enqueue_that_meets_the_end_of_the_holder_waits_for_it(
    connect: Callable[[], Connection], outcome: str
) -> None:
    worker, client, observer = connect(), connect(), connect()
    first = enqueue(observer, unique_key="report")
    held = claim(worker)
    worker.execute("begin")
    worker.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    with in_another_thread(lambda: enqueue(client, unique_key="report")) as call:
        wait_until_blocked(observer, client, by=worker)
        worker.execute(outcome)
        assert (call.result() == first) == (outcome == "rollback")
    assert value(observer, UNFINISHED) == 1


def test_many_clients_and_workers_never_double_a_key(connect: Callable[[], Connection]) -> None:
    def work(db: Connection) -> None:
        for number in range(60):
            enqueue(db, unique_key=f"key {number % 3}")
            for row in db.execute("select * from claim_next_job()").fetchall():
                db.execute("select complete_job(%s, %s)", [row.id, row.claim_id])

    with ThreadPoolExecutor(6) as executor:
        list(executor.map(work, [connect() for _ in range(6)]))
    db = connect()
    assert value(db, UNFINISHED) <= 3
    for row in db.execute("select job_id from job_events where verb = 'enqueue'").fetchall():
        verbs = [line[0] for line in db.execute("select verb from job_history(%s)", [row[0]])]
        assert verbs in (["enqueue"], ["enqueue", "claim", "complete"])
