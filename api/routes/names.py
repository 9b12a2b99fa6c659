"""Names in paths: a queue or a schedule may have any name, also one with a slash in it."""

import re
from typing import Annotated
from urllib.parse import unquote
from uuid import UUID

from fastapi import Path
from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

from api.models import Name

_KEPT = re.compile(r"(%2[F5])", re.IGNORECASE)

PathName = Annotated[
    Name, Path(description="Its name, percent-encoded: a slash in it is %2F.", examples=["mail"])
]


JobId = Annotated[UUID, Path(description="The id of the job.")]


class NameConvertor(Convertor[str]):
    """{parameter:name} in the path of a route: one segment, whatever slashes it encodes."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        """Decode what KeepSlashes has left encoded."""
        return _KEPT.sub(lambda kept: unquote(kept[0]), value)

    def to_string(self, value: str) -> str:
        """Encode it again."""
        return value.replace("%", "%25").replace("/", "%2F")


class JobIdConvertor(Convertor[str]):
    """{job_id:job} in the path of a route: what stands beside the ids is none."""

    regex = "(?!(?:batch|cancel|retry)$)[^/]+"

    def convert(self, value: str) -> str:
        """Leave it to the route to refuse what is no id."""
        return value

    def to_string(self, value: str) -> str:
        """Return it as it is."""
        return value


register_url_convertor("name", NameConvertor())
register_url_convertor("job", JobIdConvertor())


class KeepSlashes:
    """Let a route see which slashes of a path divide it: servers decode %2F before it is matched.

    %2F and %25 stay as they are, for NameConvertor to decode.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and b"%2" in scope.get("raw_path", b""):
            parts = _KEPT.split(scope["raw_path"].decode("latin-1"))
            parts[::2] = map(unquote, parts[::2])
            scope["path"] = "".join(parts)
        await self._app(scope, receive, send)
