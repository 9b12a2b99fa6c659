"""enqueue_once: a request that is repeated takes effect once, and is answered as it was then."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support import (
    Connection,
    claim,
    enqueue,
    in_another_thread,
    one,
    raises_and_changes_nothing,
    value,
    wait_until_blocked,
)

ONCE = "select * from enqueue_once(%s, %s, %s)"
JOBS: list[dict[str, Any]] = [
    {"message": "hello", "sleep_seconds": 7},
    {"job_type": "email", "queue": "mail"},
]
OTHER_JOBS = [{"message": "good-bye"}]
KEYS = "select client, idempotency_key from idempotency_keys order by client, idempotency_key"


def once(
    db: Connection, key: str | None = "k", jobs: Any = JOBS, client: str | None = None
) -> list[Any]:
    """Ask for the jobs, and return the answer."""
    return db.execute(ONCE, [client, key, Jsonb(jobs)]).fetchall()


def age(db: Connection, interval: str) -> None:
    """Make the keys that much older."""
    db.execute("update idempotency_keys set created_at = created_at - %s::interval", [interval])


def number_of_jobs(db: Connection) -> int:
    count: int = value(db, "select count(*) from jobs")
    return count


def test_the_first_request_adds_its_jobs_and_says_what_they_are(db: Connection) -> None:
    answer = once(db)
    stored = db.execute("select * from jobs order by seq").fetchall()
    assert [row.id for row in answer] == [job.id for job in stored]
    assert [(row.created, row.status, row.replayed) for row in answer] == [
        (True, "queued", False),
        (True, "queued", False),
    ]
    assert (answer[0].sleep_seconds, answer[0].message) == (7, "hello")
    assert [row.created_at for row in answer] == [job.created_at for job in stored]
    assert [job.job_type for job in stored] == ["sleep", "email"]


def test_a_repetition_adds_nothing_and_gets_the_first_answer(db: Connection) -> None:
    first = once(db)
    for _ in range(2):
        repeated = once(db)
        assert [row._replace(replayed=False) for row in repeated] == first
        assert [row.replayed for row in repeated] == [True, True]
    assert number_of_jobs(db) == 2


def test_the_answer_stays_as_it_was_whatever_becomes_of_the_jobs(db: Connection) -> None:
    first = once(db)
    held = claim(db)
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    assert [row._replace(replayed=False) for row in once(db)] == first
    db.execute("delete from jobs")
    assert [row._replace(replayed=False) for row in once(db)] == first
    assert number_of_jobs(db) == 0


def test_the_answer_tells_of_jobs_that_were_there_and_of_those_that_wait(db: Connection) -> None:
    holder = enqueue(db, unique_key="u", message="the holder's")
    jobs = [{"depends_on": [str(holder)]}, {"unique_key": "u", "message": "mine"}]
    for _ in range(2):
        answer = once(db, jobs=jobs)
        assert [(row.created, row.status) for row in answer] == [
            (True, "blocked"),
            (False, "queued"),
        ]
        assert (answer[1].id, answer[1].message) == (holder, "the holder's")


def test_a_job_that_is_asked_for_twice_in_one_request_is_told_of_twice(db: Connection) -> None:
    answer = once(db, jobs=[{"unique_key": "u"}, {}, {"unique_key": "u"}])
    assert [row.created for row in answer].count(True) == 2
    assert answer[0].id == answer[2].id


def test_no_jobs_are_a_request_too(db: Connection) -> None:
    assert once(db, jobs=[]) == once(db, jobs=[]) == []
    with raises_and_changes_nothing(db, "JQ011", "^idempotency key k was used for other jobs"):
        once(db)


def test_the_order_of_answers_is_that_of_the_jobs(db: Connection) -> None:
    jobs = [{"message": str(number), "unique_key": str(number % 50)} for number in range(100)]
    for _ in range(2):
        answer = once(db, jobs=jobs)
        assert [row.message for row in answer] == [str(number % 50) for number in range(100)]


def test_a_key_is_refused_for_other_jobs_and_still_good_for_its_own(db: Connection) -> None:
    once(db)
    with raises_and_changes_nothing(db, "JQ011", "^idempotency key k was used for other jobs"):
        once(db, jobs=OTHER_JOBS)
    assert once(db)[0].replayed


def test_jobs_are_the_same_in_whatever_order_their_keys_are_written(db: Connection) -> None:
    once(db)
    assert once(db, jobs=[dict(reversed(job.items())) for job in JOBS])[0].replayed
    with raises_and_changes_nothing(db, "JQ011", "was used for other jobs"):
        once(db, jobs=JOBS[::-1])


def test_a_repetition_may_come_with_another_trace(db: Connection) -> None:
    def traced(span: str) -> list[dict[str, Any]]:
        parent = f"00-0af7651916cd43dd8448eb211c80319c-{span}-01"
        return [{**job, "trace_context": {"traceparent": parent}} for job in JOBS]

    first = once(db, jobs=traced("b7ad6b7169203331"))
    assert once(db, jobs=traced("00f067aa0ba902b7"))[0].id == first[0].id
    assert once(db)[0].replayed


def test_each_client_has_its_own_keys(db: Connection) -> None:
    answers = [once(db, client=client)[0] for client in (None, "a", "b")]
    assert len({row.id for row in answers}) == 3
    assert not any(row.replayed for row in answers)
    assert once(db, client="")[0].id == answers[0].id
    assert db.execute(KEYS).fetchall() == [("", "k"), ("a", "k"), ("b", "k")]


@pytest.mark.parametrize("key", [None, "", "k" * 256])
def test_a_key_that_is_missing_or_too_long_is_refused(db: Connection, key: str | None) -> None:
    with raises_and_changes_nothing(db, "JQ001", "^invalid idempotency_key: "):
        once(db, key)


def test_a_key_may_have_255_characters_of_any_script(db: Connection) -> None:
    key = "ж" * 255
    assert once(db, key)[0].id == once(db, key)[0].id


@pytest.mark.parametrize(
    ("jobs", "sqlstate"),
    [
        ("null", "JQ001"),
        (None, "JQ001"),
        ("{}", "JQ001"),
        ("[1]", "JQ001"),
        ('[{}, {"priority": 9}]', "JQ001"),
        ('[{"priority": "high"}]', "22P02"),
        ('[{"depends_on": ["01234567-89ab-7def-8123-456789abcdef"]}]', "JQ002"),
    ],
)
def test_a_request_that_is_refused_leaves_its_key_free(
    db: Connection, jobs: str | None, sqlstate: str
) -> None:
    with pytest.raises(psycopg.DatabaseError) as raised:
        db.execute(ONCE, ["c", "k", jobs])
    assert raised.value.sqlstate == sqlstate
    assert db.execute(KEYS).fetchall() == []
    assert number_of_jobs(db) == 0
    assert not once(db, client="c")[0].replayed


# After a day


def test_a_key_is_known_for_24_hours(db: Connection) -> None:
    first = once(db)
    age(db, "23 hours 59 minutes")
    assert once(db)[0].id == first[0].id


@pytest.mark.parametrize("jobs", [JOBS, OTHER_JOBS])
def test_an_expired_key_is_as_if_it_were_not_there(db: Connection, jobs: Any) -> None:
    first = once(db)
    age(db, "24 hours")
    second = once(db, jobs=jobs)
    assert second[0].id != first[0].id
    assert not second[0].replayed
    assert once(db, jobs=jobs)[0]._replace(replayed=False) == second[0]
    assert value(db, "select count(*) from idempotency_keys") == 1


def test_a_replay_does_not_prolong_the_time(db: Connection) -> None:
    first = once(db)
    age(db, "23 hours")
    once(db)
    age(db, "1 hour")
    assert once(db)[0].id != first[0].id


def test_maintenance_deletes_expired_keys_and_no_others(db: Connection) -> None:
    once(db, "old"), once(db, "older")
    age(db, "24 hours")
    once(db, "new")
    db.execute("select run_maintenance()")
    assert db.execute(KEYS).fetchall() == [("", "new")]
    assert number_of_jobs(db) == 6


def test_pruning_deletes_so_many_keys_at_most_the_oldest_first(db: Connection) -> None:
    for key in "abc":
        once(db, key)
        age(db, "24 hours")
    assert value(db, "select prune_idempotency_keys(2)") == 2
    assert db.execute(KEYS).fetchall() == [("", "c")]
    assert value(db, "select prune_idempotency_keys(2)") == 1
    assert value(db, "select prune_idempotency_keys(2)") == 0


# Two at once


def test_a_twin_waits_for_the_first_and_gets_its_answer(
    connect: Callable[[], Connection],
) -> None:
    first, twin, observer = connect(), connect(), connect()
    first.execute("begin")
    answer = once(first)
    with in_another_thread(lambda: once(twin)) as late:
        wait_until_blocked(observer, twin, by=first)
        first.execute("commit")
        assert [row._replace(replayed=False) for row in late.result()] == answer
        assert late.result()[0].replayed
    assert number_of_jobs(observer) == 2


def test_a_twin_adds_the_jobs_if_the_first_rolls_back(connect: Callable[[], Connection]) -> None:
    first, twin, observer = connect(), connect(), connect()
    first.execute("begin")
    answer = once(first)
    with in_another_thread(lambda: once(twin)) as late:
        wait_until_blocked(observer, twin, by=first)
        first.execute("rollback")
        assert late.result()[0].id != answer[0].id
        assert not late.result()[0].replayed
    assert [row.id for row in observer.execute("select id from jobs order by seq")] == [
        row.id for row in late.result()
    ]


def test_a_request_for_other_jobs_under_the_same_key_is_refused_once_the_first_commits(
    connect: Callable[[], Connection],
) -> None:
    first, other, observer = connect(), connect(), connect()
    first.execute("begin")
    once(first)
    with in_another_thread(lambda: once(other, jobs=OTHER_JOBS)) as late:
        wait_until_blocked(observer, other, by=first)
        first.execute("commit")
        with pytest.raises(psycopg.DatabaseError) as raised:
            late.result()
    assert raised.value.sqlstate == "JQ011"
    assert number_of_jobs(observer) == 2


def test_of_two_that_meet_an_expired_key_one_takes_it_over_and_the_other_gets_its_answer(
    connect: Callable[[], Connection],
) -> None:
    first, twin, observer = connect(), connect(), connect()
    once(observer)
    age(observer, "24 hours")
    first.execute("begin")
    answer = once(first)
    assert not answer[0].replayed
    with in_another_thread(lambda: once(twin)) as late:
        wait_until_blocked(observer, twin, by=first)
        first.execute("commit")
        assert [row._replace(replayed=False) for row in late.result()] == answer
    assert number_of_jobs(observer) == 4


def test_maintenance_passes_over_an_expired_key_that_is_being_taken_over(
    connect: Callable[[], Connection],
) -> None:
    taking, maintaining = connect(), connect()
    once(taking)
    age(taking, "24 hours")
    taking.execute("begin")
    answer = once(taking)
    assert value(maintaining, "select prune_idempotency_keys()") == 0
    taking.execute("commit")
    assert value(maintaining, "select prune_idempotency_keys()") == 0
    assert once(maintaining)[0].id == answer[0].id


def test_a_request_whose_expired_key_is_just_being_deleted_waits_and_adds_its_jobs(
    connect: Callable[[], Connection],
) -> None:
    maintaining, asking, observer = connect(), connect(), connect()
    first = once(observer)
    age(observer, "24 hours")
    maintaining.execute("begin")
    assert value(maintaining, "select prune_idempotency_keys()") == 1
    with in_another_thread(lambda: once(asking)) as late:
        wait_until_blocked(observer, asking, by=maintaining)
        maintaining.execute("commit")
        assert late.result()[0].id != first[0].id
    assert db_row(observer).outcome is not None


def test_two_requests_with_different_keys_do_not_wait_for_each_other(
    connect: Callable[[], Connection],
) -> None:
    one_client, other_client = connect(), connect()
    other_client.execute("set lock_timeout = '1 ms'")
    one_client.execute("begin")
    once(one_client, "a")
    assert once(other_client, "b")
    assert once(other_client, "a", client="another")
    one_client.execute("commit")


def db_row(db: Connection) -> Any:
    """Return the only row of the table."""
    return one(db, "select * from idempotency_keys")
