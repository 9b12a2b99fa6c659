"""/schedules."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.support import Connection, one, value

YEARLY = {"cron": "0 0 1 1 *", "job": {"job_type": "report"}}
ALL_OF_A_JOB: dict[str, Any] = {
    "sleep_seconds": 2,
    "message": "hello",
    "job_type": "email",
    "payload": {"to": "a@b.c", "delay": None},
    "queue": "mail",
    "priority": 0,
    "delay_seconds": 1.5,
    "max_attempts": 5,
    "retry_delay_seconds": 30,
    "retry_delay_max_seconds": 90,
    "max_losses": 0,
    "timeout_seconds": 0.25,
    "unique_key": "key",
    "concurrency_key": "customer",
    "on_parent_failure": "release",
    "trace_context": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
}


def put(api: TestClient, name: str = "nightly", **members: Any) -> Any:
    return api.put(f"/schedules/{name}", json=YEARLY | members)


def test_a_schedule_is_made_shown_and_listed(api: TestClient) -> None:
    made = put(api)
    assert made.status_code == 201
    schedule = made.json()
    assert schedule == {
        "schedule": "nightly",
        "cron": "0 0 1 1 *",
        "time_zone": "UTC",
        "job": {"job_type": "report"},
        "missed_ticks": "coalesce",
        "paused": False,
        "next_at": f"{datetime.now(UTC).year + 1}-01-01T00:00:00.000000Z",
        "last_at": None,
        "last_job_id": None,
        "last_error": None,
    }
    assert api.get("/schedules/nightly").json() == schedule
    put(api, "annual")
    assert [each["schedule"] for each in api.get("/schedules").json()] == ["annual", "nightly"]


def test_a_put_replaces_all_of_a_schedule(api: TestClient) -> None:
    put(api, time_zone="Europe/Berlin", missed_ticks="catch up")
    changed = put(api, cron="@hourly", job={"message": "hello"})
    assert changed.status_code == 200
    schedule = changed.json()
    assert (schedule["cron"], schedule["time_zone"]) == ("@hourly", "UTC")
    assert (schedule["job"], schedule["missed_ticks"]) == ({"message": "hello"}, "coalesce")
    next_at = datetime.fromisoformat(schedule["next_at"])
    assert timedelta(0) < next_at - datetime.now(UTC) <= timedelta(hours=1)
    assert api.get("/schedules").json() == [schedule]


def test_the_job_is_taken_and_shown_in_the_words_of_post_jobs(
    api: TestClient, db: Connection
) -> None:
    assert put(api, job=ALL_OF_A_JOB).json()["job"] == ALL_OF_A_JOB
    assert put(api, job=api.get("/schedules/nightly").json()["job"]).json()["job"] == ALL_OF_A_JOB
    db.execute("update schedules set next_at = clock_timestamp() - interval '2 years'")
    db.execute("select fire_schedules()")
    job = api.get("/jobs", params={"view": "full"}).json()[0]
    shown = set(ALL_OF_A_JOB) - {"delay_seconds", "on_parent_failure"}
    assert {name: job[name] for name in shown} == {name: ALL_OF_A_JOB[name] for name in shown}
    assert api.get("/schedules/nightly").json()["last_job_id"] == job["id"]


def test_a_job_that_was_scheduled_in_sql_is_shown_in_seconds(
    api: TestClient, db: Connection
) -> None:
    job = '{"delay": "5 minutes", "timeout": "PT1.5S", "retry_delay": 10, "retry_delay_max": null}'
    db.execute("select set_schedule('nightly', '@daily', %s)", [job])
    assert api.get("/schedules/nightly").json()["job"] == {
        "delay_seconds": 300,
        "timeout_seconds": 1.5,
        "retry_delay_seconds": 10,
    }


def test_a_paused_schedule_has_no_next_tick_until_it_is_resumed(api: TestClient) -> None:
    made = put(api).json()
    paused = api.post("/schedules/nightly/pause")
    assert (paused.status_code, paused.json()) == (200, made | {"paused": True, "next_at": None})
    assert put(api).json()["paused"] is True
    resumed = api.post("/schedules/nightly/resume")
    assert (resumed.status_code, resumed.json()) == (200, made)


def test_a_deleted_schedule_is_gone(api: TestClient) -> None:
    put(api)
    deleted = api.delete("/schedules/nightly")
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert api.get("/schedules/nightly").status_code == 404
    assert api.get("/schedules").json() == []
    assert put(api).status_code == 201


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume")]
)
def test_an_unknown_schedule_is_404(api: TestClient, method: str, path: str) -> None:
    response = api.request(method, f"/schedules/nightly{path}")
    assert response.status_code == 404
    assert response.json()["type"].endswith(":not-found")
    assert "schedule nightly does not exist" in response.json()["detail"]


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"cron": "* * * *"}, "cron"),
        ({"cron": "0 0 30 2 *"}, "cron"),
        ({"cron": ""}, "cron"),
        ({"cron": None}, "cron"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"missed_ticks": "never"}, "missed_ticks"),
        ({"job": None}, "job"),
        ({"job": {"delay": 5}}, "delay"),
        ({"job": {"priority": 4}}, "priority"),
        ({"job": {"run_at": "2030-01-01T00:00:00Z", "delay_seconds": 1}}, "run_at"),
        ({"paused": True}, "paused"),
    ],
)
def test_what_is_wrong_is_422_and_changes_nothing(
    api: TestClient, db: Connection, members: dict[str, Any], says: str
) -> None:
    before = put(api).json()
    response = put(api, **members)
    assert response.status_code == 422
    assert says in response.json()["detail"]
    assert api.get("/schedules/nightly").json() == before
    assert value(db, "select count(*) from jobs") == 0


def test_cron_and_job_must_be_given(api: TestClient) -> None:
    response = api.put("/schedules/nightly", json={})
    assert [error["pointer"] for error in response.json()["errors"]] == ["/cron", "/job"]


@pytest.mark.parametrize("name", ["a/b", "a b", "mail/pause", "100%", "日本"])
def test_any_name_works_percent_encoded(api: TestClient, db: Connection, name: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    assert put(api, encoded).json()["schedule"] == name
    assert api.post(f"/schedules/{encoded}/pause").json()["schedule"] == name
    assert api.get(f"/schedules/{encoded}").json()["paused"] is True
    assert one(db, "table schedules").schedule == name
    assert api.delete(f"/schedules/{encoded}").status_code == 204
