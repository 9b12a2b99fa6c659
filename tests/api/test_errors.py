"""Problem documents (RFC 9457), whatever goes wrong."""

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api import errors
from tests.support import UNKNOWN_JOB, Connection, enqueue

URN = "urn:async-job-orchestrator:problem:"


def check(response: Any, kind: str) -> dict[str, Any]:
    """Check that a response is a whole problem document of this kind, and return it."""
    document: dict[str, Any] = response.json()
    assert response.headers["Content-Type"] == errors.MEDIA_TYPE
    assert document["type"] == URN + kind
    assert document["title"] == errors.KINDS[kind].title
    assert document["status"] == response.status_code == errors.KINDS[kind].status
    assert document["detail"]
    return document


def test_an_unknown_path_is_404(api: TestClient) -> None:
    document = check(api.get("/nothing/here"), "not-found")
    assert document["detail"] == "GET /nothing/here: not found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/jobs", "GET, POST"),
        ("DELETE", f"/jobs/{UNKNOWN_JOB}", "GET"),
        ("GET", f"/jobs/{UNKNOWN_JOB}/cancel", "POST"),
        ("POST", "/health", "GET"),
        ("GET", "/jobs/batch", "POST"),
        ("GET", "/jobs/cancel", "POST"),
        ("GET", "/jobs/retry", "POST"),
    ],
)
def test_a_method_that_a_path_does_not_know_is_405_with_all_that_it_does_know(
    api: TestClient, method: str, path: str, allowed: str
) -> None:
    response = api.request(method, path)
    check(response, "method-not-allowed")
    assert response.headers["Allow"] == allowed


def test_each_fault_of_a_body_is_named_with_a_json_pointer(api: TestClient) -> None:
    body = {"sleep_seconds": -1, "depends_on": ["no uuid"], "a/b~c": 1}
    document = check(api.post("/jobs", json=body), "invalid")
    assert [error["pointer"] for error in document["errors"]] == [
        "/sleep_seconds",
        "/depends_on/0",
        "/a~1b~0c",
    ]
    batch = check(api.post("/jobs/batch", json=[{}, {"queue": ""}]), "invalid")
    assert [error["pointer"] for error in batch["errors"]] == ["/1/queue"]
    assert batch["detail"] == "[1].queue: String should have at least 1 character"


def test_each_fault_of_a_query_names_its_parameter(api: TestClient) -> None:
    document = check(api.get("/jobs?limit=0&status=lost&colour=red"), "invalid")
    assert {error["parameter"] for error in document["errors"]} == {"limit", "status", "colour"}


def test_what_the_database_refuses_carries_its_code(api: TestClient) -> None:
    both = {"run_at": "2030-01-01T00:00:00Z", "delay_seconds": 1}
    assert check(api.post("/jobs", json=both), "invalid")["code"] == "JQ001"
    orphan = check(api.post("/jobs", json={"depends_on": [UNKNOWN_JOB]}), "not-found")
    assert orphan["code"] == "JQ002"
    assert UNKNOWN_JOB in orphan["detail"]


def test_a_conflict_is_409(api: TestClient, db: Connection) -> None:
    job_id = enqueue(db)
    assert check(api.post(f"/jobs/{job_id}/retry"), "not-retryable")["code"] == "JQ006"
    unique = api.post("/jobs", json={"unique_key": "k"}).json()["id"]
    api.post(f"/jobs/{unique}/cancel")
    api.post("/jobs", json={"unique_key": "k"})
    assert check(api.post(f"/jobs/{unique}/retry"), "unique-key-held")["code"] == "JQ007"


def test_a_fault_tells_the_client_nothing_of_what_went_wrong(
    api: TestClient, db: Connection
) -> None:
    db.execute(
        "create or replace function job_queue.explain_job(p_job_id uuid)"
        " returns table (reason text, explanation text) language plpgsql as"
        " $$ begin raise 'a secret' using errcode = 'XX000'; end $$"
    )
    response = api.get(f"/jobs/{UNKNOWN_JOB}/explain")
    assert check(response, "internal")["detail"] == "The API failed. Its log says why."


def test_every_sqlstate_of_the_queue_has_its_kind() -> None:
    table = Path("database/README.md").read_text()
    documented = set(re.findall(r"^\| `(JQ\d{3})`", table, re.M))
    assert documented - {"JQ005"} == {c for c in errors.KIND_BY_SQLSTATE if c.startswith("JQ")}
    assert set(errors.KIND_BY_SQLSTATE.values()) <= set(errors.KINDS)
