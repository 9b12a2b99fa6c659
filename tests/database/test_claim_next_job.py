"""claim_next_job: queued -> running."""

from collections.abc import Callable

from tests.support import Connection, claim, enqueue, one, raises_and_changes_nothing, value


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


def test_jobs_are_claimed_by_priority_then_run_at_then_arrival(db: Connection) -> None:
    names = {
        enqueue(db, priority=3): "last",
        enqueue(db, priority=1, delay="0"): "third",
        enqueue(db, priority=1, run_at="2020-01-02 00:00:00+00"): "second",
        enqueue(db, priority=1, run_at="2020-01-01 00:00:00+00"): "first of its priority",
        enqueue(db, priority=0): "first of all",
    }
    assert [names[claim(db).id] for _ in range(5)] == [
        "first of all",
        "first of its priority",
        "second",
        "third",
        "last",
    ]


def test_every_priority_is_reached(db: Connection) -> None:
    job_ids = [enqueue(db, priority=priority) for priority in (3, 2, 1, 0)]
    assert [claim(db).id for _ in range(4)] == job_ids[::-1]


def test_jobs_of_one_priority_and_one_run_at_are_claimed_in_the_order_of_arrival(
    db: Connection,
) -> None:
    job_ids = [enqueue(db, run_at="2020-01-01 00:00:00+00") for _ in range(10)]
    assert [claim(db).id for _ in range(10)] == job_ids


def test_a_job_is_not_claimed_before_its_time(db: Connection) -> None:
    enqueue(db, priority=0, delay="1 hour")
    ready = enqueue(db, priority=3)
    assert claim(db).id == ready
    assert db.execute("select * from claim_next_job()").fetchall() == []


def test_a_worker_gets_jobs_of_the_types_that_it_names(db: Connection) -> None:
    enqueue(db, job_type="email")
    sleep = enqueue(db)
    assert one(db, "select * from claim_next_job(p_job_types => '{sleep, other}')").id == sleep
    query = "select * from claim_next_job(p_job_types => '{other}')"
    assert db.execute(query).fetchall() == []
    assert db.execute("select * from claim_next_job(p_job_types => '{}')").fetchall() == []
    assert claim(db).job_type == "email"


def test_a_worker_gets_jobs_of_the_queues_that_it_names_in_that_order(db: Connection) -> None:
    for queue in ("mail", "reports", "default"):
        enqueue(db, queue=queue)
        enqueue(db, queue=queue, priority=0)
    query = "select queue, priority from claim_next_job(p_queues => '{reports, mail}')"
    claimed = [tuple(one(db, query)) for _ in range(4)]
    assert claimed == [("reports", 0), ("reports", 1), ("mail", 0), ("mail", 1)]
    assert db.execute(query).fetchall() == []
    assert claim(db).queue == "default"


def test_no_queue_at_all_is_refused(db: Connection) -> None:
    enqueue(db)
    with raises_and_changes_nothing(db, "JQ001", "^invalid queues"):
        db.execute("select * from claim_next_job(p_queues => '{}')")


def test_without_queues_the_first_job_of_all_is_claimed(db: Connection) -> None:
    later = enqueue(db, queue="a", run_at="2026-01-03")
    first = enqueue(db, queue="c", run_at="2026-01-01")
    urgent = enqueue(db, queue="d", priority=0)
    enqueue(db, queue="b", priority=0, delay="1 hour")
    second = enqueue(db, queue="b", run_at="2026-01-02")
    claimed = [claim(db).id for _ in range(4)]
    assert claimed == [urgent, first, second, later]
    assert db.execute("select * from claim_next_job()").fetchall() == []


def test_claim_counts_the_attempt(db: Connection) -> None:
    enqueue(db, max_attempts=3)
    claimed = claim(db)
    assert (claimed.attempt, claimed.max_attempts) == (1, 3)
    assert value(db, "select attempts from jobs") == 1
