"""The settings of one API process."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

MIB = 1024 * 1024

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


@dataclass(frozen=True)
class Settings:
    """What the API reads from its environment, once, at start."""

    conninfo: str = field(repr=False)
    """Where the database is, as libpq reads it. What it leaves out, libpq's PG* variables say."""
    require_key: bool = False
    """Whether a request needs an API key. Off, one without may do all that the database lets the
    API's own login do; one with a key, only what that key may."""
    database_timeout: Seconds = 5.0
    """Seconds after which a request stops waiting for the database."""
    health_timeout: Seconds = 2.0
    """Seconds after which a health check does."""
    pool_size: Annotated[int, Field(ge=1, le=1000)] = 10
    """How many connections to the database the calls of this process share."""
    max_wait: Seconds = 60.0
    """Seconds that Prefer: wait may ask for at most."""
    client_timeout: Seconds = 30.0
    """Seconds after which a client that sends no more of its request, or takes no more of the
    response, is given up (api/connections.py)."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=1024 * MIB)] = 16 * MIB
    """The largest body of a request."""
    cors_origins: tuple[str, ...] = ()
    """The origins whose pages may call the API from a browser. None: CORS is off."""
    log_format: Literal["text", "json"] = "text"
    """How lines are logged."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the variables that the README lists. Raise ValueError for one that is wrong.

        DATABASE_URL may carry SQLAlchemy's and yoyo's driver suffix.
        """
        url = environment.get("DATABASE_URL", "")
        values: dict[str, object] = {
            name: environment[variable]
            for name, variable in VARIABLES.items()
            if environment.get(variable)
        }
        if "cors_origins" in values:
            values["cors_origins"] = [
                origin.strip() for origin in str(values["cors_origins"]).split(",")
            ]
        try:
            return _ADAPTER.validate_python(
                values | {"conninfo": url.replace("postgresql+psycopg://", "postgresql://", 1)}
            )
        except ValidationError as error:
            raise ValueError(
                "; ".join(f"{VARIABLES[str(e['loc'][0])]}: {e['msg']}" for e in error.errors())
            ) from None


VARIABLES = {
    "require_key": "API_REQUIRE_KEY",
    "database_timeout": "API_DATABASE_TIMEOUT",
    "pool_size": "API_POOL_SIZE",
    "max_wait": "API_MAX_WAIT",
    "client_timeout": "API_CLIENT_TIMEOUT",
    "max_body_bytes": "API_MAX_BODY_BYTES",
    "cors_origins": "API_CORS_ORIGINS",
    "log_format": "API_LOG_FORMAT",
    "log_level": "API_LOG_LEVEL",
}
"""Each setting that has one, and its environment variable."""

_ADAPTER = TypeAdapter(Settings)
