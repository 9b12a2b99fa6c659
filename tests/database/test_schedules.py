"""set_schedule and the functions beside it, and fire_schedules: each tick enqueues one job."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from tests.support import (
    UNKNOWN_JOB,
    Connection,
    claim,
    enqueue,
    one,
    raises_and_changes_nothing,
    value,
)

FIRE = "select fire_schedules()"
DAY = timedelta(days=1)
# Half a day from the last tick and from the next, so that none comes in the middle of a test.
DAILY = f"{datetime.now(UTC) - DAY / 2:%M %H} * * *"


def set_schedule(
    db: Connection,
    name: str | None = "report",
    cron: str | None = DAILY,
    job: Any = None,
    **arguments: Any,
) -> datetime:
    """Return the next tick that set_schedule announces."""
    named = "".join(f", p_{key} => %({key})s" for key in arguments)
    row = db.execute(
        f"select set_schedule(%(name)s, %(cron)s, %(job)s{named})",
        {"name": name, "cron": cron, "job": Jsonb({} if job is None else job), **arguments},
    ).fetchone()
    assert row is not None
    next_at: datetime = row[0]
    return next_at


def miss(db: Connection, ticks: int, name: str = "report") -> list[datetime]:
    """Let that many ticks of a daily schedule pass unseen, and return them."""
    last: datetime = value(db, "select next_tick(%s, 'UTC', now() - interval '1 day')", DAILY)
    missed = [last - DAY * ago for ago in reversed(range(ticks))]
    db.execute("update schedules set next_at = %s where schedule = %s", [missed[0], name])
    return missed


def schedule_of(db: Connection, name: str = "report") -> Any:
    """Return the row of a schedule."""
    return one(db, "select * from schedules where schedule = %s", name)


def provenance(db: Connection) -> list[tuple[str, datetime]]:
    """Return which schedules and ticks the jobs come from, as their histories say."""
    rows = db.execute(
        """
        select event.detail ->> 'schedule', (event.detail ->> 'tick')::timestamptz
          from jobs as job
         cross join lateral job_history(job.id) as event
         where event.verb = 'enqueue'
         order by 2, 1
        """
    )
    return [(row[0], row[1]) for row in rows]


def test_set_schedule_returns_the_next_tick_and_enqueues_nothing_before_it(db: Connection) -> None:
    next_at = set_schedule(db, cron="0 0 29 2 *", time_zone="Asia/Tokyo")
    assert next_at == value(db, "select next_tick('0 0 29 2 *', 'Asia/Tokyo')")
    assert schedule_of(db)[:9] == (
        *("report", "0 0 29 2 *", "Asia/Tokyo", {}, "coalesce", False),
        *(next_at, None, None),
    )
    assert value(db, FIRE) == 0
    assert value(db, "select count(*) from jobs") == 0
    assert schedule_of(db).next_at == next_at


def test_setting_a_schedule_again_changes_it(db: Connection) -> None:
    set_schedule(db, cron="@hourly", job={"message": "old"})
    next_at = set_schedule(
        db,
        cron="0 0 1 1 *",
        job={"message": "new"},
        time_zone="Asia/Tokyo",
        missed_ticks="catch up",
    )
    changed = schedule_of(db)
    assert (changed.cron, changed.job, changed.time_zone, changed.missed_ticks) == (
        *("0 0 1 1 *", {"message": "new"}, "Asia/Tokyo", "catch up"),
    )
    assert changed.next_at == next_at == value(db, "select next_tick('0 0 1 1 *', 'Asia/Tokyo')")


def test_setting_a_schedule_to_what_it_is_loses_none_of_its_ticks(db: Connection) -> None:
    # As a program does that declares its schedules whenever it starts.
    set_schedule(db, missed_ticks="catch up")
    missed = miss(db, 3)
    assert set_schedule(db, job={"message": "new"}, missed_ticks="catch up") == missed[0]
    for _ in missed:
        assert value(db, FIRE) == 1
    assert provenance(db) == [("report", tick) for tick in missed]


def test_a_paused_schedule_stays_paused_when_it_is_changed(db: Connection) -> None:
    set_schedule(db)
    db.execute("select pause_schedule('report')")
    set_schedule(db, job={"message": "new"})
    miss(db, 1)
    assert value(db, FIRE) == 0
    assert schedule_of(db).paused


@pytest.mark.parametrize(
    ("match", "wrong"),
    [
        ("^invalid schedule: null", {"name": None}),
        ("^invalid schedule: ", {"name": ""}),
        ("^invalid schedule: ", {"name": "x" * 101}),
        ("^invalid cron: ", {"cron": None}),
        ("^invalid cron: ", {"cron": "* * * *"}),
        ("^invalid cron: ", {"cron": "60 * * * *"}),
        ("^invalid cron: ", {"cron": "0 0 30 2 *"}),
        ("^invalid time_zone: null", {"time_zone": None}),
        ("^invalid time_zone: Europe/Nowhere", {"time_zone": "Europe/Nowhere"}),
        ("^invalid missed_ticks: null", {"missed_ticks": None}),
        ("^invalid missed_ticks: skip", {"missed_ticks": "skip"}),
        ("^invalid job: ", {"job": [{}]}),
        ("^invalid job: ", {"job": "sleep"}),
        ("^invalid job: ", {"job": {"cron": "* * * * *"}}),
        ("^invalid priority: 4", {"job": {"priority": 4}}),
        ("^invalid max_attempts: 0", {"job": {"max_attempts": 0}}),
    ],
)
def test_a_wrong_schedule_is_raises_and_changes_nothing(
    db: Connection, match: str, wrong: dict[str, Any]
) -> None:
    set_schedule(db, job={"message": "old"})
    enqueue(db)
    with raises_and_changes_nothing(db, "JQ001", match):
        set_schedule(db, **wrong)


def test_the_trial_of_a_job_leaves_nothing_behind(db: Connection) -> None:
    parent_id = str(enqueue(db))
    set_schedule(db, job={"unique_key": "k", "depends_on": [parent_id]})
    assert value(db, "select count(*) from jobs") == 1
    assert value(db, "select count(*) from job_events") == 1
    assert value(db, "select count(*) from job_dependencies") == 0
    with raises_and_changes_nothing(db, "JQ002", f"^job {UNKNOWN_JOB} does not exist"):
        set_schedule(db, job={"depends_on": [UNKNOWN_JOB]})


def test_a_tick_enqueues_the_job_and_its_history_says_where_it_comes_from(db: Connection) -> None:
    set_schedule(
        db, job={"job_type": "mail", "payload": {"to": "x"}, "queue": "mails", "priority": 0}
    )
    [tick] = miss(db, 1)
    assert value(db, FIRE) == 1
    job = one(db, "table jobs")
    assert (job.status, job.job_type, job.payload, job.queue, job.priority) == (
        *("queued", "mail", {"to": "x"}, "mails", 0),
    )
    assert one(db, "select * from job_history(%s)", job.id).detail.keys() == {"schedule", "tick"}
    assert provenance(db) == [("report", tick)]
    fired = schedule_of(db)
    assert (fired.last_at, fired.last_job_id, fired.last_error) == (tick, job.id, None)
    assert fired.next_at == tick + DAY
    assert claim(db).id == job.id


def test_a_scheduled_job_has_the_defaults_of_its_queue_at_the_tick(db: Connection) -> None:
    set_schedule(db, job={"queue": "mails", "max_losses": 9})
    db.execute(
        """select set_queue('mails', '{"max_attempts": 5, "timeout": "1 hour", "max_losses": 2}')"""
    )
    miss(db, 1)
    value(db, FIRE)
    job = one(db, "table jobs")
    assert (job.max_attempts, job.timeout, job.max_losses) == (5, timedelta(hours=1), 9)


def test_a_scheduled_job_waits_for_its_delay_and_for_its_parents(db: Connection) -> None:
    parent_id = str(enqueue(db))
    set_schedule(db, job={"depends_on": [parent_id], "delay": "1 hour"})
    miss(db, 1)
    value(db, FIRE)
    held = claim(db)
    child = one(db, "select * from jobs where id <> %s", parent_id)
    assert child.status == "blocked"
    assert child.run_at - child.created_at > timedelta(minutes=59)
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    assert one(db, "select * from get_job(%s)", child.id).status == "queued"


def test_of_several_missed_ticks_one_job_is_enqueued_for_the_last(db: Connection) -> None:
    set_schedule(db)
    missed = miss(db, 500)
    assert value(db, FIRE) == 1
    assert provenance(db) == [("report", missed[-1])]
    assert schedule_of(db).next_at == missed[-1] + DAY
    assert value(db, FIRE) == 0


@pytest.mark.parametrize(
    ("cron", "since"),
    [
        ("@daily", "3 days"),
        ("@monthly", "100 days"),
        ("@yearly", "900 days"),
        ("@hourly", "1 year"),
    ],
)
def test_the_last_of_the_missed_ticks_is_found_however_far_apart_they_are(
    db: Connection, cron: str, since: str
) -> None:
    set_schedule(db, cron=cron)
    first = value(db, "select next_tick(%s, 'UTC', now() - %s::interval)", cron, since)
    db.execute("update schedules set next_at = %s", [first])
    before = datetime.now(UTC)
    value(db, FIRE)
    [(_, tick)] = provenance(db)
    next_at = schedule_of(db).next_at
    assert first <= tick <= datetime.now(UTC)
    assert next_at > before
    assert value(db, "select next_tick(%s, 'UTC', %s)", cron, tick) == next_at


def test_catching_up_enqueues_a_job_for_each_missed_tick_in_order(db: Connection) -> None:
    set_schedule(db, missed_ticks="catch up")
    missed = miss(db, 5)
    assert [value(db, FIRE) for _ in missed] == [1] * 5
    assert provenance(db) == [("report", tick) for tick in missed]
    by_arrival = db.execute("select id from jobs order by seq").fetchall()
    assert by_arrival[-1].id == schedule_of(db).last_job_id
    assert schedule_of(db).last_at == missed[-1]
    assert schedule_of(db).next_at == missed[-1] + DAY


def test_maintenance_catches_up_as_far_as_a_bound_and_goes_on_the_next_time(db: Connection) -> None:
    set_schedule(db, missed_ticks="catch up")
    set_schedule(db, "other")
    missed = miss(db, 130)
    miss(db, 130, "other")
    assert value(db, "select run_maintenance()")["fired"] == 101
    assert value(db, "select run_maintenance()")["fired"] == 30
    assert [tick for name, tick in provenance(db) if name == "report"] == missed


def test_at_most_the_limit_of_schedules_fires_those_that_wait_longest_first(db: Connection) -> None:
    for ticks, name in [(1, "late"), (3, "early"), (2, "middle")]:
        set_schedule(db, name)
        miss(db, ticks, name)
    assert value(db, "select fire_schedules(2)") == 2
    assert {name for name, _ in provenance(db)} == {"early", "middle"}
    assert value(db, "select fire_schedules(2)") == 1


def test_two_open_transactions_fire_a_tick_once_and_the_second_does_not_wait(
    connect: Callable[[], Connection],
) -> None:
    first, second, third = connect(), connect(), connect()
    for waiting in (second, third):
        waiting.execute("set lock_timeout = '10 s'")  # a wait would have no end
    set_schedule(first), set_schedule(first, "other")
    miss(first, 1), miss(first, 1, "other")
    with first.transaction():
        assert value(first, "select fire_schedules(1)") == 1
        with second.transaction():
            assert value(second, FIRE) == 1
            assert value(third, FIRE) == 0
        assert value(second, FIRE) == 0
    assert value(second, FIRE) == 0
    assert sorted(name for name, _ in provenance(first)) == ["other", "report"]


def test_a_tick_whose_transaction_is_rolled_back_is_fired_by_the_next(
    connect: Callable[[], Connection],
) -> None:
    first, second = connect(), connect()
    set_schedule(first)
    [tick] = miss(first, 1)
    with first.transaction(force_rollback=True):
        assert value(first, FIRE) == 1
    assert value(second, FIRE) == 1
    assert provenance(first) == [("report", tick)]


def test_many_maintainers_at_once_fire_each_tick_once(connect: Callable[[], Connection]) -> None:
    db = connect()
    names = [f"schedule {number}" for number in range(25)]
    expected = []
    for name in names:
        set_schedule(db, name, missed_ticks="catch up")
        expected += [(name, tick) for tick in miss(db, 8, name)]
    maintainers = [connect() for _ in range(4)]

    def maintain(maintainer: Connection) -> int:
        return sum(value(maintainer, "select run_maintenance()")["fired"] for _ in range(10))

    with ThreadPoolExecutor(len(maintainers)) as executor:
        fired = sum(executor.map(maintain, maintainers))
    fired += value(db, "select run_maintenance()")["fired"]
    assert sorted(provenance(db)) == sorted(expected)
    assert fired == len(expected)


@pytest.mark.parametrize(
    ("harm", "error"),
    [
        ("job = '{\"priority\": 9}'", "invalid priority: 9"),
        ("job = '{\"no_such\": 9}'", "invalid job"),
        ('job = \'{"priority": "high"}\'', "high"),
        ("time_zone = 'Europe/Nowhere'", "Europe/Nowhere"),
        ("cron = 'whenever'", "invalid cron: whenever"),
    ],
)
@pytest.mark.parametrize("missed_ticks", ["coalesce", "catch up"])
def test_a_schedule_that_fails_says_so_and_keeps_no_other_back(
    db: Connection, harm: str, error: str, missed_ticks: str
) -> None:
    for name in ("a", "b", "c"):
        set_schedule(db, name, missed_ticks=missed_ticks)
        [tick] = miss(db, 1, name)
    db.execute(f"update schedules set {harm} where schedule = 'b'")
    assert value(db, FIRE) == 2
    assert provenance(db) == [("a", tick), ("c", tick)]
    failed = schedule_of(db, "b")
    assert error in failed.last_error
    assert (failed.last_at, failed.last_job_id) == (None, None)
    assert failed.next_at > datetime.now(UTC)
    assert value(db, "select detail from health where aspect = 'schedules'").startswith("b: ")
    assert value(db, FIRE) == 0


def test_a_schedule_that_has_failed_fires_at_its_next_tick_once_it_is_mended(
    db: Connection,
) -> None:
    set_schedule(db)
    miss(db, 2)
    db.execute("update schedules set job = '{\"priority\": 9}'")
    assert value(db, FIRE) == 0
    assert schedule_of(db).last_error
    db.execute("update schedules set job = '{\"priority\": 3}'")
    [tick] = miss(db, 1)
    assert value(db, FIRE) == 1
    assert (schedule_of(db).last_error, schedule_of(db).last_at) == (None, tick)


def test_no_job_is_enqueued_at_a_time_that_is_no_tick(db: Connection) -> None:
    # A time at which a failed schedule was to be looked at again, or that an old cron left behind.
    for name, missed_ticks in [("a", "coalesce"), ("b", "catch up")]:
        set_schedule(db, name, "0 0 29 2 *", missed_ticks=missed_ticks)
    next_at = schedule_of(db, "a").next_at
    db.execute("update schedules set next_at = now() - interval '1 second'")
    assert value(db, FIRE) == 0
    assert value(db, "select count(*) from jobs") == 0
    for name in ("a", "b"):
        assert (schedule_of(db, name).next_at, schedule_of(db, name).last_at) == (next_at, None)
        assert schedule_of(db, name).last_error is None


def test_a_tick_adds_no_job_while_the_last_one_with_its_unique_key_is_unfinished(
    db: Connection,
) -> None:
    set_schedule(db, job={"unique_key": "nightly"})
    [first] = miss(db, 1)
    assert value(db, FIRE) == 1
    held = claim(db)
    [second] = miss(db, 1)
    assert value(db, FIRE) == 0
    skipped = schedule_of(db)
    assert (skipped.last_at, skipped.last_job_id, skipped.last_error) == (first, held.id, None)
    assert skipped.next_at == second + DAY
    db.execute("select complete_job(%s, %s)", [held.id, held.claim_id])
    [third] = miss(db, 1)
    assert value(db, FIRE) == 1
    assert [tick for _, tick in provenance(db)] == [first, third]


def test_a_paused_schedule_enqueues_nothing_and_makes_up_for_nothing(db: Connection) -> None:
    set_schedule(db, missed_ticks="catch up")
    miss(db, 3)
    db.execute("select pause_schedule('report')")
    assert schedule_of(db).paused
    assert value(db, FIRE) == 0
    assert value(db, "select run_maintenance()")["fired"] == 0
    db.execute("select resume_schedule('report')")
    resumed = schedule_of(db)
    assert not resumed.paused
    assert resumed.next_at > datetime.now(UTC)
    assert value(db, FIRE) == 0
    [tick] = miss(db, 1)
    assert value(db, FIRE) == 1
    assert provenance(db) == [("report", tick)]


def test_resuming_a_schedule_that_is_not_paused_loses_none_of_its_ticks(db: Connection) -> None:
    set_schedule(db)
    [tick] = miss(db, 1)
    db.execute("select resume_schedule('report')")
    assert schedule_of(db).next_at == tick
    db.execute("select pause_schedule('report')")
    db.execute("select pause_schedule('report')")
    assert schedule_of(db).paused


def test_a_schedule_is_paused_or_not(db: Connection) -> None:
    set_schedule(db)
    with raises_and_changes_nothing(db, "JQ001", "^invalid paused: null"):
        db.execute("select pause_schedule('report', null)")


def test_deleting_a_schedule_ends_it_and_leaves_its_jobs(db: Connection) -> None:
    set_schedule(db), set_schedule(db, "other")
    miss(db, 1)
    value(db, FIRE)
    db.execute("select delete_schedule('report')")
    assert value(db, "select schedule from schedules") == "other"
    assert one(db, "table jobs").status == "queued"


@pytest.mark.parametrize("verb", ["pause", "resume", "delete"])
@pytest.mark.parametrize("name", ["unknown", None])
def test_an_unknown_schedule_is_raises_and_changes_nothing(
    db: Connection, verb: str, name: str | None
) -> None:
    set_schedule(db)
    with raises_and_changes_nothing(db, "JQ002", f"^schedule {name or 'null'} does not exist"):
        db.execute(f"select {verb}_schedule(%s)", [name])


@pytest.mark.parametrize("missed_ticks", ["coalesce", "catch up"])
@pytest.mark.parametrize("cron", [DAILY, "0 0 29 2 *"])
def test_a_row_inserted_by_hand_begins_with_its_next_tick(
    db: Connection, missed_ticks: str, cron: str
) -> None:
    db.execute(
        "insert into schedules (schedule, cron, missed_ticks) values ('report', %s, %s)",
        [cron, missed_ticks],
    )
    assert value(db, FIRE) == 0
    assert value(db, "select count(*) from jobs") == 0
    begun = schedule_of(db)
    assert begun.next_at == value(db, "select next_tick(%s)", cron)
    assert (begun.last_at, begun.last_error) == (None, None)
    if cron == DAILY:
        [tick] = miss(db, 1)
        assert value(db, FIRE) == 1
        assert provenance(db) == [("report", tick)]


def test_a_schedule_that_is_just_being_changed_is_passed_over(
    connect: Callable[[], Connection],
) -> None:
    first, second = connect(), connect()
    second.execute("set lock_timeout = '10 s'")  # a wait would have no end
    set_schedule(first)
    miss(first, 1)
    with first.transaction():
        first.execute("select pause_schedule('report')")
        assert value(second, "select run_maintenance()")["fired"] == 0
    assert value(second, FIRE) == 0


def test_ticks_are_read_in_the_zone_of_the_schedule(db: Connection) -> None:
    set_schedule(db, cron="30 7 * * *", time_zone="Asia/Kolkata")
    tick = value(db, "select next_tick('30 7 * * *', 'Asia/Kolkata', now() - interval '1 day')")
    db.execute("update schedules set next_at = %s", [tick])
    assert value(db, FIRE) == 1
    assert provenance(db) == [("report", tick)]
    assert (tick.astimezone(UTC).hour, tick.astimezone(UTC).minute) == (2, 0)
    assert schedule_of(db).next_at == tick + timedelta(days=1)
