"""enqueue_job: -> queued."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.support import (
    NOTHING,
    Connection,
    enqueue,
    everything,
    one,
    raises_and_changes_nothing,
    value,
)


def test_enqueue_returns_the_id_of_a_queued_job(db: Connection) -> None:
    job_id = value(db, "select enqueue_job(p_sleep_seconds => 2, p_message => 'hello')")
    job = one(db, "table jobs")
    assert isinstance(job_id, UUID)
    assert (job.id, job.status, job.sleep_seconds, job.message, job.result) == (
        job_id,
        "queued",
        2,
        "hello",
        None,
    )


def test_enqueue_without_arguments_sleeps_three_seconds(db: Connection) -> None:
    enqueue(db)
    job = one(db, "table jobs")
    assert (job.sleep_seconds, job.message) == (3, None)


def test_enqueue_stamps_the_job_with_the_present_even_late_in_a_transaction(db: Connection) -> None:
    with db.transaction():
        transaction_began = value(db, "select now()")
        value(db, "select pg_sleep(0.01)")
        enqueue(db)
    job = one(db, "table jobs")
    assert transaction_began < job.created_at <= value(db, "select clock_timestamp()")


def test_enqueued_jobs_are_gone_if_the_callers_transaction_rolls_back(db: Connection) -> None:
    with db.transaction(force_rollback=True):
        enqueue(db)
    assert everything(db) == NOTHING


def test_enqueued_jobs_are_seen_by_others_only_after_the_commit(
    connect: Callable[[], Connection],
) -> None:
    client, worker = connect(), connect()
    with client.transaction():
        enqueue(client)
        assert worker.execute("select * from claim_next_job()").fetchall() == []
    assert len(worker.execute("select * from claim_next_job()").fetchall()) == 1


@pytest.mark.parametrize("sleep_seconds", [0, 86_400])
def test_sleep_seconds_at_its_bounds_is_accepted(db: Connection, sleep_seconds: int) -> None:
    enqueue(db, sleep_seconds=sleep_seconds)
    assert one(db, "table jobs").sleep_seconds == sleep_seconds


@pytest.mark.parametrize("sleep_seconds", [-1, 86_401, 2**31 - 1, -(2**31), None])
def test_sleep_seconds_out_of_bounds_is_refused(db: Connection, sleep_seconds: Any) -> None:
    shown = "null" if sleep_seconds is None else f"{sleep_seconds}"
    with raises_and_changes_nothing(db, "JQ001", f"^invalid sleep_seconds: {shown}"):
        enqueue(db, sleep_seconds=sleep_seconds)


@pytest.mark.parametrize("message", ["", "x" * 10_000, "\U0001f600" * 10_000, "'; drop table jobs"])
def test_any_text_up_to_10000_characters_is_a_message(db: Connection, message: str) -> None:
    enqueue(db, message=message)
    assert one(db, "table jobs").message == message


def test_a_longer_message_is_refused(db: Connection) -> None:
    with raises_and_changes_nothing(db, "JQ001", "^invalid message: 10001 characters"):
        enqueue(db, message="x" * 10_001)


def test_ids_are_version_7_with_the_time_of_creation_and_room_for_a_shard(db: Connection) -> None:
    job_id = enqueue(db)
    milliseconds = job_id.int >> 80
    created_at = one(db, "table jobs").created_at
    assert (job_id.version, job_id.variant) == (7, "specified in RFC 4122")
    assert (job_id.int >> 64) & 0xFFF == 0
    assert abs(datetime.fromtimestamp(milliseconds / 1000, UTC) - created_at).total_seconds() < 0.1


def test_ids_sort_in_the_order_of_creation_within_a_millisecond(db: Connection) -> None:
    db.execute("do 'begin for i in 1..2000 loop perform job_queue.enqueue_job(); end loop; end'")
    [by_id] = one(db, "select array_agg(seq order by id) from jobs")
    assert len({row[0].int >> 80 for row in db.execute("select id from jobs")}) < 1000
    assert by_id == sorted(by_id)


def test_the_table_refuses_what_the_function_refuses(db: Connection) -> None:
    for column, bad in [
        ("sleep_seconds", "-1"),
        ("sleep_seconds", "86401"),
        ("message", "repeat('x', 10001)"),
        ("status", "'done'"),
        ("status", "'running'"),
        ("claimable", "false"),
        ("result", "'{}'"),
    ]:
        with pytest.raises(psycopg.errors.CheckViolation):
            db.execute(f"insert into jobs ({column}) values ({bad})")
    assert everything(db) == NOTHING
