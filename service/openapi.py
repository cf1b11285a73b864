"""The OpenAPI document: FastAPI's, with every error a route can give, as problem+json."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.problems import Problem

_OPEN_ROUTES = ("/healthz", "/servingz")
_BOUNDED = (
    ("post", "/v1/documents"),
    ("post", "/v1/documents/bulk"),
    ("post", "/v1/search"),
    ("post", "/v1/chat"),
    ("get", "/v1/jobs/{job_id}/events"),
)
_MEANINGS = {
    "401": "The key is missing, malformed, unknown, revoked or expired",
    "403": "The tenant is suspended",
    "404": "There is no such object for this caller",
    "408": "The body came too slowly",
    "409": "The request contradicts the present state",
    "413": "The body is too large",
    "415": "The type of the file is not known",
    "422": "The request is not valid",
    "429": "More at once than the tenant may; come back after `Retry-After` seconds",
    "500": "Something went wrong on our side",
    "507": "The engines have no room; the message says what the operator can do",
    "503": "A dependency is away; try again later",
}


def install(app: FastAPI) -> None:
    """Make `app.openapi` return the complete document."""

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            app.openapi_schema = _complete(schema)
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _complete(schema: dict[str, Any]) -> dict[str, Any]:
    schema["components"]["schemas"]["Problem"] = Problem.model_json_schema(
        ref_template="#/components/schemas/{model}"
    ) | {"title": "Problem"}
    nested = schema["components"]["schemas"]["Problem"].pop("$defs", {})
    schema["components"]["schemas"].update(nested)
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            for status in _statuses(path, method, operation):
                operation["responses"][status] = {
                    "description": _MEANINGS[status],
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
    return schema


def _statuses(path: str, method: str, operation: dict[str, Any]) -> list[str]:
    if path in _OPEN_ROUTES:
        return ["401", "500"]
    statuses = ["401", "422", "500"]
    if path.startswith("/readyz"):
        return ["401", "500"]
    statuses.append("503")
    if not path.startswith("/v1/admin"):
        statuses.append("403")
    if "{" in path or path == "/v1/chat":
        statuses.append("404")
    if method == "post":
        statuses += ["409", "413"]
    if path.startswith("/v1/admin/tenants/{") or (path.startswith("/v1/sources/{") and method == "patch"):
        statuses.append("409")
    if method == "post" and (path == "/v1/admin/tenants" or path.endswith("/placement")):
        statuses.append("507")
    if path == "/v1/documents" and method == "post":
        statuses.append("415")
    if path in ("/v1/documents", "/v1/documents/bulk") and method == "post":
        statuses.append("408")
    if (method, path) in _BOUNDED:
        statuses.append("429")
    return sorted(set(statuses))
