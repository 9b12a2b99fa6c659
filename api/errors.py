"""Every error a client can see: a status and {"detail": sentence}."""

import logging
from typing import cast

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

logger = logging.getLogger(__name__)

STATUS_BY_SQLSTATE = {
    "JQ001": 422,  # invalid argument
    "3F000": 503,  # invalid_schema_name: not migrated yet
    "42883": 503,  # undefined_function: not migrated yet
    "25006": 503,  # read_only_sql_transaction: a standby, or a failover under way
    "53300": 503,  # too_many_connections
}


def install(app: FastAPI) -> None:
    """Answer requests that fail with what their client can do about it."""
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(psycopg.Error, _database_error)
    app.add_exception_handler(TimeoutError, _database_timeout)


async def _invalid_request(_: Request, exc: Exception) -> JSONResponse:
    error = cast(RequestValidationError, exc)
    return _problem(422, "; ".join(_sentence(item["loc"], item["msg"]) for item in error.errors()))


def _sentence(location: tuple[str | int, ...], message: str) -> str:
    if location == ("body",) and "dictionary" in message:
        message = "Send a JSON object, with Content-Type: application/json"
    return f"{location[-1]}: {message}"


async def _database_error(_: Request, exc: Exception) -> JSONResponse:
    error = cast(psycopg.Error, exc)
    status = STATUS_BY_SQLSTATE.get(error.sqlstate or "")
    if status is None and isinstance(error, psycopg.OperationalError):
        status = 503
    if status is None:
        raise error
    if status < 500:
        return _problem(status, f"{error.diag.message_primary}. {error.diag.message_hint}")
    logger.warning("database unavailable: %s", " ".join(str(error).split()))
    return _problem(status, "The database is not available. Try again shortly.")


async def _database_timeout(_: Request, exc: Exception) -> JSONResponse:
    logger.warning("database did not answer in time")
    return _problem(
        503, "The database did not answer in time. It may still have done what was asked."
    )


def _problem(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status)
