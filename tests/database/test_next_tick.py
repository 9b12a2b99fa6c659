"""next_tick: when a cron expression is next due by the clock of a time zone."""

import random
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import psycopg
import pytest
from cronsim import CronSim, CronSimError

from tests.support import Connection, one, raises_and_changes_nothing, value


def ticks(db: Connection, cron: str, zone: str, after: str, count: int = 1) -> list[str]:
    """Return the next ticks as the clock of the zone shows them, with its offset from UTC."""
    db.execute("select set_config('timezone', %s, false)", [zone])
    found = []
    for _ in range(count):
        after = value(db, "select next_tick(%s, %s, %s)::text", cron, zone, after)
        found.append(after)
    return found


# What an expression means


def test_a_job_is_due_at_the_next_minute_that_all_fields_match(db: Connection) -> None:
    expected = {
        "* * * * *": "2024-05-15 10:21:00+00",
        "*/15 * * * *": "2024-05-15 10:30:00+00",
        "5 * * * *": "2024-05-15 11:05:00+00",
        "50/4 * * * *": "2024-05-15 10:50:00+00",
        "2/23 * * * *": "2024-05-15 10:25:00+00",
        "10-40/15 * * * *": "2024-05-15 10:25:00+00",
        "5-5/2 * * * *": "2024-05-15 11:05:00+00",
        "1,57-58,2,1 * * * *": "2024-05-15 10:57:00+00",
        "*/1000 * * * *": "2024-05-15 11:00:00+00",
        "007 0010 * * *": "2024-05-16 10:07:00+00",
        "59 23 31 12 *": "2024-12-31 23:59:00+00",
        "0 0 1 1 *": "2025-01-01 00:00:00+00",
        "0 9-17/4 * * *": "2024-05-15 13:00:00+00",
        "30 10 15 * *": "2024-05-15 10:30:00+00",
        "20 10 15 5 *": "2025-05-15 10:20:00+00",
        "0 0 31 6-8 *": "2024-07-31 00:00:00+00",
        "0 0 29 2 *": "2028-02-29 00:00:00+00",
        "0 0 * jan-Mar/2 *": "2025-01-01 00:00:00+00",
        "0 0 * FEB,dec *": "2024-12-01 00:00:00+00",
        "0 0 * * Sun": "2024-05-19 00:00:00+00",
        "0 0 * * 0": "2024-05-19 00:00:00+00",
        "0 0 * * 7": "2024-05-19 00:00:00+00",
        "0 0 * * 6-7": "2024-05-18 00:00:00+00",
        "0 0 * * FRI/2": "2024-05-17 00:00:00+00",
        "0 0 * * mon-TUE": "2024-05-20 00:00:00+00",
        " \t0\t0 \n * *   *  ": "2024-05-16 00:00:00+00",
    }
    after = "2024-05-15 10:20:30+00"  # a Wednesday
    assert {cron: ticks(db, cron, "UTC", after)[0] for cron in expected} == expected


def test_a_word_stands_for_an_expression(db: Connection) -> None:
    meanings = {
        "@yearly": "0 0 1 1 *",
        "@annually": "0 0 1 1 *",
        "@monthly": "0 0 1 * *",
        "@weekly": "0 0 * * 0",
        "@daily": "0 0 * * *",
        "@midnight": "0 0 * * *",
        "@hourly": "0 * * * *",
        " @Daily\n": "0 0 * * *",
    }
    for word, cron in meanings.items():
        found, expected = (
            ticks(db, each, "UTC", "2024-05-15 10:20+00", 3) for each in (word, cron)
        )
        assert found == expected, word


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 0 13 * FRI", ["05-10", "05-13", "05-17"]),
        ("0 0 13 * 5/1", ["05-10", "05-11", "05-12"]),
        ("0 0 13 * *", ["05-13", "06-13", "07-13"]),
        ("0 0 * * FRI", ["05-10", "05-17", "05-24"]),
        ("0 0 */2 * FRI", ["05-17", "05-31", "06-07"]),
        ("0 0 13-19 * */5", ["05-17", "05-19", "06-14"]),
        ("0 0 *,13 * FRI", ["05-10", "05-17", "05-24"]),
        ("0 0 1-31 * FRI", ["05-10", "05-11", "05-12"]),
    ],
)
def test_either_day_is_enough_unless_one_of_the_fields_begins_with_a_star(
    db: Connection, cron: str, days: list[str]
) -> None:
    found = ticks(db, cron, "UTC", "2024-05-09 12:00+00", 3)
    assert found == [f"2024-{day} 00:00:00+00" for day in days]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("2024-05-15 10:19:59.999999+00", "2024-05-15 10:20:00+00"),
        ("2024-05-15 10:20:00+00", "2024-05-15 10:25:00+00"),
        ("2024-05-15 10:20:00.000001+00", "2024-05-15 10:25:00+00"),
        ("2024-05-15 10:24:59+00", "2024-05-15 10:25:00+00"),
        ("2024-12-31 23:55:00+00", "2025-01-01 00:00:00+00"),
    ],
)
def test_the_next_tick_is_strictly_after_the_given_instant(
    db: Connection, after: str, expected: str
) -> None:
    assert ticks(db, "*/5 * * * *", "UTC", after) == [expected]


def test_unless_told_otherwise_the_next_tick_comes_after_the_present_in_utc(
    db: Connection,
) -> None:
    before = value(db, "select clock_timestamp()")
    tick = value(db, "select next_tick('* * * * *')")
    assert before < tick <= value(db, "select clock_timestamp()") + timedelta(minutes=1)
    assert value(db, "select extract(hour from next_tick('0 7 * * *') at time zone 'UTC')") == 7


def test_a_tick_may_be_forty_years_ahead(db: Connection) -> None:
    # '*/7' begins with a star, so both days must match: 29 February, and a Sunday.
    assert ticks(db, "0 0 29 2 */7", "UTC", "2080-01-01 00:00+00", 2) == [
        "2088-02-29 00:00:00+00",
        "2128-02-29 00:00:00+00",
    ]


# Where the clock is put forward or back


def test_a_time_is_that_of_the_zone_whatever_the_zone_of_the_session(db: Connection) -> None:
    query = "select next_tick(%s, 'Asia/Kathmandu', '2024-03-10 04:00+00') at time zone 'UTC'"
    for session in ("UTC", "America/New_York", "Pacific/Apia"):
        db.execute("select set_config('timezone', %s, false)", [session])
        assert value(db, query, "30 9 * * *") == datetime(2024, 3, 11, 3, 45)
        assert value(db, query, "30 * * * *") == datetime(2024, 3, 10, 4, 45)


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2024-03-30 12:00+01", "03-31 03:00+02, 04-01 02:30+02"),
        ("0 2 * * *", "Europe/Berlin", "2024-03-30 12:00+01", "03-31 03:00+02, 04-01 02:00+02"),
        ("0 3 * * *", "Europe/Berlin", "2024-03-30 12:00+01", "03-31 03:00+02, 04-01 03:00+02"),
        ("0-59 2 * * *", "Europe/Berlin", "2024-03-31 01:00+01", "03-31 03:00+02, 04-01 02:00+02"),
        ("30 0 * * *", "America/Asuncion", "2023-09-30 12:00-04", "10-01 01:00-03, 10-02 00:30-03"),
        ("30 0 1 * *", "America/Asuncion", "2023-09-30 12:00-04", "10-01 01:00-03, 11-01 00:30-03"),
        ("30 0 * * *", "America/Havana", "2024-03-09 12:00-05", "03-10 01:00-04, 03-11 00:30-04"),
        ("30 0 * * *", "Africa/Cairo", "2024-04-25 12:00+02", "04-26 01:00+03, 04-27 00:30+03"),
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2024-10-05 12:00+10:30",
            "10-06 02:30+11, 10-07 02:15+11",
        ),
        ("0 12 * * *", "Pacific/Apia", "2011-12-29 12:00-10", "12-31 00:00+14, 12-31 12:00+14"),
        ("10 0 * * *", "Africa/Monrovia", "1972-01-06 12:00-00:44:30", "01-07 00:45+00"),
        ("0 0,9 30 12 *", "Pacific/Apia", "2011-12-29 12:00-10", "12-31 00:00+14"),
    ],
)
def test_a_fixed_time_that_is_skipped_runs_once_right_after_the_gap(
    db: Connection, cron: str, zone: str, after: str, expected: str
) -> None:
    assert shown(ticks(db, cron, zone, after, expected.count(",") + 1)) == expected


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("30 2 * * *", "Europe/Berlin", "2024-10-26 12:00+02", "10-27 02:30+02, 10-28 02:30+01"),
        ("30 2 * * *", "Europe/Berlin", "2024-10-27 02:10+01", "10-28 02:30+01"),
        ("0-59 2 * * *", "Europe/Berlin", "2024-10-27 02:58+02", "10-27 02:59+02, 10-28 02:00+01"),
        ("30 0 * * *", "America/Havana", "2024-11-02 12:00-04", "11-03 00:30-04, 11-04 00:30-05"),
        ("30 23 * * *", "Africa/Cairo", "2024-10-31 12:00+03", "10-31 23:30+03, 11-01 23:30+02"),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2024-04-06 12:00+11",
            "04-07 01:45+11, 04-08 01:45+10:30",
        ),
        (
            "0,30 0,23 * * *",
            "America/St_Johns",
            "2010-11-06 23:10-02:30",
            "11-06 23:30-02:30, 11-07 00:00-02:30, 11-07 00:30-03:30",
        ),
    ],
)
def test_a_fixed_time_that_comes_twice_runs_the_first_time_only(
    db: Connection, cron: str, zone: str, after: str, expected: str
) -> None:
    assert shown(ticks(db, cron, zone, after, expected.count(",") + 1)) == expected


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        ("*/30 2 * * *", "Europe/Berlin", "2024-03-30 12:00+01", "04-01 02:00+02, 04-01 02:30+02"),
        ("30 * * * *", "Europe/Berlin", "2024-03-31 01:00+01", "03-31 01:30+01, 03-31 03:30+02"),
        ("*/9 * * * *", "Africa/Monrovia", "1972-01-06 23:54-00:44:30", "01-07 00:45+00"),
        ("*/30 0 1 * *", "America/Asuncion", "2023-09-30 12:00-04", "11-01 00:00-03"),
        ("*/30 * 30 12 *", "Pacific/Apia", "2011-12-29 12:00-10", "12-30 00:00+14"),
        (
            "*/20 1-2 * * *",
            "Australia/Lord_Howe",
            "2024-10-06 01:30+10:30",
            "10-06 01:40+10:30, 10-06 02:40+11, 10-07 01:00+11",
        ),
    ],
)
def test_other_jobs_do_not_run_for_a_time_that_is_skipped(
    db: Connection, cron: str, zone: str, after: str, expected: str
) -> None:
    assert shown(ticks(db, cron, zone, after, expected.count(",") + 1)) == expected


@pytest.mark.parametrize(
    ("cron", "zone", "after", "expected"),
    [
        (
            "*/30 2 * * *",
            "Europe/Berlin",
            "2024-10-27 02:10+02",
            "10-27 02:30+02, 10-27 02:00+01, 10-27 02:30+01, 10-28 02:00+01",
        ),
        ("30 * * * *", "Europe/Berlin", "2024-10-27 02:10+01", "10-27 02:30+01, 10-27 03:30+01"),
        (
            "5 * * * *",
            "Europe/Berlin",
            "2024-10-27 02:04:59+02",
            "10-27 02:05+02, 10-27 02:05+01, 10-27 03:05+01",
        ),
        (
            "45 * * * *",
            "Australia/Lord_Howe",
            "2024-04-07 01:20+11",
            "04-07 01:45+11, 04-07 01:45+10:30, 04-07 02:45+10:30",
        ),
        # Put back a minute after midnight, to one minute past eleven of the day before.
        (
            "*/30 0,23 * * *",
            "America/St_Johns",
            "2010-11-06 23:40-02:30",
            "11-07 00:00-02:30, 11-06 23:30-03:30, 11-07 00:00-03:30, 11-07 00:30-03:30",
        ),
        ("*/30 23 6 11 *", "America/St_Johns", "2010-11-07 00:00:30-02:30", "11-06 23:30-03:30"),
    ],
)
def test_other_jobs_run_each_time_that_comes_twice(
    db: Connection, cron: str, zone: str, after: str, expected: str
) -> None:
    assert shown(ticks(db, cron, zone, after, expected.count(",") + 1)) == expected


def shown(found: list[str]) -> str:
    """Leave out what is the same in all of these tests: the year and the seconds."""
    return ", ".join(tick[5:16] + tick[19:] for tick in found)


def test_a_job_whose_every_time_is_skipped_is_refused(db: Connection) -> None:
    # When 31 March is a Sunday, the clock is put forward from two to three in that night.
    with raises_and_changes_nothing(db, "JQ001", "^invalid cron: "):
        ticks(db, "*/5 2 31 3 */7", "Europe/Berlin", "2000-01-01 00:00+01")


def test_every_instant_from_the_year_1_to_9999_has_a_next_tick(db: Connection) -> None:
    [total, good] = one(
        db,
        """
        with asked as (
          select cron, zone, after
            from unnest(array['* * * * *', '0-59 0-23 * * *', '0 0 * * *', '*/7 12 30 * *']) as cron
           cross join unnest(array['America/Sitka', 'Asia/Manila', 'Pacific/Apia']) as zone
           cross join (
             select generate_series('0001-01-02 UTC'::timestamptz, '9999-01-01 UTC', '101 years')
             union all
             select unnest(array['1844-12-30 16:00+00', '1867-10-18 22:00+00']::timestamptz[])
           ) as instant (after)
        )
        select
          count(*) as total,
          count(*) filter (
            where next_tick(cron, zone, after) - after between '1 microsecond' and '61 days'
          ) as good
          from asked
        """,
    )
    assert total == good > 1000


# What is refused


NOT_IN_RANGE = [
    *("60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 0 *", "* * * 13 *"),
    *("* * * * 8", "0-60 * * * *", "* 20-24 * * *", "* * 0-3 * *", "5-4 * * * *", "* * * * 6-0"),
    *("* * * DEC-JAN *", "* * * * SAT-SUN", "1000 * * * *", "60/2 * * * *", "999999999 * * * *"),
]
NOT_A_FIELD = [
    *("*/0 * * * *", "5/0 * * * *", "1-5/00 * * * *", "*/ * * * *", "/5 * * * *", "/ * * * *"),
    *("1- * * * *", "-1 * * * *", "- * * * *", "1-2-3 * * * *", "*-5 * * * *", "1-* * * * *"),
    *(", * * * *", "1, * * * *", ",1 * * * *", "1,,2 * * * *", "** * * * *", "*5 * * * *"),
    *("1/2/3 * * * *", "*/2-4 * * * *", "*/* * * * *", "1/* * * * *", "+1 * * * *", "1.5 * * * *"),
    *("1e1 * * * *", "0x1 * * * *", "five * * * *", "JAN * * * *", "* MON * * *", "* * JAN * *"),
    *("* * * MON *", "* * * * JAN", "* * * JANUARY *", "* * * JA *", "* * * * MO", "* * * 1JAN *"),
    *("* * * JANFEB *", "* * * * */MON", "* * * * MON-", "? * * * *", "* * ? * ?", "~ * * * *"),
    *("\u0661 * * * *", "\uff11 * * * *", "\u00b2 * * * *", "1\u20132 * * * *", "%1 * * * *"),
    *("' * * * *", "\\1 * * * *", "1;2 * * * *", "(1) * * * *", "* * * * {MON}", "H * * * *"),
]
NOT_FIVE_FIELDS = ["", " ", "*", "* * * *", "@", "@reboot", "@dailyy", "@daily * * * *", "daily"]
NEVER = [
    *("0 0 30 2 *", "0 0 31 2 *", "0 0 31 4,6,9,11 *", "0 0 30-31 FEB *", "0 0 31 2-2 */2"),
    *("0 0 31/2 2 *", "* * 31 APR *"),
]
REFUSED = [*NOT_IN_RANGE, *NOT_A_FIELD, *NOT_FIVE_FIELDS, *NEVER]

# The package reads more than the five fields of cron: seconds, the last day, the third Monday, any
# white space and any letter that has a capital in ASCII, numbers of any length.
EXTENSIONS = [
    *("0 * * * * *", "0 0 L * *", "0 0 LW * *", "0 0 * * 5L", "0 0 * * MON#3"),
    *("0\u00a00 * * *", "0 0 * * \u017fun", "*/1000000000 * * * *", "0000000000 * * * *"),
    "1" + ",1" * 500 + " * * * *",
]


def accepted_by_cronsim(cron: str) -> bool:
    """Say whether the package can read the expression and finds a time that matches."""
    try:
        next(CronSim(cron, datetime(2024, 5, 15, tzinfo=UTC)))
    except (CronSimError, StopIteration):
        return False
    return True


def test_what_is_no_expression_is_refused(db: Connection) -> None:
    for cron in [*REFUSED, *EXTENSIONS, "x" * 10_000, "* * * * * * * *"]:
        with raises_and_changes_nothing(db, "JQ001", "^invalid cron: "):
            value(db, "select next_tick(%s)", cron)


def test_the_oracle_refuses_the_same_but_for_its_extensions() -> None:
    assert [cron for cron in REFUSED if accepted_by_cronsim(cron)] == []
    assert [cron for cron in EXTENSIONS if not accepted_by_cronsim(cron)] == []


@pytest.mark.parametrize(
    ("cron", "hint"),
    [
        ("60 * * * *", "Write the minute as * or numbers from 0 to 59"),
        ("5-4 * * * *", "Write the minute as * or numbers from 0 to 59"),
        ("* 24 * * *", "Write the hour as * or numbers from 0 to 23"),
        ("* * 32 * *", "Write the day of month as * or numbers from 1 to 31"),
        ("* * * 13 *", "Write the month as * or numbers from 1 to 12"),
        ("* * * * 8", "Write the day of week as * or numbers from 0 to 7"),
        ("* * * *", "Pass minute, hour, day of month, month and day of week"),
        ("0 0 30 2 *", "Pass an expression that matches within fifty years"),
    ],
)
def test_the_hint_says_what_is_wrong(db: Connection, cron: str, hint: str) -> None:
    with pytest.raises(psycopg.DatabaseError) as raised:
        value(db, "select next_tick(%s)", cron)
    assert str(raised.value.diag.message_hint).startswith(hint)


def test_null_and_instants_too_far_away_are_refused(db: Connection) -> None:
    with raises_and_changes_nothing(db, "JQ001", "^invalid cron: null"):
        value(db, "select next_tick(null)")
    with raises_and_changes_nothing(db, "JQ001", "^invalid time_zone: null"):
        value(db, "select next_tick('@daily', null)")
    with raises_and_changes_nothing(db, "JQ001", "^invalid after: null"):
        value(db, "select next_tick('@daily', 'UTC', null)")
    for after in ("infinity", "-infinity", "4713-01-01 BC", "294276-12-31 23:59 UTC"):
        with raises_and_changes_nothing(db, "JQ001", "^invalid after: "):
            value(db, "select next_tick('@daily', 'Asia/Tokyo', %s)", after)


def test_an_unknown_time_zone_is_refused(db: Connection) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="Europe/Atlantis"):
        value(db, "select next_tick('@daily', 'Europe/Atlantis')")


def test_a_field_is_a_sorted_list_of_distinct_values(db: Connection) -> None:
    field = "select job_queue.cron_field(%s, 'month', 1, 5, '{JAN,FEB,MAR,APR,MAY}')"
    assert value(db, field, "*") == [1, 2, 3, 4, 5]
    assert value(db, field, "5,Feb-4,1/2,3") == [1, 2, 3, 4, 5]
    assert value(db, field, "may,2,FEB") == [2, 5]
    for bad in (None, "", " ", "1 ", "1\n", "0", "6", "JUN", "1-6", "0-2", "2-1", "3,"):
        with raises_and_changes_nothing(db, "JQ001", f"^invalid cron: {bad or 'null|$'}"):
            value(db, field, bad)


# Against an oracle: the package cronsim

ZONES = [
    "UTC",
    "Africa/Cairo",  # midnight is skipped, and the hour before it comes twice
    "Africa/Casablanca",
    "America/Asuncion",  # midnight again
    "America/Havana",  # the hour after midnight comes twice
    "America/New_York",
    "America/St_Johns",  # at one minute past midnight
    "Antarctica/Troll",  # by two hours
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Atlantic/Azores",
    "Australia/Lord_Howe",  # by half an hour
    "Europe/Berlin",
    "Pacific/Apia",  # by a day
    "Pacific/Chatham",
]
# What Python and the server know of later years depends on the age of their tables.
BEGINNING, END = datetime(1971, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)


class Change(NamedTuple):
    """An instant at which a clock is put forward or back, and what it shows before and after."""

    at: datetime
    before: datetime
    after: datetime

    @property
    def leaps_well(self) -> bool:
        """Whether the leaps of the package, by whole hours and to midnights, get over it."""
        skips_midnight = self.before.hour == 0 or self.before.date() < self.after.date()
        return self.before.minute == self.after.minute == 0 and not (
            self.before < self.after and skips_midnight
        )


def changes(zone: ZoneInfo) -> list[Change]:
    """Return all of them, to the second."""
    found = []
    for day in range((END - BEGINNING).days):
        low = BEGINNING + timedelta(days=day)
        high = low + timedelta(days=1)
        before, after = low.astimezone(zone).utcoffset(), high.astimezone(zone).utcoffset()
        if before == after:
            continue
        assert before is not None
        assert after is not None
        while high - low > timedelta(seconds=1):
            middle = low + timedelta(seconds=(high - low).total_seconds() // 2)
            low, high = (
                (middle, high) if middle.astimezone(zone).utcoffset() == before else (low, middle)
            )
        found.append(Change(high, high + before, high + after))
    return found


def is_day_of(job: CronSim, day: date) -> bool:
    return day.month in job.months and job.match_day(day)


class Oracle:
    """What the package says; or, where that is wrong, what a walk over all minutes finds."""

    def __init__(self, zone: str) -> None:
        self.zone = ZoneInfo(zone)
        self.changes = changes(self.zone)
        self.traps = [change for change in self.changes if not change.leaps_well]
        self.end = datetime(9999, 1, 1, tzinfo=UTC) if zone == "UTC" else END

    def next_tick(self, cron: str, after: datetime) -> datetime | None:
        """Return the next tick, or None if it does not come in time.

        In search of 2:00 the package leaps from 1:00 to 2:30 where the clock is put forward by
        half an hour; it names midnights that do not exist; and where the clock is put back to
        23:01, it leaps to 23:00, before that, and so turns in a circle for ever. None of this
        concerns jobs with fixed times, for which it makes all leaps without regard to the zone.
        """
        job = CronSim(cron, after.astimezone(self.zone))
        if not job.fixup_tz and self.traps:
            tick = self.walk(job, after)
            if tick is None or any(
                after - timedelta(days=1) < trap.at < tick + timedelta(days=1)
                and (is_day_of(job, trap.before.date()) or is_day_of(job, trap.after.date()))
                for trap in self.traps
            ):
                return tick
        return self.ask(job, after)

    def ask(self, job: CronSim, after: datetime) -> datetime | None:
        """Return what the package says."""
        # Of a fixed time that comes twice it names the first instant, even if that has passed.
        tick = next((tick for tick in job if tick.astimezone(UTC) > after), None)
        return tick.astimezone(UTC) if tick and tick.astimezone(UTC) < self.end else None

    def walk(self, job: CronSim, after: datetime) -> datetime | None:
        """Find the first minute of the next two days that the job matches by looking at each."""
        midnight = after.replace(hour=0, minute=0, second=0, microsecond=0)
        for minute in range(3 * 24 * 60):
            tick = midnight + timedelta(minutes=minute)
            if tick > after:
                shown = tick.astimezone(self.zone)
                if (
                    shown.minute in job.minutes
                    and shown.hour in job.hours
                    and is_day_of(job, shown.date())
                ):
                    return tick
        return None


def random_field(rng: random.Random, low: int, high: int, names: list[str]) -> str:
    """Return a field that is valid, and more likely to match often than seldom."""

    def number(least: int, most: int) -> str:
        chosen = rng.randint(least, most)
        if low <= chosen < low + len(names) and rng.random() < 0.3:
            return rng.choice([str.upper, str.lower, str.title])(names[chosen - low])
        return f"{chosen:02}" if rng.random() < 0.05 else str(chosen)

    form = rng.choice(["*", "*", "*", "*/n", "a", "a", "a", "a-b", "a-b/n", "a/n", "list"])
    step = rng.choice([1, 2, 3, 5, 10, 15, rng.randint(1, high + 5)])
    first = rng.randint(low, high - 1)
    match form:
        case "*":
            return "*"
        case "*/n":
            return f"*/{step}"
        case "a":
            return number(low, high)
        case "a-b":
            return f"{number(first, first)}-{number(first, high)}"
        case "a-b/n":
            # Not a-a/n: the package takes it for a/n, while Debian's cron takes it for a.
            return f"{number(first, first)}-{number(first + 1, high)}/{step}"
        case "a/n":
            return f"{number(low, high)}/{step}"
        case _:
            fields = [random_field(rng, low, high, names) for _ in range(rng.randint(2, 3))]
            return ",".join(fields)


MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


def random_cron(rng: random.Random) -> str:
    fields = [
        random_field(rng, 0, 59, []),
        random_field(rng, 0, 23, []),
        random_field(rng, 1, 31, []),
        random_field(rng, 1, 12, MONTHS),
        random_field(rng, 0, 7, WEEKDAYS),
    ]
    if rng.random() < 0.5:  # clocks are put forward and back in the night
        fields[1] = rng.choice(["0", "1", "2", "3", "23", "0-3", "1,2", "*/23", "*/2", "23,0"])
    if rng.random() < 0.5:
        fields[2:] = rng.choice([["*", "*", "*"], [fields[2], "*", "*"], ["*", "*", fields[4]]])
    return " ".join(fields)


def random_instant(rng: random.Random, near: list[Change]) -> datetime:
    if near and rng.random() < 0.8:
        instant = rng.choice(near).at
        if rng.random() < 0.3:
            instant -= timedelta(days=rng.randint(0, 40))
        instant += timedelta(minutes=rng.choice([0, 0, rng.randint(-150, 150)]))
    else:
        instant = BEGINNING + timedelta(minutes=rng.randrange((END - BEGINNING).days * 24 * 60))
    return instant + timedelta(
        microseconds=rng.choice([0, 0, -1, 1, -1_000_000, rng.randrange(60_000_000)])
    )


class Question(NamedTuple):
    """What both are asked, and what the oracle has answered."""

    cron: str
    zone: str
    after: datetime
    expected: datetime


def assert_the_server_agrees(db: Connection, questions: list[Question]) -> None:
    db.execute("set timezone = 'America/St_Johns'")  # which must not matter
    rows = db.execute(
        """
        select next_tick(question.cron, question.zone, question.after) at time zone 'UTC' as tick
          from unnest(%s::text[], %s::text[], %s::timestamptz[])
            with ordinality as question (cron, zone, after, number)
         order by question.number
        """,
        [list(column) for column in zip(*questions, strict=True)][:3],
    ).fetchall()
    ticks = [row.tick.replace(tzinfo=UTC) for row in rows]
    assert [
        (question, tick)
        for question, tick in zip(questions, ticks, strict=True)
        if tick != question.expected
    ] == []


@pytest.mark.parametrize("zone", ZONES)
def test_ticks_are_those_of_the_oracle(db: Connection, zone: str) -> None:
    rng = random.Random(zone)
    oracle = Oracle(zone)
    questions: list[Question] = []
    while len(questions) < 200:
        cron, after = random_cron(rng), random_instant(rng, oracle.changes)
        if accepted_by_cronsim(cron) and (tick := oracle.next_tick(cron, after)):
            questions.append(Question(cron, zone, after, tick))
    assert_the_server_agrees(db, questions)


def test_seldom_ticks_are_those_of_the_oracle(db: Connection) -> None:
    rng = random.Random(0)
    oracle = Oracle("UTC")
    questions: list[Question] = []
    while len(questions) < 400:
        day, month, step = rng.randint(28, 31), rng.randint(1, 12), rng.randint(4, 7)
        cron, after = f"0 0 {day} {month} */{step}", random_instant(rng, [])
        if accepted_by_cronsim(cron) and (tick := oracle.next_tick(cron, after)):
            questions.append(Question(cron, "UTC", after, tick))
    assert_the_server_agrees(db, questions)


def test_of_expressions_with_an_error_the_server_accepts_those_that_the_oracle_accepts(
    db: Connection,
) -> None:
    rng = random.Random(0)
    crons: list[str] = []
    while len(crons) < 1000:
        characters = list(random_cron(rng))
        place = rng.randrange(len(characters))
        characters[place : place + rng.choice([0, 1, 1])] = rng.choice(
            ["", *" **,,--//?+.0123456789SUNJAE\u0663"]
        )
        cron = "".join(characters)
        if len(cron.split()) != 6:  # the first of which would be seconds
            crons.append(cron)

    accepted = [cron for cron in crons if accepted_by_cronsim(cron)]
    assert 100 < len(accepted) < 900
    assert [cron for cron in crons if accepted_by_the_server(db, cron)] == accepted


def accepted_by_the_server(db: Connection, cron: str) -> bool:
    """Say whether there is a next tick, or else JQ001 with a hint."""
    try:
        value(db, "select next_tick(%s, 'UTC', '2024-05-15 00:00+00')", cron)
    except psycopg.DatabaseError as error:
        if error.sqlstate != "JQ001" or not error.diag.message_hint:
            raise
        return False
    return True
