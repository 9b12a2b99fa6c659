"""What REST does with jobs beyond v1: options, batches, filters, pages, cancel, retry, reading."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from api.models import MAX_BATCH
from tests.support import NOTHING, UNKNOWN_JOB, Connection, claim, enqueue, everything, one, value

V1_MEMBERS = ["id", "status", "sleep_seconds", "message", "result", "created_at"]
EVERYTHING = {
    "job_type": "email",
    "payload": {"to": ["a@b.c", None, 1.5, {"é": "\U0001f600"}]},
    "sleep_seconds": 0,
    "message": "hello",
    "queue": "mail",
    "priority": 3,
    "run_at": "2031-02-03T04:05:06.789000Z",
    "max_attempts": 5,
    "retry_delay_seconds": 1.5,
    "retry_delay_max_seconds": 90.0,
    "max_losses": 0,
    "timeout_seconds": 0.25,
    "concurrency_key": "customer 7",
    "trace_context": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
}


def fail(db: Connection, error: str, **options: Any) -> str:
    """Enqueue a job, and fail it for good with this error."""
    enqueue(db, **options)
    held = claim(db)
    db.execute("select fail_job(%s, %s, %s)", [held.id, held.claim_id, error])
    return str(held.id)


def ids(response: Any) -> list[str]:
    assert response.status_code == 200, response.text
    return [job["id"] for job in response.json()]


@pytest.mark.parametrize("unique", [{}, {"unique_key": "k"}])
def test_a_job_may_have_every_option_and_is_read_back_in_full(
    api: TestClient, unique: dict[str, str]
) -> None:
    parent = api.post("/jobs", json={}).json()["id"]
    options = EVERYTHING | unique | {"depends_on": [parent]}
    created = api.post("/jobs", json=options)
    assert created.status_code == 201
    assert list(created.json()) == V1_MEMBERS
    job = api.get(created.headers["Location"], params={"view": "full"}).json()
    assert job | options == job
    assert (job["status"], job["unique_key"]) == ("blocked", unique.get("unique_key"))
    assert list(job)[:7] == [*V1_MEMBERS, "updated_at"]
    assert job == api.get("/jobs", params={"view": "full", "queue": "mail"}).json()[0]


def test_delay_seconds_puts_a_job_off(api: TestClient, db: Connection) -> None:
    api.post("/jobs", json={"delay_seconds": 90.5})
    assert value(db, "select run_at - created_at from jobs") == pytest.approx(
        timedelta(seconds=90.5), abs=timedelta(seconds=1)
    )


@pytest.mark.parametrize("offset", ["Z", "+23:59", "-23:59"])
def test_a_time_may_have_any_offset(api: TestClient, db: Connection, offset: str) -> None:
    job = {"run_at": f"2031-02-03T04:05:06.789{offset}"}
    assert api.post("/jobs", json=job).status_code == 201
    assert api.post("/jobs/batch", json=[job]).status_code == 201
    times = {row.run_at for row in db.execute("select run_at from jobs")}
    assert times == {datetime.fromisoformat(job["run_at"])}


def test_what_is_left_out_has_the_default_of_the_queue(api: TestClient, db: Connection) -> None:
    db.execute('select set_queue(\'mail\', \'{"max_attempts": 7, "timeout": "5 minutes"}\')')
    for body in ({"queue": "mail"}, {"queue": "mail", "unique_key": "k"}):
        url = api.post("/jobs", json=body).headers["Location"]
        job = api.get(url, params={"view": "full"}).json()
        assert (job["max_attempts"], job["timeout_seconds"]) == (7, 300)


def test_the_job_that_has_the_unique_key_is_answered_with(api: TestClient) -> None:
    first = api.post("/jobs", json={"unique_key": "k", "message": "first"})
    second = api.post("/jobs", json={"unique_key": "k", "message": "second"})
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json() == first.json()
    assert second.headers["Location"] == first.headers["Location"]


def test_the_trace_of_the_request_is_that_of_the_job(api: TestClient, db: Connection) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for headers in ({"traceparent": parent, "tracestate": "a=1"}, {"traceparent": "nonsense"}):
        api.post("/jobs", json={}, headers=headers)
        api.post("/jobs/batch", json=[{}], headers=headers)
    contexts = [row.trace_context for row in db.execute("select * from jobs order by seq")]
    assert contexts == [{"traceparent": parent, "tracestate": "a=1"}] * 2 + [None] * 2


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"payload": None}, "payload: Leave it out"),
        ({"payload": "\0"}, "Unicode"),
        ({"payload": {"\0": 1}}, "Unicode"),
        ({"payload": "x" * 4_200_000}, "at most 4 MiB"),
        ({"queue": ""}, "queue: String should have at least 1 character"),
        ({"queue": "q" * 101}, "at most 100 characters"),
        ({"queue": "\0"}, "NUL"),
        ({"job_type": None}, "job_type: "),
        ({"priority": 4}, "priority: "),
        ({"priority": "1"}, "priority: "),
        ({"run_at": "2031-01-01T00:00:00"}, "run_at: "),
        ({"run_at": "tomorrow"}, "run_at: "),
        ({"run_at": 0}, "run_at: "),
        ({"run_at": "0"}, "run_at: "),
        ({"run_at": "9999-12-31T23:59:59-23:59"}, "run_at: In UTC"),
        ({"run_at": "2031-01-01T00:00:00Z", "delay_seconds": 1}, "run_at and delay"),
        ({"delay_seconds": -1}, "delay_seconds: "),
        ({"delay_seconds": 1e300}, "delay_seconds: "),
        ({"max_attempts": 0}, "max_attempts: "),
        ({"max_attempts": 2**31}, "max_attempts: "),
        ({"max_losses": -1}, "max_losses: "),
        ({"timeout_seconds": 0}, "timeout_seconds: "),
        ({"unique_key": ""}, "unique_key: "),
        ({"concurrency_key": "x" * 501}, "concurrency_key: "),
        ({"depends_on": ["x"]}, "depends_on[0]: "),
        ({"on_parent_failure": "ignore"}, "on_parent_failure: "),
        ({"trace_context": []}, "trace_context: "),
        ({"trace_context": {"a": "x" * 9000}}, "trace_context"),
    ],
)
@pytest.mark.parametrize("batch", [False, True])
def test_a_wrong_option_is_422_and_changes_nothing(
    api: TestClient, db: Connection, body: dict[str, Any], says: str, batch: bool
) -> None:
    response = api.post("/jobs/batch", json=[{}, body]) if batch else api.post("/jobs", json=body)
    assert response.status_code == 422
    assert says in response.json()["detail"]
    assert everything(db) == NOTHING


@pytest.mark.parametrize("path", ["/jobs", "/jobs/batch"])
def test_less_than_a_microsecond_is_no_time(api: TestClient, db: Connection, path: str) -> None:
    body = {"retry_delay_seconds": 1e-301, "delay_seconds": 5e-324}
    response = api.post(path, json=body if path == "/jobs" else [body])
    assert response.status_code == 201
    assert value(db, "select retry_delay = '0' from jobs")


def test_a_batch_is_answered_in_its_order(api: TestClient, db: Connection) -> None:
    held = api.post("/jobs", json={"queue": "mail", "unique_key": "k"}).json()["id"]
    jobs = [{}, EVERYTHING, {"queue": "mail", "unique_key": "k"}, {"message": None}]
    response = api.post("/jobs/batch", json=jobs)
    items = response.json()
    assert response.status_code == 201
    assert [item["created"] for item in items] == [True, True, False, True]
    assert items[2]["id"] == held
    job = api.get(f"/jobs/{items[1]['id']}", params={"view": "full"}).json()
    assert job | EVERYTHING == job
    assert value(db, "select count(*) from jobs") == 4


def test_thousands_of_jobs_may_come_in_one_call_but_not_any_number(
    api: TestClient, db: Connection
) -> None:
    assert api.post("/jobs/batch", json=[]).json() == []
    response = api.post("/jobs/batch", json=[{}] * (MAX_BATCH + 1))
    assert response.status_code == 413
    assert everything(db) == NOTHING
    items = api.post("/jobs/batch", json=[{"message": f"{n}"} for n in range(MAX_BATCH)]).json()
    assert len({item["id"] for item in items}) == MAX_BATCH
    messages = db.execute("select message from jobs order by seq").fetchall()
    assert [row.message for row in messages] == [f"{n}" for n in range(MAX_BATCH)]


def test_a_parent_that_does_not_exist_is_404_and_the_whole_batch_refused(
    api: TestClient, db: Connection
) -> None:
    response = api.post("/jobs/batch", json=[{}, {"depends_on": [UNKNOWN_JOB]}])
    assert response.status_code == 404
    assert everything(db) == NOTHING


KEY = {"Idempotency-Key": '"one"'}


@pytest.mark.parametrize("options", [{}, {"unique_key": "k"}])
def test_a_repetition_with_the_idempotency_key_gets_the_first_answer(
    api: TestClient, db: Connection, options: dict[str, str]
) -> None:
    body = {"message": "once"} | options
    first = api.post("/jobs", json=body, headers=KEY)
    held = claim(db)
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    again = api.post("/jobs", content=json.dumps(body, indent=3), headers=JSON | KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert value(db, "select count(*) from jobs") == 1


JSON = {"Content-Type": "application/json"}


def test_a_batch_is_repeated_like_a_single_job(api: TestClient, db: Connection) -> None:
    first = api.post("/jobs/batch", json=[{}, {}], headers=KEY)
    again = api.post("/jobs/batch", json=[{}, {}], headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert value(db, "select count(*) from jobs") == 2


def test_a_repetition_may_belong_to_another_trace(api: TestClient, db: Connection) -> None:
    for span in ("b7ad6b7169203331", "00f067aa0ba902b7"):
        trace = {"traceparent": f"00-0af7651916cd43dd8448eb211c80319c-{span}-01"}
        assert api.post("/jobs", json={}, headers=KEY | trace).status_code == 201
    assert value(db, "select count(*) from jobs") == 1


def test_the_idempotency_key_of_another_body_is_422(api: TestClient, db: Connection) -> None:
    api.post("/jobs", json={"message": "one"}, headers=KEY)
    response = api.post("/jobs", json={"message": "another"}, headers=KEY)
    assert response.status_code == 422
    assert response.json()["type"].endswith(":idempotency-key-reused")
    assert value(db, "select count(*) from jobs") == 1


def test_an_idempotency_key_may_be_bare_and_is_the_same_as_quoted(
    api: TestClient, db: Connection
) -> None:
    for given in ('"a\\"b"', 'a"b'):
        assert api.post("/jobs", json={}, headers={"Idempotency-Key": given}).status_code == 201
    assert value(db, "select count(*) from jobs") == 1


@pytest.mark.parametrize("given", ['""', '"open', '"a"b"', "x" * 256, '"\\n"'])
def test_a_malformed_idempotency_key_is_422(api: TestClient, db: Connection, given: str) -> None:
    response = api.post("/jobs", json={}, headers={"Idempotency-Key": given})
    assert response.status_code == 422
    assert everything(db) == NOTHING


def test_a_refused_request_does_not_use_its_idempotency_key_up(api: TestClient) -> None:
    both = {"run_at": "2031-01-01T00:00:00Z", "delay_seconds": 1}
    assert api.post("/jobs", json=both, headers=KEY).status_code == 422
    assert api.post("/jobs", json={}, headers=KEY).status_code == 201


def test_lists_are_filtered(api: TestClient, db: Connection) -> None:
    dead = fail(db, "OSError: disk 100% full", message="dead")
    running = enqueue(db)
    claim(db)
    mail = enqueue(db, queue="mail", job_type="email", unique_key="k")
    later = datetime.now(UTC) + timedelta(hours=1)
    for query, expected in {
        "": [mail, running, dead],
        "?status=failed": [dead],
        "?status=running": [running],
        "?status=queued&status=failed": [mail, dead],
        "?queue=mail": [mail],
        "?queue=mail&queue=default": [mail, running, dead],
        "?job_type=email": [mail],
        "?unique_key=k": [mail],
        "?error=100%25": [dead],
        "?error=nothing": [],
        f"?created_before={quote(later.isoformat())}": [mail, running, dead],
        f"?created_after={quote(later.isoformat())}": [],
        f"?updated_after={quote(later.isoformat())}": [],
        f"?updated_before={quote(later.isoformat())}&status=failed": [dead],
        "?status=failed&queue=mail": [],
    }.items():
        assert ids(api.get(f"/jobs{query}")) == [str(job_id) for job_id in expected], query


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 12])
def test_pages_follow_one_another_by_link(api: TestClient, db: Connection, count: int) -> None:
    expected = [str(enqueue(db, queue="q&é")) for _ in range(count)][::-1]
    enqueue(db)
    url, found, pages = "/jobs?limit=6&view=full&queue=q%26%C3%A9", [], 0
    while True:
        response = api.get(url)
        found += ids(response)
        pages += 1
        assert all(job["queue"] == "q&é" for job in response.json())
        if "Link" not in response.headers:
            break
        assert response.links["next"]["rel"] == "next"
        url = response.links["next"]["url"]
        enqueue(db, queue="q&é")  # what is new does not shift the pages
    assert found == expected
    assert pages == max(1, -(-count // 6))


def test_a_page_begins_after_a_job_that_is_gone(api: TestClient, db: Connection) -> None:
    first, second = enqueue(db), enqueue(db)
    db.execute("delete from jobs where id = %s", [second])
    assert ids(api.get(f"/jobs?limit=1&after={second}")) == [str(first)]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "after=x", "status=lost", "queue=", "queue=%00",
     "created_after=yesterday", "created_after=0", "created_after=2031-01-01T00:00:00", "view=all",
     "colour=red"],
)  # fmt: skip
def test_a_wrong_filter_is_422(api: TestClient, query: str) -> None:
    assert api.get(f"/jobs?{query}").status_code == 422


def test_cancel_says_which_of_three_things_happened(api: TestClient, db: Connection) -> None:
    waiting, running = enqueue(db, priority=3), enqueue(db)
    dead = fail(db, "x", priority=0)
    claim(db)
    for job_id, outcome in [(waiting, "cancelled"), (running, "requested"), (dead, "too late")]:
        response = api.post(f"/jobs/{job_id}/cancel")
        assert response.status_code == 200
        assert response.json() == {"id": str(job_id), "outcome": outcome}
    assert api.post(f"/jobs/{UNKNOWN_JOB}/cancel").status_code == 404


def test_retry_queues_a_failed_job_again(api: TestClient, db: Connection) -> None:
    dead = fail(db, "x")
    assert api.post(f"/jobs/{dead}/retry").json() == {"id": dead, "outcome": "retried"}
    assert api.get(f"/jobs/{dead}").json()["status"] == "queued"
    assert api.post(f"/jobs/{dead}/retry").status_code == 409
    assert api.post(f"/jobs/{UNKNOWN_JOB}/retry").status_code == 404


def test_jobs_are_cancelled_by_filter_after_a_dry_run(api: TestClient, db: Connection) -> None:
    mine = {str(enqueue(db, queue="mail")) for _ in range(3)}
    other = enqueue(db)
    would = api.post("/jobs/cancel", json={"queue": "mail", "dry_run": True}).json()
    assert {job["id"] for job in would} == mine
    assert {job["outcome"] for job in would} == {"would be cancelled"}
    assert value(db, "select count(*) from jobs where status = 'cancelled'") == 0
    done = api.post("/jobs/cancel", json={"queue": "mail", "limit": 2}).json()
    assert [job["outcome"] for job in done] == ["cancelled"] * 2
    assert value(db, "select count(*) from jobs where status = 'cancelled'") == 2
    assert api.get(f"/jobs/{other}").json()["status"] == "queued"


def test_jobs_are_retried_by_filter_after_a_dry_run(api: TestClient, db: Connection) -> None:
    full = [fail(db, "disk full") for _ in range(2)]
    fail(db, "other")
    would = api.post("/jobs/retry", json={"error": "disk", "dry_run": True}).json()
    assert would == [{"id": job_id, "outcome": "would be retried"} for job_id in full]
    done = api.post("/jobs/retry", json={"error": "disk"}).json()
    assert done == [{"id": job_id, "outcome": "retried"} for job_id in full]
    assert value(db, "select count(*) from jobs where status = 'failed'") == 1


@pytest.mark.parametrize("path", ["/jobs/cancel", "/jobs/retry"])
@pytest.mark.parametrize("body", [{}, {"dry_run": True}, {"limit": 5}, {"queue": None}])
def test_a_filter_that_says_nothing_is_refused(
    api: TestClient, db: Connection, path: str, body: dict[str, Any]
) -> None:
    enqueue(db)
    fail(db, "x", priority=0)
    before = everything(db)
    assert api.post(path, json=body).status_code == 422
    assert everything(db) == before


def test_a_job_is_explained_and_has_a_history_and_progress(
    api: TestClient, db: Connection, connect: Callable[[], Connection]
) -> None:
    job_id = enqueue(db, delay="1 hour")
    reasons = api.get(f"/jobs/{job_id}/explain").json()
    assert "scheduled" in {reason["reason"] for reason in reasons}
    assert api.get(f"/jobs/{job_id}/progress").json() == {"worker": None, "progress": None}

    job_id = enqueue(db)
    held = one(db, "select * from claim_next_job(p_worker => 'w')")
    db.execute("select report_progress(%s, %s, '{\"done\": 3}')", [held.id, held.claim_id])
    progress = {"worker": "w", "progress": {"done": 3}}
    assert api.get(f"/jobs/{job_id}/progress").json() == progress
    full = api.get(f"/jobs/{job_id}?view=full").json()
    assert {name: full[name] for name in progress} == progress
    history = api.get(f"/jobs/{job_id}/history").json()
    assert [event["verb"] for event in history] == ["enqueue", "claim"]
    assert history[1]["detail"] == {"worker": "w"}
    assert one(db, "select * from claims").claim_id == history[1]["claim_id"]


@pytest.mark.parametrize("what", ["explain", "history", "progress"])
def test_an_unknown_job_is_404_whatever_is_asked_of_it(api: TestClient, what: str) -> None:
    assert api.get(f"/jobs/{UNKNOWN_JOB}/{what}").status_code == 404


def test_dead_letters_are_the_last_to_fail_first_and_come_in_pages(
    api: TestClient, db: Connection
) -> None:
    dead = [fail(db, f"error {number}", queue="mail") for number in range(5)][::-1]
    response = api.get("/dead-letters?limit=3&queue=mail")
    assert ids(response) == dead[:3]
    assert (
        response.json()[0] | {"error": "error 4", "attempts": 1, "retries": 0}
        == (response.json()[0])
    )
    rest = api.get(response.links["next"]["url"])
    assert ids(rest) == dead[3:]
    assert "Link" not in rest.headers
    assert ids(api.get("/dead-letters?error=error 2")) == [dead[2]]
    assert ids(api.get("/dead-letters?queue=other")) == []
