"""Errors leave the service here and nowhere else: RFC 9457 problem+json with a stable code and the request's id."""

from __future__ import annotations

import json
import logging
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from tenants.errors import FieldError, InvalidRequest, NotFound, TesseraError, TooManyRequests

log = logging.getLogger(__name__)
_HTTP = {
    404: ("no_such_route", "No such route", "There is no route {path}."),
    405: ("method_not_allowed", "Method not allowed", "The route {path} does not take {method}."),
}


class FieldProblem(BaseModel):
    """One field that is wrong."""

    pointer: str
    detail: str


class Problem(BaseModel):
    """The body of every error."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem]


def render(request: Request, error: TesseraError) -> Response:
    """Return the response for an error."""
    body = problem(error, str(getattr(request.state, "request_id", "")))
    headers = {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 408:
        headers["Connection"] = "close"  # what is still to come of the body is not waited for
    if error.status == 503:
        headers["Retry-After"] = "5"
    return Response(json.dumps(body), error.status, headers, media_type="application/problem+json")


def problem(error: TesseraError, request_id: str) -> dict[str, Any]:
    """Return the problem document of an error."""
    return Problem(
        type=f"urn:tessera:problem:{error.code}",
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        errors=[FieldProblem(pointer=field.pointer, detail=field.detail) for field in error.fields],
    ).model_dump()


async def _tessera(request: Request, error: Exception) -> Response:
    assert isinstance(error, TesseraError)
    if error.status >= 500:
        log.error("%s %s: %s", request.method, request.url.path, error.detail)
    return render(request, error)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = tuple(FieldError(".".join(str(part) for part in item["loc"]), str(item["msg"])) for item in error.errors())
    if fields and all(field.pointer.startswith("path.") for field in fields):
        return render(request, NotFound("There is no such object."))
    where = fields[0].pointer if fields else "the request"
    what = fields[0].detail if fields else "is not valid"
    return render(request, InvalidRequest(f"The request is not valid: {where}: {what}.", fields=fields))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail).rstrip(".")
    if error.status_code == 400:
        # FastAPI and Starlette say so of a body that cannot be read.
        return render(request, InvalidRequest(f"{detail}.", fields=(FieldError("body", detail),)))
    code, title, sentence = _HTTP.get(error.status_code, ("http_error", detail, f"{detail}."))
    shown = TesseraError(sentence.format(method=request.method, path=request.url.path), code=code)
    shown.status, shown.title = error.status_code, title
    return render(request, shown)


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return render(request, TesseraError("Something went wrong on our side; the request id leads to the log."))


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(TesseraError, _tessera)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)
