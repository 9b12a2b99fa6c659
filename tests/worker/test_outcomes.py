"""How a run ends, for whatever a handler does, of whichever kind it is."""

from typing import Any

import pytest

from tests.support import Connection, enqueue, eventually, one, value
from tests.worker.conftest import StartWorker, wait_until_all_have_ended

KINDS_OF_HANDLER = ["", "async_", "process_"]

FAILED_FOR_GOOD: dict[str, str] = {
    "fail": "never mind",
    "object": "the result is no JSON: Object of type object is not JSON serializable",
    "nul in result": "the result holds the character NUL, which Postgres cannot store",
    "nan": "the result is no JSON: Out of range float values are not JSON compliant",
    "infinity": "the result is no JSON: Out of range float values are not JSON compliant",
    "surrogate in result": "the result is no JSON: 'utf-8' codec can't encode character",
    "set": "the result is no JSON: Object of type set is not JSON serializable",
    "bytes": "the result is no JSON: Object of type bytes is not JSON serializable",
    "loop": "the result is no JSON: Circular reference detected",
    "big number": "the result is no JSON: Exceeds the limit",
}

TO_BE_TRIED_AGAIN: dict[str, str] = {
    "exception": "ValueError: no such thing",
    "key error": "KeyError: 'a'",
    "nul": "RuntimeError: a\ufffdb",
    "surrogate": "RuntimeError: ?",
    "long": ("RuntimeError: " + "x" * 10_000)[:10_000],
    "empty": "RuntimeError: ",
    "unprintable": "Unprintable: an exception that cannot be printed",
    "exit": "SystemExit: 3",
    "interrupt": "KeyboardInterrupt: ",
    "recursion": "RecursionError: maximum recursion depth exceeded",
    "retry": "to be tried again",
    "bad snooze": "ValueError: delay must be from 0 to 365 days, not -1",
    "stop": "JobStopped: who says so?",
}


def end(db: Connection, start_worker: StartWorker, job_types: list[str], kinds: Any) -> Any:
    """Run a job for each type and kind, once, until none is left; return them by type and kind."""
    jobs = {
        (job_type, kind): enqueue(
            db,
            job_type=job_type,
            payload=f'{{"kind": "{kind}"}}',
            max_attempts=2,
            retry_delay="1 hour",
        )
        for job_type in job_types
        for kind in kinds
    }
    start_worker()
    eventually(
        lambda: value(
            db,
            "select count(*) = 0 from jobs"
            " where status = 'running' or status = 'queued' and run_at <= clock_timestamp()",
        )
    )
    return {
        key: one(db, "select * from jobs where id = %s", job_id) for key, job_id in jobs.items()
    }


def error_of(db: Connection, job: Any) -> str:
    """Return the error in the job's result, or that of the attempt that is to be repeated."""
    error = (job.result or {}).get("error") or value(
        db, "select detail ->> 'error' from job_history(%s) where verb = 'fail'", job.id
    )
    return str(error)


@pytest.mark.parametrize("handler", KINDS_OF_HANDLER)
def test_an_exception_fails_the_attempt_with_its_text_and_another_attempt_follows(
    db: Connection, start_worker: StartWorker, handler: str
) -> None:
    job_type = f"{handler}outcome"
    for (_, kind), job in end(db, start_worker, [job_type], TO_BE_TRIED_AGAIN).items():
        assert (kind, job.status, job.attempts) == (kind, "queued", 1)
        assert error_of(db, job).startswith(TO_BE_TRIED_AGAIN[kind])


@pytest.mark.parametrize("handler", KINDS_OF_HANDLER)
def test_fail_and_a_result_that_cannot_be_stored_fail_the_job_for_good(
    db: Connection, start_worker: StartWorker, handler: str
) -> None:
    job_type = f"{handler}outcome"
    for (_, kind), job in end(db, start_worker, [job_type], FAILED_FOR_GOOD).items():
        assert (kind, job.status) == (kind, "failed")
        assert job.result["error"].startswith(FAILED_FOR_GOOD[kind])


@pytest.mark.parametrize("handler", KINDS_OF_HANDLER)
def test_retry_and_snooze_say_when(db: Connection, start_worker: StartWorker, handler: str) -> None:
    kinds = ["retry later", "retry much later", "snooze"]
    found = end(db, start_worker, [f"{handler}outcome"], kinds)
    delays = {
        kind: (job.status, job.attempts, round((job.run_at - job.updated_at).total_seconds()))
        for (_, kind), job in found.items()
    }
    assert delays == {
        "retry later": ("queued", 1, 3600),
        "retry much later": ("queued", 1, 2 * 86_400),
        "snooze": ("queued", 0, 3600),
    }
    later = found[f"{handler}outcome", "retry later"]
    assert error_of(db, later) == "come back later"


def test_an_attempt_that_is_retried_at_once_spoils_no_other(
    db: Connection, start_worker: StartWorker
) -> None:
    """Ten microseconds are a number that Python writes with an exponent."""
    kinds = ["retry at once", "fail", "exception"]
    payloads = [f'{{"job_type": "outcome", "payload": {{"kind": "{kind}"}}}}' for kind in kinds]
    db.execute("select enqueue_jobs(%s)", [f"[{', '.join(payloads)}]"])
    start_worker()
    wait_until_all_have_ended(db)
    errors = db.execute("select result ->> 'error' as error from jobs order by seq").fetchall()
    assert [row.error for row in errors] == [
        "to be tried again",
        "never mind",
        "ValueError: no such thing",
    ]


@pytest.mark.parametrize("handler", KINDS_OF_HANDLER)
def test_what_the_handler_returns_is_the_result(
    db: Connection, start_worker: StartWorker, handler: str
) -> None:
    results = ["null", "{}", '{"a": [1, "\\u2028"]}', '"text"', "1.5", "false", '"\\\\u0000"']
    job_ids = [
        enqueue(db, job_type=f"{handler}echo", payload=f'{{"value": {result}}}')
        for result in results
    ]
    start_worker()
    wait_until_all_have_ended(db)
    for job_id, result in zip(job_ids, results, strict=True):
        row = one(
            db,
            "select status, result, payload -> 'value' is not distinct from"
            " coalesce(result, 'null') as same from jobs where id = %s",
            job_id,
        )
        assert (result, row.status, row.same) == (result, "succeeded", True)


def test_a_result_that_only_the_database_refuses_fails_its_job_and_no_other(
    db: Connection, start_worker: StartWorker
) -> None:
    def job_of(number: int) -> str:
        return f'{{"job_type": "digits", "payload": {{"number": {number}}}}}'

    numbers = [1, 2, 200_000, 3, 4, 200_000, 5]
    db.execute("select enqueue_jobs(%s)", [f"[{', '.join(map(job_of, numbers))}]"])
    start_worker()
    wait_until_all_have_ended(db)
    ended = db.execute("select status, result from jobs order by seq").fetchall()
    assert [row.status for row in ended] == [
        "failed" if number == 200_000 else "succeeded" for number in numbers
    ]
    assert [row.result["error"] for row in ended if row.status == "failed"] == [
        "the result could not be stored: value overflows numeric format"
    ] * 2


def test_results_that_are_too_long_for_one_call_are_reported_by_several(
    db: Connection, start_worker: StartWorker
) -> None:
    length = 4_000_000
    for _ in range(10):
        enqueue(db, job_type="text", payload=f'{{"length": {length}}}')
    too_long = enqueue(db, job_type="text", payload='{"length": 4194304}')
    start_worker()
    wait_until_all_have_ended(db)
    lengths = db.execute(
        "select length(result #>> '{}') as length from jobs where status = 'succeeded'"
    )
    assert [row.length for row in lengths] == [length] * 10
    assert error_of(db, one(db, "select * from jobs where id = %s", too_long)) == (
        "the result is too long: 4194306 bytes of JSON"
    )


def test_a_payload_that_does_not_fit_fails_the_job_for_good_and_says_how(
    db: Connection, start_worker: StartWorker
) -> None:
    job_id = enqueue(db, job_type="count", payload='{"seconds": "long"}', max_attempts=5)
    worker = start_worker()
    job = eventually(
        lambda: (
            (found := one(db, "select * from jobs where id = %s", job_id)).status == "failed"
            and found
        )
    )
    assert job.result["error"] == (
        "the payload does not fit count: at: Field required; seconds: Input should be a valid"
        " number, unable to parse string as a number"
    )
    assert "Traceback" not in worker.log


def test_the_traceback_of_an_exception_is_logged_and_that_of_a_fail_is_not(
    db: Connection, start_worker: StartWorker
) -> None:
    worker = start_worker()
    enqueue(db, job_type="outcome", payload='{"kind": "fail"}')
    worker.wait_until_it_logs("failed (never mind)")
    assert "Traceback" not in worker.log
    enqueue(db, job_type="outcome", payload='{"kind": "exception"}')
    worker.wait_until_it_logs("ValueError: no such thing")
    assert "Traceback" in worker.log
