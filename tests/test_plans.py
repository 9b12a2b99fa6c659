"""No function scans a table, not even with a plan made when the tables were empty."""

import pytest

from tests.support import Connection, claim, enqueue, value

SCANS = "select sum(seq_scan) from pg_stat_xact_user_tables where schemaname = 'job_queue'"

CALLS = [
    "select * from claim_next_job()",
    "select complete_job(%(id)s, %(claim_id)s)",
    "select fail_job(%(id)s, %(claim_id)s)",
    "select release_job(%(id)s, %(claim_id)s)",
    "select snooze_job(%(id)s, %(claim_id)s, '0')",
    "select cancel_job(%(id)s)",
    "select * from heartbeat(array[%(claim_id)s])",
    "select reclaim_expired_claims()",
    "select time_out_jobs()",
    "select enqueue_job(p_unique_key => 'key')",
    "select * from get_job(%(id)s)",
    "select * from list_jobs()",
    "select * from job_history(%(id)s)",
]


@pytest.mark.parametrize("call", CALLS)
def test_a_function_planned_on_empty_tables_scans_none_of_them_when_they_are_full(
    db: Connection, call: str
) -> None:
    db.execute("vacuum analyze jobs")
    db.execute("vacuum analyze claims")
    for _ in range(10):
        with db.transaction(force_rollback=True):
            enqueue(db)
            held = claim(db)
            db.execute(call, {"id": held.id, "claim_id": held.claim_id})
    db.execute("select enqueue_job() from generate_series(1, 5000)")
    db.execute("select claim_next_job() from generate_series(1, 2000)")
    held = claim(db)
    with db.transaction():
        before = value(db, SCANS)
        db.execute(call, {"id": held.id, "claim_id": held.claim_id})
        assert value(db, SCANS) == before
