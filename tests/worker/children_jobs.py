"""Handlers that run in processes and treat them badly."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from worker import Context, Fail, handler


@handler("child_echo", process=True)
def echo(context: Context, value: Any = None) -> dict[str, Any]:
    """Return what came, and which process it came to."""
    return {"value": value, "pid": os.getpid(), "attempt": context.job.attempt}


@handler("child_say", process=True)
def say(what: str) -> None:
    """Log it."""
    logging.getLogger(__name__).info("%s", what)


@handler("child_raise", process=True)
def raise_(kind: str) -> NoReturn:
    """End with an exception."""
    raise {"error": ValueError("no such thing"), "fail": Fail("never"), "exit": SystemExit(3)}[kind]


@handler("child_return", process=True)
def return_(kind: str) -> Any:
    """Return what is no JSON."""
    return {"object": object(), "lambda": lambda: None, "lock": threading.Lock()}[kind]


@handler("child_exit", process=True)
def exit_(status: int) -> NoReturn:
    """End the process."""
    os._exit(status)


@handler("child_kill", process=True)
def kill(number: int) -> None:
    """Send the process a signal."""
    os.kill(os.getpid(), number)
    threading.Event().wait()


@handler("child_wait", process=True)
def wait(ready: str, kind: str = "wait", text: str = "") -> None:
    """Say in a file that it runs, and never end."""
    if text:
        print(text)  # noqa: T201
    if kind == "ignore":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    _write(ready, os.getpid())
    if kind == "gil":
        ctypes.PyDLL(None).sleep(3600)
    threading.Event().wait()


@handler("child_parent", process=True)
def start_another(ready: str, kind: str, then: str) -> None:
    """Start a process that lives on and holds all that this one has open."""
    if kind == "fork":
        pid = os.fork()
        if pid == 0:
            threading.Event().wait()
    else:
        code = "import threading; threading.Event().wait()"
        pid = subprocess.Popen([sys.executable, "-c", code], close_fds=False).pid
    _write(ready, pid)
    if then == "exit":
        os._exit(3)
    threading.Event().wait()


def _write(ready: str, pid: int) -> None:
    path = Path(ready)
    path.with_suffix(".new").write_text(str(pid))
    path.with_suffix(".new").rename(path)
