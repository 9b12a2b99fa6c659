"""/api-keys: make, list and revoke keys. The database keeps a hash of each, and no key."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from api.access import CallerOf
from api.errors import Problem
from api.models import WHOLE, YEAR, Name, Request
from api.routes.common import UTC, JsonResponse, JsonRoute, json_array, problems

_LOCATION: dict[str, Any] = {
    "Location": {"description": "Where the key is", "schema": {"type": "string"}}
}

router = APIRouter(route_class=JsonRoute, tags=["API keys"])

_MEMBERS = f"""
         'name', key.name,
         'scopes', key.scopes,
         'queues', key.queues,
         'rate_limit', key.rate_limit,
         'rate_period_seconds', extract(epoch from key.rate_period)::float8,
         'created_at', {UTC.format("key.created_at")},
         'created_by', key.created_by,
         'expires_at', {UTC.format("key.expires_at")},
         'revoked_at', {UTC.format("key.revoked_at")},
         'last_used_at', {UTC.format("key.last_used_at")}"""

_CREATE_KEY = f"""
select made.key_id, json_build_object(
         'key_id', made.key_id,
         'api_key', made.api_key,{_MEMBERS})::text
  from job_queue.create_api_key(
         p_name => %(name)s,
         p_scopes => %(scopes)s::text[],
         p_queues => %(queues)s::text[],
         p_expires_in => make_interval(secs => %(expires_in_seconds)s),
         p_rate_limit => %(rate_limit)s,
         p_rate_period => make_interval(secs => %(rate_period_seconds)s)
       ) as made
 cross join lateral job_queue.list_api_keys(p_key_id => made.key_id) as key
"""

_LIST_KEYS = f"""
select json_build_object(
         'key_id', key.key_id,{_MEMBERS})::text
  from job_queue.list_api_keys() as key
"""

_GET_KEY = f"""
select json_build_object(
         'key_id', key.key_id,{_MEMBERS})::text
  from job_queue.list_api_keys(p_key_id => %(key_id)s) as key
"""

_REVOKE_KEY = """
select 'revoked' from job_queue.revoke_api_key(p_key_id => %(key_id)s)
"""

YEARS = 100 * YEAR
"""Seconds."""

KeyId = Annotated[
    str, Path(pattern="^[0-9a-f]{12}$", description="The part of the key between its two _.")
]
Scope = Literal["client", "worker", "operator"]


class NewKey(Request):
    """What a key is to be good for."""

    name: Name = Field(description="Whose key it is, for people.", examples=["billing"])
    scopes: Annotated[list[Scope], Field(min_length=1)] = Field(
        description="client: create, read and cancel jobs. worker: run them. operator: all that "
        "concerns queues, schedules, retries, keys and the whole system."
    )
    queues: Annotated[list[Name], Field(min_length=1, max_length=1000)] | None = Field(
        None, description="The only queues that it may touch or see. Null: all."
    )
    expires_in_seconds: Annotated[float, Field(ge=0.001, le=YEARS)] | None = Field(
        None, description="How long it is valid. Null: until it is revoked."
    )
    rate_limit: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] | None = Field(
        None, description="How many requests it may make within rate_period_seconds. Null: any."
    )
    rate_period_seconds: Annotated[float, Field(ge=1, le=YEAR)] = 60


class ApiKey(BaseModel):
    """What is known of a key: all but the key."""

    key_id: str
    name: str
    scopes: list[Scope]
    queues: list[str] | None
    rate_limit: int | None
    rate_period_seconds: float | None
    created_at: datetime
    created_by: str = Field(description="The database login that made it.")
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="Give or take a minute.")


class CreatedKey(ApiKey):
    """A key, this once."""

    api_key: str = Field(description="The key. It is shown only now.", examples=["jq_…_…"])


@router.post(
    "/api-keys",
    status_code=201,
    operation_id="createApiKey",
    response_model=CreatedKey,
    responses={201: {"headers": _LOCATION}, **problems(413, 415)},
)
async def create_key(new_key: NewKey, caller: CallerOf) -> Response:
    """Make a key. It is shown in this answer, and never again."""
    [(key_id, body)] = await caller.call("create_api_key", _CREATE_KEY, dict(new_key))
    return JsonResponse(body, 201, {"Location": f"/api-keys/{key_id}", "Cache-Control": "no-store"})


@router.get(
    "/api-keys",
    operation_id="listApiKeys",
    response_model=list[ApiKey],
    responses=problems(),
)
async def list_keys(caller: CallerOf) -> Response:
    """Return what is known of all keys, also of expired and revoked ones."""
    rows = await caller.call("list_api_keys", _LIST_KEYS)
    return JsonResponse(json_array(body for (body,) in rows))


@router.get(
    "/api-keys/{key_id}",
    operation_id="getApiKey",
    response_model=ApiKey,
    responses=problems(404),
)
async def get_key(key_id: KeyId, caller: CallerOf) -> Response:
    """Return what is known of one key."""
    rows = await caller.call("list_api_keys", _GET_KEY, {"key_id": key_id})
    if not rows:
        raise Problem("not-found", f"API key {key_id} does not exist")
    return JsonResponse(rows[0][0])


@router.delete(
    "/api-keys/{key_id}",
    operation_id="revokeApiKey",
    status_code=204,
    response_class=Response,
    responses=problems(404),
)
async def revoke_key(key_id: KeyId, caller: CallerOf) -> Response:
    """Revoke a key, at once and for good. It stays in the list."""
    await caller.call("revoke_api_key", _REVOKE_KEY, {"key_id": key_id})
    return Response(status_code=204)
