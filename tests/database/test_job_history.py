"""job_events and job_history: one line for each change of status."""

from typing import Any

from tests.support import UNKNOWN_JOB, Connection, claim, enqueue, one, value


def history(db: Connection, job_id: Any) -> list[tuple[Any, ...]]:
    """Return the verbs of a job's history, with what changed and under which claim."""
    query = "select verb, from_status, to_status, claim_id, detail from job_history(p_job_id => %s)"
    return [tuple(row) for row in db.execute(query, [job_id])]


def test_a_job_that_succeeds_at_once_leaves_three_lines(db: Connection) -> None:
    job_id = enqueue(db)
    held = one(db, "select * from claim_next_job('me')")
    db.execute("select complete_job(%s, %s)", [job_id, held.claim_id])
    assert history(db, job_id) == [
        ("enqueue", None, "queued", None, None),
        ("claim", "queued", "running", held.claim_id, {"worker": "me"}),
        ("complete", "running", "succeeded", held.claim_id, None),
    ]


def test_every_way_is_recorded(db: Connection) -> None:
    job_id = enqueue(db, max_losses=2)
    enqueue(db)
    released = claim(db)
    db.execute("select release_job(%s, %s)", [job_id, released.claim_id])
    lost = one(db, "select * from claim_next_job('the lost one')")
    db.execute("update claims set lease = '1 ms', expires_at = now() - interval '1 s'")
    value(db, "select reclaim_expired_claims()")
    failed = claim(db)
    db.execute("select fail_job(%s, %s, 'no')", [job_id, failed.claim_id])
    error = "lost with its worker, 1 times of 2"
    assert history(db, job_id)[1:] == [
        ("claim", "queued", "running", released.claim_id, {"worker": None}),
        ("release", "running", "queued", released.claim_id, None),
        ("claim", "queued", "running", lost.claim_id, {"worker": "the lost one"}),
        ("reclaim", "running", "queued", lost.claim_id, {"error": error}),
        ("claim", "queued", "running", failed.claim_id, {"worker": None}),
        ("fail", "running", "failed", failed.claim_id, {"error": "no"}),
    ]


def test_every_line_is_a_documented_transition(db: Connection) -> None:
    test_every_way_is_recorded(db)
    strays = db.execute(
        """
        select * from job_events as event
         where not exists (
           select from job_transitions as transition
            where transition.from_status is not distinct from event.from_status
              and (transition.verb, transition.to_status) = (event.verb, event.to_status)
         )
        """
    ).fetchall()
    assert strays == []


def test_the_history_names_the_role_that_had_logged_in(db: Connection) -> None:
    db.execute("grant usage on schema job_queue to pg_monitor")
    db.execute("grant execute on function enqueue_job to pg_monitor")
    db.execute("set role pg_monitor")
    job_id = enqueue(db)
    db.execute("reset role")
    assert value(db, "select actor from job_history(%s)", job_id) == db.info.user


def test_what_is_rolled_back_leaves_no_line(db: Connection) -> None:
    job_id = enqueue(db)
    with db.transaction(force_rollback=True):
        claim(db)
    assert [line[0] for line in history(db, job_id)] == ["enqueue"]


def test_an_unknown_job_has_no_history(db: Connection) -> None:
    enqueue(db)
    assert history(db, UNKNOWN_JOB) == []
