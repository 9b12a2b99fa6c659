"""The OpenAPI document: what FastAPI makes of the routes, with problems as they are sent."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import MEDIA_TYPE, TYPE_PREFIX
from api.models import ProblemDetails

_PROBLEM = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
_REMOVED = ["HTTPValidationError", "ValidationError"]


def install(app: FastAPI) -> None:
    """Let the application describe itself."""

    def document() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = _with_problems(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    summary=app.summary,
                    description=app.description,
                    routes=app.routes,
                    tags=app.openapi_tags,
                )
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _with_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Say of each problem that it has the media type of problems, and an example of its type."""
    for path in document["paths"].values():
        for operation in path.values():
            if "security" in operation:
                operation["security"].append({})  # without a key, where none is required
            for response in operation["responses"].values():
                content = response.get("content", {})
                if content.get("application/json", {}).get("schema") == _PROBLEM:
                    content[MEDIA_TYPE] = content.pop("application/json")
    for name in _REMOVED:
        document["components"]["schemas"].pop(name, None)
    document["components"]["schemas"][ProblemDetails.__name__]["properties"]["type"]["pattern"] = (
        f"^{TYPE_PREFIX}|^about:blank$"
    )
    return document
