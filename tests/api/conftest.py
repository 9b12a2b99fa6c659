"""The real application on a real database."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.main import create_app
from api.settings import Settings
from tests.support import eventually

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def api(conninfo: str) -> Iterator[TestClient]:
    """A client of the application, which is connected to this test's database."""
    with TestClient(create_app(Settings(conninfo)), raise_server_exceptions=False) as client:
        yield client


class Server:
    """`uvicorn api.main:app` on a port of its own, with its log in a file."""

    def __init__(self, log: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self._log = log
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        command = [sys.executable, "-m", "uvicorn", "api.main:app", "--port", str(self._port)]
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*command, *arguments],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdout=output,
                stderr=output,
            )

    def accepts(self) -> bool:
        """Tell whether it can be connected to."""
        assert self.process.poll() is None, self.log
        try:
            socket.create_connection(("127.0.0.1", self._port)).close()
        except ConnectionRefusedError:
            return False
        return True

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text()

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Send the signal and return the exit status."""
        self.process.send_signal(signal_number)
        return self.process.wait(timeout=60)


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path, conninfo: str) -> Iterator[Serve]:
    """Start servers on this test's database, with arguments for uvicorn and an environment.

    Each is returned once it serves, whether or not its database is there.
    """
    servers: list[Server] = []

    def start(*arguments: str, **environment: str) -> Server:
        log = tmp_path / f"server-{len(servers)}.log"
        servers.append(Server(log, arguments, {"DATABASE_URL": conninfo, **environment}))
        eventually(servers[-1].accepts)
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


@pytest.fixture
def http(serve: Serve) -> Iterator[httpx2.Client]:
    """A client of such a server."""
    with httpx2.Client(base_url=serve().url, timeout=60) as client:
        yield client


class ServerHere:
    """The application behind a real server in this process, to look into."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._server = uvicorn.Server(uvicorn.Config(app, port=0))

    def run(self) -> None:
        """Serve until it is told to stop."""
        self._server.run()

    def stop(self) -> None:
        """Tell it to stop, which it does once nothing is under way."""
        self._server.should_exit = True

    @property
    def is_started(self) -> bool:
        """Whether it serves."""
        return self._server.started

    @property
    def url(self) -> str:
        """Where it is."""
        host, port = self._server.servers[0].sockets[0].getsockname()
        return f"http://{host}:{port}"

    @property
    def connections(self) -> int:
        """How many connections of clients it has."""
        return len(self._server.server_state.connections)


@pytest.fixture
def server_here(conninfo: str) -> Iterator[ServerHere]:
    """Such a server, whose constants a test may change."""
    server = ServerHere(create_app(Settings(conninfo)))
    with ThreadPoolExecutor(1) as executor:
        run = executor.submit(server.run)
        eventually(lambda: server.is_started or run.done())
        yield server
        server.stop()
        run.result()


@pytest.fixture
def here(server_here: ServerHere) -> Iterator[httpx2.Client]:
    """A client of such a server."""
    with httpx2.Client(base_url=server_here.url, timeout=60) as client:
        yield client
