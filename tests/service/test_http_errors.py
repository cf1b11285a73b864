"""Requests that no route gets to see, and the OpenAPI document that names every error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

    from tests.conftest import TenantAccess

CASES: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("GET", "/v1/nothing", {}, 404, "no_such_route"),
    ("PUT", "/v1/search", {}, 405, "method_not_allowed"),
    ("POST", "/v1/search", {"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "invalid_request"),
    (
        "POST",
        "/v1/search",
        {"content": b'{"not":' * 3000 + b"1" + b"}" * 3000, "headers": {"Content-Type": "application/json"}},
        422,
        "invalid_request",
    ),
    ("POST", "/v1/search", {"json": {"query": "x" * 2_000_000}}, 413, "too_large"),
    (
        "POST",
        "/v1/documents",
        {"files": [("file", ("a.txt", b"a")), ("file", ("b.txt", b"b"))]},
        422,
        "invalid_request",
    ),
    (
        "POST",
        "/v1/documents",
        {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}},
        422,
        "invalid_request",
    ),
    ("GET", "/v1/documents/nonsense", {}, 404, "not_found"),
    ("GET", "/v1/documents?limit=1000", {}, 422, "invalid_request"),
    ("GET", "/v1/documents?cursor=nonsense", {}, 422, "invalid_cursor"),
    ("GET", "/v1/documents?filter=[[[[", {}, 422, "invalid_filter"),
]


@pytest.mark.parametrize(("method", "path", "request_", "status", "code"), CASES)
async def test_every_refusal_is_a_problem_with_a_code(
    tenant: TenantAccess, method: str, path: str, request_: dict[str, Any], status: int, code: str
) -> None:
    answer = await tenant.client.request(method, path, **request_)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "code", "request_id", "errors"}
    assert problem["status"] == status
    assert problem["detail"].endswith(".")
    assert problem["request_id"] == answer.headers["x-request-id"]


async def test_openapi_names_the_errors_of_every_route(admin: httpx.AsyncClient) -> None:
    document = (await admin.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            responses = operation["responses"]
            assert {"401", "500"} <= set(responses), (method, path)
            if "{" in path:
                assert "404" in responses, (method, path)
            for status, response in responses.items():
                if status >= "400" and path not in ("/readyz", "/servingz"):
                    assert list(response["content"]) == ["application/problem+json"], (method, path, status)
    assert set(document["paths"]["/v1/documents"]["post"]["responses"]) >= {"200", "202", "413", "415", "422"}
