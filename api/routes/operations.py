"""/health: how the API itself fares."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from api.models import Health

router = APIRouter(tags=["operations"])


@router.get(
    "/health", operation_id="getHealth", response_model=Health, responses={503: {"model": Health}}
)
async def health(request: Request) -> Response:
    """Say whether the database answers and has the schema."""
    reason = await request.app.state.database.unavailable_because()
    if reason is not None:
        return JSONResponse({"status": "unavailable", "reason": reason}, 503)
    return JSONResponse({"status": "ok"})
