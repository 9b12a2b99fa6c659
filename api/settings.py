"""The settings of one API process."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """What the API reads from its environment, once, at start."""

    conninfo: str
    """Where the database is, as libpq reads it. What it leaves out, libpq's PG* variables say."""
    database_timeout: float = 5.0
    """Seconds after which a request stops waiting for the database."""
    health_timeout: float = 2.0
    """Seconds after which a health check does."""

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read DATABASE_URL, which may carry SQLAlchemy's and yoyo's driver suffix."""
        url = os.environ.get("DATABASE_URL", "")
        return cls(conninfo=url.replace("postgresql+psycopg://", "postgresql://", 1))
