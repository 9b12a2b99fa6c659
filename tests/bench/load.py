"""Requests as fast as they are answered: by wrk if it is installed, or else from here."""

import http.client
import re
import subprocess
import threading
import time
from tempfile import NamedTemporaryFile
from urllib.parse import urlsplit

from tests.bench.place import program


def load(url: str, body: str, seconds: float, connections: int) -> tuple[float, str]:
    """Return how many requests a second were answered with success, and who asked."""
    wrk = program("wrk")
    if wrk is None or seconds < 1:
        why = "wrk is not installed" if wrk is None else "wrk asks for a second at least"
        return _from_here(url, body, seconds, connections), f"Python, as {why}"
    with NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(
            f"wrk.method = 'POST'\nwrk.body = [[{body}]]\n"
            "wrk.headers['Content-Type'] = 'application/json'\n"
        )
        script.flush()
        command = [wrk, "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", script.name, url]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise RuntimeError(said)
    found = re.search(r"Requests/sec:\s*([\d.]+)", said)
    assert found is not None, said
    return float(found[1]), "wrk, one thread"


def _from_here(url: str, body: str, seconds: float, connections: int) -> float:
    parts = urlsplit(url)
    deadline = time.monotonic() + seconds
    counts = [0] * connections

    def ask(place: int) -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        headers = {"Content-Type": "application/json"}
        while time.monotonic() < deadline:
            connection.request("POST", parts.path, body, headers)
            response = connection.getresponse()
            response.read()
            if response.status >= 300:
                break
            counts[place] += 1
        connection.close()

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not all(counts):
        raise RuntimeError(f"{url} did not answer with success")
    return sum(counts) / seconds
