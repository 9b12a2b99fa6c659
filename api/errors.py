"""Every error that a client can see: a problem document (RFC 9457), from one table."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.logs import current_request_id

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:async-job-orchestrator:problem:"
INSTANCE_PREFIX = "urn:async-job-orchestrator:request:"
METHODS = ["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"]
RETRY_AFTER_OUTAGE = 2
"""Seconds after which a client may well try again when the database was away."""


@dataclass(frozen=True)
class Kind:
    """A kind of problem: the end of its type, its status and its title never change."""

    status: int
    title: str


KINDS = {
    "bad-request": Kind(400, "The request is malformed"),
    "unauthenticated": Kind(401, "A valid API key is needed"),
    "forbidden": Kind(403, "That is not allowed"),
    "not-found": Kind(404, "There is no such thing"),
    "method-not-allowed": Kind(405, "The resource does not know this method"),
    "not-running": Kind(409, "The job is not running"),
    "claim-lost": Kind(409, "Another claim holds the job"),
    "not-retryable": Kind(409, "Only a failed or cancelled job can be retried"),
    "unique-key-held": Kind(409, "Another job holds the unique key"),
    "too-large": Kind(413, "The request is too large"),
    "unsupported-media-type": Kind(415, "The body is not of a type that is understood"),
    "invalid": Kind(422, "The request is invalid"),
    "idempotency-key-reused": Kind(422, "The idempotency key belongs to another request"),
    "rate-limited": Kind(429, "Too many requests"),
    "internal": Kind(500, "The API failed"),
    "unavailable": Kind(503, "The database is not available"),
}
"""Each kind of problem that a response can report."""

KIND_BY_SQLSTATE = {
    "JQ001": "invalid",
    "JQ002": "not-found",
    "JQ003": "not-running",
    "JQ004": "claim-lost",
    "JQ006": "not-retryable",
    "JQ007": "unique-key-held",
    "JQ008": "unauthenticated",
    "JQ009": "forbidden",
    "JQ010": "rate-limited",
    "JQ011": "idempotency-key-reused",
    "42501": "forbidden",  # insufficient_privilege: the API's login may not do that
    "3F000": "unavailable",  # invalid_schema_name: not migrated yet
    "42883": "unavailable",  # undefined_function: not migrated yet
    "42P01": "unavailable",  # undefined_table: a view, not migrated yet
    "25006": "unavailable",  # read_only_sql_transaction: a standby, or a failover under way
    "53300": "unavailable",  # too_many_connections
}
"""What the database says, and what that is to a client. Class 22, wrong data, is invalid."""

KIND_BY_STATUS = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
    422: "invalid",
}


class Problem(Exception):
    """A problem that the API itself finds."""

    def __init__(self, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.headers = kind, detail, headers


def install(app: FastAPI) -> None:
    """Answer requests that fail with what their client can do about it."""
    app.add_exception_handler(Problem, _own)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(psycopg.Error, _database_error)
    app.add_exception_handler(TimeoutError, _database_timeout)
    app.add_exception_handler(Exception, _fault)


def problem(
    kind: str, detail: str, headers: Mapping[str, str] | None = None, **members: Any
) -> JSONResponse:
    """Make the response for a kind of problem."""
    body = {
        "type": TYPE_PREFIX + kind,
        "title": KINDS[kind].title,
        "status": KINDS[kind].status,
        "detail": detail,
        **_instance(),
        **members,
    }
    all_headers = dict(headers or {})
    if kind == "unauthenticated":
        all_headers["WWW-Authenticate"] = "Bearer"
    if kind == "unavailable":
        all_headers.setdefault("Retry-After", str(RETRY_AFTER_OUTAGE))
    return JSONResponse(body, KINDS[kind].status, all_headers, MEDIA_TYPE)


def _instance() -> dict[str, str]:
    """Return the member that tells one request from others, and finds it in the log."""
    request_id = current_request_id.get()
    return {"instance": INSTANCE_PREFIX + quote(request_id, safe="")} if request_id else {}


async def _own(_: Request, exc: Exception) -> JSONResponse:
    error = cast(Problem, exc)
    return problem(error.kind, error.detail, error.headers)


async def _invalid_request(request: Request, exc: Exception) -> JSONResponse:
    error = cast(RequestValidationError, exc)
    if _is_body_of_another_type(request, error):
        return problem(
            "unsupported-media-type", "Send a JSON body, with Content-Type: application/json."
        )
    errors = [
        {
            "pointer" if item["loc"][0] == "body" else "parameter": _place(item["loc"]),
            "detail": item["msg"],
        }
        for item in error.errors()
    ]
    sentences = [_sentence(item["loc"], item["msg"]) for item in error.errors()]
    return problem("invalid", "; ".join(sentences), errors=errors)


def _is_body_of_another_type(request: Request, error: RequestValidationError) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = media_type == "application/json" or media_type.endswith("+json")
    return not is_json and isinstance(error.body, bytes) and error.body != b""


def _place(location: tuple[str | int, ...]) -> str:
    """Name the place of a fault: in a body a JSON Pointer (RFC 6901), else the parameter."""
    if location[0] != "body":
        return str(location[min(1, len(location) - 1)])
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in location[1:])


def _sentence(location: tuple[str | int, ...], message: str) -> str:
    if location == ("body",) and "dictionary" in message:
        message = "Send a JSON object"
    place = ""
    for step in location[1:] or location:
        place += f"[{step}]" if isinstance(step, int) else f".{step}" if place else step
    return f"{place}: {message}"


async def _http(request: Request, exc: Exception) -> JSONResponse:
    error = cast(HTTPException, exc)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    kind = KIND_BY_STATUS.get(error.status_code)
    if kind is None:
        title = HTTPStatus(error.status_code).phrase
        body = {"type": "about:blank", "title": title, "status": error.status_code, **_instance()}
        return JSONResponse(
            {**body, "detail": error.detail}, error.status_code, headers, MEDIA_TYPE
        )
    detail = error.detail
    if detail == HTTPStatus(error.status_code).phrase:
        detail = f"{request.method} {request.url.path}: {detail.lower()}"
    return problem(kind, detail, headers)


def _methods(request: Request) -> list[str]:
    """Return the methods that the path of a request knows."""
    return [
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.router.routes
        )
    ]


async def _database_error(_: Request, exc: Exception) -> JSONResponse:
    error = cast(psycopg.Error, exc)
    kind = KIND_BY_SQLSTATE.get(error.sqlstate or "")
    if kind is None and isinstance(error, psycopg.DataError):
        kind = "invalid"
    if kind is None and isinstance(error, psycopg.OperationalError):
        kind = "unavailable"
    if kind is None:
        raise error
    if kind == "unavailable":
        logger.warning("database unavailable: %s", " ".join(str(error).split()))
        return problem(kind, "The database is not available. Try again shortly.")
    sentences = [error.diag.message_primary, error.diag.message_hint]
    detail = ". ".join(sentence.rstrip(".") for sentence in sentences if sentence) + "."
    headers = {}
    if kind == "rate-limited":
        seconds = int(float(error.diag.message_detail or 0)) + 1
        headers = {"Retry-After": str(seconds), "RateLimit": f'"key";r=0;t={seconds}'}
    members = {"code": error.sqlstate} if (error.sqlstate or "").startswith("JQ") else {}
    return problem(kind, detail, headers, **members)


async def _database_timeout(_: Request, exc: Exception) -> JSONResponse:
    logger.warning("database did not answer in time")
    return problem(
        "unavailable", "The database did not answer in time. It may still have done what was asked."
    )


async def _fault(_: Request, exc: Exception) -> JSONResponse:
    return problem("internal", "The API failed. Its log says why.")
