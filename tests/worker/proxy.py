"""A network between a worker and its database, to be broken by a test."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo


class Proxy:
    """Forwards connections to the database, unless told not to."""

    def __init__(self, conninfo: str) -> None:
        self._target = conninfo_to_dict(conninfo)
        self._forwards = threading.Event()
        self._forwards.set()
        self._is_cut = False
        self._open: list[socket.socket] = []
        self.connections = 0
        """How often somebody has connected."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.conninfo = make_conninfo(conninfo, host="127.0.0.1", port=port)
        """Where the database is, through this."""
        threading.Thread(target=self._accept, daemon=True).start()

    def drop_packets(self) -> None:
        """Swallow all that is sent, and say nothing: the connections look alive."""
        self._forwards.clear()

    def forward_again(self) -> None:
        """End the outage. Connections that were open during it stay dead."""
        self._close_all()
        self._is_cut = False
        self._forwards.set()

    def cut(self) -> None:
        """Break all connections, and each new one at once."""
        self._is_cut = True
        self._close_all()

    def close(self) -> None:
        """End it all."""
        self._listener.close()
        self._close_all()
        self._forwards.set()

    def _close_all(self) -> None:
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                if self._is_cut:
                    client.close()
                    continue
                self._open.append(client)
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._forwards.wait()
        with suppress(OSError), client, self._connection_to_database() as server:
            self._open.append(server)
            back = threading.Thread(target=self._forward, args=(client, server), daemon=True)
            back.start()
            self._forward(server, client)
            back.join()

    def _connection_to_database(self) -> socket.socket:
        host, port = str(self._target["host"]), int(self._target["port"] or 5432)
        if host.startswith("/"):
            unix = socket.socket(socket.AF_UNIX)
            unix.connect(f"{host}/.s.PGSQL.{port}")
            return unix
        return socket.create_connection((host, port))

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self._forwards.is_set():
                    target.sendall(data)
        self._forwards.wait()  # an end in an outage is told after it, as TCP sends it again
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy_to(conninfo: str) -> Iterator[Any]:
    """Run a proxy for the time of a block."""
    proxy = Proxy(conninfo)
    try:
        yield proxy
    finally:
        proxy.close()
