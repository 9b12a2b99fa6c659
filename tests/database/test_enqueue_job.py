"""enqueue_job: -> queued."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.support import (
    NOTHING,
    Connection,
    claim,
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


def test_a_job_has_a_type_and_a_payload(db: Connection) -> None:
    db.execute("""SELECT enqueue_job('email', '{"to": "a@b.c"}')""")
    job = one(db, "table jobs")
    assert (job.job_type, job.payload) == ("email", {"to": "a@b.c"})
    assert (job.queue, job.priority, job.max_attempts, job.max_losses) == ("default", 1, 1, 3)


def test_a_job_runs_at_once_unless_told_otherwise(db: Connection) -> None:
    enqueue(db)
    enqueue(db, delay="1 hour")
    enqueue(db, run_at="2100-01-01 00:00:00+00")
    waits = db.execute(
        "select (run_at - created_at) between '-1 s' and '1 s' as at_once,"
        " (run_at - created_at) between '59 min' and '61 min' as delayed,"
        " run_at = '2100-01-01 00:00:00+00' as scheduled from jobs order by seq"
    ).fetchall()
    assert [tuple(row) for row in waits] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


@pytest.mark.parametrize(
    ("argument", "bad"),
    [
        ("job_type", ""),
        ("job_type", "x" * 101),
        ("job_type", None),
        ("payload", None),
        ("queue", ""),
        ("queue", "x" * 101),
        ("queue", None),
        ("priority", -1),
        ("priority", 4),
        ("priority", None),
        ("run_at", "infinity"),
        ("run_at", "-infinity"),
        ("delay", "-1 second"),
        ("delay", "11 years"),
        ("max_attempts", 0),
        ("retry_delay", "-1 second"),
        ("retry_delay_max", "2 years"),
        ("timeout", "0"),
        ("timeout", "2 years"),
        ("trace_context", Jsonb("00-1-2-01")),
        ("trace_context", Jsonb(["00-1-2-01"])),
        ("trace_context", Jsonb(None)),
        ("trace_context", Jsonb({"tracestate": "x" * 8192})),
    ],
)
def test_an_argument_out_of_range_is_refused(db: Connection, argument: str, bad: Any) -> None:
    with raises_and_changes_nothing(db, "JQ001", f"^invalid {argument}: "):
        enqueue(db, **{argument: bad})


def test_where_an_argument_is_null_the_queues_default_holds(db: Connection) -> None:
    policy = "max_attempts, retry_delay, retry_delay_max, max_losses, timeout"
    enqueue(db, max_attempts=None, retry_delay=None, retry_delay_max=None, max_losses=None)
    defaults = one(db, f"select {policy} from jobs")
    assert [str(column) for column in defaults] == ["1", "0:00:15", "1:00:00", "3", "None"]


def test_every_claim_brings_the_trace_context_of_whoever_enqueued(db: Connection) -> None:
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "v=" + "x" * 7500}
    enqueue(db, trace_context=Jsonb(trace), max_attempts=9)
    enqueue(db)
    enqueue(db, trace_context=Jsonb({}))
    held = claim(db)
    assert held.trace_context == trace
    db.execute("select fail_job(%s, %s, p_retry_in => '0')", [held.id, held.claim_id])
    others = db.execute("select * from claim_jobs(9)").fetchall()
    assert [row.trace_context for row in others] == [None, {}, trace]
    db.execute("select release_job(%s, %s)", [held.id, others[2].claim_id])
    again = one(db, "select * from complete_and_claim('[]')")
    assert again.trace_context == trace


def test_a_payload_of_4_mib_is_accepted_and_a_larger_one_refused(db: Connection) -> None:
    enqueue(db, payload=Jsonb("x" * (4 * 1024 * 1024 - 100)))
    with raises_and_changes_nothing(db, "JQ001", "^invalid payload: 4194.* bytes"):
        enqueue(db, payload=Jsonb("x" * (4 * 1024 * 1024)))


def test_run_at_and_delay_exclude_each_other(db: Connection) -> None:
    with raises_and_changes_nothing(db, "JQ001", "^invalid run_at and delay"):
        enqueue(db, run_at="2100-01-01 00:00:00+00", delay="1 hour")


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


@pytest.mark.parametrize(
    ("column", "bad"),
    [("status", "'done'"), ("status", "'running'"), ("claimable", "false"), ("result", "'{}'")],
)
def test_the_table_refuses_what_contradicts_the_status(
    db: Connection, column: str, bad: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute(f"insert into jobs ({column}) values ({bad})")
