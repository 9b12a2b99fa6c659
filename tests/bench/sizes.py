"""How much of everything is done."""

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """Each of these is an option of the command."""

    rounds: int = 5
    """Rounds of what is compared, in turns."""
    calls: int = 2000
    """Calls a round of what is done one by one."""
    bulk: int = 40_000
    """Jobs a round of what is done by many at a time."""
    batch: int = 1000
    """Jobs in a call of enqueue_jobs."""
    drain: int = 60_000
    """Jobs that the workers drain."""
    samples: int = 300
    """Jobs whose pick-up is timed."""
    idle_seconds: float = 0.1
    """Seconds between two of them, at most."""
    seconds: float = 4.0
    """How long the API is asked in one go."""
    connections: tuple[int, ...] = (1, 16, 64)
    """Over how many connections."""
    queued: tuple[int, ...] = (10_000, 1_000_000, 5_000_000)
    """Queued jobs beside which a claim is measured."""
    finished: int = 10_000_000
    """Finished jobs beside which it is, with the fewest of the queued."""
    front: int = 1_000_000
    """Jobs that may not be taken in front of those that may."""
    expired: int = 1_000_000
    """Finished jobs that have expired."""
    passed: int = 500_000
    """Jobs that pass through while an old snapshot is held."""
    steps: int = 10
    """In how many steps."""
    probes: int = 300
    """Claims by which the cost of one is judged."""
    life: int = 20_000
    """Jobs by which the bytes of one are judged."""
    payloads: tuple[int, ...] = (100, 10_000, 1_000_000)
    """The sizes of their payloads, in bytes."""
    million: int = 1_000_000
    """Jobs that go through API and worker while their memory is watched."""


TINY = Sizes(
    rounds=1,
    calls=5,
    bulk=40,
    batch=20,
    drain=40,
    samples=4,
    idle_seconds=0.02,
    seconds=0.2,
    connections=(1,),
    queued=(150, 300),
    finished=200,
    front=300,
    expired=5000,
    passed=40,
    steps=2,
    probes=3,
    life=20,
    payloads=(100,),
    million=200,
)
"""Enough to see that everything works, in seconds."""


def parse(sizes: Sizes, given: dict[str, str | None]) -> Sizes:
    """Return the sizes with those that were given as text."""
    changed: dict[str, Any] = {}
    for field in fields(Sizes):
        text = given.get(field.name)
        if text is None:
            continue
        default = getattr(sizes, field.name)
        if isinstance(default, tuple):
            changed[field.name] = tuple(int(one) for one in text.split(","))
        else:
            changed[field.name] = type(default)(text)
    return replace(sizes, **changed)
