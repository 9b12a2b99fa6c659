"""The handlers: which function runs which type of job, and with which arguments."""

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NotRequired, TypeVar, get_type_hints

import typing_extensions
from pydantic import ConfigDict, TypeAdapter, ValidationError

from worker.context import AsyncContext, Context
from worker.outcomes import Fail

Function = TypeVar("Function", bound=Callable[..., Any])

BUILT_IN = "worker.builtin"


@dataclass(frozen=True)
class Handler:
    """A function and the type of jobs that it runs."""

    job_type: str
    function: Callable[..., Any]
    is_async: bool
    """Whether it runs on the event loop."""
    in_process: bool
    """Whether it runs in a process of its own, which can be killed."""
    _payload: TypeAdapter[dict[str, Any]]
    _context_parameter: str | None

    def arguments(self, payload: str, context: Context | AsyncContext) -> dict[str, Any]:
        """Return the function's arguments. Raise Fail for a payload that does not fit them."""
        try:
            arguments = self._payload.validate_json(payload)
        except ValidationError as error:
            faults = "; ".join(
                ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
                for fault in error.errors(include_url=False, include_input=False)
            )
            raise Fail(f"the payload does not fit {self.job_type}: {faults}") from None
        if self._context_parameter is not None:
            arguments[self._context_parameter] = context
        return arguments


_handlers: dict[str, Handler] = {}


def handler(job_type: str, *, process: bool = False) -> Callable[[Function], Function]:
    """Register the function as what runs jobs of this type.

    The members of the job's payload, which must be an object, are its arguments, validated and
    converted by their annotations as Pydantic does; what it returns is the job's result and must be
    JSON. A parameter annotated Context (of an `async def`, AsyncContext) is given that instead.

    A plain function runs in a thread, an `async def` on the event loop. `process=True` runs a plain
    function in a process of its own, beside other jobs' and killed at the job's timeout, when it is
    cancelled, or when its claim is lost.

    Raises ValueError for a second handler of one type, TypeError for a function that cannot be one.
    """
    if not isinstance(job_type, str):
        raise TypeError('name the type of jobs: @handler("email")')
    if not 1 <= len(job_type) <= 100:
        raise ValueError("the type of a job has from 1 to 100 characters")

    def register(function: Function) -> Function:
        if job_type in _handlers and not _is_same(_handlers[job_type].function, function):
            raise ValueError(f"there is a handler for {job_type} already")
        _handlers[job_type] = _handler(job_type, function, process)
        return function

    return register


def load(modules: Iterable[str]) -> dict[str, Handler]:
    """Import the modules, built-in handlers first, and return all handlers by type."""
    for module in (BUILT_IN, *modules):
        importlib.import_module(module)
    return dict(_handlers)


def _is_same(one: Callable[..., Any], other: Callable[..., Any]) -> bool:
    """Return whether it is one function, perhaps of a module that was imported twice."""
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


def _handler(job_type: str, function: Callable[..., Any], process: bool) -> Handler:
    is_async = inspect.iscoroutinefunction(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{function.__qualname__}: a generator cannot be a handler")
    if process and is_async:
        raise TypeError(f"{function.__qualname__}: an async function cannot be given a process")
    context_type = AsyncContext if is_async else Context
    types = get_type_hints(function, include_extras=True)
    context_parameter = None
    members: dict[str, Any] = {}
    takes_others = False
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = types.get(name, Any)
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            raise TypeError(f"{function.__qualname__}: {name} cannot be given by name")
        if annotation in (Context, AsyncContext):
            if annotation is not context_type or context_parameter is not None:
                raise TypeError(f"{function.__qualname__}: it takes one {context_type.__name__}")
            context_parameter = name
        elif parameter.kind is parameter.VAR_KEYWORD:
            takes_others = True
        elif parameter.default is parameter.empty:
            members[name] = annotation
        else:
            members[name] = NotRequired[annotation]

    payload = _typed_dict(members)
    payload.__pydantic_config__ = ConfigDict(extra="allow" if takes_others else "forbid")
    return Handler(job_type, function, is_async, process, TypeAdapter(payload), context_parameter)


def _typed_dict(members: dict[str, Any]) -> Any:
    return typing_extensions.TypedDict("payload", members)  # type: ignore[operator]
