"""The one error handler: every error becomes a problem (RFC 9457), and none tells more than it should."""

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from backend.errors import (
    FanfareError,
    FieldError,
    NotFound,
    PayloadTooLarge,
    Unauthorized,
    UnsupportedMediaType,
)
from backend.pipelines.base import words_of

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_BASE = "urn:fanfare:error:"

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_KINDS: dict[int, type[FanfareError]] = {  # what the framework finds, in the words of our own errors
    404: NotFound,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
}
_CODES = {400: "malformed_request", 405: "method_not_allowed"}


class ProblemDetail(BaseModel):
    """One thing that is wrong with the request."""

    pointer: str | None = Field(default=None, description="JSON pointer into the body.", examples=["#/count"])
    parameter: str | None = Field(default=None, description="Or the name of a query parameter or header.")
    detail: str = Field(description="What is wrong with it, for people.")


class Problem(BaseModel):
    """An error, by RFC 9457."""

    type: str = Field(description="The code as a URN.", examples=["urn:fanfare:error:invalid_request"])
    title: str = Field(description="The kind of error, for people.", examples=["Invalid request"])
    status: int = Field(description="The HTTP status.", examples=[422])
    detail: str = Field(description="For people.")
    instance: str = Field(description="The path that was asked for.", examples=["/v1/thumbnails"])
    code: str = Field(description="Stable: branch on it.", examples=["invalid_request"])
    request_id: str = Field(description="What the server's log has, too.")
    errors: list[ProblemDetail] = Field(default=[], description="What is wrong, part by part.")


def install(app: FastAPI) -> None:
    """Hands all errors of the app to this module."""
    app.add_exception_handler(FanfareError, _on_fanfare_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)


def answer(
    request: Request,
    *,
    status: int,
    code: str,
    title: str,
    detail: str,
    errors: Sequence[ProblemDetail] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """The problem as a response."""
    problem = Problem(
        type=TYPE_BASE + code,
        title=title,
        status=status,
        detail=detail,
        instance=request.url.path,
        code=code,
        request_id=str(getattr(request.state, "request_id", "-")),
        errors=list(errors),
    )
    return JSONResponse(problem.model_dump(), status, headers, media_type=MEDIA_TYPE)


def of_error(request: Request, exc: FanfareError) -> JSONResponse:
    """The problem that one of our own errors is. One that is nobody's fault outside becomes a plain 500."""
    headers: dict[str, str] = {}
    if exc.retry_after_s is not None:
        headers["Retry-After"] = str(exc.retry_after_s)
    if isinstance(exc, Unauthorized):
        headers["WWW-Authenticate"] = exc.challenge
    return answer(
        request,
        status=exc.status,
        code=exc.code,
        title=exc.title,
        detail=exc.detail,
        errors=[_detail_of(error) for error in exc.errors],
        headers=headers,
    )


async def _on_fanfare_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, FanfareError)
    if exc.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return await _on_unexpected(request, exc)
    if exc.status > HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s", request.method, request.url.path, exc.code, exc_info=exc)
    return of_error(request, exc)


def _detail_of(error: FieldError) -> ProblemDetail:
    if error.pointer.startswith("#"):
        return ProblemDetail(pointer=error.pointer, detail=error.detail)
    return ProblemDetail(parameter=error.pointer, detail=error.detail)


async def _on_validation_error(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, RequestValidationError)
    malformed = [error for error in exc.errors() if error["type"] == "json_invalid"]
    if malformed:
        return _malformed(request, str(malformed[0].get("ctx", {}).get("error") or malformed[0]["msg"]))
    return answer(
        request,
        status=422,
        code="invalid_request",
        title="Invalid request",
        detail="Some of what was sent is not valid; `errors` says what.",
        errors=[_explain(error) for error in exc.errors()],
    )


def _malformed(request: Request, why: str) -> JSONResponse:
    root = [ProblemDetail(pointer="#", detail=why)]
    return answer(
        request, status=400, code="malformed_json", title="Malformed JSON",
        detail="The body can't be read as JSON.", errors=root,
    )  # fmt: skip


def _explain(error: dict[str, Any]) -> ProblemDetail:
    place, *path = error["loc"]
    text = words_of(error)
    if place == "body":
        return ProblemDetail(pointer="#" + "".join(f"/{_escape(part)}" for part in path), detail=text)
    return ProblemDetail(parameter=str(path[0]) if path else str(place), detail=text)


def _escape(part: object) -> str:
    return str(part)[:100].replace("~", "~0").replace("/", "~1")


async def _on_http_exception(request: Request, exc: Exception) -> JSONResponse:
    assert isinstance(exc, HTTPException)
    if kind := _KINDS.get(exc.status_code):
        return of_error(request, kind())
    headers = dict(exc.headers or {})
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_at(request))
    phrase = HTTPStatus(exc.status_code).phrase
    return answer(
        request,
        status=exc.status_code,
        code=_CODES.get(exc.status_code, phrase.lower().replace(" ", "_")),
        title=phrase,
        detail=HTTPStatus(exc.status_code).description or phrase,
        headers=headers,
    )


def _methods_at(request: Request) -> list[str]:
    """All methods of this path: the framework names those of the first of its routes only."""
    routes = request.app.router.routes
    scopes = ((method, dict(request.scope, method=method)) for method in _METHODS)
    return [m for m, scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in routes)]


async def _on_unexpected(request: Request, exc: Exception) -> JSONResponse:
    log.exception("%s %s failed", request.method, request.url.path, exc_info=exc)
    return answer(
        request,
        status=500,
        code="internal",
        title="Internal error",
        detail="Something went wrong on our side. The request id helps us to find it.",
    )
