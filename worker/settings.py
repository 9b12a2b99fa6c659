"""The settings of one worker process."""

import ipaddress
import os
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import conninfo_to_dict

from worker.connection import LONGEST_CALL

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class QueueChoice:
    """The queues that a worker serves, and in which order it looks at them."""

    weights: tuple[tuple[str, float | None], ...] = ()
    """Names, each with its weight. None at all: every queue there is."""

    def __str__(self) -> str:
        if not self.weights:
            return "all queues"
        return "the queues " + ", ".join(
            name if weight is None else f"{name}={weight:g}" for name, weight in self.weights
        )

    @property
    def names(self) -> list[str] | None:
        """The names in the order given; None for every queue."""
        return [name for name, _ in self.weights] or None

    def in_order(self) -> list[str] | None:
        """Return the names in the order for one claim; None for every queue.

        Without weights it is the order given. With weights it is random, and of two queues one with
        three times the weight stands first three times as often (Efraimidis and Spirakis 2006).
        """
        if all(weight is None for _, weight in self.weights):
            return self.names
        keys = {name: random.expovariate(weight or 1.0) for name, weight in self.weights}
        return sorted(keys, key=keys.__getitem__)


@dataclass(frozen=True)
class Settings:
    """What the worker reads from its environment, once, at start."""

    conninfo: str = field(repr=False)
    """Where the database is, as libpq reads it. What it leaves out, libpq's PG* variables say."""
    name: str
    """Who this worker is, for people who read the claims."""
    poll_seconds: float
    """Seconds between two looks at an empty queue."""
    lease_seconds: float
    """Seconds after which the queue gives the job of a silent worker to another."""
    grace_seconds: float
    """Seconds a running job is given to finish once the worker has been told to stop."""
    concurrency: int = 10
    """How many jobs run at a time."""
    prefetch: int = 500
    """How many more may be claimed ahead, at most, if they can start soon."""
    queues: QueueChoice = QueueChoice()
    """Which queues to serve."""
    handlers: tuple[str, ...] = ()
    """The modules that register handlers."""
    process_jobs: int = 1000
    """After how many jobs a process that runs handlers is replaced; 0: never."""
    listen: bool = True
    """Whether to be woken by NOTIFY while idle."""
    health_file: str | None = None
    """A file to touch as long as the loop moves, for a health check to look at."""
    http_host: str = "127.0.0.1"
    """The address on which /livez, /readyz and /metrics are served."""
    http_port: int | None = None
    """The port of that; None: they are not served."""
    log_format: str = "text"
    """text or json."""
    log_level: str = "INFO"
    """The least level that is logged."""
    internal_networks: tuple[Network, ...] = ()
    """The networks, though not public, that the http_request handler may reach."""

    @property
    def call_seconds(self) -> float:
        """Seconds that one call of the database may take before it counts as lost."""
        return min(LONGEST_CALL, self.lease_seconds / 2)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the variables that the README lists. Raise ValueError for one that is wrong."""
        read = _Reader(environment)
        port = read.whole("WORKER_HTTP_PORT", default=0, minimum=0, maximum=65_535)
        return cls(
            conninfo=read.conninfo("DATABASE_URL"),
            name=read.text("WORKER_NAME") or f"{socket.gethostname()}:{os.getpid()}",
            poll_seconds=read.seconds("POLL_SECONDS", default=2.0, minimum=0.01),
            lease_seconds=read.seconds("WORKER_LEASE", default=30.0, minimum=3.0),
            grace_seconds=read.seconds("WORKER_GRACE", default=8.0, minimum=0.0),
            concurrency=read.whole("WORKER_CONCURRENCY", default=10, minimum=1, maximum=1000),
            prefetch=read.whole("WORKER_PREFETCH", default=500, minimum=0, maximum=5000),
            queues=read.queues("WORKER_QUEUES"),
            handlers=tuple(read.names("WORKER_HANDLERS")),
            process_jobs=read.whole(
                "WORKER_PROCESS_JOBS", default=1000, minimum=0, maximum=1_000_000_000
            ),
            listen=read.choice("WORKER_LISTEN", "on", "off") == "on",
            health_file=read.text("WORKER_HEALTH_FILE") or None,
            http_host=read.text("WORKER_HTTP_HOST") or "127.0.0.1",
            http_port=port or None,
            log_format=read.choice("WORKER_LOG_FORMAT", "text", "json"),
            log_level=read.choice("WORKER_LOG_LEVEL", "info", "debug", "warning", "error").upper(),
            internal_networks=read.networks("HTTP_REQUEST_ALLOW"),
        )


class _Reader:
    """Reads variables, and says which one is wrong."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, variable: str) -> str:
        return self._environment.get(variable, "").strip()

    def conninfo(self, variable: str) -> str:
        text = self.text(variable).replace("postgresql+psycopg://", "postgresql://", 1)
        try:
            int(conninfo_to_dict(text).get("connect_timeout") or 0)
        except (psycopg.ProgrammingError, ValueError):  # which may show the password
            raise ValueError(f"{variable} is no connection string as libpq reads it") from None
        return text

    def names(self, variable: str) -> list[str]:
        return [name.strip() for name in self.text(variable).split(",") if name.strip()]

    def choice(self, variable: str, default: str, *others: str) -> str:
        text = self.text(variable) or default
        if text.lower() not in (default, *others):
            raise ValueError(f"{variable} must be {', '.join(others)} or {default}, not {text!r}")
        return text.lower()

    def seconds(self, variable: str, default: float, minimum: float) -> float:
        text = self._environment.get(variable, "")
        try:
            seconds = float(text) if text else default
        except ValueError:
            seconds = float("nan")
        if not minimum <= seconds <= 86_400:
            raise ValueError(f"{variable} must be a number from {minimum:g} to 86400, not {text!r}")
        return seconds

    def whole(self, variable: str, default: int, minimum: int, maximum: int) -> int:
        text = self.text(variable)
        try:
            number = int(text) if text else default
        except ValueError:
            number = minimum - 1
        if not minimum <= number <= maximum:
            raise ValueError(
                f"{variable} must be a whole number from {minimum} to {maximum}, not {text!r}"
            )
        return number

    def queues(self, variable: str) -> QueueChoice:
        weights: dict[str, float | None] = {}
        for item in self.names(variable):
            name, equals, text = item.rpartition("=")
            if not equals:
                name, text = item, "1"
            try:
                weight = float(text)
            except ValueError:
                weight = float("nan")
            if not (1 <= len(name) <= 100 and 0 < weight <= 1000):
                raise ValueError(
                    f"{variable} must be names of queues of up to 100 characters, each with a"
                    " weight above 0 and up to 1000 or with none, such as mail=3,default=1;"
                    f" not {item!r}"
                )
            weights[name] = weight if equals else None
        return QueueChoice(tuple(weights.items()))

    def networks(self, variable: str) -> tuple[Network, ...]:
        try:
            return tuple(ipaddress.ip_network(name) for name in self.names(variable))
        except ValueError as error:
            raise ValueError(f"{variable} must be networks such as 10.0.0.0/8: {error}") from None
