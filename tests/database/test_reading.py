"""get_job and list_jobs."""

from tests.support import UNKNOWN_JOB, Connection, claim, enqueue, one


def test_get_returns_the_job(db: Connection) -> None:
    job_id = enqueue(db, sleep_seconds=2, message="hello")
    found = one(db, "select * from get_job(p_job_id => %s)", job_id)
    columns = (
        "id, status, sleep_seconds, message, result, created_at, updated_at, job_type, payload,"
        " queue, priority, run_at, attempts, max_attempts, losses, max_losses, timeout, unique_key,"
        " concurrency_key, depends_on, cancel_requested, failed_at"
    )
    later = "retry_delay, retry_delay_max, trace_context"
    assert found[:-5] == one(db, f"select {columns} from jobs")
    assert found[-3:] == one(db, f"select {later} from jobs")
    assert found._fields == (*columns.split(", "), "worker", "progress", *later.split(", "))


def test_get_returns_no_row_for_an_unknown_job(db: Connection) -> None:
    enqueue(db)
    assert db.execute("select * from get_job(%s)", [UNKNOWN_JOB]).fetchall() == []


def test_get_sees_a_job_that_the_same_statement_enqueued(db: Connection) -> None:
    row = one(
        db,
        "select job.status from enqueue_job() as id cross join lateral get_job(id) as job",
    )
    assert row.status == "queued"


def test_list_returns_jobs_of_every_status_newest_first(db: Connection) -> None:
    job_ids = [enqueue(db) for _ in range(4)]
    for verb in ("complete_job(%s, %s)", "fail_job(%s, %s)"):
        held = claim(db)
        db.execute(f"select {verb}", [held.id, held.claim_id])
    claim(db)
    jobs = db.execute("select * from list_jobs()").fetchall()
    assert [job.id for job in jobs] == job_ids[::-1]
    assert [job.status for job in jobs] == ["queued", "running", "failed", "succeeded"]
    shown = one(db, "select * from get_job(%s)", job_ids[0])._fields
    assert jobs[0]._fields == shown[: len(jobs[0])]


def test_pages_of_a_list_join_without_gap_or_overlap(db: Connection) -> None:
    job_ids = [enqueue(db) for _ in range(7)]
    after, seen = None, []
    while page := db.execute("select id from list_jobs(3, %s)", [after]).fetchall():
        assert len(page) <= 3
        seen += [row.id for row in page]
        after = seen[-1]
        enqueue(db)  # arrives while the list is being read: before the first page
    assert seen == job_ids[::-1]


def test_list_returns_100_jobs_unless_asked_otherwise(db: Connection) -> None:
    db.execute("insert into jobs (sleep_seconds) select 0 from generate_series(1, 105)")
    assert len(db.execute("select from list_jobs()").fetchall()) == 100
    assert len(db.execute("select from list_jobs(p_limit => null)").fetchall()) == 105
