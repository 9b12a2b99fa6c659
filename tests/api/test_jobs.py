"""POST /jobs, GET /jobs/{id} and GET /jobs."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from api.routes import jobs
from tests.support import NOTHING, UNKNOWN_JOB, Connection, claim, enqueue, everything, one

UTC_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


def post(api: TestClient, body: str | bytes, content_type: str = "application/json") -> Any:
    return api.post("/jobs", content=body, headers={"Content-Type": content_type})


def test_create_answers_with_the_job_and_where_it_is(api: TestClient, db: Connection) -> None:
    response = post(api, '{"sleep_seconds": 2, "message": "hello wörld"}')
    body = response.json()
    assert response.status_code == 201
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Location"] == f"/jobs/{body['id']}"
    assert list(body) == ["id", "status", "sleep_seconds", "message", "result", "created_at"]
    assert body == {
        "id": str(UUID(body["id"])),
        "status": "queued",
        "sleep_seconds": 2,
        "message": "hello wörld",
        "result": None,
        "created_at": body["created_at"],
    }
    job = one(db, "table jobs")
    assert (str(job.id), job.sleep_seconds, job.message) == (body["id"], 2, "hello wörld")


def test_create_needs_nothing_but_an_object(api: TestClient) -> None:
    body = post(api, "{}").json()
    assert (body["sleep_seconds"], body["message"]) == (3, None)


def test_times_are_utc_with_a_z(api: TestClient) -> None:
    created = post(api, "{}").json()
    job = api.get(f"/jobs/{created['id']}").json()
    for time in (created["created_at"], job["created_at"], job["updated_at"]):
        assert UTC_TIME.match(time)
        assert abs(datetime.now(UTC) - datetime.fromisoformat(time)) < timedelta(minutes=5)


def test_times_are_utc_whatever_the_sessions_time_zone(
    api: TestClient, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.execute(f"alter database {db.info.dbname} set timezone = 'Asia/Kathmandu'")
    body = post(api, "{}").json()
    stored = one(db, "select created_at at time zone 'utc' as utc from jobs").utc
    assert datetime.fromisoformat(body["created_at"]).replace(tzinfo=None) == stored


def test_get_follows_the_job_through_its_life(api: TestClient, db: Connection) -> None:
    url = post(api, '{"message": "hello"}').headers["Location"]
    assert list(api.get(url).json()) == [
        "id",
        "status",
        "sleep_seconds",
        "message",
        "result",
        "created_at",
        "updated_at",
    ]
    held = claim(db)
    assert api.get(url).json()["status"] == "running"
    result = {"slept_seconds": 3, "message": "hello"}
    db.execute("select complete_job(%s, %s, %s)", [held.id, held.claim_id, json.dumps(result)])
    job = api.get(url).json()
    assert (job["status"], job["result"]) == ("succeeded", result)
    assert job["updated_at"] > job["created_at"]


def test_a_failed_job_shows_its_error_in_the_result(api: TestClient, db: Connection) -> None:
    url = post(api, "{}").headers["Location"]
    held = claim(db)
    db.execute("select fail_job(%s, %s, 'OSError: disk full')", [held.id, held.claim_id])
    job = api.get(url).json()
    assert (job["status"], job["result"]) == ("failed", {"error": "OSError: disk full"})


def test_an_unknown_job_is_404(api: TestClient) -> None:
    response = api.get(f"/jobs/{UNKNOWN_JOB}")
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json() == {
        "type": "urn:async-job-orchestrator:problem:not-found",
        "title": "There is no such thing",
        "status": 404,
        "detail": f"job {UNKNOWN_JOB} does not exist",
        "instance": f"urn:async-job-orchestrator:request:{response.headers['X-Request-ID']}",
    }


@pytest.mark.parametrize("job_id", ["1", "not-a-uuid", "%00", "%ff", "'--", "0" * 5000])
def test_a_malformed_id_is_422(api: TestClient, job_id: str) -> None:
    response = api.get(f"/jobs/{job_id}")
    assert response.status_code == 422
    assert response.json()["detail"].startswith("job_id: ")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "body: Field required"),
        (b"{", "not JSON"),
        (b"sleep_seconds=3", "not JSON"),
        (b'{"sleep_seconds": NaN}', "not JSON"),
        (b'{"message": "\xff"}', "not JSON"),
        (b'{"message": "\\ud800"}', "not JSON"),
        (b'{"sleep_seconds": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"null", "body: Send a JSON object"),
        (b"[]", "body: Send a JSON object"),
        (b'"{}"', "body: Send a JSON object"),
        (b'{"sleep_seconds": "3"}', "sleep_seconds: "),
        (b'{"sleep_seconds": 3.5}', "sleep_seconds: "),
        (b'{"sleep_seconds": true}', "sleep_seconds: "),
        (b'{"sleep_seconds": null}', "sleep_seconds: "),
        (b'{"sleep_seconds": [3]}', "sleep_seconds: "),
        (b'{"sleep_seconds": 1e999}', "sleep_seconds: "),
        (b'{"sleep_seconds": -1}', "sleep_seconds: Input should be greater than or equal to 0"),
        (b'{"sleep_seconds": 86401}', "less than or equal to 86400"),
        (b'{"sleep_seconds": 99999999999999999999}', "less than or equal to 86400"),
        (b'{"message": 3}', "message: Input should be a valid string"),
        (b'{"message": "a\\u0000b"}', "message: NUL characters"),
        (b'{"message": "' + b"x" * 10_001 + b'"}', "at most 10000 characters"),
        (b'{"sleep": 3}', "sleep: Extra inputs are not permitted"),
        (b'{"\\u0000\xf0\x9f\x98\x80": 3}', "Extra inputs are not permitted"),
        (b'{"sleep_seconds": -1, "message": 3}', "; message: "),
    ],
)
def test_bad_input_is_422_with_a_clear_message_and_changes_nothing(
    api: TestClient, db: Connection, body: bytes, says: str
) -> None:
    response = post(api, body)
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["type"] == "urn:async-job-orchestrator:problem:invalid"
    assert says in response.json()["detail"]
    assert everything(db) == NOTHING


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_does_not_claim_to_be_json_is_415(
    api: TestClient, db: Connection, content_type: str
) -> None:
    response = post(api, "{}", content_type)
    assert response.status_code == 415
    assert "Content-Type: application/json" in response.json()["detail"]
    assert everything(db) == NOTHING


def test_a_body_beyond_all_measure_is_413(api: TestClient) -> None:
    assert post(api, b" " * (16 * 1024 * 1024 + 1)).status_code == 413


def test_the_apis_bounds_are_those_of_the_database(api: TestClient) -> None:
    for body in (
        '{"sleep_seconds": 3.0}',
        '{"sleep_seconds": 0}',
        '{"sleep_seconds": 86400}',
        json.dumps({"message": ""}),
        json.dumps({"message": "\U0001f600" * 10_000}),
    ):
        assert post(api, body).status_code == 201


def test_list_is_an_array_of_all_jobs_newest_first(api: TestClient, db: Connection) -> None:
    assert api.get("/jobs").json() == []
    ids = [str(enqueue(db, message=f"{number}")) for number in range(3)]
    jobs = api.get("/jobs").json()
    assert [job["id"] for job in jobs] == ids[::-1]
    assert jobs == [api.get(f"/jobs/{job_id}").json() for job_id in ids[::-1]]


@pytest.mark.parametrize("count", [9, 10, 11, 20, 21])
def test_a_list_longer_than_a_page_is_whole(
    api: TestClient, db: Connection, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PAGE_SIZE", 10)
    ids = [str(enqueue(db)) for _ in range(count)]
    assert [job["id"] for job in api.get("/jobs").json()] == ids[::-1]


def test_hostile_text_is_only_text(api: TestClient) -> None:
    message = "'); drop schema job_queue cascade; -- %s {} $1 \\ \" </script> \u2028"
    created = post(api, json.dumps({"message": message}))
    assert created.json()["message"] == message
    assert api.get("/jobs").json()[0]["message"] == message
