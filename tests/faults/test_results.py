"""What faults cost is computed as results.py says."""

import json
import random
from pathlib import Path
from xml.etree import ElementTree

import psycopg
import pytest

from tests.faults.history import Fault
from tests.faults.load import KINDS, a_job, arguments, outcome_of
from tests.faults.page import page
from tests.faults.results import Injected, Result, recovery_time, save, table
from tests.faults.scenarios import SCENARIOS


def every(step: float, begin: float, end: float) -> list[float]:
    return [begin + number * step for number in range(round((end - begin) / step))]


def test_recovery_is_the_time_until_throughput_is_back() -> None:
    times = every(0.1, 0, 10) + every(0.1, 15, 25)
    assert recovery_time(times, 10, 10, 25) == pytest.approx(4.8, abs=0.11)  # 90 % of a window
    assert recovery_time(times, 12, 10, 25) == pytest.approx(2.8, abs=0.11)
    assert recovery_time(times, 5, 10, 25) == 0


def test_what_stays_below_nine_tenths_has_not_recovered() -> None:
    assert recovery_time(every(0.1, 0, 10) + every(0.12, 10, 20), 10, 10, 20) is None
    assert recovery_time(every(0.1, 0, 10) + every(0.105, 10, 20), 10, 10, 20) == 0


def test_a_result_tells_throughput_before_standstill_and_loss() -> None:
    result = Result("s", 1, 5, injected=[Injected("a", 10, 14)])
    times = every(0.1, 100, 110) + every(0.1, 115, 120)
    result.measure([*times, 130.0], begin=100, measured=102, end=120)
    assert result.runs == 150
    assert result.before == pytest.approx(10, rel=0.02)
    assert result.standstill == pytest.approx(5, abs=0.11)
    assert result.throughput_lost == pytest.approx(0.5, abs=0.02)
    assert result.recovery == pytest.approx(0.8, abs=0.11)
    assert result.a_second[9:16] == [10, 0, 0, 0, 0, 0, 10]


def test_the_worst_recovery_counts_and_one_that_never_came_is_none() -> None:
    times = every(0.1, 0, 10) + every(0.1, 12, 20)
    result = Result("s", 1, 5, injected=[Injected("a", 5, 5), Injected("b", 10, 10)])
    result.measure(times, begin=0, measured=0, end=20)
    assert result.recovery == pytest.approx(1.8, abs=0.11)
    result.injected.append(Injected("c", 19, 19))
    result.measure(times, begin=0, measured=0, end=20)
    assert result.recovery is None
    assert [fault.recovery for fault in result.injected] == [
        0,
        pytest.approx(1.8, abs=0.11),
        None,
    ]


def test_what_is_wrong_is_in_the_table_and_what_is_allowed_is_told_beside(tmp_path: Path) -> None:
    bad, allowed, stuck = (Result(name, 1, 5) for name in ("bad", "may-lose", "stuck"))
    bad.judge([Fault("lost", "a"), Fault("stale", "b"), Fault("doubled", "c"), Fault("unique", "")])
    allowed.judge([Fault("lost", "a"), Fault("unclaimed", "b")], may_lose=True)
    stuck.judge([Fault("lost", "a"), Fault("unended", "b")], may_lose=True)
    assert [one.is_good for one in (bad, allowed, stuck)] == [False, True, False]
    rows = [line.split(" | ") for line in table([bad, allowed, stuck]).splitlines()]
    assert rows[2][3:6] == ["1", "2", "1"]
    assert rows[3][3:6] == ["0 (2 missing, as may be)", "0", "0"]
    assert rows[4][3:6] == ["1 (1 missing, as may be)", "0", "0"]
    save(tmp_path / "results" / "of.json", [bad, allowed])
    [first, _] = json.loads((tmp_path / "results" / "of.json").read_text())
    assert first["wrong"] == {"lost": 1, "stale": 1, "doubled": 1, "unique": 1}


def test_the_page_shows_each_second_each_fault_and_what_was_found() -> None:
    killed = Injected("kill -9 & go", 2, 4)
    result = Result("kill <it>", 1, 5, summary="Kill it.", injected=[killed])
    result.measure([0.5, 1.5, 4.5, 4.6], begin=0, measured=0, end=6)
    result.judge([Fault("lost", "job <a>")])
    root = ElementTree.fromstring(page([result]))
    drawn = [(one.get("class"), float(one.get("width", 0))) for one in root.iter("rect")]
    assert [name for name, _ in drawn] == ["fault"] + ["run"] * 7
    wide = drawn[1][1] / 0.8
    assert drawn[0][1] == pytest.approx(2 * wide, rel=0.01)
    heights = [float(one.get("height", 0)) for one in root.iter("rect")][1:]
    assert heights == pytest.approx([heights[4] * part for part in (0.5, 0.5, 0, 0, 1, 0, 0)])
    assert heights[4] > 0
    text = "".join(root.itertext())
    for expected in ("kill <it>", "Kill it.", "kill -9 & go", "lost: job <a>", "1 lost"):
        assert expected in text
    assert "nothing lost" not in text


def test_a_page_of_a_good_run_says_so() -> None:
    result = Result("s", 1, 5)
    result.judge([])
    result.measure([], begin=0, measured=0, end=0)
    assert "nothing lost" in page([result])


def test_what_a_client_knows_after_an_error() -> None:
    assert outcome_of(psycopg.OperationalError("server closed the connection")) == "unknown"
    assert outcome_of(psycopg.errors.AdminShutdown()) == "unknown"
    assert outcome_of(psycopg.errors.DiskFull()) == "refused"
    assert outcome_of(TimeoutError()) == "unknown"


def test_a_seed_makes_all_kinds_of_jobs_and_the_same_again() -> None:
    def jobs() -> list[dict[str, object]]:
        chance = random.Random(7)
        return [a_job(chance, f"r{number}", ["p"]) for number in range(2000)]

    assert jobs() == jobs()
    assert {job["job_type"] for job in jobs()} <= KINDS.keys()
    for member in ("depends_on", "unique_key", "concurrency_key", "delay_seconds", "max_attempts"):
        assert any(member in job for job in jobs())


def test_a_job_of_rest_is_one_of_sql() -> None:
    job = {"job_type": "flaky", "retry_delay_seconds": 0.2, "max_attempts": 3}
    assert arguments(job) == {"job_type": "flaky", "retry_delay": "0.2 seconds", "max_attempts": 3}


def test_each_scenario_says_what_it_does() -> None:
    assert all(one.summary.endswith(".") or len(one.summary) > 30 for one in SCENARIOS.values())
    assert any(one.is_short for one in SCENARIOS.values())
