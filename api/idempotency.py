"""What makes the repetition of a request harmless: the Idempotency-Key header."""

import re
from typing import Annotated

from fastapi import Header, Request

_PATTERN = r'^("([ !#-\[\]-~]|\\["\\]){1,255}"|[!#-~][ -~]{0,254})$'
_KEY = re.compile(_PATTERN)

IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Makes a repetition harmless for 24 hours: it is answered like the first "
        "request. A string in double quotes (draft-ietf-httpapi-idempotency-key-header), or bare.",
        pattern=_PATTERN,
        openapi_examples={"key": {"value": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}},
    ),
]


def idempotency_key_of(request: Request) -> str | None:
    """Return the key as it was sent. Raise ValueError if it is none."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise ValueError(key)
    return key


def unquoted(key: str) -> str:
    """Read a string of structured fields (RFC 9651), or take a bare one as it stands."""
    if not key.startswith('"'):
        return key
    return re.sub(r"\\(.)", r"\1", key[1:-1])
