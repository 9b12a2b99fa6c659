"""The OpenAPI document: that it says all that there is to say, of each route alike."""

import re
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import jsonschema_rs
import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

import api.routes
from api.errors import KINDS, TYPE_PREFIX
from api.main import create_app
from api.openapi import HEADERS, LINKS, TAGS
from api.settings import Settings

APP = create_app(Settings(""))
DOCUMENT = APP.openapi()
OPERATIONS: dict[str, Any] = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
ROUTES = api.routes.__path__
UNDESCRIBED = {"GET /docs", "GET /docs/start.js", "GET /docs/{name}"}

each_operation = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def resolved(part: Any) -> Any:
    """Follow a reference."""
    while "$ref" in part:
        target = DOCUMENT
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = target
    return part


def responses(operation: Any) -> Iterator[tuple[str, Any]]:
    """Return the responses of an operation by their statuses."""
    return ((status, resolved(body)) for status, body in operation["responses"].items())


def successes(operation: Any) -> Iterator[Any]:
    """Return the responses that are no problems."""
    return (body for status, body in responses(operation) if status < "300")


def problems(operation: Any) -> Iterator[tuple[str, Any]]:
    """Return the responses that are."""
    for status, response in responses(operation):
        if "application/problem+json" in response.get("content", {}):
            yield status, response


def routes() -> Iterator[APIRoute]:
    """Return the routes of all modules of routes."""
    modules = [import_module(f"api.routes.{each.name}") for each in iter_modules(ROUTES)]
    found = [route for each in modules if hasattr(each, "router") for route in each.router.routes]
    while found:
        route = found.pop()
        if isinstance(route, APIRoute):
            yield route
        else:
            found += route.original_router.routes


def validator(schema: Any) -> Any:
    """Return what validates against a schema that may refer to the document's."""
    return jsonschema_rs.Draft202012Validator(
        {**schema, "components": DOCUMENT["components"]}, validate_formats=True
    )


def test_the_document_is_of_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert DOCUMENT["info"]["title"] == "async-job-orchestrator"


def test_every_route_is_described_and_every_description_has_a_route() -> None:
    written = {
        f"{method} {route.path_format}" for route in routes() for method in route.methods or ()
    }
    assert written - set(OPERATIONS) == UNDESCRIBED
    assert set(OPERATIONS) <= written


def test_operation_ids_are_unique_and_camel_case() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)
    assert [each for each in ids if not re.fullmatch("[a-z]+([A-Z][a-z]+)*", each)] == []


def test_the_tags_of_all_operations_are_described() -> None:
    assert {tag["name"] for tag in DOCUMENT["tags"]} == set(TAGS)
    assert all(tag["description"].endswith(".") for tag in DOCUMENT["tags"])
    assert {tag for operation in OPERATIONS.values() for tag in operation["tags"]} <= set(TAGS)
    assert all(len(operation["tags"]) == 1 for operation in OPERATIONS.values())


@each_operation
def test_the_summary_is_a_sentence_and_not_the_name(operation: Any) -> None:
    summary = operation["summary"]
    assert re.fullmatch(r"[A-Z][a-z]+ \S.*[^.\s]", summary)
    assert "\n" not in summary
    assert summary != summary.title(), "the docstring of the route is missing"


@each_operation
def test_all_parameters_are_described_and_none_can_be_null(operation: Any) -> None:
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        assert "null" not in str(parameter["schema"]), name
        if parameter["in"] == "header":
            assert name[0].isupper(), name
            assert parameter["description"], name


@each_operation
def test_the_problems_that_any_request_can_meet_are_described(operation: Any) -> None:
    if "security" not in operation:
        assert operation["operationId"] in {"getHealth", "getLiveness", "getReadiness"}
        return
    statuses = {status for status, _ in problems(operation)}
    expected = {"401", "403", "422", "429", "500", "503"}
    if "requestBody" in operation:
        expected |= {"413", "415"}
    assert expected <= statuses
    assert statuses <= {str(kind.status) for kind in KINDS.values()}
    assert statuses | {s for s in operation["responses"] if s < "300"} == set(
        operation["responses"]
    )


@each_operation
def test_the_security_is_that_of_keys_or_none(operation: Any) -> None:
    if "security" in operation:
        assert operation["security"] == [{"ApiKey": []}, {"ApiKeyHeader": []}, {}]


@each_operation
def test_what_names_a_job_or_a_claim_can_be_missing(operation: Any) -> None:
    in_path = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
    if in_path & {"job_id", "key_id"}:
        assert "404" in operation["responses"]


@each_operation
def test_the_kinds_of_each_problem_are_shown(operation: Any) -> None:
    for status, response in problems(operation):
        [content] = response["content"].values()
        examples = [example["value"] for example in content["examples"].values()]
        assert examples
        for example in examples:
            kind = KINDS[example["type"].removeprefix(TYPE_PREFIX)]
            assert (example["title"], example["status"]) == (kind.title, int(status))
            validator(content["schema"]).validate(example)


@each_operation
def test_the_headers_of_responses_are_described(operation: Any) -> None:
    sent = {p["name"] for p in operation.get("parameters", []) if p["in"] == "header"}
    for status, response in responses(operation):
        headers = response["headers"]
        assert "X-Request-ID" in headers
        if "security" in operation:
            assert {"RateLimit", "RateLimit-Policy"} <= set(headers)
        assert response["description"] != "Successful Response"
        assert ("WWW-Authenticate" in headers) == (status == "401")
        is_success = status < "300"
        assert ("Preference-Applied" in headers) == ("Prefer" in sent and is_success)
        assert ("Idempotent-Replayed" in headers) == ("Idempotency-Key" in sent and is_success)
        for header in headers.values():
            assert resolved(header)["description"]
    for status, response in problems(operation):
        assert ("Retry-After" in response["headers"]) == (status in {"429", "503"})


def test_what_was_created_says_where_it_is() -> None:
    for operation_id in ("createJob", "createApiKey"):
        [operation] = [o for o in OPERATIONS.values() if o["operationId"] == operation_id]
        assert all("Location" in response["headers"] for response in successes(operation))


def test_pages_say_where_the_next_one_is() -> None:
    for operation_id in ("listJobs", "listDeadJobs"):
        [operation] = [o for o in OPERATIONS.values() if o["operationId"] == operation_id]
        assert all("Link" in response["headers"] for response in successes(operation))


@each_operation
def test_each_body_has_examples_that_are_valid(operation: Any) -> None:
    bodies = [operation["requestBody"]] if "requestBody" in operation else []
    for body in [*bodies, *successes(operation)]:
        for media_type, content in body.get("content", {}).items():
            if not media_type.endswith("json"):
                continue
            assert content["examples"], media_type
            for example in content["examples"].values():
                validator(content["schema"]).validate(example["value"])


def test_the_examples_of_all_models_are_valid_and_name_all_that_is_required() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        for example in schema.get("examples", []):
            validator(schema).validate(example)
            assert set(example) <= set(schema["properties"]), name


@each_operation
def test_links_lead_to_operations_with_what_the_answer_holds(operation: Any) -> None:
    for response in successes(operation):
        for link in response.get("links", {}).values():
            [target] = [o for o in OPERATIONS.values() if o["operationId"] == link["operationId"]]
            taken = {p["name"] for p in target["parameters"] if p["in"] == "path"}
            assert set(link["parameters"]) == taken
            [content] = response["content"].values()
            for expression in [*link["parameters"].values(), *link.get("requestBody", {}).values()]:
                value = next(iter(content["examples"].values()))["value"]
                for step in expression.removeprefix("$response.body#/").split("/"):
                    value = value[int(step)] if isinstance(value, list) else value[step]
                assert isinstance(value, str | int)


def test_all_links_are_from_operations_that_there_are() -> None:
    assert set(LINKS) <= {operation["operationId"] for operation in OPERATIONS.values()}


def test_no_response_claims_a_default_for_what_it_lacks() -> None:
    assert "default" not in DOCUMENT["components"]["schemas"]["Job"]["properties"]["queue"]
    assert DOCUMENT["components"]["schemas"]["NewJob"]["properties"]["queue"]["default"]


def test_bounds_are_told_in_the_words_of_json_schema() -> None:
    assert not re.findall("'(ge|gt|le|lt|min_length|max_length)': ", str(DOCUMENT))


def test_all_references_lead_somewhere_and_all_components_are_used() -> None:
    text = str(DOCUMENT)
    references = set(re.findall(r"'\$ref': '([^']*)'", text))
    for reference in references:
        assert resolved({"$ref": reference})
    components = {
        f"#/components/{section}/{name}"
        for section in ("schemas", "headers", "responses")
        for name in DOCUMENT["components"][section]
    }
    assert components == references
    assert set(HEADERS) == set(DOCUMENT["components"]["headers"])


def test_each_kind_of_problem_is_named_in_the_description_and_in_the_schema() -> None:
    types = [TYPE_PREFIX + name for name in KINDS]
    assert all(f"`{each}`" in DOCUMENT["info"]["description"] for each in types)
    schema = DOCUMENT["components"]["schemas"]["ProblemDetails"]
    assert schema["properties"]["type"]["examples"] == types


def test_the_document_is_what_is_served() -> None:
    served = TestClient(APP).get("/openapi.json")
    assert served.headers["content-type"] == "application/json"
    assert served.json() == DOCUMENT
