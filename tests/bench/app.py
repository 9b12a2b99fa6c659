"""The API, and beside it, in the same process, a route that does nothing, to compare with."""

from starlette.responses import Response

from api.main import app


@app.post("/noop")
async def noop() -> Response:
    """Do nothing."""
    return Response(b"{}", media_type="application/json")


__all__ = ["app"]
