"""The log that a client keeps of what it asks for and what it is told."""

import json
import os
import time
from pathlib import Path
from typing import Any


class Log:
    """A file with a JSON line for each intent and each outcome; see history.Entry.

    A line is written before and after each call, in one write and without a buffer: a process that
    is killed leaves all that it knew.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.stem
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, op: str, ref: str, outcome: str, **members: Any) -> None:
        """Write a line."""
        given = {name: value for name, value in members.items() if value is not None}
        what = {"op": op, "ref": ref, "outcome": outcome, **given}
        line = json.dumps({**what, "at": time.monotonic(), "by": self._name}, default=str)
        os.write(self._file, f"{line}\n".encode())
