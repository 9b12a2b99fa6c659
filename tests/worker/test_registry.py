"""Which functions can be handlers, and which arguments they are given."""

import logging
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from worker import AsyncContext, Context, Fail, handler, main, registry
from worker.registry import Handler
from worker.run import outcome_of

CONTEXT: Any = object()
"""What a handler is given as its context: the registry only passes it on."""


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> dict[str, Handler]:
    """Begin each test without handlers, and forget its own."""
    handlers: dict[str, Handler] = {}
    monkeypatch.setattr(registry, "_handlers", handlers)
    return handlers


def arguments(function: Callable[..., Any], payload: str) -> dict[str, Any]:
    """Return the arguments that a payload gives the function, as the handler of a type."""
    handler("type")(function)
    return registry._handlers["type"].arguments(payload, CONTEXT)


def refusal(function: Callable[..., Any], payload: str) -> str:
    """Return the error with which the payload is refused, for good."""
    with pytest.raises(Fail, match=r"\Athe payload does not fit type: ") as raised:
        arguments(function, payload)
    outcome = outcome_of(raised.value)
    assert outcome is not None
    assert (outcome.verb, outcome.retryable) == ("fail", False)
    assert raised.value.__suppress_context__
    return outcome.text.removeprefix("the payload does not fit type: ")


# Registration


def test_a_handler_is_the_function_as_it_was(registered: dict[str, Handler]) -> None:
    @handler("email")
    def send(to: str) -> str:
        return f"sent to {to}"

    assert send("ann") == "sent to ann"
    assert registered["email"].function is send
    assert (registered["email"].is_async, registered["email"].in_process) == (False, False)


def test_an_async_def_runs_on_the_event_loop(registered: dict[str, Handler]) -> None:
    @handler("email")
    async def send() -> None: ...

    assert (registered["email"].is_async, registered["email"].in_process) == (True, False)


def test_a_handler_may_ask_for_a_process(registered: dict[str, Handler]) -> None:
    @handler("email", process=True)
    def send() -> None: ...

    assert (registered["email"].is_async, registered["email"].in_process) == (False, True)


def test_an_async_def_cannot_have_a_process(registered: dict[str, Handler]) -> None:
    with pytest.raises(TypeError, match="send: an async function cannot be given a process"):

        @handler("email", process=True)
        async def send() -> None: ...

    assert not registered


def test_one_function_may_run_several_types(registered: dict[str, Handler]) -> None:
    @handler("email")
    @handler("letter")
    def send() -> None: ...

    assert sorted(registered) == ["email", "letter"]


def test_a_second_handler_of_a_type_is_refused(registered: dict[str, Handler]) -> None:
    @handler("email")
    def send() -> None: ...

    with pytest.raises(ValueError, match="there is a handler for email already"):

        @handler("email")
        def send_again() -> None: ...

    assert registered["email"].function is send


def test_the_same_function_of_a_module_imported_twice_is_no_second_handler(
    registered: dict[str, Handler],
) -> None:
    def define() -> Callable[[], None]:
        @handler("email")
        def send() -> None: ...

        return send

    define()
    latest = define()
    assert registered["email"].function is latest


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_a_name_that_no_type_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="from 1 to 100 characters"):
        handler(name)


def test_the_longest_name_is_not(registered: dict[str, Handler]) -> None:
    @handler("x" * 100)
    def send() -> None: ...

    assert list(registered) == ["x" * 100]


def test_a_decorator_without_a_name_is_refused() -> None:
    def send() -> None: ...

    with pytest.raises(TypeError, match=r'@handler\("email"\)'):
        handler(send)  # type: ignore[arg-type]


def positional_only(to: str, /) -> None: ...
def several(*to: str) -> None: ...


@pytest.mark.parametrize("function", [positional_only, several])
def test_a_parameter_that_cannot_be_given_by_name_is_refused(
    function: Callable[..., Any], registered: dict[str, Handler]
) -> None:
    with pytest.raises(TypeError, match=f"{function.__name__}: to cannot be given by name"):
        handler("email")(function)
    assert not registered


# The context


def test_a_parameter_annotated_context_is_given_the_context() -> None:
    def send(to: str, job: Context) -> None: ...

    assert arguments(send, '{"to": "ann"}') == {"to": "ann", "job": CONTEXT}


def test_an_async_def_is_given_an_async_context() -> None:
    async def send(job: AsyncContext, to: str) -> None: ...

    assert arguments(send, '{"to": "ann"}') == {"to": "ann", "job": CONTEXT}


def test_the_name_context_alone_makes_no_context() -> None:
    def send(context: str) -> None: ...

    assert arguments(send, '{"context": "ann"}') == {"context": "ann"}


def async_in_plain(job: AsyncContext) -> None: ...
async def plain_in_async(job: Context) -> None: ...
def two(one: Context, other: Context) -> None: ...


@pytest.mark.parametrize(
    ("function", "kind"),
    [(async_in_plain, "Context"), (plain_in_async, "AsyncContext"), (two, "Context")],
)
def test_a_context_of_the_wrong_kind_or_a_second_one_is_refused(
    function: Callable[..., Any], kind: str
) -> None:
    with pytest.raises(TypeError, match=f"{function.__name__}: it takes one {kind}"):
        handler("email")(function)


@pytest.mark.parametrize("members", ['{"job": 1}', '{"job": null}'])
def test_a_payload_cannot_stand_in_for_the_context(members: str) -> None:
    def send(job: Context) -> None: ...

    assert "job: Extra inputs are not permitted" in refusal(send, members)

    def send_all(job: Context, **others: Any) -> None: ...

    registry._handlers.clear()
    assert arguments(send_all, members) == {"job": CONTEXT}


# The payload


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


class Order(BaseModel):
    number: int
    lines: list[Point] = []


@pytest.mark.parametrize(
    ("annotation", "member", "expected"),
    [
        (str, '"a"', "a"),
        (int, "1", 1),
        (int, '"1"', 1),  # what stands in quotes is converted, as Pydantic does
        (float, "1", 1.0),
        (bool, "true", True),
        (Decimal, '"1.10"', Decimal("1.10")),
        (date, '"2026-02-28"', date(2026, 2, 28)),
        (datetime, '"2026-02-28T12:00:00Z"', datetime(2026, 2, 28, 12, tzinfo=UTC)),
        (timedelta, '"PT1M"', timedelta(minutes=1)),
        (UUID, f'"{uuid.UUID(int=1)}"', uuid.UUID(int=1)),
        (Path, '"/tmp"', Path("/tmp")),
        (Colour, '"red"', Colour.RED),
        (Literal["a", "b"], '"b"', "b"),
        (Point, '{"x": 1}', Point(1)),
        (Order, '{"number": 1, "lines": [{"x": 2}]}', Order(number=1, lines=[Point(2)])),
        (list[int], "[1, 2]", [1, 2]),
        (set[int], "[1, 1]", {1}),
        (dict[str, list[int]], '{"a": [1]}', {"a": [1]}),
        (int | None, "null", None),
        (int | str, '"a"', "a"),
        (Annotated[int, Field(gt=0)], "1", 1),
        (Any, '{"a": [null]}', {"a": [None]}),
        (object, "[]", []),
    ],
)
def test_a_member_becomes_what_the_annotation_says(
    annotation: Any, member: str, expected: object
) -> None:
    def send(value: Any) -> None: ...

    send.__annotations__["value"] = annotation
    given = arguments(send, f'{{"value": {member}}}')["value"]
    assert given == expected
    assert type(given) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "member", "fault"),
    [
        (str, "1", "value: Input should be a valid string"),
        (int, '"a"', "value: Input should be a valid integer"),
        (int, "1.5", "value: Input should be a valid integer"),
        (int, "null", "value: Input should be a valid integer"),
        (date, '"2026-02-30"', "value: Input should be a valid date"),
        (Colour, '"blue"', "value: Input should be 'red'"),
        (Point, '{"y": 1}', "value.x: Field required"),
        (list[int], '[1, "a"]', "value.1: Input should be a valid integer"),
        (Annotated[int, Field(gt=0)], "0", "value: Input should be greater than 0"),
    ],
)
def test_a_member_that_does_not_fit_fails_the_job_for_good_and_is_named(
    annotation: Any, member: str, fault: str
) -> None:
    def send(value: Any) -> None: ...

    send.__annotations__["value"] = annotation
    assert fault in refusal(send, f'{{"value": {member}}}')


def test_every_fault_of_a_payload_is_told() -> None:
    def send(to: str, size: int) -> None: ...

    assert refusal(send, '{"size": "big", "more": 1}') == (
        "to: Field required; size: Input should be a valid integer, unable to parse string as an"
        " integer; more: Extra inputs are not permitted"
    )


def test_a_refusal_does_not_show_the_payload() -> None:
    def send(card: int, owner: Point) -> None: ...

    secret = '{"card": "4000-1234", "owner": {"x": "4000-1234"}}'
    assert "4000" not in refusal(send, secret)


def test_a_refusal_of_a_payload_with_many_faults_is_no_longer_than_an_error_may_be() -> None:
    def send(sizes: list[int]) -> None: ...

    assert len(refusal(send, '{"sizes": [' + ", ".join(['"x"'] * 10_000) + "]}")) <= 10_000


def test_a_parameter_with_a_default_may_be_left_out_and_keeps_it() -> None:
    def send(to: str, size: int = 3, at: date | None = None, *, tags: Any = ()) -> Any:
        return to, size, at, tags

    assert arguments(send, '{"to": "ann"}') == {"to": "ann"}
    assert send(**arguments(send, '{"to": "ann", "size": "4"}')) == ("ann", 4, None, ())


def test_a_parameter_without_a_default_must_be_there_even_if_it_may_be_null() -> None:
    def send(to: str | None) -> None: ...

    assert refusal(send, "{}") == "to: Field required"


def test_a_parameter_without_an_annotation_is_given_what_came() -> None:
    def send(to): ...  # type: ignore[no-untyped-def]

    assert arguments(send, '{"to": [1, "a"]}') == {"to": [1, "a"]}


def test_a_handler_that_takes_any_name_is_given_the_members_it_does_not_name() -> None:
    def send(to: int, **others: Any) -> None: ...

    assert arguments(send, '{"to": "1", "size": "1"}') == {"to": 1, "size": "1"}


def test_a_member_that_no_parameter_takes_is_refused() -> None:
    def send(to: str) -> None: ...

    assert refusal(send, '{"to": "ann", "form": 1}') == "form: Extra inputs are not permitted"


def test_a_handler_without_parameters_takes_an_empty_object() -> None:
    def send() -> None: ...

    assert arguments(send, "{}") == {}
    assert refusal(send, '{"to": "ann"}') == "to: Extra inputs are not permitted"


@pytest.mark.parametrize("payload", ["null", "[]", "1", '"text"', "true", '[["to", "ann"]]'])
def test_a_payload_that_is_no_object_is_refused(payload: str) -> None:
    def nothing() -> None: ...
    def anything(**_: Any) -> None: ...

    for function in (nothing, anything):
        registry._handlers.clear()
        assert refusal(function, payload) == "Input should be an object"


@pytest.mark.parametrize(
    "name", ["self", "cls", "_to", "__to", "model_config", "copy", "items", "é"]
)
def test_a_parameter_may_have_any_name(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def send({name}: int): pass", namespace)
    assert arguments(namespace["send"], f'{{"{name}": "1"}}') == {name: 1}


def test_a_decorated_function_has_the_parameters_of_the_one_inside() -> None:
    def send(to: int) -> None: ...

    @wraps(send)
    def timed(*arguments: Any, **named: Any) -> None: ...

    assert arguments(timed, '{"to": "1"}') == {"to": 1}


# WORKER_HANDLERS


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Write modules that can be imported during this test."""
    monkeypatch.syspath_prepend(tmp_path)
    names: list[str] = []

    def write(name: str, text: str) -> None:
        (tmp_path / f"{name}.py").write_text(text)
        names.append(name)

    yield write
    for name in names:
        sys.modules.pop(name, None)


def module_of(job_type: str) -> str:
    """Return the text of a module with a handler."""
    return f"from worker import handler\n\n@handler({job_type!r})\ndef run(): pass\n"


@pytest.fixture
def without_built_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the built-in handlers registered anew, as in a new process."""
    monkeypatch.delitem(sys.modules, registry.BUILT_IN, raising=False)


@pytest.mark.usefixtures("without_built_ins")
def test_the_handlers_of_all_modules_are_loaded_and_the_built_in_ones(
    write_module: Callable[..., None],
) -> None:
    write_module("handlers_one", module_of("one"))
    write_module("handlers_two", module_of("two"))
    handlers = registry.load(["handlers_one", "handlers_two"])
    assert sorted(handlers) == ["http_request", "one", "sleep", "two"]


@pytest.mark.usefixtures("without_built_ins")
def test_without_modules_there_are_the_built_in_handlers() -> None:
    assert sorted(registry.load([])) == ["http_request", "sleep"]


def run_main(monkeypatch: pytest.MonkeyPatch, handlers: str) -> int:
    """Run the worker up to where it has loaded its handlers; return its exit status."""
    monkeypatch.setenv("WORKER_HANDLERS", handlers)

    def too_late(*_: Any) -> None:
        raise AssertionError("the worker started all the same")

    monkeypatch.setattr(main, "Worker", too_late)
    # Like a new process: no logs but these.
    monkeypatch.setattr("worker.logs.configure", lambda _: None)
    return main.main()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "No module named 'handlers_bad'"),
        ("raise RuntimeError('no licence')", "no licence"),
        ("def f(:", "invalid syntax"),
        ("raise SystemExit(0)", "SystemExit"),
        (module_of("sleep"), "there is a handler for sleep already"),
        (
            "from worker import handler\n\n@handler('x')\ndef run(*to): pass\n",
            "run: to cannot be given by name",
        ),
        (
            "from worker import handler\n\n@handler('x')\ndef run(to: 'Nobody'): pass\n",
            "name 'Nobody' is not defined",
        ),
    ],
)
@pytest.mark.usefixtures("without_built_ins")
def test_a_module_that_cannot_be_loaded_ends_the_worker_with_2_and_the_reason(
    write_module: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str | None,
    reason: str,
) -> None:
    write_module("handlers_good", module_of("good"))
    if text is not None:
        write_module("handlers_bad", text)
    assert run_main(monkeypatch, "handlers_good,handlers_bad") == main.WRONG_SETTING
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage() == "WORKER_HANDLERS: handlers_good, handlers_bad cannot be loaded"
    assert reason in caplog.text


def test_a_wrong_setting_ends_the_worker_with_2_and_the_name_of_the_variable(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WORKER_LEASE", "long")
    assert run_main(monkeypatch, "") == main.WRONG_SETTING
    assert "WORKER_LEASE must be a number from 3 to 86400, not 'long'" in caplog.text
