"""A small HTTP server: /livez, /readyz and /metrics."""

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

Answer = tuple[int, str, bytes]

TEXT = "text/plain; charset=utf-8"


class Monitoring:
    """Serves in threads of its own, so that it answers while the loops are stuck."""

    def __init__(
        self,
        host: str,
        port: int,
        is_alive: Callable[[], bool],
        unready_because: Callable[[], str | None],
        refresh: Callable[[], None],
    ) -> None:
        """Listen. Raises OSError if the address cannot be used.

        `refresh` is called before the metrics are read.
        """

        def livez() -> Answer:
            return (200, TEXT, b"ok\n") if is_alive() else (503, TEXT, b"a loop is stuck\n")

        def readyz() -> Answer:
            reason = unready_because()
            return (200, TEXT, b"ok\n") if reason is None else (503, TEXT, f"{reason}\n".encode())

        def metrics() -> Answer:
            refresh()
            return 200, CONTENT_TYPE_LATEST, generate_latest()

        pages = {"/livez": livez, "/readyz": readyz, "/metrics": metrics}

        class Handler(BaseHTTPRequestHandler):
            timeout = 5
            server_version = "job-queue-worker"
            sys_version = ""

            def do_GET(self) -> None:
                page = pages.get(self.path.partition("?")[0])
                status, content_type, body = page() if page else (404, TEXT, b"not found\n")
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def do_POST(self) -> None:
                self.send_response(405)
                self.send_header("Allow", "GET, HEAD")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_POST

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = _server_class(host)((host, port), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="monitoring", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def _server_class(host: str) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        daemon_threads = True

        def server_bind(self) -> None:
            TCPServer.server_bind(self)  # HTTPServer's would look the host's name up

        def handle_error(self, *_: object) -> None:
            """Say nothing of clients that hang up."""

    return Server
