"""API keys: what they let through, and what they do not."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg import sql
from psycopg.conninfo import make_conninfo

from api.database import Database
from api.main import create_app
from api.routes import events, jobs
from api.settings import Settings
from tests.support import UNKNOWN_JOB, Connection, claim, enqueue, one, value
from tests.test_privileges import INTENDED, VIEWS

JOB = f"/jobs/{UNKNOWN_JOB}"
CLAIM = {"claim_id": 1}
ROUTES: dict[str, tuple[str, str, Any, str]] = {
    "createJob": ("POST", "/jobs", {}, "enqueue_job"),
    "createJobs": ("POST", "/jobs/batch", [{}], "enqueue_jobs"),
    "listJobs": ("GET", "/jobs", None, "list_jobs"),
    "getJob": ("GET", JOB, None, "get_job"),
    "cancelJob": ("POST", f"{JOB}/cancel", None, "cancel_job"),
    "retryJob": ("POST", f"{JOB}/retry", None, "retry_job"),
    "cancelJobs": ("POST", "/jobs/cancel", {"job_type": "none"}, "cancel_jobs"),
    "retryJobs": ("POST", "/jobs/retry", {"job_type": "none"}, "retry_jobs"),
    "getJobHistory": ("GET", f"{JOB}/history", None, "job_history"),
    "explainJob": ("GET", f"{JOB}/explain", None, "explain_job"),
    "getJobProgress": ("GET", f"{JOB}/progress", None, "get_job"),
    "listDeadJobs": ("GET", "/dead-letters", None, "list_dead_jobs"),
    "streamEvents": ("GET", "/events", None, "list_events"),
    "streamJobEvents": ("GET", f"{JOB}/events", None, "list_events"),
    "claimJobs": ("POST", "/claims", {}, "claim_jobs"),
    "heartbeat": ("POST", "/claims/heartbeat", {"claim_ids": [1]}, "heartbeat"),
    "reportProgress": ("POST", f"{JOB}/progress", CLAIM | {"progress": 1}, "report_progress"),
    "completeJob": ("POST", f"{JOB}/complete", CLAIM, "complete_job"),
    "failJob": ("POST", f"{JOB}/fail", CLAIM | {"error": "e"}, "fail_job"),
    "snoozeJob": ("POST", f"{JOB}/snooze", CLAIM | {"delay_seconds": 1}, "snooze_job"),
    "releaseJob": ("POST", f"{JOB}/release", CLAIM, "release_job"),
    "listQueues": ("GET", "/queues", None, "list_queues"),
    "getQueue": ("GET", "/queues/q", None, "list_queues"),
    "setQueue": ("PATCH", "/queues/q", {}, "set_queue"),
    "pauseQueue": ("POST", "/queues/q/pause", None, "pause_queue"),
    "resumeQueue": ("POST", "/queues/q/resume", None, "resume_queue"),
    "getQueueStatistics": ("GET", "/queues/q/statistics", None, "queue_statistics"),
    "listQueueStatistics": ("GET", "/statistics", None, "queue_statistics"),
    "listSchedules": ("GET", "/schedules", None, "list_schedules"),
    "getSchedule": ("GET", "/schedules/s", None, "list_schedules"),
    "setSchedule": ("PUT", "/schedules/s", {"cron": "@yearly", "job": {}}, "set_schedule"),
    "pauseSchedule": ("POST", "/schedules/s/pause", None, "pause_schedule"),
    "resumeSchedule": ("POST", "/schedules/s/resume", None, "resume_schedule"),
    "deleteSchedule": ("DELETE", "/schedules/s", None, "delete_schedule"),
    "listWorkers": ("GET", "/workers", None, "workers"),
    "listHealthChecks": ("GET", "/health/checks", None, "health"),
    "getMetrics": ("GET", "/metrics", None, "count_events"),
    "createApiKey": ("POST", "/api-keys", {"name": "k", "scopes": ["client"]}, "create_api_key"),
    "listApiKeys": ("GET", "/api-keys", None, "list_api_keys"),
    "getApiKey": ("GET", "/api-keys/0123456789ab", None, "list_api_keys"),
    "revokeApiKey": ("DELETE", "/api-keys/0123456789ab", None, "revoke_api_key"),
}
"""A request to each route that knows keys, and the function, or view, that it is about."""
OPEN = ["/health", "/livez", "/readyz", "/docs", "/openapi.json"]
"""What everybody may ask, even where a key is required."""


def make_key(db: Connection, *scopes: str, **arguments: Any) -> str:
    named = "".join(f", p_{name} => %({name})s" for name in arguments)
    row = db.execute(
        f"select api_key from create_api_key('test', %(scopes)s{named})",
        {"scopes": list(scopes), **arguments},
    ).fetchone()
    assert row is not None
    return str(row[0])


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def short_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let streams end as soon as they have begun."""

    async def nothing(*_: Any) -> AsyncIterator[bytes]:
        yield b""

    monkeypatch.setattr(events, "_messages", nothing)


def answers(api: TestClient, headers: dict[str, str]) -> dict[str, int]:
    """Return the status with which each route answers."""
    return {
        name: api.request(method, path, json=body, headers=headers).status_code
        for name, (method, path, body, _) in ROUTES.items()
    }


def allowed(*roles: str) -> set[str]:
    """Return the routes whose function one of the group roles may execute."""
    functions = set().union(*(INTENDED[f"job_queue_{role}"] for role in roles))
    if "operator" in roles:
        functions |= VIEWS
    return {name for name, (*_, function) in ROUTES.items() if function in functions}


@pytest.fixture
def closed(conninfo: str) -> Iterator[TestClient]:
    """A client of an application that requires keys."""
    settings = Settings(conninfo, require_key=True)
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def test_each_route_that_knows_keys_is_tried(api: TestClient) -> None:
    paths = api.get("/openapi.json").json()["paths"]
    operations = [operation for path in paths.values() for operation in path.values()]
    assert set(ROUTES) == {each["operationId"] for each in operations if "security" in each}


@pytest.mark.usefixtures("short_streams")
@pytest.mark.parametrize(
    "scopes", [["client"], ["worker"], ["operator"], ["client", "operator"]], ids="+".join
)
def test_a_key_may_do_what_the_group_roles_of_its_scopes_may(
    api: TestClient, db: Connection, scopes: list[str]
) -> None:
    statuses = answers(api, bearer(make_key(db, *scopes)))
    assert {name for name, status in statuses.items() if status != 403} == allowed(*scopes)
    assert {status for status in statuses.values() if status >= 500} == set()


@pytest.mark.usefixtures("short_streams")
def test_without_a_key_everything_is_allowed_where_none_is_required(api: TestClient) -> None:
    assert not {401, 403} & set(answers(api, {}).values())


def test_a_refusal_names_what_is_missing(api: TestClient, db: Connection) -> None:
    response = api.post("/queues/q/pause", headers=bearer(make_key(db, "client")))
    assert response.status_code == 403
    problem = response.json()
    assert problem["type"] == "urn:async-job-orchestrator:problem:forbidden"
    assert problem["code"] == "JQ009"
    assert "pause_queue" in problem["detail"]
    assert db.execute("table queues").fetchall() == []


def test_where_keys_are_required_nothing_else_is_answered_without_one(closed: TestClient) -> None:
    assert set(answers(closed, {}).values()) == {401}
    response = closed.get("/jobs")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["type"] == "urn:async-job-orchestrator:problem:unauthenticated"
    assert [closed.get(path).status_code for path in OPEN] == [200] * len(OPEN)


def test_whoever_shows_no_key_learns_nothing_of_what_is_wrong_with_the_request(
    closed: TestClient,
) -> None:
    assert closed.post("/jobs", json={"unknown": 1}).status_code == 401
    assert closed.get("/jobs", params={"limit": "many"}).status_code == 401
    assert closed.get("/jobs/1").status_code == 401


def test_a_key_comes_in_one_of_two_headers(closed: TestClient, db: Connection) -> None:
    key = make_key(db, "client")
    for name, text in [
        ("Authorization", f"Bearer {key}"),
        ("authorization", f"bearer {key}"),
        ("X-API-Key", key),
    ]:
        assert closed.get("/jobs", headers={name: text}).status_code == 200


def test_a_password_for_a_proxy_does_not_hide_a_key(closed: TestClient, db: Connection) -> None:
    headers = {"Authorization": "Basic dXNlcjpwYXNz", "X-API-Key": make_key(db, "client")}
    assert closed.get("/jobs", headers=headers).status_code == 200


NO_KEYS: list[dict[str, str | bytes]] = [
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer key"},
    {"Authorization": "Basic dXNlcjpwYXNz"},
    {"Authorization": "Bearer jq_0123456789ab_" + "0" * 63},
    {"Authorization": "Bearer jq_0123456789ab_" + "0" * 65},
    {"Authorization": "Bearer jq_0123456789ab_" + "G" * 64},
    {"Authorization": "Bearer jq_0123456789ab_" + "0" * 64},
    {"Authorization": b"Bearer jq_0123456789ab_\xff" + b"0" * 63},
    {"X-API-Key": ""},
    {"X-API-Key": "key"},
    {"X-API-Key": "jq_0123456789ab_" + "0" * 64},
]


def test_a_key_that_is_none_is_refused_even_where_none_is_required(
    api: TestClient, closed: TestClient
) -> None:
    for headers in NO_KEYS:
        for client in (api, closed):
            response = client.get("/jobs", headers=headers)  # type: ignore[arg-type]
            assert response.status_code == 401, headers
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.json()["detail"].lower().startswith("the api key is not valid")


def test_a_key_works_until_it_expires(api: TestClient, db: Connection) -> None:
    key = make_key(db, "client", expires_in="1 hour")
    assert api.get("/jobs", headers=bearer(key)).status_code == 200
    db.execute("update api_keys set expires_at = clock_timestamp()")
    assert api.get("/jobs", headers=bearer(key)).status_code == 401


def test_a_key_is_made_shown_once_used_and_revoked(api: TestClient, db: Connection) -> None:
    admin = bearer(make_key(db, "operator"))
    new = {
        "name": "billing",
        "scopes": ["client"],
        "queues": ["mail"],
        "expires_in_seconds": 3600,
        "rate_limit": 100,
        "rate_period_seconds": 30,
    }
    made = api.post("/api-keys", json=new, headers=admin)
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    body = made.json()
    url = f"/api-keys/{body['key_id']}"
    assert made.headers["Location"] == url
    secret = body.pop("api_key")
    assert secret.startswith(f"jq_{body['key_id']}_")
    assert {name: body[name] for name in new if name in body} == {
        name: new[name] for name in new if name in body
    }
    assert body["expires_at"] > body["created_at"]
    assert (body["revoked_at"], body["last_used_at"]) == (None, None)
    assert api.get(url, headers=admin).json() == body

    assert api.get("/jobs", headers=bearer(secret)).status_code == 200
    shown = api.get(url, headers=admin).json()
    assert shown["last_used_at"] > body["created_at"]
    listed = api.get("/api-keys", headers=admin)
    assert listed.json()[1] == shown
    assert secret not in listed.text
    assert secret.rpartition("_")[2] not in listed.text

    for _ in range(2):
        revoked = api.delete(url, headers=admin)
        assert (revoked.status_code, revoked.content) == (204, b"")
    assert api.get(url, headers=admin).json()["revoked_at"] is not None
    assert api.get("/jobs", headers=bearer(secret)).status_code == 401


def test_an_unknown_key_is_404(api: TestClient) -> None:
    for method in ("GET", "DELETE"):
        response = api.request(method, "/api-keys/0123456789ab")
        assert response.status_code == 404
        assert "API key 0123456789ab does not exist" in response.json()["detail"]
        assert api.request(method, "/api-keys/other").status_code == 422


WRONG_KEYS: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "/name"),
    ({"name": None}, "/name"),
    ({"scopes": []}, "/scopes"),
    ({"scopes": ["admin"]}, "/scopes/0"),
    ({"scopes": "client"}, "/scopes"),
    ({"queues": []}, "/queues"),
    ({"queues": [""]}, "/queues/0"),
    ({"expires_in_seconds": 0}, "/expires_in_seconds"),
    ({"rate_limit": 0}, "/rate_limit"),
    ({"rate_period_seconds": 0.9}, "/rate_period_seconds"),
    ({"secret": "mine"}, "/secret"),
]


def test_a_wrong_key_is_422_and_none_is_made(api: TestClient, db: Connection) -> None:
    for members, pointer in WRONG_KEYS:
        response = api.post("/api-keys", json={"name": "key", "scopes": ["client"]} | members)
        assert response.status_code == 422
        assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert db.execute("table api_keys").fetchall() == []


def test_each_response_says_how_the_rate_limit_stands(api: TestClient, db: Connection) -> None:
    key = bearer(make_key(db, "client", rate_limit=3, rate_period="1 hour"))
    responses = [api.get("/jobs", headers=key), api.post("/jobs", json={}, headers=key)]
    responses.append(api.get(f"/jobs/{UNKNOWN_JOB}", headers=key))
    assert [response.status_code for response in responses] == [200, 201, 404]
    assert [response.headers["RateLimit-Policy"] for response in responses] == [
        '"key";q=3;w=3600'
    ] * 3
    states = [response.headers["RateLimit"].split(";t=") for response in responses]
    assert [state for state, _ in states] == ['"key";r=2', '"key";r=1', '"key";r=0']
    for used, (_, seconds) in enumerate(states, 1):
        assert 1200 * used - 600 < int(seconds) <= 1200 * used

    refused = api.get("/jobs", headers=key)
    assert refused.status_code == 429
    assert refused.json()["type"] == "urn:async-job-orchestrator:problem:rate-limited"
    assert 600 < int(refused.headers["Retry-After"]) <= 1200
    assert refused.headers["RateLimit"] == f'"key";r=0;t={refused.headers["Retry-After"]}'
    assert api.get("/jobs", headers=bearer(make_key(db, "client"))).status_code == 200


def test_a_request_that_waits_counts_once(api: TestClient, db: Connection) -> None:
    key = bearer(make_key(db, "client", rate_limit=2, rate_period="1 hour"))
    headers = key | {"Prefer": "wait=1"}
    created = api.post("/jobs", json={}, headers=headers)
    assert (created.status_code, created.headers["RateLimit"][:9]) == (201, '"key";r=1')
    read = api.get(created.headers["Location"], headers=headers)
    assert (read.status_code, read.headers["RateLimit"][:9]) == (200, '"key";r=0')


def test_a_key_without_a_rate_limit_gets_no_headers_of_one(api: TestClient, db: Connection) -> None:
    for headers in ({}, bearer(make_key(db, "client"))):
        response = api.get("/jobs", headers=headers)
        assert not {"ratelimit", "ratelimit-policy"} & set(response.headers)


@pytest.fixture
def mine(api: TestClient, db: Connection) -> TestClient:
    """The client, with a key for all scopes, but only for the queue mine."""
    key = make_key(db, "client", "worker", "operator", queues=["mine", "also mine"])
    api.headers.update(bearer(key))
    return api


def ids(response: Any) -> set[str]:
    assert response.status_code == 200
    return {job["id"] for job in response.json()}


def test_a_restricted_key_lists_only_the_jobs_of_its_queues(
    mine: TestClient, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PAGE_SIZE", 2)
    own = {str(enqueue(db, queue=queue)) for queue in ["mine", "also mine", "mine", "mine"]}
    enqueue(db, queue="theirs")
    enqueue(db)
    assert ids(mine.get("/jobs")) == own
    assert ids(mine.get("/jobs", params={"view": "full", "limit": 100})) == own
    assert len(ids(mine.get("/jobs", params={"queue": "mine"}))) == 3
    for queues in (["theirs"], ["mine", "theirs"]):
        response = mine.get("/jobs", params={"queue": queues})
        assert (response.status_code, response.json()["code"]) == (403, "JQ009")
        assert "theirs" in response.json()["detail"]


@pytest.mark.usefixtures("short_streams")
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "?view=full"),
        ("GET", "/history"),
        ("GET", "/explain"),
        ("GET", "/progress"),
        ("GET", "/events"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ],
)
def test_to_a_restricted_key_the_jobs_of_other_queues_do_not_exist(
    mine: TestClient, db: Connection, method: str, path: str
) -> None:
    theirs = str(enqueue(db, queue="theirs"))
    response = mine.request(method, f"/jobs/{theirs}{path}", headers={"Prefer": "wait=30"})
    unknown = mine.request(method, f"/jobs/{UNKNOWN_JOB}{path}")
    assert (response.status_code, unknown.status_code) == (404, 404)
    said, of_unknown = response.json()["detail"], unknown.json()["detail"]
    assert f"job {theirs} does not exist" in said
    assert said.partition(".")[0] == of_unknown.replace(UNKNOWN_JOB, theirs).partition(".")[0]
    assert value(db, "select status from jobs") == "queued"
    own = str(enqueue(db, queue="mine"))
    assert mine.request(method, f"/jobs/{own}{path}").status_code in (200, 409)


def test_a_restricted_key_follows_only_what_happens_in_its_queues(
    http: httpx2.Client, db: Connection
) -> None:
    for queue in ("mine", "theirs", "mine"):
        enqueue(db, queue=queue)
    headers = bearer(make_key(db, "client", queues=["mine"]))
    assert http.get("/events", params={"queue": "theirs"}, headers=headers).status_code == 403
    with http.stream("GET", "/events", headers=headers | {"Last-Event-ID": "0"}) as stream:
        data = (line[5:] for line in stream.iter_lines() if line.startswith("data:"))
        assert [json.loads(next(data))["queue"] for _ in range(2)] == ["mine", "mine"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/jobs", {"queue": "theirs"}, 403),
        ("/jobs", {}, 403),
        ("/jobs", {"queue": "theirs", "unique_key": "key"}, 403),
        ("/jobs", {"queue": "mine", "depends_on": ["theirs"]}, 404),
        ("/jobs/batch", [{"queue": "mine"}, {"queue": "theirs"}], 403),
        ("/jobs/batch", [{"queue": "mine"}, {"queue": "mine", "depends_on": ["theirs"]}], 404),
    ],
)
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": '"once"'}], ids=["", "once"])
def test_a_restricted_key_enqueues_nothing_elsewhere(
    mine: TestClient, db: Connection, path: str, body: Any, status: int, headers: dict[str, str]
) -> None:
    theirs = str(enqueue(db, queue="theirs"))
    for job in body if isinstance(body, list) else [body]:
        if "depends_on" in job:
            job |= {"depends_on": [theirs]}
    assert mine.post(path, json=body, headers=headers).status_code == status
    assert value(db, "select count(*) from jobs") == 1
    assert mine.post("/jobs", json={"queue": "mine"}, headers=headers).status_code == 201


def test_a_restricted_key_may_wait_for_its_own_job(mine: TestClient) -> None:
    response = mine.post("/jobs", json={"queue": "mine"}, headers={"Prefer": "wait=1"})
    assert response.status_code == 201


def test_a_restricted_key_cancels_and_retries_in_bulk_only_in_its_queues(
    mine: TestClient, db: Connection
) -> None:
    def fail_one_of(queue: str) -> str:
        job_id = enqueue(db, queue=queue, priority=0)
        held = claim(db)
        db.execute("select fail_job(%s, %s, 'broken')", [held.id, held.claim_id])
        return str(job_id)

    own_dead, _ = fail_one_of("mine"), fail_one_of("theirs")
    own, _ = str(enqueue(db, queue="mine")), enqueue(db, queue="theirs")
    assert ids(mine.get("/dead-letters")) == {own_dead}
    assert ids(mine.post("/jobs/cancel", json={"status": "queued"})) == {own}
    assert ids(mine.post("/jobs/retry", json={"error": "broken"})) == {own_dead}
    for path in ("/jobs/cancel", "/jobs/retry"):
        assert mine.post(path, json={"queue": "theirs"}).status_code == 403
        # That a key is restricted is no filter: nothing was said of which jobs.
        assert mine.post(path, json={}).status_code == 422
    assert mine.get("/dead-letters", params={"queue": "theirs"}).status_code == 403
    statuses = db.execute("select queue, status from jobs order by queue, id").fetchall()
    assert statuses == [
        ("mine", "queued"),
        ("mine", "cancelled"),
        ("theirs", "failed"),
        ("theirs", "queued"),
    ]


def test_a_restricted_key_sees_and_sets_only_its_queues(mine: TestClient, db: Connection) -> None:
    for queue in ("mine", "theirs"):
        enqueue(db, queue=queue)
    for path in ("/queues", "/statistics"):
        assert [each["queue"] for each in mine.get(path).json()] == ["mine"]
    for queue, status in [("mine", 200), ("also%20mine", 200), ("theirs", 403)]:
        url = f"/queues/{queue}"
        responses = [
            mine.get(url),
            mine.patch(url, json={"max_attempts": 2}),
            mine.post(f"{url}/pause"),
            mine.post(f"{url}/resume"),
            mine.get(f"{url}/statistics"),
        ]
        assert [response.status_code for response in responses] == [status] * 5
    queues = db.execute("select queue from queues order by queue").fetchall()
    assert queues == [("also mine",), ("mine",)]


def test_a_restricted_key_has_no_part_in_what_concerns_the_whole_system(
    mine: TestClient, db: Connection
) -> None:
    whole = {
        "list_schedules",
        "set_schedule",
        "pause_schedule",
        "resume_schedule",
        "delete_schedule",
        "workers",
        "health",
        "create_api_key",
        "list_api_keys",
        "revoke_api_key",
        "count_events",
    }
    for method, path, body, function in ROUTES.values():
        if function in whole:
            response = mine.request(method, path, json=body)
            assert (response.status_code, response.json()["code"]) == (403, "JQ009"), path
    assert value(db, "select count(*) from api_keys") == 1


@contextmanager
def application_of(db: Connection, conninfo: str, *roles: str) -> Iterator[TestClient]:
    """Run the application with a login that is a member of these group roles only."""
    login = sql.Identifier("job_queue_test_api")
    db.execute(sql.SQL("drop role if exists {}").format(login))
    db.execute(
        sql.SQL("create role {} login password 'a' in role {}").format(
            login, sql.SQL(", ").join(sql.Identifier(f"job_queue_{role}") for role in roles)
        )
    )
    settings = Settings(make_conninfo(conninfo, user="job_queue_test_api", password="a"))
    try:
        with TestClient(create_app(settings), raise_server_exceptions=False) as client:
            yield client
    finally:
        db.execute(sql.SQL("drop role {}").format(login))


@pytest.mark.usefixtures("short_streams")
def test_where_the_apis_login_may_do_less_nobody_may_do_more(db: Connection, conninfo: str) -> None:
    everything = bearer(make_key(db, "client", "worker", "operator"))
    with application_of(db, conninfo, "client") as client:
        for headers in ({}, everything):
            statuses = answers(client, headers)
            answered = {name for name, status in statuses.items() if status != 403}
            # The API's own metrics need no right in the database.
            assert answered == allowed("client") | {"getMetrics"}
        refused = client.get("/workers").json()
        assert refused["type"] == "urn:async-job-orchestrator:problem:forbidden"
        assert "code" not in refused
    assert db.execute("table queues").fetchall() == []


def test_no_more_than_a_hash_of_a_key_leaves_the_process_or_is_logged(
    api: TestClient,
    db: Connection,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[Any] = []
    fetch: Callable[..., Any] = Database.fetch

    async def listen(database: Database, *arguments: Any) -> Any:
        sent.append(arguments)
        return await fetch(database, *arguments)

    monkeypatch.setattr(Database, "fetch", listen)
    caplog.set_level(logging.DEBUG)
    good = make_key(db, "client", rate_limit=1, rate_period="1 hour")
    wrong, revoked = good[:-1] + ("0" if good[-1] != "0" else "1"), make_key(db, "client")
    db.execute("select revoke_api_key(%s)", [revoked.split("_")[1]])
    malformed = good + "0"
    statuses = []
    texts = []
    for key in (good, good, wrong, revoked, malformed):
        response = api.post("/queues/q/pause?x=1", headers=bearer(key))
        statuses.append(response.status_code)
        texts.append(response.text)
    assert statuses == [403, 429, 401, 401, 401]
    assert len(sent) == 4
    heard = caplog.text + repr(sent) + "".join(texts)
    for key in (good, wrong, revoked):
        assert key.rpartition("_")[2][:32] not in heard


def test_a_fault_in_a_call_shows_no_key(
    api: TestClient,
    db: Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = make_key(db, "client")
    db.execute("drop function get_job(uuid)")
    db.execute(
        "create function get_job(p_job_id uuid) returns table (status text) language plpgsql as"
        " $$ begin perform 1 / 0; end $$"
    )
    db.execute("grant execute on function get_job(uuid) to job_queue_client")
    response = api.get(JOB, headers=bearer(key))
    assert response.status_code >= 400
    assert key.rpartition("_")[2] not in caplog.text + response.text


def test_the_key_of_another_is_not_tried_out(api: TestClient, db: Connection) -> None:
    """An unknown key, a wrong secret, an expired and a revoked key are answered alike."""
    good, expired, revoked = (make_key(db, "client") for _ in range(3))
    db.execute(
        "update api_keys set expires_at = clock_timestamp() where key_id = %s",
        [expired.split("_")[1]],
    )
    db.execute("select revoke_api_key(%s)", [revoked.split("_")[1]])
    keys = ["jq_0123456789ab_" + "0" * 64, good[:-64] + "0" * 64, expired, revoked]
    responses = [api.get("/jobs", headers=bearer(key)) for key in keys]
    assert {response.status_code for response in responses} == {401}
    problems = [response.json() for response in responses]
    for problem in problems:
        del problem["instance"]  # the id of the request
    assert problems == problems[:1] * 4


def test_a_key_is_refused_from_the_moment_that_it_is_revoked(
    api: TestClient, db: Connection
) -> None:
    key = make_key(db, "client")
    assert api.post("/jobs", json={}, headers=bearer(key)).status_code == 201
    db.execute("select revoke_api_key(%s)", [key.split("_")[1]])
    assert api.post("/jobs", json={}, headers=bearer(key)).status_code == 401
    assert one(db, "select count(*) from jobs") == (1,)


def test_insufficient_privilege_is_the_only_error_beside_ours_that_says_forbidden() -> None:
    from api.errors import KIND_BY_SQLSTATE

    forbidden = {state for state, kind in KIND_BY_SQLSTATE.items() if kind == "forbidden"}
    assert forbidden == {"JQ009", psycopg.errors.InsufficientPrivilege.sqlstate}
