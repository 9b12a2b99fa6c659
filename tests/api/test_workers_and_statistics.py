"""/workers, /statistics and /health/checks: the views for people."""

from fastapi.testclient import TestClient

from tests.support import Connection, claim, enqueue, one

NOTHING = {
    "paused": False,
    "blocked": 0,
    "queued": 0,
    "running": 0,
    "succeeded": 0,
    "failed": 0,
    "cancelled": 0,
    "ready": 0,
    "oldest_ready_age_seconds": None,
    "ended_last_minute": 0,
    "ended_last_hour": 0,
    "estimated": False,
}


def test_nobody_works_at_first(api: TestClient) -> None:
    assert api.get("/workers").json() == []


def test_a_worker_shows_with_what_it_runs(api: TestClient, db: Connection) -> None:
    job_ids = [str(enqueue(db, queue="mail")) for _ in range(2)]
    for _ in job_ids:
        one(db, "select from claim_next_job('busy', '{mail}')")
    db.execute("select claim_next_job('idle', '{mail, other}', '{email}')")
    busy, idle = api.get("/workers").json()
    assert (busy["worker"], busy["claims"], busy["expired_claims"]) == ("busy", 2, 0)
    assert busy["job_ids"] == job_ids
    assert busy["oldest_claim_at"] < busy["last_beat_at"]
    assert busy["oldest_claim_at"].endswith("Z")
    assert list(idle) == list(busy)
    assert (idle["worker"], idle["claims"], idle["job_ids"]) == ("idle", 0, [])
    assert (idle["queues"], idle["job_types"]) == (["mail", "other"], ["email"])
    assert idle["seen_at"].endswith("Z")
    assert (idle["last_beat_at"], idle["oldest_claim_at"]) == (None, None)


def test_workers_without_a_name_are_shown_together_and_last(
    api: TestClient, db: Connection
) -> None:
    for worker in (None, "named", None):
        enqueue(db)
        one(db, "select from claim_next_job(%s)", worker)
    workers = [(each["worker"], each["claims"]) for each in api.get("/workers").json()]
    assert workers == [("named", 1), (None, 2)]


def test_statistics_count_the_jobs_of_each_queue(api: TestClient, db: Connection) -> None:
    assert api.get("/statistics").json() == []
    parent = enqueue(db, queue="mail")
    enqueue(db, queue="mail", depends_on=[parent])
    enqueue(db, queue="mail", delay="1 hour")
    held = claim(db)
    cancelled = enqueue(db, queue="other")
    db.execute("select cancel_job(%s)", [cancelled])
    enqueue(db, queue="other")
    db.execute("update jobs set run_at = run_at - interval '90 seconds' where status = 'queued'")
    db.execute("select pause_queue('other')")
    mail, other = api.get("/statistics").json()
    assert mail == {"queue": "mail", **NOTHING, "blocked": 1, "queued": 1, "running": 1}
    age = other.pop("oldest_ready_age_seconds")
    assert 90 <= age < 600
    assert {"oldest_ready_age_seconds": age, **other} == {
        "queue": "other",
        **NOTHING,
        "oldest_ready_age_seconds": age,
        "paused": True,
        "queued": 1,
        "cancelled": 1,
        "ready": 1,
        "ended_last_minute": 1,
        "ended_last_hour": 1,
    }
    assert api.get("/queues/mail/statistics").json() == mail
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    after = api.get("/queues/mail/statistics").json()
    assert (after["running"], after["succeeded"], after["ended_last_minute"]) == (0, 1, 1)


def test_a_queue_without_jobs_counts_none(api: TestClient, db: Connection) -> None:
    enqueue(db, queue="other")
    assert api.get("/queues/mail/statistics").json() == {"queue": "mail", **NOTHING}
    db.execute("select pause_queue('mail')")
    assert api.get("/queues/mail/statistics").json()["paused"] is True


def test_beyond_a_hundred_thousand_jobs_also_what_is_zero_is_said_to_be_estimated(
    api: TestClient, db: Connection
) -> None:
    enqueue(db, queue="mail", delay="1 hour")
    db.execute(
        "insert into jobs (status, claimable, queue) select 'succeeded', false, 'old'"
        " from generate_series(1, 100000)"
    )
    expected = {**NOTHING, "estimated": True}
    assert api.get("/queues/none/statistics").json() == {"queue": "none", **expected}
    mail = {"queue": "mail", **expected, "queued": 1}
    assert api.get("/queues/mail/statistics").json() == mail
    assert api.get("/statistics").json()[0] == mail


def test_checks_say_what_would_hurt_next(api: TestClient, db: Connection) -> None:
    before = {check["aspect"]: check for check in api.get("/health/checks").json()}
    assert before["maintenance"] == {
        "aspect": "maintenance",
        "severity": "warning",
        "detail": "run_maintenance has never come to its end: let a worker call it",
    }
    assert {check["severity"] for check in before.values()} <= {"ok", "warning", "critical"}
    db.execute("select run_maintenance()")
    after = {check["aspect"]: check for check in api.get("/health/checks").json()}
    assert after["maintenance"]["severity"] == "ok"
