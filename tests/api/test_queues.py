"""/queues: their policies."""

from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient

from tests.api.conftest import Serve
from tests.support import Connection, claim, enqueue, one

DEFAULTS: dict[str, Any] = {
    "paused": False,
    "concurrency_limit": None,
    "key_concurrency_limit": None,
    "rate_limit": None,
    "rate_period_seconds": 60,
    "max_attempts": 1,
    "retry_delay_seconds": 15,
    "retry_delay_max_seconds": 3600,
    "max_losses": 3,
    "timeout_seconds": None,
    "keep_succeeded_seconds": 7 * 86_400,
    "keep_failed_seconds": 30 * 86_400,
    "keep_cancelled_seconds": 7 * 86_400,
}
CHANGED: dict[str, Any] = {
    "paused": True,
    "concurrency_limit": 5,
    "key_concurrency_limit": 2,
    "rate_limit": 100,
    "rate_period_seconds": 0.5,
    "max_attempts": 4,
    "retry_delay_seconds": 1.25,
    "retry_delay_max_seconds": 0,
    "max_losses": 0,
    "timeout_seconds": 0.001,
    "keep_succeeded_seconds": 0,
    "keep_failed_seconds": 1000 * 360 * 86_400,
    "keep_cancelled_seconds": 1.5,
}


def patch(api: TestClient, queue: str, **members: Any) -> Any:
    return api.patch(f"/queues/{queue}", json=members)


def test_a_queue_that_nobody_has_heard_of_has_the_defaults(api: TestClient) -> None:
    response = api.get("/queues/mail")
    assert response.status_code == 200
    assert response.json() == {"queue": "mail", **DEFAULTS}


def test_each_member_can_be_set_and_null_is_the_default_again(
    api: TestClient, db: Connection
) -> None:
    assert list(CHANGED) == list(DEFAULTS)
    response = patch(api, "mail", **CHANGED)
    assert response.status_code == 200
    assert response.json() == {"queue": "mail", **CHANGED}
    assert api.get("/queues/mail").json() == response.json()
    assert one(db, "select paused, max_attempts from queues") == (True, 4)
    reset = patch(api, "mail", **dict.fromkeys(CHANGED))
    assert reset.json() == {"queue": "mail", **DEFAULTS}


def test_what_a_patch_leaves_out_stays(api: TestClient) -> None:
    for member, default in DEFAULTS.items():
        patch(api, "mail", **CHANGED)
        changed = patch(api, "mail", **{member: None}).json()
        assert changed == {"queue": "mail", **CHANGED, member: default}
        assert patch(api, "mail").json() == changed


def test_a_patch_may_say_that_it_is_one(api: TestClient) -> None:
    response = api.patch(
        "/queues/mail",
        content=b'{"max_attempts": 3}',
        headers={"Content-Type": "application/merge-patch+json"},
    )
    assert response.json()["max_attempts"] == 3
    document = api.get("/openapi.json").json()["paths"]["/queues/{queue}"]["patch"]
    assert list(document["requestBody"]["content"]) == ["application/merge-patch+json"]


def test_a_patch_of_another_type_is_415(api: TestClient) -> None:
    response = api.patch(
        "/queues/mail", content=b"max_attempts: 3", headers={"Content-Type": "application/yaml"}
    )
    assert response.status_code == 415


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"concurrency_limit": 0}, "/concurrency_limit"),
        ({"concurrency_limit": 10_001}, "/concurrency_limit"),
        ({"concurrency_limit": "5"}, "/concurrency_limit"),
        ({"rate_limit": 1_000_001}, "/rate_limit"),
        ({"rate_period_seconds": 0}, "/rate_period_seconds"),
        ({"timeout_seconds": 360 * 86_400 + 1}, "/timeout_seconds"),
        ({"keep_failed_seconds": -1}, "/keep_failed_seconds"),
        ({"paused": 1}, "/paused"),
        ({"retry_delay": 5}, "/retry_delay"),
        ({"queue": "other"}, "/queue"),
        ([], ""),
    ],
)
def test_a_wrong_patch_is_422_and_changes_nothing(
    api: TestClient, db: Connection, body: Any, pointer: str
) -> None:
    response = api.patch("/queues/mail", json=body)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert db.execute("table queues").fetchall() == []


@pytest.mark.parametrize("queue", ["a" * 101, "a%00b"])
def test_a_name_that_cannot_be_is_422(api: TestClient, queue: str) -> None:
    response = patch(api, queue, paused=True)
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json()["errors"]] == ["queue"]


def test_what_is_shown_can_be_sent_back(api: TestClient, db: Connection) -> None:
    year = '"1 year"'
    names = ["rate_period", "retry_delay", "retry_delay_max", "timeout"]
    members = [f'"{name}": {year}' for name in names]
    members += [f'"keep_{status}": "1000 years"' for status in ["succeeded", "failed", "cancelled"]]
    db.execute("select set_queue('mail', %s)", [f"{{{', '.join(members)}}}"])
    shown = api.get("/queues/mail").json()
    assert patch(api, **shown).json() == shown


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(
    api: TestClient, db: Connection
) -> None:
    patch(api, "mail", max_attempts=3)
    enqueue(db, queue="mail")
    paused = api.post("/queues/mail/pause")
    assert (paused.status_code, paused.json()["paused"]) == (200, True)
    assert paused.json()["max_attempts"] == 3
    assert db.execute("select from claim_next_job()").fetchall() == []
    assert api.post("/queues/mail/resume").json()["paused"] is False
    claim(db)


def test_listed_are_queues_that_have_a_policy_or_unended_jobs(
    api: TestClient, db: Connection
) -> None:
    assert api.get("/queues").json() == []
    patch(api, "policy", max_attempts=2)
    enqueue(db, queue="waiting")
    enqueue(db, queue="ended")
    db.execute("select cancel_job(id) from list_jobs() where queue = 'ended'")
    listed = api.get("/queues").json()
    assert [policy["queue"] for policy in listed] == ["policy", "waiting"]
    assert listed[0] == api.get("/queues/policy").json()
    assert listed[1] == {"queue": "waiting", **DEFAULTS}


NAMES = {
    "a b": "a%20b",
    "mail/in": "mail%2Fin",
    "mail/statistics": "mail%2fstatistics",
    "/": "%2F",
    "50%": "50%25",
    "mail%2Fin": "mail%252Fin",
    "%25": "%2525",
    "what?": "what%3F",
    "#1": "%231",
    "a+b": "a+b",
    "Grüße/日本": "Gr%C3%BC%C3%9Fe%2F%E6%97%A5%E6%9C%AC",
    '"; drop table jobs; --': "%22%3B%20drop%20table%20jobs%3B%20--",
}


def test_any_name_works_percent_encoded(api: TestClient, db: Connection) -> None:
    for queue, encoded in NAMES.items():
        url = f"/queues/{encoded}"
        assert api.patch(url, json={"max_attempts": 2}).json()["queue"] == queue
        assert api.post(f"{url}/pause").json()["queue"] == queue
        assert api.get(f"{url}/statistics").json()["queue"] == queue
        assert api.post(f"{url}/resume").json()["queue"] == queue
        assert api.get(url).json() == {"queue": queue, **DEFAULTS, "max_attempts": 2}
    assert {row.queue for row in db.execute("table queues").fetchall()} == set(NAMES)


def test_a_slash_that_is_not_encoded_divides_the_path(api: TestClient) -> None:
    assert api.get("/queues/mail/in").status_code == 404
    response = api.put("/queues/mail", json={})
    assert (response.status_code, response.headers["Allow"]) == (405, "GET, PATCH")


def test_a_slash_in_a_name_comes_through_a_server_and_a_prefix(serve: Serve) -> None:
    for arguments in ([], ["--root-path", "/api"]):
        url = f"{serve(*arguments).url}/queues/mail%2Fin%25"
        assert httpx2.post(f"{url}/pause").json()["queue"] == "mail/in%"
        assert httpx2.get(url).json()["queue"] == "mail/in%"
