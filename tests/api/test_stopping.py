"""How a server ends that is told to."""

import signal

import httpx2
import pytest

from tests.api.conftest import Serve


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_told_to_stop_ends_with_0(serve: Serve, signal_number: int) -> None:
    server = serve()
    assert httpx2.get(f"{server.url}/openapi.json").status_code == 200
    assert server.stop(signal_number) == 0
    assert "Traceback" not in server.log
