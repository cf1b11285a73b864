"""HTTP to a Tessera service: every refusal becomes `ApiProblem`, every broken connection `Unreachable`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tenants.errors import FieldError, InvalidRequest, TesseraError, Unauthenticated, Unavailable

Json = dict[str, Any]
CONNECT_TIMEOUT_S = 5.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TRY_AGAIN = (429, 502, 503, 504)


class ApiProblem(TesseraError):
    """The service refused: its problem document (RFC 9457), of which `code` is stable and `detail` a sentence."""

    def __init__(
        self,
        code: str,
        status: int,
        detail: str,
        errors: tuple[FieldError, ...] = (),
        request_id: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail, code=code, fields=errors)
        self.retry_after_s = retry_after_s
        self.status = status
        self.errors = errors
        self.request_id = request_id
        self.retryable = status in _TRY_AGAIN

    def __str__(self) -> str:
        request = f", request {self.request_id}" if self.request_id else ""
        return f"{self.detail} ({self.code}{request})"


class Unreachable(Unavailable):
    """Nothing answers at the address, or the connection broke."""

    code = "server_unreachable"
    title = "Server unreachable"


class Transport:
    """Requests to one address with one key. Loopback addresses are never sent through a proxy."""

    def __init__(self, base_url: str, key: str, *, timeout_s: float) -> None:
        self.url = _checked_url(base_url)
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {_checked_key(key)}"},
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            trust_env=httpx.URL(self.url).host not in _LOOPBACK,
        )

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request and return the answer with its body.

        Raises:
            ApiProblem: the status is 300 or more (the API never redirects).
            Unreachable: no answer came.
        """
        async with self.stream(method, path, **options) as response:
            await response.aread()
            return response

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Any) -> AsyncGenerator[httpx.Response, None]:
        """Send a request and give the answer while its body is still to be read; raises as `send` does."""
        try:
            async with self._http.stream(method, path, **options) as response:
                if response.status_code >= 300:
                    await response.aread()
                    raise problem_of(response)
                yield response
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self.url} did not answer in time.", code="server_timeout") from error
        except httpx.TransportError as error:
            reason = f" ({error})" if str(error) else ""
            raise Unreachable(f"{self.url} cannot be reached{reason}. Does the service run there?") from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()


def json_of(response: httpx.Response) -> Json:
    """Return the JSON object of an answer; raise `Unreachable` (`not_tessera`) when it is none."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Unreachable(f"What answers at {response.url} is not Tessera.", code="not_tessera")
    return body


def problem_of(response: httpx.Response) -> ApiProblem:
    """Read a problem document; an answer that is none, as a proxy sends it, gets the code `http_<status>`."""
    try:
        body = response.json()
    except ValueError:
        body = None
    pause = response.headers.get("retry-after", "")
    retry_after_s = float(pause) if pause.isdigit() else None
    if isinstance(body, dict) and "code" in body:
        return problem_from(body, retry_after_s)
    detail = f"The server answered {response.status_code} {response.reason_phrase} without saying why."
    return ApiProblem(
        f"http_{response.status_code}",
        response.status_code,
        detail,
        request_id=response.headers.get("x-request-id", ""),
        retry_after_s=retry_after_s,
    )


def problem_from(body: Json, retry_after_s: float | None = None) -> ApiProblem:
    """Return the error of a problem document."""
    errors = tuple(
        FieldError(str(item.get("pointer", "")), str(item.get("detail", ""))) for item in body.get("errors", ())
    )
    detail, request_id = str(body.get("detail", "")), str(body.get("request_id", ""))
    return ApiProblem(str(body["code"]), int(body.get("status", 500)), detail, errors, request_id, retry_after_s)


def _checked_url(text: str) -> str:
    try:
        url = httpx.URL(text.strip())
    except httpx.InvalidURL as error:
        raise InvalidRequest(f"{text!r} is not an address: {error}.", code="invalid_url") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise InvalidRequest(f"{text!r} is not an address such as http://127.0.0.1:8321.", code="invalid_url")
    return str(url).rstrip("/")


def _checked_key(key: str) -> str:
    bare = key.strip()
    if not bare or not bare.isascii() or not bare.isprintable() or " " in bare:
        raise Unauthenticated("The key is not a Tessera key; check that it was copied whole.", code="malformed_key")
    return bare
