"""Logs: lines of text, or of JSON, with the id of the request that they are about.

One line tells of each request, when it has been answered. It shows the path, but not the query, in
which clients name their own things, and no header: neither keys nor idempotency keys are logged.
"""

import logging
import re
import sys
from contextvars import ContextVar

from pythonjsonlogger.json import JsonFormatter

from api.settings import Settings

current_request_id: ContextVar[str | None] = ContextVar("current_request_id", default=None)
"""The id of the request at hand. Each request is a task, and so has a context, of its own."""

_TEXT_IDS = ("request_id", "key_id")
_WORD = re.compile(r"[\x21-\x5b\x5d-\x7e]{0,1000}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def configure(settings: Settings) -> None:
    """Log to standard error as the settings say, and let uvicorn do likewise.

    Its own line about each request is left out: it would show the query. What libraries say is
    logged from warnings on. Of several processes the parent, which never loads the application,
    says in uvicorn's own way that it starts and stops the others.
    """
    level = settings.log_level.upper()
    stream = logging.StreamHandler(sys.stderr)
    stream.name = "api"
    if settings.log_format == "json":
        stream.setFormatter(
            JsonFormatter(
                "{levelname}{name}{message}",
                style="{",
                timestamp=True,
                rename_fields={"levelname": "level", "name": "logger"},
            )
        )
    else:
        stream.setFormatter(_TextFormatter("%(asctime)s %(levelname)s %(message)s"))
    stream.addFilter(_complete)
    root = logging.getLogger()
    # Others, such as OpenTelemetry's, may be there already, and stay.
    root.handlers[:] = [other for other in root.handlers if other.name != stream.name] + [stream]
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level]))
    logging.getLogger("api").setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(level)
        logger.propagate = name != "uvicorn.access"


def escaped(text: str) -> str:
    """Return text that came from outside as one word of printable ASCII that is not endless."""
    if _WORD.fullmatch(text):
        return text
    word = text[:1000].encode("unicode_escape").decode().replace(" ", "\\x20")
    return word if len(text) <= 1000 else word + "..."


class _TextFormatter(logging.Formatter):
    """Ends the first line of a record with its ids, and marks the others as belonging to it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        first, newline, rest = super().formatMessage(record).partition("\n")
        ids = [f"{name}={vars(record)[name]}" for name in _TEXT_IDS if vars(record).get(name)]
        return f"{first} [{' '.join(ids)}]{newline}{rest}" if ids else f"{first}{newline}{rest}"

    def format(self, record: logging.LogRecord) -> str:
        text = _CONTROL.sub(lambda found: repr(found[0])[1:-1], super().format(record))
        return text.rstrip("\n").replace("\n", "\n    ")


def _complete(record: logging.LogRecord) -> bool:
    """Add the id of the request at hand, and drop what uvicorn adds for terminals."""
    vars(record).pop("color_message", None)
    if not hasattr(record, "request_id") and (request_id := current_request_id.get()):
        record.request_id = request_id
    return True
