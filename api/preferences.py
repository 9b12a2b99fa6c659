"""What a client would rather have: the Prefer header (RFC 7240)."""

import re
from typing import Annotated

from fastapi import Depends, Header, Request

_WAIT = re.compile(r"\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(;.*)?", re.IGNORECASE)


def wait_of(request: Request) -> int:
    """Return how many seconds the client would wait; 0: it did not say."""
    for preference in ",".join(request.headers.getlist("Prefer")).split(","):
        if match := _WAIT.fullmatch(preference):
            return min(int(match[1]), int(request.app.state.settings.max_wait))
    return 0


async def _wait(
    request: Request,
    prefer: Annotated[
        list[str] | None,
        Header(
            description="`wait=N` (RFC 7240): answer when there is something to say, or after N "
            "seconds at the latest.",
            openapi_examples={"wait": {"value": "wait=10"}},
        ),
    ] = None,
) -> int:
    """Tell FastAPI of the header."""
    return wait_of(request)


Wait = Annotated[int, Depends(_wait)]
"""How many seconds the client would wait. What is not understood is ignored."""


def applied(wait: int) -> dict[str, str]:
    """Return the header that says how long the answer may have waited.

    Nothing is said of caches (Vary: Prefer): they store no response of ours.
    """
    return {"Preference-Applied": f"wait={wait}"} if wait else {}
