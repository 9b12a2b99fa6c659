"""The OpenAPI document: what FastAPI makes of the routes, and what holds for all of them."""

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.errors import INSTANCE_PREFIX, KINDS, MEDIA_TYPE, TYPE_PREFIX
from api.examples import EXAMPLES, REQUEST_ID
from api.models import ProblemDetails

Object = dict[str, Any]

_PROBLEM = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
_REMOVED = ["HTTPValidationError", "ValidationError"]

_KINDS = "\n".join(
    f"| `{TYPE_PREFIX}{name}` | {kind.status} | {kind.title} |" for name, kind in KINDS.items()
)

_NAMES_BY_STATUS = {
    status: [name for name, kind in KINDS.items() if kind.status == status]
    for status in sorted({kind.status for kind in KINDS.values()})
}
_UNDESCRIBED = {400, 405}
"""What is not sent to who follows the document."""

DESCRIPTION = f"""
Create jobs, follow them, run them, and look after their queues. All that these routes do, the
functions in the database do: the worker and any program with a connection can do the same.

**Keys.** Send an API key as `Authorization: Bearer <key>` or in `X-API-Key`. Its scopes and queues
say what it may do. Whether requests without one are served is for the API's operator to say.

**Times** are RFC 3339, in UTC. **Durations** are numbers of seconds, in members whose names end in
`_seconds`. Members that a body does not know are refused, and nothing is converted: `"3"` is no
number. Responses may get more members in time.

**Waiting.** `Prefer: wait=10` lets a request wait up to ten seconds for the job's end.

**Repeating.** A POST with an `Idempotency-Key` can be sent again without doing its work twice.
After 429 and 503, `Retry-After` says when.

**Problems** are `application/problem+json` (RFC 9457). Programs go by their `type`:

| type | status | title |
|---|---|---|
{_KINDS}

There may be more kinds in time: what a program does not know, it should treat by its status.
"""

TAGS = {
    "jobs": "Create, read, list, cancel and retry jobs.",
    "events": "Follow what happens, as it happens.",
    "worker": "Run jobs over HTTP: claim them, keep the claims, and say what came of them.",
    "queues": "Policies, pausing and statistics of queues.",
    "schedules": "What enqueues a job at each tick of a cron expression.",
    "API keys": "Who may use the API, and for what.",
    "operations": "How the API, the workers and the database fare.",
}
"""What the tags of the routes mean, in the order in which they are shown."""


def _header(description: str, required: bool = False, **schema: Any) -> Object:
    return {
        "description": description,
        "required": required,
        "schema": {"type": "string", **schema},
    }


HEADERS = {
    "X-Request-ID": _header(
        "The request's own, or else a new one. The log and problems name it.",
        required=True,
        examples=[REQUEST_ID],
    ),
    "RateLimit-Policy": _header(
        "The rate limit of the API key, if it has one: requests (q) within seconds (w).",
        examples=['"key";q=600;w=60'],
    ),
    "RateLimit": _header(
        "How many requests remain (r), and the seconds until all do again (t).",
        examples=['"key";r=599;t=1'],
    ),
    "Retry-After": _header(
        "The seconds after which to try again.", required=True, pattern="^[0-9]+$", examples=["2"]
    ),
    "WWW-Authenticate": _header(
        "How to authenticate.", required=True, const="Bearer", examples=["Bearer"]
    ),
    "Preference-Applied": _header(
        "How long the answer may have waited, if Prefer asked for that.", examples=["wait=10"]
    ),
    "Idempotent-Replayed": _header(
        "Sent if this is the answer to an earlier request with the same Idempotency-Key.",
        const="true",
    ),
}
"""The headers of responses that more than one route has."""

_LIMITS = ["RateLimit-Policy", "RateLimit"]
_ANSWERS = {"Prefer": "Preference-Applied", "Idempotency-Key": "Idempotent-Replayed"}
_HEADERS_OF_PROBLEMS = {401: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}

_JOB = ["getJob", "cancelJob", "retryJob", "getJobHistory", "explainJob", "getJobProgress"]
_QUEUE = ["getQueue", "setQueue", "pauseQueue", "resumeQueue", "getQueueStatistics"]
_RUN = ["completeJob", "failJob", "snoozeJob", "releaseJob", "reportProgress"]
_SCHEDULE = ["getSchedule", "pauseSchedule", "resumeSchedule", "deleteSchedule"]

_CLAIM = {"claim_id": "$response.body#/0/claim_id"}

LINKS: dict[str, tuple[str, str, list[str]]] = {
    "createJob": ("job_id", "/id", [*_JOB, "streamJobEvents"]),
    "createJobs": ("job_id", "/0/id", [*_JOB, "streamJobEvents"]),
    "listJobs": ("job_id", "/0/id", _JOB),
    "getJob": ("job_id", "/id", [*_JOB, "streamJobEvents"]),
    "cancelJob": ("job_id", "/id", ["getJob", "getJobHistory", "retryJob"]),
    "retryJob": ("job_id", "/id", ["getJob", "getJobHistory", "cancelJob"]),
    "cancelJobs": ("job_id", "/0/id", ["getJob", "retryJob"]),
    "retryJobs": ("job_id", "/0/id", ["getJob", "cancelJob"]),
    "listDeadJobs": ("job_id", "/0/id", ["getJob", "getJobHistory", "retryJob"]),
    "claimJobs": ("job_id", "/0/id", ["getJob", *_RUN]),
    "listQueues": ("queue", "/0/queue", _QUEUE),
    "setQueue": ("queue", "/queue", _QUEUE),
    "pauseQueue": ("queue", "/queue", ["getQueue", "resumeQueue"]),
    "listSchedules": ("schedule", "/0/schedule", _SCHEDULE),
    "setSchedule": ("schedule", "/schedule", _SCHEDULE),
    "pauseSchedule": ("schedule", "/schedule", ["getSchedule", "resumeSchedule"]),
    "createApiKey": ("key_id", "/key_id", ["getApiKey", "revokeApiKey"]),
    "listApiKeys": ("key_id", "/0/key_id", ["getApiKey", "revokeApiKey"]),
}
"""What can follow an operation: the parameter, where its value is in the answer, the operations."""


def install(app: FastAPI) -> None:
    """Let the application describe itself."""

    def document() -> Object:
        if not app.openapi_schema:
            app.openapi_schema = _completed(
                get_openapi(
                    title=app.title,
                    version=app.version,
                    summary=app.summary,
                    description=DESCRIPTION.strip(),
                    routes=app.routes,
                    tags=[
                        {"name": name, "description": description}
                        for name, description in TAGS.items()
                    ],
                )
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def operations(document: Object) -> Iterator[Object]:
    """Return the operations of a document."""
    for path in document["paths"].values():
        yield from path.values()


def _completed(document: Object) -> Object:
    """Add what the routes need not say."""
    schemas = document["components"]["schemas"]
    for name in _REMOVED:
        schemas.pop(name, None)
    for operation in operations(document):
        _summarize(operation)
        for parameter in operation.get("parameters", []):
            _describe_parameter(parameter)
        _describe_responses(operation)
        for part in [operation.get("requestBody", {}), *operation["responses"].values()]:
            for media in part.get("content", {}).values():
                _show_examples(media)
        for response in operation["responses"].values():
            _describe_success(response, schemas)
        _link(operation)
    sent = _names([operation.get("requestBody") for operation in operations(document)], schemas)
    for name, schema in schemas.items():
        if name in EXAMPLES:
            schema["examples"] = EXAMPLES[name]
        if name not in sent:
            # What an answer lacks, it lacks: a default would tell generators that it is there.
            for member in schema.get("properties", {}).values():
                member.pop("default", None)
    _describe_problem(schemas[ProblemDetails.__name__]["properties"])
    document["components"] |= {"headers": HEADERS, "responses": _problem_responses()}
    return document


def _reference(section: str, name: str) -> Object:
    return {"$ref": f"#/components/{section}/{name}"}


def _headers(names: list[str]) -> Object:
    return {name: _reference("headers", name) for name in names}


def _summarize(operation: Object) -> None:
    """Take the first sentence of a route's docstring for the summary, the rest to describe it."""
    first, *rest = re.split(r"\.\s+", operation.pop("description"), maxsplit=1)
    operation["summary"] = first.replace("\n", " ").rstrip(".")
    if rest:
        operation["description"] = rest[0]


def _describe_parameter(parameter: Object) -> None:
    """Leave out null, which no URL or header can hold, and what makes a header look like a list."""
    schema = parameter["schema"]
    choices = [each for each in schema.pop("anyOf", []) if each != {"type": "null"}]
    if len(choices) > 1:
        schema["anyOf"] = choices
    elif choices:
        schema.update(choices[0])
    schema.pop("title", None)
    schema.pop("description", None)
    if parameter["in"] == "header":
        if parameter["name"].islower():
            parameter["name"] = parameter["name"].title()
        if schema.get("type") == "array":
            parameter["schema"] = schema["items"]


def _describe_responses(operation: Object) -> None:
    """Name the headers of each response, and let all problems of a status be described once."""
    responses = operation["responses"]
    headers = ["X-Request-ID"]
    if "security" in operation:
        operation["security"].append({})  # without a key, where none is required
        responses["500"] = _reference("responses", _response_name(500))
        headers += _LIMITS
    sent = {parameter["name"] for parameter in operation.get("parameters", [])}
    for status, response in responses.items():
        if response.get("content", {}).get("application/json", {}).get("schema") == _PROBLEM:
            responses[status] = _reference("responses", _response_name(int(status)))
        elif "$ref" not in response:
            names = [*headers]
            if status < "300":
                names += [name for request, name in _ANSWERS.items() if request in sent]
            response.setdefault("headers", {}).update(_headers(names))
    operation["responses"] = dict(sorted(responses.items()))


def _response_name(status: int) -> str:
    return re.sub(r"\W", "", HTTPStatus(status).phrase)


def _problem_responses() -> Object:
    """Describe the responses that report problems."""
    return {
        _response_name(status): {
            "description": "; ".join(KINDS[name].title for name in names),
            "headers": _headers(["X-Request-ID", *_LIMITS, *_HEADERS_OF_PROBLEMS.get(status, [])]),
            "content": {
                MEDIA_TYPE: {
                    "schema": _PROBLEM,
                    "examples": {
                        name: {"summary": KINDS[name].title, "value": _problem(name)}
                        for name in names
                    },
                }
            },
        }
        for status, names in _NAMES_BY_STATUS.items()
        if status not in _UNDESCRIBED
    }


def _problem(name: str) -> Object:
    return {
        "type": TYPE_PREFIX + name,
        "title": KINDS[name].title,
        "status": KINDS[name].status,
        "detail": "What it was this time, and what to do about it, for people.",
        "instance": INSTANCE_PREFIX + REQUEST_ID,
    }


def _describe_problem(properties: Object) -> None:
    """Name the kinds. They are no enum, so that programs made from this survive another kind."""
    properties["type"] |= {
        "pattern": f"^{TYPE_PREFIX}|^about:blank$",
        "description": "The kind of problem, for programs. The description of the API lists them.",
        "examples": [TYPE_PREFIX + name for name in KINDS],
    }


def _describe_success(response: Object, schemas: Object) -> None:
    """Say what an answer is: in the words of its model, where the route has none."""
    if response.get("description") == "Successful Response":
        names = [_model(media)[0] for media in response.get("content", {}).values()]
        response["description"] = schemas[names[0]]["description"] if names else "Done"


def _model(media: Object) -> tuple[str, bool]:
    """Return the name of the model, if any, and whether an array of them is sent."""
    schema = media["schema"]
    is_array = schema.get("type") == "array"
    reference = (schema["items"] if is_array else schema).get("$ref", "")
    return reference.rpartition("/")[2], is_array


def _show_examples(media: Object) -> None:
    """Show the examples of the model."""
    name, is_array = _model(media)
    if name in EXAMPLES and "examples" not in media:
        media["examples"] = {
            f"example {number}": {"value": [value] if is_array else value}
            for number, value in enumerate(EXAMPLES[name], 1)
        }


def _link(operation: Object) -> None:
    if operation["operationId"] not in LINKS:
        return
    parameter, pointer, targets = LINKS[operation["operationId"]]
    for status, response in operation["responses"].items():
        if status < "300":
            response["links"] = {
                target: {
                    "operationId": target,
                    "parameters": {parameter: f"$response.body#{pointer}"},
                    **({"requestBody": _CLAIM} if target in _RUN else {}),
                }
                for target in targets
            }


def _names(part: Any, schemas: Object) -> set[str]:
    """Return the names of the schemas that a part of the document refers to, however indirectly."""
    names: set[str] = set()
    parts = [part]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts += part
        elif isinstance(part, dict):
            parts += part.values()
            name = str(part.get("$ref", "")).rpartition("/")[2]
            if name in schemas and name not in names:
                names.add(name)
                parts.append(schemas[name])
    return names
