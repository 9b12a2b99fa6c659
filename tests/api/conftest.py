"""The real application on a real database."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from api.main import create_app
from api.settings import Settings


@pytest.fixture
def api(conninfo: str) -> Iterator[TestClient]:
    """A client of the application, which is connected to this test's database."""
    with TestClient(create_app(Settings(conninfo)), raise_server_exceptions=False) as client:
        yield client
