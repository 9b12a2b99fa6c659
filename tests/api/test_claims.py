"""/claims and what ends them: workers over HTTP."""

import http.client
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from fastapi.testclient import TestClient
from psycopg.types.json import Jsonb

from api import lines
from tests.api.conftest import ServerHere
from tests.support import UNKNOWN_JOB, Connection, enqueue, eventually, one, value

LISTENER = """
  from pg_stat_activity
 where application_name = 'job_queue api listener' and datname = current_database()
"""


@pytest.fixture(autouse=True)
def never_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers that wait rely on being woken."""
    monkeypatch.setattr(lines, "POLL", 3600.0)


def claim(api: TestClient, wait: int = 0, **body: Any) -> Any:
    """Claim jobs."""
    response = api.post("/claims", json=body, headers={"Prefer": f"wait={wait}"} if wait else {})
    assert response.status_code == 200, response.text
    return response.json()


def claim_one(api: TestClient, **body: Any) -> Any:
    """Claim a job, which must be there."""
    [claimed] = claim(api, **body)
    return claimed


def say(api: TestClient, claimed: Any, verb: str, **body: Any) -> Any:
    """Say something of a run."""
    path = f"/jobs/{claimed['id']}/{verb}"
    return api.post(path, json={"claim_id": claimed["claim_id"], **body})


def job(db: Connection, job_id: Any) -> Any:
    """Return a job."""
    return one(db, "select * from get_job(%s)", job_id)


def verbs(db: Connection, job_id: Any) -> list[str]:
    """Return what happened to a job."""
    return [row.verb for row in db.execute("select * from job_history(%s)", [job_id])]


def waiting(api: TestClient) -> int:
    """Return how many workers wait."""
    state = api.app.state  # type: ignore[attr-defined]
    return sum(len(line.workers) for line in state.lines._lines.values())


def listening(db: Connection) -> int:
    """Return how many locks the API's session holds because it listens."""
    return int(
        value(
            db,
            f"select count(*) from pg_locks where locktype = 'advisory' and mode = 'ShareLock'"
            f" and pid in (select pid {LISTENER})",
        )
    )


@contextmanager
def workers(count: int) -> Iterator[Callable[..., "Future[Any]"]]:
    """Call functions beside the block, which must let them end."""
    with ThreadPoolExecutor(count) as executor:
        yield executor.submit


# to claim


def test_a_claim_has_all_that_a_worker_needs(api: TestClient, db: Connection) -> None:
    job_id = enqueue(
        db,
        job_type="email",
        payload=Jsonb({"to": ["ü"]}),
        queue="mail",
        priority=2,
        max_attempts=3,
        timeout="90 s",
        trace_context=Jsonb({"traceparent": "00-1-2-01"}),
    )
    claimed = claim_one(api, worker="me", queues=["mail"], job_types=["email"], lease_seconds=7.5)
    row = job(db, job_id)
    assert claimed == {
        "id": str(job_id),
        "claim_id": value(db, "select claim_id from claims"),
        "job_type": "email",
        "payload": {"to": ["ü"]},
        "queue": "mail",
        "priority": 2,
        "attempt": 1,
        "max_attempts": 3,
        "losses": 0,
        "sleep_seconds": 3,
        "message": None,
        "created_at": row.created_at.isoformat().replace("+00:00", "Z"),
        "run_at": row.run_at.isoformat().replace("+00:00", "Z"),
        "timeout_seconds": 90,
        "lease_seconds": 7.5,
        "trace_context": {"traceparent": "00-1-2-01"},
    }
    held = one(db, "select worker, extract(epoch from lease) as lease from claims")
    assert (row.status, held.worker, held.lease) == ("running", "me", 7.5)


def test_a_claim_needs_nothing_but_an_object(api: TestClient, db: Connection) -> None:
    assert claim(api) == []
    enqueue(db)
    assert claim_one(api)["lease_seconds"] == 60


def test_several_jobs_can_be_claimed_at_once(api: TestClient, db: Connection) -> None:
    ids = [str(enqueue(db)) for _ in range(3)]
    assert [claimed["id"] for claimed in claim(api, limit=2)] == ids[:2]
    assert [claimed["id"] for claimed in claim(api, limit=2)] == ids[2:]


def test_other_queues_and_types_are_left_alone(api: TestClient, db: Connection) -> None:
    enqueue(db, queue="a", job_type="x")
    assert claim(api, queues=["b"]) == []
    assert claim(api, job_types=["y"]) == []
    assert claim_one(api, queues=["b", "a"], job_types=["y", "x"])["queue"] == "a"


@pytest.mark.parametrize(
    "body",
    [
        {"limit": 0},
        {"limit": 1001},
        {"lease_seconds": 0},
        {"lease_seconds": 86401},
        {"lease_seconds": None},
        {"queues": []},
        {"queues": [""]},
        {"job_types": []},
        {"worker": "a\0b"},
        {"worker": "x" * 501},
        {"lease": 3},
    ],
)
def test_what_cannot_be_asked_for_is_422(
    api: TestClient, db: Connection, body: dict[str, Any]
) -> None:
    enqueue(db)
    assert api.post("/claims", json=body).status_code == 422
    assert value(db, "select count(*) from claims") == 0


# to wait for a job


def test_who_waits_gets_a_job_when_it_comes(api: TestClient, db: Connection) -> None:
    with workers(1) as call:
        claimed = call(claim, api, wait=60, worker="me", lease_seconds=9)
        eventually(lambda: listening(db))
        job_id = enqueue(db)
        assert [one_of["id"] for one_of in claimed.result()] == [str(job_id)]
    held = one(db, "select worker, extract(epoch from lease) as lease from claims")
    assert (held.worker, held.lease) == ("me", 9)
    eventually(lambda: not listening(db))


def test_who_waits_is_told_of_its_own_queues_only(api: TestClient, db: Connection) -> None:
    with workers(2) as call:
        mail = call(claim, api, wait=60, queues=["mail", "default"])
        other = call(claim, api, wait=60, queues=["ö'\""])
        eventually(lambda: listening(db) == 4)
        enqueue(db, queue="third")
        second = enqueue(db, queue="ö'\"")
        assert [claimed["id"] for claimed in other.result()] == [str(second)]
        first = enqueue(db, queue="default")
        assert [claimed["id"] for claimed in mail.result()] == [str(first)]


def test_who_came_first_is_served_first(api: TestClient, db: Connection) -> None:
    with workers(3) as call:
        claims: list[Future[Any]] = []
        while len(claims) < 3:
            claims.append(call(claim, api, wait=60))
            eventually(lambda: waiting(api) == len(claims))
        for waiting_claim in claims:
            eventually(lambda: listening(db))
            job_id = enqueue(db)
            assert [claimed["id"] for claimed in waiting_claim.result()] == [str(job_id)]


def test_many_jobs_that_come_at_once_serve_all_who_wait(api: TestClient, db: Connection) -> None:
    with workers(3) as call:
        claims = [call(claim, api, wait=60, limit=2) for _ in range(3)]
        eventually(lambda: waiting(api) == 3 and listening(db))
        db.execute("select enqueue_job() from generate_series(1, 5)")
        assert sorted(len(waiting_claim.result()) for waiting_claim in claims) == [1, 2, 2]


def test_a_job_of_which_nobody_told_is_found(
    api: TestClient, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "POLL", 0.05)
    with workers(1) as call:
        claimed = call(claim, api, wait=60)
        eventually(lambda: waiting(api))
        job_id = enqueue(db, delay="0.3 s")
        assert [one_of["id"] for one_of in claimed.result()] == [str(job_id)]


def test_who_waits_in_vain_gets_nothing(api: TestClient, db: Connection) -> None:
    response = api.post("/claims", json={}, headers={"Prefer": "wait=1"})
    assert (response.status_code, response.json()) == (200, [])
    assert response.headers["Preference-Applied"] == "wait=1"
    assert waiting(api) == 0
    eventually(lambda: not listening(db))


def test_one_connection_listens_for_all_and_is_opened_again(
    api: TestClient, db: Connection
) -> None:
    with workers(5) as call:
        claims = [call(claim, api, wait=60, queues=[name]) for name in "aabcd"]
        eventually(lambda: waiting(api) == 5 and listening(db) == 5)
        assert value(db, f"select count(*) {LISTENER}") == 1
        lost = value(db, f"select pid {LISTENER}")
        db.execute("select pg_terminate_backend(%s)", [lost])
        eventually(lambda: value(db, f"select count(*) {LISTENER} and pid <> %s", lost))
        eventually(lambda: listening(db) == 5)
        for name in "aabcd":
            enqueue(db, queue=name)
        assert [waiting_claim.result()[0]["queue"] for waiting_claim in claims] == [*"aabcd"]


def test_a_job_that_came_just_before_the_api_listened_is_found(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue_first = f"{lines._START_LISTENING} where job_queue.enqueue_job() is not null"
    monkeypatch.setattr(lines, "_START_LISTENING", enqueue_first)
    assert len(claim(api, wait=60)) == 1


def test_behind_a_pooler_jobs_are_found_without_listening(
    api: TestClient, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "POLL", 0.05)
    monkeypatch.setattr(lines, "_BACKEND", "select 0")
    with workers(1) as call:
        claimed = call(claim, api, wait=60)
        eventually(lambda: waiting(api))
        job_id = enqueue(db)
        assert [one_of["id"] for one_of in claimed.result()] == [str(job_id)]
    assert value(db, f"select count(*) {LISTENER}") == 0


# to say how it goes


def test_a_heartbeat_renews_leases_and_tells_how_claims_stand(
    api: TestClient, db: Connection
) -> None:
    enqueue(db), enqueue(db)
    first, second = claim(api, limit=2)
    db.execute("select cancel_job(%s)", [second["id"]])
    claim_ids = [first["claim_id"], second["claim_id"], 2**40]
    response = api.post("/claims/heartbeat", json={"claim_ids": claim_ids, "lease_seconds": 600})
    assert response.json() == [
        {"claim_id": claim_ids[0], "held": True, "cancel_requested": False},
        {"claim_id": claim_ids[1], "held": True, "cancel_requested": True},
        {"claim_id": claim_ids[2], "held": False, "cancel_requested": False},
    ]
    assert value(db, "select array_agg(distinct extract(epoch from lease)) from claims") == [600]
    assert api.post("/claims/heartbeat", json={"claim_ids": []}).json() == []


def test_progress_is_shown_while_the_run_lasts(api: TestClient, db: Connection) -> None:
    enqueue(db)
    claimed = claim_one(api, worker="me")
    assert say(api, claimed, "progress", progress={"done": 0.5}).status_code == 204
    path = f"/jobs/{claimed['id']}/progress"
    assert api.get(path).json() == {"worker": "me", "progress": {"done": 0.5}}
    assert say(api, claimed, "progress", progress="x" * 70_000).status_code == 422


@pytest.mark.parametrize(
    ("body", "result"), [({}, None), ({"result": None}, None), ({"result": {"a": [1]}}, {"a": [1]})]
)
def test_a_job_is_completed_with_its_result(
    api: TestClient, db: Connection, body: dict[str, Any], result: Any
) -> None:
    enqueue(db)
    claimed = claim_one(api)
    response = say(api, claimed, "complete", **body)
    assert (response.status_code, response.content) == (204, b"")
    assert (job(db, claimed["id"]).status, job(db, claimed["id"]).result) == ("succeeded", result)


def test_a_result_that_cannot_be_stored_is_422_and_ends_nothing(
    api: TestClient, db: Connection
) -> None:
    enqueue(db)
    claimed = claim_one(api)
    assert say(api, claimed, "complete", result={"a": "\0"}).status_code == 422
    assert job(db, claimed["id"]).status == "running"


def test_a_job_that_fails_is_tried_again_when_it_was_asked_for(
    api: TestClient, db: Connection
) -> None:
    enqueue(db, max_attempts=2)
    response = say(api, claim_one(api), "fail", error="no luck", retry_in_seconds=0)
    assert (response.status_code, response.json()) == (200, {"status": "queued"})
    claimed = claim_one(api)
    assert claimed["attempt"] == 2
    assert say(api, claimed, "fail", error="again").json() == {"status": "failed"}
    assert job(db, claimed["id"]).result == {"error": "again"}


def test_a_job_may_fail_for_good(api: TestClient, db: Connection) -> None:
    enqueue(db, max_attempts=5)
    assert say(api, claim_one(api), "fail", retryable=False).json() == {"status": "failed"}


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (rb'"a\u0000b"', "a\ufffdb"),
        (rb'"a\ud800b\udc00"', "a\ufffdb\ufffd"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (b'"\xff\xfe"', "\ufffd\ufffd"),
        (b'"%s"' % (b"x" * 20_000), "x" * 10_000),
        (b'""', ""),
    ],
)
def test_whatever_the_error_is_it_can_be_told(
    api: TestClient, db: Connection, body: bytes, stored: str
) -> None:
    enqueue(db)
    claimed = claim_one(api)
    response = api.post(
        f"/jobs/{claimed['id']}/fail",
        content=b'{"claim_id": %d, "error": %s}' % (claimed["claim_id"], body),
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 200, response.text
    assert job(db, claimed["id"]).result == {"error": stored}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"claim_id": NaN}',
        b'{"claim_id": %s}' % (b"9" * 5000),
        b'{"claim_id": 1, "error": 3}',
        b'{"claim_id": 1, "retry_in_seconds": -1}',
        b'{"claim_id": 1, "retry_in_seconds": 1e999}',
        b'{"claim_id": 1, "message": "x"}',
        b'{"error": "x"}',
    ],
)
def test_a_failure_that_is_malformed_is_422(api: TestClient, body: bytes) -> None:
    response = api.post(
        f"/jobs/{UNKNOWN_JOB}/fail", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422, response.text


def test_a_job_is_put_off_and_handed_back_without_counting(api: TestClient, db: Connection) -> None:
    enqueue(db)
    claimed = claim_one(api)
    assert say(api, claimed, "snooze", delay_seconds=0).status_code == 204
    claimed = claim_one(api)
    assert say(api, claimed, "release").status_code == 204
    assert claim_one(api)["attempt"] == 1
    assert verbs(db, claimed["id"]) == ["enqueue", "claim", "snooze", "claim", "release", "claim"]


VERBS = [
    ("progress", {"progress": 1}),
    ("complete", {}),
    ("fail", {}),
    ("snooze", {"delay_seconds": 1}),
    ("release", {}),
]


@pytest.mark.parametrize(("verb", "body"), VERBS)
def test_a_worker_that_comes_late_is_refused(
    api: TestClient, db: Connection, verb: str, body: dict[str, Any]
) -> None:
    enqueue(db)
    late = claim_one(api)
    say(api, late, "release")
    refused = say(api, late, verb, **body)
    assert (refused.status_code, refused.json()["code"]) == (409, "JQ003")
    claimed = claim_one(api)
    refused = say(api, late, verb, **body)
    assert (refused.status_code, refused.json()["code"]) == (409, "JQ004")
    assert say(api, {**claimed, "id": UNKNOWN_JOB}, verb, **body).status_code == 404
    assert say(api, claimed, "complete").status_code == 204


# with a key


def key(db: Connection, *scopes: str, queues: list[str] | None = None) -> dict[str, str]:
    """Make a key, and return the headers that show it."""
    made = one(db, "select * from create_api_key('a', %s, %s)", [*scopes], queues)
    return {"Authorization": f"Bearer {made.api_key}"}


@pytest.mark.parametrize(("verb", "body"), VERBS)
def test_a_workers_key_is_enough_and_a_clients_is_not(
    api: TestClient, db: Connection, verb: str, body: dict[str, Any]
) -> None:
    worker, client = key(db, "worker"), key(db, "client")
    enqueue(db)
    assert api.post("/claims", json={}, headers=client).status_code == 403
    [claimed] = api.post("/claims", json={}, headers=worker).json()
    beat = {"claim_ids": [claimed["claim_id"]]}
    assert api.post("/claims/heartbeat", json=beat, headers=client).status_code == 403
    assert api.post("/claims/heartbeat", json=beat, headers=worker).status_code == 200
    path, body = f"/jobs/{claimed['id']}/{verb}", {"claim_id": claimed["claim_id"], **body}
    assert api.post(path, json=body, headers=client).status_code == 403
    assert api.post(path, json=body, headers=worker).status_code in (200, 204)


def test_a_key_gets_no_job_of_another_queue(api: TestClient, db: Connection) -> None:
    mail = key(db, "worker", queues=["mail"])
    enqueue(db)
    assert api.post("/claims", json={}, headers=mail).json() == []
    assert api.post("/claims", json={"queues": ["default"]}, headers=mail).status_code == 403
    claimed = claim_one(api)
    beat = {"claim_ids": [claimed["claim_id"]]}
    assert api.post("/claims/heartbeat", json=beat, headers=mail).status_code == 403
    body = {"claim_id": claimed["claim_id"]}
    path = f"/jobs/{claimed['id']}/complete"
    assert api.post(path, json=body, headers=mail).status_code == 404
    with workers(1) as call:
        waits = call(api.post, "/claims", json={}, headers=mail | {"Prefer": "wait=60"})
        eventually(lambda: listening(db))
        enqueue(db)
        job_id = enqueue(db, queue="mail")
        assert [of_mail["id"] for of_mail in waits.result().json()] == [str(job_id)]


def test_waiting_counts_as_one_call_of_a_key(
    api: TestClient, db: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "POLL", 0.05)
    made = one(db, "select * from create_api_key('a', '{worker}', p_rate_limit => 2)")
    headers = {"Authorization": f"Bearer {made.api_key}", "Prefer": "wait=1"}
    response = api.post("/claims", json={}, headers=headers)
    assert (response.status_code, response.json()) == (200, [])
    assert "r=1" in response.headers["RateLimit"]


# clients that hang up


class Caller:
    """A client that may hang up at any time."""

    def __init__(self, server: ServerHere, prefer: str) -> None:
        self._server = server
        self._connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
        headers = {"Content-Type": "application/json", "Prefer": prefer}
        self._connection.request("POST", "/claims", json.dumps({"worker": "gone"}), headers)

    def hang_up(self) -> None:
        """Close the connection, whatever was to come; return once the server knows."""
        self._connection.close()
        eventually(lambda: self._server.connections == 0)


def test_who_has_hung_up_while_waiting_gets_no_job(server_here: ServerHere, db: Connection) -> None:
    caller = Caller(server_here, "wait=60")
    eventually(lambda: listening(db))
    caller.hang_up()
    eventually(lambda: not listening(db))
    job_id = enqueue(db)
    assert verbs(db, job_id) == ["enqueue"]


@pytest.mark.parametrize("prefer", ["wait=60", "respond-async"])
def test_what_was_claimed_for_who_has_hung_up_is_released_at_once(
    server_here: ServerHere, db: Connection, connect: Callable[[], Connection], prefer: str
) -> None:
    job_id = enqueue(db)
    blocker = connect()
    with blocker.transaction():
        blocker.execute("lock table claims")
        caller = Caller(server_here, prefer)
        wait_until_locked_out(db)
        caller.hang_up()
    eventually(lambda: verbs(db, job_id) == ["enqueue", "claim", "release"])
    assert job(db, job_id).attempts == 0


def test_what_was_claimed_in_line_for_who_has_hung_up_is_released_at_once(
    server_here: ServerHere, db: Connection, connect: Callable[[], Connection]
) -> None:
    caller = Caller(server_here, "wait=60")
    eventually(lambda: listening(db))
    blocker = connect()
    with blocker.transaction():
        blocker.execute("lock table claims")
        job_id = enqueue(db)
        wait_until_locked_out(db)
        caller.hang_up()
    eventually(lambda: verbs(db, job_id) == ["enqueue", "claim", "release"])


def test_the_next_in_line_gets_what_was_claimed_for_who_has_hung_up(
    server_here: ServerHere,
    here: httpx2.Client,
    db: Connection,
    connect: Callable[[], Connection],
) -> None:
    caller = Caller(server_here, "wait=60")
    eventually(lambda: listening(db))
    blocker = connect()
    blocker.execute("begin; lock table claims")
    with workers(1) as call:
        job_id = enqueue(db)
        wait_until_locked_out(db)
        caller.hang_up()
        other = call(here.post, "/claims", json={}, headers={"Prefer": "wait=60"})
        eventually(lambda: server_here.connections)
        blocker.execute("rollback")
        assert [claimed["id"] for claimed in other.result().json()] == [str(job_id)]


def wait_until_locked_out(db: Connection) -> None:
    """Wait until a claim waits for the lock of the table of claims."""
    eventually(
        lambda: value(
            db,
            "select count(*) from pg_locks where relation = 'claims'::regclass and not granted",
        )
    )
