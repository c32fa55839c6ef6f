"""What the OpenAPI says beside the types: the errors of each route, headers, links and examples."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from backend.api.examples import DELIVERY_ID, ENDPOINT_ID, EXAMPLES, PRODUCT_ID, REQUEST_ID, TASK_ID
from backend.api.problems import MEDIA_TYPE, TYPE_BASE, Problem

_TAGS = {
    "pipelines": "Make something: each pipeline takes its own request and answers with a job.",
    "events": "Tell what happened elsewhere, and read what was done about it.",
    "jobs": "Follow and steer jobs. You see your own only.",
    "fleet": "What can be asked for, and which workers are there to do it.",
    "webhooks": "Who is told of your jobs, what deliveries are signed with, and how they went.",
    "products": "What you sell, with its images; one by one, or all of it as a table.",
    "files": "Images behind signed URLs. The signature is the permission: no API key is needed.",
    "health": "For load balancers and monitoring.",
}
_PROBLEMS = {
    400: ("malformed_json", "Malformed JSON", "The body can't be read as JSON."),
    401: (
        "unauthorized",
        "Unauthorized",
        "An API key or a user's access token is needed, and none that is valid was given.",
    ),
    403: ("signature_invalid", "Forbidden", "The signature of this URL is not valid, or has expired."),
    404: ("not_found", "Not found", "There is no such thing, or it isn't yours."),
    408: ("upload_timed_out", "Request timeout", "The body did not arrive in time."),
    409: ("conflict", "Conflict", "It is not in a state in which this can be done."),
    413: ("payload_too_large", "Payload too large", "The body is larger than what is taken."),
    415: ("unsupported_media_type", "Unsupported media type", "The body's content type is not taken here."),
    416: ("range_not_satisfiable", "Range not satisfiable", "The range lies outside of the object."),
    422: ("invalid_request", "Invalid request", "Some of what was sent is not valid; `errors` says what."),
    429: ("quota", "Too many requests", "You have too many images open: at most 1000 may be."),
    503: ("database_unavailable", "Service unavailable", "A service is away. Try again shortly."),
}
_PROBLEM_HEADERS = {
    401: {"WWW-Authenticate": "The scheme to use: `Bearer`; with `error` where a token was refused."},
    416: {"Content-Range": "`bytes */` and the size of the object."},
    429: {"Retry-After": "When to try again, in seconds."},
    503: {"Retry-After": "When to try again, in seconds."},
}
_IN_PATHS = {
    "task_id": TASK_ID, "event_id": TASK_ID, "key": f"jobs/{TASK_ID}/000/original.webp",
    "endpoint_id": ENDPOINT_ID, "delivery_id": DELIVERY_ID, "product_id": PRODUCT_ID,
}  # fmt: skip
_ABOUT_THE_JOB = {
    "get_job": "The job as it is now.",
    "stream_job_events": "What happens to it.",
    "cancel_job": "Stop it.",
    "retry_job": "Run again what failed.",
    "delete_job": "Delete it with its files.",
}
_ABOUT_THE_ENDPOINT = {
    "get_webhook_endpoint": "The endpoint as it is now.",
    "update_webhook_endpoint": "Change it.",
    "get_webhook_endpoint_secret": "What deliveries to it are signed with.",
    "rotate_webhook_endpoint_secret": "Give it a new secret.",
    "delete_webhook_endpoint": "Delete it.",
}
_ABOUT_THE_PRODUCT = {
    "get_product": "The product as it is now.",
    "replace_product": "Say anew what it is.",
    "delete_product": "Delete it with all that was made for it.",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems."""
    return {status: {"model": Problem, "description": _PROBLEMS[status][2]} for status in statuses}


def header(description: str, kind: str = "string") -> dict[str, Any]:
    """A header of a response."""
    return {"description": description, "schema": {"type": kind}}


def job_links() -> dict[str, Any]:
    """The `links` of a response that holds a job: what can be done with its id."""
    return _links(_ABOUT_THE_JOB, "task_id", "$response.body#/task_id")


def event_links() -> dict[str, Any]:
    """The same, of a response that holds an event."""
    return (
        _links({"get_event": "The event as it is now."}, "event_id", "$response.body#/event_id") | job_links()
    )


def endpoint_links() -> dict[str, Any]:
    """The same, of a response that holds an endpoint."""
    return _links(_ABOUT_THE_ENDPOINT, "endpoint_id", "$response.body#/id")


def product_links() -> dict[str, Any]:
    """The same, of a response that holds a product."""
    return _links(_ABOUT_THE_PRODUCT, "product_id", "$response.body#/id")


def _links(operations: dict[str, str], parameter: str, where: str) -> dict[str, Any]:
    return {
        operation: {"operationId": operation, "parameters": {parameter: where}, "description": description}
        for operation, description in operations.items()
    }


def install(app: FastAPI, *bodies: type[BaseModel]) -> None:
    """Makes the app's OpenAPI say `application/problem+json` where it is, with an example of every answer.

    `bodies` are schemas of requests that routes read themselves.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
            )
            _, read = models_json_schema(
                [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
            )
            schema["components"]["schemas"] |= read.get("$defs", {})
            _complete(schema)
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _complete(schema: dict[str, Any]) -> None:
    components = schema["components"]["schemas"]
    for name, example in EXAMPLES.items():
        if name in components:
            components[name]["examples"] = [example]
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                _drop_null(parameter)
            for status, response in operation["responses"].items():
                _describe(response, components)
                _mark_problem(path, operation, int(status), response)
                response.setdefault("headers", {})["X-Request-ID"] = header("The server's log has it, too.")


def _drop_null(parameter: dict[str, Any]) -> None:
    """Parameters can be left out, but there is no null in a URL or a header; generated clients offer none."""
    schema = parameter["schema"]
    options = schema.pop("anyOf", [])
    for option in options:
        if option != {"type": "null"}:
            schema.update(option)


def _describe(response: dict[str, Any], components: dict[str, Any]) -> None:
    """What the answer is, in the words of its schema, where the route says nothing of it."""
    if response["description"] == "Successful Response":
        media = response.get("content", {}).get("application/json", {})
        name = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
        response["description"] = components.get(name, {}).get("description", "Done.")


def _mark_problem(path: str, operation: dict[str, Any], status: int, response: dict[str, Any]) -> None:
    for media in list(response.get("content", {}).values()):
        if media.get("schema", {}).get("$ref", "").endswith("/Problem"):
            response["content"] = {MEDIA_TYPE: media | {"example": _example(path, operation, status)}}
            for name, description in _PROBLEM_HEADERS.get(status, {}).items():
                kind = "integer" if name == "Retry-After" else "string"
                response.setdefault("headers", {})[name] = header(description, kind)


def _example(path: str, operation: dict[str, Any], status: int) -> dict[str, Any]:
    code, title, detail = _PROBLEMS[status]
    if status == 404 and "files" in operation["tags"]:
        code, detail = "object_not_found", "There is no such object."
    return {
        "type": TYPE_BASE + code, "title": title, "status": status, "detail": detail,
        "instance": path.format(**_IN_PATHS),
        "code": code, "request_id": REQUEST_ID, "errors": _wrong_part(operation) if status == 422 else [],
    }  # fmt: skip


def _wrong_part(operation: dict[str, Any]) -> list[dict[str, Any]]:
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        detail = "Input should be less than or equal to 100"
        return [{"pointer": "#/count", "parameter": None, "detail": detail}]
    if "requestBody" in operation:
        return []
    name = operation["parameters"][0]["name"]
    return [{"pointer": None, "parameter": name, "detail": "Input should be a valid value"}]
