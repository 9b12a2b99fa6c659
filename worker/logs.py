"""Logs: lines of text, or of JSON, with the ids of the job that they are about."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from worker.calls import current_run
from worker.settings import Settings

_TEXT_IDS = ("job_id", "claim_id", "attempt")


def configure(settings: Settings) -> None:
    """Log to standard error as the settings say."""
    stream = logging.StreamHandler(sys.stderr)
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
    stream.addFilter(_add_ids)
    logging.basicConfig(level=settings.log_level, handlers=[stream], force=True)


class _TextFormatter(logging.Formatter):
    """Ends the first line of a record with those ids of its run that it does not show itself."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        text = super().formatMessage(record)
        if not hasattr(record, "job_id"):
            return text
        first, newline, rest = text.partition("\n")
        names = [name for name in _TEXT_IDS if name != "job_id" or str(record.job_id) not in first]
        ids = " ".join(f"{name}={getattr(record, name, '')}" for name in names)
        return f"{first} [{ids}]{newline}{rest}"


def _add_ids(record: logging.LogRecord) -> bool:
    """Add the ids of the run at hand to what its handler logs."""
    run = current_run.get()
    if run is not None:
        for name, value in run.ids.items():
            if not hasattr(record, name):
                setattr(record, name, value)
    return True
