"""What the OpenAPI says beside the types: the errors of each route, with examples."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from backend.api.problems import MEDIA_TYPE, TYPE_BASE, Problem

_TITLES = {
    400: ("malformed_json", "Malformed JSON", "The body can't be read as JSON."),
    401: (
        "unauthorized",
        "Unauthorized",
        "An API key is needed, and none, or none that is known, was given.",
    ),
    403: ("signature_invalid", "Forbidden", "The signature of this URL is not valid."),
    404: ("not_found", "Not found", "There is no such job."),
    408: ("upload_timed_out", "Request timeout", "The body did not arrive in time."),
    409: ("conflict", "Conflict", "Nothing failed: the job is completed."),
    413: ("payload_too_large", "Content Too Large", "The body is larger than what is taken."),
    415: ("unsupported_media_type", "Unsupported media type", "Send application/json."),
    416: ("range_not_satisfiable", "Range not satisfiable", "The range lies outside of the object."),
    422: ("invalid_request", "Invalid request", "Some of what was sent is not valid; `errors` says what."),
    429: ("too_many_requests", "Too many requests", "Come back later."),
    503: ("database_unavailable", "Service unavailable", "The database can't be reached. Try again shortly."),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems."""
    return {status: {"model": Problem, "description": _TITLES[status][1]} for status in statuses}


def install(app: FastAPI) -> None:
    """Makes the app's OpenAPI say `application/problem+json` where it is, with an example each."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            for operations in schema["paths"].values():
                for operation in operations.values():
                    _mark_problems(operation["responses"])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _mark_problems(responses: dict[str, Any]) -> None:
    for status, response in responses.items():
        content = response.get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        if schema.get("$ref", "").endswith("/Problem"):
            response["content"] = {MEDIA_TYPE: {"schema": schema, "example": _example(int(status))}}
            if status in ("429", "503"):
                response["headers"] = {
                    "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}
                }


def _example(status: int) -> dict[str, Any]:
    code, title, detail = _TITLES[status]
    wrong = {"pointer": "#/count", "parameter": None, "detail": "Input should be less than or equal to 100"}
    return Problem(
        type=TYPE_BASE + code, title=title, status=status, detail=detail, instance="/v1/thumbnails",
        code=code, request_id="3f2a9c5e8b1d4f60a7c2e4d6b8f0a1c3",
    ).model_dump() | {"errors": [wrong] if status == 422 else []}  # fmt: skip
