"""claim_next_job: queued -> running."""

from collections.abc import Callable

from tests.support import Connection, claim, enqueue, one, value


def test_claim_returns_nothing_when_nothing_waits(db: Connection) -> None:
    assert db.execute("select claim_next_job()").fetchall() == []


def test_claim_returns_the_job_with_its_claim_id(db: Connection) -> None:
    job_id = enqueue(db, sleep_seconds=2, message="hello")
    claimed = one(db, "select * from claim_next_job(p_worker => 'me')")
    job = one(db, "table jobs")
    held = one(db, "table claims")
    assert (claimed.id, claimed.status, claimed.sleep_seconds, claimed.message) == (
        job_id,
        "running",
        2,
        "hello",
    )
    assert (claimed.created_at, claimed.updated_at) == (job.created_at, job.updated_at)
    assert (held.claim_id, held.job_id, held.worker) == (claimed.claim_id, job_id, "me")
    assert (job.status, job.claimable) == ("running", False)
    assert job.updated_at > job.created_at


def test_claim_is_callable_as_a_plain_select(db: Connection) -> None:
    enqueue(db)
    assert len(db.execute("select claim_next_job()").fetchall()) == 1
    assert value(db, "select count(*) from claims") == 1


def test_jobs_are_claimed_in_the_order_of_arrival(db: Connection) -> None:
    job_ids = [enqueue(db) for _ in range(20)]
    assert [claim(db).id for _ in range(20)] == job_ids


def test_claim_never_takes_a_job_twice(db: Connection) -> None:
    enqueue(db)
    claim(db)
    assert db.execute("select * from claim_next_job()").fetchall() == []


def test_claim_skips_a_job_that_another_worker_is_claiming(
    connect: Callable[[], Connection],
) -> None:
    one_worker, other_worker = connect(), connect()
    first, second = enqueue(one_worker), enqueue(one_worker)
    with one_worker.transaction():
        assert claim(one_worker).id == first
        assert claim(other_worker).id == second
        assert other_worker.execute("select * from claim_next_job()").fetchall() == []


def test_a_claim_that_is_rolled_back_leaves_the_job_queued(
    connect: Callable[[], Connection],
) -> None:
    one_worker, other_worker = connect(), connect()
    job_id = enqueue(one_worker)
    with one_worker.transaction(force_rollback=True):
        lost = claim(one_worker)
    found = claim(other_worker)
    assert found.id == job_id
    assert found.claim_id > lost.claim_id
