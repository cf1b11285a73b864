"""A server of models, or several that serve the same one: asked over HTTP, within a budget of time.

Who does not answer, or asks for patience, is passed over for the next; when all were asked there is a pause, as long as
they want (`Retry-After`) or twice the last, until the budget is spent. One that makes its callers wait in vain is left
alone for a moment (`breaker.py`). So a question waits for an absent server once or twice, not each time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import SecretStr

from shards.breaker import Breaker
from tenants.errors import Unavailable

_FIRST_PAUSE_S = 0.2
_SAID = 300


@dataclass(frozen=True)
class Patience:
    """Seconds to wait for a connection, for an answer, and in all. Where somebody waits, `swift`, the time until it is
    one's turn counts too."""

    connect_s: float
    answer_s: float
    total_s: float
    swift: bool = False


class Refusal(Unavailable):
    """A server refuses what it is asked, and would again: 400 (the content), 401 or 403 (the key), 404 (the model)."""

    def __init__(self, detail: str, status: int, *, code: str) -> None:
        super().__init__(detail, code=code)
        self.answered = status


@dataclass(frozen=True)
class _Trouble:
    """Why one server did not do it, and when it wants to be asked again."""

    why: str
    pause_s: float = 0.0


class ModelServer:
    """Asks for JSON with JSON. Every failure is `Unavailable` with the code that was given, or a `Refusal`."""

    def __init__(
        self, what: str, addresses: Sequence[str], key: SecretStr, patience: Patience, *, code: str, at_once: int
    ) -> None:
        self._what, self._code, self._patience = what, code, patience
        self._breakers = {address.rstrip("/"): Breaker(patience.answer_s) for address in addresses}
        self._order = list(self._breakers)
        self._turn = asyncio.Semaphore(at_once)
        secret = key.get_secret_value()
        limits = httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        self._client = httpx.AsyncClient(headers=headers, limits=limits)

    async def ask(self, path: str, body: dict[str, Any]) -> Any:
        """Return the answer to a POST.

        Raises:
            Refusal: a server refuses it.
            Unavailable: none did it within the budget, or the answer is no JSON.
        """
        began, total = time.monotonic(), self._patience.total_s
        try:
            async with asyncio.timeout(total if self._patience.swift else None):
                await self._turn.acquire()
        except TimeoutError as error:
            raise self.away(f"not within {total:g} s") from error
        try:
            return await self._asked(path, body, (began if self._patience.swift else time.monotonic()) + total)
        finally:
            self._turn.release()

    async def _asked(self, path: str, body: dict[str, Any], deadline: float) -> Any:
        pause = _FIRST_PAUSE_S
        while True:
            trouble = _Trouble("it is left alone for a moment")
            admitted = [address for address in self._order if self._breakers[address].admits()]
            for address in admitted:
                found = await self._try(address, path, body, deadline)
                if not isinstance(found, _Trouble):
                    self._prefer(address)
                    return found
                trouble = found
            wait = max(pause, trouble.pause_s)
            if not admitted or time.monotonic() + wait >= deadline:
                raise self.away(trouble.why)
            await asyncio.sleep(wait)
            pause *= 2

    def away(self, why: str) -> Unavailable:
        """Return the error of a server that does not do what it should."""
        return Unavailable(f"{self._what} does not answer: {why}"[: 2 * _SAID], code=self._code)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _prefer(self, address: str) -> None:
        """Ask the one that answered first from now on."""
        if self._order[0] != address:
            self._order = [address, *(other for other in self._order if other != address)]

    async def _try(self, address: str, path: str, body: dict[str, Any], deadline: float) -> Any:
        began = time.monotonic()
        left = max(0.05, min(self._patience.answer_s, deadline - began))
        timeout = httpx.Timeout(left, connect=min(left, self._patience.connect_s))
        try:
            async with asyncio.timeout(left):
                answer = await self._client.post(address + path, json=body, timeout=timeout)
        except (httpx.HTTPError, TimeoutError) as error:
            self._breakers[address].failed(time.monotonic() - began)
            return _Trouble(f"{address} ({type(error).__name__})")
        self._breakers[address].answered()
        if answer.status_code in (408, 425, 429) or answer.status_code >= 500:
            return _Trouble(
                f"{address} answers {answer.status_code}: {_said(answer)}", asked_pause_s(answer.headers) or 0.0
            )
        if answer.status_code >= 400:
            detail = f"{self._what} is refused by {address} ({answer.status_code}): {_said(answer)}"
            raise Refusal(detail, answer.status_code, code=self._code)
        try:
            return answer.json()
        except ValueError:
            return _Trouble(f"{address} answers no JSON")


def _said(answer: httpx.Response) -> str:
    return " ".join(answer.text[:_SAID].split())


def asked_pause_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks for in `Retry-After`, None without; its form with a date is not read."""
    given = headers.get("retry-after", "")
    return float(given) if given.isascii() and given.isdigit() else None
