"""What the worker reads from its environment, and how it refuses what is wrong there."""

import ipaddress
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from worker.settings import QueueChoice, Settings


def read(**environment: str) -> Settings:
    """Return the settings of an environment that holds these variables alone."""
    return Settings.from_environment(environment)


DEFAULTS: Mapping[str, Any] = {
    "conninfo": "",
    "poll_seconds": 2.0,
    "lease_seconds": 30.0,
    "grace_seconds": 8.0,
    "concurrency": 10,
    "prefetch": 500,
    "queues": QueueChoice(),
    "handlers": (),
    "process_jobs": 1000,
    "listen": True,
    "health_file": None,
    "http_host": "127.0.0.1",
    "http_port": None,
    "log_format": "text",
    "log_level": "INFO",
    "internal_networks": (),
}


@pytest.mark.parametrize("setting", DEFAULTS)
def test_a_setting_that_is_not_set_has_its_default(setting: str) -> None:
    assert getattr(read(), setting) == DEFAULTS[setting]


GIVEN = [
    ("DATABASE_URL", "postgresql://u@h:1/d", "conninfo", "postgresql://u@h:1/d"),
    ("DATABASE_URL", "postgresql+psycopg://u@h/d", "conninfo", "postgresql://u@h/d"),
    ("DATABASE_URL", "host=h dbname=d", "conninfo", "host=h dbname=d"),
    ("WORKER_NAME", "ann", "name", "ann"),
    ("POLL_SECONDS", "0.5", "poll_seconds", 0.5),
    ("WORKER_LEASE", "3", "lease_seconds", 3.0),
    ("WORKER_LEASE", "86400", "lease_seconds", 86_400.0),
    ("WORKER_GRACE", "0", "grace_seconds", 0.0),
    ("WORKER_CONCURRENCY", "1", "concurrency", 1),
    ("WORKER_CONCURRENCY", "1000", "concurrency", 1000),
    ("WORKER_PREFETCH", "0", "prefetch", 0),
    ("WORKER_PREFETCH", "5000", "prefetch", 5000),
    ("WORKER_HANDLERS", "one, two.three,", "handlers", ("one", "two.three")),
    ("WORKER_PROCESS_JOBS", "0", "process_jobs", 0),
    ("WORKER_LISTEN", "off", "listen", False),
    ("WORKER_LISTEN", "ON", "listen", True),
    ("WORKER_HEALTH_FILE", "/run/health", "health_file", "/run/health"),
    ("WORKER_HTTP_HOST", "0.0.0.0", "http_host", "0.0.0.0"),
    ("WORKER_HTTP_PORT", "65535", "http_port", 65_535),
    ("WORKER_HTTP_PORT", "0", "http_port", None),
    ("WORKER_LOG_FORMAT", "json", "log_format", "json"),
    ("WORKER_LOG_LEVEL", "debug", "log_level", "DEBUG"),
    (
        "HTTP_REQUEST_ALLOW",
        "10.0.0.0/8, ::1/128",
        "internal_networks",
        (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128")),
    ),
]


@pytest.mark.parametrize(("variable", "text", "setting", "expected"), GIVEN)
def test_a_variable_sets_its_setting(
    variable: str, text: str, setting: str, expected: object
) -> None:
    assert getattr(read(**{variable: text}), setting) == expected


@pytest.mark.parametrize("variable", sorted({variable for variable, *_ in GIVEN} - {"WORKER_NAME"}))
def test_a_variable_that_is_empty_counts_as_not_set(variable: str) -> None:
    unset, empty = read(WORKER_NAME="ann"), read(WORKER_NAME="ann", **{variable: ""})
    assert unset == empty


def test_each_setting_can_be_set_by_a_variable() -> None:
    assert {setting for *_, setting, _ in GIVEN} | {"queues"} == DEFAULTS.keys() | {"name"}
    assert Settings.__dataclass_fields__.keys() == DEFAULTS.keys() | {"name"}


def test_a_worker_without_a_name_is_named_after_its_host_and_process() -> None:
    host, colon, process = read().name.rpartition(":")
    assert host
    assert colon
    assert process.isdecimal()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DATABASE_URL", "postgresql://h/d?no_such_parameter=1"),
        ("DATABASE_URL", "postgres:/h/d"),
        ("DATABASE_URL", "postgresql://h/d?connect_timeout=soon"),
        ("POLL_SECONDS", "0"),
        ("POLL_SECONDS", "0.009"),
        ("POLL_SECONDS", "-1"),
        ("POLL_SECONDS", "nan"),
        ("POLL_SECONDS", "inf"),
        ("POLL_SECONDS", "86401"),
        ("POLL_SECONDS", "2s"),
        ("WORKER_LEASE", "2.9"),
        ("WORKER_LEASE", "86401"),
        ("WORKER_LEASE", "30 seconds"),
        ("WORKER_GRACE", "-0.1"),
        ("WORKER_GRACE", "86401"),
        ("WORKER_GRACE", "nan"),
        ("WORKER_CONCURRENCY", "0"),
        ("WORKER_CONCURRENCY", "1001"),
        ("WORKER_CONCURRENCY", "1.5"),
        ("WORKER_PREFETCH", "-1"),
        ("WORKER_PREFETCH", "5001"),
        ("WORKER_PREFETCH", "many"),
        ("WORKER_QUEUES", "mail="),
        ("WORKER_QUEUES", "=3"),
        ("WORKER_QUEUES", "mail=0"),
        ("WORKER_QUEUES", "mail=-1"),
        ("WORKER_QUEUES", "mail=1001"),
        ("WORKER_QUEUES", "mail=nan"),
        ("WORKER_QUEUES", "mail=much"),
        ("WORKER_QUEUES", "x" * 101),
        ("WORKER_PROCESS_JOBS", "-1"),
        ("WORKER_PROCESS_JOBS", "1000000001"),
        ("WORKER_PROCESS_JOBS", "x"),
        ("WORKER_LISTEN", "yes"),
        ("WORKER_HTTP_PORT", "65536"),
        ("WORKER_HTTP_PORT", "-1"),
        ("WORKER_HTTP_PORT", "http"),
        ("WORKER_LOG_FORMAT", "xml"),
        ("WORKER_LOG_LEVEL", "loud"),
        ("HTTP_REQUEST_ALLOW", "10.0.0.1/8"),
        ("HTTP_REQUEST_ALLOW", "10.0.0.0/33"),
        ("HTTP_REQUEST_ALLOW", "localhost"),
        ("HTTP_REQUEST_ALLOW", "*"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_variable(variable: str, text: str) -> None:
    with pytest.raises(ValueError, match=rf"\A{variable} ") as raised:
        read(**{variable: text})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres:/user:hush@h/d",  # libpq quotes it
        "postgresql://user:hush@h/d?hush=1",
        "host=h password=hush connect_timeout=hush",
        "hush",
    ],
)
def test_a_bad_database_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match="DATABASE_URL") as raised:
        read(DATABASE_URL=url)
    assert "hush" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_the_settings_do_not_show_the_password() -> None:
    settings = read(DATABASE_URL="postgresql://user:hush@h/d")
    assert "hush" in settings.conninfo
    assert "hush" not in repr(settings)


@pytest.mark.parametrize("lease", [3.0, 10.0, 30.0, 86_400.0])
def test_a_call_of_the_database_gives_up_well_before_the_lease_runs_out(lease: float) -> None:
    assert 0 < read(WORKER_LEASE=str(lease)).call_seconds <= lease / 2


# WORKER_QUEUES


def test_no_queues_are_all_queues() -> None:
    queues = read().queues
    assert (queues.names, queues.in_order(), str(queues)) == (None, None, "all queues")


def test_queues_without_weights_are_looked_at_in_the_order_given() -> None:
    queues = read(WORKER_QUEUES="c, a,b,").queues
    assert queues.names == ["c", "a", "b"]
    assert [queues.in_order() for _ in range(50)] == [["c", "a", "b"]] * 50
    assert str(queues) == "the queues c, a, b"


def test_the_name_of_a_queue_may_hold_an_equals_sign_if_it_has_a_weight() -> None:
    assert read(WORKER_QUEUES="a=b=2").queues.weights == (("a=b", 2.0),)


def test_a_queue_without_a_weight_beside_one_that_has_one_has_the_weight_1() -> None:
    queues = read(WORKER_QUEUES="mail=3,default").queues
    assert queues.weights == (("mail", 3.0), ("default", None))
    assert str(queues) == "the queues mail=3, default"
    firsts = first_places(queues, 20_000)
    assert firsts["mail"] / 20_000 == pytest.approx(3 / 4, abs=0.02)


def first_places(queues: QueueChoice, claims: int) -> Counter[str]:
    """Count how often each queue is looked at first."""
    random.seed(1)
    return Counter((queues.in_order() or [""])[0] for _ in range(claims))


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-6])
def test_each_queue_stands_first_as_often_as_its_weight_says(scale: float) -> None:
    weights = {"a": 6.0, "b": 3.0, "c": 1.0}
    queues = QueueChoice(tuple((name, weight * scale) for name, weight in weights.items()))
    firsts = first_places(queues, 20_000)
    for name, weight in weights.items():
        assert firsts[name] / 20_000 == pytest.approx(weight / 10, abs=0.02), name


def test_each_claim_looks_at_every_queue_once() -> None:
    queues = QueueChoice((("a", 1000.0), ("b", 0.001), ("c", None)))
    random.seed(1)
    for _ in range(1000):
        assert sorted(queues.in_order() or []) == ["a", "b", "c"]
