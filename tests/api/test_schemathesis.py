"""The API against its OpenAPI document: what it promises to accept, refuse and answer.

Requests are made from examples, from the bounds of each schema, at random, and by following links.
The same ones in each run: what they find is for who has changed something.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.engine import events, from_schema
from schemathesis.python import asgi

import tests.api.fuzzing  # noqa: F401 - registers what it tells
from api.main import create_app
from api.settings import Settings

CONFIG = Path(__file__).parent / "schemathesis.toml"
NEED_A_CLAIM = {
    f"POST /jobs/{{job_id}}/{verb}"
    for verb in ("progress", "complete", "fail", "snooze", "release")
}
"""What is done only under a claim, which is not to be guessed: test_claims.py has them."""


@pytest.fixture
def schema(conninfo: str) -> Iterator[Any]:
    """The document of an application that is connected to this test's database.

    Nobody ends jobs here, so nobody waits for one: of half a second, whole ones are none.
    """
    config = schemathesis.Config.from_path(CONFIG)
    app = create_app(Settings(conninfo, max_wait=0.5))
    yield schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    asgi.shutdown_lifespans()


def test_the_api_does_what_its_document_says(schema: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    failures: list[str] = []
    answers: Counter[tuple[str, int]] = Counter()
    phases = set()
    for event in from_schema(schema).execute():
        assert not isinstance(event, events.FatalError), event.exception
        if isinstance(event, events.NonFatalError):
            failures.append(f"{event.label}: {event.value}")
        if isinstance(event, events.ScenarioFinished):
            phases.add(event.phase.value)
            failures += failures_of(event)
            answers += answers_of(event)
    assert not failures, "\n\n".join(failures)
    assert {"examples", "coverage", "fuzzing", "stateful"} <= {phase.lower() for phase in phases}
    asked = {operation for operation, _ in answers}
    never_done = asked - {operation for operation, status in answers if status < 300}
    assert never_done <= NEED_A_CLAIM


def failures_of(event: events.ScenarioFinished) -> Iterator[str]:
    """Describe what was found, with what to send to find it again."""
    for case_id, checks in event.recorder.checks.items():
        for found in filter(None, (check.failure_info for check in checks)):
            response = event.recorder.interactions[case_id].response
            answer = f"{response.status_code} {response.text[:1000]}" if response else "no answer"
            yield f"{event.recorder.label}: {found.failure}\n{found.code_sample}\n{answer}"


def answers_of(event: events.ScenarioFinished) -> Counter[tuple[str, int]]:
    """Count the statuses of each operation."""
    recorder = event.recorder
    return Counter(
        (recorder.cases[case_id].value.operation.label, interaction.response.status_code)
        for case_id, interaction in recorder.interactions.items()
        if interaction.response is not None
    )
